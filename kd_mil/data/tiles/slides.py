"""SlideBags: bags are slides, instances are their tiles."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from kd_mil.core.checks import share
from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.classes import Classes
from kd_mil.data.datamodules import BagDataModule, Loading, Pooling, Unit
from kd_mil.data.split_columns import Folds, choose_parts
from kd_mil.data.tiles.cache import CutSlide, TileCache, require_space
from kd_mil.data.tiles.files import TileFiles, TilesInCache, TilesInSlides
from kd_mil.data.tiles.listing import require_tiles, slide_classes, without
from kd_mil.data.tiles.skipping import readable_cuts
from kd_mil.slides.annotations.annotations import AnnotationSettings, read_annotation
from kd_mil.slides.over_slides import over_slides
from kd_mil.slides.overlays.slide_picture import SlidePicture, picture_of
from kd_mil.slides.slide_content import of_equal_content
from kd_mil.slides.slide_labels import with_labels
from kd_mil.slides.slide_list import SlideEntry, list_slides, require_files
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.outlines import OutlineSettings
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings


class SlideBags(BagDataModule):
    """Slides cut into tiles of tissue, (3, S, S) uint8; annotations become instance labels, for evaluation only.

    A tile is positive from `tumour_threshold` tumour area on. Tiles of slides of the first class are negative, if the
    first class means "no tumour"; tiles of other slides without an annotation are unknown.

    Coordinates are computed once and kept. Pixels are read from the slides by worker processes, or kept too (`cache`),
    and then moved to memory where they fit into `loading.resident_gib`.

    Args:
        slides: folder, pattern, slide file, or CSV `slide_path` with `slide_id`, `case_id`, `label`, `split`, `fold`,
            `mpp`, `annotation_path` where wanted.
        loading: as in `BagDataModule`; its workers also cut the slides.
        tiling: size and resolution of the tiles.
        tissue: how tissue is found.
        annotations: what counts as tumour.
        labels: CSV `slide_id,label` and, where wanted, `case_id`, `split`, `fold`, for slides that come without.
        classes: names of the labels in order, or the index of each; None = the labels are 0..C-1.
        negatives_known: the first class means "no tumour".
        tumour_threshold: least tumour area fraction of a positive tile, in (0, 1].
        mpp: µm per level-0 pixel of slides that state none.
        mpp_override: µm per level-0 pixel of all slides, whatever they state; the `mpp` of a list goes before it.
        backend: `openslide` or `fastslide`.
        cache: keep the pixels of all tiles, uncompressed, under `cache_dir`.
        cache_dir: where coordinates and tiles are kept.
        exclude: ids of slides to leave out.
        on_error: a slide that cannot be read or has no tile ends the command (`stop`), or is left out and listed
            (`skip`).
        fold: None = the `split` column, or fold 0 where there is none; else the fold to test: of the `fold` column, or
            of `num_folds` stratified folds with cases kept whole.
        num_folds: folds made where there is no `fold` column.
        val_fraction: share of all cases held out for validation, unless the `split` column says which.
        split_file: CSV `bag_id,split` that replaces the split.
        seed: of folds, validation part and visiting order.
        bag_by, report_by, case_pooling: as in `SplitDataModule`.

    Raises:
        UserError: a threshold outside (0, 1].
    """

    cuts: list[CutSlide]

    def __init__(
        self,
        slides: str | None,
        loading: Loading,
        tiling: TilingSettings,
        tissue: TissueSettings | OutlineSettings,
        annotations: AnnotationSettings | None = None,
        labels: str | None = None,
        classes: Classes = None,
        negatives_known: bool = True,
        tumour_threshold: float = 0.25,
        mpp: float | None = None,
        mpp_override: float | None = None,
        backend: Literal["openslide", "fastslide"] = "openslide",
        cache: bool = False,
        cache_dir: str = ".cache/kd_mil",
        exclude: Sequence[str] = (),
        on_error: Literal["stop", "skip"] = "stop",
        fold: int | None = None,
        num_folds: int = 5,
        val_fraction: float = 0.1,
        split_file: str | None = None,
        seed: int = 0,
        bag_by: Unit = "slide",
        report_by: Unit = "slide",
        case_pooling: Pooling = "max",
    ) -> None:
        super().__init__(loading, split_file, seed)
        self.bag_by, self.report_by, self.case_pooling = bag_by, report_by, case_pooling
        share("data.tumour_threshold", tumour_threshold, zero=False)
        self.slides, self.labels, self.classes = slides, labels, classes
        self.cutting = Cutting(tiling, tissue, annotations or AnnotationSettings(), mpp, backend, mpp_override)
        self.negatives_known, self.tumour_threshold = negatives_known, tumour_threshold
        self.cache, self.cache_dir, self.exclude = cache, Path(cache_dir), [str(name) for name in exclude]
        self.on_error, self.folds = on_error, Folds(fold, num_folds, val_fraction, seed)

    def entries(self) -> list[SlideEntry]:
        """The slides with their labels; what a data set of slides overrides."""
        if self.slides is None:
            raise UserError("data.slides is not set: give a folder of slides, or a CSV with a column slide_path")
        return list_slides(self.slides)

    def load(self) -> BagSplits:
        """Find the slides, cut them, and read or keep their pixels as the settings say."""
        entries = self.entries()
        if self.labels is not None:
            entries = with_labels(entries, self.labels)
        entries = without(entries, self.exclude)
        slide_classes(entries, self.classes)
        cache = TileCache(self.cache_dir / "tiles", self.cutting)
        if self.on_error == "skip":
            self.cuts, self.left_out = readable_cuts(cache, entries, self.loading.num_workers)
            entries = [cut.entry for cut in self.cuts]
        else:
            for entry in entries:
                require_files(entry)
            self.cuts = over_slides(cache.cut, entries, "tissue and tiles", self.loading.num_workers)
            require_tiles(self.cuts)
        self.twins = of_equal_content([entry.path for entry in entries])
        labels, names = slide_classes(entries, self.classes)
        bags = Bags(
            instances=self._pixels(cache),
            sizes=torch.tensor([len(cut.tiles.coords) for cut in self.cuts]),
            labels=labels,
            bag_ids=[entry.slide_id for entry in entries],
            instance_labels=torch.cat([self._tile_labels(*pair) for pair in zip(self.cuts, labels, strict=True)]),
            coords=torch.from_numpy(np.concatenate([cut.tiles.coords for cut in self.cuts])),
            case_ids=[entry.case_id for entry in entries],
            class_names=names,
        )
        self._say(bags)
        splits, folds = [entry.split for entry in entries], [entry.fold for entry in entries]
        return BagSplits(bags, *choose_parts(bags, splits, folds, self.folds))

    def _pixels(self, cache: TileCache) -> Tensor | TileFiles:
        if not self.cache:
            return TilesInSlides(self.cuts, self.cutting)
        missing = [cut for cut in self.cuts if not cache.pixels_path(cut.entry).exists()]
        if missing:
            require_space(cache.folder, TileFiles(missing).nbytes)
            over_slides(cache.keep_pixels, missing, "tile pixels", self.loading.num_workers)
        tiles = TilesInCache(self.cuts, cache)
        return tiles.read() if tiles.nbytes <= self.loading.host_bytes else tiles

    def _tile_labels(self, cut: CutSlide, label: Tensor) -> Tensor:
        """(N,) 1 for tumour, 0 for none, -1 for unknown."""
        negative = self.negatives_known and int(label) == 0
        if cut.tumour is None:
            return torch.full((len(cut.tiles.coords),), 0 if negative else -1)
        if negative and cut.tumour.any():
            raise UserError(
                f"slide {cut.entry.slide_id!r} has the label of slides without tumour, but tumour is outlined "
                f"in {str(cut.entry.annotation_path)!r}: correct one of them"
            )
        return torch.from_numpy(cut.tumour >= self.tumour_threshold).long()

    @rank_zero_only
    def _say(self, bags: Bags) -> None:
        """One line on what was found, with the threshold that makes a tile positive."""
        known, positive = int((bags.instance_labels >= 0).sum()), int((bags.instance_labels > 0).sum())
        tiles = self.cuts[0].tiles
        print(
            f"{len(bags)} slides, {len(bags.instance_labels)} tiles of {tiles.tile_size} px at {tiles.mpp:g} µm/px; "
            f"tumour in {positive} of {known} known tiles (from {self.tumour_threshold:.0%} of their area on)"
        )

    @property
    def instance_source(self) -> dict[str, Any]:
        """How tiles are cut and what slides were said to measure.

        `mpp` is the median over the slides where the tiling goes by magnification.
        """
        cutting = self.cutting
        return {
            "kind": "tiles",
            "tiling": asdict(cutting.tiling),
            "tissue": asdict(cutting.tissue),
            "mpp": median(cut.tiles.mpp for cut in self.cuts),
            "backend": cutting.backend,
            "slide_mpp": cutting.mpp,
            "slide_mpp_override": cutting.mpp_override,
            "tumour_threshold": self.tumour_threshold,
        }

    def slide_picture(self, bag: int, max_side: int) -> SlidePicture:
        """Thumbnail and truth of the slide at position `bag`."""
        entry = self.cuts[bag].entry
        slide = self.cutting.open(entry)
        annotation = None
        if entry.annotation_path is not None:
            annotation = read_annotation(entry.annotation_path, slide, self.cutting.annotations)
        picture = picture_of(slide, annotation, max_side)
        slide.close()
        return picture

    def tile_size_level0(self, bag: int) -> int:
        """Side of a tile of the slide at position `bag`, in level-0 pixels."""
        return self.cuts[bag].tiles.tile_size_level0
