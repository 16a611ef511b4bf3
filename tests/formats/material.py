"""Small data sets for the tests, made on the spot."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore
from PIL import Image

from vlm.formats import SampleRecord, Scan, scan
from vlm.formats.files import Files
from vlm.formats.object_files import ObjectFiles
from vlm.roots import objects
from vlm.roots.urls import is_key


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
    """Read a data set; if it could lie in a bucket, from there too, and see that this is the same."""
    found = scan(root, format)
    records = list(found)
    if root.is_dir() and (bucket := in_bucket(root)) is not None:
        there, others = _read_from(bucket, format)
        assert (there.format, there.total, there.skip_count) == (found.format, found.total, found.skip_count)
        assert told(others) == told(records)
        assert sorted(skip.path for skip in there.skips) == sorted(skip.path for skip in found.skips)
    assert not [path for path, count in Counter(record.path for record in records).items() if count > 1]
    assert found.skip_count == len(found.skips)
    return found, records


def in_bucket(root: Path) -> MemoryStore | None:
    """Return a bucket that holds what lies below a folder; ``None`` where none can: links, odd names, empty folders, absolute paths."""
    store = MemoryStore()
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()) or not is_key(name):
            return None
        if path.is_dir() and not any(path.iterdir()):
            return None
        if path.is_file():
            content = path.read_bytes()
            if str(root).encode() in content:
                return None
            obstore.put(store, name, content)
    return store


def _read_from(bucket: MemoryStore, format: str) -> tuple[Scan, list[SampleRecord]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "open_store", lambda url: bucket)
        patch.setattr(ObjectFiles, "small", Files.small)
        found = scan("s3://mirror", format)
        return found, list(found)


def told(records: list[SampleRecord]) -> list[SampleRecord]:
    """Return what is said of images, however their contents are known, in the order of their paths."""
    return sorted((replace(record, content_key="") for record in records), key=lambda record: record.path)


def skips(found: Scan) -> dict[str, str]:
    return {skip.path: skip.reason for skip in found.skips}
