"""DataVisor on PostgreSQL: what could differ from SQLite, and what only a server can do, such as go away."""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.children import ROOT, completed, environment, finish, python
from tests.images import make_images
from tests.servers.postgres import Postgres
from tests.test_backups import SESSION

pytestmark = pytest.mark.processes

# Runs and their claims, imports, jobs, errands, watches, the binding of store and database, migrations, rooms of viewers.
FILES = (
    "tests/test_runs.py",
    "tests/test_jobs.py",
    "tests/test_errands.py",
    "tests/test_binding.py",
    "tests/test_migrations.py",
    "tests/test_watching.py",
    "tests/test_odd_requests.py",
    "tests/page/test_live.py",
)
SETUP = "import django; django.setup()\n"


@pytest.mark.timeout(1200)
def test_what_the_two_could_do_differently(postgres: Postgres) -> None:
    """The same tests as on SQLite, on a database that they make and drop there."""
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES],
        cwd=ROOT, env=os.environ | {"TESTS_DATABASE_URL": postgres.url()}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout
    with postgres.connect() as connection:
        names = {row[0] for row in connection.execute("select datname from pg_database").fetchall()}
    assert not {name for name in names if str(name).startswith("datavisor_tests_")}


# -- what is missing -----------------------------------------------------------------------------------------------------
WITHOUT_DRIVER = """
import sys
sys.modules["psycopg"] = None  # as if nobody had installed it
from datavisor.cli import main
sys.argv = ["datavisor", "check"]
sys.exit(main())
"""


