"""Samples and their tags in DuckDB: what a data set holds, what it is tagged with, and who said so.

It knows no Django and no model. Open a :class:`SampleStore`, and call the functions of ``reading``, ``merging``, ``ingest``
and ``checking`` with the cursor of its ``read()`` or ``write()``.
"""

from .database import Cursor, SampleStore
from .errors import FilterError, StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreReadOnly, TagError
from .filters import SOURCES, STATES, Chip, SampleFilter, where
from .reading import ORDERS
from .records import (
    Annotation,
    Answer,
    Count,
    DatasetStats,
    DimensionFacet,
    Discard,
    Facets,
    Failure,
    Imported,
    Merged,
    Page,
    Pending,
    Reapplied,
    Result,
    SampleDetail,
    SampleRow,
    Tag,
    WordCount,
)

__all__ = [
    "ORDERS",
    "SOURCES",
    "STATES",
    "Annotation",
    "Answer",
    "Chip",
    "Count",
    "Cursor",
    "DatasetStats",
    "DimensionFacet",
    "Discard",
    "Facets",
    "Failure",
    "FilterError",
    "Imported",
    "Merged",
    "Page",
    "Pending",
    "Reapplied",
    "Result",
    "SampleDetail",
    "SampleFilter",
    "SampleRow",
    "SampleStore",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreReadOnly",
    "Tag",
    "TagError",
    "WordCount",
    "where",
]
