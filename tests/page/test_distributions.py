"""From the grid to how words are spread, against each other and side by side, and back to the images, in a real browser."""

from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.children import PATIENCE
from tests.page.conftest import Visitor, draw_images

expect.set_options(timeout=1000 * PATIENCE)

COUNT = 40


def sound(page: Page) -> None:
    page.wait_for_load_state()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "The page is wider than the window."


def card(page: Page, name: str) -> Locator:
    return page.locator("section.card", has=page.get_by_role("heading", name=name, exact=True))


def test_shares_lead_to_their_images(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    dataset = visitor.imported(draw_images(folder, COUNT, size=40))
    rows = [
        f"{place:03d}.png,{place / COUNT},{'yes' if place < 12 else 'no'},{'左 left' if place < 15 else 'right'}"
        for place in range(COUNT)
    ]
    page.goto(f"{dataset}columns")
    content = "\n".join(["file,error,missed,camera", *rows]).encode()
    page.get_by_label("File").set_input_files({"name": "scores.csv", "mimeType": "text/csv", "buffer": content})
    page.get_by_role("button", name="Bring them in").click()
    expect(page.locator("section.card h2")).to_contain_text(["camera", "error", "missed"])

    page.goto(dataset)
    page.locator("#stats").get_by_role("link", name="Distributions").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Distributions")
    expect(card(page, "Missed").locator("tr", has_text="yes")).to_contain_text("12")
    sound(page)
    card(page, "Camera").get_by_role("link", name="左 left").click()
    expect(page.locator(".toolbar .total")).to_contain_text("15 of 40 images")
    page.go_back()
    card(page, "Error").locator(".histogram a").first.click()
    expect(page.locator(".chips")).to_contain_text("error below")

    page.goto(f"{dataset}distributions")
    page.locator("select[name=by]").select_option(label="missed")
    page.locator("select[name=across]").select_option(label="camera")
    page.get_by_role("button", name="Show").click()
    cell = page.locator("table.crossed tbody tr", has_text="yes").locator("td.above")
    expect(cell).to_contain_text("▲")
    sound(page)
    page.set_viewport_size({"width": 390, "height": 800})
    sound(page)
    page.set_viewport_size({"width": 1280, "height": 800})
    cell.get_by_role("link", name="12", exact=True).click()
    expect(page.locator(".toolbar .total")).to_contain_text("12 of 40 images")

    page.locator("#filters").get_by_role("link", name="Shares, compared").click()
    page.locator("input[name=against]").fill("everything")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".notice")).to_contain_text("first set lies within the second")
    expect(page.locator("main")).to_contain_text("Left out, since a filter asks for it")
    expect(card(page, "Where they differ most")).to_contain_text("error:")
    sound(page)
    page.set_viewport_size({"width": 390, "height": 800})
    sound(page)
    page.locator(".chips a", has_text="camera").click()
    expect(page.locator(".chips")).not_to_contain_text("camera")
    expect(page.locator("input[name=against]")).to_have_value("everything")
    assert visitor.complaints == []
