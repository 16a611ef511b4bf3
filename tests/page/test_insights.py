"""From a table of scores to what explains them and to the images of a slice, in a real browser."""

from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.children import PATIENCE
from tests.page.conftest import Visitor, draw_images

expect.set_options(timeout=1000 * PATIENCE)

COUNT = 32


def test_scores_come_in_and_lead_to_the_images_that_they_are_about(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    dataset = visitor.imported(draw_images(folder, COUNT, size=40))
    lines = [
        f"{place:03d}.png,{place / COUNT},{'yes' if place < 12 else 'no'},{'left' if place < 10 else 'right'}"
        for place in range(COUNT)
    ]
    page.goto(dataset)
    page.get_by_role("link", name="Insights").click()
    expect(page.locator(".blank")).to_contain_text("No score yet")
    page.get_by_role("navigation", name="Insights").get_by_role("link", name="Columns").click()

    def bring(*rows: str) -> None:
        content = "\n".join(["file,error,missed,camera", *rows]).encode()
        page.get_by_label("File").set_input_files({"name": "scores.csv", "mimeType": "text/csv", "buffer": content})
        page.get_by_role("button", name="Bring them in").click()

    bring(*lines, "nowhere.png,1,yes,left")
    expect(page.get_by_role("heading", level=1)).to_have_text("No column came in")
    expect(page.locator(".skips")).to_contain_text("nowhere.png")
    assert all("400" in complaint for complaint in visitor.complaints), visitor.complaints
    visitor.complaints.clear()
    page.get_by_role("link", name="Columns").click()
    bring(*lines)
    expect(page.locator("section.card h2")).to_contain_text(["camera", "error", "missed"])
    sound(page)

    page.get_by_role("navigation", name="Insights").get_by_role("link", name="What explains it").click()
    page.get_by_label("Score").select_option("missed")
    page.get_by_role("button", name="Explain").click()
    row = page.locator("tr", has=page.get_by_role("link", name="camera: left", exact=True)).first
    expect(row).to_contain_text("100.0 %")
    sound(page)
    row.get_by_role("link", name="camera: left", exact=True).click()
    expect(page.locator(".toolbar .total")).to_contain_text("10 of 32 images")

    page.locator("#filters summary", has_text="error").click()
    page.locator("#filters .histogram a").first.click()
    expect(page.locator(".chips")).to_contain_text("error below")
    page.locator("#order > summary").click()
    page.get_by_role("link", name="error, highest first").click()
    expect(page.locator("#order > summary")).to_have_text("error, highest first")
    assert visitor.complaints == []


def sound(page: Page) -> None:
    page.wait_for_load_state()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
