"""Files below a data set's root, and nothing outside it: what an import asks of them, wherever they lie.

Whatever a JSON or a ``data.yaml`` says: a path is used only where it lies below the root. ``local_files`` and ``object_files`` are
the two places where files lie.
"""

import codecs
import posixpath
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TextIO, TypeAlias, TypeVar

from vlm.formats.matching import best, fold, name_of, readings
from vlm.formats.records import ReportSkip, is_unicode
from vlm.imaging import SUFFIXES, Source
from vlm.roots import Root

Item = TypeVar("Item")
Done = TypeVar("Done")

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
_HEAD = 32  # bytes by which an image is told from something else
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


class Status(NamedTuple):
    """What is known of a file without opening it: ``key`` changes whenever its content does, ``modified`` are seconds since 1970."""

    size: int
    key: str
    modified: float


FOLDER, FILE, LINKED_FOLDER, OTHER = "folder", "file", "link to a folder", "other"


# What lies in a folder: its name, and ``FOLDER``, ``FILE``, ``LINKED_FOLDER`` or ``OTHER`` (a pipe, a link that leads nowhere).
Entry: TypeAlias = tuple[str, str]


class Files(ABC):
    """Looks files up below a root. Paths are relative to the root, with '/' between folders.

    Attributes:
        small: bytes; of files below it the head is read, to tell images from pointers and error pages.

    Args:
        prefix: what stands before each path in absolute paths of this machine or in URLs, with its slash.
    """

    small = 1024

    def __init__(self, root: Root, *, prefix: str) -> None:
        self.root = root
        self._prefix = prefix

    @abstractmethod
    def status(self, path: str) -> Status | None:
        """Return the status of a regular file, ``None`` where there is nothing at ``path``.

        Raises:
            Refused: it resolves to outside, is no regular file, or may not be looked at.
        """

    def now(self, path: str) -> Status | None:
        """Return the status of one file by itself, without looking the others over."""
        return self.status(path)

    @abstractmethod
    def entries(self, folder: str) -> Iterator[Entry]:
        """Return what lies in a folder, in the order of its names. Raises ``Refused`` at once where it cannot be read."""

    @abstractmethod
    def is_folder(self, path: str) -> bool:
        """Tell whether there is such a folder, inside."""

    @abstractmethod
    def is_link(self, path: str) -> bool:
        """Tell whether there is a link at ``path``, wherever it leads."""

    @abstractmethod
    def read_head(self, path: str, size: int) -> bytes:
        """Return the first bytes of a file.

        Raises:
            Refused: it cannot be read.
        """

    @abstractmethod
    def open_text(self, path: str, *, errors: str = "strict") -> TextIO:
        """Open a file as UTF-8 text, with or without its mark. Raises ``OSError``, ``Refused``."""

    @abstractmethod
    def picture(self, path: str) -> Source:
        """Return a picture whose head is to be read, opened bit by bit where it is no file here."""

    def each(self, items: Iterable[Item], work: Callable[[Item], Done]) -> Iterator[Done]:
        """Yield what ``work`` makes of each item, in order; ahead and in threads where files answer late."""
        return map(work, items)

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
        if not status.size:
            raise Refused("The file is empty.")
        suffix = suffix_of(path)
        if suffix and suffix not in SUFFIXES:
            raise Refused(f"The ending “{suffix}” is none of an image format that is read.")
        if not suffix or status.size < self.small:
            _check_head(self.read_head(path, _HEAD))
        return status.key

    def listing(self, folder: str, suffixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Return the paths of the folders in a folder, and of its files with one of the endings; sorted, none hidden.

        Raises:
            Refused: the folder cannot be read.
        """
        folders: list[str] = []
        others: list[str] = []
        for name, kind in self.entries(folder):
            if name.startswith("."):
                continue
            if name.lower().endswith(suffixes):
                others.append(f"{folder}/{name}" if folder else name)
            elif kind == FOLDER:
                folders.append(f"{folder}/{name}" if folder else name)
        return folders, others

    def has_images(self, path: str) -> bool:
        """Return whether a folder itself holds files that may be images."""
        try:
            return any(
                kind == FILE and not name.startswith(".") and suffix_of(name) not in _COMPANIONS
                for name, kind in self.entries(path)
            )
        except Refused:
            return False

    def read_text(self, path: str, *, max_bytes: int) -> str:
        """Return the text of a small file.

        Raises:
            Refused: as for ``status``; or it is missing, larger than ``max_bytes``, or not UTF-8.
        """
        status = self.status(path)
        if status is None:
            raise Refused("There is no such file.")
        if status.size > max_bytes:
            raise Refused(f"It has {status.size:,} bytes, more than the {max_bytes:,} that are read of such a file.")
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


def _check_head(head: bytes) -> None:
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
            found = files.entries(current)
        except Refused as refused:
            report(current, str(refused))
            continue
        own = _is_own(files, current)
        if own and current:
            continue
        folders = []
        for name, kind in found:
            if name.startswith(".") or name in _IGNORED_FOLDERS or (own and name in _OWN_FOLDERS):
                continue
            path = f"{current}/{name}" if current else name
            if kind == FOLDER:
                if is_unicode(name):
                    folders.append(path)
                else:
                    report(path, NOT_UNICODE)
            elif kind == LINKED_FOLDER:
                report(path, "It is a link to a folder; such links are not followed.")
            elif suffix_of(name) in _COMPANIONS:
                companion(path)
            else:
                yield path
        pending.extend(reversed(folders))


def walk_folders(files: Files, *, without: str) -> Iterator[str]:
    """Yield all folders, '' first, but hidden ones and those of one name; links are not followed, what cannot be read is passed over."""
    pending = [""]
    while pending:
        current = pending.pop()
        yield current
        try:
            found = files.entries(current)
        except Refused:
            continue
        names = (name for name, kind in found if kind == FOLDER and name != without and name[0] != ".")
        pending.extend(reversed([f"{current}/{name}" if current else name for name in names]))


def _is_own(files: Files, folder: str) -> bool:
    """Tell whether a folder is DataVisor's own: a data folder, or thumbnails that were put elsewhere."""

    def has(name: str) -> bool:
        try:
            return files.status(f"{folder}/{name}" if folder else name) is not None
        except Refused:
            return True

    return any(map(has, _OWN_FILES)) or bool(_THUMBNAILS.fullmatch(name_of(folder)) and has("folder"))
