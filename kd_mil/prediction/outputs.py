"""The files of a predicted slide: a row of `slides.csv`, a table of its instances, heat maps, an overlay for QuPath."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import one_of, share
from kd_mil.models.outputs import Prediction
from kd_mil.prediction.tile_geometry import TileGeometry
from kd_mil.slides.overlays.geojson import (
    OTHER,
    TUMOUR,
    PathClass,
    SlideTiles,
    merged_regions,
    tile_detections,
    write_geojson,
)
from kd_mil.slides.overlays.heatmap import draw_heatmap
from kd_mil.slides.overlays.slide_picture import SlidePicture

Predictions = Mapping[str, Prediction]
"""By role, on the CPU; each of one bag."""


@dataclass(frozen=True)
class OutputSettings:
    """How predictions are written.

    Raises:
        UserError: an unknown kind of table, or a threshold outside [0, 1].
    """

    table: Literal["parquet", "csv"] = "parquet"
    region_threshold: float = 0.5
    """Tiles whose probability reaches it are of the positive class; connected ones become one annotation."""
    region_class: str | None = None
    """QuPath's name of that class; None = the name of the checkpoint's positive class."""
    in_bounds: bool = True
    """Count positions in GeoJSON from the scanned area, as QuPath does and `read_annotation` expects."""
    compress: bool = False
    """Write `.geojson.gz`."""

    def __post_init__(self) -> None:
        one_of("table", self.table, ("parquet", "csv"))
        share("region_threshold", self.region_threshold)


@dataclass(frozen=True)
class Model:
    """What the outputs say of the model."""

    class_names: Sequence[str]
    thresholds: Mapping[str, float]
    """Probability of the second class, by role, from which on a bag is decided positive; chosen on validation bags."""
    name: str
    checkpoint: str


def slide_row(slide_id: str, predictions: Predictions, tiles: int, model: Model) -> dict[str, Any]:
    """`slide_id, tiles`, and for each role `{role}_prob` (or one a class), `{role}_threshold`, `{role}_decision`."""
    row: dict[str, Any] = {"slide_id": slide_id, "tiles": tiles}
    for role, prediction in predictions.items():
        probs = prediction.bag_probs[0].tolist()
        if len(probs) == 2:
            threshold = model.thresholds[role]
            row |= {f"{role}_prob": probs[1], f"{role}_threshold": threshold}
        else:
            row |= {f"{role}_prob_{name}": prob for name, prob in zip(model.class_names, probs, strict=True)}
        row[f"{role}_decision"] = model.class_names[decided(probs, model.thresholds[role])]
    return row


def decided(probs: Sequence[float], threshold: float) -> int:
    """Index of the class: by the threshold on the second of two, else the most probable."""
    return int(probs[1] >= threshold) if len(probs) == 2 else int(np.argmax(probs))


def verdict(role: str, probs: Sequence[float], model: Model) -> str:
    """`student: tumour (tumour 0.73, threshold 0.41)`; of more than two classes, that of the one decided."""
    decision, threshold = model.class_names[decided(probs, model.thresholds[role])], model.thresholds[role]
    if len(probs) == 2:
        return f"{role}: {decision} ({model.class_names[1]} {probs[1]:.2f}, threshold {threshold:.2f})"
    return f"{role}: {decision} ({max(probs):.2f})"


def instance_table(
    predictions: Predictions, geometry: TileGeometry | None, count: int, class_names: Sequence[str]
) -> pd.DataFrame:
    """One line for each of the N = `count` instances, in their order in the slide.

    `instance_id, x, y, tile_size_level0` (-1 where unknown), `attention`, and for each role `{role}_prob`,
    `{role}_score` and, where it tells more than two classes apart, `{role}_prob_{class}`.
    """
    coords = np.full((count, 2), -1) if geometry is None else geometry.coords
    size = -1 if geometry is None else geometry.tile_size_level0
    table: dict[str, Any] = {
        "instance_id": np.arange(count),
        "x": coords[:, 0],
        "y": coords[:, 1],
        "tile_size_level0": np.full(count, size),
    }
    for role, prediction in predictions.items():
        if prediction.attention is not None:
            table.setdefault("attention", prediction.attention.numpy())
        table[f"{role}_prob"] = prediction.instance_probs.numpy()
        table[f"{role}_score"] = prediction.instance_scores.numpy()
        table |= class_columns(role, prediction, class_names)
    return pd.DataFrame(table)


def class_columns(role: str, prediction: Prediction, class_names: Sequence[str]) -> dict[str, np.ndarray]:
    """`{role}_prob_{class}` (N,) for each class, from roles that tell more than two apart; else nothing."""
    if prediction.class_probs is None:
        return {}
    columns = prediction.class_probs.numpy().T
    return {f"{role}_prob_{name}": column for name, column in zip(class_names, columns, strict=True)}


def write_table(folder: Path, slide_id: str, table: pd.DataFrame, kind: str) -> Path:
    """Write `SLIDE.parquet` or `SLIDE.csv`."""
    path = folder / f"{slide_id}.{kind}"
    with atomic_path(path) as temporary:
        if kind == "csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    return path


def write_heatmaps(
    folder: Path, slide_id: str, predictions: Predictions, geometry: TileGeometry, picture: SlidePicture, model: Model
) -> list[Path]:
    """Write `SLIDE_{role}.png` for each role, all on the scale 0 to 1, so that slides can be compared."""
    paths, positive = [], f" of {model.class_names[1]}" if len(model.class_names) == 2 else ""
    for role, prediction in predictions.items():
        probs = prediction.bag_probs[0].tolist()
        path = folder / f"{slide_id}_{role}.png"
        draw_heatmap(
            picture.thumbnail,
            geometry.coords,
            prediction.instance_probs.numpy(),
            geometry.tile_size_level0,
            picture.downsample,
            path,
            f"{slide_id}\n{verdict(role, probs, model)}",
            label=f"tile probability{positive}" if prediction.attention is None else "attention, scaled",
            limits=(0.0, 1.0),
            origin=picture.origin,
            mpp=geometry.mpp,
        )
        paths.append(path)
    return paths


def write_overlay(
    folder: Path,
    slide_id: str,
    predictions: Predictions,
    geometry: TileGeometry,
    model: Model,
    settings: OutputSettings,
) -> Path:
    """Write `SLIDE.geojson`: regions as annotations, then every tile as a detection, classified by the last role."""
    measurements = {}
    for role, prediction in predictions.items():
        measurements[f"{role}_prob"] = prediction.instance_probs.numpy()
        if prediction.attention is not None:
            measurements[f"{role}_attention"] = prediction.attention.numpy()
        measurements |= class_columns(role, prediction, model.class_names)
    tiles = SlideTiles(
        slide_id=slide_id,
        run=model.checkpoint,
        coords=geometry.coords,
        tile_size_level0=geometry.tile_size_level0,
        measurements=measurements,
        metadata={"model": model.name, "run": model.checkpoint, "threshold": settings.region_threshold},
        bounds_offset=viewer_origin(slide_id, geometry.bounds_offset, settings.in_bounds),
    )
    classify_by, threshold = f"{list(predictions)[-1]}_prob", settings.region_threshold
    above = path_class(model.class_names, settings.region_class)
    path = folder / f"{slide_id}.geojson{'.gz' if settings.compress else ''}"
    write_geojson(
        path,
        chain(
            merged_regions(tiles, classify_by, threshold, above),
            tile_detections(tiles, classify_by, threshold, above, OTHER),
        ),
    )
    return path


def viewer_origin(slide_id: str, bounds_offset: tuple[int, int] | None, in_bounds: bool) -> tuple[int, int]:
    """Level-0 (x, y) from which positions in GeoJSON count, with a warning where QuPath may show them elsewhere."""
    if not in_bounds and bounds_offset not in (None, (0, 0)):
        warnings.warn(
            f"slide {slide_id!r}: QuPath shows its scanned area alone, in_bounds=true counts from there", stacklevel=3
        )
    return bounds_offset if in_bounds and bounds_offset else (0, 0)


def path_class(class_names: Sequence[str], name: str | None) -> PathClass:
    """QuPath's class of tiles above the threshold: `name`, else the positive class, a tumour by QuPath's own name.

    With more than two classes a tile is important, not of a class.
    """
    if name is None:
        name = class_names[1] if len(class_names) == 2 else "Important"
    return TUMOUR if name.casefold() in ("tumor", "tumour") else PathClass(name, TUMOUR.color)


def write_slides_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Write `slides.csv`, `note` last; what is unknown is an empty cell."""
    table = pd.DataFrame(list(rows))
    table["tiles"] = table["tiles"].astype("Int64")
    table = table[[*(name for name in table.columns if name != "note"), "note"]]
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    return table
