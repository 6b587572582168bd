"""Masks and outlines of images and slides: `python -m kd_mil.segment ckpt=RUN images=DIR|slides=DIR out=DIR`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console
from torch import Tensor
from tqdm import tqdm

from kd_mil.atomic import atomic_path
from kd_mil.checkpoints import read_checkpoint
from kd_mil.cli import command
from kd_mil.data.image_files import decode_image
from kd_mil.data.patch_masks import image_paths
from kd_mil.data.tile_cache import identity
from kd_mil.errors import UserError
from kd_mil.evaluation.segmentation import gaussian_blur, image_probs
from kd_mil.methods.segmentation_distiller import SegmentationDistiller
from kd_mil.predict import checkpoint_path, usable_device
from kd_mil.prediction.card import file_digest, refuse_foreign_targets, without_downloads
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.windows import Canvas, grouped, image_map
from kd_mil.slides.geojson import outline_annotations, write_geojson
from kd_mil.slides.mask_polygons import mask_polygons
from kd_mil.slides.reader import open_slide
from kd_mil.slides.slide_list import SlideEntry, list_slides
from kd_mil.slides.tiling import TilingSettings, tile_grid
from kd_mil.slides.tissue import TissueSettings, find_tissue

NOT_OF_OUTPUTS = ("ckpt", "images", "slides", "out", "overwrite", "batch_size", "device", "max_gib", "trust")
"""Settings that change nothing in what is written."""


@dataclass(frozen=True)
class Network:
    """A trained role, ready to be asked."""

    predict: Callable[[Tensor], Tensor]
    """Stored images (B, C, H, W) to maps (B, H, W)."""
    window: tuple[int, int]
    """(height, width) of the images it was trained on."""
    blur: float
    threshold: float
    source: dict[str, Any]
    """How its training images were made."""
    run: str


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


@command("segment")
def main(config: DictConfig) -> None:
    """Segment everything asked for; one row each in `segments.csv`."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check(plain)
    network = load_network(plain)
    out, rows = Path(plain["out"]), []
    settings = {key: value for key, value in plain.items() if key not in NOT_OF_OUTPUTS}
    ledger = Ledger(out / ".finished", [file_digest(checkpoint_path(plain["ckpt"])), settings], plain["overwrite"])
    entries = list_slides(plain["slides"]) if plain["images"] is None else list_images(Path(plain["images"]))
    for entry in tqdm(entries, desc="segment", disable=None):
        slide = isinstance(entry, SlideEntry)
        name, facts = (entry.slide_id, [*identity(entry.path), entry.mpp]) if slide else (entry.stem, identity(entry))
        row = ledger.finished(name, facts)
        if row is None:
            one = slide_map(network, entry, plain) if slide else file_map(network, entry, plain)
            row, files = write_outputs(one, network, out, plain)
            ledger.record(name, facts, row, files)
        rows.append(row)
    with atomic_path(out / "segments.csv") as path:
        pd.DataFrame(rows).to_csv(path, index=False)
    Console().print(f"{len(rows)} masks and outlines in {out}", soft_wrap=True, highlight=False)


def check(plain: dict[str, Any]) -> None:
    """Refuse settings that could only fail later.

    Raises:
        UserError: both or neither of images and slides, or a number out of range.
    """
    if (plain["images"] is None) == (plain["slides"] is None):
        raise UserError("give images=FOLDER or slides=FOLDER, one of them")
    if not 0 <= plain["overlap"] < 1:
        raise UserError(f"overlap={plain['overlap']}: a share of the window, it must lie in [0, 1)")
    for name in ("reduce", "batch_size", "min_pixels"):
        if plain[name] < 1:
            raise UserError(f"{name}={plain[name]}: must be at least 1")
    scale = plain["scale"]
    if scale != "fit" and not (isinstance(scale, int | float) and scale > 0):
        raise UserError(f"scale={scale}: give fit, or pixels of the network per pixel of the image")
    if plain["threshold"] is not None and not 0 < plain["threshold"] < 1:
        raise UserError(f"threshold={plain['threshold']}: must lie between 0 and 1")


def load_network(plain: dict[str, Any]) -> Network:
    """The role asked for, of the checkpoint.

    Raises:
        UserError: no such checkpoint, one of another method, one that names what may not be run, or no such role.
    """
    path = checkpoint_path(plain["ckpt"])
    checkpoint = read_checkpoint(path)
    card = checkpoint["model_card"]
    if not plain["trust"]:
        refuse_foreign_targets(card["method"], path)
    try:
        method = instantiate(without_downloads(card["method"]), _convert_="all")(**card["model_inputs"])
        method.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {path} does not fit this version of kd_mil: {reason}") from error
    if not isinstance(method, SegmentationDistiller):
        raise UserError(f"checkpoint {path} holds {type(method).__name__}, which gives no masks: use kd_mil.predict")
    role = plain["role"] or method.roles[-1]
    if role not in method.roles:
        raise UserError(f"role={role}: the checkpoint has {', '.join(method.roles)}")
    device = usable_device(plain["device"])
    method.eval().to(device)
    blur, threshold = method.reading.blur, method.reading.threshold
    if plain["tuned"]:
        blur, threshold = method.operating_points[method.roles.index(role)].tolist()

    def predict(images: Tensor) -> Tensor:
        maps = method.predict_maps(images.to(device))
        if role not in maps:
            raise UserError(f"role={role}: it had not begun to learn when {path} was written")
        return maps[role]

    height, width = card["model_inputs"]["instance_shape"][1:]
    threshold = plain["threshold"] or threshold
    source = dict(card.get("instance_source") or {})
    return Network(predict, (height, width), blur, threshold, source, str(card.get("experiment", "")))


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


if __name__ == "__main__":
    main()
