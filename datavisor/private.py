"""The data folder is private to the user whose data it is, and is made when it is first needed: never by an import.

What lies in it tells who may log in (password hashes, sessions, the secret key) and what everybody's pictures show. So the
folder is 0700 and the files in it 0600, whatever the umask says, and those that an older release left open are mended.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

FOLDER, FILE = 0o700, 0o600
PRIVATE_UMASK = 0o077
KEY_FILE = "secret_key"

_users_umask: int | None = None
_owned: set[Path] = set()


def be_private() -> None:
    """Have this process make files that only its user can read: DuckDB, SQLite and others choose no mode of their own."""
    global _users_umask
    before = os.umask(PRIVATE_UMASK)
    if _users_umask is None:
        _users_umask = before


@contextmanager
def as_the_user_wants() -> Iterator[None]:
    """Make files as the user's umask says: for what a command writes for them, outside the data folder."""
    if _users_umask is None:
        yield
        return
    now = os.umask(_users_umask)
    try:
        yield
    finally:
        os.umask(now)


def own_data_dir(folder: Path) -> Path:
    """Make the data folder if it is not there, take others' rights away from it and from what lies in it; return it.

    Raises:
        ImproperlyConfigured: it cannot be made or written to, or is somebody else's; the message says what to do.
    """
    if folder in _owned and folder.is_dir():
        return folder
    if complaint := trouble_with(folder):
        raise ImproperlyConfigured(complaint)
    be_private()
    try:
        folder.mkdir(FOLDER, parents=True, exist_ok=True)
        mend(folder)
    except OSError as error:
        raise ImproperlyConfigured(
            f"The data folder {folder} cannot be made or written to: {error.strerror}. "
            "Set DATAVISOR_DATA_DIR to a folder of your own."
        ) from error
    _owned.add(folder)
    return folder


def trouble_with(folder: Path) -> str:
    """Return what keeps ``folder`` from being the data folder, empty if nothing does. Writes nothing."""
    change = "Set DATAVISOR_DATA_DIR to a folder of your own, or give this user the right."
    there = folder
    while not os.path.exists(there) and there != there.parent:  # noqa: PTH110  (False where this user may not look)
        there = there.parent
    if not there.is_dir():
        return f"The data folder {folder} cannot be made: {there} is no folder. {change}"
    if not os.access(there, os.W_OK | os.X_OK):
        what = "written to" if there == folder else f"made: {there} cannot be written to"
        return f"The data folder {folder} cannot be {what}. {change}"
    if there == folder and os.geteuid() not in (0, (owner := folder.stat().st_uid)):
        return (
            f"The data folder {folder} belongs to another user (number {owner}), and whoever starts DataVisor must own it. "
            "Start it as that user, or set DATAVISOR_DATA_DIR to a folder of your own."
        )
    return ""


def mend(folder: Path) -> None:
    """Take others' rights away from ``folder`` and from the files and folders in it, as far as they are this user's.

    One level is enough: nobody gets further down than a folder that is closed to them.
    """
    for path in (folder, *folder.iterdir()):
        try:
            status = path.lstat()
            mode = stat.S_IMODE(status.st_mode)
            if mode & PRIVATE_UMASK and (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                path.chmod(mode & ~PRIVATE_UMASK)
        except (FileNotFoundError, PermissionError):
            continue  # gone meanwhile, or somebody else's: the folder is closed anyway


def make_private(path: Path) -> None:
    """Make an empty file that only this user can read, unless it is there; if it is, close it to others."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE))
    except FileExistsError:
        pass
    for sibling in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        try:
            if sibling.stat().st_mode & PRIVATE_UMASK:
                sibling.chmod(FILE)
        except (FileNotFoundError, PermissionError):
            continue
