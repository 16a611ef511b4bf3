"""Workers as actors of Ray: the one module that imports it.

A worker is a plain actor that Ray starts anew whenever it dies, wherever there is room, and that ends with the process that asked
for it. Calls are not repeated by Ray: what was lost is the crew's affair. Ray is a choice of an extra, ``datavisor[ray]``.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from datavisor import __version__
from vlm.scoring.crew import IN_FLIGHT, Call
from vlm.scoring.errors import WorkerLost, WorkerRefused, WorkersUnavailable
from vlm.scoring.places import Workers
from vlm.scoring.worker import Outfit, Worker

logger = logging.getLogger(__name__)

MISSING = 'Workers need Ray, which is not installed here. Install it on every machine: pip install "datavisor[ray]".'
# Bytes, the least that Ray takes in good grace: ids go out, and answers of half a kilobyte come back.
OBJECT_STORE = 100 << 20
CALLS = IN_FLIGHT + 1  # at once: batches, and whether it lives
LOOPBACK = "127.0.0.1"
UNBORN = "creation task"  # by which Ray tells of an actor that could not even be made
SLOW = "Initialization failure"  # of a client's own server
MOST_SAID = 200  # characters
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Ray asks these of the environment. Who is on a network with it runs any code on it without a token; nothing is told to anybody; and
# what it prints of a worker that died does not get into a command's JSON: the crew says that in the log.
ALWAYS = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
# Without it the loopback address is replaced by the machine's outer one.
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True, slots=True)
class Share:
    """What each worker gets of its machine."""

    workers: int
    cpus: int
    gpus: int


class RayTransport:
    """Calls to actors."""

    def __init__(self, ray: Any, actors: Mapping[str, Any]) -> None:
        self._ray, self._actors = ray, dict(actors)

    @property
    def names(self) -> Sequence[str]:
        return list(self._actors)

    def call(self, name: str, method: str, *arguments: object) -> Call:
        try:
            call: Call = getattr(self._actors[name], method).remote(*arguments)
        except Exception as error:  # noqa: BLE001 - of whichever layer of Ray; it is the answer to this call
            return _Failed(_first_line(error))
        return call

    def ready(self, calls: Sequence[Call], seconds: float) -> Sequence[Call]:
        if failed := [call for call in calls if isinstance(call, _Failed)]:
            return failed
        try:
            first, rest = self._ray.wait(list(calls), num_returns=1, timeout=seconds, fetch_local=False)
            more, _ = (
                self._ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)
                if first and rest
                else ([], [])
            )
        except Exception as error:  # the cluster itself is gone, or this process is about to be
            raise WorkerLost(_first_line(error)) from error
        return [*first, *more]

    def result(self, call: Call) -> Any:
        if isinstance(call, _Failed):
            raise WorkerLost(call.why)
        try:
            return self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:  # what the worker itself raised
            raise error.cause from error
        except Exception as error:
            if UNBORN in str(error):  # Ray will not try again
                raise WorkerRefused(
                    f"It could not be started ({_lines(error)[-1]}). Install DataVisor {__version__} with datavisor[ray] on every machine "
                    "of the cluster."
                ) from error
            raise WorkerLost(_first_line(error)) from error

    def restart(self, name: str) -> None:
        with suppress(Exception):  # it may be gone already
            self._ray.kill(self._actors[name], no_restart=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Failed:
    """A call that could not even be made."""

    why: str


@contextmanager
def cluster(workers: Workers, outfit: Outfit, *, kind: type[Worker] = Worker) -> Iterator[RayTransport]:
    """Yield workers, which end with the block. They are called, and have no model yet.

    Args:
        kind: of worker; benchmarks have others.

    Raises:
        WorkersUnavailable: there is no Ray, no such cluster, or nothing in it for a worker.
    """
    ray = load(workers)
    _connect(ray, workers)
    actors: dict[str, Any] = {}
    try:
        share = _share(ray, workers, outfit)
        actor = ray.remote(kind).options(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=CALLS,
            scheduling_strategy="SPREAD",
        )
        # Which GPU it is has been seen to: the worker has no other.
        device = "cuda" if outfit.device.startswith("cuda") else outfit.device
        given = replace(outfit, cores=share.cpus, device=device)
        actors = {str(number): actor.remote(given) for number in range(1, share.workers + 1)}
        yield RayTransport(ray, actors)
    finally:
        for one in actors.values():
            with suppress(Exception):  # Ray itself may be gone
                ray.kill(one)
        with suppress(Exception):
            ray.shutdown()


def load(workers: Workers) -> Any:
    """Return Ray, imported with the settings that it reads from the environment at that moment; what the user has set stays.

    Raises:
        WorkersUnavailable: it is not installed.
    """
    wanted = ALWAYS | (ALONE if workers.kind == "local" else {})
    if workers.kind == "local" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        # Of this process's own cluster. Ray would leave one in the home folder, which need not be writable, and from then on ask for
        # it on this machine wherever it is started.
        wanted |= {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise WorkersUnavailable(MISSING) from None
    return ray


def _connect(ray: Any, workers: Workers) -> None:
    usual = {"log_to_driver": False, "logging_level": logging.ERROR}
    start: Callable[[], Any]
    if workers.kind == "local":
        start = partial(
            ray.init,
            "local",  # else it would join whatever cluster somebody has left behind on this machine
            num_cpus=max(workers.count, os.cpu_count() or 1),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            _node_ip_address=LOOPBACK,
            **usual,
        )
    else:
        start = partial(ray.init, workers.address or "auto", **usual)
    try:
        _patiently(start)
    except Exception as error:
        where = {"local": "on this machine", "auto": "that this machine is in"}.get(
            workers.kind, f"at {workers.address}"
        )
        raise WorkersUnavailable(
            f"No Ray cluster {where} can be used ({_first_line(error)}). Look whether it runs (ray status), whether both sides have the "
            "same Ray and Python, and whether this process has the cluster's token (~/.ray/auth_token, RAY_AUTH_TOKEN_PATH or "
            "RAY_AUTH_TOKEN): Ray tells of a wrong one as of a connection that fails."
        ) from error


def _patiently(start: Callable[[], Any]) -> None:
    """Connect; twice where the cluster was asked for its first client, whose server a busy machine may start too slowly."""
    try:
        start()
    except ConnectionError as error:
        if SLOW not in str(error):
            raise
        start()


def _share(ray: Any, workers: Workers, outfit: Outfit) -> Share:
    """Divide what there is: a worker for each GPU, or where there is none, or none is wanted, for each node.

    Raises:
        WorkersUnavailable: there is nothing to divide, or less than was asked for.
    """
    # A node without a CPU, as the head beside the server may be, is for no worker, whatever else it has.
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    gpus = [(int(node["GPU"]), int(node["CPU"])) for node in nodes if node.get("GPU", 0) >= 1]
    if gpus and outfit.device not in ("cpu", "mps"):
        there = sum(number for number, _ in gpus)
        if workers.count > there:
            raise WorkersUnavailable(
                f"{workers.count} workers are asked for, one per GPU, and there are {there}. Ask for as many at most, or set "
                "DATAVISOR_VLM_DEVICE to cpu."
            )
        return Share(workers.count or there, max(1, min(cpus // number for number, cpus in gpus)), 1)
    cpus = [int(node["CPU"]) for node in nodes]
    if not cpus:
        raise WorkersUnavailable(
            "The Ray cluster has no node with a CPU or a GPU for a worker. Start one on each machine that is to work: ray start "
            "--address=HEAD:PORT."
        )
    if workers.kind == "local":
        count = workers.count or 1
        return Share(count, max(1, cpus[0] // count), 0)
    return Share(len(cpus), min(cpus), 0)


def _first_line(error: BaseException) -> str:
    """Return what an error of Ray says in its first line, which is followed by traces and advice."""
    return _lines(error)[0][:MOST_SAID]


def _lines(error: BaseException) -> list[str]:
    plain = _COLOURS.sub("", str(error))
    return [line.strip() for line in plain.splitlines() if line.strip()] or [type(error).__name__]
