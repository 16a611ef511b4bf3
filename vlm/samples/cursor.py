"""A cursor of DuckDB that parses each statement once per process.

Most texts come again and again with other values, and parsing one takes milliseconds where it is long.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

KEPT = 256  # parsed statements, those last used; each takes some 30 times the memory of its text
LONGEST = 8_000  # characters of a statement that is kept


class Cursor:
    """What the store's modules use of a DuckDB connection or cursor."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.begin, self.commit, self.rollback = connection.begin, connection.commit, connection.rollback
        self.register, self.unregister = connection.register, connection.unregister
        self.appender, self.close = connection.appender, connection.close

    def execute(self, sql: str, values: Sequence[Any] | Mapping[str, Any] | None = None) -> duckdb.DuckDBPyConnection:
        """Carry out a statement with its parameters, and return where its rows are fetched.

        Raises:
            duckdb.Error: as DuckDB's own ``execute`` does.
        """
        return self._connection.execute(_parsed(self._connection, sql), values)


_statements: dict[str, duckdb.Statement] = {}  # by their text, the last used one at the end
_lock = threading.Lock()


def _parsed(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement | str:
    """Return the statement ready to be planned, or the text itself where it is several statements, or long.

    A parsed statement knows no connection and no table yet: it serves each connection, and what DuckDB makes of it is a copy.
    """
    with _lock:
        statement = _statements.pop(sql, None)
        if statement is not None:
            _statements[sql] = statement
            return statement
    if len(sql) > LONGEST or len(statements := connection.extract_statements(sql)) != 1:
        return sql
    with _lock:
        _statements[sql] = statements[0]
        while len(_statements) > KEPT:
            del _statements[next(iter(_statements))]
    return statements[0]
