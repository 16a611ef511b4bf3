"""The settings stop the start on a bad value, and a deployment never runs on a key that nobody chose."""

import os
import secrets
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.children import ROOT, completed, environment
from tests.workshop import fork

KEY = secrets.token_urlsafe(64)


def start(tmp_path: Path, shown: str = "settings.SECRET_KEY", **variables: str) -> subprocess.CompletedProcess[str]:
    """Read the settings in a process that has not read them before."""
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DATAVISOR_DATA_DIR": str(tmp_path / "data")}
    return completed(fork("-c", f"from datavisor import settings; print({shown})", env=bare | variables))


def test_a_local_server_makes_its_key_once(tmp_path: Path) -> None:
    first, second = start(tmp_path), start(tmp_path)
    assert first.returncode == 0, first.stderr
    assert len(first.stdout.strip()) > 50
    assert first.stdout == second.stdout
    assert (tmp_path / "data" / "secret_key").stat().st_mode & 0o777 == 0o600


def test_a_deployment_demands_a_key(tmp_path: Path) -> None:
    refused = start(tmp_path, DATAVISOR_ALLOWED_HOSTS="tags.example.org")
    assert refused.returncode != 0
    assert "DATAVISOR_SECRET_KEY must be" in refused.stderr
    assert start(tmp_path, DATAVISOR_ALLOWED_HOSTS="tags.example.org", DATAVISOR_SECRET_KEY=KEY).returncode == 0


@pytest.mark.parametrize(
    "key", ["x", "k" * 60, "hwzvKhQMHbAIGlmLxHDAtw"], ids=["one letter", "one letter often", "short"]
)
def test_a_deployment_refuses_a_key_that_can_be_guessed(tmp_path: Path, key: str) -> None:
    for variables in (
        {"DATAVISOR_SECRET_KEY": key},
        {"DATAVISOR_SECRET_KEY": KEY, "DATAVISOR_OLD_SECRET_KEYS": key},
    ):
        refused = start(tmp_path, DATAVISOR_ALLOWED_HOSTS="tags.example.org", **variables)
        assert refused.returncode != 0
        assert "too easy to guess" in refused.stderr


def test_a_deployment_refuses_every_host(tmp_path: Path) -> None:
    refused = start(tmp_path, DATAVISOR_ALLOWED_HOSTS="tags.example.org,*", DATAVISOR_SECRET_KEY=KEY)
    assert refused.returncode != 0
    assert "lets any web page pose as this server" in refused.stderr


def test_a_key_can_be_changed_without_logging_everybody_out(tmp_path: Path) -> None:
    sign = "from django.core import signing; "
    variables: dict[str, Any] = {
        "DJANGO_SETTINGS_MODULE": "datavisor.settings",
        "DATAVISOR_ALLOWED_HOSTS": "tags.example.org",
    }
    signed = run(tmp_path, sign + "print(signing.dumps('ada'))", **variables, DATAVISOR_SECRET_KEY=KEY)
    new: dict[str, Any] = {"DATAVISOR_SECRET_KEY": secrets.token_urlsafe(64)}
    read = sign + f"print(signing.loads({signed.stdout.strip()!r}))"
    assert "BadSignature" in run(tmp_path, read, **variables, **new).stderr
    assert run(tmp_path, read, **variables, **new, DATAVISOR_OLD_SECRET_KEYS=KEY).stdout == "ada\n"


# -- the data folder -----------------------------------------------------------------------------------------------------
def run(
    tmp_path: Path, code: str, *, prefix: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATAVISOR_DATA_DIR": str(tmp_path / "data")}
    return subprocess.run(
        [*prefix, sys.executable, "-c", code],
        env=bare | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def command(*words: str) -> str:
    return f"import sys; sys.argv[1:] = {list(words)}\nfrom datavisor.cli import main; sys.exit(main())"


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("quickstart", "--help"), ("check",)])
def test_a_command_that_needs_no_data_writes_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(tmp_path, command(*words), HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_settings_and_all_addresses_are_read_without_writing(tmp_path: Path) -> None:
    code = "import django; django.setup(); from datavisor import urls, settings; print(len(urls.urlpatterns))"
    assert run(tmp_path, code, DJANGO_SETTINGS_MODULE="datavisor.settings").stdout.strip() == "3"
    assert list(tmp_path.iterdir()) == []


def test_two_processes_that_start_together_agree_on_the_key(tmp_path: Path) -> None:
    code = "from datavisor import settings; print(settings.SECRET_KEY)"
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATAVISOR_DATA_DIR": str(tmp_path / "data")}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=bare, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert len({process.communicate()[0] for process in started}) == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret_key"]


