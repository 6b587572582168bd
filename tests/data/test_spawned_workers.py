"""Workers that start without a fork, as on macOS: they are sent all they need, and give the same batches."""

import multiprocessing
import pickle
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kd_mil.data.datamodules import Loading
from kd_mil.data.features.feature_bags import FeatureBags
from kd_mil.data.pairs.paired_images import ImageFolders
from kd_mil.data.pairs.paired_slides import PairedSlides
from kd_mil.data.tiles.slides import SlideBags
from kd_mil.slides.extraction.tile_loader import TileRequest, tile_loader
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings

TISSUE = TissueSettings(mpp=4.0)


@pytest.fixture
def spawn():
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.fixture
def table(tmp_path):
    """Twelve stained pictures, a list of them that serves all data sets, and features of each."""
    rows = []
    for number in range(12):
        generator = np.random.default_rng(number)
        pixels = np.full((256, 256, 3), 244, np.uint8)
        pixels[32:224, 32:224] = generator.integers(0, 40, (192, 192, 3)) + np.array([180, 60, 130])
        Image.fromarray(pixels).save(tmp_path / f"s{number}.png")
        with h5py.File(tmp_path / f"s{number}.h5", "w") as file:
            file["features"] = generator.normal(size=(3, 4))
        part = ("train", "val", "test")[number // 4]
        names = {"slide_path": f"s{number}.png", "image_path": f"s{number}.png", "feature_path": f"s{number}.h5"}
        rows.append({"slide_id": f"s{number}", "label": "ab"[number % 2], "split": part, "mpp": 1.0} | names)
    pd.DataFrame(rows).to_csv(tmp_path / "list.csv", index=False)
    return str(tmp_path / "list.csv")


def modules(table, cache):
    """Nothing is kept in memory, so that workers read."""
    loading = Loading(resident_gib=0, num_workers=1)
    pairs = {"resident_gib": 0.0, "num_workers": 1, "images_per_step": 2}
    common = {"classes": ["a", "b"], "cache_dir": cache}
    return {
        "slides": lambda: SlideBags(table, loading, TilingSettings(tile_size=64, mpp=1.0), TISSUE, **common),
        "features": lambda: FeatureBags(table, loading, **common),
        "paired_images": lambda: ImageFolders(table, "", **pairs),
        "paired_slides": lambda: PairedSlides(table, TISSUE, min_side_um=100, **pairs),
    }


def assert_equal(batch, expected):
    for field in ("instances", "student", "labels"):
        for one, other in zip(getattr(batch, field, ()), getattr(expected, field, ()), strict=True):
            assert torch.equal(one, other)


def loader_of(table, tmp_path, name):
    data = modules(table, str(tmp_path / "cache"))[name]()
    data.setup()
    module = SimpleNamespace(seed=0, resolutions=("teacher", "student"))
    data.trainer = SimpleNamespace(lightning_module=module, global_rank=0, world_size=1)
    return data.test_dataloader()


@pytest.mark.parametrize("name", ["slides", "features", "paired_images"])
def test_what_a_worker_is_sent_pickles(table, tmp_path, name):
    loader = loader_of(table, tmp_path, name)
    assert loader.num_workers == 1
    positions = next(iter(loader.sampler))
    assert_equal(pickle.loads(pickle.dumps(loader.dataset))[positions], loader.dataset[positions])


@pytest.mark.slow
def test_a_spawned_worker_gives_the_batches_of_this_process(spawn, table, tmp_path):
    loader = loader_of(table, tmp_path, "paired_slides")
    for batch, positions in zip(loader, loader.sampler, strict=True):
        assert_equal(batch, loader.dataset[positions])


@pytest.mark.slow
def test_a_spawned_worker_of_extract_reads_the_tiles(spawn, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 256, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    cuts = [np.array([[x, 0], [x, 32]]) for x in range(0, 256, 32)]
    requests = [TileRequest("slide", tmp_path / "slide.png", 1.0, 0, cut, 32, 1.0) for cut in cuts]
    for cut, batch in zip(cuts, tile_loader(iter(requests), "openslide", 1, pin_memory=False), strict=True):
        assert not batch.error
        expected = [pixels[y : y + 32, x : x + 32] for x, y in cut.tolist()]
        np.testing.assert_array_equal(batch.pixels.numpy(), expected)
