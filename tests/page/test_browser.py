"""The page as people use it: a real server, the real engine on small weights, a real browser."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from tests.children import PATIENCE
from tests.page.conftest import PASSWORD, Server, Visitor, draw_images, open_context

expect.set_options(timeout=1000 * PATIENCE)

WHERE = "document.querySelectorAll('.cell')[61].getBoundingClientRect().top"
SIDE = 378  # pixels: one crop


def start(page: Page) -> None:
    page.wait_for_load_state()  # a page that has not loaded yet does not hear that its panel is opened
    page.locator("#auto-tag > summary").click()
    expect(page.locator("#auto-tag output")).to_contain_text("image")
    page.locator("#auto-tag-form").get_by_role("button", name="Start").click()


def mark(page: Page) -> None:
    """Leave a mark that a reload would wipe away."""
    page.evaluate("window.stillHere = true")


def unreloaded(page: Page) -> bool:
    return bool(page.evaluate("window.stillHere === true"))


def note_progress(page: Page) -> None:
    """Have the page write down every number of images that it shows as done, however quickly it passes."""
    page.evaluate("""() => {
        window.progress = [];
        new MutationObserver(() => {
            const shown = document.querySelector("#live-processed");
            if (shown && Number(shown.textContent) !== window.progress.at(-1)) {
                window.progress.push(Number(shown.textContent));
            }
        }).observe(document.body, {childList: true, subtree: true, characterData: true});
    }""")


def processed(page: Page) -> int:
    return int(page.locator("#live-processed").inner_text())


def repeat(page: Page, act: Callable[[], object], until: Callable[[], bool]) -> None:
    """Do ``act`` again and again, as somebody would who waits for something, until it is there."""
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline
        act()
        page.wait_for_timeout(100)


def own_count(page: Page, facet: str) -> int:
    """Return how many samples the sidebar says have a word of ``facet``."""
    return sum(int(text) for text in page.locator(f"#facet-{facet} li:not(.lacking) .count").all_inner_texts())


def resting_top(page: Page) -> float:
    """Return where the cell of ``WHERE`` is once it stays there: cells that were never seen take their height when they are."""
    rest = """async () => {
        let [top, frames] = [null, 0];
        while (frames < 10) {
            await new Promise(requestAnimationFrame);
            const now = %s;
            frames = now === top ? frames + 1 : 0;
            top = now;
        }
        return top;
    }"""
    return float(page.evaluate(rest % WHERE))


def test_from_import_to_facets_without_a_reload(visitor: Visitor, folder: Path, server: Server) -> None:
    draw_images(folder, 19, size=SIDE, broken=1)
    page = visitor.log_in()
    page.get_by_role("link", name="Import", exact=True).click()
    page.get_by_label("Folder on the server").fill(str(folder))
    page.get_by_role("button", name="Look").click()
    expect(page.get_by_role("status").filter(has_text="20 images")).to_be_visible()
    page.get_by_role("button", name="Import 20 images").click()
    page.get_by_role("link", name=re.compile("^Open")).click()
    expect(page.locator(".cell")).to_have_count(20)
    other = visitor.page()
    other.goto(page.url)
    mark(page)
    mark(other)
    assert own_count(page, "lighting") == 0

    note_progress(page)
    server.brake.allow(5)
    start(page)
    for tab in (page, other):
        expect(tab.locator("#live[data-active]")).to_be_visible()
        expect(tab.locator("#live-processed")).to_have_text("5")  # the bar moves
    expect(page.locator("#auto-tag")).to_be_hidden()
    expect(page.locator(".cell .tag").first).to_be_visible()
    server.brake.release()
    for tab in (page, other):
        expect(tab.locator("#live.completed")).to_be_visible()
        expect(tab.locator("#facet-lighting .lacking .count")).to_have_text("1")
        assert own_count(tab, "lighting") == 19
        # A tab that began to listen after the first images were tagged has those tags by looking again.
        expect(tab.locator(".cell .tag.model")).to_have_count(19 * 5)
        expect(tab.locator("#stats")).to_contain_text("95 %")
        assert unreloaded(tab)
    seen = page.evaluate("window.progress")
    assert 5 in seen
    assert seen == sorted(seen)  # and never back
    page.locator("#live a", has_text="1 failed").click()
    expect(page.locator(".cell")).to_have_count(1)
    expect(page).to_have_url(re.compile("failed_in="))
    page.go_back()
    expect(page.locator(".cell")).to_have_count(20)


def test_a_run_survives_reload_cancel_and_a_restart_of_the_server(
    visitor: Visitor, folder: Path, server: Server
) -> None:
    page = visitor.log_in()
    page.goto(visitor.imported(draw_images(folder, 12, size=SIDE)))
    server.brake.allow(3)
    start(page)
    expect(page.locator("#live.running")).to_be_visible()
    page.reload()
    expect(page.locator("#live[data-active]")).to_be_visible()
    expect(page.locator("#live-processed")).to_have_text("3")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#live.cancelled")).to_be_visible()
    assert processed(page) == 3

    server.brake.allow(4)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#live.running")).to_be_visible()
    expect(page.locator("#live-processed")).to_have_text("7")
    mark(page)
    server.stop()
    expect(page.get_by_text("Connection lost")).to_be_visible()
    server.start()
    expect(page.get_by_text("Connection lost")).to_be_hidden()
    expect(page.locator("#live.interrupted")).to_contain_text("Resume to go on")
    assert processed(page) == 7
    server.brake.release()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#live.completed")).to_be_visible()
    assert processed(page) == 12
    assert unreloaded(page)
    # Losing the server is what the browser complained about, and nothing else.
    assert all("WebSocket" in c or "Event" in c or "net::ERR_" in c for c in visitor.complaints), visitor.complaints
    visitor.complaints.clear()


def test_the_place_is_kept_when_the_data_change(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    page.set_viewport_size({"width": 1000, "height": 500})
    page.goto(visitor.imported(draw_images(folder, 70)) + "?order=added&size=l")
    repeat(page, lambda: page.mouse.wheel(0, 4000), until=lambda: page.locator(".cell").count() == 70)
    boxes = page.locator(".pick input")
    boxes.nth(60).click()
    boxes.nth(63).click(modifiers=["Shift"])
    expect(page.locator("[data-selected-count]")).to_have_text("4 selected")
    top = resting_top(page)
    mark(page)
    page.locator("#bulk-tag").fill("odd")
    page.locator("#selection").get_by_role("button", name="Add").click()
    expect(page.locator("#messages")).to_contain_text("added to 4 images")
    expect(page.locator("#facet-own-tags .count")).to_have_text("4")
    assert page.locator(".cell").count() == 70
    assert boxes.nth(61).is_checked()
    page.wait_for_function(
        "top => Math.abs(document.querySelectorAll('.cell')[61].getBoundingClientRect().top - top) < 3", arg=top
    )
    assert "order=added" in page.url
    assert unreloaded(page)
    page.locator("#facet-own-tags .word").click()
    expect(page.locator(".cell")).to_have_count(4)
    expect(page.locator(".chip")).to_contain_text("odd")
    page.reload()
    expect(page.locator(".cell")).to_have_count(4)
    page.locator(".chip").click()
    expect(page.locator(".total")).to_have_text("70 images")


def test_by_keyboard_alone(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    page.goto(visitor.imported(draw_images(folder, 6)))
    keys = page.keyboard
    keys.press("j")
    keys.press("ArrowRight")
    keys.press("x")
    keys.press("ArrowRight")
    keys.press("Shift+X")
    expect(page.locator("[data-selected-count]")).to_have_text("2 selected")
    keys.press("t")
    keys.type("mine")
    keys.press("Enter")
    expect(page.locator(".cell .tag.user")).to_have_count(2)
    page.locator(".cell .picture").nth(1).focus()
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("001.png")
    page.wait_for_load_state()  # before that it is seen, but hears no keys
    keys.press("ArrowRight")
    expect(page.locator("h1")).to_have_text("002.png")
    keys.press("t")
    keys.type("other")
    keys.press("Enter")
    expect(page.locator(".tag-list .tag")).to_have_count(2)
    keys.press("Escape")
    first = page.locator(".tag-list .tag").first.inner_text()
    keys.press("Shift+Digit1")
    expect(page.locator(".tag-list .tag")).to_have_count(1)
    expect(page.locator(".tag-list .tag")).not_to_have_text(first)
    keys.press("Escape")
    expect(page.locator(".cell")).to_have_count(6)
    page.wait_for_load_state()
    keys.press("/")
    keys.type("00")
    expect(page.locator("#search")).to_have_value("00")


@pytest.fixture
def plain(browser: Browser, visitor: Visitor) -> Iterator[Page]:
    """A page of somebody logged in whose browser runs no scripts."""
    visitor.log_in()
    context = open_context(browser, java_script_enabled=False, storage_state=visitor.context.storage_state())
    yield context.new_page()
    context.close()


def follow(control: Locator) -> None:
    """Click what leads to another page, and wait for that page.

    Without scripts every click is a page: what is looked for next may be on the old one, too, and a click on a page that is
    not there in full may meet what moves away under it.
    """
    with control.page.expect_navigation():
        control.click()


def test_without_javascript(visitor: Visitor, plain: Page, folder: Path) -> None:
    page = plain
    page.goto(visitor.imported(draw_images(folder, 70)))
    page.locator(".cell").nth(0).hover()
    page.locator(".pick input").nth(0).check()
    page.locator(".pick input").nth(1).check()
    page.locator("#bulk-tag").fill("plain")
    follow(page.locator("#selection").get_by_role("button", name="Add"))
    expect(page.locator("#messages")).to_contain_text("added to 2 images")
    follow(page.locator("#facet-own-tags .word"))
    expect(page.locator(".cell")).to_have_count(2)
    page.locator("#facet-saved > summary").click()
    page.get_by_label("Name of the view").fill("Plain ones")
    follow(page.get_by_role("button", name="Save"))
    follow(page.locator(".chip"))
    expect(page.locator(".total")).to_have_text("70 images")
    follow(page.get_by_role("link", name="More images"))
    expect(page.locator(".cell")).to_have_count(10)
    follow(page.locator("#facet-saved .word"))
    expect(page.locator(".cell")).to_have_count(2)
    page.locator("#search").fill("000")
    follow(page.get_by_role("button", name="Find"))
    expect(page.locator(".cell")).to_have_count(1)
    page.locator("[data-select-all]").check()
    follow(page.get_by_role("button", name="Auto-tag these"))
    follow(page.get_by_role("button", name="Count the images"))
    expect(page.get_by_role("status").filter(has_text="1 image")).to_be_visible()
    follow(page.get_by_role("button", name="Start"))
    repeat(page, page.reload, until=lambda: page.locator("#live.completed").count() == 1)
    follow(page.locator("#live").get_by_role("link", name="Run"))
    page.get_by_label("Least probability", exact=True).fill("1")
    follow(page.get_by_role("button", name="Preview"))
    expect(page.get_by_role("status").filter(has_text="would change")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_accessible(visitor: Visitor, folder: Path, theme: str) -> None:
    """No violation of axe's rules on any page, in either theme, wide and narrow."""
    folder = folder.with_name("accessible")
    page = visitor.log_in()
    page.emulate_media(color_scheme="light" if theme == "dark" else "dark")
    page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
    address = visitor.imported(draw_images(folder, 3, size=SIDE, broken=1))
    page.goto(address)
    if not page.locator("#live[data-run]").count():
        start(page)
    expect(page.locator("#live.completed")).to_be_visible()
    run = page.locator(".live-head a").get_attribute("href")
    sample = page.locator(".cell .picture").nth(1).get_attribute("href")
    page.locator(".pick input").nth(1).click()
    page.locator("#auto-tag > summary").click()
    found = [violation(page)]
    url = visitor.server.url
    for path in ("/", f"{address}?any=dark&none=dim&q=0", f"{address}?q=zzz", f"{address}?view=table&order=-tag:lighting",
                 "/accounts/tokens/", f"{address}auto-tag", f"{address}runs", f"{url}{run}",
                 f"{url}{sample}", "/imports/new", "/nowhere/"):  # fmt: skip
        page.goto(path if path.startswith("http") else url + path)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        found.append(violation(page))
        page.set_viewport_size({"width": 390, "height": 844})
        if theme == "light":  # the narrow page has the same colours
            found.append(violation(page))
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        page.set_viewport_size({"width": 1280, "height": 900})
    assert [text for text in found if text] == []
    assert all("404" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_tokens_and_the_choice_of_columns_are_accessible(visitor: Visitor, folder: Path, theme: str) -> None:
    """What opens by a click is looked at, too: a token that was just made, one in force, a refusal, the table's columns."""
    page = visitor.log_in()
    page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
    page.goto(f"{visitor.server.url}/accounts/tokens/")
    page.get_by_label("What it is for").fill("Notebook")
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_label("Copy it now")).to_be_visible()
    found = [violation(page)]
    page.goto(f"{visitor.server.url}/accounts/tokens/")
    page.get_by_label("What it is for").fill(" ")
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("alert")).to_be_visible()
    found.append(violation(page))
    page.goto(visitor.imported(draw_images(folder, 2, size=64)) + "?view=table")
    page.locator("#columns > summary").click()
    page.locator(".pick input").first.check()
    found.append(violation(page))
    page.set_viewport_size({"width": 390, "height": 844})
    found.append(violation(page))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert [text for text in found if text] == []
    visitor.complaints[:] = [text for text in visitor.complaints if "400" not in text]


