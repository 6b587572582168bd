"""What a model of slides said of their tiles: the tables of `kd_mil.predict`, read back."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow import parquet
from scipy.spatial import KDTree

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.core.run_files import read_json
from kd_mil.slides.slide_list import SlideEntry


def marks_table(predictions: Path, slide_id: str) -> Path:
    """The file with what was predicted for the tiles of a slide; UserError where there is none."""
    found = [predictions / "instances" / f"{slide_id}.{kind}" for kind in ("parquet", "csv")]
    for path in found:
        if path.is_file():
            return path
    raise UserError(f"no predictions for slide {slide_id!r} in {found[0].parent}: run kd_mil.predict on it")


def refuse_other_order(predictions: Path, class_names: Sequence[str]) -> None:
    """Refuse classes that the model of the predictions has in another order: what it calls positive is negative here.

    Args:
        predictions: folder that `kd_mil.predict` wrote; one without `model.json`, or with other names, says nothing.
        class_names: of the slides here, the one without tumour first.

    Raises:
        UserError: the same names in another order.
    """
    path = predictions / "model.json"
    theirs = list(map(str, read_json(path).get("class_names") or ())) if path.is_file() else []
    if sorted(theirs) == sorted(class_names) and theirs != list(class_names):
        raise UserError(
            f"data.classes={list(class_names)}: the model that wrote {predictions} has the order {theirs}, its "
            f"probabilities are those of {theirs[1]!r}: give both the same order"
        )


def refuse_outlined(tiles: Iterable[tuple[SlideEntry, str]], part: str) -> None:
    """Refuse tiles in training or validation that have labels by outlines: those of slides that the list tests on.

    Args:
        tiles: slide and name of each tile of the part, where the slide is not known to be without tumour.
        part: `train` or `val`.

    Raises:
        UserError: a split file has put one there.
    """
    for slide, name in tiles:
        if slide.split == "test" and slide.annotation_path is not None:
            raise UserError(
                f"data.split_file puts {name!r} into {part}, whose label is that of outlines: its slide tests by the "
                "list; change the `split` of the slide instead"
            )


def marks_of(predictions: Path, slide_id: str, role: str) -> tuple[np.ndarray, np.ndarray]:
    """As `read_marks`, of a slide in a folder that `kd_mil.predict` wrote."""
    return read_marks(marks_table(predictions, slide_id), role)


def read_marks(path: Path, role: str) -> tuple[np.ndarray, np.ndarray]:
    """Centres (M, 2) in level-0 pixels and probabilities (M,) of the tiles in a table of `kd_mil.predict`.

    Raises:
        UserError: a damaged table, one without positions, or without the role.
    """
    centres, columns = read_columns(path, [f"{role}_prob"])
    return centres, columns[:, 0]


def table_columns(path: Path) -> list[str]:
    """Names of the columns of a table of `kd_mil.predict`; UserError where it is damaged."""
    with readable(path):
        if path.suffix == ".parquet":
            return list(parquet.read_schema(path).names)
        return list(pd.read_csv(path, nrows=0).columns)


def read_columns(path: Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Centres (M, 2) in level-0 pixels, and the named columns (M, K), of such a table; errors as `read_marks`."""
    with readable(path):
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    missing = [name for name in ("x", "y", "tile_size_level0", *names) if name not in table]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}: data.role names a network that predicted the tiles")
    if (table.tile_size_level0 <= 0).any():
        raise UserError(f"{path} does not say where its tiles lie: predict slides, or features with positions")
    corners = table[["x", "y"]].to_numpy(float)
    return corners + table[["tile_size_level0"]].to_numpy(float) / 2, table[list(names)].to_numpy(float)


def highest_within(corners: np.ndarray, side: int, centres: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Highest of the probabilities (M,) at points (M, 2) that lie in each square (N,); 0 where none does.

    Args:
        corners: (N, 2) top left corners of the squares, which hold their borders.
        side: of the squares.
        centres: (M, 2) the points.
        probs: (M,) in [0, 1].
    """
    inside = points_within(corners, side, centres)
    return np.array([probs[points].max(initial=0.0) for points in inside])


def points_within(corners: np.ndarray, side: int, centres: np.ndarray) -> list[list[int]]:
    """Positions of the points (M, 2) that lie in each square (N,), borders included."""
    if len(centres) == 0:
        return [[] for _ in corners]
    return list(KDTree(centres).query_ball_point(corners + side / 2, side / 2, p=np.inf))
