"""SyntheticSlides: procedural H&E slides with exact truth."""

from typing import Any

from kd_mil.data.datamodules import Loading
from kd_mil.data.tiles.slides import SlideBags
from kd_mil.slides.slide_list import SlideEntry, list_slides
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides


class SyntheticSlides(SlideBags):
    """Procedural H&E slides with exact truth, built at the first start; half of them hold tumour.

    Args:
        synthetic: number, size and resolution of the slides.
        loading: as in `SlideBags`.
        cache_dir: where the set is built, too.
        seed: of the slides, too.
        **slides: further arguments of `SlideBags`.
    """

    def __init__(
        self,
        synthetic: SyntheticSettings,
        loading: Loading,
        cache_dir: str = ".cache/kd_mil",
        seed: int = 0,
        **slides: Any,
    ) -> None:
        super().__init__(None, loading, classes=("negative", "positive"), cache_dir=cache_dir, seed=seed, **slides)
        self.synthetic = synthetic

    def entries(self) -> list[SlideEntry]:
        processes = self.loading.num_workers
        return list_slides(build_synthetic_slides(self.cache_dir, self.synthetic, self.seed, processes))
