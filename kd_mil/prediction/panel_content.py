"""What the panels of slides and of segmented images hold."""

from collections.abc import Iterator, Mapping

import numpy as np

from kd_mil.evaluation.tables import shown_as
from kd_mil.models.outputs import Prediction
from kd_mil.prediction.decisions import Model, slide_verdict
from kd_mil.prediction.outputs import OutputSettings, Predictions, class_columns
from kd_mil.prediction.panels import Layer, Panel, TilePicture
from kd_mil.prediction.tile_geometry import TileGeometry
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.overlays.score_grid import MOST_CELLS, cell_step, score_grid
from kd_mil.slides.overlays.slide_picture import SlidePicture

SHOWN = 8
"""Tiles of the highest, and of the lowest scores of a role."""
TILE_SIDE = 112
"""Pixels of their pictures."""


def slide_panel(
    slide_id: str,
    predictions: Predictions,
    geometry: TileGeometry,
    picture: SlidePicture,
    slide: Slide | None,
    model: Model,
    settings: OutputSettings,
) -> Panel:
    """The panel of a predicted slide: a layer for each role, and for each class of roles that tell more than two apart.

    Pieces that differ in size are shown as a map, without pictures of single ones.

    Raises:
        UserError: a tile that is shown cannot be read.
    """
    side = None if isinstance(geometry.tile_size_level0, np.ndarray) else geometry.tile_size_level0
    corner = geometry.coords.min(axis=0)
    cell = cell_step(geometry.coords, side or int(np.min(geometry.tile_size_level0)))
    layers, pictures = [], dict[int, np.ndarray]()
    for role, prediction in predictions.items():
        chosen = settings.region_threshold
        threshold = model.instance_thresholds[role] if chosen is None else chosen
        for name, (label, scores) in _named_scores(role, prediction, model).items():
            grid = score_grid(geometry.coords - corner, scores, geometry.tile_size_level0, cell)
            order = np.argsort(-scores, kind="stable")[: len(scores) if name == role and side is not None else 0]
            rows = order[:SHOWN], order[SHOWN:][::-1][:SHOWN]
            highest, lowest = (tuple(_tiles(some, scores, geometry, slide, pictures)) for some in rows)
            shown = _float32(scores if side is not None else scores[:0])
            layers.append(Layer(name, label, threshold, _float32(grid), shown, highest, lowest))
    return Panel(
        name=slide_id,
        verdict=slide_verdict({role: one.bag_probs[0].tolist() for role, one in predictions.items()}, model),
        thumbnail=picture.thumbnail,
        downsample=picture.downsample,
        origin=picture.origin,
        mpp=geometry.mpp,
        cell=cell,
        cell_origin=(int(corner[0]), int(corner[1])),
        tile_size_level0=side,
        layers=tuple(layers),
        shown=model.decides or list(predictions)[-1],
    )


def map_panel(
    name: str,
    verdict: str,
    probs: np.ndarray,
    threshold: float,
    picture: SlidePicture,
    pixel: float,
    origin: tuple[int, int],
    mpp: float | None,
) -> Panel:
    """The panel of a segmented image or slide: its probability map.

    Args:
        name: of the image or slide.
        verdict: what stands below it.
        probs: (h, w) in [0, 1], NaN where there was nothing to see; averaged over blocks where that is more than
            `MOST_CELLS`.
        threshold: from which on a pixel is positive.
        picture: of the image or slide.
        pixel: side of a pixel of the map in those of the image or of level 0.
        origin: (x, y) of the map's corner.
        mpp: µm per pixel of the image or of level 0.
    """
    times = max(1, int(np.ceil(np.sqrt(probs.size / MOST_CELLS))))
    layer = Layer("map", "probability of a pixel", threshold, _float32(block_means(probs, times)))
    places = picture.thumbnail, picture.downsample, picture.origin
    return Panel(name, verdict, *places, mpp, pixel * times, origin, None, (layer,))


def block_means(values: np.ndarray, times: int) -> np.ndarray:
    """Means of blocks of `times` by `times` values (h, w), of those that are known; the last ones may be smaller."""
    height, width = values.shape
    padded = np.pad(
        values.astype(np.float64), ((0, -height % times), (0, -width % times)), constant_values=float("nan")
    )
    blocks = padded.reshape(padded.shape[0] // times, times, padded.shape[1] // times, times)
    known = np.isfinite(blocks).sum(axis=(1, 3))
    total = np.nansum(blocks, axis=(1, 3))
    return np.divide(total, known, out=np.full(known.shape, np.nan), where=known > 0)


def _named_scores(role: str, prediction: Prediction, model: Model) -> Mapping[str, tuple[str, np.ndarray]]:
    """Label and scores (N,) of each layer of a role."""
    shown = shown_as(prediction.reading)
    positive = f" of {model.class_names[1]}" if len(model.class_names) == 2 else ""
    label = f"{role}: tile probability{positive}" if shown == "probability" else f"{role}: {shown}"
    layers = {role: (label, prediction.instance_probs.numpy())}
    for name, scores in class_columns(role, prediction, model.class_names).items():
        layers[name] = (f"{role}: {name.removeprefix(f'{role}_prob_')}", scores)
    return layers


def _tiles(
    rows: np.ndarray, scores: np.ndarray, geometry: TileGeometry, slide: Slide | None, pictures: dict[int, np.ndarray]
) -> Iterator[TilePicture]:
    """The tiles of some rows; `pictures` has those that were read before."""
    assert len(rows) == 0 or isinstance(geometry.tile_size_level0, int)  # others have no pictures
    size = int(np.min(geometry.tile_size_level0))
    side = min(TILE_SIDE, size)
    for row in map(int, rows):
        x, y = map(int, geometry.coords[row])
        if slide is not None and row not in pictures:
            pictures[row] = slide.read(x, y, (side, side), slide.mpp * size / side)
        yield TilePicture(x, y, float(scores[row]), pictures.get(row))


def _float32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)
