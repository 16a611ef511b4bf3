"""Files below a data set's root, and nothing outside it: the one rule of containment.

Whatever a JSON, a ``data.yaml`` or a symbolic link says: a path is used only where it lies below the root after every
link is resolved.
"""

import codecs
import os
import posixpath
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from vlm.formats.matching import best, fold, name_of, readings
from vlm.formats.records import ReportSkip, is_unicode
from vlm.imaging import SUFFIXES, ImageUnreadable

SMALL = 1024  # bytes; only files below it are opened at an import, to tell images from pointers and error pages
OUTSIDE = "It leads out of the data set's folder, and nothing in there ends like it; copy the file into the folder to import it."
LINK_OUTSIDE = (
    "It is a link that leads out of the data set's folder; copy what it leads to into the folder to import it."
)
LFS_POINTER = "It is a Git LFS pointer, not the file itself; run “git lfs pull” in its repository."
UTF_16 = "It is UTF-16 text; save it as UTF-8."
UTF_32 = "It is UTF-32 text; save it as UTF-8."
NOT_UNICODE = "Its name is not valid UTF-8; rename it to import it."

# Files that belong to data sets beside the images: they are not worth a line in the list of skips.
_COMPANIONS = frozenset(
    [
        ".txt",
        ".json",
        ".jsonl",
        ".xml",
        ".yaml",
        ".yml",
        ".csv",
        ".tsv",
        ".md",
        ".rst",
        ".ini",
        ".cfg",
        ".toml",
        ".db",
        ".cache",
        ".log",
        ".lock",
        ".parquet",
        ".npy",
        ".npz",
        ".pkl",
        ".mat",
        ".py",
        ".ipynb",
        ".sh",
        ".html",
        ".names",
        ".data",
    ]
)
_IGNORED_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})
_OWN_FILES = frozenset({"datavisor.sqlite3", "samples.duckdb"})  # one of them lies in every data folder of DataVisor
_OWN_FOLDERS = frozenset({"thumbnails", "static"})  # where the images lie in the data folder itself
_THUMBNAILS = re.compile(r"[0-9a-f]{40}")  # the name of a folder of thumbnails, in which a file “folder” says of which
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_NEEDS_CARE = re.compile(r"^/|//|/$|(^|/)\.\.?(/|$)|^[A-Za-z]:")
_LFS_HEAD = b"version https://git-lfs"
_IMAGE_HEAD = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF....WEBP|BM|II[*+]\x00|MM\x00[*+]|....ftyp|\x00\x00\x00\x0cjP  |"
    rb"\xff\x4f\xff\x51|P[1-7]\s",
    re.DOTALL,
)


def suffix_of(path: str) -> str:
    """Return the ending of a file's name in lower case, with its dot; '' where there is none."""
    name = path[path.rfind("/") + 1 :]
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


class Refused(Exception):
    """A path is not used; the message is the reason, for the list of skips."""


