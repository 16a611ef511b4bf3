"""Two servers on one data folder: either can be asked, what one does is seen at the other, and one goes on without the other."""

import json
import re
import signal
from collections.abc import Iterator

import pytest

from tests.children import wait_for
from tests.servers.pair import IMAGES, Pair
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.serving import SocketClosed

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def both(postgres: Postgres, redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    pair = Pair(folder, DATABASE_URL=postgres.create("pair"), DATAVISOR_REDIS_URL=redis.url)
    yield pair
    pair.close()


@pytest.fixture
def pair(both: Pair) -> Pair:
    """Two servers that are up, on PostgreSQL and with Redis; whatever a test before has left of its run is over."""
    both.start()
    both.brake.release()
    if both.look(both.one)["run"] is not None:
        both.wait_for_end(both.one)
    return both


def test_what_one_does_is_seen_and_steered_at_the_other(pair: Pair) -> None:
    steered(pair)


def test_so_it_is_on_sqlite_and_without_redis(tmp_path_factory: pytest.TempPathFactory) -> None:
    pair = Pair(tmp_path_factory.mktemp("bare"))
    try:
        steered(pair)
    finally:
        pair.close()


def processed(count: int) -> str:
    return rf'id="live-processed"[^>]*>{count}<'


def steered(pair: Pair) -> None:
    """A run of one server is followed, edited beside, and cancelled at the other; whoever is logged in at one is at both."""
    before = pair.traces
    with pair.listen(pair.one) as here, pair.listen(pair.other) as there:
        run = pair.start_run(pair.one, images=3)
        for listener in (here, there):
            listener.hear_until(processed(3))
        assert pair.post(pair.other, "/datasets/1/auto-tag", scope="all") == 409
        assert pair.post(pair.other, "/datasets/1/tags", tag="tunnel", action="add", ids=1) in (200, 302)
        with pair.visit(pair.one) as wire:
            found = json.loads(wire.ask("GET", "/datasets/1/?all=tunnel", Accept="application/json")[2])
            page = wire.ask("GET", "/datasets/1/")[2].decode()
        assert [sample["id"] for sample in found["samples"]] == [1]
        (changes,) = set(re.findall(r'data-changes="\d+"', page))
        for listener in (here, there):
            listener.hear_until(changes)
        assert pair.post(pair.other, f"/runs/{run}/cancel") in (200, 302)
        for listener in (here, there):
            assert 'id="live-resume"' in listener.hear_until('class="live cancelled"')
    assert pair.look(pair.one) == pair.look(pair.other)
    pair.brake.release()
    assert pair.post(pair.other, f"/runs/{run}/resume") in (200, 302)
    ended = pair.wait_for_end(pair.one)
    assert (ended["run"], ended["status"], ended["processed"]) == (run, "completed", IMAGES)
    assert pair.check().returncode == 0
    assert pair.traces == before


def test_one_goes_on_where_the_other_was_killed(pair: Pair) -> None:
    run = pair.start_run(pair.one, images=3)
    with pair.listen(pair.other) as there:
        there.hear()
        pair.one.kill()
        assert "Resume to go on where it was" in there.hear_until('class="live interrupted"')
        pair.brake.release()
        assert pair.post(pair.other, f"/runs/{run}/resume") in (200, 302)
        there.hear_until('class="live completed"')
    ended = pair.look(pair.other)
    assert (ended["run"], ended["processed"], ended["failed"]) == (run, IMAGES, 0)
    assert pair.check().returncode == 0


def test_without_redis_pages_go_on_by_looking(pair: Pair, redis: Redis) -> None:
    before = pair.traces
    with pair.listen(pair.one) as here, pair.listen(pair.other) as there:
        run = pair.start_run(pair.one, images=3)
        try:
            redis.stop()
            pair.brake.allow(2)
            pair.brake.wait_until_reached()
            for listener in (here, there):
                listener.hear_until(processed(5))
            with pair.listen(pair.other) as late:
                assert f'data-run="{run}"' in late.hear()
        finally:
            redis.start()
        pair.brake.release()
        for listener in (here, there):
            listener.hear_until('class="live completed"')
    assert pair.traces == before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restarted", "crashed"])
def test_a_run_outlives_its_database_server(pair: Pair, postgres: Postgres, how: signal.Signals) -> None:
    run = pair.start_run(pair.one, images=3)
    with pair.listen(pair.other) as there:
        there.hear()
        try:
            postgres.stop(how)
            pair.brake.allow(2)
            pair.brake.wait_until_reached()  # answers are kept in the store meanwhile
            with pair.visit(pair.other) as wire:
                status, headers, _ = wire.ask("GET", "/datasets/1/", Accept="application/json")
            assert (status, headers["retry-after"]) == (503, "5")
            with pair.listen(pair.other) as late, pytest.raises(SocketClosed) as closed:
                late.hear()
            assert closed.value.code == 1013  # after which a page comes back by itself
        finally:
            postgres.start()
        pair.brake.release()
        there.hear_until('class="live completed"')
    ended = pair.look(pair.one)
    assert (ended["run"], ended["processed"], ended["failed"]) == (run, IMAGES, 0)
    assert pair.check().returncode == 0


def test_a_run_that_cannot_say_how_it_ended_says_so_later(pair: Pair, postgres: Postgres) -> None:
    """All images are answered while the database is away: the row stands at its old state until it is back, and no longer."""
    run = pair.start_run(pair.one, images=3)
    said = "How a job ended cannot be written down yet"
    before = pair.one.log.read_text().count(said)
    try:
        postgres.stop()
        pair.brake.release()
        wait_for(lambda: pair.one.log.read_text().count(said) > before)
    finally:
        postgres.start()
    ended = pair.wait_for_end(pair.other)
    if ended["status"] != "completed":  # what follows the last answer needs the database
        assert ended["resumable"]
        assert pair.post(pair.other, f"/runs/{run}/resume") in (200, 302)
        ended = pair.wait_for_end(pair.other)
    assert (ended["run"], ended["status"], ended["processed"]) == (run, "completed", IMAGES)
    assert pair.check().returncode == 0
