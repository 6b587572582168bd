"""The viewer as a person uses it: a real server, a real browser."""

import http.client
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import quote, urlsplit

import numpy as np
import pytest

from kd_mil.slides.annotations.annotations import read_annotation, tumour_fraction
from kd_mil.slides.formats.reader import open_slide
from tests.support.browser import IDLE, chromium, open_page, pixels
from tests.support.predicted import MPP, predicted_folder, predicted_slide, slide_file
from tests.support.viewing import LONGEST_FRAME, running_viewer

HOSTILE = "<img src=x onerror=alert(1)> $$x$$"
PLACE = """([x, y]) => {
  const plot = Bokeh.documents[0].get_model_by_name("plot"), view = Bokeh.index.find_one(plot);
  const frame = view.frame.bbox, box = view.el.getBoundingClientRect(), across = plot.x_range, up = plot.y_range;
  return [box.left + frame.left + (x - across.start) / (across.end - across.start) * frame.width,
          box.top + frame.top + (up.end - y) / (up.end - up.start) * frame.height];
}"""

DRAWN = "Bokeh.documents[0].get_model_by_name('drawn').data"
ENDS = "() => { const {start, end} = Bokeh.documents[0].get_model_by_name('plot').x_range; return [start, end] }"
SAME = """() => ["start", "end"].every(end => {
  const [left, right] = ["plot", "plot beside"].map(name => Bokeh.documents[0].get_model_by_name(name).x_range[end]);
  return left === right;
})"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Predictions of a slide that is there, of one with a hostile name, and of one of 100,000 tiles."""
    folder = tmp_path_factory.mktemp("viewer")
    predicted_folder(folder / "out", ["case_1", HOSTILE])
    predicted_slide(folder / "out", HOSTILE, positive=HOSTILE)
    predicted_folder(folder / "large", ["large"], 400, 250)
    slide_file(folder / "slides" / "case_1.png")
    return folder


@pytest.fixture(scope="module")
def serve(folder):
    """Starts a viewer of a folder of predictions; its address."""
    pytest.importorskip("bokeh", reason="no Bokeh: pip install 'kd-mil[view]'")
    with ExitStack() as running:
        yield lambda name, *more: running.enter_context(running_viewer(folder, f"predictions={name}", *more)).url


@pytest.fixture(scope="module")
def url(serve):
    return serve("out", "slides=slides")


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


def place(page, x, y):
    """Where a level-0 position is on the screen."""
    return page.evaluate(PLACE, [x * MPP, -y * MPP])


def request(url, path=None, **headers):
    """Status of a request, made by hand."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    connection.putrequest("GET", path or parts.path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse().status


def test_strangers_are_refused(url, folder):
    """Other names of this machine, other pages, other paths, and whoever does not know the token."""
    port, token = urlsplit(url).port, urlsplit(url).path.split("/")[1]
    assert request(url) == 200
    assert request(url, "/view") == 403
    assert request(url, f"/{token[:-1]}/view") == 403
    assert request(url, Host="evil.example") == 403
    assert request(url, Host=f"evil.example:{port}") == 403
    assert request(url, Origin="http://evil.example") == 403
    for path in (
        "../slides.csv",
        "%2e%2e/slides.csv",
        "static/../../../slides.csv",
        "static/..%2f..%2fserver.py",
    ):
        assert request(url, f"/{token}/{path}") in (400, 403, 404)
    for path in ("tile/0/../0/0", "tile/case_1/0/0/0", "tile/-1/0/0/0"):
        assert request(url, f"/{token}/{path}") == 404
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection("127.0.0.2", port, timeout=5).connect()


def test_ten_people_at_once(url):
    """Each gets a document of their own, and tiles while the others' are made."""
    token, tile = urlsplit(url).path.split("/")[1], "tile/0/3/1/1"
    with ThreadPoolExecutor(20) as people:
        answers = list(people.map(lambda path: request(url, f"/{token}/{path}"), ["view", tile] * 10))
    assert answers == [200] * 20


