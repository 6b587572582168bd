"""The files of a segmented image or slide: a row of `segments.csv`, mask, map, and outlines for QuPath."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
from PIL import Image

from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import at_least, whole
from kd_mil.evaluation.segmentation import image_probs
from kd_mil.prediction.loading import Network
from kd_mil.prediction.outputs import viewer_origin
from kd_mil.prediction.panel_content import map_panel
from kd_mil.prediction.panels import Panel, panel_path, write_panel
from kd_mil.prediction.segmentation import ProbabilityMap
from kd_mil.slides.annotations.outlines import areas_of
from kd_mil.slides.overlays.geojson import outline_annotations, write_geojson
from kd_mil.slides.overlays.mask_polygons import mask_polygons


@dataclass(frozen=True)
class OutlineSettings:
    """How masks become polygons.

    Raises:
        UserError: a number out of range.
    """

    min_pixels: int = 16
    """Smaller regions of the mask get no polygon, smaller holes are filled there."""
    tolerance: float = 1.0
    """Pixels of the mask by which outlines may be simplified."""
    in_bounds: bool = True
    """Count positions in GeoJSON from the scanned area, as QuPath does and `read_annotation` expects."""

    def __post_init__(self) -> None:
        whole("min_pixels", self.min_pixels, 1)
        at_least("tolerance", self.tolerance, 0)


def write_segmentation(
    found: ProbabilityMap, network: Network, out: Path, settings: OutlineSettings
) -> tuple[dict[str, Any], list[Path]]:
    """Write mask, map and outlines; the row of `segments.csv`, and the files."""
    seen = np.ones(found.probs.shape, dtype=bool) if found.seen is None else found.seen
    mask = (found.probs >= network.threshold) & seen
    files = [out / "masks" / f"{found.name}.png", out / "maps" / f"{found.name}.png"]
    write_png(files[0], mask * 255)
    write_png(files[1], np.rint(found.probs * 255))
    polygons = outlines(found, mask, settings)
    origin = viewer_origin(found.name, found.origin, settings.in_bounds)
    shown = (shapely.transform(polygon, lambda points: points - origin) for polygon in polygons)
    metadata = {"threshold": network.threshold, "run": network.run, "checkpoint": network.checkpoint}
    areas: Iterator[dict[str, float]] = ({"area px^2": polygon.area} for polygon in polygons)
    files.append(out / "geojson" / f"{found.name}.geojson")
    run = f"{network.checkpoint}/{network.role}"
    write_geojson(files[-1], outline_annotations(found.name, run, shown, areas, metadata=metadata))
    if found.picture is not None:
        files.append(write_panel(panel_path(out, found.name), panel_of(found, mask, seen, network)))
    values = torch.from_numpy(found.probs[seen])[None, None]
    row = {
        "name": found.name,
        "prob": float(image_probs(values)) if values.numel() else None,
        "positive_share": float(mask[seen].mean()) if seen.any() else None,
        "regions": len(polygons),
        "pixel": found.pixel,
        "x": found.origin[0],
        "y": found.origin[1],
        "threshold": network.threshold,
    }
    return row, files


def panel_of(found: ProbabilityMap, mask: np.ndarray, seen: np.ndarray, network: Network) -> Panel:
    """What the page shows of it."""
    assert found.picture is not None
    share = f"{mask[seen].mean():.1%} of what was seen" if seen.any() else "nothing was seen"
    verdict = f"{network.role}: {share} is positive at the threshold {network.threshold:.2f}"
    probs = np.where(seen, found.probs, np.nan)
    where = found.picture, found.pixel, found.origin, found.mpp
    return map_panel(found.name, verdict, probs, network.threshold, *where)


def outlines(found: ProbabilityMap, mask: np.ndarray, settings: OutlineSettings) -> list[shapely.Polygon]:
    """Outlines of a mask in pixels of the image or of level 0, none beyond what the map covers."""
    left, top = found.origin
    covered = shapely.box(left, top, left + found.size[0], top + found.size[1])
    polygons = [
        shapely.intersection(shapely.transform(polygon, lambda points: points * found.pixel + found.origin), covered)
        for polygon in mask_polygons(mask, settings.min_pixels, settings.tolerance)
    ]
    return list(areas_of(np.array(polygons, dtype=object)))


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write values (h, w) in [0, 255] as a grey image."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels.astype(np.uint8)).save(temporary, format="PNG")
