"""SyntheticTumourTiles: labelled tiles of procedural H&E slides, and exact masks."""

from typing import Any

from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.outlined_tiles import OutlinedTiles
from kd_mil.slides.slide_list import SlideEntry, list_slides
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides


class SyntheticTumourTiles(OutlinedTiles):
    """Tiles of the slides of `data=synthetic_slides`, built and cut at the first start.

    Tumour covers a small part of most positive tiles, so that marking all of an image is far from right: unlike on
    whole images of one gland or another, the score of a mask is not that of the image's label. Slides and their cases
    separate the parts.

    Args:
        synthetic: number, size and resolution of the slides.
        loading: as in `OutlinedTiles`.
        cache_dir: where the slides are built, too.
        mpp, tile_size, positive_per_slide, negative_per_slide, min_tumour, seed: as in `OutlinedTiles`; the seed is of
            the slides, too.
        **data: crop, split_file of `SegmentationData`.
    """

    def __init__(
        self,
        synthetic: SyntheticSettings,
        loading: Loading,
        cache_dir: str,
        mpp: float = 1.0,
        tile_size: int = 128,
        positive_per_slide: int = 10,
        negative_per_slide: int = 5,
        min_tumour: float = 0.05,
        seed: int = 0,
        **data: Any,
    ) -> None:
        tiles = {"mpp": mpp, "tile_size": tile_size, "min_tumour": min_tumour}
        counts = {"positive_per_slide": positive_per_slide, "negative_per_slide": negative_per_slide}
        super().__init__(loading, cache_dir, seed=seed, **tiles, **counts, **data)  # type: ignore[arg-type]
        self.synthetic = synthetic

    def entries(self) -> list[SlideEntry]:
        processes = self.loading.num_workers
        return list_slides(build_synthetic_slides(self.cache_dir, self.synthetic, self.seed, processes))
