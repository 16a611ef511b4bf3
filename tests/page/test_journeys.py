"""The jobs that people come for, each from its beginning to its end, in a real browser."""

import re
from pathlib import Path
from zipfile import ZipFile

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.children import PATIENCE
from tests.page.conftest import PASSWORD, Server, Visitor, draw_images, open_context
from tests.page.test_browser import mark, repeat, start, unreloaded

expect.set_options(timeout=1000 * PATIENCE)

SIDE = 378


def tagged(page: Page, tag: str, *places: int) -> None:
    """Select the pictures at ``places`` and give them ``tag``."""
    for place in places:
        page.locator(".pick input").nth(place).click()
    page.locator("#bulk-tag").fill(tag)
    page.locator("#selection").get_by_role("button", name="Add").click()
    expect(page.locator("#messages .success").last).to_contain_text(f"“{tag}” added to")
    expect(page.locator(".cell .tag", has_text=tag)).to_have_count(len(places))


def clear(page: Page) -> None:
    """Take back the selection, and wait until nothing is selected: the form's reset comes first."""
    page.locator("#selection").get_by_role("button", name="Clear").click()
    expect(page.locator("[data-selected-count]")).to_have_text("0 selected")


def stops_before_the_pictures(page: Page) -> int:
    """Return how often Tab is pressed, from the top, until it reaches the first picture."""
    page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
    for count in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("Boolean(document.activeElement.closest('.cell'))"):
            return count
    raise AssertionError("No picture was reached.")


def test_what_leaves_the_page_is_selected_no_longer_and_an_edit_is_undone(visitor: Visitor, folder: Path) -> None:
    """The ghost selection: after a removal under a filter nothing unseen may be edited by the next click."""
    page = visitor.log_in()
    page.goto(visitor.imported(draw_images(folder, 8)))
    tagged(page, "odd", 0, 1, 2, 3)
    clear(page)
    page.locator("#facet-own-tags .word").click()
    expect(page.locator(".cell")).to_have_count(4)
    for place in range(3):
        page.locator(".pick input").nth(place).click()
    page.locator("#bulk-tag").fill("odd")
    mark(page)
    page.locator("#selection").get_by_role("button", name="Remove").click()
    expect(page.locator(".cell")).to_have_count(1)
    expect(page.locator("#selection")).to_be_hidden()
    page.locator(".pick input").first.click()
    expect(page.locator("[data-selected-count]")).to_have_text("1 selected")
    page.locator("#messages .success").last.get_by_role("button", name="Undo").click()
    expect(page.locator(".cell")).to_have_count(4)
    expect(page.locator("[data-selected-count]")).to_have_text("1 selected")
    assert unreloaded(page)
    page.locator("#stats").get_by_role("link", name="Edits").click()
    expect(page.get_by_role("row", name=re.compile("took away odd"))).to_contain_text("undone")


