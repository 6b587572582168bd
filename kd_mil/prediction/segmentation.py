"""Masks of images and slides from a network, and the files they are written to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.data.patches.image_files import decode_image, image_paths
from kd_mil.evaluation.segmentation import gaussian_blur, image_probs
from kd_mil.prediction.loading import Network
from kd_mil.prediction.windows import Canvas, grouped, image_map
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.overlays.geojson import outline_annotations, write_geojson
from kd_mil.slides.overlays.mask_polygons import mask_polygons
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.tiling import TilingSettings, tile_grid
from kd_mil.slides.tiles.tissue import TissueSettings, find_tissue


@dataclass(frozen=True)
class MapOf:
    """The map of one image or slide."""

    name: str
    probs: np.ndarray
    """(h, w) float32 in [0, 1]."""
    pixel: float
    """Side of its pixels in those of the image, or in level-0 pixels."""
    origin: tuple[int, int] = (0, 0)
    """(x, y) of its corner in those pixels."""
    seen: np.ndarray | None = None
    """(h, w) bool, where there was something to see; None = everywhere."""


def list_images(folder: Path) -> list[Path]:
    """The images of a folder.

    Raises:
        UserError: none there, or two of the same name.
    """
    found = image_paths(folder)
    if not found:
        raise UserError(f"no images in {folder}")
    names = [path.stem for path in found]
    if len(set(names)) < len(names):
        raise UserError(f"{folder} holds two images of the same name: {max(names, key=names.count)}")
    return found


def file_map(network: Network, path: Path, plain: dict[str, Any]) -> MapOf:
    """The map of an image file, of the image's own size."""
    image = torch.from_numpy(decode_image(str(path), str(path)).copy())
    size = (image.shape[-2], image.shape[-1])
    scale = plain["scale"]
    scaled = network.window if scale == "fit" else (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    shrunk = resized(image, scaled)
    overlap = int(plain["overlap"] * min(network.window))
    probs = torch.from_numpy(image_map(network.predict, shrunk, network.window, overlap, plain["batch_size"]))
    smooth = gaussian_blur(probs[None], network.blur)[None]
    whole = F.interpolate(smooth, size, mode="bilinear", align_corners=False)[0, 0]
    return MapOf(path.stem, whole.clamp(0, 1).numpy(), 1.0)


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (C, H, W) uint8 brought to (height, width) as the training images were."""
    if tuple(image.shape[-2:]) == size:
        return image
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(pixels).copy()).permute(2, 0, 1)


def slide_map(network: Network, entry: SlideEntry, plain: dict[str, Any]) -> MapOf:
    """The map of a slide's tissue, `reduce` times coarser than the network sees it.

    Raises:
        UserError: no resolution, a window that does not divide by `reduce`, or a map too large.
    """
    mpp, reduce, side = plain["mpp"] or network.source.get("mpp"), plain["reduce"], min(network.window)
    if mpp is None:
        raise UserError("the checkpoint does not say at which resolution it sees slides: give mpp=UM_PER_PIXEL")
    if side % reduce:
        raise UserError(f"reduce={reduce} does not divide the window of {side} pixels")
    slide = open_slide(entry.path, entry.mpp)
    tissue = find_tissue(
        slide, TissueSettings(**{key: value for key, value in plain["tissue"].items() if key[0] != "_"})
    )
    overlap = int(plain["overlap"] * side)
    tiles = tile_grid(slide, tissue, TilingSettings(tile_size=side, mpp=mpp, overlap=overlap, min_tissue=0))
    x0, y0, width, height = slide.bounds
    pixel = tiles.tile_size_level0 / side * reduce
    canvas = Canvas(int(np.ceil(height / pixel)), int(np.ceil(width / pixel)), plain["max_gib"])
    for group in grouped(tiles.coords.tolist(), plain["batch_size"]):
        windows = [slide.read(x, y, (side, side), tiles.mpp).transpose(2, 0, 1).copy() for x, y in group]
        with torch.inference_mode():
            maps = F.avg_pool2d(network.predict(torch.from_numpy(np.stack(windows))).float()[:, None], reduce)[:, 0]
        for (x, y), own in zip(group, maps.cpu().numpy(), strict=True):
            canvas.add(round((y - y0) / pixel), round((x - x0) / pixel), own)
    slide.close()
    probs = gaussian_blur(torch.from_numpy(canvas.result())[None], network.blur / reduce)[0].numpy()
    return MapOf(entry.slide_id, probs, pixel, (x0, y0), canvas.weight > 0)


def write_outputs(one: MapOf, network: Network, out: Path, plain: dict[str, Any]) -> tuple[dict[str, Any], list[Path]]:
    """Write mask, map and outlines; the row of `segments.csv`, and the files."""
    files = [out / "masks" / f"{one.name}.png", out / "maps" / f"{one.name}.png"]
    seen = np.ones(one.probs.shape, dtype=bool) if one.seen is None else one.seen
    mask = (one.probs >= network.threshold) & seen
    for file, pixels in zip(files, (mask * 255, np.rint(one.probs * 255)), strict=True):
        with atomic_path(file) as path:
            Image.fromarray(pixels.astype(np.uint8)).save(path, format="PNG")
    polygons = [
        shapely.transform(polygon, lambda points: points * one.pixel + one.origin)
        for polygon in mask_polygons(mask, plain["min_pixels"], plain["tolerance"])
    ]
    metadata = {"threshold": network.threshold, "run": network.run}
    areas: Iterator[dict[str, float]] = ({"area px^2": polygon.area} for polygon in polygons)
    features = outline_annotations(one.name, network.run, polygons, areas, metadata=metadata)
    files.append(out / "geojson" / f"{one.name}.geojson")
    write_geojson(files[-1], features)
    values = torch.from_numpy(one.probs[seen])[None, None]
    row = {
        "name": one.name,
        "prob": float(image_probs(values)) if values.numel() else None,
        "positive_share": float(mask[seen].mean()) if seen.any() else None,
        "regions": len(polygons),
        "pixel": one.pixel,
        "threshold": network.threshold,
    }
    return row, files