USE = """
import os; os.umask(UMASK)
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
User.objects.create_superuser("ada", password="correct horse 9")
from PIL import Image
from pathlib import Path
Path("images").mkdir(exist_ok=True)
Image.new("RGB", (300, 200)).save("images/one.png")
from vlm import services
from vlm.models import Dataset
from vlm.samples import SampleFilter
from django.test import Client
call_command("import_dataset", "images", name="one", no_progress=True, verbosity=0)
from django.conf import settings
settings.ALLOWED_HOSTS.append("testserver")
client = Client()
client.force_login(User.objects.get())
page = client.get("/datasets/1/").content.decode()
assert client.get("/datasets/1/samples/1/thumbnail/160").status_code == 200
call_command("export_tags", "one", format="csv", output=Path("tags.csv"))
from vlm.process import sample_store
with sample_store().write() as cursor:
    cursor.execute("create table leaves_a_log(number int)")
str(settings.SECRET_KEY)
os._exit(0)  # as a process that is killed: logs and locks stay
"""


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_all_that_lies_in_the_data_folder_is_its_users_alone(tmp_path: Path, umask: int) -> None:
    used = completed(fork("-c", USE.replace("UMASK", str(umask)), env=environment(tmp_path / "data"), cwd=tmp_path))
    assert used.returncode == 0, used.stderr
    data = tmp_path / "data"
    names = {path.name for path in data.iterdir()}
    assert {"datavisor.sqlite3", "datavisor.sqlite3-wal", "samples.duckdb", "samples.duckdb.wal", "secret_key"} <= names
    for path in (data, *data.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    # What is made for the user, outside, is as the user wants it.
    assert stat.S_IMODE((tmp_path / "tags.csv").stat().st_mode) == 0o666 & ~umask


def test_a_folder_that_an_older_release_left_open_is_closed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "thumbnails").mkdir(parents=True)
    for name in ("samples.duckdb.lock", "datavisor.sqlite3", "datavisor.sqlite3-wal", "other"):
        (data / name).touch()
        (data / name).chmod(0o644)
    data.chmod(0o755)
    assert run(tmp_path, "from datavisor import settings; print(settings.SECRET_KEY)").returncode == 0
    for path in (data, *data.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
NOBODY = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups")


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder into which every user can look, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="datavisor-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@as_root
@pytest.mark.parametrize(("owner", "mode"), [(0, 0o755), (0, 0o700), (65534, 0o777)])
def test_a_folder_of_somebody_else_is_named(open_path: Path, owner: int, mode: int) -> None:
    data = open_path / "data"
    data.mkdir()
    os.chown(data, owner, owner)
    data.chmod(mode)
    for words in (("check",), ("migrate",), ("quickstart", "--no-serve")):
        refused = run(open_path, command(*words), prefix=NOBODY)
        assert refused.returncode != 0
        assert "Traceback" not in refused.stderr
        assert "set DATAVISOR_DATA_DIR" in refused.stderr.replace("Set", "set")
    server = run(open_path, "import datavisor.asgi", prefix=NOBODY)
    assert server.returncode != 0
    assert server.stderr.startswith(f"The data folder {data}")
    assert "Traceback" not in server.stderr


@as_root
def test_a_user_that_the_system_does_not_know_needs_no_home(open_path: Path) -> None:
    data = open_path / "data"
    data.mkdir()
    os.chown(data, 54321, 54321)
    done = run(open_path, command("migrate", "--verbosity", "0"), prefix=NOBODY)
    assert done.returncode == 0, done.stderr
    refused = run(open_path, command("check"), prefix=NOBODY, DATAVISOR_DATA_DIR="~/data")
    assert refused.returncode == 2
    assert "Write the whole path" in refused.stderr


# -- bad values ----------------------------------------------------------------------------------------------------------
def test_a_key_file_comes_from_outside(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert values(tmp_path, "settings.SECRET_KEY", DATAVISOR_SECRET_KEY_FILE=str(tmp_path / "key")) == KEY


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("DATAVISOR_VLM_DTYPE", "int4", "must be one of auto, float32"),
        ("DATAVISOR_VLM_MIN_PROBABILITY", "1.5", "a probability lies between 0 and 1"),
        ("DATAVISOR_MAX_PIXELS", "many", "must be a number"),
        ("DATAVISOR_MAX_PIXELS", "inf", "must be a number"),
        ("DATAVISOR_VLM_IDLE_MINUTES", "-1", "at least 0"),
        ("DATAVISOR_DUCKDB_MEMORY", "lots", "write a size like 2GB"),
        ("DATAVISOR_PROXIES", "-1", "at least 0"),
        ("DATAVISOR_MAX_BODY_MB", "0", "at least 1"),
        ("DATAVISOR_DEBUG", "ture", "must be one of true, yes, on, 1, false"),
        ("DATAVISOR_DATA_DIR", "/dev/null/data", "Set DATAVISOR_DATA_DIR"),
        ("DATAVISOR_TIME_ZONE", "Mars/X", "write a name like Europe/Vienna"),
        ("DATAVISOR_VLM_DEVICE", "gpu", "must be auto, cpu, mps, cuda or cuda:1"),
        ("DATAVISOR_WORKERS", "local:x", "names no workers: write here, local"),
        ("DATAVISOR_SECRET_KEY_FILE", "/nowhere", "DATAVISOR_SECRET_KEY_FILE names a file that cannot be read"),
        ("DATABASE_URL", "what", "DATABASE_URL cannot be read; write it like postgres"),
        ("DATABASE_URL", "foo://x", "DATABASE_URL cannot be read; write it like postgres"),
        ("DATABASE_URL", "mysql://ada@db/tags", "on which DataVisor does not run"),
    ],
)
def test_a_bad_value_says_what_to_write(tmp_path: Path, name: str, value: str, complaint: str) -> None:
    refused = start(tmp_path, **{name: value})
    assert refused.returncode != 0
    assert complaint in refused.stderr


