"""A cluster of Ray on this machine's loopback, held by a process of its own, whose nodes come and go as a test says.

As a module it is that process: it reads ``add`` or ``kill NUMBER`` from its standard input, a line each, and answers with a line; when
its input ends, so does the cluster. It never asks Ray to stop: that would end every cluster of the machine.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.children import PATIENCE, end, python, wait_for

LOOPBACK = "127.0.0.1"
# A node that is gone is found out within two seconds; one that is only slow to answer is not taken for it.
SYSTEM = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
    "health_check_timeout_ms": 1000 * round(PATIENCE),
}
STORE = 80 << 20  # bytes of shared memory a node


class Nodes:
    """The test's side: a head without a CPU, and nodes with one each."""

    def __init__(self, count: int) -> None:
        # Short: the name of a socket below it has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="dv-ray-"))
        self.environment = {
            "HOME": str(self.folder / "home"),
            "RAY_TMPDIR": str(self.folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_worker_niceness": "0",  # else whatever else the machine does comes before the workers
        }
        (self.folder / "home").mkdir()
        self._holder = python(
            "-m",
            "tests.scoring.ray_nodes",
            env=uncounted(os.environ) | self.environment,
            stdin=subprocess.PIPE,
            stderr=None,
        )
        self.environment["RAY_ADDRESS"] = self._heard()["address"]
        self.nodes = [self.add() for _ in range(count)]

    def add(self) -> int:
        return int(self._said("add")["node"])

    def kill(self, node: int) -> None:
        """End a node and all that works on it, without a warning."""
        self._said(f"kill {node}")

    def close(self) -> None:
        """End every process of the cluster, each by its number."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._holder.wait(60)
        end(self._holder)
        end_all(self.folder)

    def _said(self, command: str) -> dict[str, Any]:
        assert self._holder.stdin is not None
        self._holder.stdin.write(command + "\n")
        self._holder.stdin.flush()
        return self._heard()

    def _heard(self) -> dict[str, Any]:
        assert self._holder.stdout is not None
        for line in self._holder.stdout:
            if line.startswith("{"):  # Ray says a thing or two besides
                return dict(json.loads(line))
        raise AssertionError("The process that holds the cluster has ended.")


def uncounted(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables without those by which Ray's own processes would count which of their lines are run."""
    return {name: value for name, value in variables.items() if not name.startswith("COVERAGE_")}


def processes(folder: Path) -> set[int]:
    """Return the numbers of all processes of Ray whose folder for temporary files that is, workers included."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return {pid for pid in numbers if f"RAY_TMPDIR={folder}".encode() in _environment(pid).split(b"\0")}


def end_all(folder: Path) -> None:
    """End them, each by its number, and remove the folder: agents outlive what they are for by half a minute."""

    def are_gone() -> bool:
        left = processes(folder)
        for pid in left:  # again and again: one that is seen for the first time was started by another's last breath
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_for(are_gone, "The end of Ray's processes")
    shutil.rmtree(folder, ignore_errors=True)


def _environment(pid: int) -> bytes:
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return b""
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def hold() -> None:
    """Be the process that holds the cluster."""
    from ray.cluster_utils import Cluster

    usual: dict[str, Any] = {"node_ip_address": LOOPBACK, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": SYSTEM, **usual})
    nodes: dict[int, Any] = {}

    def say(**said: object) -> None:
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    say(address=cluster.address)
    for number, line in enumerate(sys.stdin):
        match line.split():
            case ["add"]:
                nodes[number] = cluster.add_node(num_cpus=1, wait=False, **usual)
                cluster._wait_for_node(nodes[number], timeout=PATIENCE)  # by itself it waits for half a minute
                say(node=number)
            case ["kill", which]:
                cluster.remove_node(nodes.pop(int(which)), allow_graceful=False)
                say(killed=int(which))
    for node in cluster.list_all_nodes():
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
    os._exit(0)  # Ray's own end would look for what is gone


if __name__ == "__main__":
    hold()
