"""This process's one sample store, opened on first use."""

import atexit
from functools import cache

from django.conf import settings

from vlm.samples import SampleStore


@cache
def sample_store() -> SampleStore:
    """Return the store of ``DATAVISOR_DATA_DIR``."""
    return SampleStore(
        settings.DUCKDB_PATH,
        memory_limit=settings.DUCKDB_MEMORY,
        threads=settings.DUCKDB_THREADS,
        wait=settings.STORE_WAIT,
    )


# Registered before ``vlm.runs`` registers the end of its runs, so called after it: their last batch needs the store.
@atexit.register
def _close() -> None:
    if sample_store.cache_info().currsize:
        sample_store().close()