class Files:
    """Looks files up below a root. Paths are relative to the root, with '/' between folders."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self._prefix = self.root.rstrip("/") + "/"
        # Most files of a data set share a few folders; each is resolved once.
        self._folder_is_inside = lru_cache(maxsize=65_536)(self._resolves_inside)

    def absolute(self, path: str) -> str:
        return self._prefix + path

    def relative(self, base: str, path: str) -> str:
        """Return ``path``, as written in a file of the folder ``base``, relative to the root.

        Raises:
            Refused: it lies outside.
        """
        if not _NEEDS_CARE.search(path):
            return f"{base}/{path}" if base else path
        if path.startswith("/"):
            path = posixpath.normpath(path)
            if not path.startswith(self._prefix):
                raise Refused(OUTSIDE)
            return path[len(self._prefix) :]
        joined = posixpath.normpath(posixpath.join(base, path))
        if joined == ".." or joined.startswith("../") or _DRIVE.match(path):
            raise Refused(OUTSIDE)
        return "" if joined == "." else joined

    def status(self, path: str) -> os.stat_result | None:
        """Return the status of a regular file, ``None`` where there is nothing at ``path``.

        Raises:
            Refused: it resolves to outside, is no regular file, or may not be looked at.
        """
        full = self._prefix + path
        try:
            status = os.lstat(full)
            if not self._folder_is_inside(full.rpartition("/")[0]):
                raise Refused(LINK_OUTSIDE)
            if stat.S_ISLNK(status.st_mode):
                if not self._resolves_inside(full):
                    raise Refused(LINK_OUTSIDE)
                status = os.stat(full)  # noqa: PTH116 - called once per image of a million
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeEncodeError:
            raise Refused(NOT_UNICODE) from None
        except (OSError, ValueError) as error:
            raise Refused(f"It cannot be looked at ({getattr(error, 'strerror', None) or error}).") from error
        if not stat.S_ISREG(status.st_mode):
            raise Refused("It is no regular file.")
        return status

    def image(self, path: str) -> str | None:
        """Return the content key of the image at ``path``, ``None`` where there is no file.

        Raises:
            Refused: it is outside, or cannot be an image.
        """
        status = self.status(path)
        if status is None:
            return None
        if not is_unicode(path):
            raise Refused(NOT_UNICODE)
        if not status.st_size:
            raise Refused("The file is empty.")
        suffix = suffix_of(path)
        if suffix and suffix not in SUFFIXES:
            raise Refused(f"The ending “{suffix}” is none of an image format that is read.")
        if not suffix or status.st_size < SMALL:
            self._check_head(path)
        return f"{status.st_size}-{status.st_mtime_ns}"

    def listing(self, folder: str, suffixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Return the paths of the folders in a folder, and of its files with one of the endings; sorted, none hidden.

        Raises:
            Refused: the folder cannot be read.
        """
        folders: list[str] = []
        others: list[str] = []
        try:
            with os.scandir(self._prefix + folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.name.lower().endswith(suffixes):
                        others.append(f"{folder}/{entry.name}" if folder else entry.name)
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(f"{folder}/{entry.name}" if folder else entry.name)
        except OSError as error:
            raise Refused(f"The folder cannot be read ({error.strerror}).") from error
        return sorted(folders), sorted(others)

    def is_folder(self, path: str) -> bool:
        full = self._prefix + path
        try:
            return os.path.isdir(full) and self._resolves_inside(full)  # noqa: PTH112
        except (OSError, ValueError):
            return False

    def has_images(self, path: str) -> bool:
        """Return whether a folder itself holds files that may be images."""
        try:
            with os.scandir(self.absolute(path)) as entries:
                return any(
                    not entry.name.startswith(".") and suffix_of(entry.name) not in _COMPANIONS and entry.is_file()
                    for entry in entries
                )
        except OSError:
            return False

    def read_text(self, path: str, *, max_bytes: int) -> str:
        """Return the text of a small file.

        Raises:
            Refused: as for ``status``; or it is missing, larger than ``max_bytes``, or not UTF-8.
        """
        status = self.status(path)
        if status is None:
            raise Refused("There is no such file.")
        if status.st_size > max_bytes:
            raise Refused(f"It has {status.st_size:,} bytes, more than the {max_bytes:,} that are read of such a file.")
        content = self.read_head(path, max_bytes)
        if reason := not_text(content):
            raise Refused(reason)
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise Refused(
                f"It is not UTF-8 text: line {line:,} has bytes of another encoding; save it as UTF-8."
            ) from None

    def read_head(self, path: str, size: int) -> bytes:
        """Return the first bytes of a file.

        Raises:
            Refused: it cannot be read.
        """
        try:
            with Path(self._prefix + path).open("rb") as file:
                return file.read(size)
        except OSError as error:
            raise Refused(f"It cannot be read ({error.strerror}).") from error

    def _resolves_inside(self, full: str) -> bool:
        return _lies_in(self.root, os.path.realpath(full))

    def _check_head(self, path: str) -> None:
        try:
            with open(self._prefix + path, "rb") as file:  # noqa: PTH123 - as above
                head = file.read(32)
        except OSError as error:
            raise Refused(f"It cannot be read ({error.strerror}).") from error
        if head.startswith(_LFS_HEAD):
            raise Refused(LFS_POINTER)
        if not _IMAGE_HEAD.match(head):
            raise Refused("It is no image: its content begins like none of the formats that are read.")


def not_text(head: bytes) -> str:
    """Return why a file that begins so is no UTF-8 text, as far as its first bytes tell; '' where they do not."""
    if head.startswith(_LFS_HEAD):
        return LFS_POINTER
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return UTF_32
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (len(head) > 3 and head[:4].count(0) == 2):
        return UTF_16
    return ""


class Elsewhere:
    """Finds the files that paths of another machine mean; see ``vlm.formats.matching``.

    One walk over the folder, however many paths there are, and only what they may mean is kept.
    """

    def __init__(self, files: Files, written: Iterable[str]) -> None:
        wanted = {fold(parts[-1]) for path in written for parts in readings(path)}
        self._by_name: defaultdict[str, list[str]] = defaultdict(list)
        if wanted:
            for path in walk_images(files, "", lambda path, reason: None):
                if (name := fold(name_of(path))) in wanted:
                    self._by_name[name].append(path)

    def path(self, written: str) -> str | None:
        """Return the file that is meant, ``None`` where there is none.

        Raises:
            Ambiguous: several fit alike.
        """
        for parts in readings(written):
            if candidates := self._by_name.get(fold(parts[-1])):
                found = best(parts, candidates)
                if found is not None:
                    return found
        return None


def _lies_in(root: str, resolved: str) -> bool:
    """Tell whether a path is ``root`` or below it; both have been resolved."""
    return resolved == root or resolved.startswith(root.rstrip("/") + "/")


def locate(root: Path, path: str) -> Path:
    """Return the file of a sample, which must lie below the root whatever links have been laid since the import.

    Raises:
        ImageUnreadable: it is gone, or leads out of ``root``.
    """
    try:
        base = os.path.realpath(root, strict=True)
        found = os.path.realpath(Path(base, path), strict=True)
    except (OSError, RuntimeError, ValueError):
        raise ImageUnreadable(f"The file {path} is not there (any more).") from None
    if not _lies_in(base, found):
        raise ImageUnreadable(f"{path} leads out of the data set's folder, so it is not read.")
    return Path(found)


def walk_images(
    files: Files, folder: str, report: ReportSkip, companion: Callable[[str], None] = lambda path: None
) -> Iterator[str]:
    """Yield the paths of what may be images at and below a folder, in the order of their names.

    Hidden files and folders, and the usual companions of images (JSON, text and the like), are passed over in silence, and
    so is a data folder of DataVisor with its thumbnails. Links to folders are not followed: what they lead to inside the
    root is read where it lies.

    Args:
        companion: is told of the companions.
    """
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(files.absolute(current)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            report(current, f"The folder cannot be read ({error.strerror}).")
            continue
        own = _is_own(current, {entry.name for entry in found})
        if own and current:
            continue
        folders = []
        for entry in found:
            name = entry.name
            if name.startswith(".") or name in _IGNORED_FOLDERS or (own and name in _OWN_FOLDERS):
                continue
            path = f"{current}/{name}" if current else name
            if entry.is_dir(follow_symlinks=False):
                if is_unicode(name):
                    folders.append(path)
                else:
                    report(path, NOT_UNICODE)
            elif entry.is_symlink() and _leads_to_folder(entry):
                report(path, "It is a link to a folder; such links are not followed.")
            elif suffix_of(name) in _COMPANIONS:
                companion(path)
            else:
                yield path
        pending.extend(reversed(folders))


def _leads_to_folder(link: os.DirEntry[str]) -> bool:
    """Tell whether a link leads to a folder; one that leads round in circles leads to nothing."""
    try:
        return link.is_dir()
    except OSError:
        return False


def _is_own(folder: str, names: set[str]) -> bool:
    """Tell whether a folder is DataVisor's own: a data folder, or thumbnails that were put elsewhere."""
    return bool(_OWN_FILES & names) or ("folder" in names and bool(_THUMBNAILS.fullmatch(name_of(folder))))
