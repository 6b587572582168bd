"""The commands on images: a run from end to end, its masks and outlines of new images and slides, and its errors."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image
from shapely.geometry import shape

from kd_mil.data.masks.synthetic_glands import draw_tissue
from kd_mil.prediction.panels import panel_path, read_panel
from tests.support.command import kd_mil

pytestmark = pytest.mark.slow

SMALL = [
    "trainer=cpu",
    "data.image_size=32",
    "data.train_images=24",
    "data.val_images=8",
    "data.test_images=8",
    "segmenter.widths=[4,6,8]",
    "instances_per_step=8",
    "optimizer.lr=3e-3",
    "method.teacher_epochs=2",
    "method.switch.first=1",
    "method.switch.period=1",
    "trainer.max_epochs=5",
    "callbacks.overlays.every_n_epochs=1",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("run")
    result = kd_mil("run", "experiment=ifkd_vgg", *SMALL, "monitor=val/student/pixel_f1", "hydra.run.dir=out", cwd=cwd)
    return cwd / "out", result


def test_a_run_leaves_what_the_contract_promises(run):
    out, result = run
    metrics = json.loads((out / "metrics.json").read_text())
    for role in ("teacher", "student"):
        for name in ("pixel_f1", "pixel_iou", "pixel_f1_tuned", "image_auroc"):
            assert 0 <= metrics[f"test/{role}/{name}"] <= 1
        assert metrics[f"test/{role}/pixel_hd"] >= metrics[f"test/{role}/pixel_hd95"]
        assert math.isfinite(metrics[f"val/{role}/image_loss"])
    for name in ("figures/overlays.png", "figures/film.png", "images.csv", "splits.csv", "checkpoints/last.ckpt"):
        assert (out / name).is_file(), name
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["selected_by"]) == ("finished", "validation masks")
    assert record["data_counts"] == {"train": 24, "val": 8, "test": 8}
    assert "masks of validation images select the checkpoint" in result.stdout
    assert "pixel_f1" in result.stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(2):
        pixels, _ = draw_tissue(96, True, 7, number)
        Image.fromarray(pixels.transpose(1, 2, 0)[: 96 - 20 * number]).save(folder / f"case{number}.png")
    return folder


@pytest.mark.parametrize("scale", ["fit", "0.5"])
def test_images_become_masks_and_outlines_that_agree(run, images, tmp_path, scale):
    out, _ = run
    settings = [f"scale={scale}", "tolerance=0", "min_pixels=1", "threshold=0.45", "role=student"]
    kd_mil("segment", f"ckpt={out}", f"images={images}", f"out={tmp_path}", "device=cpu", *settings, cwd=tmp_path)
    table = pd.read_csv(tmp_path / "segments.csv")
    assert table.name.tolist() == ["case0", "case1"]
    for row in table.itertuples():
        with (
            Image.open(images / f"{row.name}.png") as image,
            Image.open(tmp_path / "masks" / f"{row.name}.png") as mask,
        ):
            assert mask.size == image.size
            pixels = np.asarray(mask)
        assert set(np.unique(pixels)) <= {0, 255}
        assert row.positive_share == pytest.approx((pixels > 0).mean())
        outlines = json.loads((tmp_path / "geojson" / f"{row.name}.geojson").read_text())["features"]
        assert len(outlines) == row.regions
        assert sum(shape(outline["geometry"]).area for outline in outlines) == pytest.approx((pixels > 0).sum())
        probs = np.asarray(Image.open(tmp_path / "maps" / f"{row.name}.png")) / 255
        assert ((probs > 0.455) <= (pixels > 0)).all()
        [layer] = read_panel(panel_path(tmp_path, row.name)).layers
        assert ((layer.grid >= layer.threshold) == (pixels > 0)).all()
    page = (tmp_path / "index.html").read_text()
    assert all(f"panels/{name}.js" in page for name in table.name)


def test_other_settings_are_not_answered_from_an_earlier_call(run, images, tmp_path):
    out, _ = run
    masks = []
    for threshold in ("0.01", "0.99"):
        settings = [f"threshold={threshold}", "device=cpu"]
        kd_mil("segment", f"ckpt={out}", f"images={images}", f"out={tmp_path}", *settings, cwd=tmp_path)
        assert pd.read_csv(tmp_path / "segments.csv").threshold.tolist() == [float(threshold)] * 2
        with Image.open(tmp_path / "masks" / "case0.png") as image:
            masks.append(np.asarray(image) > 0)
    assert masks[0].sum() > masks[1].sum()


def test_slides_become_masks_and_outlines_in_level0_pixels(run, tmp_path):
    out, _ = run
    pixels, _ = draw_tissue(300, True, 3, 1)
    slide = np.full((420, 500, 3), 250, np.uint8)
    slide[60:360, 100:400] = pixels.transpose(1, 2, 0)
    (tmp_path / "slides").mkdir()
    Image.fromarray(slide).save(tmp_path / "slides" / "one.png")
    (tmp_path / "slides.csv").write_text("slide_path,mpp\nslides/one.png,0.5\n")
    settings = ["mpp=1.0", "reduce=2", "threshold=0.4", "tolerance=0", "min_pixels=1", "tissue.mpp=2.0", "device=cpu"]
    kd_mil("segment", f"ckpt={out}", "slides=slides.csv", "out=segments", *settings, cwd=tmp_path)
    [row] = pd.read_csv(tmp_path / "segments" / "segments.csv").to_dict("records")
    assert row["pixel"] == 4, "2 level-0 pixels for each of the network's, 2 of those for each of the mask"
    with Image.open(tmp_path / "segments" / "masks" / "one.png") as image:
        mask = np.asarray(image) > 0
        assert image.size == (125, 105)
    assert not mask[:, :10].any(), "no tissue, no tumour"
    outlines = json.loads((tmp_path / "segments" / "geojson" / "one.geojson").read_text())["features"]
    area = shapely.union_all([shape(outline["geometry"]) for outline in outlines]).area
    assert area == pytest.approx(mask.sum() * 16)


def test_what_cannot_be_read_is_listed_and_the_rest_is_done(run, images, tmp_path):
    out, _ = run
    (tmp_path / "images").mkdir()
    for path in images.iterdir():
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "images" / "broken.png").write_bytes((images / "case0.png").read_bytes()[:200])
    (tmp_path / "images" / "empty.jpg").touch()
    (tmp_path / "images" / "case0.png").rename(tmp_path / "images" / "=case.png")
    (tmp_path / "images" / "case0.png").write_bytes((images / "case0.png").read_bytes())
    command = ["segment", f"ckpt={out}", "images=images", "out=segments", "device=cpu"]
    result = kd_mil(*command, cwd=tmp_path)
    table = pd.read_csv(tmp_path / "segments" / "segments.csv", keep_default_na=False).set_index("name")
    assert (table.loc[["case0", "case1"], "note"] == "").all()
    assert table.loc["broken", "note"].startswith("images/broken.png: not a readable image")
    assert table.loc["empty", "regions"] == ""
    assert "begins as a formula" in table.loc["'=case", "note"]
    (tmp_path / "images" / "=case.png").unlink()
    assert "without mask: broken" in result.stdout
    assert "2 masks and outlines" in result.stdout
    stopped = kd_mil(*command, "on_error=stop", cwd=tmp_path, check=False)
    assert stopped.returncode == 2
    assert "broken.png" in stopped.stderr
    for name in ("case0", "case1"):
        (tmp_path / "images" / f"{name}.png").unlink()
    nothing = kd_mil(*command, cwd=tmp_path, check=False)
    assert nothing.returncode == 2
    assert "nothing could be read: images/broken.png" in nothing.stderr


def test_the_resolution_of_a_slide_is_not_the_one_of_the_network(run, tmp_path):
    """`mpp` is what the network sees; a slide that states no resolution is told so by the list."""
    out, _ = run
    Image.new("RGB", (64, 64)).save(tmp_path / "slide.png")
    command = ["segment", f"ckpt={out}", "slides=slide.png", "out=segments", "device=cpu", "mpp=1.0"]
    result = kd_mil(*command, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert "give an `mpp` column in the slide list" in result.stderr
    assert "for the run" not in result.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "give images=FOLDER or slides=FOLDER"),
        (["images=none"], "no images in none"),
        (["images=IMAGES", "role=judge"], "role=judge: choose stage_one, teacher or student"),
        (["images=IMAGES", "overlap=1"], "overlap=1"),
        (["images=IMAGES", "scale=large"], "scale=large"),
        (["slides=IMAGES"], "mpp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_clear_line(run, images, tmp_path, overrides, message):
    out, _ = run
    settings = [text.replace("IMAGES", str(images)) for text in overrides]
    result = kd_mil("segment", f"ckpt={out}", "device=cpu", *settings, cwd=tmp_path, check=False)
    assert result.returncode == 2, result.stderr
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in result.stderr
