"""Pictures of segmentation: they are written, show what they say, and survive a resume."""

import lightning as L
import pandas as pd
import pytest
import torch
from PIL import Image

from kd_mil.callbacks.image_predictions import WriteImagePredictions
from kd_mil.callbacks.overlays import Overlays, overlay_figure, small_map, spread, thinned
from kd_mil.data.batches import MaskedBatch
from tests.support.tiny import fit
from tests.support.tiny_images import tiny_glands, tiny_ifkd


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    method, data = tiny_ifkd(switch={"rule": "periodic"}), tiny_glands()
    overlays = Overlays(str(folder / "figures"), images=3, every_n_epochs=1)
    trainer = fit(method, data, epochs=6, callbacks=[overlays, WriteImagePredictions(str(folder))])
    trainer.test(method, datamodule=data, verbose=False)
    return folder, method, data, overlays


def test_pictures_are_written(run):
    folder, *_ = run
    for name in ("overlays", "film"):
        with Image.open(folder / "figures" / f"{name}.png") as image:
            assert min(image.size) > 100


def test_film_has_a_frame_for_each_epoch_and_knows_the_switches(run):
    *_, overlays = run
    assert [frame["epoch"] for frame in overlays.frames] == list(range(6))
    assert [frame["switches"] for frame in overlays.frames] == [0, 0, 0, 0, 1, 1]
    assert ["student" in frame for frame in overlays.frames] == [False, False, True, True, True, True]
    assert [switched for _, switched in thinned(overlays.frames)] == [False, False, False, False, True, False]
    other = Overlays("nowhere")
    other.load_state_dict(overlays.state_dict())
    assert other.frames == overlays.frames


def test_film_state_can_be_saved_with_plain_tensors(run, tmp_path):
    *_, overlays = run
    torch.save(overlays.state_dict(), tmp_path / "state.pt")
    assert len(torch.load(tmp_path / "state.pt", weights_only=True)["frames"]) == 6


def test_predictions_give_the_scores_back(run):
    folder, method, data, _ = run
    table = pd.read_csv(folder / "images.csv")
    assert table.image_id.tolist() == [data.bags.bag_ids[index] for index in data.splits.test.tolist()]
    for role in ("teacher", "student"):
        assert table[f"{role}_f1"].mean() == pytest.approx(method.scores["test"][role]["pixel_f1"])
        assert table[f"{role}_foreground"].mean() == pytest.approx(method.scores["test"][role]["pixel_foreground"])
    assert table.positive_share[table.label == 0].eq(0).all()


def test_overlays_draw_truth_and_outline():
    images = torch.full((2, 3, 16, 16), 200, dtype=torch.uint8)
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    masks[0, 4:8, 4:8] = 1
    masks[1] = 255
    shown = MaskedBatch(images, torch.tensor([1, 1]), torch.arange(2), masks)
    maps = {"model": torch.linspace(0, 1, 16).expand(2, 16, 16)}
    figure = overlay_figure(shown, maps, 0.5)
    axes = list(figure.axes)
    assert [one.get_title() for one in axes[:3]] == ["image", "truth", "model"]
    tinted = axes[1].images[1].get_array()[..., 3] > 0
    assert tinted.sum() == 16
    assert [text.get_text() for text in axes[4].texts] == ["unknown"]
    assert len(axes[2].collections) == 1, "the outline at the threshold"


def test_maps_of_the_film_are_small():
    assert small_map(torch.rand(1, 500, 300)).shape == (125, 75)
    assert small_map(torch.full((1, 20, 30), 0.5)).unique().tolist() == [128]


def test_images_are_spread_evenly():
    assert spread(torch.arange(10), 3).tolist() == [0, 3, 6]
    assert spread(torch.arange(2), 3).tolist() == [0, 1]


def test_no_pictures_while_only_validating(run, tmp_path):
    _, method, data, _ = run
    overlays = Overlays(str(tmp_path))
    trainer = L.Trainer(
        accelerator="cpu", logger=False, callbacks=[overlays], enable_progress_bar=False, enable_model_summary=False
    )
    trainer.validate(method, datamodule=data, verbose=False)
    assert overlays.frames == []
    assert not list(tmp_path.iterdir())
