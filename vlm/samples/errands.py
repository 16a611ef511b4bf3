"""What the store did for another database: a result per errand, written in the transaction that did it (see ``vlm.errands``)."""

import json
from typing import Any

from .cursor import Cursor


def errand_result(cursor: Cursor, key: str) -> tuple[bool, Any]:
    """Return whether the errand ``key`` was done, and what came of it."""
    rows = cursor.execute("select result from errands where key = ?", [key]).fetchall()
    return (True, json.loads(rows[0][0])) if rows else (False, None)


def errand_keep(cursor: Cursor, key: str, result: Any) -> None:
    """Remember that an errand was done, and what came of it (JSON)."""
    cursor.execute("insert into errands (key, result) values (?, ?)", [key, json.dumps(result)]).fetchall()
