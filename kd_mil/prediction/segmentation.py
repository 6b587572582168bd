"""Probability maps of images and slides, from a network that sees one window at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kd_mil.core.checks import above, check_id, share, whole
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_identity
from kd_mil.data.patches.image_files import decode_image, image_paths
from kd_mil.evaluation.segmentation import blur_within, gaussian_blur
from kd_mil.prediction.loading import Network
from kd_mil.prediction.windows import Canvas, grouped, image_map
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.overlays.slide_picture import SlidePicture, picture_of
from kd_mil.slides.slide_list import SlideEntry, list_slides, require_files
from kd_mil.slides.tiles.tiling import TilingSettings, tile_grid
from kd_mil.slides.tiles.tissue import TissueSettings, find_tissue

PICTURE_SIDE = 1024
"""Pixels of the longer side of what maps are shown over."""


@dataclass(frozen=True)
class WindowSettings:
    """How images and slides are cut into windows.

    Raises:
        UserError: a number out of range.
    """

    scale: float | Literal["fit"] = "fit"
    """Images: pixels of the network per pixel of the image; `fit` shrinks an image to one window."""
    mpp: float | None = None
    """Slides: µm per pixel at which the network sees them; None = as in training, where known."""
    overlap: float = 0.5
    """Share of a window that neighbours share, in [0, 1)."""
    reduce: int = 4
    """Slides: the map is this many times coarser than what the network sees."""
    tissue: TissueSettings = field(default_factory=TissueSettings)
    batch_size: int = 8
    """Windows at once."""
    max_gib: float = 8.0
    """Largest map of a slide."""

    def __post_init__(self) -> None:
        share("overlap", self.overlap, one=False)
        if isinstance(self.scale, str) and self.scale != "fit":
            raise UserError(f"scale={self.scale}: give fit, or pixels of the network per pixel of the image")
        for name in ("scale", "mpp", "max_gib"):
            if getattr(self, name) not in (None, "fit"):
                above(name, getattr(self, name))
        whole("reduce", self.reduce, 1)
        whole("batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class ProbabilityMap:
    """The map of one image or slide."""

    name: str
    probs: np.ndarray
    """(h, w) float32 in [0, 1]."""
    pixel: float
    """Side of its pixels in those of the image, or in level-0 pixels."""
    size: tuple[int, int]
    """(width, height) of what it covers in those pixels; its own last pixels may reach beyond."""
    origin: tuple[int, int] = (0, 0)
    """(x, y) of its corner in those pixels."""
    seen: np.ndarray | None = None
    """(h, w) bool, where there was something to see; None = everywhere."""
    picture: SlidePicture | None = None
    """What it is shown over."""
    mpp: float | None = None
    """µm per pixel of the image or per level-0 pixel, where known."""


class SegmentationInput(Protocol):
    """One image or slide to segment."""

    @property
    def name(self) -> str:
        """Names the files."""
        ...

    def facts(self) -> list[Any]:
        """Plain values that change when the input does; UserError where its name cannot name files."""
        ...

    def segment(self, network: Network, settings: WindowSettings) -> ProbabilityMap:
        """Its map; UserError where it cannot be read."""
        ...


@dataclass(frozen=True)
class ImageToSegment:
    """An image file; its map has the image's own size."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    def facts(self) -> list[Any]:
        check_id(self.name, str(self.path.parent))
        return list(file_identity(self.path))

    def segment(self, network: Network, settings: WindowSettings) -> ProbabilityMap:
        image = torch.from_numpy(decode_image(str(self.path), str(self.path)).copy())
        height, width = image.shape[-2:]
        size = network.window
        if settings.scale != "fit":
            size = (max(1, round(height * settings.scale)), max(1, round(width * settings.scale)))
        overlap = int(settings.overlap * min(network.window))
        probs = image_map(network.predict, resized(image, size), network.window, overlap, settings.batch_size)
        smooth = gaussian_blur(torch.from_numpy(probs)[None], network.blur)[None]
        whole = F.interpolate(smooth, (height, width), mode="bilinear", align_corners=False)[0, 0]
        shown = image_picture(image.permute(1, 2, 0).numpy())
        return ProbabilityMap(self.name, whole.clamp(0, 1).numpy(), 1.0, (width, height), picture=shown)