def test_a_refusal_is_read_where_the_click_was_and_loses_nothing(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    page.goto(visitor.imported(draw_images(folder, 4)))
    page.locator(".pick input").nth(1).click()
    page.locator("#selection").get_by_role("button", name="Add").click()
    expect(page.locator("#messages .error")).to_contain_text("Write the tag first")
    expect(page.locator("[data-selected-count]")).to_have_text("1 selected")
    page.locator("#auto-tag > summary").click()
    expect(page.locator("#auto-tag input[value=selection]")).to_be_checked()
    page.locator("#auto-tag-more > summary").click()
    page.get_by_label("Least probability", exact=True).evaluate("field => { field.max = ''; field.value = '7'; }")
    page.locator("#auto-tag-form").get_by_role("button", name="Start").click()
    expect(page.locator("#auto-tag-problem")).to_contain_text("Least probability")
    assert page.locator("#auto-tag").get_attribute("open") is not None
    assert page.get_by_label("Least probability", exact=True).input_value() == "7"
    assert all("400" in complaint for complaint in visitor.complaints), visitor.complaints
    visitor.complaints.clear()


def test_a_message_has_its_own_time_and_an_error_stays(visitor: Visitor, folder: Path) -> None:
    visitor.log_in()
    page = visitor.page(reads=False)
    page.clock.install(time="2026-01-01")
    page.goto(visitor.imported(draw_images(folder, 2)))
    page.clock.pause_at("2026-01-02")  # long after the page was loaded; from here on the test alone lets time pass
    tagged(page, "late", 0)
    done, error = page.locator("#messages .success"), page.locator("#messages .error")
    page.clock.fast_forward(15_000)
    expect(done.get_by_role("button", name="Undo")).to_be_visible()
    page.clock.fast_forward(6_000)
    expect(done).to_have_count(0)
    page.locator("#selection").get_by_role("button", name="Add").click()
    expect(error).to_contain_text("Write the tag first")
    page.clock.fast_forward("10:00")
    expect(error).to_be_visible()
    error.get_by_role("button", name="Close this message").click()
    expect(error).to_have_count(0)
    visitor.complaints[:] = [text for text in visitor.complaints if "400" not in text]


def test_ctrl_z_and_a_word_that_takes_the_place_of_another(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    page.goto(visitor.imported(draw_images(folder, 3)))
    page.locator(".pick input").first.click()
    for typed, kept in (("Sunny", "sunny"), ("cloudy", "cloudy")):
        page.locator("#bulk-tag").fill(typed)
        page.keyboard.press("Enter")
        expect(page.locator(".cell .tag.user")).to_have_text([kept])
    expect(page.locator("#messages .success").last).to_contain_text("took the place of another word of weather")
    page.locator("h1").click()
    page.keyboard.press("Control+z")
    expect(page.locator(".cell .tag.user")).to_have_text(["sunny"])


def test_one_comes_back_to_the_picture_one_left(visitor: Visitor, folder: Path) -> None:
    """Back and Escape lead to the picture that was seen last, in the middle of a set that was scrolled for long."""
    page = visitor.log_in()
    page.goto(visitor.imported(draw_images(folder, 260, size=64)))
    repeat(page, lambda: page.mouse.wheel(0, 4000), until=lambda: page.locator(".cell").count() >= 240)
    page.locator(".cell .picture").nth(200).click()
    expect(page.locator("h1")).to_have_text("200.png")
    page.wait_for_load_state()  # before that it is seen, but hears no keys
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_have_text("210.png")
    page.go_back()
    seen = page.locator(".cell .picture", has=page.get_by_alt_text("210.png"))
    expect(seen).to_be_in_viewport()
    expect(seen).to_be_focused()
    assert page.locator(".cell").count() < 240
    first = page.locator(".cell", has=page.get_by_alt_text("000.png"))
    repeat(page, lambda: page.mouse.wheel(0, -4000), until=lambda: first.count() == 1)
    names = page.locator(".cell img").evaluate_all("all => all.map(image => image.alt)")
    assert names == sorted(set(names))
    page.locator(".cell .picture").nth(70).click()
    expect(page.locator("h1")).to_have_text("070.png")
    page.wait_for_load_state()
    page.keyboard.press("Escape")
    expect(page.locator(".cell .picture", has=page.get_by_alt_text("070.png"))).to_be_focused()


def test_ten_stops_lead_to_the_first_picture(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    page.goto(visitor.imported(draw_images(folder, 3)) + "?q=0")
    expect(page.locator(".cell")).to_have_count(3)
    assert stops_before_the_pictures(page) <= 10
    page.locator("#facet-lighting .word").first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#facet-lighting .word").nth(1)).to_be_focused()
    page.locator("#facet-lighting li").nth(1).hover()
    expect(page.locator("#facet-lighting .count").nth(1)).to_be_in_viewport()


def test_counts_and_a_filtered_result_follow_a_run(visitor: Visitor, folder: Path, server: Server) -> None:
    """While a run stands still at its brake, its words are in the facets, and what matches has come in."""
    page = visitor.log_in()
    address = visitor.imported(draw_images(folder, 6, size=SIDE))
    empty = visitor.page()  # where nothing matches before the run
    empty.goto(f"{address}?source=model")
    page.goto(address)
    server.brake.allow(3)
    start(page)
    server.brake.wait_until_reached()
    expect(empty.locator(".cell")).to_have_count(3)
    expect(empty.locator(".total")).to_contain_text("3 of 6")
    expect(page.locator("#facet-lighting .lacking .count")).to_have_text("3")
    expect(page.locator("#stats")).to_contain_text("50 %")
    expect(page).to_have_title(re.compile(r"^\d+ % – "))
    page.goto(f"{address}?source=model")
    expect(page.locator(".cell")).to_have_count(3)
    mark(page)
    server.brake.allow(2)
    server.brake.wait_until_reached()
    expect(page.locator(".cell")).to_have_count(5)
    expect(page.locator(".total")).to_contain_text("5 of 6")
    page.locator("#live a", has_text="Run").first.click()
    expect(page.locator("#run table").first).to_be_visible()
    server.brake.release()
    expect(page.locator("#live.completed")).to_be_visible()


def test_somebody_elses_run_says_whose_it_is_and_why_one_cannot_start_another(
    visitor: Visitor, folder: Path, server: Server, browser: Browser
) -> None:
    page = visitor.log_in()
    address = visitor.imported(draw_images(folder, 4, size=SIDE))
    page.goto(address)
    server.python(
        "import django; django.setup()\n"
        "from django.contrib.auth.models import Permission, User\n"
        f"carol = User.objects.create_user('carol', password={PASSWORD!r})\n"
        "carol.user_permissions.add(*Permission.objects.filter(codename__in=['view_dataset', 'autotag_dataset']))\n"
    )
    context = open_context(browser, viewport={"width": 1280, "height": 900})
    colleague = context.new_page()
    colleague.goto(address)
    colleague.get_by_label("User name").fill("carol")
    colleague.get_by_label("Password").fill(PASSWORD)
    colleague.get_by_role("button", name="Log in").click()
    expect(colleague.locator("#auto-tag")).to_be_visible()
    server.brake.allow(1)
    start(page)
    server.brake.wait_until_reached()
    expect(colleague.locator("#live")).to_contain_text("by ada")
    expect(colleague.locator("#live")).to_contain_text("lighting")
    expect(colleague.get_by_text("Auto-tag comes back when this run has ended")).to_be_visible()
    colleague.locator("header").get_by_role("link", name="Runs").click()
    expect(colleague.locator("#active-runs")).to_contain_text(folder.name)
    expect(colleague.locator("#active-runs")).to_contain_text("by ada")
    colleague.goto(address)
    colleague.get_by_role("button", name="Cancel").click()
    for one in (page, colleague):
        expect(one.locator("#live.cancelled")).to_be_visible()
        expect(one.locator("#auto-tag")).to_be_visible()
    context.close()
    server.brake.release()


def test_a_run_on_the_wrong_filter_is_cancelled_and_taken_back(visitor: Visitor, folder: Path, server: Server) -> None:
    """The answers of the run before it are those that count again, on every picture that it had reached."""
    page = visitor.log_in()
    address = visitor.imported(draw_images(folder, 6, size=SIDE))
    page.goto(address)
    start(page)
    expect(page.locator("#live.completed")).to_be_visible()
    first = page.locator("#live").get_attribute("data-run")
    expect(page.locator(".cell .tag.model")).to_have_count(6 * 5)
    tags = page.locator(".cell .tag.model").all_inner_texts()

    page.goto(f"{address}?q=00")
    page.locator("#auto-tag > summary").click()
    expect(page.locator("#auto-tag input[value=filter]")).to_be_checked()
    page.locator("#auto-tag input[name=scope][value=all]").check()
    server.brake.allow(2)
    page.locator("#auto-tag-form").get_by_role("button", name="Start").click()
    server.brake.wait_until_reached()
    expect(page.locator("#live")).to_contain_text("within a filter")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#live.cancelled")).to_be_visible()
    second = page.locator("#live").get_attribute("data-run")
    page.goto(f"{address}?run={second}")
    expect(page.locator(".total b")).to_have_text("2")

    page.locator("#live").get_by_role("link", name=re.compile("^Run")).click()
    page.get_by_text("Take this run back…").click()
    page.get_by_role("button", name="Take the run back").click()
    expect(page.locator("#live")).to_contain_text("taken back")
    page.goto(f"{address}?run={second}")
    expect(page.locator(".cell")).to_have_count(0)
    page.goto(f"{address}?run={first}")
    expect(page.locator(".cell .tag.model")).to_have_text(tags)
    server.brake.release()


def count_of(page: Page, facet: str, word: str) -> Locator:
    return page.locator(f"#facet-{facet} li[data-name={word}] .count")


def test_fifty_wrong_tags_are_found_put_right_and_undone(visitor: Visitor, folder: Path) -> None:
    """Find them, select them, take the word away or give the right one, read what was done, take that back."""
    page = visitor.log_in()
    address = visitor.imported(draw_images(folder, 60, size=64))
    page.goto(address)
    boxes, selection, told = page.locator(".pick input"), page.locator("#selection"), page.locator("#messages .success")

    def select_fifty() -> None:
        boxes.nth(0).click()
        boxes.nth(49).click(modifiers=["Shift"])
        expect(page.locator("[data-selected-count]")).to_have_text("50 selected")

    def expect_fifty_of(word: str, *, without: str) -> None:
        """Expect the facets to say so, on a page that nobody has loaded again."""
        expect(count_of(page, "weather", word)).to_have_text("50")
        expect(page.locator(f"#facet-weather li[data-name={without}] .count")).to_have_text(re.compile("^0?$"))
        assert unreloaded(page)

    select_fifty()
    page.locator("#bulk-tag").fill("rainy")
    page.keyboard.press("Enter")
    expect(told.last).to_contain_text("“rainy” added to 50 images")
    clear(page)

    page.locator("#facet-weather .word", has_text="rainy").click()
    expect(page.locator(".total")).to_contain_text("50 of 60")
    expect(page.locator(".cell")).to_have_count(50)
    mark(page)
    # Another word takes the place of the wrong one, in one step.
    select_fifty()
    page.keyboard.press("t")
    page.keyboard.type("sunny")
    page.keyboard.press("Enter")
    expect(told.last).to_contain_text("“sunny” added to 50 images; on 50 it took the place of another word of weather")
    expect(page.locator(".cell")).to_have_count(0)
    expect(selection).to_be_hidden()
    expect_fifty_of("sunny", without="rainy")
    told.last.get_by_role("button", name="Undo").click()
    expect(page.locator(".cell")).to_have_count(50)
    expect(page.locator(".cell .tag.user")).to_have_text(["rainy"] * 50)
    expect_fifty_of("rainy", without="sunny")

    # Taken away only; nothing unseen is selected by what is clicked next.
    select_fifty()
    page.locator("#bulk-tag").fill("rainy")
    selection.get_by_role("button", name="Remove").click()
    expect(told.last).to_contain_text("“rainy” removed from 50 images")
    expect(page.locator(".cell")).to_have_count(0)
    expect(count_of(page, "weather", "rainy")).to_have_text("0")
    expect(page.locator("#facet-weather .lacking .count")).to_have_text("60")
    page.locator("h1").click()
    page.keyboard.press("Control+z")
    expect(page.locator(".cell")).to_have_count(50)
    expect(page.locator("[data-selected-count]")).to_have_text("0 selected")
    expect_fifty_of("rainy", without="sunny")
    page.locator("#stats").get_by_role("link", name="Edits").click()
    for what in ("added sunny", "took away rainy"):
        expect(page.get_by_role("row", name=re.compile(f"{what}.* 50 undone"))).to_be_visible()


def test_the_right_pictures_are_found_and_taken_away_as_a_table_and_as_files(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    page.goto(visitor.imported(draw_images(folder, 5)))
    tagged(page, "night", 0, 1, 2)
    clear(page)
    tagged(page, "blurry", 1, 2, 3)
    clear(page)
    page.locator("#facet-weather .word", has_text="night").click()
    expect(page.locator(".total b")).to_have_text("3")
    page.locator("#facet-clarity .word", has_text="blurry").click()
    expect(page.locator(".total b")).to_have_text("2")

    def exported(format: str) -> Path:
        if page.locator("#export").get_attribute("open") is None:
            page.locator("#export > summary").click()
        with page.expect_download() as download:
            page.locator("#export").get_by_role("link", name=re.compile(format)).first.click()
        assert "blurry" in download.value.suggested_filename
        return Path(download.value.path())

    lines = exported("csv").read_text().splitlines()
    assert {line.split(",")[1] for line in lines[1:]} == {"001.png", "002.png"}
    with ZipFile(exported("pictures")) as pictures:
        for name in ("001.png", "002.png"):
            (inside,) = (each for each in pictures.namelist() if each.endswith(name))
            assert pictures.read(inside) == (folder / name).read_bytes()


def test_a_data_set_is_renamed_and_pointed_to_the_folder_its_images_moved_to(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    address = visitor.imported(draw_images(folder, 3))
    page.goto(address)
    tagged(page, "mine", 0)
    moved = folder.with_name(f"{folder.name}-moved")
    folder.rename(moved)
    page.goto(f"{address}settings")
    page.get_by_label("Name", exact=True).fill("Renamed")
    page.get_by_role("button", name="Rename").click()
    expect(page.locator("#messages")).to_contain_text("Renamed")
    page.get_by_label("New folder").fill(str(moved.parent))
    page.get_by_role("button", name="Read it from there").click()
    expect(page.get_by_role("alert")).to_contain_text("Only 0 of 3 images")
    page.get_by_label("New folder").fill(str(moved))
    page.get_by_role("button", name="Read it from there").click()
    expect(page.locator("#messages")).to_contain_text("3 of 3")
    page.goto(address)
    expect(page.locator("h1")).to_have_text("Renamed")
    expect(page.locator(".cell .tag.user")).to_have_text(["mine"])
    page.goto(f"{address}settings")
    page.get_by_text("Delete this data set…").click()
    expect(page.locator("#delete")).to_contain_text("What stays: the pictures")
    page.get_by_label(re.compile("to confirm")).fill("Renamed")
    page.get_by_role("button", name="Delete the data set").click()
    expect(page.locator("#messages")).to_contain_text("lie where they were")
    assert len(list(moved.iterdir())) == 3
    visitor.complaints[:] = [text for text in visitor.complaints if "400" not in text]


@pytest.mark.parametrize("width", [390, 1440])
def test_long_names_and_tags_fit(visitor: Visitor, folder: Path, width: int) -> None:
    page = visitor.log_in()
    page.set_viewport_size({"width": width, "height": 844})
    folder = folder.with_name("x" * 190 + str(width))
    address = visitor.imported(draw_images(folder, 2))
    page.goto(address)
    page.locator(".pick input").first.click(force=True)
    page.locator("#bulk-tag").fill("w" * 60)
    page.locator("#selection").get_by_role("button", name="Add").click()
    expect(page.locator("#facet-own-tags .count")).to_have_text("1")
    expect(page.get_by_role("button", name="Close this message")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width > 900:
        page.locator("#facet-own-tags .count").scroll_into_view_if_needed()
        expect(page.locator("#facet-own-tags .count")).to_be_in_viewport(ratio=1)
        assert page.locator(".sidebar").evaluate("side => side.scrollWidth <= side.clientWidth")
    page.locator(".cell .picture").first.click()
    expect(page.locator("#sample-page")).to_be_visible()
    page.wait_for_load_state()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.get_by_role("button", name=re.compile("^Remove")).first.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= width