def test_the_table_needs_no_javascript(visitor: Visitor, plain: Page, folder: Path) -> None:
    page = plain
    page.goto(visitor.imported(draw_images(folder, 70, size=64)))
    follow(page.get_by_role("link", name="Table", exact=True))
    follow(page.locator("thead a", has_text="file name"))
    expect(page.locator("tr.cell .path").first).to_have_text("069.png")
    follow(page.get_by_role("link", name="More images"))
    expect(page.locator("tr.cell")).to_have_count(10)
    page.locator("#columns > summary").click()
    page.locator("#columns").get_by_label("camera").check()
    follow(page.get_by_role("button", name="Show these"))
    expect(page.locator("thead th", has_text="camera")).to_be_visible()
    page.locator(".pick input").first.check()
    page.locator("#bulk-tag").fill("odd")
    follow(page.locator("#selection").get_by_role("button", name="Add"))
    expect(page.locator("#messages")).to_contain_text("added to 1 image")
    expect(page.locator("tr.cell .tag.user")).to_have_text(["odd"])


def test_the_log_in_page_is_accessible(server: Server, visitor: Visitor) -> None:
    page = visitor.page()
    page.goto(server.url)
    assert violation(page) == ""
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD + "!")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert violation(page) == ""


def violation(page: Page) -> str:
    page.wait_for_load_state()
    results = Axe().run(page)
    return "" if results.violations_count == 0 else f"{page.url}\n{results.generate_report()}"
