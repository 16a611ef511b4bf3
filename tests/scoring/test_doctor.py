"""What workers see, before a run needs it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.images import make_images
from tests.scoring.fakes import Clock, Death, FakeTransport
from vlm import services
from vlm.scoring import ray_cluster
from vlm.scoring.worker import Hello, Outfit, Worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]


class Doctored(Worker):
    down = 1
    unreachable = 0


class Foreign(Doctored):
    def hello(self, root: str) -> Hello:
        return replace(super().hello(root), version="0.0.1", unseen="it is not mounted")


class Dying(Doctored):
    def look(self) -> Any:
        raise Death


def answered_by(*kinds: type[Doctored], monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def cluster(_: object, outfit: Outfit) -> Iterator[FakeTransport]:
        yield FakeTransport({str(number): kind(outfit) for number, kind in enumerate(kinds, 1)}, Clock())

    monkeypatch.setattr(ray_cluster, "load", lambda _: None)
    monkeypatch.setattr(ray_cluster, "cluster", cluster)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = make_images(tmp_path / "photos", 3)
    services.datasets.import_folder(path=folder, name="photos")
    return folder


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = 0
    try:
        call_command("doctor", *arguments)
    except SystemExit as end:
        code = int(str(end))
    return code, capsys.readouterr().out


def test_a_machine_alone_is_looked_at_too(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = doctor(capsys, "photos", "--json")
    (seen,) = json.loads(said)
    assert (code, seen["name"], seen["images"], seen["model"], seen["problems"]) == (0, "here", True, True, [])
    assert json.loads(doctor(capsys, "--json")[1])[0]["images"] is None
    photos.rename(photos.with_name("gone"))
    code, said = doctor(capsys, "photos")
    assert code == 1
    assert f"Worker here: It does not see the images: there is no folder {photos} on its machine." in said


def test_a_model_that_is_not_there_or_only_on_the_hub(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said = doctor(capsys, "--model", str(tmp_path / "nowhere"))
    assert (code, "It has no model: there is no folder" in said) == (1, True)
    (tmp_path / "half").mkdir()
    assert (
        "lacks config.json, model.safetensors, tokenizer.json" in doctor(capsys, "--model", str(tmp_path / "half"))[1]
    )
    code, said = doctor(capsys, "--model", "vikhyatk/moondream2")
    assert (code, "3.85 GB to download" in said) == (0, True)


def test_each_worker_tells_for_itself(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered_by(Doctored, Foreign, Dying, monkeypatch=monkeypatch)
    code, said = doctor(capsys, "photos", "--workers", "local:3")
    assert code == 1
    assert "Worker 2: It runs DataVisor 0.0.1, and this machine" in said
    assert "Worker 2: It does not see the images: it is not mounted." in said
    assert "Worker 3: It died: It died." in said
    assert "Worker 1:" not in said
    answered_by(Doctored, Doctored, monkeypatch=monkeypatch)
    assert "2 workers would do." in doctor(capsys, "photos", "--workers", "local:2")[1]


def test_without_ray_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CommandError, match=r'pip install "datavisor\[ray\]"') as refused:
        call_command("doctor", "--workers", "auto")
    assert refused.value.returncode == 3
