"""A stop in the middle of a run of this process, at the same place on any machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vlm import jobs
from vlm.runs import loop


@contextmanager
def stopped_in(commit: str) -> Iterator[threading.Event]:
    """Yield a stop that is set in the first commit by ``loop``'s function of that name, and seen by the run before it is over."""
    stop, halts = threading.Event(), list[threading.Event]()
    own, beating = getattr(loop, commit), jobs.beating

    @contextmanager
    def watched(*args: Any, **options: Any) -> Iterator[threading.Event]:
        with beating(*args, **options) as halt:
            halts.append(halt)
            yield halt

    def stopping(*args: Any, **options: Any) -> Any:
        done = own(*args, **options)
        stop.set()
        assert halts[0].wait(60), "the run did not see that it is to stop"
        return done

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jobs, "beating", watched)
        patched.setattr(loop, commit, stopping)
        yield stop
