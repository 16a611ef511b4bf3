"""Pixels and frozen slices in a real browser: measure, see what is nearly the same, tag a whole group, freeze, open again."""

from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from tests.children import PATIENCE
from tests.page.conftest import Visitor
from vlm.demo import DEMO_PHOTOS

expect.set_options(timeout=1000 * PATIENCE)


def photographs(folder: Path) -> Path:
    """Write three small photographs in a split, and a smaller copy of the first in another."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
    for place, path in enumerate(sorted(Path(DEMO_PHOTOS).glob("*.jpg"))[:3]):
        with Image.open(path) as image:
            image.draft("RGB", (320, 240))
            small = image.convert("RGB").resize((240, 180))
        small.save(folder / "train" / f"{place}.png")
        if place == 0:
            small.resize((160, 120)).save(folder / "val" / "copy.png")
    return folder


def accessible(page: Page) -> None:
    page.wait_for_load_state()
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"], "rules": {"color-contrast": {"enabled": False}}})
    assert found.violations_count == 0, found.generate_report()


def test_measured_grouped_tagged_and_frozen(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    dataset = visitor.imported(photographs(folder))
    page.goto(dataset)
    page.locator("#stats").get_by_role("link", name="Pixels").click()
    page.get_by_role("button", name="Measure 4").click()
    expect(page.locator("#near")).to_contain_text("2 images are in 1 group")
    expect(page.locator("#near")).to_contain_text("2 leak between splits")
    accessible(page)

    page.locator("#near .groups a").click()
    expect(page.locator(".cell")).to_have_count(2)
    page.locator(".cell .picture").first.click()
    expect(page.locator("#group")).to_contain_text("1 like this")
    expect(page.locator("#pixels")).to_contain_text("brightness")
    page.locator("#group-tag").fill("dark")
    page.locator("#group").get_by_role("button", name="Add").click()
    expect(page.locator("#messages .success").last).to_contain_text("2 images")
    expect(page.locator("#sample-side .tag-list")).to_contain_text("dark")

    page.goto(f"{dataset}?all=dark")
    page.locator("#facet-saved").evaluate("one => one.open = true")
    page.locator("#slice-name").fill("night shift")
    page.locator("#facet-saved").get_by_role("button", name="Freeze").click()
    expect(page.get_by_role("row", name="night shift")).to_contain_text("dark")
    accessible(page)
    page.get_by_role("link", name="night shift", exact=True).click()
    expect(page.locator(".cell")).to_have_count(2)
    page.locator("label.all input").check()
    page.locator("#bulk-tag").fill("dark")
    page.locator("#selection").get_by_role("button", name="Remove").click()
    expect(page.locator("#messages .success").last).to_contain_text("removed from 2 images")
    expect(page.locator(".cell")).to_have_count(2)
    page.goto(f"{dataset}?order=measure:luminance")
    expect(page.locator("#order > summary")).to_have_text("Darkest first")
    expect(page.locator(".cell")).to_have_count(4)


def test_one_image_of_a_group_is_asked_and_the_other_says_whose_answers_it_has(visitor: Visitor, folder: Path) -> None:
    page = visitor.log_in()
    dataset = visitor.imported(photographs(folder))
    page.goto(dataset)
    page.locator("#auto-tag > summary").click()
    page.get_by_label("Ask one image per group").check()
    expect(page.locator("#auto-tag output")).to_contain_text("Measure the data set first")

    page.locator("#stats").get_by_role("link", name="Pixels").click()
    page.get_by_role("button", name="Measure 4").click()
    expect(page.locator("#near")).to_contain_text("2 images are in 1 group")
    page.goto(dataset)
    page.locator("#auto-tag > summary").click()
    page.get_by_label("Ask one image per group").check()
    expect(page.locator("#auto-tag output")).to_contain_text("4 images, 1 of them takes another’s answers")
    page.locator("#auto-tag-form").get_by_role("button", name="Start").click()
    expect(page.locator("#live")).to_contain_text("Completed")
    expect(page.locator("#live-processed")).to_have_text("4")
    page.locator("#live").get_by_role("link", name="1 shared").click()
    expect(page.locator(".cell")).to_have_count(1)
    page.locator(".cell .picture").click()
    expect(page.locator("#sample-side")).to_contain_text("Shared from")
    accessible(page)
    here = page.url
    page.locator("#sample-side").get_by_role("link", name=".png").first.click()
    expect(page).not_to_have_url(here)
    expect(page.locator("#sample-side")).to_contain_text("1 like this")
    expect(page.locator("#sample-side")).not_to_contain_text("Shared from")
