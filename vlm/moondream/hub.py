"""The pinned release: its files, found in the hub's cache or downloaded, and checked."""

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm  # type: ignore[import-untyped]

from .errors import ModelUnavailable

MODEL = "vikhyatk/moondream2"
REVISION = "2025-06-21"
OWN = "; weights of your own state their dimensions under “config” in config.json"
REACH_SECONDS = 10.0
TOKENIZER = "moondream/starmie-v1"
TOKENIZER_REVISION = "35192e10a54e36eabe0a7cc57a2c1aab371cafc5"


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file of the pinned release.

    Attributes:
        repository, revision, name: where it lies on the hub.
        size: in bytes, where it is known.
        sha256: the leading digits of its SHA-256, where they are known.
    """

    repository: str
    revision: str
    name: str
    size: int | None = None
    sha256: str | None = None


# Weights of another revision load without an error and answer garbage with this tokenizer, so the two are pinned
# together. The tokenizer files inside the model's own repository are stale.
PINNED = {
    "config": PinnedFile(MODEL, REVISION, "config.json"),
    "weights": PinnedFile(MODEL, REVISION, "model.safetensors", 3_854_538_968, "70a7d94c0c8349eb"),
    "tokenizer": PinnedFile(TOKENIZER, TOKENIZER_REVISION, "tokenizer.json", sha256="0512fdcac4a5f9e7"),
}


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far loading is, in bytes; ``total`` is 0 while it is not known."""

    stage: Literal["download", "verify", "load"]
    done: int
    total: int


Progress = Callable[[LoadProgress], None]


