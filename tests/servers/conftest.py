"""Servers that DataVisor works with, of the tests' own: PostgreSQL, Redis. Where one is not installed, its tests are skipped."""

import shutil
from collections.abc import Iterator

import pytest

from tests.servers.postgres import NEEDED, Postgres, program
from tests.servers.redis import Redis


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if missing := [name for name in NEEDED if program(name) is None]:
        pytest.skip(f"PostgreSQL’s {missing[0]} is not installed (Debian: apt-get install postgresql)")
    server = Postgres()
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    server = Redis()
    yield server
    server.close()
