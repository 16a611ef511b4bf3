"""What the heads of files say: the picture's size, when it was taken and with which camera.

Imports read no more than names and sizes of files in their transaction; the heads of those that nobody has read follow, some
at a time. Whoever reads a file in full, a run or a measuring, keeps its head too. A file with another content is read anew.

All inside ``SampleStore.write()``, the reading functions inside ``read()``.
"""

from collections.abc import Mapping

from .cursor import Cursor
from .database import number
from .records import Head
from .tallying import READ, tallied

_UNREAD = "s.dataset_id = ? and s.camera is null and not s.missing"


def heads_unread(cursor: Cursor, dataset_id: int, *, after: int = -1, limit: int) -> list[tuple[int, str]]:
    """Return (id, path) of the next samples whose file's head nobody has read, gone files left out."""
    return cursor.execute(
        f"select s.id, s.path from samples s where {_UNREAD} and s.id > ? order by s.id limit ?",
        [dataset_id, after, limit],
    ).fetchall()


def heads_unread_count(cursor: Cursor, dataset_id: int) -> int:
    return number(cursor, f"select count(*) from samples s where {_UNREAD}", [dataset_id])


def heads_keep(cursor: Cursor, *, dataset_id: int, heads: Mapping[int, Head]) -> None:
    """Write what heads say, sample id → head. A size that a data set's own files gave stays: its boxes are in those pixels."""
    if not heads:
        return
    sizes = [head.size or (None, None) for head in heads.values()]
    span = [min(heads), max(heads)]
    those = "s.dataset_id = ? and s.id between ? and ? and s.id in (select unnest(?::bigint[]))"
    with tallied(cursor, READ, (those, [dataset_id, *span, list(heads)])):
        cursor.execute(
            "update samples s set width = coalesce(s.width, h.width), height = coalesce(s.height, h.height), taken = h.taken, "
            "camera = h.camera from (select unnest(?::bigint[]) as id, unnest(?::integer[]) as width, "
            "unnest(?::integer[]) as height, unnest(?::timestamp[]) as taken, unnest(?::varchar[]) as camera) h "
            "where s.dataset_id = ? and s.id between ? and ? and s.id = h.id",
            [
                list(heads),
                [width for width, _ in sizes],
                [height for _, height in sizes],
                [head.taken for head in heads.values()],
                [head.camera for head in heads.values()],
                dataset_id,
                *span,
            ],
        ).fetchall()
