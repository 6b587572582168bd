"""What slide2vec, and soma with it, write beside a feature file: where its tiles lie, and how it was made.

`OUT/tile_embeddings/ID.pt` (or `.npz`) goes with `ID.meta.json` and, by hs2p, `OUT/tiles/ID.coordinates.npz`, in which
row i is the tile of feature i; annotated classes have a folder of their own in both. Sources: slide2vec 7.1
`artifacts.py`, hs2p 6.1 `tiling/io.py`, soma 2.2 `extract/cache`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable

FOLDER, TILES = "tile_embeddings", "tiles"
COORDINATES = ".coordinates.npz"
RECORD = ".meta.json"


def record_path(path: Path) -> Path:
    """The file that says how a feature file was made, whether it is there or not."""
    return path.with_name(f"{path.stem}{RECORD}")


def coordinates_path(path: Path) -> Path | None:
    """The file with the positions of the tiles, whether it is there or not; None outside slide2vec's folders."""
    inside = next((above for above in path.parents[:2] if above.name == FOLDER), None)
    if inside is None:
        return None
    return inside.parent / TILES / path.parent.relative_to(inside) / f"{path.stem}{COORDINATES}"


def read_record(path: Path) -> dict[str, Any]:
    """How a feature file in slide2vec's folder was made, by its names; empty where nothing lies beside it.

    Raises:
        UserError: a damaged record.
    """
    beside = record_path(path)
    if coordinates_path(path) is None or not beside.is_file():
        return {}
    with readable(beside):
        record = json.loads(beside.read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        raise UserError(f"{beside} holds no record of slide2vec: remove it, or write the features again")
    return record


def read_coordinates(path: Path) -> dict[str, np.ndarray]:
    """`coords` (N, 2) int64, top left corners in level-0 pixels; nothing where there is no file of them.

    Raises:
        UserError: a damaged file.
    """
    beside = coordinates_path(path)
    if beside is None or not beside.is_file():
        return {}
    with readable(beside), np.load(beside, allow_pickle=False) as tiles:
        return {"coords": np.stack([tiles["x"], tiles["y"]], axis=1)}