def run(code: str, data: Path, url: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return completed(python("-c", code, *arguments, env=environment(data, DATABASE_URL=url, **variables)))


def test_without_its_driver_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    url = "postgres://ada:secret@127.0.0.1:5432/tags"
    refused = run(WITHOUT_DRIVER, tmp_path, url)
    assert refused.returncode == 2
    assert "pip install 'datavisor[postgres]'" in refused.stderr
    assert refused.stderr.count("\n") == 1
    server = run("import sys; sys.modules['psycopg'] = None; import datavisor.asgi", tmp_path, url)
    assert server.returncode == 1
    assert "pip install 'datavisor[postgres]'" in server.stderr
    assert "Traceback" not in server.stderr
    assert "secret" not in refused.stderr + server.stderr


COMMAND = "import sys; from datavisor.cli import main; sys.argv[0] = 'datavisor'; sys.exit(main())"


def test_a_server_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    refused = run(COMMAND, tmp_path, f"postgres://ada:secret@/{tmp_path}/tags", "runs")
    assert refused.returncode == 2
    assert "The database does not answer" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "secret" not in refused.stderr


def test_a_database_that_is_not_migrated_is_told_in_a_sentence(postgres: Postgres, tmp_path: Path) -> None:
    refused = run(COMMAND, tmp_path, postgres.create("empty"), "runs")
    assert refused.returncode == 2
    assert "run “migrate” first" in refused.stderr
    assert "Traceback" not in refused.stderr


# -- connections and transactions ----------------------------------------------------------------------------------------
OUTLIVES = (
    SETUP
    + """
import sys
from django.core.management import call_command
from django.db import OperationalError, connection, transaction
from vlm.models import Dataset
call_command("migrate", verbosity=0)
Dataset.objects.create(name="one", root="/one", format="folder")
print("idle", flush=True)
sys.stdin.readline()
print(Dataset.objects.count(), flush=True)  # the server was restarted, and the connection is as it was left
with transaction.atomic():
    Dataset.objects.update(changes=1)
    print("within", flush=True)
    sys.stdin.readline()
    try:
        Dataset.objects.update(changes=2)
        print("went on with half of a transaction")
    except OperationalError:
        transaction.set_rollback(True)
print(Dataset.objects.get().changes, flush=True)
"""
)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restarted", "crashed"])
def test_a_connection_that_was_lost_is_taken_anew_but_not_within_a_transaction(
    postgres: Postgres, tmp_path: Path, how: signal.Signals
) -> None:
    child = python(
        "-c", OUTLIVES, env=environment(tmp_path, DATABASE_URL=postgres.create(f"lost_{how.name}")), stdin=-1
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for said in ("idle\n", "1\n", "within\n"):
        assert child.stdout.readline() == said
        if said != "1\n":
            postgres.stop(how)
            postgres.start()
            child.stdin.write("\n")
            child.stdin.flush()
    out, errors = finish(child)
    assert (out, child.returncode) == ("0\n", 0), errors


TURNS = (
    SETUP
    + """
import threading
from django.core.management import call_command
from django.db import connections, transaction
from datavisor.postgres import base
from vlm.models import Dataset
call_command("migrate", verbosity=0)
base.BEGIN = base.BEGIN.replace("30s", "240s")  # whoever has a turn may be slow
Dataset.objects.create(name="one", root="/one", format="folder")

def add():
    try:
        for _ in range(25):
            with transaction.atomic():  # looks, then writes what follows from it
                row = Dataset.objects.get()
                Dataset.objects.filter(pk=row.pk).update(changes=row.changes + 1)
    finally:
        connections.close_all()

threads = [threading.Thread(target=add) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(Dataset.objects.get().changes)
"""
)


def test_transactions_take_turns(postgres: Postgres, tmp_path: Path) -> None:
    done = run(TURNS, tmp_path, postgres.create("turns"))
    assert (done.stdout, done.returncode) == ("100\n", 0), done.stderr


WAITS = (
    SETUP
    + """
import threading
from django.core.management import call_command
from django.db import OperationalError, connections, transaction
from datavisor.postgres import base
from vlm.models import Dataset
call_command("migrate", verbosity=0)
base.BEGIN = base.BEGIN.replace("30s", "50ms")
entered, leave = threading.Event(), threading.Event()

def hold():
    with transaction.atomic():
        entered.set()
        leave.wait()
    connections.close_all()

holder = threading.Thread(target=hold)
holder.start()
entered.wait()
try:
    with transaction.atomic():
        print("two at once")
except OperationalError as error:
    print(type(error.__cause__).__name__)
leave.set()
holder.join()
Dataset.objects.create(name="one", root="/one", format="folder")
connections.close_all()
print(Dataset.objects.count())
"""
)


def test_who_waits_too_long_for_a_turn_gives_up_and_can_go_on(postgres: Postgres, tmp_path: Path) -> None:
    done = run(WAITS, tmp_path, postgres.create("waits"))
    assert (done.stdout, done.returncode) == ("LockNotAvailable\n1\n", 0), done.stderr


# -- coming from SQLite --------------------------------------------------------------------------------------------------
FURNISH = (
    SETUP
    + """
import sys
from pathlib import Path
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from vlm import services
from vlm.models import Dimension
from vlm.samples import SampleFilter
call_command("migrate", verbosity=0)
Dimension.objects.filter(name="weather").delete()
ada = User.objects.create_user("ada", password="correct horse 9")
ada.user_permissions.add(Permission.objects.get(codename="view_dataset"))
dataset = services.datasets.import_folder(path=Path(sys.argv[1]), name="photos").dataset
services.tags.add(dataset=dataset, filter=SampleFilter(), tag="kept", user=ada)
services.datasets.save_view(dataset=dataset, user=ada, name="mine", query="all=kept")
"""
)
THERE = (
    SETUP
    + """
import json
from django.contrib.auth.models import User
from vlm import services
from vlm.models import Dataset, Dimension, SavedView
from vlm.samples import SampleFilter
ada = User.objects.get()
page = services.samples.page(dataset=Dataset.objects.get(), filter=SampleFilter.from_text("all=kept"))
Dataset.objects.create(name="next", root="/next", format="folder")  # gets a number that is free
print(json.dumps([
    ada.check_password("correct horse 9"), ada.has_perm("vlm.view_dataset"), len(page.samples),
    list(SavedView.objects.values_list("name", "user__username")), Dimension.objects.filter(name="weather").count(),
]))
"""
)


def test_what_is_in_sqlite_moves_as_the_documents_say(postgres: Postgres, tmp_path: Path) -> None:
    _, walk = (ROOT / "docs" / "scaling.md").read_text().split("To move what is in SQLite")
    lines = [line for line in walk.split("```")[1].splitlines() if line.startswith("python manage.py ")]
    assert len(lines) == 6
    data, url = tmp_path / "data", postgres.create("moved")
    done = run(FURNISH, data, "", str(make_images(tmp_path / "photos", 3)))
    assert done.returncode == 0, done.stderr
    for number, line in enumerate(lines):
        words = shlex.split(line.removeprefix("python manage.py "), comments=True)
        here = [str(tmp_path / word) if word in ("before-postgres", "all.json") else word for word in words]
        done = run(COMMAND, data, "" if number < 2 else url, *here)
        assert done.returncode == 0, done.stderr
    done = run(THERE, data, url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, True, 3, [["mine", "ada"]], 0]


# -- backups -------------------------------------------------------------------------------------------------------------
def test_what_was_backed_up_comes_back(postgres: Postgres, tmp_path: Path) -> None:
    photos, folder = make_images(tmp_path / "photos", 4), tmp_path / "backup"
    url = postgres.create("backed_up")
    with postgres.connect("backed_up") as connection:
        connection.execute("create table somebody_elses (number integer)")
        connection.execute("insert into somebody_elses values (1)")
    done = run(SESSION, tmp_path / "data", url, str(photos), str(folder))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert "4 samples of 1 data set are as they were" in told["restore"]
    assert (told["then"], told["users"], told["runs"]) == (["before"], ["before"], 0)
    assert told["later"] == told["kept"] == ["before", "later"]
    assert (folder / "datavisor.pgdump").read_bytes().startswith(b"PGDMP")
    assert folder.stat().st_mode & 0o77 == 0
    (aside,) = (tmp_path / "data").glob("before-restore-*")
    assert {path.name for path in aside.iterdir()} >= {"samples.duckdb", "datavisor.pgdump"}
    with postgres.connect("backed_up") as connection:
        assert connection.execute("select number from somebody_elses").fetchall() == [(1,)]


def test_a_backup_that_cannot_be_put_back_changes_nothing(postgres: Postgres, tmp_path: Path) -> None:
    """The dump is whole by its checksum, and no dump all the same."""
    url, data, folder = postgres.create("unharmed"), tmp_path / "data", tmp_path / "backup"
    for words in (("migrate", "--verbosity", "0"), ("backup", str(folder))):
        done = run(COMMAND, data, url, *words)
        assert done.returncode == 0, done.stderr
    dump, manifest = folder / "datavisor.pgdump", folder / "backup.json"
    dump.write_bytes(dump.read_bytes()[:-2000])
    noted = json.loads(manifest.read_text())
    noted["files"][dump.name] = hashlib.sha256(dump.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(noted))
    with postgres.connect("unharmed") as connection:
        connection.execute("update vlm_dimension set question = 'As it is now?' where name = 'weather'")
    refused = run(COMMAND, data, url, "restore", str(folder))
    assert refused.returncode == 2
    assert "Samples and database are as they were" in refused.stderr
    assert "Traceback" not in refused.stderr
    with postgres.connect("unharmed") as connection:
        found = connection.execute("select question from vlm_dimension where name = 'weather'").fetchall()
    assert found == [("As it is now?",)]
    assert not list(data.glob("before-restore-*"))


def test_a_backup_goes_back_into_its_own_kind_of_database(postgres: Postgres, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    for words in (("migrate", "--verbosity", "0"), ("backup", str(folder))):
        assert run(COMMAND, tmp_path / "data", "", *words).returncode == 0
    url = postgres.create("other_kind")
    assert run(COMMAND, tmp_path / "other", url, "migrate", "--verbosity", "0").returncode == 0
    refused = run(COMMAND, tmp_path / "other", url, "restore", str(folder))
    assert refused.returncode == 2
    assert "from SQLite, but here they are in PostgreSQL" in refused.stderr


def test_without_its_programs_a_backup_says_what_to_install(postgres: Postgres, tmp_path: Path) -> None:
    url, folder = postgres.create("no_programs"), tmp_path / "backup"
    refused = run(COMMAND, tmp_path / "data", url, "backup", str(folder), PATH=str(tmp_path))
    assert refused.returncode == 2
    assert "pg_dump, which copies them, is not here" in refused.stderr
    assert "postgresql-client" in refused.stderr
    assert not folder.exists()
