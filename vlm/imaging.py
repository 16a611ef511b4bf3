"""Reading pixels: the one module that opens images.

Every image comes back upright, in RGB, as its first frame, or as ``ImageUnreadable`` with a reason for the user. Files
are recognised by their content; the formats are an allow-list. Nothing here knows Django: limits are passed in.

Whoever needs less than an image's pixels says how many are enough. Then a JPEG is decoded at a half, a quarter or an
eighth, and what is still large is averaged as it is converted, some rows at a time: an image takes the memory of its
decoded pixels and little more. However many threads read, those at work together keep within ``DECODE_MEMORY``.
"""

import hashlib
import os
import stat
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, UnidentifiedImageError

from vlm.errors import Refusal, RootAway
from vlm.exif import ON_ITS_SIDE, exif_of, orientation_of, tags_of
from vlm.measures import SIDE, Measures, measure

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
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

DECODE_MEMORY = 1 << 30  # bytes that images which are decoded at the same time take together; one alone may take more
DECODERS = max(4, min(16, os.cpu_count() or 4))  # images that are decoded at the same time
_HELD_AT_MOST = 256 << 20  # bytes of a file that is held in memory to be hashed and decoded in one read
_CONVERTED_AT_ONCE = 1 << 22  # pixels
_DEPTHS = (8, 10, 12, 14, 16)  # bits in which cameras and scanners count
_END = b"\xff\xd9"  # the marker at the end of a JPEG

Enough = Callable[[tuple[int, int]], tuple[int, int]]  # size of an image → size that is enough of it
Source = Path | BinaryIO  # a file; or what is no file here, opened to be read from its beginning

pillow_heif.register_heif_opener()
# Between the limit and twice the limit Pillow warns; here that is refused already.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# What it has to say of damaged notes of cameras is of no use to whoever sees the log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class ImageUnreadable(Refusal):
    """An image cannot be read; the message is the reason, for the user."""

    title = "This image cannot be read"
    status = 422


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that was read.

    Attributes:
        image: RGB, upright, alpha over white, eight bits per channel; smaller than the file's where less was enough.
        size: width and height of the file's own upright image.
        digest: SHA-256 of the file's bytes, in hexadecimal digits; empty unless asked for.
        measures: what was measured; ``None`` unless asked for.
        exif: what its EXIF says by tag, see :func:`header`; empty unless it was measured.
    """

    image: Image.Image
    size: tuple[int, int]
    digest: str = ""
    measures: Measures | None = None
    exif: Mapping[int, object] = field(default_factory=dict)


def read_image(path: Source, *, max_pixels: int) -> Image.Image:
    """Return the first frame of an image: RGB, upright, alpha over white, eight bits per channel.

    Raises:
        ImageUnreadable: it is gone, no image of a known format, damaged, or larger than ``max_pixels`` pixels.
    """
    return read_picture(path, max_pixels=max_pixels).image


def read_picture(
    path: Source, *, max_pixels: int, enough: Enough | None = None, digested: bool = False, measured: bool = False
) -> Picture:
    """Read the first frame of an image, and on request what else the file tells, in one read.

    Args:
        max_pixels: larger images are refused.
        enough: called with the width and height of the upright image; returns those that are enough. A JPEG is then
            decoded at the smallest fraction that reaches them, and any other image that has four times as many in
            both directions is averaged to at least twice. ``None`` for all pixels.
        digested: hash the file's bytes too.
        measured: measure the picture too; its copy for that is then part of what is enough.

    Raises:
        ImageUnreadable: as for :func:`read_image`.
    """

    def needed(size: tuple[int, int]) -> tuple[int, int]:
        wanted = size if enough is None else enough(size)
        if not measured:
            return wanted
        factor = min(1.0, SIDE / max(size))
        return max(wanted[0], round(size[0] * factor)), max(wanted[1], round(size[1] * factor))

    with _reading(path, max_pixels) as file:
        digest, held = _digest(file) if digested else ("", file)
        with _opened(held, max_pixels) as image:
            exif = exif_of(image)
            size, tags = _upright_size(image, exif), tags_of(exif) if measured else {}
            picture = _decode(image, held, size, needed)
    return Picture(picture, size, digest, measure(picture, size=size) if measured else None, tags)


def image_size(path: Source) -> tuple[int, int]:
    """Return the width and height in pixels of the upright image; decodes nothing.

    Raises:
        ImageUnreadable: it is gone, or no image of a known format.
    """
    return header(path)[0]


def header(path: Source) -> tuple[tuple[int, int], dict[int, object]]:
    """Return the size of the upright image, and what its EXIF says by tag, the parts of it joined; decodes no pixels.

    What a PNG says behind its pixels is looked for in files on disk alone: in a bucket, that would fetch the whole of it.

    Raises:
        ImageUnreadable: as for :func:`image_size`.
    """
    with _reading(path) as file, _opened(file) as image:
        exif = exif_of(image, behind=isinstance(path, Path))
        return _upright_size(image, exif), tags_of(exif)


def open_source(source: Source) -> AbstractContextManager[BinaryIO]:
    """Open a source to be read byte by byte; the block's end closes it."""
    return source.open("rb") if isinstance(source, Path) else source


