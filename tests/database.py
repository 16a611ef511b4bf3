"""Django's database in the tests: a file of this process, or the PostgreSQL database that ``tests/settings.py`` was told of."""

import sqlite3
from collections.abc import Callable
from urllib.parse import quote

from django.db import connection

COUNTERS = """
select owner.relname, counter.relname from pg_depend link
join pg_class counter on counter.oid = link.objid and counter.relkind = 'S' and counter.relnamespace = 'public'::regnamespace
join pg_class owner on owner.oid = link.refobjid where link.deptype = 'i'
"""


def database_url() -> str:
    """Return what a process that the test starts must have as ``DATABASE_URL`` to see what the test sees."""
    own = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{own['NAME']}"
    return f"postgres://{quote(own['USER'])}@/{own['HOST']}/{own['NAME']}"


def kept() -> Callable[[], None]:
    """Keep the database as it is now; what is returned puts that back, where emptying and filling it takes seconds."""
    connection.ensure_connection()
    return _kept_sqlite() if connection.vendor == "sqlite" else _kept_postgres()


def cut_off() -> None:
    """End the connections of threads that are left of a test; a PostgreSQL database that somebody is connected to stays."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )


def _kept_sqlite() -> Callable[[], None]:
    fresh = sqlite3.connect(":memory:", check_same_thread=False)
    connection.connection.backup(fresh)

    def put_back() -> None:
        connection.ensure_connection()
        fresh.backup(connection.connection)

    return put_back


def _kept_postgres() -> Callable[[], None]:
    """Keep a copy of each table in a schema beside them, and what each counter has reached."""
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        columns = {
            table: ", ".join(f'"{column.name}"' for column in connection.introspection.get_table_description(cursor, table))
            for table in tables
        }  # fmt: skip
        cursor.execute("create schema fresh")
        for table in tables:
            cursor.execute(f'create table fresh."{table}" as table "{table}"')
        cursor.execute(COUNTERS)
        counters = dict(cursor.fetchall())
    names = ", ".join(f'"{table}"' for table in tables)
    statements = [
        f"truncate {names} restart identity",
        *(f'insert into "{table}" ({columns[table]}) select {columns[table]} from fresh."{table}"' for table in tables),
        *(
            f'select setval(\'"{counter}"\', (select max(id) from "{table}")) where exists (table "{table}")'
            for table, counter in counters.items()
            if table in columns
        ),
    ]

    def put_back() -> None:
        connection.close()  # in whatever state the test has left it
        with connection.cursor() as cursor:  # all in one: it is a transaction, at whose end foreign keys are looked at
            cursor.execute(";".join(statements))

    return put_back
