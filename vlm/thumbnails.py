"""Thumbnails of images, each made once and kept in a folder of their own; nothing here knows Django."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image

from vlm.imaging import Source, read_picture
from vlm.roots import LocalRoot, Root

_WEBP_QUALITY = 80
_FOLDER_MARK = "folder"  # names, inside a folder of thumbnails, the folder that they are made of


class NotKept(Exception):
    """A thumbnail was made, but its folder takes no writes: ``content`` is the thumbnail, ``name`` what it would be called."""

    def __init__(self, reason: OSError, name: str, content: bytes) -> None:
        super().__init__(f"The thumbnail cannot be kept: {reason}.")
        self.name, self.content = name, content


def thumbnail(root: Root, path: str, *, size: int, cache_dir: Path, key: str, max_pixels: int) -> Path:
    """Return the file of an image's thumbnail (WebP, long side ``size`` pixels at most, never enlarged); make it once.

    Args:
        path: of the image, below ``root``.
        size: pixels along the long side.
        cache_dir: the folder of all thumbnails.
        key: changes whenever the file's content does; see ``SampleRecord.content_key``.
        max_pixels: as for ``read_image``.

    Raises:
        ImageUnreadable: as for ``read_image``.
        NotKept: the thumbnail cannot be written; it comes with the error.
    """
    whose, called, read = _place(root, path)
    folder = cache_dir / _name(whose)
    name = _name(f"{called}\0{key}\0{size}")
    target = folder / name[:2] / f"{name}.webp"
    if os.path.isfile(target):  # noqa: PTH113  (False in a folder that may not be searched)
        return target
    small = read_picture(read(), max_pixels=max_pixels, enough=lambda _: (size, size)).image
    small.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    encoded = BytesIO()
    small.save(encoded, "WEBP", quality=_WEBP_QUALITY)
    mark = folder / _FOLDER_MARK
    try:
        if not mark.is_file():
            _write_whole(mark, os.fsencode(whose))
        _write_whole(target, encoded.getvalue())
    except OSError as error:
        raise NotKept(error, name, encoded.getvalue()) from error
    return target


def _place(root: Root, path: str) -> tuple[str, str, Callable[[], Source]]:
    """Return the folder of an image, its name there, and what reads it: a link is where it leads, an object is got only if need be."""
    source = root.source(path) if isinstance(root, LocalRoot) else None
    if isinstance(source, Path):
        return str(source.parent), source.name, lambda: source
    folder, _, called = f"{root}/{path}".rpartition("/")
    return folder, called, lambda: root.source(path)


def remove_thumbnails(cache_dir: Path, dataset_root: Root) -> None:
    """Remove the thumbnails of every image at and below ``dataset_root``."""
    if not cache_dir.is_dir():
        return
    for mark in cache_dir.glob(f"*/{_FOLDER_MARK}"):
        try:
            folder = os.fsdecode(mark.read_bytes())
        except OSError:
            continue  # somebody else is removing it
        if _is_below(folder, dataset_root):
            shutil.rmtree(mark.parent, ignore_errors=True)


def _is_below(folder: str, root: Root) -> bool:
    if isinstance(root, LocalRoot):
        return Path(folder).is_relative_to(root.path)
    return folder == str(root) or folder.startswith(f"{root}/")


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _name(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:40]
