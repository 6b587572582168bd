"""Odd annotations of one drawn slide: its tiles are known, so the tumour in them is too.

Unless said otherwise a file outlines the square from (256, 256) to (512, 512): 16 of the 64 tiles.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaign.cases import Case, Check
from tests.campaign.checks import done
from tests.campaign.inputs.pictures import TILES, picture, tissue

BATCH = "annotations"
SQUARE = [[256, 256], [512, 256], [512, 512], [256, 512], [256, 256]]
HOLE = [[320, 320], [448, 320], [448, 448], [320, 448], [320, 320]]
RIGHT, HOLED = 16.0, 12.0


def annotation(
    name: str,
    kind: str,
    content: str | bytes | Callable[[Path], Any],
    check: Check | None = None,
    suffix: str = ".geojson",
    tumour: float = RIGHT,
    slide: Callable[[Path], Any] | None = None,
    slide_suffix: str = ".png",
    mpp: float | None = 1.0,
) -> Case:
    """An annotation of a slide of its own, named in the list."""

    def put(folder: Path) -> dict[str, Any]:
        file = folder / f"{name}{suffix}"
        if callable(content):
            content(file)
        else:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        image = folder / f"{name}_slide{slide_suffix}"
        (slide or (lambda path: picture(path, tissue())))(image)
        return {"slide_path": image.name, "slide_id": name, "mpp": mpp or "", "annotation_path": file.name}

    return Case(name, kind, put, check or done(name, tiles=TILES, tumour=tumour), BATCH)
