"""What commands write cannot steer a terminal, and every terminal can show it."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from datavisor.terminal import HarmlessFormatter, harmless, in_one_line
from tests.children import environment
from tests.images import make_images
from vlm.models import Dataset, TaggingRun

HOSTILE = "a\x1b]0;owned\x07\x9b31m\u202egpj.png"


def test_control_characters_are_written_out() -> None:
    assert harmless(HOSTILE) == r"a\x1b]0;owned\x07\x9b31m\u202egpj.png"
    assert harmless("two\nlines\tand “ümläut” 😀") == "two\nlines\tand “ümläut” 😀"
    assert in_one_line("two\nlines") == r"two\nlines"
    record = logging.LogRecord("vlm", logging.WARNING, "", 0, "%s is odd", (HOSTILE,), None)
    assert "\x1b" not in HarmlessFormatter("{message}", style="{").format(record)


@pytest.mark.django_db(transaction=True)
def test_names_of_files_do_not_reach_the_terminal_as_they_are(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_images(tmp_path / HOSTILE, 1)
    (folder / f"broken{HOSTILE}").write_bytes(b"no picture")
    call_command("import_dataset", str(folder), name="set", no_progress=True)
    Dataset.objects.update(name=f"set {HOSTILE}")  # as an older release let it be called
    dataset = Dataset.objects.get()
    run = TaggingRun.objects.create(
        dataset=dataset, status="failed", model="m", vocabulary_hash="0" * 64, error=f"no {HOSTILE}"
    )
    for words in (["runs"], ["runs", "--json"], ["runs", "--run", str(run.pk)]):
        call_command(*words)
    seen = "".join(capsys.readouterr())
    assert "owned" in seen
    for control in ("\x1b", "\x9b", "\x07", "\u202e"):
        assert control not in seen


def test_a_terminal_that_knows_only_latin_letters(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "ok \u03b1\u03b2", 1)
    variables = environment(tmp_path / "data", PYTHONIOENCODING="latin-1")
    for words in (["migrate", "--verbosity", "0"], ["import_dataset", str(folder)], ["runs", "--dataset", "nothing"]):
        done = subprocess.run(
            [sys.executable, "-m", "datavisor", *words],
            env=variables, cwd=tmp_path, capture_output=True, check=False,
        )  # fmt: skip
        assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode == 2
    assert b'No data set "nothing"' in done.stderr
