"""Make the pictures of the page and of the viewer in docs/pictures anew, in a real browser; look at them afterwards.

python docs/screenshots.py predictions=DIR slides=DIR [slide=ID]

DIR are the output folder of `kd_mil.predict`, and the slides it was made from: `make demo` leaves runs/demo/predictions
and .cache/demo/synthetic_slides_*/slides.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
LARGEST = 300_000
"""Bytes of a picture."""


def main(settings: dict[str, str]) -> None:
    """Take both pictures."""
    sys.path.insert(0, str(ROOT))
    from tests.support.browser import chromium

    PICTURES.mkdir(exist_ok=True)
    out = Path(settings["predictions"])
    with chromium() as browser:
        name = settings.get("slide") or next(iter(sorted(path.stem for path in (out / "panels").glob("*.js"))))
        take_page(browser, out, name)
        take_viewer(browser, settings, name)
    for path in PICTURES.glob("*.png"):
        if path.stat().st_size > LARGEST:
            raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {LARGEST}")


def take_page(browser: Any, out: Path, name: str) -> None:
    """The page over the slides, with the panel of one."""
    page = browser.new_page(viewport={"width": 1100, "height": 1180})
    page.goto((out / "index.html").absolute().as_uri())
    page.get_by_role("button", name=name, exact=True).click()
    page.wait_for_function("name => document.getElementById('panel').dataset.ready === name", arg=name)
    page.select_option("#layer", "student")
    page.evaluate("scrollTo(0, 0)")
    save(page, "page")


def take_viewer(browser: Any, settings: dict[str, str], name: str) -> None:
    """The viewer on that slide, its prediction outlined."""
    from tests.support.browser import IDLE
    from tests.support.viewing import running_viewer

    words = [f"{key}={Path(settings[key]).absolute()}" for key in ("predictions", "slides")]
    with tempfile.TemporaryDirectory() as folder, running_viewer(Path(folder), *words) as viewer:
        page = browser.new_page(viewport={"width": 1320, "height": 840})
        page.goto(f"{viewer.url}?slide={name}")
        page.wait_for_function(IDLE)
        page.get_by_role("button", name="teacher", exact=True).click()
        page.get_by_role("button", name="student", exact=True).click()
        page.get_by_text("outline: prediction").click()
        page.mouse.move(560, 645)
        time.sleep(2)
        save(page, "viewer")


def save(page: Any, name: str) -> None:
    """A picture with few colours, for it is kept with the sources."""
    from PIL import Image

    path = PICTURES / f"{name}.png"
    page.screenshot(path=path)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(200, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main(dict(word.split("=", 1) for word in sys.argv[1:]))
