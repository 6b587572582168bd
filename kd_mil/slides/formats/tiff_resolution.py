"""The resolution that the tags of a TIFF state, where they mean the slide and not the printer."""

from pathlib import Path

from kd_mil.slides.formats.image_decoding import opened_image

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
MICROMETRES: dict[str | int | None, float] = {"inch": 25_400.0, "centimeter": 10_000.0, 2: 25_400.0, 3: 10_000.0}
"""Of a unit, as OpenSlide names it and as the tag says it; without a unit, the numbers are a ratio of sides alone."""
PRINTERS_DPI = (72, 75, 96, 100, 150, 200, 300, 400, 600, 1200, 2400)
"""Dots per inch that programs write for want of better."""
COARSEST = 50.0
"""µm per pixel; coarser values are meant for screens."""


def stated_mpp(x: float, y: float, unit: str | int | None) -> tuple[float, float] | None:
    """µm per pixel (across, down) from pixels per unit; None where the tags say nothing of the slide."""
    length = MICROMETRES.get(unit)
    if length is None or min(x, y) <= 0:
        return None
    if any(abs(x * 25_400 / length - dpi) < 0.01 for dpi in PRINTERS_DPI):
        return None
    mpp = (length / x, length / y)
    return mpp if max(mpp) <= COARSEST else None


def tiff_mpp(path: Path) -> tuple[float, float] | None:
    """µm per pixel (across, down) by the tags of a TIFF's first page; None where they say nothing."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    with opened_image(path, str(path)) as image:
        tags = getattr(image, "tag_v2", {})
        x, y = float(tags.get(X_RESOLUTION, 0)), float(tags.get(Y_RESOLUTION, 0))
        return stated_mpp(x, y, tags.get(RESOLUTION_UNIT, 2))
