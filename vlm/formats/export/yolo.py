"""YOLO: a zip of label files, lists per split and ``data.yaml``, as Ultralytics reads it beside a folder ``images``."""

import json
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import PurePosixPath

from vlm.formats.base import ExportContext, ExportFailed, ExportFormat, ExportRow, size_of
from vlm.formats.export.archive import Lines, Listing, Sink
from vlm.formats.records import Annotation

UNKNOWN = "unknown"  # the class of boxes that have none
WITHOUT_SPLIT = "train"


def _yolo(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Write a zip to be unpacked where the pictures lie below ``images/``, as the export ``pictures`` has them.

    Numbers of classes are those of this export, which ``data.yaml`` names. Tags have no place in label files: they stand in
    ``samples.csv``.
    """
    sink = Sink()
    classes: dict[str, int] = {}
    splits: dict[str, Lines] = {}
    described: dict[int, int] = {}  # hash of a label's path → the image it is of
    with ExitStack() as stack, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        listing = Listing(stack)
        for row in listing.of(rows):
            label = label_of(row.path)
            if (other := described.setdefault(hash(label), row.id)) != row.id:
                raise ExportFailed(
                    f"Images {other} and {row.id} differ by the ending of their names alone (“{row.path}”), so YOLO has one label "
                    "file for both. Leave one out by the filter."
                )
            width, height = size_of(row, context) if any(one.box for one in row.annotations) else (0, 0)
            lines = [
                _line(classes.setdefault(one.category or UNKNOWN, len(classes)), one, width, height)
                for one in row.annotations
                if one.box is not None and width and height
            ]
            archive.writestr(label, "".join(lines))
            split = _plain(row.split or WITHOUT_SPLIT)
            if split not in splits:
                splits[split] = Lines(stack)
            splits[split].file.write(f"./images/{row.path}\n")
            yield sink.take()
        for split, paths in splits.items():
            paths.write_to(archive, f"{split}.txt")
        archive.writestr("data.yaml", _yaml(splits, classes))
        listing.write_to(archive, listing.name)
    yield sink.take()


def label_of(path: str) -> str:
    """Return where Ultralytics looks for the labels of ``images/PATH``: with the last folder “images” as “labels”."""
    swapped = "/labels/".join(f"/images/{path}".rsplit("/images/", 1))
    return str(PurePosixPath(swapped.lstrip("/")).with_suffix(".txt"))


def _line(number: int, annotation: Annotation, across: int, down: int) -> str:
    """Return a class and a box by its centre, as fractions of the image."""
    x, y, width, height = annotation.box or (0, 0, 0, 0)
    middle = (x + width / 2) / across, (y + height / 2) / down
    return f"{number} " + " ".join(f"{value:.6g}" for value in (*middle, width / across, height / down)) + "\n"


def _yaml(splits: Iterable[str], classes: dict[str, int]) -> str:
    there = list(splits)
    lines = ["path: .\n"]
    lines += [f"{json.dumps(split)}: {json.dumps(f'{split}.txt')}\n" for split in there]
    if "val" not in there and there:
        lines.append(f"val: {json.dumps(f'{there[0]}.txt')}  # Ultralytics wants one\n")
    lines.append("names:\n")
    lines += [f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for name, number in classes.items()]
    return "".join(lines)


def _plain(split: str) -> str:
    """Return a split as the name of a file."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in split)


FORMAT = ExportFormat(
    "yolo",
    "a zip of YOLO labels with `data.yaml`, a list per split, and `samples.csv` with ids and tags; unpack it beside `pictures`",
    "application/zip",
    ".zip",
    _yolo,
)
