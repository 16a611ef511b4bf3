"""How a test ended, for fixtures that clean up after one that failed."""

from collections.abc import Generator

import pytest

_ENDED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when in ("setup", "call") and report.failed:
        item.stash[_ENDED] = True
    return report


def failed(item: pytest.Item) -> bool:
    """Whether the test, or what was to prepare it, has failed."""
    return item.stash.get(_ENDED, False)
