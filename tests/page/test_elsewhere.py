"""What happens in other processes reaches the page that is open, without Redis and without a reload."""

import re
import shutil
from pathlib import Path

from playwright.sync_api import expect

from tests.children import PATIENCE
from tests.page.conftest import Server, Visitor, draw_images
from tests.page.test_browser import mark, start, unreloaded

expect.set_options(timeout=1000 * PATIENCE)


def command(server: Server, *words: str) -> None:
    """Run one of the commands to its end, in a process of its own."""
    server.python(
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        f"call_command(*{words!r}, skip_checks=True)\n"
    )


def test_edits_and_imports_by_commands_are_seen(visitor: Visitor, folder: Path, server: Server) -> None:
    page = visitor.log_in()
    address = visitor.imported(draw_images(folder, 3))
    page.goto(address)
    filtered = visitor.page()
    filtered.goto(f"{address}?all=tunnel")
    expect(filtered.locator(".blank")).to_be_visible()
    mark(page)
    mark(filtered)
    command(server, "tag", folder.name, "--filter", "q=00", "--add", "tunnel")
    expect(page.locator(".cell .tag.user", has_text="tunnel")).to_have_count(3)
    expect(page.locator("#facet-own-tags .count")).to_have_text("3")
    expect(page.locator("#stats")).to_contain_text("100 %")
    expect(filtered.locator(".cell")).to_have_count(3)
    command(server, "tag", folder.name, "--filter", "q=001", "--remove", "tunnel", "--add", "sunny")
    expect(page.locator(".cell .tag.user")).to_have_text(["tunnel", "sunny", "tunnel"])
    expect(page.locator("#facet-weather li", has_text=re.compile("sunny")).locator(".count")).to_have_text("1")
    expect(filtered.locator(".total")).to_contain_text("2 of 3")
    shutil.copy(folder / "000.png", folder / "900.png")
    command(server, "import_dataset", str(folder), "--no-progress")
    expect(page.locator(".total b")).to_have_text("4")
    expect(page.locator(".cell")).to_have_count(4)
    assert unreloaded(page)
    assert unreloaded(filtered)


def test_what_the_server_could_not_draw_is_drawn_as_soon_as_it_can(
    visitor: Visitor, folder: Path, server: Server
) -> None:
    page = visitor.log_in()
    page.goto(visitor.imported(draw_images(folder, 3)))
    mark(page)
    page.route(re.compile("loaded="), lambda route: route.fulfill(status=503, body="Not now."), times=2)
    with page.expect_response(lambda answer: answer.status == 503):
        command(server, "tag", folder.name, "--filter", "q=00", "--add", "tunnel")
    expect(page.locator(".cell .tag.user", has_text="tunnel")).to_have_count(3)
    expect(page.locator("#facet-own-tags .count")).to_have_text("3")
    assert unreloaded(page)
    visitor.complaints[:] = [text for text in visitor.complaints if "503" not in text]


def test_a_greeting_leaves_the_buttons_where_a_click_may_be_under_way(
    visitor: Visitor, folder: Path, server: Server
) -> None:
    page = visitor.log_in()
    page.goto(visitor.imported(draw_images(folder, 4)))
    server.brake.allow(1)
    start(page)
    server.brake.wait_until_reached()
    expect(page.locator("#live.running")).to_be_visible()
    page.add_init_script("""
        window.messages = 0;
        addEventListener("DOMContentLoaded", () => {
            document.querySelector("#live-cancel").stillHere = true;
            document.addEventListener("htmx:wsAfterMessage", () => { window.messages += 1; });
        });
    """)
    page.reload()
    page.wait_for_function("() => window.messages > 0")
    assert page.evaluate("document.querySelector('#live-cancel').stillHere === true")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#live.cancelled")).to_be_visible()
    expect(page.locator("#live-cancel")).to_have_count(0)
    server.brake.release()