def file_digest(path: Source) -> str:
    """Return the digest of a file that :func:`read_picture` would return, without decoding it.

    Raises:
        ImageUnreadable: it is gone or may not be read.
    """
    with _reading(path) as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
        return digest.hexdigest()


@contextmanager
def _reading(source: Source, max_pixels: int | None = None) -> Iterator[BinaryIO]:
    """Open a file; whatever goes wrong with it or its image within the block is raised as ``ImageUnreadable``."""
    if max_pixels is not None:
        # Pillow looks at a process-wide limit too, in places where ours cannot: the extents of a GIF's frame.
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with _file(source) as file:
            yield file
    except (ImageUnreadable, RootAway):
        raise
    except FileNotFoundError as error:
        raise ImageUnreadable("The file is not there any more; import the data set again.") from error
    except PermissionError as error:
        raise ImageUnreadable("The file may not be read; give this user the right to read it.") from error
    except UnidentifiedImageError as error:
        raise ImageUnreadable(_reason_unidentified(source)) from error
    except Image.DecompressionBombError as error:
        raise ImageUnreadable(
            f"The image has far more pixels than the limit of {Image.MAX_IMAGE_PIXELS:,}; "
            "raise DATAVISOR_MAX_PIXELS to read it."
        ) from error
    except MemoryError as error:
        raise ImageUnreadable("There is not enough memory to read this image.") from error
    except Exception as error:  # decoders raise almost anything on damaged files
        raise ImageUnreadable(f"The image is damaged or cut short ({error or type(error).__name__}).") from error


@contextmanager
def _file(source: Source) -> Iterator[BinaryIO]:
    """Open a source that has something in it."""
    if not isinstance(source, Path):
        source.seek(0)
        if not source.read(1):
            raise ImageUnreadable("The file is empty.")
        source.seek(0)
        yield source
        return
    status = source.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ImageUnreadable("It is no regular file.")
    if not status.st_size:
        raise ImageUnreadable("The file is empty.")
    with source.open("rb") as file:
        yield file


