"""Small data sets for the tests, made on the spot."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from vlm.formats import SampleRecord, Scan, scan


def write_image(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path, format="JPEG")
    return path


def write_images(root: Path, *paths: str) -> None:
    for path in paths:
        write_image(root / path)


def coco(*names: str, **changes: Any) -> dict[str, Any]:
    """Return a COCO JSON's content: images with ids from 1, a cat on each, two categories."""
    return {
        "info": {"year": 2024},
        "images": [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names, start=1)],
        "annotations": [
            {"id": 10 + i, "image_id": i, "category_id": 1, "bbox": [1.5, 2, 10, 12.25]}
            for i in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    } | changes


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def read(root: Path, format: str = "auto") -> tuple[Scan, list[SampleRecord]]:
    found = scan(root, format)
    records = list(found)
    assert not [path for path, count in Counter(record.path for record in records).items() if count > 1]
    assert found.skip_count == len(found.skips)
    return found, records


def skips(found: Scan) -> dict[str, str]:
    return {skip.path: skip.reason for skip in found.skips}
