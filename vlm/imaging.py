"""Reading pixels: the one module that opens images.

Every image comes back upright, in RGB, as its first frame, or as ``ImageUnreadable`` with a reason for the user. Files
are recognised by their content; the formats are an allow-list. Nothing here knows Django: limits are passed in.
"""

import hashlib
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM")  # MPO opens as JPEG
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".avif",
        ".avifs",
        ".heic",
        ".heif",
        ".hif",
        ".jp2",
        ".j2k",
        ".pbm",
        ".pgm",
        ".ppm",
        ".pnm",
    ]
)
_LFS_POINTER = b"version https://git-lfs"
_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WEBP_QUALITY = 80
_FOLDER_MARK = "folder"  # names, inside a folder of thumbnails, the folder that they are made of

pillow_heif.register_heif_opener()
# Between the limit and twice the limit Pillow warns; here that is refused already.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageUnreadable(Exception):
    """An image cannot be read; the message is the reason, for the user."""


def read_image(path: Path, *, max_pixels: int) -> Image.Image:
    """Return the first frame of an image: RGB, upright, alpha over white, eight bits per channel.

    Raises:
        ImageUnreadable: it is gone, no image of a known format, damaged, or larger than ``max_pixels`` pixels.
    """
    with _opened(path, max_pixels) as image:
        return _decode(image)


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height in pixels of the upright image; reads no more than its header.

    Raises:
        ImageUnreadable: it is gone, or no image of a known format.
    """
    with _opened(path) as image:
        width, height = image.size
        # Pillow turns TIFFs by itself, and gives the upright size from the beginning.
        turned = image.format != "TIFF" and _orientation(image) in (5, 6, 7, 8)
        return (height, width) if turned else (width, height)


def thumbnail(path: Path, *, size: int, cache_dir: Path, key: str, max_pixels: int) -> Path:
    """Return the file of an image's thumbnail (WebP, long side ``size`` pixels at most, never enlarged); make it once.

    Args:
        path: the image.
        size: pixels along the long side.
        cache_dir: the folder of all thumbnails.
        key: changes whenever the file's content does; see ``SampleRecord.content_key``.
        max_pixels: as for ``read_image``.

    Raises:
        ImageUnreadable: as for ``read_image``.
        OSError: the thumbnail cannot be written.
    """
    folder = cache_dir / _digest(str(path.parent))
    name = _digest(f"{path.name}\0{key}\0{size}")
    target = folder / name[:2] / f"{name}.webp"
    if target.is_file():
        return target
    with _opened(path, max_pixels) as image:
        image.draft("RGB", (size, size))  # a JPEG decodes at a half, a quarter or an eighth where that is enough
        small = _decode(image)
    small.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    encoded = BytesIO()
    small.save(encoded, "WEBP", quality=_WEBP_QUALITY)
    mark = folder / _FOLDER_MARK
    if not mark.is_file():
        _write_whole(mark, os.fsencode(path.parent))
    _write_whole(target, encoded.getvalue())
    return target


def remove_thumbnails(cache_dir: Path, dataset_root: Path) -> None:
    """Remove the thumbnails of every image at and below ``dataset_root``."""
    if not cache_dir.is_dir():
        return
    for mark in cache_dir.glob(f"*/{_FOLDER_MARK}"):
        try:
            folder = Path(os.fsdecode(mark.read_bytes()))
        except OSError:
            continue  # somebody else is removing it
        if folder.is_relative_to(dataset_root):
            shutil.rmtree(mark.parent, ignore_errors=True)


@contextmanager
def _opened(path: Path, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """Open an image lazily; whatever goes wrong within the block is raised as ``ImageUnreadable``."""
    if max_pixels is not None:
        # Pillow looks at a process-wide limit too, in places where ours cannot: the extents of a GIF's frame.
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ImageUnreadable("It is no regular file.")
        if not status.st_size:
            raise ImageUnreadable("The file is empty.")
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            if max_pixels is not None:
                _check_pixels(image, max_pixels)
            yield image
    except ImageUnreadable:
        raise
    except FileNotFoundError as error:
        raise ImageUnreadable("The file is not there any more; import the data set again.") from error
    except PermissionError as error:
        raise ImageUnreadable("The file may not be read; give this user the right to read it.") from error
    except UnidentifiedImageError as error:
        raise ImageUnreadable(_reason_unidentified(path)) from error
    except Image.DecompressionBombError as error:
        raise ImageUnreadable(
            f"The image has far more pixels than the limit of {Image.MAX_IMAGE_PIXELS:,}; "
            "raise DATAVISOR_MAX_PIXELS to read it."
        ) from error
    except MemoryError as error:
        raise ImageUnreadable("There is not enough memory to read this image.") from error
    except Exception as error:  # decoders raise almost anything on damaged files
        raise ImageUnreadable(f"The image is damaged or cut short ({error or type(error).__name__}).") from error


def _reason_unidentified(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            return "This is a Git LFS pointer, not the image itself; run “git lfs pull” in its repository."
    return f"This is no image in a format that is read ({', '.join(FORMATS)}), or its header is damaged."


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageUnreadable(
            f"The image has {width:,} × {height:,} pixels, more than the limit of {max_pixels:,} in all; "
            "raise DATAVISOR_MAX_PIXELS to read it."
        )


def _decode(image: Image.Image) -> Image.Image:
    image.load()
    method = _UPRIGHT.get(_orientation(image))  # after loading: Pillow turns TIFFs itself and then drops the tag
    upright = _to_rgb(image)
    return upright if method is None else upright.transpose(method)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none or the EXIF data is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged metadata must not hide a good picture
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and not image.has_transparency_data:
        return image.copy() if image.readonly else image
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _deep_gray_to_rgb(image)
    if mode in ("CMYK", "LAB"):
        return _managed_to_rgb(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _deep_gray_to_rgb(image: Image.Image) -> Image.Image:
    """Scale 16-bit gray by its whole range, as viewers do; floats count from 0 to 1, or to 255 where they exceed 1."""
    pixels = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if image.mode != "F":
        pixels /= 257
    elif pixels.max(initial=0) <= 1:
        pixels *= 255
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).convert("RGB")


def _managed_to_rgb(image: Image.Image) -> Image.Image:
    """Convert CMYK and Lab to RGB, by the embedded profile where there is a usable one."""
    profile = image.info.get("icc_profile")
    if image.mode == "LAB":
        return _through_profile(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if profile:
        try:
            return _through_profile(image, ImageCms.ImageCmsProfile(BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile, or one of another colour space
    return image.convert("RGB")


def _through_profile(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    if converted is None:
        raise ImageUnreadable("The colours of this image cannot be converted.")
    return converted


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


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:40]