@contextmanager
def _opened(file: BinaryIO, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """Open an image lazily."""
    with Image.open(file, formats=FORMATS) as image:
        if max_pixels is not None:
            _check_pixels(image, max_pixels)
        yield image


def _digest(file: BinaryIO) -> tuple[str, BinaryIO]:
    """Hash a file's bytes; returns the digest, and what to decode: the bytes that were read, unless they are too many."""
    digest = hashlib.sha256()
    held: list[bytes] | None = []  # until they are too many
    done = 0
    while block := file.read(1 << 22):
        digest.update(block)
        done += len(block)
        if done > _HELD_AT_MOST:
            held = None
        elif held is not None:
            held.append(block)
    if held is None:
        file.seek(0)
        return digest.hexdigest(), file
    return digest.hexdigest(), BytesIO(b"".join(held))


def _reason_unidentified(source: Source) -> str:
    with _file(source) as file:
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


def _upright_size(image: Image.Image, exif: Image.Exif) -> tuple[int, int]:
    width, height = image.size
    # Pillow turns TIFFs by itself, and gives the upright size from the beginning.
    turned = image.format != "TIFF" and orientation_of(exif) in ON_ITS_SIDE
    return (height, width) if turned else (width, height)


def _decode(image: Image.Image, file: BinaryIO, upright: tuple[int, int], enough: Enough) -> Image.Image:
    """Decode an image that was opened, and is of that size when ``upright``: in RGB, with at least as many pixels as are enough."""
    wanted = enough(upright) if upright == image.size else enough(upright)[::-1]
    wanted = max(1, wanted[0]), max(1, wanted[1])
    whole = image.width * image.height
    image.draft("RGB", wanted)  # which only JPEGs follow
    with _room.taken(_memory(image, whole)):
        image = _loaded(image, file, wanted)
        # Asked after loading: Pillow turns TIFFs itself and then drops the tag.
        method = _UPRIGHT.get(orientation_of(exif_of(image)))
        # What is four times too large is averaged down to at least twice: nothing that a good filter would miss.
        factor = max(1, min(image.width // wanted[0], image.height // wanted[1]) // 2)
        rgb = _to_rgb(image, factor)
    return rgb if method is None else rgb.transpose(method)


def _loaded(image: Image.Image, file: BinaryIO, wanted: tuple[int, int]) -> Image.Image:
    """Decode the pixels; returns the image, or one with the same pixels and metadata that could be decoded in its place."""
    try:
        image.load()
    except OSError:
        mended = _without_its_end(file, wanted) if image.format in ("JPEG", "MPO") else None
        if mended is None:
            raise
        return mended
    return image


def _without_its_end(file: BinaryIO, wanted: tuple[int, int]) -> Image.Image | None:
    """Decode a JPEG that lacks nothing but its end marker, which some cameras and broken transfers leave out.

    A decoder takes whatever follows for pixels while it needs more. So two different endings make the same picture exactly
    if nothing is missing.
    """
    file.seek(0)
    content = file.read().rstrip(b"\xff")
    pictures = []
    for filling in (b"\x00", b"\xaa"):
        with Image.open(BytesIO(content + 64 * filling + _END), formats=FORMATS) as image:
            image.draft("RGB", wanted)
            image.load()
            pictures.append(image.copy())
    first, second = pictures
    return first if first.tobytes() == second.tobytes() else None


def _memory(image: Image.Image, whole: int) -> int:
    """Estimate the bytes that decoding takes: the decoded pixels, the converted ones, and what the decoder needs itself.

    Args:
        whole: pixels in the file, of which a drafted JPEG decodes a fraction.
    """
    bands = 1 if len(image.getbands()) == 1 else 4  # bytes of a pixel in Pillow's memory
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        bands = 4
    own = 6 * whole if image.info.get("progressive") or image.format in ("HEIF", "AVIF", "JPEG2000", "WEBP") else 0
    return image.width * image.height * (bands + 4) + own


class _Room:
    """Room for images that are decoded at the same time. Threads get it in the order in which they ask."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._taken = self._inside = 0

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket and self._fits(size))
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
            self._taken += size
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._inside -= 1
                self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._inside or (self._inside < DECODERS and self._taken + size <= DECODE_MEMORY)


_room = _Room()


def _to_rgb(image: Image.Image, factor: int = 1) -> Image.Image:
    """Convert a loaded image, some rows at a time, and average ``factor`` × ``factor`` pixels to one."""
    convert = _conversion(image)
    width, height = image.size
    if convert is None and factor == 1:
        return image.copy() if image.readonly else image
    rows = max(1, _CONVERTED_AT_ONCE // width // factor) * factor
    out = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        part = image.crop((0, top, width, min(height, top + rows))) if rows < height else image
        part = part if convert is None else convert(part)
        out.paste(part if factor == 1 else part.reduce(factor), (0, top // factor))
    return out


def _conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """Return what converts a part of an image to RGB; ``None`` where it is."""
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        white = _white_point(image)
        return lambda part: _deep_gray_to_rgb(part, white)
    if mode in ("CMYK", "LAB"):
        return _managed(image)
    if image.has_transparency_data:
        return _over_white
    return None if mode == "RGB" else lambda part: part.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _white_point(image: Image.Image) -> float:
    """Return the value of white in an image of deep gray.

    Whole numbers count to the end of the least usual depth that holds them all: cameras and scanners of 10, 12 or 14 bits
    write files of 16. Floats count to 1, or to 255 where they exceed 1.
    """
    rows = max(1, _CONVERTED_AT_ONCE // image.width)
    parts = (image.crop((0, top, image.width, min(image.height, top + rows))) for top in range(0, image.height, rows))
    highest = max(float(np.nan_to_num(np.asarray(part, dtype=np.float64)).max(initial=0)) for part in parts)
    if image.mode == "F":
        return 1.0 if highest <= 1 else 255.0
    bits = next((depth for depth in _DEPTHS if highest < 1 << depth), int(highest).bit_length())
    return float((1 << bits) - 1)


def _deep_gray_to_rgb(image: Image.Image, white: float) -> Image.Image:
    pixels = np.nan_to_num(np.asarray(image, dtype=np.float32)) * np.float32(255 / white)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).convert("RGB")


def _managed(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Return what converts CMYK and Lab to RGB, by the embedded profile where there is a usable one."""
    profile = image.info.get("icc_profile")
    if image.mode == "LAB":
        return _through_profile(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if profile:
        try:
            return _through_profile(image, ImageCms.ImageCmsProfile(BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile, or one of another colour space
    return lambda part: part.convert("RGB")


def _through_profile(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Callable[[Image.Image], Image.Image]:
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), image.mode, "RGB")

    def convert(part: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(part, transform)
        if converted is None:
            raise ImageUnreadable("The colours of this image cannot be converted.")
        return converted

    return convert
