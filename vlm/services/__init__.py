"""The one door: page, admin, commands and HTTP call the functions of these modules and nothing behind them.

Everything takes keywords. Reading functions open the store themselves; writing ones commit before they return.
"""

from vlm.services import (
    accuracy,
    backups,
    calibrations,
    columns,
    datasets,
    distributions,
    exports,
    folders,
    insights,
    pixels,
    promises,
    review,
    runs,
    samples,
    slices,
    tables,
    tags,
    tokens,
    trials,
    vocabulary,
    watches,
    workers,
)

__all__ = [
    "accuracy",
    "backups",
    "calibrations",
    "columns",
    "datasets",
    "distributions",
    "exports",
    "folders",
    "insights",
    "pixels",
    "promises",
    "review",
    "runs",
    "samples",
    "slices",
    "tables",
    "tags",
    "tokens",
    "trials",
    "vocabulary",
    "watches",
    "workers",
]