def test_a_link_zooms_to_a_tile_and_the_pointer_tells_its_scores(browser, url):
    """The surest tile of the slide lies at (1280, 1024), 256 pixels wide."""
    with open_page(browser, f"{url}?slide=case_1&x=1408&y=1152&width=1000") as page:
        page.wait_for_function(IDLE)
        page.mouse.move(*place(page, 1400, 1150))
        page.wait_for_selector(".bk-tooltip-row-value")
        assert page.locator(".bk-tooltip-row-value").all_inner_texts()[:3] == ["0.600", "0.980", "0.380"]
        page.mouse.wheel(0, 400)
        page.wait_for_function("() => !location.search.includes('width=1000')")
        where = page.url
    with open_page(browser, where) as page:
        page.wait_for_function(IDLE)
        x0, x1 = page.evaluate(ENDS)
        assert (x1 - x0) / MPP == pytest.approx(float(re.search(r"width=(\d+)", where)[1]), rel=0.02)


def test_sliders_change_what_is_coloured(browser, url):
    with open_page(browser, f"{url}?slide=case_1") as page:
        page.wait_for_function(IDLE)
        coloured = []
        for threshold, opacity in ((0, 1), (0.5, 1), (0.9, 1), (1, 1), (0, 0)):
            page.evaluate(
                "([t, o]) => { const find = name => Bokeh.documents[0].get_model_by_name(name);"
                "find('threshold student').value = t; find('opacity student').value = o; }",
                [threshold, opacity],
            )
            page.wait_for_function(IDLE)
            time.sleep(0.3)
            seen = pixels(page, ".bk-Figure").astype(int)
            coloured.append((seen[..., 1] - seen[..., 2] > 25).mean())
        assert coloured[0] >= coloured[1] > coloured[2] > 0
        assert coloured[3] == coloured[4] == 0


def test_what_is_drawn_is_saved_at_a_click_and_read_as_tumour(browser, url, folder):
    drawn = folder / "out" / "drawn" / "case_1.geojson"
    with open_page(browser, f"{url}?slide=case_1&x=1408&y=1152&width=1500") as page:
        page.wait_for_function(IDLE)
        page.locator(".bk-tool-icon-freehand-draw").click()
        corners = [(1280, 1024), (1536, 1024), (1536, 1280), (1280, 1280)]
        page.mouse.move(*place(page, *corners[0]))
        page.mouse.down()
        for corner in corners[1:]:
            page.mouse.move(*place(page, *corner), steps=4)
        page.mouse.up()
        page.wait_for_function("() => Bokeh.documents[0].get_model_by_name('drawn').data.xs.length === 1")
        assert not drawn.exists()
        page.get_by_role("button", name="save outlines").click()
        page.wait_for_selector("text=saved:")
    slide = open_slide(folder / "slides" / "case_1.png", MPP)
    coords = np.array([[1280, 1024], [1536, 1024], [1408, 1024]])
    found = tumour_fraction(read_annotation(drawn, slide), coords, 256)
    assert found == pytest.approx(np.array([1, 0, 0.5]), abs=0.03)


