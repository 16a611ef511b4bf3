"""A statement is parsed once, and means on each connection what it says there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest

from vlm.samples import cursor as module
from vlm.samples.cursor import Cursor


class Counting:
    """A connection that knows what it was asked to parse."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.parsed: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def extract_statements(self, sql: str) -> list[duckdb.Statement]:
        self.parsed.append(sql)
        return self._connection.extract_statements(sql)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_statements", {})


@pytest.fixture
def connection() -> Iterator[Counting]:
    with duckdb.connect() as connection:
        yield Counting(connection)


@pytest.fixture
def cursor(connection: Counting) -> Cursor:
    return Cursor(connection)  # type: ignore[arg-type]


def test_a_text_is_parsed_once_whatever_its_values(connection: Counting, cursor: Cursor) -> None:
    assert [cursor.execute("select ? + 1", [value]).fetchall() for value in (1, 2.5)] == [[(2,)], [(3.5,)]]
    assert cursor.execute("select $a || $b", {"a": "x", "b": "y"}).fetchall() == [("xy",)]
    assert connection.parsed == ["select ? + 1", "select $a || $b"]


def test_tables_are_looked_up_anew(cursor: Cursor) -> None:
    cursor.execute("create table given as select 1 as a").fetchall()
    assert cursor.execute("select * from given").fetchall() == [(1,)]
    cursor.execute("drop table given").fetchall()
    with pytest.raises(duckdb.CatalogException, match="given"):
        cursor.execute("select * from given")
    cursor.execute("create table given as select 'b' as a, 2 as c").fetchall()
    assert cursor.execute("select * from given").fetchall() == [("b", 2)]


def test_it_serves_other_connections_when_its_own_is_gone() -> None:
    for number in range(3):
        with duckdb.connect() as connection:
            connection.execute(f"create table given as select {number} as a")
            assert Cursor(connection).execute("select a from given").fetchall() == [(number,)]
    assert list(module._statements) == ["select a from given"]


def test_threads_share_it(connection: Counting) -> None:
    def ask(value: int) -> int:
        with connection._connection.cursor() as own:
            return int(Cursor(own).execute("select ?::int * 2", [value]).fetchall()[0][0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(400))) == [2 * value for value in range(400)]


def test_several_statements_are_all_carried_out(cursor: Cursor) -> None:
    for _ in range(2):
        assert cursor.execute("create or replace table a as select 1 as n; insert into a values (2)").fetchall() == [
            (1,)
        ]
        assert cursor.execute("select sum(n) from a").fetchall() == [(3,)]


def test_what_cannot_be_parsed_is_said_by_duckdb(cursor: Cursor) -> None:
    for _ in range(2):
        with pytest.raises(duckdb.ParserException, match="selekt"):
            cursor.execute("selekt 1")


def test_no_more_is_kept_than_is_used_again(
    connection: Counting, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    long = f"select '{'x' * module.LONGEST}'"
    for sql in ("select 1", "select 2", "select 1", "select 3", long, "select 1", "select 2"):
        cursor.execute(sql).fetchall()
    assert connection.parsed == ["select 1", "select 2", "select 3", "select 2"]
    assert list(module._statements) == ["select 1", "select 2"]
