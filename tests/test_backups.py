"""Backups in real processes: taken from a store that is in use, put back under a process that has it open."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.children import environment, finish
from tests.images import make_images
from tests.workshop import fork
from vlm.backups import BackupFailed, look

SESSION = """
import json, subprocess, sys
from pathlib import Path
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from vlm import services
from vlm.models import TaggingRun
from vlm.runs.options import RunOptions
from vlm.samples import SampleFilter

photos, folder = map(Path, sys.argv[1:])
call_command("migrate", verbosity=0)
dataset = services.datasets.import_folder(path=photos, name="photos").dataset

def tags():
    page = services.samples.page(dataset=dataset, filter=SampleFilter(), limit=100)
    return sorted({tag.tag for sample in page.samples for tag in sample.tags})

def edit(tag):
    services.tags.add(dataset=dataset, filter=SampleFilter(), tag=tag, user=None)

def refused(*command):
    try:
        call_command(*command)
    except CommandError as error:
        return str(error)

told = {}
edit("before")
User.objects.create_user("before")
call_command("backup", str(folder), "--json")
told["again"] = refused("backup", str(folder))
edit("after")
User.objects.create_user("after")
run = services.runs.create(dataset=dataset, options=RunOptions(), user=None, origin="command")
told["active"] = refused("restore", str(folder))
services.runs.cancel(run=run)
told["now"] = tags()
done = subprocess.run([sys.executable, "manage.py", "restore", str(folder)], capture_output=True, text=True)
told["restore"] = done.stdout + done.stderr
told["then"] = tags()
told["users"] = sorted(User.objects.values_list("username", flat=True))
told["runs"] = TaggingRun.objects.count()
edit("later")
told["later"] = tags()
damaged = folder / "samples.duckdb"
damaged.write_bytes(damaged.read_bytes()[:-1])
told["damaged"] = refused("restore", str(folder))
told["kept"] = tags()
call_command("check_store")
print()
print(json.dumps(told))
"""


@pytest.mark.processes
def test_what_was_backed_up_comes_back_under_a_process_that_has_the_store_open(tmp_path: Path) -> None:
    photos, folder = make_images(tmp_path / "photos", 4), tmp_path / "backups" / "first"
    child = fork("-c", SESSION, str(photos), str(folder), env=environment(tmp_path / "data"))
    out, errors = finish(child)
    assert child.returncode == 0, errors
    told = json.loads(out.splitlines()[-1])
    assert json.loads(out.splitlines()[0]) == {"folder": str(folder), "datasets": 1, "runs": 0, "samples": 4}
    assert "is there already" in told["again"]
    assert "is active" in told["active"]
    assert told["now"] == ["after", "before"]
    assert "4 samples of 1 data set are as they were" in told["restore"]
    assert (told["then"], told["users"], told["runs"]) == (["before"], ["before"], 0)
    assert told["later"] == told["kept"] == ["before", "later"]
    assert "is damaged: samples.duckdb" in told["damaged"]
    (aside,) = (tmp_path / "data").glob("before-restore-*")
    assert {path.name for path in aside.iterdir()} >= {"samples.duckdb", "datavisor.sqlite3"}
    for path in (folder, aside):
        assert path.stat().st_mode & 0o77 == 0
        assert all(file.stat().st_mode & 0o77 == 0 for file in path.iterdir())


@pytest.mark.parametrize("manifest", [None, "", "[]", "{}", '{"made": "yesterday"}', '{"files": {"../x": ""}}'])
def test_what_is_no_backup_is_refused(tmp_path: Path, manifest: str | None) -> None:
    if manifest is not None:
        (tmp_path / "backup.json").write_text(manifest)
    with pytest.raises(BackupFailed, match="no backup of DataVisor"):
        look(folder=tmp_path)


MARKS = {"samples.duckdb": b"........DUCK", "datavisor.sqlite3": b"SQLite format 3\0"}


def backup_of(folder: Path, files: dict[str, bytes], **noted: Any) -> Path:
    """Write what passes for a backup at first sight: its manifest knows the bytes of its files."""
    folder.mkdir()
    for name, content in files.items():
        (folder / Path(name).name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    told = {"made": "2026-01-01T00:00:00+00:00", "datasets": 1, "runs": 0, "samples": 1, "files": digests} | noted
    (folder / "backup.json").write_text(json.dumps(told))
    return folder


def test_what_only_passes_for_a_backup_is_refused(tmp_path: Path) -> None:
    assert look(folder=backup_of(tmp_path / "good", MARKS)).samples == 1
    for number, name in enumerate(("../../evil", "/etc/evil", "a/evil", "evil.txt", "samples.duckdb.lock")):
        with pytest.raises(BackupFailed, match="no file of a backup"):
            look(folder=backup_of(tmp_path / f"name-{number}", MARKS | {name: b"x"}))
    for name in MARKS:
        with pytest.raises(BackupFailed, match=f"damaged: {name}"):
            look(folder=backup_of(tmp_path / f"content-{name}", MARKS | {name: b"no database" * 9}))
    linked = backup_of(tmp_path / "linked", MARKS)
    (linked / "samples.duckdb").rename(tmp_path / "elsewhere")
    (linked / "samples.duckdb").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackupFailed, match="damaged"):
        look(folder=linked)
    for number, manifest in enumerate(("[" * 100_000, "null", "[]", "{}", '{"made": ' + "9" * 5000 + "}")):
        folder = backup_of(tmp_path / f"manifest-{number}", MARKS)
        (folder / "backup.json").write_text(manifest)
        with pytest.raises(BackupFailed, match="no backup"):
            look(folder=folder)
