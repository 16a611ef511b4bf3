"""The README's commands, run from top to bottom as somebody who follows it would."""

import csv
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import obstore
import pytest
from django.core.management import CommandError, call_command
from obstore.store import MemoryStore

from tests.children import ROOT
from tests.images import make_images
from vlm import services
from vlm.models import TaggingRun
from vlm.roots import objects
from vlm.runs.options import RunOptions
from vlm.samples import SampleFilter

DEPLOYING = {
    "migrate",
    "createsuperuser",
    "collectstatic",
    "backup",
    "restore",
    "export_store",
    "import_store",
}  # see test_backups.py, test_archives.py

REFUSED = {"promise": "Label about", "calibrate": "label 18 more", "explain": "30"}  # a dozen images are too few


def shell(text: str) -> list[str]:
    """Return the lines of a document that a shell is given."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "".join(blocks).splitlines()


def commands() -> list[list[str]]:
    """Return every line of the README that runs `manage.py`, as its arguments."""
    lines = re.findall(r"^.*manage\.py (.+)$", "\n".join(shell((ROOT / "README.md").read_text())), re.MULTILINE)
    return [arguments for line in lines if (arguments := shlex.split(line, comments=True))[0] not in DEPLOYING]


class Reader:
    """Somebody with images from two cameras, who does what the README presumes before a line."""

    def __init__(self, folder: Path) -> None:
        self.images = make_images(folder / "images", 12)
        for path in self.images.iterdir():
            path.rename(path.with_name(f"cam{int(path.stem) % 2 + 1}-{path.name}"))
        self.bucket = MemoryStore()
        for path in self.images.iterdir():
            obstore.put(self.bucket, path.name, path.read_bytes())

    def ready_for(self, arguments: list[str]) -> list[str]:
        """Bring about what a command needs, and return it with what a reader would put into it."""
        presumes: dict[tuple[str, ...], Callable[[], object]] = {
            ("autotag", "--resume"): lambda: self.run(status=TaggingRun.Status.INTERRUPTED),
            ("cancel_run",): self.run,
            ("import_labels", "draw.csv"): self.fill_in,
            ("import_labels", "labels.csv"): self.write_labels,
            ("import_scores",): self.write_scores,
            ("tag", "--rename"): self.mistype,
        }
        for needed, bring_about in presumes.items():
            if set(needed) <= set(arguments):
                bring_about()
        kept = TaggingRun.objects.order_by("pk").filter(reverted=None)
        if arguments[0] != "cancel_run":
            kept = kept.filter(status=TaggingRun.Status.COMPLETED)
        first, last = (str(run.pk) if run else "" for run in (kept.first(), kept.last()))
        written = {"/path/to/images": str(self.images), "3": first, "7": last, "8": last}
        return [written.get(argument, argument) for argument in arguments] + ["--once"] * (arguments[0] == "watch")

    def run(self, status: str = TaggingRun.Status.QUEUED) -> None:
        dataset = services.datasets.find(text="street")
        assert dataset is not None
        run = services.runs.create(dataset=dataset, options=RunOptions(scope="all"), user=None, origin="command")
        TaggingRun.objects.filter(pk=run.pk).update(status=status)

    def fill_in(self) -> None:
        """Label what was drawn, in the column that was left empty."""
        with Path("draw.csv").open(encoding="utf-8-sig", newline="") as file:
            header, *rows = csv.reader(file)
        with Path("draw.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *([*row[:2], "sunny", *row[3:]] for row in rows)])

    def write_labels(self) -> None:
        rows = [f"{path.name},weather,rainy" for path in self.images.iterdir()]
        Path("labels.csv").write_text("\n".join(["file,dimension,value", *rows]))

    def mistype(self) -> None:
        dataset = services.datasets.find(text="street")
        assert dataset is not None
        services.tags.change(dataset=dataset, filter=SampleFilter(), action="add", tags=["tunnle"], user=None)

    def write_scores(self) -> None:
        rows = [f"{path.name},{number / 12},cam,{number % 2}" for number, path in enumerate(self.images.iterdir())]
        Path("scores.csv").write_text("\n".join(["file,error,camera,missed", *rows]))


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("data_dir")
def test_every_command_works_in_the_order_in_which_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path)
    monkeypatch.setattr(objects, "open_store", lambda url: reader.bucket)
    asked = commands()
    assert len(asked) > 15
    for arguments in asked:
        refused = REFUSED.get(arguments[0])
        with pytest.raises(CommandError, match=refused) if refused else nullcontext():
            call_command(*reader.ready_for(arguments))
    assert (tmp_path / "street.parquet").is_file()
    runs = [run.status for run in services.runs.history(limit=100)]
    assert set(runs) == {TaggingRun.Status.COMPLETED, TaggingRun.Status.CANCELLED}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("data_dir")
def test_the_walk_through_finds_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Every line of the walk through the photographs, with the demonstration model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vlm").symlink_to(ROOT / "vlm")
    _, walk = (ROOT / "docs" / "pixels.md").read_text().split("## A walk through")
    said: dict[str, list[str]] = {}
    for line in shell(walk):
        if line.startswith("python manage.py "):
            arguments = shlex.split(line.removeprefix("python manage.py "), comments=True)
            capfdbinary.readouterr()
            call_command(*arguments)
            said.setdefault(arguments[0], []).append(capfdbinary.readouterr().out.decode())
        else:
            subprocess.run(["bash", "-c", line], check=True)
    leaking, of = said["duplicates"][0], [text.split() for text in said["export_tags"]]
    names = ("mountain-path-snow-peaks.jpg", "nuthatch-on-trunk-winter.jpg")
    assert "4 leak between splits" in leaking
    assert of[0] == [str(tmp_path / "walk" / "val" / name) for name in names]
    assert "2 with a shared answer" in " ".join(said["autotag"][0].split())
    shared = [json.loads(line) for line in said["export_tags"][1].splitlines()]
    assert [one["file_name"].rpartition("/")[2] for one in shared] == list(names)
    assert all(tag["shared_from"] for one in shared for tag in one["tags"])
    wrong, right = said["contradictions"]
    assert re.search(r"dark-cupboard\.jpg +bright +darker than 9", wrong)
    assert str(tmp_path / "walk" / "train" / "dark-cupboard.jpg") in of[2]
    assert not re.search(r"dark-cupboard\.jpg +bright", right)
