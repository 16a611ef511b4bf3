"""A PostgreSQL server of the tests' own: in a temporary folder, on a Unix socket, as a user that is not root."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from tests.children import PATIENCE, wait_for

USER = "datavisor"
NEEDED = ("initdb", "postgres")
# Nothing here outlives the machine, so nothing waits for a disk; what was committed outlives a crash of the server.
QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB"}


def program(name: str) -> str | None:
    """Return where a program of PostgreSQL is; Debian keeps those of the server out of the way, by version."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, places), os.environ["PATH"]]))


class Postgres:
    """A server that can be stopped, killed and started again; whoever makes one closes it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # a socket's path must be short
        # It refuses to run as root.
        self.as_user: dict[str, object] = {}
        if os.geteuid() == 0:
            self.as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, "nobody", "nogroup")
        self.process: subprocess.Popen[bytes] | None = None
        data = ["-D", f"{self.folder}/data"]
        options = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        self._call("initdb", *data, *options)
        self.start()

    def _call(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(program(name)), *arguments], capture_output=True, text=True, cwd=self.folder, **self.as_user
        )  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr

    def url(self, database: str = "postgres") -> str:
        return f"postgres://{USER}@/{self.folder}/{database}?connect_timeout={PATIENCE:.0f}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(host=str(self.folder), user=USER, dbname=database, autocommit=True)

    def create(self, database: str) -> str:
        """Make an empty database and return its address."""
        with self.connect() as connection:
            connection.execute(f'create database "{database}"')
        return self.url(database)

    def start(self) -> None:
        settings = [f"--{name}={value}" for name, value in QUICK.items()]
        command = [str(program("postgres")), "-D", f"{self.folder}/data", "-k", str(self.folder), "-h", "", *settings]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self.as_user)  # type: ignore[call-overload]
        wait_for(self._answers, "An answer of PostgreSQL")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text(errors="replace")
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop as an administrator does (SIGINT), who cuts all connections, or at once as if it crashed (SIGQUIT)."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE)
            self.process = None

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)