@dataclass(frozen=True)
class SlideToSegment:
    """A slide; the map of its tissue is `reduce` times coarser than what the network sees."""

    entry: SlideEntry

    @property
    def name(self) -> str:
        return self.entry.slide_id

    def facts(self) -> list[Any]:
        require_files(self.entry)
        return [*file_identity(self.entry.path), self.entry.mpp]

    def segment(self, network: Network, settings: WindowSettings) -> ProbabilityMap:
        mpp, reduce, side = slide_resolution(network, settings), settings.reduce, min(network.window)
        slide = open_slide(self.entry.path, self.entry.mpp, mpp_setting=None)
        tiling = TilingSettings(tile_size=side, mpp=mpp, overlap=int(settings.overlap * side), min_tissue=0)
        tiles = tile_grid(slide, find_tissue(slide, settings.tissue), tiling)
        x0, y0, width, height = slide.bounds
        pixel = tiles.tile_size_level0 / side * reduce
        canvas = Canvas(int(np.ceil(height / pixel)), int(np.ceil(width / pixel)), settings.max_gib)
        for group in grouped(tiles.coords.tolist(), settings.batch_size):
            windows = [slide.read(x, y, (side, side), tiles.mpp).transpose(2, 0, 1).copy() for x, y in group]
            for (x, y), probs in zip(group, coarse_maps(network, np.stack(windows), reduce), strict=True):
                canvas.add(round((y - y0) / pixel), round((x - x0) / pixel), probs)
        picture = picture_of(slide, None, PICTURE_SIDE)
        slide.close()
        seen = canvas.weight > 0
        maps = torch.from_numpy(canvas.result())[None]
        probs = blur_within(maps, torch.from_numpy(seen)[None], network.blur / reduce)[0].clamp(0, 1).numpy()
        where = (width, height), (x0, y0), seen
        return ProbabilityMap(self.name, probs, pixel, *where, picture, slide.mpp)


def slide_resolution(network: Network, settings: WindowSettings) -> float:
    """µm per pixel at which the network sees slides.

    Raises:
        UserError: neither the settings nor the checkpoint say, or a window that does not divide by `reduce`.
    """
    mpp = settings.mpp or network.source.get("mpp")
    if mpp is None:
        raise UserError("the checkpoint does not say at which resolution it sees slides: give mpp=UM_PER_PIXEL")
    if min(network.window) % settings.reduce:
        raise UserError(f"reduce={settings.reduce} does not divide the window of {min(network.window)} pixels")
    return float(mpp)


@torch.inference_mode()
def coarse_maps(network: Network, windows: np.ndarray, reduce: int) -> np.ndarray:
    """Maps (B, H / reduce, W / reduce) float32 of windows (B, C, H, W) uint8, pixels averaged."""
    maps = network.predict(torch.from_numpy(windows)).float()
    return F.avg_pool2d(maps[:, None], reduce)[:, 0].cpu().numpy()


def image_picture(pixels: np.ndarray) -> SlidePicture:
    """What an image (h, w, 1 or 3) uint8 is shown as, its longer side at most `PICTURE_SIDE`."""
    image = Image.fromarray(pixels.squeeze() if pixels.shape[-1] == 1 else pixels).convert("RGB")
    width = image.width
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return SlidePicture(np.asarray(image), width / image.width, (0, 0), None)


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (C, H, W) uint8 brought to (height, width) as the training images were."""
    if tuple(image.shape[-2:]) == size:
        return image
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(pixels).copy()).permute(2, 0, 1)


def segmentation_inputs(images: str | None, slides: str | None) -> Sequence[SegmentationInput]:
    """The images of a folder, or the slides of a folder, pattern or list.

    Raises:
        UserError: both or neither given, nothing there, or two images of the same name.
    """
    if images is None and slides is not None:
        return [SlideToSegment(entry) for entry in list_slides(slides)]
    if images is None or slides is not None:
        raise UserError("give images=FOLDER or slides=FOLDER, one of them")
    found = image_paths(Path(images))
    if not found:
        raise UserError(f"no images in {images}")
    names = [path.stem for path in found]
    if len(set(names)) < len(names):
        raise UserError(f"{images} holds two images of the same name: {max(names, key=names.count)}")
    return [ImageToSegment(path) for path in found]
