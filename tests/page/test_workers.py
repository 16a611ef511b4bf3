"""The workers of a run, on the strip of an open page."""

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.children import PATIENCE
from tests.page.conftest import Server, Visitor, draw_images
from tests.page.test_browser import mark, unreloaded
from vlm.scoring.member import WorkerState

expect.set_options(timeout=1000 * PATIENCE)

AT_WORK = WorkerState("1", "gpu-a", 4711, "cuda:0", 32, 1200, 48.6, "ready", "2026-05-04T10:11:12+00:00", 0, "")
COMING = WorkerState("2", "", 0, "", 1, 0, 0.0, "starting", "", 0, "")


def crew(server: Server, folder: Path, *states: WorkerState, **changes: Any) -> None:
    """Write how the workers are into the row of a run which nobody works on and nobody takes for dead."""
    values = {"crew": [state.to_json() for state in states], **changes}
    server.python(
        "import django, json; django.setup()\n"
        "from vlm.models import Dataset, TaggingRun\n"
        f"dataset = Dataset.objects.get(name={folder.name!r})\n"
        "asked = {'workers': 'ray://gpu-a:10001', 'total': 9000, 'model': 'm', 'vocabulary_hash': '0' * 64, 'status': 'running'}\n"
        "run, _ = TaggingRun.objects.get_or_create(dataset=dataset, defaults=asked)\n"
        f"TaggingRun.objects.filter(pk=run.pk).update(**json.loads({json.dumps(values)!r}))\n"
    )


def test_each_worker_is_seen_as_it_comes_goes_and_works(visitor: Visitor, folder: Path, server: Server) -> None:
    page = visitor.log_in()
    address = visitor.imported(draw_images(folder, 2))
    crew(server, folder, COMING, COMING)
    page.goto(address)
    mark(page)
    page.get_by_text("Workers").click()
    rows = page.locator("#live-crew tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text("is called")
    down = WorkerState(
        "2", "gpu-b", 4712, "cuda:0", 32, 300, 0.0, "down", "2026-05-04T10:11:10+00:00", 2, "The node died."
    )
    crew(server, folder, AT_WORK, down, processed=1500)
    expect(rows.nth(0)).to_have_text(re.compile(r"1\s*gpu-a\s*cuda:0\s*at work\s*1,200\s*48\.6/s\s*0\s*10:11:12 UTC"))
    expect(rows.nth(1)).to_contain_text("gone")
    expect(rows.nth(1).get_by_title("The node died.")).to_be_visible()  # so it was not closed under the reader's hands
    crew(server, folder, AT_WORK, down, model="another", device="2 of ray")  # the whole strip is drawn anew
    expect(page.locator("#live [title=another]")).to_be_attached()
    expect(rows.nth(1).get_by_title("The node died.")).to_be_visible()
    assert unreloaded(page)
    crew(server, folder, AT_WORK, down, status="cancelled")
    expect(page.locator("#live-says")).to_have_text("Cancelled")
