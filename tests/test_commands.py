"""The commands on the real engine and store: what they print, how they end, and what they leave behind."""

import csv
import io
import json
import os
import re
import signal
import zipfile
from argparse import ArgumentTypeError
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from django.core.management import call_command, load_command_class
from django.core.management.base import CommandError
from django.db import connection, connections
from rich.console import Console

from tests.children import wait_for
from tests.images import make_images
from vlm import services
from vlm.formats import EXPORTS, ExportFailed
from vlm.management.commands import _shared, autotag
from vlm.models import Dataset, TaggingRun
from vlm.moondream import ModelUnavailable
from vlm.process import keeper, sample_store
from vlm.runs.errors import ModelMismatch
from vlm.runs.options import RunOptions
from vlm.samples import SampleFilter, StoreFull

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]
Status = TaggingRun.Status
KEYS = [
    *(
        "run",
        "status",
        "total",
        "processed",
        "tagged",
        "discarded",
        "failed",
        "shared",
        "seconds",
        "images_per_second",
        "tags",
        "priors",
    ),
]
HOSTILE = "[red] :car: \\[bold] 100%.jpg"
COMMANDS = [
    "autotag",
    "cancel_run",
    "check_store",
    "export_tags",
    "import_dataset",
    "quickstart",
    "revert_run",
    "runs",
    "tag",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_images(tmp_path / "photos", 6)


@pytest.fixture
def dataset(folder: Path) -> Dataset:
    dataset = services.datasets.import_folder(path=folder, name="photos").dataset
    assert dataset is not None
    return dataset


def manage(name: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; returns its exit code, stdout and stderr."""
    out, errors = io.StringIO(), io.StringIO()
    code: Any = 0
    try:
        call_command(name, *arguments, stdout=out, stderr=errors)
    except CommandError as error:
        code = error.returncode
        errors.write(str(error))
    except SystemExit as end:
        code = end.code
    return code, out.getvalue(), errors.getvalue()


def tag_all(*arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, errors = manage("autotag", "photos", "--no-progress", "--json", *arguments)
    assert out, errors
    return code, json.loads(out)


def tags_of(dataset: Dataset) -> dict[str, list[str]]:
    page = services.samples.page(dataset=dataset, filter=SampleFilter(), limit=1000)
    return {sample.file_name: [tag.tag for tag in sample.tags] for sample in page.samples}


# -- import_dataset ------------------------------------------------------------------------------------------------------
def test_import_tells_what_it_found(folder: Path) -> None:
    (folder / "notes.txt").write_text("no image")
    code, out, _ = manage("import_dataset", str(folder), "--no-progress", "--dry-run")
    assert (code, out) == (0, f"{folder}: 6 images would be imported (folder), 6 new.\n")
    assert not Dataset.objects.exists()
    code, out, _ = manage("import_dataset", str(folder), "--no-progress", "--json")
    found = json.loads(out)
    dataset = Dataset.objects.get()
    assert (code, found["dataset"], found["name"], found["root"]) == (0, dataset.pk, "photos", str(folder))
    assert [found[key] for key in ("format", "samples", "added", "updated", "missing")] == ["folder", 6, 6, 0, 0]
    (folder / "000.jpg").unlink()
    code, out, _ = manage("import_dataset", str(folder), "--no-progress")
    assert (code, out) == (0, f"Data set {dataset.pk} “photos” (folder): 5 images, 0 new, 5 known, 1 gone.\n")


def test_import_refuses_with_advice(tmp_path: Path, dataset: Dataset) -> None:
    other = make_images(tmp_path / "other", 1)
    (tmp_path / "empty").mkdir()
    for arguments, advice in (
        ([str(tmp_path / "nowhere")], "Check the path."),
        ([str(tmp_path / "empty")], "no image"),
        ([str(other), "--name", "photos"], "Choose another name"),
        ([str(other), "--format", "coco"], "Give the path of the JSON"),
    ):
        code, out, errors = manage("import_dataset", *arguments, "--no-progress")
        assert (code, out) == (2, "")
        assert advice in errors
    assert Dataset.objects.get() == dataset


# -- autotag -------------------------------------------------------------------------------------------------------------
def test_autotag_as_json(dataset: Dataset) -> None:
    code, result = tag_all()
    run = TaggingRun.objects.get()
    assert code == 0
    assert list(result) == KEYS
    assert [result[key] for key in KEYS[:8]] == [run.pk, "completed", 6, 6, 6, 0, 0, 0]
    assert result["seconds"] > 0
    assert result["images_per_second"] > 0
    counts: dict[str, int] = {}
    for tags in tags_of(dataset).values():
        for tag in tags:
            counts[tag] = counts.get(tag, 0) + 1
    assert result["tags"] == counts
    assert (run.origin, run.scope, run.mode, run.started_by) == ("command", "missing", "score", None)


def test_autotag_as_a_table(dataset: Dataset) -> None:
    code, out, _ = manage("autotag", str(dataset.pk), "--no-progress", "--dimension", "setting")
    assert code == 0
    assert re.search(r"^dimension +word +tagged +discarded$", out, re.MULTILINE)
    assert re.search(r"^setting +(in|out)door +\d +0$", out, re.MULTILINE)
    run = TaggingRun.objects.get()
    assert f"Run {run.pk} completed: 6 of 6 images in " in out
    assert "6 tagged, 0 answers discarded, 0 failed." in out


def test_nothing_to_do(dataset: Dataset) -> None:
    tag_all()
    code, result = tag_all()
    assert (code, list(result)) == (0, KEYS)
    assert (result["run"], result["status"], result["total"], result["tags"]) == (None, "completed", 0, {})
    code, out, _ = manage("autotag", "photos", "--no-progress")
    assert (code, out) == (0, "No image waits in this scope. --scope all asks about all images again.\n")
    assert tag_all("--scope", "all")[1]["total"] == 6


def test_options_arrive_in_the_run(dataset: Dataset) -> None:
    options = ["--scope", "all", "--filter", "q=00", "--limit", "2", "--dimension", "weather", "--dimension", "setting"]
    options += ["--mode", "generate", "--detail", "full", "--batch-size", "3", "--device", "cpu"]
    code, result = tag_all(*options, "--min-probability", "0.25", "--min-mass", "0.5")
    run = TaggingRun.objects.get()
    assert (code, result["total"], run.status) == (0, 2, Status.COMPLETED)
    assert (run.scope, run.filter_query, run.sample_limit, run.mode) == ("all", "q=00", 2, "generate")
    assert (run.vocabulary.names, run.detail, run.batch_size) == (("setting", "weather"), "full", 3)
    assert (run.min_probability, run.min_mass, run.device) == (0.25, 0.5, "cpu")


def test_thresholds_discard(dataset: Dataset) -> None:
    code, result = tag_all("--min-probability", "1")
    assert (code, result["tagged"], result["tags"]) == (0, 0, {})
    assert result["discarded"] == 30


def test_images_that_fail_make_exit_code_1(folder: Path) -> None:
    (folder / HOSTILE).write_bytes(b"\xff\xd8\xff\xe0 no picture")
    services.datasets.import_folder(path=folder, name="photos")
    code, out, _ = manage("autotag", "photos", "--no-progress")
    assert code == 1
    assert f"failed: {HOSTILE}: " in out  # neither colour nor emoji is read in it
    code, result = tag_all("--scope", "failed")
    assert (code, result["total"], result["failed"]) == (1, 1, 1)
    (folder / HOSTILE).write_bytes((folder / "000.jpg").read_bytes())
    assert tag_all("--scope", "failed")[0] == 0


def test_mistakes_make_exit_code_2(dataset: Dataset) -> None:
    for arguments, advice in (
        (["elsewhere"], "No data set “elsewhere”. There are: photos."),
        (["photos", "--dimension", "mood"], "No dimension “mood”. There are: lighting, "),
        (["photos", "--filter", "state=odd"], "The filter cannot be read: "),
        (["photos", "--filter", "lacking=mood"], "mood"),
        (
            ["photos", "--filter", "al=dark"],
            "The filter cannot be read: “al” is no part of a filter; there are q, split",
        ),
        (["photos", "--filter", "dark"], "“dark” is no part of a filter"),
        (["photos", "--resume"], "“photos” has no unfinished run. Leave out --resume to start one."),
    ):
        code, out, errors = manage("autotag", *arguments, "--no-progress")
        assert (code, out) == (2, "")
        assert advice in errors
    assert not TaggingRun.objects.exists()


def test_an_active_run_is_told(dataset: Dataset) -> None:
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="page")
    code, _, errors = manage("autotag", "photos", "--no-progress")
    assert (code, f"Run {run.pk} of this data set is active." in errors) == (2, True)


def test_a_model_that_is_not_there_makes_exit_code_3(dataset: Dataset, tmp_path: Path) -> None:
    nowhere = ["--model", str(tmp_path / "nowhere"), "--no-progress"]
    code, out, errors = manage("autotag", "photos", *nowhere)
    assert code == 3
    assert "DATAVISOR_VLM_MODEL" in errors
    assert "Go on with: python manage.py autotag photos --resume" in errors
    code, out, errors = manage("autotag", "photos", *nowhere, "--json", "--scope", "all")
    assert (code, list(json.loads(out)), json.loads(out)["status"]) == (3, KEYS, "failed")
    assert "DATAVISOR_VLM_MODEL" in errors
    code, out, errors = manage("autotag", "photos", *nowhere, "--dry-run")
    assert (code, out) == (3, "")
    assert "DATAVISOR_VLM_MODEL" in errors


def test_the_exit_code_is_that_of_the_run_not_of_the_model(dataset: Dataset) -> None:
    """Whether a model is loaded by now says nothing about what the run failed for."""
    run = TaggingRun(status=TaggingRun.Status.FAILED)
    assert services.runs.model_state() == "not loaded"
    for cause, code in (
        (ModelMismatch("No fit."), 2),
        (StoreFull("Full."), 2),
        (ModelUnavailable("Away."), 3),
        (None, 2),
    ):
        run.cause = cause
        assert autotag.exit_code(run) == code


def test_resume_takes_the_last_run_and_says_what_it_does_not_take(dataset: Dataset) -> None:
    """An older failed run is not gone back to behind a later one that tagged everything."""
    fields = {"model": "m", "vocabulary_hash": "0" * 64, "vocabulary_json": []}
    failed = TaggingRun.objects.create(dataset=dataset, status="failed", **fields)
    TaggingRun.objects.create(dataset=dataset, status="completed", **fields)
    code, _, errors = manage("autotag", "photos", "--resume", "--no-progress")
    assert code == 2
    assert "“photos” was tagged to the end by its last run." in errors
    assert f"--resume --run {failed.pk} goes on with it." in errors
    code, _, errors = manage("autotag", "photos", "--resume", "--model", "other", "--limit", "3", "--no-progress")
    assert code == 2
    assert "so --limit, --model would change nothing" in errors
    code, _, errors = manage("autotag", "photos", "--resume", "--run", "999", "--no-progress")
    assert (code, "There is no run 999." in errors) == (2, True)


@pytest.mark.parametrize("how", ["signal", "cancel"])
def test_a_stopped_run_makes_exit_code_130_and_resumes(dataset: Dataset, how: str) -> None:
    """The run waits for the model, which somebody else has, and is stopped meanwhile."""

    def stop() -> None:
        try:
            wait_for(lambda: TaggingRun.objects.exclude(worker="").exists(), "A run with a worker")
            if how == "signal":
                # Only where the command listens: else it would be pytest that is interrupted.
                assert signal.getsignal(signal.SIGINT) is not before
                os.kill(os.getpid(), signal.SIGINT)
            else:
                services.runs.cancel(run=TaggingRun.objects.get())
        finally:
            connections.close_all()

    before = signal.getsignal(signal.SIGINT)
    with keeper._using, ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stop)
        code, result = tag_all()
        stopping.result()
    assert (code, result["status"]) == (130, "interrupted" if how == "signal" else "cancelled")
    code, resumed = tag_all("--resume")
    assert (code, resumed["run"], resumed["status"], resumed["processed"]) == (0, result["run"], "completed", 6)


def test_a_dry_run_shows_and_writes_nothing(dataset: Dataset) -> None:
    services.tags.add(dataset=dataset, filter=SampleFilter(text="003"), tag="[blue] mine", user=None)
    before = tags_of(dataset)
    code, out, _ = manage("autotag", "photos", "--dry-run", "--no-progress")
    assert code == 0
    assert out.startswith("What a run would say (in brackets: discarded). Nothing was written.\n")
    assert re.search(r"^003\.jpg +\[blue\] mine +\w+ \d+%", out, re.MULTILINE)
    code, out, _ = manage("autotag", "photos", "--dry-run", "--json", "--min-probability", "1")
    found = json.loads(out)
    assert (code, found["dry_run"], len(found["samples"])) == (0, True, 6)
    assert set(found["samples"][0]) == {"file_name", "tags", "answers", "error"}
    assert {answer["accepted"] for sample in found["samples"] for answer in sample["answers"].values()} == {False}
    assert tags_of(dataset) == before
    assert not TaggingRun.objects.exists()


def test_progress_fits_a_line_of_80_columns(dataset: Dataset) -> None:
    run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="command")
    state = replace(services.runs.state(run=run), status="running", rate=31.24, eta=29_554.0)
    ordinary = replace(state, total=12_345, processed=1_234, tagged=1_200, discarded=56, failed=3, eta=355.4)
    expected = "1,234/12.3k, 31.2/s, 5:55 left, 1,200 tagged, 56 discarded, 3 failed"
    assert autotag.counts_line(ordinary) == expected
    huge = replace(state, total=1_000_000, processed=999_999, tagged=999_999, discarded=99_999, failed=9_999)
    assert autotag.counts_line(huge) == "999k/1M, 31.2/s, 8h12m left, 999k tagged, 99k discarded, 9,999 failed"
    for shown, stopping in ((ordinary, False), (huge, False), (ordinary, True)):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=True, width=80, color_system=None)
        bar = _shared.progress_bar(console, hidden=False)
        task = bar.add_task("", total=None, counts="")
        autotag.draw(bar, task, shown, stopping=stopping)
        console.print(bar.get_renderable())
        (line,) = screen.getvalue().splitlines()
        assert len(line) <= 80
        assert autotag.counts_line(shown) in line
        assert line.startswith("stopping " if stopping else " ")
        assert stopping or line.strip()[0] in "━╸"

    durations = {0: "0:00", 59.6: "1:00", 3599: "59:59", 11_100: "3h05m", 1_051_200: "12d04h"}
    assert {seconds: autotag.duration(seconds) for seconds in durations} == durations


# -- runs, revert_run, cancel_run -----------------------------------------------------------------------------------------
def test_runs_lists_and_shows(dataset: Dataset, folder: Path) -> None:
    assert manage("runs") == (0, "There is no run yet. autotag starts one.\n", "")
    (folder / "003.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    run = tag_all("--dimension", "setting")[1]["run"]
    code, out, _ = manage("runs", "--dataset", "photos")
    assert code == 0
    assert re.search(rf"^{run} +photos +completed +\S+ \S+ +6/6 +5 +0 +1 +\d", out, re.MULTILINE)
    code, out, _ = manage("runs", "--run", str(run))
    assert f"Run {run} of photos: completed. 6 of 6 images, 5 tagged, 0 answers discarded, 1 failed." in out
    assert "failed: 003.jpg: " in out
    listed = json.loads(manage("runs", "--json")[1])
    assert [(row["run"], row["status"], row["processed"]) for row in listed] == [(run, "completed", 6)]
    shown = json.loads(manage("runs", "--run", str(run), "--json")[1])
    assert sum(accepted for _, _, accepted, _ in shown["words"]) == 5
    assert [name for _, name, _ in shown["failures"]] == ["003.jpg"]
    code, _, errors = manage("runs", "--run", "999")
    assert (code, errors) == (2, "There is no run 999. The command runs lists them.")


def test_revert_and_cancel(dataset: Dataset) -> None:
    run = tag_all()[1]["run"]
    code, _, errors = manage("cancel_run", str(run))
    assert (code, errors) == (2, f"Run {run} is not active: it is completed.")
    assert manage("revert_run", str(run)) == (
        *(0, f"Run {run} is taken back: its answers about 6 images are gone.\n", ""),
    )
    assert not any(tags_of(dataset).values())
    assert "completed (reverted)" in manage("runs")[1]
    second = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="page")
    code, _, errors = manage("revert_run", str(run))
    assert (code, "is active" in errors) == (2, True)
    assert manage("cancel_run", str(second.pk))[0] == 0
    second.refresh_from_db()
    assert second.status == Status.CANCELLED


# -- tag -----------------------------------------------------------------------------------------------------------------
def test_tags_are_edited(dataset: Dataset) -> None:
    assert manage("tag", "photos", "--filter", "q=00", "--add", " mine ", "--add", "dark")[:2] == (
        *(0, "“mine” added to 6 images.\n“dark” added to 6 images.\n"),
    )
    assert manage("tag", "photos", "--filter", "q=003", "--remove", "mine")[1] == "“mine” removed from 1 image.\n"
    assert tags_of(dataset)["003.jpg"] == ["dark"]
    assert manage("tag", "photos", "--confirm", "dark")[1] == "“dark” confirmed on 0 images.\n"
    assert manage("tag", "photos", "--rename", "mine", "Dim", "--describe", "odd", "of no use")[1] == (
        "“mine” is “dim” now on 5 images.\n“odd” is described.\n"
    )
    for arguments, advice in (
        ([], "Say what to do"),
        (["--add", " "], "tag"),
        (["--add", "x" * 1000], "tag"),
        (["--delete", "nothing"], "No image has"),
        (["--delete", "dim"], "is a word of lighting"),
        (["--filter", "q=0", "--rename", "a", "b"], "leave --filter out"),
    ):
        code, out, errors = manage("tag", "photos", *arguments)
        assert (code, out) == (2, "")
        assert advice in errors


# -- export_tags ---------------------------------------------------------------------------------------------------------
def names_in(format: str, path: Path) -> set[str]:
    """Return the file names that an export holds."""
    if format.startswith("csv"):
        return {row["file_name"] for row in csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""))}
    if format == "jsonl":
        return {json.loads(line)["file_name"] for line in path.read_text().splitlines()}
    if format.startswith("coco"):
        return {image["file_name"] for image in json.loads(path.read_text())["images"]}
    if format == "parquet":
        return {row[0] for row in duckdb.execute(f"select file_name from '{path}'").fetchall()}
    if format == "files":
        return {Path(line).name for line in path.read_text().splitlines()}
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        if format in ("pictures", "yolo", "xmp"):
            return {f"{found[1]}.jpg" for name in archive.namelist() if (found := re.search(r"(\d{3})\.\w", name))}
        samples = json.loads(archive.read(next(name for name in archive.namelist() if name.endswith("samples.json"))))
    return {Path(sample["filepath"]).name for sample in samples["samples"]}


@pytest.mark.parametrize("format", list(EXPORTS))
def test_every_format_to_a_file_and_to_stdout(
    dataset: Dataset, tmp_path: Path, format: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    manage("tag", "photos", "--add", "mine")
    target = tmp_path / f"out{EXPORTS[format].suffix}"
    asked = ["photos", "--format", format, "--filter", "all=mine"]
    assert manage("export_tags", *asked, "--output", str(target)) == (0, "", "")
    assert names_in(format, target) == {f"{index:03}.jpg" for index in range(6)}
    assert list(tmp_path.glob(".*partial")) == []
    capfdbinary.readouterr()
    assert manage("export_tags", *asked)[0] == 0
    piped = tmp_path / f"piped{target.suffix}"
    piped.write_bytes(capfdbinary.readouterr().out)
    assert names_in(format, piped) == names_in(format, target)


def test_a_failing_export_leaves_what_was_there(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")

    def breaks(**_: object) -> None:
        raise ExportFailed("The export could not be written. Check the free space.")

    monkeypatch.setattr("vlm.services.exports.make", breaks)
    code, _, errors = manage("export_tags", "photos", "--format", "csv", "--output", str(target))
    assert (code, errors) == (2, "The export could not be written. Check the free space.")
    assert target.read_text() == "old"
    assert list(tmp_path.glob(".*partial")) == []


def test_an_export_to_nowhere_is_told(dataset: Dataset, tmp_path: Path) -> None:
    for target in (tmp_path / "nowhere" / "out.csv", tmp_path):
        code, _, errors = manage("export_tags", "photos", "--format", "csv", "--output", str(target))
        assert code == 2
        assert f"{target} cannot be written: " in errors
        assert "--output" in errors


# -- check_store ---------------------------------------------------------------------------------------------------------
def test_a_store_is_checked_and_repaired(dataset: Dataset) -> None:
    tag_all()
    assert manage("check_store")[:2] == (0, "6 images checked, 0 differ from the ledger.\n")
    before = tags_of(dataset)
    with sample_store().write() as cursor:
        cursor.execute("update samples set user_count = 7 where file_name = '003.jpg'")
    code, out, _ = manage("check_store")
    assert (code, "1 differ from the ledger." in out, "check_store --repair mends this." in out) == (1, True, True)
    code, out, _ = manage("check_store", "--repair")
    assert (code, out.endswith("Repaired.\n")) == (0, True)
    assert manage("check_store")[0] == 0
    assert tags_of(dataset) == before


# -- all of them ---------------------------------------------------------------------------------------------------------
def test_help_explains_every_argument() -> None:
    for name in COMMANDS:
        command = load_command_class("vlm", name)
        assert isinstance(command, _shared.DoorCommand)
        parser = command.create_parser("manage.py", name)
        assert parser.description
        assert parser.description.endswith(".")
        assert [action.dest for action in parser._actions if not action.help] == [], name


def test_numbers_are_checked() -> None:
    for text in ("0", "-1", "x", "1.5", "", "2147483648", "9" * 20, "9" * 5000):
        with pytest.raises(ArgumentTypeError, match="whole number from 1 to"):
            _shared.positive(text)
    assert (_shared.from_zero("0"), _shared.from_zero("7")) == (0, 7)
    with pytest.raises(ArgumentTypeError):
        _shared.from_zero("-1")
    for text in ("1.01", "-0.1", "nan", "x"):
        with pytest.raises(ArgumentTypeError, match="between 0 and 1"):
            _shared.share(text)
    assert (_shared.positive("12"), _shared.share("0.25")) == (12, 0.25)


def test_a_new_database_is_told_without_a_trace() -> None:
    with connection.cursor() as cursor:
        cursor.execute("alter table vlm_dataset rename to elsewhere")
        try:
            code, _, errors = manage("autotag", "photos")
        finally:
            cursor.execute("alter table elsewhere rename to vlm_dataset")
    assert (code, "run “migrate” first" in errors) == (2, True)
