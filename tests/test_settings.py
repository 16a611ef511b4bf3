"""The settings stop the start on a bad value, and a deployment never runs on a key that nobody chose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def start(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DATAVISOR_DATA_DIR": str(tmp_path / "data")}
    return subprocess.run(
        [sys.executable, "-c", "from datavisor import settings; print(settings.SECRET_KEY)"],
        env=environment | variables,
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
    ],
)
def test_a_bad_value_says_what_to_write(tmp_path: Path, name: str, value: str, complaint: str) -> None:
    refused = start(tmp_path, **{name: value})
    assert refused.returncode != 0
    assert complaint in refused.stderr
