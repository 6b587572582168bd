"""Pictures of slides in training: which slides, what is drawn where, and silence where there are none."""

import numpy as np
import pytest
import torch
from PIL import Image

from kd_mil.callbacks.slide_maps import SlideMaps, chosen_slides, slide_figure
from kd_mil.data.datamodules import Loading
from kd_mil.data.tiles.synthetic_slides import SyntheticSlides
from kd_mil.evaluation.tables import PredictionTables
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.encoders.small import SmallCNN
from kd_mil.slides.overlays.slide_picture import SlidePicture
from kd_mil.slides.synthetic.build import SyntheticSettings
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings
from tests.support.command import kd_mil
from tests.support.tiny import TinyData, fit, no_mining, tiny_abmil, tiny_head, tiny_parts, tiny_splits


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    settings = SyntheticSettings(slides=20, size=768, mpp=1.0, slides_per_case=1)
    tiling, cache_dir = TilingSettings(tile_size=16, mpp=4.0), str(tmp_path_factory.mktemp("cache"))
    data = SyntheticSlides(settings, Loading(), cache_dir, tiling=tiling, tissue=TissueSettings(), cache=True)
    data.setup()
    return data


def small_weno(**parts):
    return WENO(**tiny_parts() | parts, aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining())


def slide_weno():
    return small_weno(instance_shape=(3, 16, 16), encoder=lambda instance_shape: SmallCNN(instance_shape, (8, 8), None))


def perfect_tables(data):
    """A teacher that sees nothing and a student that is always right, on the validation slides."""
    val = data.splits.val
    tiles = data.bags.instances_of(val)
    truth = data.bags.instance_labels[tiles].double()
    probs = torch.nn.functional.one_hot(data.bags.labels[val], 2).double()
    bags = {"bag": val, "label": data.bags.labels[val], "teacher/probs": probs, "student/probs": probs}
    owners = data.bags.bag_of_instance[tiles]
    zero = torch.zeros_like(truth)
    roles = {"teacher/probs": zero, "teacher/attention": zero, "student/probs": truth}
    return PredictionTables(bags, {"bag": owners, "instance": tiles, **roles})


def test_slides_are_spread_over_the_positive_ones_with_one_negative():
    labels = torch.tensor([0, 1, 1, 0, 1, 1, 1, 1])
    assert chosen_slides(torch.arange(8), labels, 4) == [1, 4, 6, 0]
    assert chosen_slides(torch.tensor([3, 0]), labels, 4) == [3]
    assert chosen_slides(torch.tensor([1, 2]), labels, 4) == [1, 2]
    assert chosen_slides(torch.arange(8), labels, 1) == [1]


def test_the_maps_lie_on_the_tumour(slides):
    """The colour of each cell of the drawn map tells the truth of the tile under it."""
    tables = perfect_tables(slides)
    bag = chosen_slides(slides.splits.val, slides.bags.labels, 1)[0]
    picture = slides.slide_picture(bag, 192)
    roles, size = {"teacher": "attention", "student": None}, slides.tile_size_level0(bag)
    figure = slide_figure(slides.bags, bag, tables, roles, picture, size, {"teacher": 0.9, "student": 0.25})
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["truth", "teacher: attention, scaled", "student: probability"]
    _, verdict = figure.get_suptitle().splitlines()
    assert verdict == "student: positive (positive 1.00, threshold 0.25); label: positive"
    drawn = panels[2].images[-1]
    assert drawn.get_clim() == (0, 1)
    grid = np.ma.filled(drawn.get_array(), -1)
    for (x, y), label in zip(
        slides.bags.coords[slides.bags.bag_of_instance == bag].tolist(),
        slides.bags.instance_labels[slides.bags.bag_of_instance == bag].tolist(),
        strict=True,
    ):
        if max(x, y) < 768 - 64:
            assert (grid[y // 4 : y // 4 + 16, x // 4 : x // 4 + 16] == label).all()
    assert (np.ma.filled(panels[1].images[-1].get_array(), -1) <= 0).all()


class Writer:
    def __init__(self):
        self.tags = []

    def add_image(self, tag, pixels, step, dataformats):
        assert (pixels.dtype, pixels.ndim, dataformats) == (np.uint8, 3, "HWC")
        self.tags.append((tag, step))


def test_maps_go_to_tensorboard_while_training_and_to_files_at_the_end(slides, tmp_path, monkeypatch):
    writer, opened = Writer(), []
    for module in ("slide_maps", "pictures"):
        monkeypatch.setattr(f"kd_mil.callbacks.{module}.tensorboard", lambda _: writer)
    picture = type(slides).slide_picture
    monkeypatch.setattr(type(slides), "slide_picture", lambda *given: opened.append(given[1]) or picture(*given))
    callback = SlideMaps(str(tmp_path / "figures"), slides=2, every_n_epochs=2, max_side=96)
    method = slide_weno()
    trainer = fit(method, slides, epochs=3, callbacks=[callback])
    assert [step for _, step in writer.tags] == [0, 0, 2, 2]
    assert not (tmp_path / "figures").exists()
    trainer.validate(method, datamodule=slides, verbose=False)
    shown = [slides.bags.bag_ids[bag] for bag in chosen_slides(slides.splits.val, slides.bags.labels, 2)]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(f"slide_{n}.png" for n in shown)
    assert len(opened) == 2  # thumbnails are read once
    for path in (tmp_path / "figures").iterdir():
        with Image.open(path) as image:
            assert image.width > 2 * image.height
            assert image.info["dpi"] == pytest.approx((120, 120), abs=1)


def test_data_without_slides_are_passed_over(tmp_path):
    callback = SlideMaps(str(tmp_path / "figures"))
    method, data = small_weno(), TinyData(tiny_splits())
    trainer = fit(method, data, callbacks=[callback])
    trainer.validate(method, datamodule=data, verbose=False)
    assert not (tmp_path / "figures").exists()


def test_a_slide_nobody_has_annotated_says_so(slides):
    bag = int(slides.splits.val[0])
    picture = SlidePicture(np.full((48, 48, 3), 255, np.uint8), 16.0, (0, 0), None)
    figure = slide_figure(slides.bags, bag, perfect_tables(slides), {"student": None}, picture, 64)
    assert figure.axes[0].get_title() == "truth unknown"


@pytest.mark.slow
def test_the_demo_command_ends_with_heat_maps(tmp_path):
    """Slides to tiles to WENO to pictures, on a few slides and two epochs."""
    few = ["data.synthetic.slides=10", "data.synthetic.slides_per_case=1", "data.synthetic.size=768"]
    settings = ["trainer=cpu", "trainer.max_epochs=2", "hydra.run.dir=out", "paths.cache_dir=cache"]
    result = kd_mil("run", "experiment=weno_dsmil", *few, *settings, cwd=tmp_path)
    assert "10 slides" in result.stdout
    assert "from 25% of their area on" in result.stdout
    assert sorted(path.name for path in (tmp_path / "out" / "figures").glob("slide_*.png"))
    assert len(list((tmp_path / "cache" / "tiles").glob("*.pixels.npy"))) == 10
