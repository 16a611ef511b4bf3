"""Processes that begin where the imports end.

PyTorch and what belongs to it take a process ten seconds to import. The workshop imports them once, and forks a process
for each command that a test gives it: one with its own environment, folder, pipes, signals and end, as if it had been
started from a shell. What reads the environment (settings, servers) is imported after the fork only.

Tests of how a process starts have no use for it: they start a real one.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
MESSAGE = 2**20  # bytes, at most: arguments and environment of a command
# What needs no settings. Of Twisted all but its reactor, whose event loop must be each process's own.
AHEAD = (
    "autobahn.twisted.websocket",
    "django.contrib.admin.utils",
    "django.core.management",
    "duckdb",
    "numpy",
    "PIL.Image",
    "pillow_heif",
    "rich.progress",
    "twisted.internet.asyncioreactor",
    "twisted.web.http",
    "vlm.formats",
    "vlm.moondream.loading",
    "vlm.samples",
)

START = "from tests.workshop import serve; run = serve(); run()"


# -- the test's side -----------------------------------------------------------------------------------------------------
class Forked:
    """A process of the workshop, as far as tests need it like a ``subprocess.Popen`` of texts."""

    def __init__(self, args: tuple[str, ...], control: socket.socket, pipes: tuple[int | None, int, int]) -> None:
        self.args, self._control = args, control
        self.returncode: int | None = None
        self.stdin: IO[str] | None = None if pipes[0] is None else os.fdopen(pipes[0], "w", encoding="utf-8")
        self.stdout: IO[str] | None = os.fdopen(pipes[1], encoding="utf-8")
        self.stderr: IO[str] | None = os.fdopen(pipes[2], encoding="utf-8")
        self._read: dict[str, str] = {}
        self._readers: list[threading.Thread] = []
        self.pid = int(self._hear())

    def _hear(self) -> str:
        """Return the next message: the number of the process, and later how it ended, which it may have done by now."""
        if not (said := self._control.recv(64)):
            raise AssertionError(f"The workshop ended, and with it {self.args!r}.")
        return said.decode()

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._control], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._hear())
            self._control.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended since, which nobody has told yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Close its standard input, and return all that it writes."""
        if self.stdin is not None:
            self.stdin.close()
        if not self._readers:
            self._readers = [
                threading.Thread(target=self._drain, args=[name], daemon=True) for name in ("stdout", "stderr")
            ]
            for reader in self._readers:
                reader.start()
        deadline = None if timeout is None else time.monotonic() + timeout
        for reader in self._readers:
            reader.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self._read["stdout"], self._read["stderr"]

    def _drain(self, name: str) -> None:
        pipe: IO[str] = getattr(self, name)
        self._read[name] = pipe.read()


@cache
def _workshop() -> socket.socket:
    """Start this process's workshop, which ends with it. It has no settings: what would read them ahead fails loudly."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    with theirs:
        subprocess.Popen(
            [sys.executable, "-c", START, str(theirs.fileno())],
            cwd=ROOT, env=own | {"PYTHONPATH": str(ROOT)}, pass_fds=[theirs.fileno()],
        )  # fmt: skip
    return ours


def fork(
    *arguments: str, env: dict[str, str], cwd: Path = ROOT, stdin: bool = False, log: Path | None = None
) -> Forked:
    """Start what ``python *arguments`` would start: a file, ``-m`` with a module, or ``-c`` with code.

    Args:
        stdin: give it a pipe to read from; else there is nothing to read.
        log: where all that it writes is added; else it writes into pipes.
    """
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), None)
    (out, out_there), (errors, errors_there) = os.pipe(), os.pipe()
    given = [reading, out_there, errors_there]
    if log is not None:
        given[1:] = [os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)] * 2
    message = json.dumps({"arguments": arguments, "env": env, "cwd": str(cwd)}).encode()
    socket.send_fds(_workshop(), [message], [*given, theirs.fileno()])
    theirs.close()
    for descriptor in {*given, out_there, errors_there}:
        os.close(descriptor)
    return Forked(arguments, control, (writing, out, errors))


# -- the workshop's side -------------------------------------------------------------------------------------------------
def serve() -> Callable[[], None]:
    """Fork whenever the test asks for it; returns, in each child, what it is to do, and nowhere else."""
    for name in AHEAD:
        __import__(name)
    assert "twisted.internet.reactor" not in sys.modules
    gc.collect()
    gc.freeze()  # a child that ends need not look through all that was imported
    asked = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a warden's end is nobody's concern
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the test's own Ctrl-C; the workshop ends when nobody can ask any more
    while True:
        message, descriptors, *_ = socket.recv_fds(asked, MESSAGE, 4)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            asked.close()
            return _warded(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _warded(wanted: dict[str, object], descriptors: list[int]) -> Callable[[], None]:
    """As a warden: start the child, and tell its number and, when it has ended, how. As the child: return what to do."""
    control = socket.socket(fileno=descriptors[3])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():
        for descriptor in (0, 1, 2, *descriptors[:3]):
            os.close(descriptor)
        control.sendall(str(child).encode())
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(OSError):  # the test may be gone
            control.sendall(str(ended).encode())
        os._exit(0)
    control.close()
    for there, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, there)
    os.closerange(3, max(descriptors) + 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return lambda: _run(**wanted)  # type: ignore[arg-type]


def _run(arguments: list[str], env: dict[str, str], cwd: str) -> None:
    """Do what ``python *arguments`` does."""
    import runpy

    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", errors=errors, closefd=False, buffering=1)  # noqa: SIM115
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    sys.path[0] = cwd
    kind, *rest = arguments
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(kind, run_name="__main__")
