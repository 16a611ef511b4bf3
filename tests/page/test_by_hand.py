"""Looking and tagging by hand, each from its beginning to its end, in a real browser."""

from pathlib import Path

from playwright.sync_api import expect

from tests.children import PATIENCE
from tests.page.conftest import Server, Visitor, draw_images
from tests.page.test_browser import SIDE, mark, start, unreloaded

expect.set_options(timeout=1000 * PATIENCE)


def test_a_key_for_every_word_and_several_tags_at_once(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    address = visitor.imported(draw_images(folder, 4))
    page.goto(f"{address}?lacking=weather")
    page.locator("#keys > summary").click()
    page.locator("#keys select").select_option("weather")
    page.keyboard.press("Escape")
    mark(page)
    page.locator(".cell .picture").first.focus()
    # A picture that has its word leaves the filter, and the keyboard goes on to the next one.
    for left, key in ((3, "1"), (2, "2")):
        page.keyboard.press(key)
        expect(page.locator(".cell")).to_have_count(left)
        expect(page.locator(".cell .picture").first).to_be_focused()
    page.locator(".pick input").nth(0).click()
    page.locator(".pick input").nth(1).click()
    page.locator("#selection").get_by_role("button", name="rainy").click()
    expect(page.locator(".cell")).to_have_count(0)
    assert unreloaded(page)

    page.goto(address)
    expect(page.locator(".cell .tag.user")).to_have_text(["sunny", "cloudy", "rainy", "rainy"])
    page.locator("[data-select-all]").check()
    page.locator("#bulk-tag").fill("odd, Foggy")
    page.keyboard.press("Enter")
    expect(page.locator("#messages .success").last).to_contain_text("as the word of weather; on 4 it took the place")
    expect(page.locator(".cell .tag.user", has_text="odd")).to_have_count(4)
    expect(page.locator(".cell .tag.user", has_text="foggy")).to_have_count(4)
    page.locator("#bulk-tag").fill("sunny, rainy")
    page.keyboard.press("Enter")
    expect(page.locator("#messages .error")).to_contain_text("an image has one of them")
    page.locator("#messages .success").last.get_by_role("button", name="Undo").click()
    expect(page.locator(".cell .tag.user")).to_have_text(["sunny", "cloudy", "rainy", "rainy"])
    visitor.complaints[:] = [text for text in visitor.complaints if "400" not in text]


def test_pictures_whole_and_one_after_the_other(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    page.goto(visitor.imported(draw_images(folder, 9)))
    page.get_by_role("link", name="Whole", exact=True).click()
    expect(page.locator("#grid.whole")).to_be_visible()
    page.locator(".cell .picture").nth(2).click()
    expect(page.locator("h1")).to_have_text("002.png")
    page.wait_for_load_state()  # before that a link is a page
    mark(page)
    page.locator(".filmstrip").get_by_role("link", name="007.png").click()
    expect(page.locator("h1")).to_have_text("007.png")
    expect(page.locator(".filmstrip [aria-current]")).to_be_focused()
    assert unreloaded(page)
    page.locator("#sample-page select").select_option("weather")
    page.locator(".stage").focus()
    page.keyboard.press("3")
    expect(page.locator(".tag-list .tag.user")).to_have_text(["rainy"])
    # What somebody does elsewhere is seen here.
    other = visitor.page()
    other.goto(page.evaluate("location.href"))
    other.locator("#new-tag").fill("elsewhere")
    other.keyboard.press("Enter")
    expect(page.locator(".tag-list .tag.user")).to_have_text(["rainy", "elsewhere"])
    assert unreloaded(page)
    page.keyboard.press("Escape")
    expect(page.locator(".cell .picture", has=page.get_by_alt_text("007.png"))).to_be_focused()
    expect(page.locator("#grid.whole")).to_be_visible()


def test_anything_is_found_and_the_queue_is_in_the_header(visitor: Visitor, folder: Path, server: Server) -> None:
    page = visitor.log_in()
    address = visitor.imported(draw_images(folder, 3, size=SIDE))
    page.goto(visitor.server.url)
    page.keyboard.press("Control+k")
    page.keyboard.type(folder.name)
    found = page.locator("#commands button, #found a")
    expect(found).to_have_count(1)  # once all that was typed has been looked for
    expect(found).to_contain_text(folder.name)
    expect(found).to_contain_text("data set")
    page.keyboard.press("Enter")
    page.wait_for_url(address)
    page.keyboard.press("Control+k")
    page.keyboard.type("import order")
    expect(page.locator("#commands button")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}?order=added")
    page.locator("[data-palette]").click()
    page.locator("#palette-text").fill("foggy")
    page.locator("#found").get_by_role("link", name="foggy images, weather").click()
    page.wait_for_url(f"{address}?all=foggy")

    page.goto(address)
    server.brake.allow(1)
    start(page)
    server.brake.wait_until_reached()
    expect(page.locator("#live[data-active]")).to_be_visible()
    page.reload()
    page.locator("#queue > summary").click()
    expect(page.locator("#queue-list a", has_text=folder.name)).to_contain_text("yours")
    server.brake.release()
    expect(page.locator("#live.completed")).to_be_visible()


def test_the_table_sorts_is_edited_like_the_grid_and_keeps_its_columns(
    visitor: Visitor, folder: Path, server: Server
) -> None:
    page = visitor.log_in()
    address = visitor.imported(draw_images(folder, 130, size=64))
    page.goto(address)
    page.get_by_role("link", name="Table", exact=True).click()
    expect(page.locator("tr.cell")).to_have_count(60)
    mark(page)
    page.locator("thead a", has_text="file name").click()
    expect(page.locator("tr.cell .path").first).to_have_text("129.png")
    # Selected and edited like the grid, up to a row that a Shift reaches.
    page.locator(".pick input").nth(0).click()
    page.locator(".pick input").nth(2).click(modifiers=["Shift"])
    expect(page.locator("[data-selected-count]")).to_have_text("3 selected")
    page.locator("#bulk-tag").fill("Sunny, odd")
    page.keyboard.press("Enter")
    expect(page.locator("tr.cell .tag.user", has_text="sunny")).to_have_count(3)
    expect(page.locator("tr.cell .tag.user", has_text="odd")).to_have_count(3)
    page.locator("thead a", has_text="weather").click()
    expect(page.locator("thead th[aria-sort]")).to_contain_text("weather")
    expect(page.locator("tr.cell").first).to_contain_text("sunny")
    # The next rows come by scrolling, and the keys go from row to row.
    page.locator("tr.cell .picture").nth(58).focus()
    page.keyboard.press("j")
    expect(page.locator("tr.cell")).to_have_count(120)
    page.keyboard.press("j")
    expect(page.locator("tr.cell .picture").nth(60)).to_be_focused()
    assert unreloaded(page)
    # One comes back to the row that one left.
    name = page.locator("tr.cell .path").nth(60).inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(name)
    page.wait_for_load_state()  # before that it is seen, but hears no keys
    page.keyboard.press("Escape")
    expect(page.locator("tr.cell .picture", has_text=name)).to_be_focused()
    expect(page.locator("tr.cell .picture", has_text=name)).to_be_in_viewport()

    page.goto(f"{address}?view=table")
    page.locator("#columns > summary").click()
    for label in ("clarity", "density"):
        page.locator("#columns").get_by_label(label, exact=True).uncheck()
    page.locator("#columns").get_by_label("camera").check()
    page.get_by_role("button", name="Show these").click()
    expect(page.locator("thead th", has_text="camera")).to_be_visible()
    expect(page.locator("thead th", has_text="clarity")).to_have_count(0)
    # What happens elsewhere is seen here, too.
    mark(page)
    server.python(
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        f"call_command('tag', {folder.name!r}, '--filter', 'q=000', '--add', 'tunnel', skip_checks=True)\n"
    )
    expect(page.locator("tr.cell").first.locator(".tag.user")).to_have_text(["tunnel"])
    assert unreloaded(page)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
