"""How work is shared out among workers, and what becomes of it when they die: without a process, and without a clock."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest

from tests.effort import EFFORT
from tests.scoring.fakes import Clock, Death, FakeTransport, FakeWorker
from vlm.moondream import EngineError, ModelUnavailable
from vlm.moondream.errors import DeviceLost
from vlm.roots import LocalRoot
from vlm.samples import Pending, Result
from vlm.scoring import crew as crews
from vlm.scoring.crew import Crew, Terms
from vlm.scoring.errors import WorkerRefused, WorkersLost
from vlm.scoring.job import Asking
from vlm.scoring.member import WorkerState
from vlm.vocabulary import DEFAULT_VOCABULARY

JOB = Asking(
    run_id=1,
    root=LocalRoot("/photos"),
    vocabulary=DEFAULT_VOCABULARY,
    mode="score",
    detail="low",
    min_probability=0,
    min_mass=0,
    batch_size=0,
    max_pixels=1,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("crew", "member", "engine"):
        monkeypatch.setattr(f"vlm.scoring.{module}.time", clock)
    return clock


class Team:
    """A crew of fake workers, and what it is asked."""

    def __init__(self, clock: Clock, *workers: FakeWorker, seed: int = 0, revision: str = "") -> None:
        self.workers = {str(number): worker for number, worker in enumerate(workers, 1)}
        self.transport = FakeTransport(self.workers, clock, seed=seed)
        self.told: list[list[WorkerState]] = []
        self.stop = threading.Event()
        self.taken = 0
        self.crew = Crew(self.transport, Terms("/photos", revision), DEFAULT_VOCABULARY, tell=self.told.append)

    def samples(self, count: int) -> Iterator[Pending]:
        for number in range(count):
            self.taken += 1
            yield Pending(number, f"{number}.jpg")

    def results(self, count: int) -> Iterator[list[Result]]:
        self.crew.gather()
        return self.crew.results(self.samples(count), JOB, stop=self.stop, waited=lambda *_: None)

    def run(self, count: int) -> dict[int, str]:
        """Return sample → error, empty for none, having made sure that each came once."""
        found = [result for results in self.results(count) for result in results]
        assert max(Counter(result.sample_id for result in found).values(), default=1) == 1
        return {result.sample_id: result.error for result in found}


def drained(results: Iterator[list[Result]], into: list[Result]) -> None:
    for batch in results:
        into += batch


def dying_over(*poison: int) -> Callable[[Sequence[Pending]], None]:
    def before(samples: Sequence[Pending]) -> None:
        if {sample.id for sample in samples} & set(poison):
            raise Death

    return before


def test_each_sample_is_answered_once(clock: Clock) -> None:
    team = Team(clock, FakeWorker(batch_size=3), FakeWorker(batch_size=5), FakeWorker(batch_size=1))
    assert team.run(100) == dict.fromkeys(range(100), "")
    assert all(worker.asked for worker in team.workers.values())
    assert {len(batch) for batch in team.workers["2"].asked[:-1]} == {5}  # of its own size


def test_nothing_piles_up_before_who_does_not_ask_for_it(clock: Clock) -> None:
    team = Team(clock, FakeWorker(batch_size=4), FakeWorker(batch_size=4))
    given = 0
    for results in team.results(200):
        given += len(results)
        assert team.taken - given <= 2 * crews.IN_FLIGHT * 4


def test_a_faster_worker_gets_more(clock: Clock) -> None:
    slow, fast = FakeWorker(batch_size=1), FakeWorker(batch_size=1)
    team = Team(clock, slow, fast)
    results = team.results(100)
    while len(fast.asked) + len(slow.asked) < 98:
        slow.silent = team.taken % 10 != 0
        next(results)
    assert len(fast.asked) > 2 * len(slow.asked)


def test_what_a_lost_worker_had_at_hand_goes_to_another(clock: Clock) -> None:
    team = Team(clock, FakeWorker(), FakeWorker())
    results, found = team.results(1200), list[Result]()
    while not team.crew.members["1"].at_hand:
        found += next(results)
    team.transport.kill("1")
    found += [result for batch in results for result in batch]
    assert sorted(result.sample_id for result in found) == list(range(1200))
    assert not any(result.error for result in found)
    assert team.crew.members["1"].deaths == 1
    assert "proving" in {state.state for states in team.told for state in states if state.name == "1"}


@pytest.mark.parametrize("seed", range(5 * EFFORT))
def test_random_deaths_cost_no_image_and_double_none(clock: Clock, seed: int) -> None:
    chance, killed = Random(seed), Counter[int]()
    most = (
        crews.DEATHS_TOGETHER + crews.DEATHS_ALONE - 1
    )  # chance that meets one image more often is taken for the image

    def before(samples: Sequence[Pending]) -> None:
        if chance.random() < 0.2 and all(killed[sample.id] < most for sample in samples):
            killed.update(sample.id for sample in samples)
            raise Death

    team = Team(clock, *(FakeWorker(before=before, batch_size=size, down=1) for size in (1, 4, 8)), seed=seed)
    assert team.run(300) == dict.fromkeys(range(300), "")
    assert sum(member.deaths for member in team.crew.members.values()) > 5


def test_an_image_that_kills_three_workers_is_a_failed_sample_and_no_other_is(clock: Clock) -> None:
    workers = [FakeWorker(before=dying_over(17), batch_size=8) for _ in range(3)]
    team = Team(clock, *workers)
    found = team.run(60)
    assert sorted(found) == list(range(60))
    assert {number: error for number, error in found.items() if error} == {17: crews.OVER_IT}
    deaths = sum(member.deaths for member in team.crew.members.values())
    assert (
        deaths <= crews.DEATHS_TOGETHER + crews.DEATHS_ALONE + 1
    )  # a batch beside the poisoned one may be suspected with it
    assert sum(batch == [17] for worker in workers for batch in worker.asked) == crews.DEATHS_ALONE


def test_one_worker_alone_gets_over_a_poisoned_image_too(clock: Clock) -> None:
    team = Team(clock, FakeWorker(before=dying_over(3), batch_size=2))
    found = team.run(8)
    assert {number for number, error in found.items() if error} == {3}
    assert sorted(found) == list(range(8))


def test_a_machine_that_kills_whatever_works_on_it_counts_against_no_image(clock: Clock) -> None:
    full_until = clock.now + 100

    def before(*_: object) -> None:
        if 1001 < clock.now < full_until:
            raise Death

    team = Team(clock, *(FakeWorker(before=before, scores=before) for _ in range(2)))
    found = team.run(400)
    assert found == dict.fromkeys(range(400), "")
    assert clock.now > full_until


# -- who does not fit ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("worker", "why"),
    [
        (FakeWorker(version="0.0.1"), "Worker 2 on here runs DataVisor 0.0.1, and this machine"),
        (FakeWorker(unseen="it is not there"), "Worker 2 on here does not see the images: it is not there"),
        (FakeWorker(revision="two"), "Worker 2 on here has another model: two instead of one"),
        (FakeWorker(dtype="bfloat16"), "DATAVISOR_VLM_DTYPE"),
    ],
    ids=["version", "images", "model", "number format"],
)
def test_a_worker_that_does_not_fit_is_refused_by_name(clock: Clock, worker: FakeWorker, why: str) -> None:
    team = Team(clock, FakeWorker(), worker, revision="one")
    with pytest.raises(WorkerRefused, match=why):
        team.run(400)


def test_a_model_that_cannot_be_loaded_is_told_with_the_worker(clock: Clock) -> None:
    worker = FakeWorker()
    worker.load = lambda: _raise(ModelUnavailable("There is no room. Make some."))  # type: ignore[method-assign]
    with pytest.raises(WorkerRefused, match=r"Worker 1 on here cannot be used: There is no room\. Make some\."):
        Team(clock, worker).run(1)


def _raise(error: Exception) -> Any:
    raise error


def test_a_model_that_fails_ends_the_run_as_here(clock: Clock) -> None:
    def before(samples: Sequence[Pending]) -> None:
        if samples[0].id >= 8:
            raise EngineError("The model's scores are not finite.")

    team, found = Team(clock, FakeWorker(before=before)), list[Result]()
    with pytest.raises(EngineError, match="not finite"):
        drained(team.results(40), found)
    assert len(found) == 8


def test_a_gpu_that_is_lost_is_a_worker_that_is_lost(clock: Clock) -> None:
    failing = [DeviceLost("The GPU stopped working.")]

    def before(_: Sequence[Pending]) -> None:
        if failing:
            raise failing.pop()

    worker = FakeWorker(before=before)
    assert Team(clock, worker).run(20) == dict.fromkeys(range(20), "")
    assert worker.restarts == 1


# -- nobody there ----------------------------------------------------------------------------------------------------------
def test_workers_that_never_come_up_are_told(clock: Clock) -> None:
    with pytest.raises(WorkersLost, match="No worker came up within 120 s"):
        Team(clock, FakeWorker(silent=True)).run(4)


def test_all_gone_for_minutes_fails_the_run_and_a_minute_does_not(clock: Clock) -> None:
    team, found = Team(clock, FakeWorker(), FakeWorker()), list[Result]()
    results = team.results(400)
    while len(found) < 40:
        found += next(results)
    since, before = clock.now, len(found)
    for name, worker in team.workers.items():
        worker.down = 10**6
        team.transport.kill(name)
    with pytest.raises(WorkersLost, match=r"No worker has answered for 5 minutes \(It cannot be reached\.\)"):
        drained(results, found)
    assert 300 < clock.now - since < 310
    assert len(found) == before
    again = Team(clock, FakeWorker(down=60), FakeWorker(down=60))
    results = again.results(40)
    next(batch for batch in results if batch)
    for name in again.workers:
        again.transport.kill(name)
    assert sum(len(batch) for batch in results) == 36


def test_a_worker_that_crashes_whenever_it_has_loaded_is_no_sign_of_life(clock: Clock) -> None:
    def die() -> None:
        raise Death

    worker = FakeWorker(scores=die)
    team = Team(clock, worker)
    results = team.results(40)
    next(batch for batch in results if batch)
    team.transport.kill("1")
    with pytest.raises(WorkersLost):
        list(results)


def test_a_worker_that_says_nothing_is_started_anew_and_no_image_is_blamed(clock: Clock) -> None:
    stuck, other = FakeWorker(), FakeWorker()
    team = Team(clock, stuck, other)
    results = team.results(100)
    found = list[Result]()
    while not team.crew.members["1"].at_hand:
        found += next(results)
    stuck.silent = True
    found += [result for batch in results for result in batch]
    assert sorted(result.sample_id for result in found) == list(range(100))
    assert stuck.restarts == 1
    assert not team.crew._suspects


# -- the end ---------------------------------------------------------------------------------------------------------------
def test_a_stop_takes_no_more_and_gives_what_is_at_hand(clock: Clock) -> None:
    team = Team(clock, FakeWorker(), FakeWorker())
    results = team.results(400)
    found = next(batch for batch in results if batch)
    team.stop.set()
    taken = team.taken
    found += [result for batch in results for result in batch]
    assert team.taken == taken == len(found)


def test_after_a_stop_nobody_waits_for_the_dead_or_the_stuck(clock: Clock) -> None:
    for end in (lambda team: team.transport.kill("1"), lambda team: setattr(team.workers["1"], "silent", True)):
        team = Team(clock, FakeWorker())
        results = team.results(400)
        next(batch for batch in results if batch)
        team.stop.set()
        end(team)
        since = clock.now
        assert [batch for batch in results if batch] == []
        assert clock.now - since <= crews.STOP_SECONDS + 2


def test_a_picture_is_scored_by_another_worker_if_the_first_one_dies(clock: Clock) -> None:
    deaths = [Death()]

    def die_once() -> None:
        if deaths:
            raise deaths.pop()

    team = Team(clock, FakeWorker(scores=die_once), FakeWorker(scores=die_once))
    assert team.crew.score([crews.HARMLESS], DEFAULT_VOCABULARY, "low") == [{}]
    assert not deaths


def test_what_is_told_names_each_worker_its_work_and_its_last_sign_of_life(clock: Clock) -> None:
    team = Team(clock, FakeWorker(), FakeWorker())
    team.run(100)
    last = team.crew.states()
    assert [state.name for state in last] == ["1", "2"]
    assert sum(state.images for state in last) == 100
    assert all(state.seen and state.rate > 0 and state.node == "here" for state in last)
    assert [WorkerState.from_json(state.to_json()) for state in last] == last
