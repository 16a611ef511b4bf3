"""What the processes that tests start have in common: a clean environment, an end, and nothing waited for without one."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.workshop import ROOT, Forked

PATIENCE = 240.0  # seconds for what takes a few on an idle machine

Child = subprocess.Popen[str] | Forked


def environment(data: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a DataVisor process that works on the data folder ``data``.

    The variables of this process are clean already (see ``tests/settings.py``); what is left of them is its own folder and
    its own settings module, which must not be the child's.
    """
    return os.environ | {
        "DATAVISOR_DATA_DIR": str(data),
        "DJANGO_SETTINGS_MODULE": "datavisor.settings",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        **variables,
    }


def finish(child: Child, seconds: float = PATIENCE) -> tuple[str, str]:
    """Wait for the end of ``child`` and return what it wrote; one that does not end is killed and told."""
    try:
        return child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        out, errors = child.communicate()
        raise AssertionError(f"{child.args!r} did not end in {seconds:g} s.\n{out}\n{errors}") from None


def completed(child: Child, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Wait for the end of ``child`` as :func:`finish` does, and return how it ended with what it wrote."""
    out, errors = finish(child, seconds)
    return subprocess.CompletedProcess(child.args, child.wait(), out, errors)


def end(child: Child) -> None:
    """Make sure that ``child`` is gone and its pipes are closed, whatever became of the test."""
    if child.poll() is None:
        child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def wait_for(condition: Callable[[], object], what: str = "what was waited for", seconds: float = PATIENCE) -> None:
    """Wait until ``condition()`` is true; the limit is for what never happens, not for what is slow."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} s"
        time.sleep(0.02)


def python(*arguments: str, env: dict[str, str], **options: object) -> "subprocess.Popen[str]":
    """Start this Python in the checkout with pipes for all that it writes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT} | options
    return subprocess.Popen([sys.executable, *arguments], env=env, **pipes)  # type: ignore[call-overload, no-any-return]