def test_an_outline_is_clicked_corner_by_corner_corrected_and_deleted(browser, url, folder):
    """The button is held for the first and the last corner; a corner is dragged; what is gone is not saved."""
    with open_page(browser, f"{url}?slide={quote(HOSTILE)}&x=1408&y=1152&width=1500") as page:
        page.wait_for_function(IDLE)

        def hold(*corner):
            page.mouse.move(*place(page, *corner), steps=3)
            page.mouse.down()
            page.wait_for_timeout(500)
            page.mouse.up()

        def click(*corner):
            page.wait_for_timeout(400)  # two clicks in a row would be a double click
            page.mouse.move(*place(page, *corner), steps=3)
            page.mouse.click(*place(page, *corner))

        def corners():
            xs, ys = page.evaluate(f"() => {{ const {{xs, ys}} = {DRAWN}; return [[...xs[0]], [...ys[0]]] }}")
            return sorted((round(x / MPP), round(-y / MPP)) for x, y in zip(xs, ys, strict=True))

        page.locator(".bk-tool-icon-poly-draw").click()
        hold(1280, 1024)
        click(1536, 1024)
        click(1536, 1280)
        hold(1280, 1280)
        square = [(1280, 1024), (1280, 1280), (1536, 1024), (1536, 1280)]
        assert np.abs(np.subtract(corners(), square)).max() <= 3

        page.locator(".bk-tool-icon-poly-edit").click()
        hold(1400, 1100)
        page.mouse.move(*place(page, 1536, 1280), steps=3)
        page.mouse.down()
        page.mouse.move(*place(page, 1700, 1400), steps=5)
        page.mouse.up()
        assert np.abs(np.subtract(corners()[-1], (1700, 1400))).max() <= 3

        page.locator(".bk-tool-icon-poly-draw").click()
        click(1400, 1100)
        page.keyboard.press("Backspace")
        page.wait_for_function(f"() => {DRAWN}.xs.length === 0")
        page.get_by_role("button", name="save outlines").click()
        page.wait_for_selector("text=saved:")
        assert json.loads((folder / "out" / "drawn" / f"{HOSTILE}.geojson").read_text())["features"] == []

        page.get_by_role("button", name="start from the prediction").click()
        page.wait_for_function(f"() => {DRAWN}.xs.length === 1")
        page.locator(".bk-tool-icon-poly-edit").click()
        hold(1400, 1100)
        page.get_by_role("button", name="clear").click()
        page.wait_for_function(f"() => {DRAWN}.xs.length === 0")


def test_a_prediction_is_the_start_of_an_outline(browser, url):
    with open_page(browser, f"{url}?slide=case_1") as page:
        page.wait_for_function(IDLE)
        page.get_by_role("button", name="start from the prediction").click()
        page.wait_for_selector("text=nothing is saved yet")
        assert page.evaluate("() => Bokeh.documents[0].get_model_by_name('drawn').data.xs.length") == 1


def test_hostile_names_stay_text(browser, url):
    with open_page(browser, f"{url}?slide=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%20%24%24x%24%24") as page:
        page.wait_for_function(IDLE)
        assert page.locator(f"text={HOSTILE}: student").count() == 1
        page.mouse.move(*page.evaluate(PLACE, [1000, -1000]))
        page.wait_for_selector(".bk-tooltip-row-label")
        assert f"tile probability of {HOSTILE}:" in page.locator(".bk-tooltip-row-label").nth(1).inner_text()
        assert page.locator("img").count() == 0
    with open_page(browser, f"{url}?slide=%3Cscript%3Ealert(1)%3C/script%3E") as page:
        page.wait_for_function(IDLE)
        assert page.locator("text=there is no slide").count() == 1


def test_two_runs_side_by_side_look_at_the_same_place(browser, serve):
    with open_page(browser, serve("out", "slides=slides", "compare=out", "segments=out")) as page:
        page.wait_for_function(IDLE)
        assert page.locator(".bk-Figure").count() == 2
        page.mouse.move(*page.evaluate(PLACE, [500, -500]))
        page.mouse.wheel(0, 400)
        page.wait_for_function("() => location.search.includes('width=')")
        assert page.evaluate(SAME)


def seconds_to_open(browser, url):
    begun = time.monotonic()
    with open_page(browser, url) as page:
        page.wait_for_function(IDLE, polling=20)
        return time.monotonic() - begun


@pytest.mark.slow
def test_a_slide_of_100_000_tiles_opens_as_fast_as_a_small_one(browser, serve, url):
    """In time to one of 320 tiles, each the better of two: a share of what a machine takes for the page itself."""
    large = serve("large")
    small_seconds, large_seconds = (
        min(seconds_to_open(browser, address) for _ in range(2)) for address in (f"{url}?slide=case_1", large)
    )
    assert large_seconds < 2 * small_seconds + 0.5, (large_seconds, small_seconds)
    with open_page(browser, large) as page:
        page.wait_for_function(IDLE)
        longest = page.evaluate(LONGEST_FRAME)
        assert longest < 1000, f"a frame took {longest} ms while panning"