def fetch(file: PinnedFile, report: Progress) -> Path:
    """Return the local path of a pinned file, downloaded if need be, and verified once.

    Raises:
        ModelUnavailable: it is neither in the cache nor to be had, or it is not the file that is meant.
        Exception: whatever ``report`` raises, as it is; that stops a download, and the next one goes on from there.
    """
    try:
        path = Path(hf_hub_download(file.repository, file.name, revision=file.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        path = _download(file, report)
    verify(file, path, report)
    return path


def to_fetch(model: str) -> int:
    """Return how many bytes must be downloaded before a model can be loaded; 0 for a folder, and for one in the cache."""
    if Path(model).expanduser().is_dir():
        return 0
    lacking = 0
    for file in PINNED.values():
        if not isinstance(try_to_load_from_cache(file.repository, file.name, revision=file.revision), str):
            lacking += file.size or 0
    return lacking


def _download(file: PinnedFile, report: Progress) -> Path:
    if constants.is_offline_mode():
        raise _unreachable(file, "HF_HUB_OFFLINE is set")
    _check_room(file)
    if not _is_reachable():
        raise _unreachable(file, f"the Hugging Face hub ({constants.ENDPOINT}) cannot be reached from here")
    stopped: list[Exception] = []

    def tell(progress: LoadProgress) -> None:
        try:
            report(progress)
        except Exception as error:
            stopped.append(error)
            raise

    try:
        with _over_http():
            bar = _reporting_bar(file, tell)
            return Path(hf_hub_download(file.repository, file.name, revision=file.revision, tqdm_class=bar))
    except LocalEntryNotFoundError as error:
        raise _unreachable(file, "the Hugging Face hub cannot be reached from here") from error
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelUnavailable(
            f"The hub has no {file.name} in {file.repository} at revision {file.revision}. Set DATAVISOR_VLM_MODEL to a "
            "local folder that holds the model."
        ) from error
    except Exception as error:  # whatever the HTTP client of the day raises
        if stopped:
            raise stopped[0] from None
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise _no_room(file) from error
        raise ModelUnavailable(
            f"{file.name} of {file.repository} could not be downloaded to {constants.HF_HUB_CACHE}: {error} "
            "Check the connection and the folder, then try again."
        ) from error


def _is_reachable() -> bool:
    """Whether the hub, or the proxy in front of it, can be connected to: its client tries for half a minute to find out."""
    hub = urlsplit(constants.ENDPOINT)
    proxy = getproxies().get(hub.scheme)
    there = (
        urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy and not proxy_bypass(hub.hostname or "") else hub
    )
    try:
        port = there.port or (443 if there.scheme == "https" else 80)
        socket.create_connection((there.hostname or "", port), timeout=REACH_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def _over_http() -> Iterator[None]:
    """Keep the downloader off Xet, whose own threads go on downloading whatever a progress bar raises."""
    before, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _reporting_bar(file: PinnedFile, report: Progress) -> type[Any]:
    """Return a progress bar for the downloader that draws nothing and hands the bytes on."""
    furthest = 0

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal furthest
            shown: bool | None = super().update(n)
            # A download may keep several bars, or start over: what is told never goes back.
            if file.size and self.n > furthest:
                furthest = min(int(self.n), file.size)
                report(LoadProgress("download", furthest, file.size))
            return shown

    return Bar


class _Nowhere:
    def write(self, _: str) -> None: ...

    def flush(self) -> None: ...


def _unreachable(file: PinnedFile, reason: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{file.repository} ({file.name}) is not in the cache {constants.HF_HUB_CACHE}, and {reason}. Connect this machine "
        "once, or copy the cache of another one here and set HF_HOME, or set DATAVISOR_VLM_MODEL to a local folder."
    )


def _free_space() -> int:
    cache = Path(constants.HF_HUB_CACHE)
    return shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free


def _check_room(file: PinnedFile) -> None:
    if file.size and _free_space() < file.size * 1.05:
        raise _no_room(file)


def _no_room(file: PinnedFile) -> ModelUnavailable:
    return ModelUnavailable(
        f"{file.name} needs {(file.size or 0) / 1e9:.1f} GB below {constants.HF_HUB_CACHE}, where {_free_space() / 1e9:.1f} "
        "GB are free. Make room, or set HF_HOME to a folder on a larger disk."
    )


def verify(file: PinnedFile, path: Path, report: Progress) -> None:
    """Compare size and SHA-256 with the pinned ones.

    Raises:
        ModelUnavailable: they differ.
    """
    # In the hub's cache ``path`` is a link, and deleting that alone would bring the same bytes back.
    real = path.resolve()
    status = real.stat()
    if file.size is not None and status.st_size != file.size:
        raise ModelUnavailable(
            f"{real} has {status.st_size:,} bytes instead of the {file.size:,} of {file.name}: a broken download or another "
            f"release. Delete it, and take the one of {file.repository} at revision {file.revision}{OWN}."
        )
    if file.sha256 is None:
        return
    digest = sha256_of(real, report)
    if not digest.startswith(file.sha256):
        raise ModelUnavailable(
            f"{real} is not the {file.name} that DataVisor was built for: its SHA-256 begins with {digest[:16]} "
            f"instead of {file.sha256}. Delete it, and take the one of {file.repository} at revision {file.revision}{OWN}."
        )


def sha256_of(path: Path, report: Progress = lambda _: None) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, computed once: a note beside the cache remembers it.

    Raises:
        OSError: it cannot be read.
    """
    real = path.resolve()
    status = real.stat()
    key, size, changed = str(real), status.st_size, status.st_mtime_ns
    note = Path(constants.HF_HOME) / "datavisor-verified.json"
    if (found := _digests.get((key, size, changed))) is not None:
        return found
    try:
        known = json.loads(note.read_text())
    except (OSError, ValueError):
        known = {}
    match known.get(key):
        # Notes of earlier releases hold the first digits only.
        case [noted_size, noted_change, str(digest)] if len(digest) == 64 and [noted_size, noted_change] == [
            size,
            changed,
        ]:
            _digests[key, size, changed] = digest
            return digest
    sha256, done = hashlib.sha256(), 0
    with real.open("rb") as stream:
        while block := stream.read(1 << 24):
            sha256.update(block)
            done += len(block)
            report(LoadProgress("verify", done, size))
    digest = _digests[key, size, changed] = sha256.hexdigest()
    try:
        note.parent.mkdir(parents=True, exist_ok=True)  # the cache itself may lie elsewhere
        temporary = note.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(known | {key: [size, changed, digest]}))
        temporary.replace(note)
    except OSError:
        pass  # beside a read-only cache files are read again next time
    return digest


_digests: dict[tuple[str, int, int], str] = {}  # path, size and time of change → SHA-256


def identity(model: str) -> str:
    """Return what a model is, wherever it lies: the pinned revision, or “sha256:” with digits over the files of a folder.

    Raises:
        ModelUnavailable: a file of the folder is missing or cannot be read.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return REVISION
    try:
        digests = {role: sha256_of(folder / file.name) for role, file in PINNED.items()}
    except OSError as error:
        raise ModelUnavailable(
            f"{folder} is not a complete checkpoint: {error.strerror or error}: {error.filename}. Put the model's "
            "config.json, model.safetensors and tokenizer.json there."
        ) from error
    if all(file.sha256 and digests[role].startswith(file.sha256) for role, file in PINNED.items() if role != "config"):
        return REVISION
    joined = hashlib.sha256(" ".join(digests[role] for role in sorted(digests)).encode())
    return f"sha256:{joined.hexdigest()[:16]}"
