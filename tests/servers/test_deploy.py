"""What ``deploy/``, ``Dockerfile`` and ``compose.yaml`` start is run here as it stands there, but for systemd and Docker themselves."""

import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.children import PATIENCE, ROOT, end, environment, wait_for
from tests.ports import reserved

pytestmark = pytest.mark.processes

UNIT, VARIABLES = ROOT / "deploy" / "datavisor.service", ROOT / "deploy" / "datavisor.env"
BIN = "/opt/datavisor/bin/"
WITHIN = {f"{BIN}datavisor": [sys.executable, "-m", "datavisor"], f"{BIN}daphne": [sys.executable, "-m", "daphne"]}


def lines_of(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)


def assignments(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def second_unit() -> str:
    """Return the unit of a second process, made by the command that the first one names."""
    (command,) = re.findall(r"^# A second process: (sed .*) datavisor\.service > ", UNIT.read_text(), re.MULTILINE)
    return subprocess.run([*shlex.split(command), str(UNIT)], check=True, capture_output=True, text=True).stdout


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    if (program := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed (Debian: apt-get install systemd)")
    for name in ("datavisor", "daphne"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    units = {"datavisor.service": UNIT.read_text(), "datavisor-second.service": second_unit()}
    assert "--port 8001" in units["datavisor-second.service"]
    assert "\nAfter=datavisor.service " in units["datavisor-second.service"]
    for name, text in units.items():
        (tmp_path / name).write_text(text.replace(BIN, f"{tmp_path}/"))
    paths = [str(tmp_path / name) for name in units]
    checked = subprocess.run([program, "verify", *paths], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    looked = subprocess.run(
        [program, "security", "--offline=true", paths[0]], capture_output=True, text=True, check=False
    )
    (exposure,) = re.findall(r"Overall exposure level for datavisor\.service: ([\d.]+)", looked.stdout)
    assert float(exposure) < 3  # of 10; systemd’s own word for it is OK


def answers(port: int, *, host: str) -> bool:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/healthz", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read() == b"ok\n"
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.fixture
def port() -> Iterator[int]:
    """A port that is bound, so nobody else's, and not listened to, so whoever is started here can."""
    with reserved() as held:
        yield held.getsockname()[1]


def test_what_the_unit_starts_serves_and_ends_when_told_to(tmp_path: Path, port: int) -> None:
    unit = UNIT.read_text().replace("/var/lib/datavisor", str(tmp_path / "data"))
    given = assignments(VARIABLES.read_text()) | {"DATAVISOR_SECRET_KEY": secrets.token_urlsafe(64)}
    own = dict(word.split("=", 1) for line in lines_of(unit, "Environment") for word in line.split())
    variables = environment(tmp_path / "data", **given) | own | {"HF_HOME": str(tmp_path / "cache")}
    (tmp_path / "data").mkdir(mode=0o700)

    def words(line: str) -> list[str]:
        return [part for word in shlex.split(line) for part in WITHIN.get(word, [word])]

    for line in lines_of(unit, "ExecStartPre"):
        done = subprocess.run(words(line), env=variables, cwd=tmp_path / "data", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "static" / "staticfiles.json").is_file()
    (command,) = lines_of(unit, "ExecStart")
    with (tmp_path / "log").open("w+b") as log:
        child = subprocess.Popen(
            words(command.replace("8000", str(port))), env=variables, cwd=tmp_path / "data", stdout=log, stderr=log
        )
        try:
            wait_for(lambda: child.poll() is not None or answers(port, host=given["DATAVISOR_ALLOWED_HOSTS"]))
            child.send_signal(signal.SIGTERM)
            assert child.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
        finally:
            child.kill()
            child.wait()


def test_what_the_image_starts_serves_and_is_found_healthy(tmp_path: Path, port: int) -> None:
    """The command and the health check of ``Dockerfile``, with the variables that ``compose.yaml`` gives."""
    image = (ROOT / "Dockerfile").read_text()
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    (command,) = re.findall(r'^CMD \["sh", "-c", "(.*)"\]$', image, re.MULTILINE)
    (check,) = re.findall(r'^ +CMD \["python", "-c", "(.*)"\]$', image, re.MULTILINE)
    filled = {
        "DATAVISOR_SECRET_KEY": secrets.token_urlsafe(64),
        "DATAVISOR_ALLOWED_HOSTS": "tags.example.org",
        "DATAVISOR_REDIS_URL": "",  # no server of that name is here
    }
    given = {
        name: re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", lambda found: filled.get(found[1], found[2]), str(value))
        for name, value in compose["services"]["server"]["environment"].items()
    } | {"DATAVISOR_REDIS_URL": ""}
    assert given["DATAVISOR_ALLOWED_HOSTS"] == "tags.example.org,127.0.0.1"
    variables = environment(tmp_path / "data", **given)
    python = shlex.quote(sys.executable)
    here = command.replace("python ", f"{python} ").replace("exec daphne", f"exec {python} -m daphne")
    here = here.replace("--bind 0.0.0.0 --port 8000", f"--bind 127.0.0.1 --port {port}")
    child = subprocess.Popen(["sh", "-c", here], env=variables, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: child.poll() is not None or answers(port, host="127.0.0.1"))
        assert child.poll() is None, child.communicate()[1]
        healthy = [sys.executable, "-c", check.replace("8000", str(port))]
        # It is given some seconds only, and asked again and again, by Docker too.
        wait_for(lambda: subprocess.run(healthy, check=False).returncode == 0, "A check that finds the server healthy")
    finally:
        end(child)


def test_compose_names_what_is_there() -> None:
    """Settings that the server knows, volumes that are made, arguments that the image takes, services that are healthy."""
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    image, explained = (ROOT / "Dockerfile").read_text(), (ROOT / "README.md").read_text()
    server = compose["services"]["server"]
    assert all(f"| `{name}` |" in explained for name in server["environment"])
    assert set(server["build"]["args"]) == set(re.findall(r"^ARG (\w+)", image, re.MULTILINE))
    used = {volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])}
    assert used - {"${IMAGES"} == set(compose["volumes"])
    for name in server["depends_on"]:
        assert "healthcheck" in compose["services"][name]
    for copied in re.findall(r"^COPY (.+) \S+$", image, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())