def test_a_library_that_is_not_there_is_named(tmp_path: Path) -> None:
    without = "import sys; sys.modules['channels_redis'] = None; from datavisor import settings"
    refused = run(tmp_path, without, DATAVISOR_REDIS_URL="redis://localhost:6379/0")
    assert refused.returncode != 0
    assert "pip install 'datavisor[redis]'" in refused.stderr


def test_a_command_ends_with_the_sentence_alone(tmp_path: Path) -> None:
    for command in ("check", "quickstart"):
        refused = subprocess.run(
            [sys.executable, "-c", "import sys; from datavisor.cli import main; sys.exit(main())", command],
            env=environment(tmp_path, DATAVISOR_VLM_DTYPE="int4"), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert refused.returncode == 2
        assert refused.stderr.startswith("DATAVISOR_VLM_DTYPE is “int4”")
        assert refused.stderr.count("\n") == 1


def values(tmp_path: Path, expression: str, **variables: str) -> str:
    started = start(tmp_path, expression, **variables)
    assert started.returncode == 0, started.stderr
    return started.stdout.strip()


def test_values_are_taken_as_they_stand(tmp_path: Path) -> None:
    hosts, key = tmp_path / "hosts", "$f8h#" + "k" * 50
    hosts.write_text("tags.example.org, other.example.org\n")
    variables = {"DATAVISOR_ALLOWED_HOSTS_FILE": str(hosts), "DATAVISOR_SECRET_KEY": key}
    assert values(tmp_path, "settings.ALLOWED_HOSTS", **variables) == "['tags.example.org', 'other.example.org']"
    assert values(tmp_path, "settings.SECRET_KEY", **variables) == key


def test_the_database_lies_in_the_data_folder_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "C# 100%20?" / "data"
    name = values(tmp_path, "settings.DATABASES['default']['NAME']", DATAVISOR_DATA_DIR=str(folder))
    assert name == str(folder / "datavisor.sqlite3")
    other = "settings.DATABASES['default']['HOST'], settings.DATABASES['default']['ENGINE']"
    seen = values(tmp_path, other, DATABASE_URL="postgres://ada:secret@db:5432/tags")
    assert seen == "db datavisor.postgres"
