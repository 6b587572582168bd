"""Procedural slides as a data set."""

from kd_mil.data.datamodules import Loading
from kd_mil.data.tiles.synthetic_slides import SyntheticSlides
from kd_mil.slides.synthetic.build import SyntheticSettings
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings


def test_synthetic_slides_are_built_once_and_follow_the_seed(tmp_path):
    few = SyntheticSettings(slides=10, size=768, mpp=1.0, slides_per_case=1)
    settings = {
        "tiling": TilingSettings(tile_size=32, mpp=2.0),
        "tissue": TissueSettings(),
        "cache_dir": str(tmp_path),
        "cache": True,
    }
    first, again, other = (SyntheticSlides(few, Loading(), seed=seed, **settings) for seed in (0, 0, 1))
    for data in (first, again, other):
        data.setup()
    assert first.counts() == {"train": 6, "val": 2, "test": 2}
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert len(list(tmp_path.glob("synthetic_slides_*"))) == 2
