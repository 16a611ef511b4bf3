"""FiftyOne: a zip of what its importer reads."""

import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

from vlm.formats.base import ExportContext, ExportFailed, ExportFormat, ExportRow, measure_object, said_time, size_of
from vlm.formats.export.archive import Sink
from vlm.formats.records import Annotation
from vlm.roots import LocalRoot

_NOT_A_FIELD = re.compile(r"\W+")


def _fiftyone(rows: Iterable[ExportRow], context: ExportContext) -> Iterator[bytes]:
    """Write a zip of ``metadata.json`` and ``samples.json``.

    Unpack it and read it with::

        fiftyone.Dataset.from_dir(dataset_dir="FOLDER", dataset_type=fiftyone.types.FiftyOneDataset)

    ``FiftyOneDataset`` has two forms on disk. Since FiftyOne 0.8 it is a dump of a MongoDB, bound to a version by the
    ``version`` in ``metadata.json``; without that key, FiftyOne reads the earlier form (``LegacyFiftyOneDataset``),
    which is written here. Images are referred to by their absolute paths and are not copied.

    Samples get their tags as FiftyOne's ``tags``, their split as ``split``, every dimension's word as a classification
    ``tag_DIMENSION`` with its confidence and who gave it, when and how, each measure as a field of its name, each column's
    value as ``column_NAME``, and the data set's own annotations as ``ground_truth`` (with boxes) and ``categories`` (without).
    """
    sink = Sink()
    root = context.root
    if not isinstance(root, LocalRoot):
        raise ExportFailed(
            f"FiftyOne reads pictures from disk, and these lie at {root}. Lay them out with “export_images --copy”, import that folder "
            "as a data set of its own, or export as coco-stored or yolo."
        )
    base = root.base()
    metadata = {"name": context.dataset_name, "media_type": "image", "info": {"exported_by": "DataVisor"}}
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps(metadata))
        with archive.open("samples.json", "w", force_zip64=True) as file:
            file.write(b'{"samples": [')
            opening = b""
            for row in rows:
                file.write(opening + json.dumps(_fiftyone_sample(row, base, context)).encode())
                opening = b",\n"
                yield sink.take()
            file.write(b"]}\n")
    yield sink.take()


def _fiftyone_sample(row: ExportRow, base: str, context: ExportContext) -> dict[str, Any]:
    width, height = size_of(row, context) if any(a.box for a in row.annotations) else (0, 0)
    sample: dict[str, Any] = {
        "filepath": base + row.path,
        "tags": list(dict.fromkeys(tag.tag for tag in row.tags)),
        "_media_type": "image",
        "datavisor_id": row.id,
    }
    if row.split:
        sample["split"] = row.split
    sample |= measure_object(row) or {}
    for tag in row.tags:
        if tag.dimension is not None:
            label = {"_cls": "Classification", "label": tag.tag, "confidence": tag.probability, "source": tag.source}
            given = {
                "user": tag.user,
                "time": said_time(tag),
                "way": tag.way,
                "run": tag.run,
                "shared_from": tag.shared_from,
            }
            label |= {name: value for name, value in given.items() if value}
            sample.setdefault(f"tag_{_NOT_A_FIELD.sub('_', tag.dimension)}", label)
    for name, value in row.values.items():
        sample.setdefault(f"column_{_NOT_A_FIELD.sub('_', name)}", value)
    detections = [
        {"_cls": "Detection", "label": annotation.category, "bounding_box": box}
        for annotation in row.annotations
        if (box := _relative_box(annotation, width, height)) is not None
    ]
    if detections:
        sample["ground_truth"] = {"_cls": "Detections", "detections": detections}
    unboxed = dict.fromkeys(
        a.category for a in row.annotations if a.category and _relative_box(a, width, height) is None
    )
    if unboxed:
        labels = [{"_cls": "Classification", "label": category} for category in unboxed]
        sample["categories"] = {"_cls": "Classifications", "classifications": labels}
    return sample


def _relative_box(annotation: Annotation, across: int, down: int) -> list[float] | None:
    """Return x, y, width and height as fractions of the image, as FiftyOne wants them."""
    if annotation.box is None or not across or not down:
        return None
    x, y, width, height = annotation.box
    return [x / across, y / down, width / across, height / down]


FORMAT = ExportFormat(
    "fiftyone",
    "a zip of `metadata.json` and `samples.json`, with absolute paths to the images, which must lie on disk",
    "application/zip",
    ".zip",
    _fiftyone,
)
