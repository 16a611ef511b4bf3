"""Django's database in and out of one file: SQLite page by page, PostgreSQL by the programs that come with its client."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.db import connection

from vlm.backups.errors import BackupFailed

PAGES = 1000  # of SQLite, copied at a time
PROGRAMS = ("pg_dump", "pg_restore", "psql")
LOCKS = "-c lock_timeout=60s"  # what somebody has locked for longer is told, not waited for


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of database.

    Attributes:
        name: how people call it.
        file: how its copy is called in a backup.
        begins: by which bytes that is known.
        out: writes a copy, consistent while others write, to a path.
        into: puts such a copy in the place of the present database, whole or not at all.
    """

    name: str
    file: str
    begins: bytes
    out: Callable[[Path], None]
    into: Callable[[Path], None]


def own_kind() -> Kind:
    """Return the kind that ``DATABASE_URL`` names.

    Raises:
        BackupFailed: the programs are not there that copy it.
    """
    kind = KINDS[connection.vendor]
    if kind is KINDS["postgresql"] and (missing := [name for name in PROGRAMS if shutil.which(name) is None]):
        raise BackupFailed(
            f"Users, data sets and runs are in PostgreSQL, and {missing[0]}, which copies them, is not here. Install PostgreSQL's "
            "client (on Debian and Ubuntu: apt-get install postgresql-client). Without it, stop every server, back that "
            f"database up elsewhere and copy {settings.DUCKDB_PATH} before they start again: the two belong together."
        )
    return kind


# -- SQLite --------------------------------------------------------------------------------------------------------------
def _own_file() -> Path:
    return Path(connection.settings_dict["NAME"])


def _copy_pages(source: Path, target: Path) -> None:
    """Copy one SQLite database over another, page by page: both may be in use, and stay consistent."""
    with closing(sqlite3.connect(source, timeout=60)) as read, closing(sqlite3.connect(target, timeout=60)) as written:
        read.backup(written, pages=PAGES)


# -- PostgreSQL ----------------------------------------------------------------------------------------------------------
def _own_tables() -> list[str]:
    """Return the tables that are DataVisor's. Others may lie beside them, which are none of its business."""
    models = apps.get_models(include_auto_created=True, include_swapped=True)
    with connection.cursor() as cursor:
        there = set(connection.introspection.table_names(cursor))
    return sorted(there & {*(model._meta.db_table for model in models), "django_migrations"})


def _dump(target: Path) -> None:
    tables = [f'--table="{name}"' for name in _own_tables()]
    _run("pg_dump", ["--format=custom", "--no-owner", "--no-privileges", *tables, f"--file={target}"])


def _undump(source: Path) -> None:
    """Make the tables anew, in one transaction."""
    tables = ", ".join(connection.ops.quote_name(name) for name in _own_tables())
    options = ["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]
    with tempfile.TemporaryDirectory(prefix="datavisor-") as folder:  # its user's alone
        script = Path(folder, "restore.sql")
        with script.open("wb") as file:
            file.write(f"drop table {tables} cascade;\n".encode() if tables else b"")
            file.flush()
            words = ["pg_restore", "--no-owner", "--no-privileges", "--file=-", str(source)]
            subprocess.run(words, check=True, stdout=file, stderr=subprocess.PIPE)
        _run("psql", [*options, f"--file={script}"])


def _run(program: str, arguments: Sequence[str]) -> None:
    """Run one of PostgreSQL's programs on the database that ``DATABASE_URL`` names; passwords travel in its environment."""
    (_, *words), variables = connection.client.settings_to_cmd_args_env(connection.settings_dict, list(arguments))
    environment = os.environ | {"PGOPTIONS": LOCKS} | (variables or {})
    subprocess.run([program, *words], env=environment, check=True, capture_output=True)


KINDS = {
    "sqlite": Kind(
        "SQLite",
        "datavisor.sqlite3",
        b"SQLite format 3\0",
        out=lambda target: _copy_pages(_own_file(), target),
        into=lambda source: _copy_pages(source, _own_file()),
    ),
    "postgresql": Kind("PostgreSQL", "datavisor.pgdump", b"PGDMP", out=_dump, into=_undump),
}
