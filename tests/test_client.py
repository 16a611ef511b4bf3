"""The Python client, against a real server: its page of the documents is run cell by cell."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from datavisor.client import DataVisor, Refused, StillRunning, Unreachable
from tests.children import PATIENCE, ROOT
from tests.page.conftest import Server, draw_images, folder, server  # noqa: F401  (fixtures)
from tests.ports import reserved

pytestmark = pytest.mark.processes

SCOPES = "read edit run import vocabulary manage"


@pytest.fixture
def token(server: Server, tmp_path: Path) -> str:  # noqa: F811
    """A token of the server's administrator, for everything."""
    server.brake.release()
    if not server.is_up:
        server.start()
    target = tmp_path / "token"
    server.python(
        "import django; django.setup()\n"
        "from datetime import date, timedelta\n"
        "from django.contrib.auth.models import User\n"
        "from pathlib import Path\n"
        "from vlm import services\n"
        "_, text = services.tokens.make(user=User.objects.get(username='ada'), name='test',"
        f" scopes={SCOPES.split()!r}, until=date.today() + timedelta(days=2))\n"
        f"Path({str(target)!r}).write_text(text)\n"
    )
    return target.read_text()


def cells() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "client.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(600)
def test_every_cell_of_the_notebook_runs(
    server: Server,  # noqa: F811
    token: str,
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("pandas")
    draw_images(folder, 8)
    monkeypatch.chdir(tmp_path)
    name = folder.name
    known: dict[str, Any] = {}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for cell in cells():
            own = cell.replace("http://127.0.0.1:8000", server.url).replace('"dv_…"', f"{token!r}, timeout={PATIENCE}")
            exec(own.replace("/srv/images/street", str(folder)).replace('"street"', repr(name)), known)
    street, frame = known["street"], known["frame"]
    assert len(frame) == street.info()["images"] == 8
    assert set(frame["weather"].dropna()) <= set(street.facets()["weather"])
    assert "8 of 8" in said.getvalue()
    assert "nowhere.png" in said.getvalue()
    assert street.count(labelled="weather:day") >= 1
    assert (tmp_path / "street.parquet").stat().st_size > 0
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert street.runs()[0]["reverted"]


def test_what_a_client_is_told(server: Server, token: str, folder: Path) -> None:  # noqa: F811
    draw_images(folder, 3)
    visor = DataVisor(server.url, token=token, timeout=PATIENCE)
    images = visor.import_folder(folder).wait()
    with pytest.raises(LookupError, match=images.name):
        visor.dataset("nothing of that name")
    with pytest.raises(Refused, match="no part of a filter") as refused:
        images.tag("x", filter="alll=dark")
    assert (refused.value.status, refused.value.title != "") == (400, True)
    with pytest.raises(ValueError, match="Say which images"):
        images.tag("x")
    with pytest.raises(Refused, match="unknown, revoked"):
        DataVisor(server.url, token="dv_wrong", timeout=PATIENCE).datasets()
    with pytest.raises(Refused, match="There is no format"):
        images.export("telegram", folder / "x")
    edit = images.tag("mine", ids=[next(images.images()).id])
    assert (edit.changed, images.count(all="mine")) == (1, 1)
    assert [image.own_tags for image in images.images(all="mine")] == [("mine",)]
    assert images.untag("mine", all="mine").changed == 1


@pytest.mark.timeout(600)
def test_a_run_is_waited_for_cancelled_and_resumed(server: Server, token: str, folder: Path) -> None:  # noqa: F811
    draw_images(folder, 3)
    images = DataVisor(server.url, token=token, timeout=PATIENCE).import_folder(folder).wait()
    server.brake.allow(1)
    run = images.autotag(ids=[image.id for image in images.images()])
    with pytest.raises(StillRunning):
        run.wait(timeout=0)
    server.brake.wait_until_reached()
    run.cancel()
    with pytest.raises(Refused, match="cancelled"):
        run.wait()
    server.brake.release()
    assert run.resume().wait()["processed"] == 3


def test_nobody_answers() -> None:
    with reserved() as unheard, pytest.raises(Unreachable):
        DataVisor(f"http://127.0.0.1:{unheard.getsockname()[1]}", token="x").datasets()
    with pytest.raises(ValueError, match="no address"):
        DataVisor("file:///etc/passwd", token="x")


def test_the_client_needs_neither_django_nor_the_model() -> None:
    code = "import sys, datavisor.client; print(sorted({'django', 'torch', 'duckdb', 'pandas', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
