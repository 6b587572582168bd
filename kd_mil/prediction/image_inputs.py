"""What a classifier of images is asked about: slides, of which it sees the pieces of tissue, or image files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kd_mil.core.checks import check_id
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_identity
from kd_mil.core.tables import read_table
from kd_mil.data.pairs.stack import pixels
from kd_mil.data.patches.image_files import image_paths
from kd_mil.data.samplers import IndexedView
from kd_mil.prediction.image_model import ImageModel
from kd_mil.prediction.inputs import TILES_PER_STEP, SlideInstances
from kd_mil.prediction.tile_geometry import TileGeometry
from kd_mil.slides.formats.image_decoding import decode_rgb
from kd_mil.slides.formats.reader import Slide, open_slide
from kd_mil.slides.formats.reducing import downsampled
from kd_mil.slides.overlays.slide_picture import picture_of
from kd_mil.slides.slide_list import SlideEntry, list_slides, require_files
from kd_mil.slides.tiles.pieces import Box, Pieces, Reading, Sections, read_piece


@dataclass(frozen=True)
class SlideOfPieces:
    """A slide whose pieces of tissue are found as in training, and read at the network's resolution."""

    entry: SlideEntry
    pieces: Pieces
    mpp: float
    """µm per pixel of what the network sees."""
    reading: Reading = "pyramid"
    backend: str = "openslide"
    slide_mpp: float | None = None
    """µm per level-0 pixel where the slide states none."""
    slide_mpp_override: float | None = None
    """The same, whatever it states; the `mpp` of a list goes before it."""
    picture_side: int = 1024
    instances_per_step: int | None = None
    num_workers: int = 0

    @property
    def slide_id(self) -> str:
        return self.entry.slide_id

    @property
    def case_id(self) -> str:
        return self.entry.case_id

    @property
    def label(self) -> str | None:
        return self.entry.label

    def facts(self) -> list[Any]:
        require_files(self.entry)
        return [*file_identity(self.entry.path), self._stated(), self.slide_mpp, self.backend, self.reading]

    def open(self) -> SlideInstances:
        slide = self.opened()
        try:
            if slide.mpp > self.mpp * 1.01:
                raise UserError(
                    f"slide {slide.name!r} has {slide.mpp:g} µm per pixel, coarser than the network's {self.mpp:g}: "
                    "take a network of a lower magnification"
                )
            boxes = self.pieces.boxes(slide)
            if not boxes:
                return SlideInstances(0, (), None, None)
            picture = picture_of(slide, None, self.picture_side)
            places = np.array(boxes, dtype=np.int64)
            side = places[:, 2:] if isinstance(self.pieces, Sections) else int(places[0, 2])
            geometry = TileGeometry(places[:, :2], side, slide.bounds[:2], mpp=slide.mpp)
        finally:
            slide.close()
        return SlideInstances(len(boxes), self.batches(boxes), geometry, picture, slide=slide)

    def batches(self, boxes: Sequence[Box]) -> DataLoader:
        """The pixels of the pieces, (M, 3, H, W) uint8 each; sections, whose sizes differ, one by one."""
        at_once = 1 if isinstance(self.pieces, Sections) else self.instances_per_step or TILES_PER_STEP
        return DataLoader(
            IndexedView(PiecesOfSlide(self, boxes)),
            sampler=torch.arange(len(boxes)).split(at_once),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.num_workers > 0 and torch.cuda.is_available(),
        )

    def opened(self) -> Slide:
        """The slide file, open."""
        return open_slide(self.entry.path, self._stated(), self.backend, default_mpp=self.slide_mpp)

    def _stated(self) -> float | None:
        return self.slide_mpp_override if self.entry.mpp is None else self.entry.mpp


