"""What of a cluster each worker gets, and what Ray is told: without Ray."""

from types import SimpleNamespace
from typing import Any

import pytest

from vlm.scoring import ray_cluster
from vlm.scoring.errors import WorkerLost, WorkerRefused, WorkersUnavailable
from vlm.scoring.places import Workers
from vlm.scoring.ray_cluster import RayTransport, Share
from vlm.scoring.worker import Outfit

HEAD: dict[str, float] = {"memory": 1.0}


def share(workers: str, *nodes: dict[str, float], device: str = "auto", lost: int = 0) -> Share:
    there = [{"Alive": True, "Resources": node} for node in nodes] + [
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}} for _ in range(lost)
    ]
    ray: Any = SimpleNamespace(nodes=lambda: there)
    return ray_cluster._share(ray, Workers.parse(workers), Outfit("m", "", device, "auto"))


def test_a_worker_for_each_gpu_with_its_part_of_the_cores() -> None:
    eight, two = {"CPU": 64.0, "GPU": 8.0}, {"CPU": 8.0, "GPU": 2.0}
    assert share("local", eight) == Share(8, 8, 1)
    assert share("local:3", eight) == Share(3, 8, 1)
    assert share("auto", HEAD, eight, two, {"CPU": 4.0}, lost=2) == Share(10, 4, 1)
    assert share("auto", {"GPU": 8.0}, two) == Share(2, 4, 1)  # the head beside the server, with no CPU to give


def test_without_a_gpu_cores_are_divided() -> None:
    assert share("local", {"CPU": 8.0}) == Share(1, 8, 0)
    assert share("local:4", {"CPU": 8.0}) == Share(4, 2, 0)
    assert share("local:4", {"CPU": 4.0, "GPU": 1.0}, device="cpu") == Share(4, 1, 0)
    assert share("ray://head:10001", HEAD, {"CPU": 16.0}, {"CPU": 8.0}) == Share(2, 8, 0)


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(WorkersUnavailable, match=r"3 workers are asked for, one per GPU, and there are 2\."):
        share("local:3", {"CPU": 8.0, "GPU": 2.0})
    with pytest.raises(WorkersUnavailable, match=r"ray start --address=HEAD:PORT\."):
        share("auto", HEAD, {"GPU": 2.0}, lost=1)


def test_a_cluster_of_ones_own_has_a_token_and_tells_nobody_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr("vlm.scoring.ray_cluster.os.environ", environment)
    monkeypatch.setitem(__import__("sys").modules, "ray", SimpleNamespace())
    ray_cluster.load(Workers.parse("local"))
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    token = environment["RAY_AUTH_TOKEN"]
    assert len(token) == 64
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "1"}  # the user's own words stand
    ray_cluster.load(Workers.parse("local"))
    assert (environment["RAY_AUTH_MODE"], environment["RAY_USAGE_STATS_ENABLED"]) == ("disabled", "1")
    environment.clear()
    ray_cluster.load(Workers.parse("auto"))
    assert "RAY_AUTH_TOKEN" not in environment  # the cluster's is where Ray looks for it


def test_a_cluster_that_cannot_be_reached_is_told_with_what_ray_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: object, **__: object) -> None:
        raise ConnectionError("ray client connection timeout\nwith a stack below")

    ray: Any = SimpleNamespace(init=init, shutdown=lambda: None)
    monkeypatch.setattr(ray_cluster, "load", lambda _: ray)
    with (
        pytest.raises(
            WorkersUnavailable, match=r"at ray://head:10001 can be used \(ray client connection timeout\)"
        ) as told,
        ray_cluster.cluster(Workers.parse("ray://head:10001"), Outfit("m", "", "auto", "auto")),
    ):
        pass
    assert "~/.ray/auth_token" in told.value.message


@pytest.mark.parametrize(("failures", "connected"), [(1, True), (2, False)])
def test_a_client_whose_server_starts_slowly_asks_again_once(
    monkeypatch: pytest.MonkeyPatch, failures: int, connected: bool
) -> None:
    waiting = [ConnectionError("Initialization failure from server:")] * failures

    def init(*_: object, **__: object) -> None:
        if waiting:
            raise waiting.pop()

    ray: Any = SimpleNamespace(init=init, shutdown=lambda: None, nodes=lambda: [])
    monkeypatch.setattr(ray_cluster, "load", lambda _: ray)
    with (
        pytest.raises(WorkersUnavailable) as told,
        ray_cluster.cluster(Workers.parse("ray://head:10001"), Outfit("m", "", "auto", "auto")),
    ):
        pass
    assert ("has no node with a CPU" in told.value.message) is connected


class Trouble(Exception):
    """Stands in for what Ray raises."""


def raised(error: Exception) -> Exception:
    def get(_: object) -> None:
        raise error

    ray: Any = SimpleNamespace(get=get, exceptions=SimpleNamespace(RayTaskError=KeyError))
    with pytest.raises((WorkerLost, WorkerRefused)) as told:
        RayTransport(ray, {}).result("call")
    return told.value


def test_what_ray_tells_of_a_dead_worker_is_a_line() -> None:
    lost = raised(Trouble("\x1b[36mThe actor\x1b[39m died.\n  File x, line 1\nSee https://docs"))
    assert (type(lost), str(lost)) == (WorkerLost, "The actor died.")
    assert str(raised(Trouble())) == "Trouble"


def test_a_worker_that_cannot_even_be_made_is_refused_with_the_reason() -> None:
    said = "The actor died because of an error raised in its creation task, ray::Worker\n ...\nModuleNotFoundError: No module named 'vlm'\n"
    refused = raised(Trouble(said))
    assert isinstance(refused, WorkerRefused)
    assert "It could not be started (ModuleNotFoundError: No module named 'vlm'). Install DataVisor" in str(refused)
