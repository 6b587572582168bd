"""Stain normalisation: the dyes of procedural slides are known, and torchstain normalises pixel by pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.store import read_slide
from kd_mil.slides.slide_list import list_slides
from kd_mil.slides.synthetic.stain import Stain
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.stain import Macenko, StainMap
from kd_mil.slides.tiles.tiling import TilingSettings

torchstain = pytest.importorskip("torchstain.torch.normalizers.macenko")


def tissue(seed: int, side: int = 128) -> np.ndarray:
    """Pixels (side, side, 3) of one concentration pattern, stained as slide `seed` is; white is 240 as for Macenko."""
    pattern = np.random.default_rng(7)
    nuclei = pattern.random((side, side)) < 0.4
    haematoxylin = pattern.gamma(3.0, 0.3, (side, side)) * nuclei
    eosin = pattern.gamma(3.0, 0.25, (side, side)) * ~nuclei
    return Stain(np.random.default_rng(seed), variation=0.12, white=(240, 240, 240))(haematoxylin, eosin)


def test_it_is_torchstains_normalisation_when_a_slide_is_one_tile():
    pixels = tissue(1)
    ours = Macenko().of_pixels(pixels, "it")(torch.from_numpy(pixels)[None])[0]
    theirs, _, _ = torchstain.TorchMacenkoNormalizer().normalize(torch.from_numpy(pixels).permute(2, 0, 1))
    assert (ours.int() - theirs).abs().max() <= 1, "it cuts off decimals, we round"


def test_slides_stained_apart_come_together():
    before = [tissue(seed).astype(float) for seed in range(6)]
    after = [Macenko().of_pixels(p.astype(np.uint8), "it")(torch.from_numpy(p.astype(np.uint8))[None])[0].double().numpy() for p in before]  # fmt: skip  # noqa: E501
    spread = [np.std([image.mean(axis=(0, 1)) for image in images], axis=0).mean() for images in (before, after)]
    assert spread[0] > 3
    assert spread[1] < spread[0] / 3


def test_glass_stays_glass():
    pixels = tissue(2)
    normalise = Macenko().of_pixels(pixels, "it")
    assert normalise(torch.full((1, 2, 2, 3), 239, dtype=torch.uint8)).unique().tolist() == [240]


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((64, 64, 3), 240, np.uint8), "too little stain"),
        (np.repeat(np.random.default_rng(0).integers(20, 200, (64, 64, 1), np.uint8), 3, axis=2), "two dyes cannot"),
    ],
)
def test_what_is_not_stained_with_two_dyes_is_refused(pixels, words):
    with pytest.raises(UserError, match=words):
        Macenko().of_pixels(pixels, "slide 'a'")


class MeanColour:
    device, num_features, identity, transform = torch.device("cpu"), 3, {"name": "mean"}, {}

    def __call__(self, tiles):
        assert tiles.dtype == torch.uint8
        return tiles.float().mean(dim=(1, 2))


def test_an_extraction_encodes_normalised_tiles_and_says_so(tmp_path):
    Image.fromarray(tissue(3)).save(tmp_path / "a.png")
    Image.new("RGB", (128, 128), "white").save(tmp_path / "blank.png")
    entries = list_slides(tmp_path)
    cutting, stain = Cutting(TilingSettings(tile_size=32, mpp=1.0), mpp=1.0), Macenko(tiles=4)
    outcomes = Extraction(entries, tmp_path / "out", cutting, MeanColour(), stain=stain).run()
    assert [outcome.status for outcome in outcomes] == ["written", "written"]
    stored = read_slide(outcomes[0].path)
    assert stored.attributes["stain"] == {
        "name": "macenko",
        "tiles": 4,
        "light": 240.0,
        "percentile": 1.0,
        "least_density": 0.15,
    }
    normalise = StainMap(stored.attributes["stain_matrix"], 240.0)
    slide = cutting.open(entries[0])
    tiles = np.stack([slide.read(x, y, (32, 32), 1.0) for x, y in stored.tiles.coords.tolist()])
    expected = normalise(torch.from_numpy(tiles)).float().mean(dim=(1, 2))
    np.testing.assert_allclose(stored.features, expected, atol=0.1)
    assert abs(stored.features - tiles.mean(axis=(1, 2))).max() > 3
    with pytest.raises(UserError, match=r"stain\.name was 'macenko' and is None"):
        Extraction(entries, tmp_path / "out", cutting, MeanColour()).run()
    with pytest.raises(UserError, match="give encoder="):
        Extraction(entries, tmp_path / "out", cutting, stain=stain)
