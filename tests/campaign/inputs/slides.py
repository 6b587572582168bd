"""Slides for a list: what their rows and checks have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaign.cases import Case, Check
from tests.campaign.checks import done
from tests.campaign.inputs.pictures import TILES

BATCH = "slides"
NO_RESOLUTION = ("resolution|um per pixel|magnification", "mpp")


def slide(
    name: str, kind: str, file: str, write: Callable[[Path], Any], check: Check | None = None, **row: Any
) -> Case:
    """One row of the list; without `check`, all tiles must be there."""

    def put(folder: Path) -> dict[str, Any]:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        return {"slide_path": file, "slide_id": name, **row}

    return Case(name, kind, put, check or done(name, tiles=TILES), BATCH)
