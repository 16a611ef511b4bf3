"""The settings stop the start on a bad value, and a deployment never runs on a key that nobody chose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.children import environment


def start(tmp_path: Path, shown: str = "settings.SECRET_KEY", **variables: str) -> subprocess.CompletedProcess[str]:
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DATAVISOR_DATA_DIR": str(tmp_path / "data")}
    return subprocess.run(
        [sys.executable, "-c", f"from datavisor import settings; print({shown})"],
        env=bare | variables,
        capture_output=True,
        text=True,
        check=False,
    )


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
    assert start(tmp_path, DATAVISOR_ALLOWED_HOSTS="tags.example.org", DATAVISOR_SECRET_KEY="k" * 60).returncode == 0


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("DATAVISOR_VLM_DTYPE", "int4", "must be one of auto, float32"),
        ("DATAVISOR_VLM_MIN_PROBABILITY", "1.5", "a probability lies between 0 and 1"),
        ("DATAVISOR_MAX_PIXELS", "many", "must be a number"),
        ("DATAVISOR_MAX_PIXELS", "inf", "must be a number"),
        ("DATAVISOR_VLM_IDLE_MINUTES", "-1", "at least 0"),
        ("DATAVISOR_DUCKDB_MEMORY", "lots", "write a size like 2GB"),
        ("DATAVISOR_DEBUG", "ture", "must be one of true, yes, on, 1, false"),
        ("DATAVISOR_DATA_DIR", "/dev/null/data", "Set DATAVISOR_DATA_DIR"),
        ("DATAVISOR_TIME_ZONE", "Mars/X", "write a name like Europe/Vienna"),
        ("DATAVISOR_VLM_DEVICE", "gpu", "must be auto, cpu, mps, cuda or cuda:1"),
        ("DATAVISOR_SECRET_KEY_FILE", "/nowhere", "DATAVISOR_SECRET_KEY_FILE names a file that cannot be read"),
        ("DATABASE_URL", "what", "DATABASE_URL cannot be read; write it like postgres"),
        ("DATABASE_URL", "foo://x", "DATABASE_URL cannot be read; write it like postgres"),
    ],
)
def test_a_bad_value_says_what_to_write(tmp_path: Path, name: str, value: str, complaint: str) -> None:
    refused = start(tmp_path, **{name: value})
    assert refused.returncode != 0
    assert complaint in refused.stderr


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
    assert seen == "db django.db.backends.postgresql"
