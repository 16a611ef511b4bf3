"""The backend: Django's own, but for how a connection begins."""

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

from datavisor.private import make_private, own_data_dir

_kept: dict[str, tuple[int, int, sqlite3.Connection]] = {}
_lock = threading.Lock()


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if not self.is_in_memory_db():
            keep_open(str(conn_params["database"]))
        return super().get_new_connection(conn_params)


def keep_open(name: str) -> None:
    """Make the file if need be, put it into WAL mode, and hold a connection to it as long as this process lives.

    The last connection to close takes the log and its index away, and a request closes its own at its end. On a full disk
    the next one could not make them again, so not even read. As long as one connection stays, they do too.
    """
    path = Path(name)
    with _lock:
        try:
            status = path.stat()
        except OSError:
            status = None
        kept = _kept.get(name)
        if status is not None and kept is not None and kept[:2] == (os.getpid(), status.st_ino):
            return
        if path.parent == Path(settings.DATA_DIR):
            own_data_dir(path.parent)
        try:
            make_private(path)
            connection = sqlite3.connect(name, timeout=30, check_same_thread=False)
            try:
                connection.execute("pragma journal_mode = wal")
                connection.execute("select count(*) from sqlite_schema").fetchone()  # opens the log and its index
            except BaseException:
                connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise OperationalError(f"The database {path} cannot be opened: {error}.") from error
        _kept[name] = (os.getpid(), path.stat().st_ino, connection)
