"""A real browser without a window: Chromium, driven by Playwright; tests without one are skipped with the reason."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Of installed programs; `KD_MIL_BROWSER` may name another, and Playwright may have its own."""
IDLE = "window.Bokeh && Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle"


def browser_program(playwright: Any) -> str | None:
    """Path of a Chromium on this machine; None where there is none."""
    named = os.environ.get("KD_MIL_BROWSER")
    found = [named, *(shutil.which(name) for name in NAMES), playwright.chromium.executable_path]
    return next((path for path in found if path and os.path.exists(path)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser; skips the test where Playwright or Chromium is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        program = browser_program(playwright)
        if program is None:
            pytest.skip(f"no browser: install chromium (one of {', '.join(NAMES)}), or set KD_MIL_BROWSER")
        # a container's root may not make the sandbox that pages of strangers need; these are our own
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Any, url: str, width: int = 1400, height: int = 950) -> Iterator[Any]:
    """A page that has loaded; it fails on an error of its scripts, on a dialog, and on a request to elsewhere."""
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    ours = (url.split("/view", maxsplit=1)[0], "data:", "blob:", "file:", "http://127.0.0.1:")
    page.on("request", lambda request: request.url.startswith(ours) or faults.append(f"asked {request.url}"))
    page.goto(url)
    try:
        yield page
        assert not faults, faults
    finally:
        context.close()


def pixels(page: Any, selector: str) -> Any:
    """What an element looks like: (h, w, 3) uint8."""
    import io

    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert("RGB"))
