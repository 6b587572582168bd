"""The page over predictions as a person uses it, in a real browser, from the file system."""

import re

import pytest

from kd_mil.reporting.prediction_page import write_prediction_page
from kd_mil.slides.overlays.score_grid import shades
from tests.support.browser import chromium, open_page, pixels
from tests.support.predicted import predicted_folder

HOSTILE = "<img src=x onerror=alert(1)> & 'a' %20#?"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    out = predicted_folder(tmp_path_factory.mktemp("out"), ["case_2", HOSTILE, "case_10"])
    return write_prediction_page(out, "slides.csv", "slide_id", HOSTILE, shades()).as_uri()


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser, address):
    with open_page(browser, address) as opened:
        yield opened


def names(page):
    return page.locator("#slides tbody tr:not([hidden]) td:first-child").all_inner_texts()


def open_panel(page, name):
    page.get_by_role("button", name=name, exact=True).click()
    page.wait_for_function("name => document.getElementById('panel').dataset.ready === name", arg=name)


def findings(page):
    """Share of the map in the colours of high scores: more green than blue, as no tissue is."""
    seen = pixels(page, "#map").astype(int)
    return (seen[..., 1] - seen[..., 2] > 10).mean()


def test_rows_are_sorted_and_filtered(page):
    assert names(page) == ["case_2", HOSTILE, "case_10", "damaged"]
    page.locator("th").first.click()
    assert [name for name in names(page) if name.startswith("case")] == ["case_2", "case_10"]
    page.locator("th").first.press("Enter")
    assert [name for name in names(page) if name.startswith("case")] == ["case_10", "case_2"]
    page.fill("#find", "case_")
    assert sorted(names(page)) == ["case_10", "case_2"]
    page.fill("#find", "")
    page.check("#doubtful")
    assert names(page) == ["damaged"]
    page.uncheck("#doubtful")
    page.check("#wrong")
    assert names(page) == [HOSTILE]
    assert page.inner_text("#count") == "1 shown"


def test_the_threshold_changes_what_is_coloured(page):
    """The finding is yellow at any threshold below 0.98; around it colour goes as the slider rises."""
    open_panel(page, "case_2")
    page.uncheck("#marks")
    coloured = {}
    for threshold in ("0", "0.5", "0.9", "1"):
        page.fill("#threshold", threshold)
        coloured[threshold] = findings(page)
    assert coloured["0"] >= coloured["0.5"] > coloured["0.9"] > coloured["1"] == 0
    page.fill("#threshold", "0.5")
    area, tiles = re.search(r": ([\d.]+) mm² of 5\.24 mm² .*, (\d+) of 320 tiles", page.inner_text("#area")).groups()
    assert float(area) == pytest.approx(int(tiles) * (256 * 0.0005) ** 2, abs=0.006)
    page.fill("#opacity", "0")
    assert findings(page) == 0


def test_a_panel_shows_the_tiles_of_each_role_and_their_place(page):
    open_panel(page, "case_2")
    captions = page.locator(".row.highest figcaption").all_inner_texts()
    assert len(captions) == page.locator(".row.lowest figcaption").count() == 8
    assert captions[0] == "1: 0.980 at (1280, 1024)"
    before = pixels(page, "#map")
    page.locator(".row.lowest button").first.focus()
    assert (pixels(page, "#map") != before).any()
    page.select_option("#layer", "teacher")
    assert page.locator(".row.highest figcaption").first.inner_text().startswith("1: 0.600 at")


def test_it_is_used_without_a_mouse(page):
    page.locator("button.open").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("name => document.getElementById('panel').dataset.ready === name", arg=HOSTILE)
    assert page.inner_text("#name") == HOSTILE
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.getElementById('panel').dataset.ready === 'case_10'")
    page.keyboard.press("Escape")
    assert page.is_hidden("#panel")
    assert page.evaluate("document.activeElement.textContent") == "case_10"


def test_a_link_opens_its_slide_and_the_panel_prints(browser, address):
    with open_page(browser, f"{address}#case_10") as page:
        page.wait_for_function("() => document.getElementById('panel').dataset.ready === 'case_10'")
        page.emulate_media(media="print")
        assert page.is_visible("#map")
        assert page.is_hidden("#slides")
        assert page.is_hidden("#threshold")


def test_a_thousand_slides(browser, tmp_path):
    """Only the panel that is looked at is read: the table alone is in the page."""
    out = predicted_folder(tmp_path, ["case_0"])
    line = (out / "slides.csv").read_text().splitlines()
    rows = [line[1].replace("case_0", f"case_{number}") for number in range(1000)]
    (out / "slides.csv").write_text("\n".join([line[0], *rows]))
    for number in range(1, 1000):
        (out / "panels" / f"case_{number}.js").write_text("")
    path = write_prediction_page(out, "slides.csv", "slide_id", "many", shades())
    assert path.stat().st_size < 2_000_000
    with open_page(browser, path.as_uri()) as page:
        assert page.inner_text("#count") == "1000 shown"
        asked = page.evaluate("performance.getEntriesByType('resource').length")
        open_panel(page, "case_0")
        assert page.evaluate("performance.getEntriesByType('resource').length") <= asked + 1 + 1 + 16
