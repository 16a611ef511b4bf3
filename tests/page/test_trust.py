"""A question of one's own, from the draft to the facets, and a review by keyboard, in a real browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.children import PATIENCE
from tests.page.conftest import PASSWORD, Server, Visitor, draw_images, open_context
from tests.page.test_browser import follow, start

expect.set_options(timeout=1000 * PATIENCE)


@pytest.fixture
def usual_vocabulary(server: Server) -> Iterator[None]:
    """Leave the server's vocabulary as it was, whatever becomes of the test."""
    yield
    server.python(
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('vocabulary', 'reset', '--tags', 'keep')\n"
    )


@pytest.mark.usefixtures("usual_vocabulary")
def test_a_question_of_ones_own_is_tried_saved_asked_and_seen(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    dataset = visitor.imported(draw_images(folder, 3))
    page.goto(dataset)
    start(page)
    expect(page.locator("#live")).to_contain_text("completed", ignore_case=True)
    first = page.locator("#live").get_attribute("data-run")

    page.get_by_role("link", name="Vocabulary").click()
    page.get_by_role("link", name="Add a question").click()
    page.locator("#id_name").fill("vehicle")
    page.locator("#id_question").fill("Which vehicle: car, truck, bus or none?")
    page.locator("#id_words").fill("car")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("at least two")  # said there, and nothing is lost
    expect(page.locator("#id_name")).to_have_value("vehicle")
    assert all("400" in complaint for complaint in visitor.complaints), visitor.complaints
    visitor.complaints.clear()
    page.locator("#id_words").fill("car\ntruck\nbus\nnone")

    page.locator("select[name=dataset]").select_option(label=folder.name)
    page.get_by_role("button", name="Try", exact=True).click()
    expect(page.locator(".tried li")).to_have_count(3)
    expect(page.locator("#trial [role=status]")).to_have_text("Completed")
    page.get_by_role("button", name="Save this question").click()
    expect(page.locator(".vocabulary")).to_contain_text("Which vehicle")

    page.goto(dataset)
    page.locator("#auto-tag > summary").click()
    expect(page.locator("#auto-tag output")).to_contain_text("3 images")
    page.locator("#auto-tag-form").get_by_role("button", name="Start").click()
    expect(page.locator(f"#live.completed:not([data-run='{first}'])")).to_be_visible()
    expect(page.locator("#filters")).to_contain_text("vehicle", ignore_case=True)
    expect(page.locator(".cell .tag", has_text=re.compile("^(car|truck|bus|none)$"))).to_have_count(3)


def test_a_review_by_keyboard_with_an_undo(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    dataset = visitor.imported(draw_images(folder, 14))
    page.goto(dataset)
    start(page)
    expect(page.locator("#live")).to_contain_text("completed", ignore_case=True)
    review = dataset.rstrip("/") + "/review?dimension=setting"
    page.goto(review)
    page.get_by_label("Images", exact=True).fill("14")
    page.get_by_role("button", name="Draw and begin").click()
    expect(page.locator("#review [role=status]")).to_have_text("0 of 14")
    page.wait_for_load_state()  # before that it is seen, but hears no keys

    def shown(of: Page) -> str:
        return of.locator("#review .stage img").get_attribute("alt") or ""

    first = shown(page)
    page.keyboard.press("1")
    expect(page.locator("#review [role=status]")).to_have_text("1 of 14")
    assert shown(page) != first
    page.keyboard.press("u")
    expect(page.locator("#review [role=status]")).to_have_text("0 of 14")
    expect(page.locator("#review .stage img")).to_have_attribute("alt", first)

    for done in range(1, 14):
        page.keyboard.press("0" if done == 3 else "2")
        expect(page.locator("#review [role=status]")).to_have_text(f"{done} of 14")
    page.keyboard.press("1")
    expect(page.locator("#review")).to_contain_text("All decided")
    page.get_by_role("link", name="See the accuracy").click()
    expect(page.locator("#setting")).to_contain_text("14 of 14 labels count")
    expect(page.locator("#setting .figure")).to_contain_text("right")
    assert visitor.complaints == []


def test_two_people_review_and_a_promise_is_kept_by_one_click(
    visitor: Visitor, folder: Path, server: Server, browser: Browser
) -> None:
    """Nobody gets what the other has at hand; and what they decide lets the page tag by a threshold."""
    page = visitor.log_in()
    dataset = visitor.imported(draw_images(folder, 20))
    page.goto(dataset)
    start(page)
    expect(page.locator("#live")).to_contain_text("completed", ignore_case=True)
    lines = page.request.get(f"{dataset}export?format=jsonl").text().splitlines()
    rows = {row["file_name"]: row["tags"] for row in map(json.loads, lines)}
    said = {name: next(t["tag"] for t in tags if t["dimension"] == "setting") for name, tags in rows.items()}
    follow(page.get_by_role("link", name="Review", exact=True))
    page.goto(f"{dataset}review?dimension=setting")
    page.get_by_label("Images", exact=True).fill("20")
    page.get_by_role("button", name="Draw and begin").click()
    status = page.locator("#review [role=status]")
    expect(status).to_have_text("0 of 20")

    server.python(
        "import django; django.setup()\n"
        "from django.contrib.auth.models import User\n"
        f"User.objects.create_superuser('bob', password={PASSWORD!r})\n"
    )
    context = open_context(browser, viewport={"width": 390, "height": 844}, has_touch=True)
    other = context.new_page()
    other.goto(f"{dataset}review?dimension=setting")
    other.get_by_label("User name").fill("bob")
    other.get_by_label("Password").fill(PASSWORD)
    other.get_by_role("button", name="Log in").click()
    expect(other.locator("#review [role=status]")).to_have_text("0 of 20")

    def shown(of: Page) -> set[str]:
        return {(of.locator("#review .stage img").get_attribute("alt") or "")}

    def at_hand(of: Page) -> set[str]:
        pictures = of.locator("#review img").evaluate_all("all => all.map(one => one.src)")
        assert len(pictures) == 6  # the next five are there already
        return set(pictures)

    assert not at_hand(page) & at_hand(other)
    (name,) = shown(other)
    other.locator(f"#review button[value={said[name]}]").tap()
    expect(other.locator("#review [role=status]")).to_have_text("1 of 20")
    context.close()  # what is at hand there comes back to the others once it is decided there, or by and by
    server.python(
        "import django; django.setup()\n"
        "from vlm.process import sample_store\n"
        "with sample_store().write() as cursor:\n"
        '    cursor.execute("update draws set claimed_by = null").fetchall()\n'
        # What is drawn here is nearly the same, and twenty labels of one image would promise nothing.
        "    cursor.execute(\"delete from marks where kind = 'near'\").fetchall()\n"
    )
    page.reload()
    for done in range(2, 20):
        (name,) = shown(page)
        page.locator(f"#review button[value={said[name]}]").click()
        expect(status).to_have_text(f"{done} of 20")
    (name,) = shown(page)
    page.locator(f"#review button[value={said[name]}]").click()
    expect(page.locator("#review")).to_contain_text("All decided")

    page.goto(f"{dataset}accuracy?dimension=setting&target=0.8")
    expect(page.locator("#setting .notice")).to_contain_text("Kept, with 95 % confidence")
    page.get_by_role("button", name="What would change").first.click()
    expect(page.locator("#setting [role=status]")).to_contain_text("Nothing has been changed yet")
    page.get_by_role("button", name="Tag setting by it").click()
    expect(page.locator(".message")).to_contain_text("Tagged setting by the promise")
