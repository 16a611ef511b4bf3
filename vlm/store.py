"""This process's one sample store, opened on first use."""

import atexit
from functools import cache

from django.conf import settings

from vlm.samples import SampleStore


@cache
def sample_store() -> SampleStore:
    """Return the store of ``DATAVISOR_DATA_DIR``."""
    store = SampleStore(
        settings.DUCKDB_PATH,
        memory_limit=settings.DUCKDB_MEMORY,
        threads=settings.DUCKDB_THREADS,
        wait=settings.STORE_WAIT,
    )
    atexit.register(store.close)
    return store