class PiecesOfSlide:
    """Reads pieces of one slide by their positions; travels to worker processes.

    Args:
        slide: which.
        boxes: of its pieces.
    """

    def __init__(self, slide: SlideOfPieces, boxes: Sequence[Box]) -> None:
        self.slide, self.boxes = slide, list(boxes)
        self._opened: Slide | None = None

    def __call__(self, positions: Tensor) -> Tensor:
        """Pixels (M, 3, H, W) uint8 of the pieces at `positions` (M,)."""
        if self._opened is None:
            self._opened = self.slide.opened()
        return torch.stack(
            [
                pixels(read_piece(self._opened, self.boxes[at], self.slide.mpp, self.slide.reading))
                for at in positions.tolist()
            ]
        )


@dataclass(frozen=True)
class ImageFile:
    """An image file that is one piece by itself."""

    path: Path
    slide_id: str
    """Names the files written."""
    case_id: str
    downsample: float
    """Side lengths are divided by this much."""
    label: str | None = None

    def facts(self) -> list[Any]:
        return [*file_identity(self.path), self.downsample]

    def open(self) -> SlideInstances:
        image = pixels(downsampled(decode_rgb(self.path), self.downsample))
        return SlideInstances(1, (image[None],), None, None)


def slides_of_pieces(config: Mapping[str, Any], model: ImageModel) -> list[SlideOfPieces]:
    """The slides asked for, for a network that was trained on pieces of slides.

    Raises:
        UserError: it was trained on image files, or by a version that did not note how tissue is found.
    """
    if model.pieces is None or model.mpp is None:
        raise UserError(
            "the checkpoint does not say mpp, tissue and margin of its training slides: it was trained on image files "
            "(give images=FOLDER), or by an earlier version on slides (train it again)"
        )
    return [
        SlideOfPieces(
            entry,
            model.pieces,
            model.mpp,
            reading=config["read_from"] or "pyramid",
            backend=config["backend"] or "openslide",
            slide_mpp=config["mpp"],
            slide_mpp_override=config["mpp_override"] or None,
            picture_side=config["picture_side"],
            instances_per_step=config["instances_per_step"],
            num_workers=config["num_workers"],
        )
        for entry in list_slides(config["slides"])
    ]


def image_files(config: Mapping[str, Any], model: ImageModel) -> list[ImageFile]:
    """The images asked for, reduced as those of the training; `mpp` says where they have another resolution.

    Raises:
        UserError: nothing there, ids that are repeated or unfit, images too coarse for the network, or a resolution
            that is needed, or cannot be used.
    """
    downsample = model.downsample
    if config["mpp"] is not None and model.mpp is None:
        raise UserError("mpp= is of no use: the checkpoint does not say what its training images measured")
    if config["mpp"] is None and model.pieces is not None:
        raise UserError("images= of a checkpoint that was trained on slides: give mpp=UM_PER_PIXEL of the images")
    if config["mpp"] is not None and model.mpp is not None:
        downsample = model.mpp / config["mpp"]
        if downsample < 0.99:
            raise UserError(f"mpp={config['mpp']:g}: coarser than the {model.mpp:g} µm per pixel of the network")
    listed = listed_images(Path(config["images"]))
    return [ImageFile(path, name, case, downsample, label) for path, name, case, label in listed]


def listed_images(source: Path) -> list[tuple[Path, str, str, str | None]]:
    """(path, id, case, label) of the images of a folder, or of a CSV `image_path[,image_id][,case_id][,label]`.

    Raises:
        UserError: nothing there, or an id that is repeated or cannot name a file.
    """
    if source.suffix.lower() == ".csv":
        table = read_table(source, ("image_path",), ("image_id", "case_id", "label", "split"))
        rows = [(source.parent / row["image_path"], row) for row in table.to_dict("records")]
        found = [(path, row.get("image_id") or path.stem, row) for path, row in rows]
    else:
        found = [(path, path.stem, dict[Any, Any]()) for path in image_paths(source)]
    if not found:
        raise UserError(f"images={source}: no images there")
    seen: set[str] = set()
    for _, name, _ in found:
        check_id(name, str(source))
        if name in seen:
            raise UserError(f"images={source}: two images are named {name!r}: give a CSV with a column image_id")
        seen.add(name)
    return [(path, name, row.get("case_id") or name, row.get("label") or None) for path, name, row in found]
