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
from kd_mil.core.checks import at_least, harmless, one_of, share
from kd_mil.evaluation.tables import shown_as
from kd_mil.models.outputs import Prediction
from kd_mil.prediction.decisions import Model, decision_columns, slide_verdict
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
    readings: bool = False
    """Add a column for each way of reading a bag classifier for its instances, as in a run's `instances.parquet`."""
    region_threshold: float | None = 0.5
    """Tiles whose probability reaches it are of the positive class; connected ones become one annotation. None = what
    validation chose for instances."""
    region_class: str | None = None
    """QuPath's name of that class; None = the name of the checkpoint's positive class."""
    in_bounds: bool = True
    """Count positions in GeoJSON from the scanned area, as QuPath does and `read_annotation` expects."""
    compress: bool = False
    """Write `.geojson.gz`."""
    smoothing: float = 0.0
    """Of heat maps: standard deviation, in edges of a tile, of a Gaussian over the scores; 0 = none."""

    def __post_init__(self) -> None:
        one_of("table", self.table, ("parquet", "csv"))
        if self.region_threshold is not None:
            share("region_threshold", self.region_threshold)
        at_least("smoothing", self.smoothing, 0)


def slide_row(slide_id: str, predictions: Predictions, tiles: int, model: Model) -> dict[str, Any]:
    """`slide_id, tiles`, for each role `{role}_prob` (or one a class) and `{role}_threshold`, and a decision.

    `{role}_decision` is there for the role that decides, whose name it bears; `{role}_calibrated` (or one a class)
    where the model has temperatures; `{role}_spread` where an ensemble's members differ.
    """
    row: dict[str, Any] = {"slide_id": slide_id, "tiles": tiles}
    for role, prediction in predictions.items():
        row |= decision_columns(role, prediction.bag_probs[0].tolist(), model)
    spread = getattr(predictions, "spread", {})
    return row | {f"{role}_spread": value for role, value in spread.items()}


def instance_table(
    predictions: Predictions, geometry: TileGeometry | None, count: int, class_names: Sequence[str]
) -> pd.DataFrame:
    """One line for each of the N = `count` instances, in their order in the slide.

    `instance_id, x, y, tile_size_level0` (-1 where unknown; pieces of several sizes have a `width` and a `height`),
    `attention`, and for each role `{role}_prob`, `{role}_score`, where it tells more than two classes apart
    `{role}_prob_{class}`, and `{role}_{reading}` of the readings that predictions come with.
    """
    coords = np.full((count, 2), -1) if geometry is None else geometry.coords
    size = -1 if geometry is None else geometry.tile_size_level0
    table: dict[str, Any] = {"instance_id": np.arange(count), "x": coords[:, 0], "y": coords[:, 1]}
    if isinstance(size, np.ndarray):
        table |= {"tile_size_level0": np.full(count, -1), "width": size[:, 0], "height": size[:, 1]}
    else:
        table["tile_size_level0"] = np.full(count, size)
    for role, prediction in predictions.items():
        if prediction.attention is not None:
            table.setdefault("attention", prediction.attention.numpy())
        table[f"{role}_prob"] = prediction.instance_probs.numpy()
        table[f"{role}_score"] = prediction.instance_scores.numpy()
        table |= class_columns(role, prediction, class_names)
        readings = {} if prediction.readings is None else prediction.readings()
        table |= {f"{role}_{name}": scores.numpy() for name, scores in readings.items()}
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
    folder: Path,
    slide_id: str,
    predictions: Predictions,
    geometry: TileGeometry,
    picture: SlidePicture,
    model: Model,
    smoothing: float = 0.0,
) -> list[Path]:
    """Write `SLIDE_{role}.png` for each role, all on the scale 0 to 1, so that slides can be compared."""
    bags = {role: prediction.bag_probs[0].tolist() for role, prediction in predictions.items()}
    paths, positive = [], f" of {model.class_names[1]}" if len(model.class_names) == 2 else ""
    for role, prediction in predictions.items():
        shown = shown_as(prediction.reading)
        path = folder / f"{slide_id}_{role}.png"
        draw_heatmap(
            picture.thumbnail,
            geometry.coords,
            prediction.instance_probs.numpy(),
            geometry.tile_size_level0,
            picture.downsample,
            path,
            f"{slide_id}\n{slide_verdict(bags, model)}",
            label=f"{role}: {f'tile probability{positive}' if shown == 'probability' else shown}",
            limits=(0.0, 1.0),
            origin=picture.origin,
            mpp=geometry.mpp,
            smoothing=smoothing,
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
    last = list(predictions)[-1]
    chosen = settings.region_threshold
    threshold = model.instance_thresholds[last] if chosen is None else chosen
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
        metadata={"model": model.name, "run": model.checkpoint, "threshold": threshold},
        bounds_offset=viewer_origin(slide_id, geometry.bounds_offset, settings.in_bounds),
    )
    classify_by = f"{last}_prob"
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


def write_slides_table(path: Path, rows: Sequence[Mapping[str, Any]], unit: str = "slide") -> pd.DataFrame:
    """Write `slides.csv`, `note` last; what is unknown is an empty cell. Of other units the id is named so."""
    table = pd.DataFrame(list(rows)).rename(columns={"slide_id": f"{unit}_id"})
    table["tiles"] = table["tiles"].astype("Int64")
    table = table[[*(name for name in table.columns if name != "note"), "note"]]
    table["note"] = table["note"].map(harmless)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    return table
