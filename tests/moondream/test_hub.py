"""Downloading from a hub that a local server plays."""

import hashlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from vlm.moondream import hub

from .checkpoints import random_model, write_checkpoint

COMMIT = "0123456789" * 4


class Hub(BaseHTTPRequestHandler):
    """Serves a folder's files as the hub serves a release's, and remembers what it was asked for."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.respond(body=False)

    def do_GET(self) -> None:
        self.respond(body=True)

    def respond(self, body: bool) -> None:
        if self.path in ("/forget", "/asked"):
            content, headers, status = json.dumps(self.asked).encode(), {}, 200
            if self.path == "/forget":
                self.asked.clear()
        else:
            self.asked.append(f"{self.command} {self.path}")
            revision, name = self.path.split("/resolve/")[-1].split("/")[:2]
            path = self.folder / name
            status = 200 if path.is_file() else 404
            content = path.read_bytes() if path.is_file() else b""
            commit = revision if len(revision) == 40 else COMMIT
            headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            if status == 404:
                headers = {"X-Repo-Commit": commit, "X-Error-Code": "EntryNotFound"}
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("release"), random_model())


@pytest.fixture(scope="module")
def sessions(files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Release", (Hub,), {"folder": files, "asked": []}))
    Thread(target=server.serve_forever, daemon=True).start()
    weights, tokenizer = ((files / name).read_bytes() for name in ("model.safetensors", "tokenizer.json"))
    unset = ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "TRANSFORMERS_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    digests = [hashlib.sha256(content).hexdigest() for content in (weights, tokenizer)]
    try:
        finished = subprocess.run(
            [sys.executable, "-m", "tests.moondream.hub_session", str(len(weights)), *digests],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        server.shutdown()
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def downloads(session: dict[str, Any]) -> list[str]:
    return [line.removeprefix("GET ") for line in session["asked"] if line.startswith("GET ") and "/resolve/" in line]


def test_only_the_needed_files_of_the_pinned_release_are_fetched(sessions: dict[str, Any]) -> None:
    assert sessions["first"]["error"] is None
    wanted = [(hub.MODEL, hub.REVISION, name) for name in ("config.json", "model.safetensors")]
    wanted.append((hub.TOKENIZER, hub.TOKENIZER_REVISION, "tokenizer.json"))
    assert downloads(sessions["first"]) == [f"/{repo}/resolve/{rev}/{name}" for repo, rev, name in wanted]


def test_what_the_progress_callback_raises_stops_the_download(sessions: dict[str, Any]) -> None:
    assert sessions["stopped"]["error"] == "stopped at download"
    assert [path.rpartition("/")[2] for path in downloads(sessions["stopped"])] == ["model.safetensors"]


def test_every_stage_is_reported_to_its_end(sessions: dict[str, Any], files: Path) -> None:
    reports = sessions["first"]["reports"]
    size = (files / "model.safetensors").stat().st_size
    assert list(dict.fromkeys(stage for stage, _, _ in reports)) == ["download", "verify", "load"]
    downloaded = [(done, total) for stage, done, total in reports if stage == "download"]
    assert downloaded[-1] == (size, size)
    assert downloaded == sorted(downloaded)
    assert ["verify", size, size] in reports


def test_the_second_time_nothing_is_asked_or_verified(sessions: dict[str, Any]) -> None:
    assert sessions["second"]["error"] is None
    assert sessions["second"]["asked"] == []
    assert {stage for stage, _, _ in sessions["second"]["reports"]} == {"load"}


def test_offline_with_a_cache(sessions: dict[str, Any]) -> None:
    assert sessions["offline"]["error"] is None
    assert sessions["offline"]["asked"] == []


def test_a_corrupted_file_is_refused_and_the_advice_helps(sessions: dict[str, Any]) -> None:
    error = sessions["corrupted"]["error"]
    assert error.startswith(f"{sessions['blob']} is not the model.safetensors that DataVisor was built for")
    assert "Delete it" in error
    assert sessions["deleted"]["error"] is None
    assert [path.rpartition("/")[2] for path in downloads(sessions["deleted"])] == ["model.safetensors"]


def test_a_file_that_the_hub_does_not_have(sessions: dict[str, Any]) -> None:
    assert "The hub has no other.safetensors in vikhyatk/moondream2" in sessions["absent"]["error"]
