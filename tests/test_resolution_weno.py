"""From slides with labels and a WENO run to a student at low magnification, and its predictions."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kd_mil.cards.card import own_card
from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.tiles.slides import SlidesData
from kd_mil.data.tiles.taught_slides import TaughtSlides
from kd_mil.jobs.teach import refuse_seen, teach
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.encoders.small import SmallCNN
from kd_mil.models.preprocess import Preprocess
from kd_mil.prediction.pipeline import Predictor
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings
from tests.support.command import kd_mil
from tests.support.tiny import no_mining, tiny_abmil, tiny_head

TISSUE = TissueSettings(mpp=4.0, min_area_um2=0)
PLAIN = {"loading": {"num_workers": 0}, "trainer": {"accelerator": "cpu"}}
CLASSES = ("normal", "tumour")


def slides(root, count=12):
    """Slides of one section; those of tumour are darker in one corner."""
    rows = []
    for at in range(count):
        image = np.full((192, 192, 3), 244, dtype=np.uint8)
        image[32:160, 32:160] = np.random.default_rng(at).integers(0, 40, (128, 128, 3)) + np.array([180, 60, 130])
        image[32:96, 32:96] -= np.uint8(50 * (at % 2))
        Image.fromarray(image).save(root / f"s{at}.png")
        part = ("train", "val", "test")[at // 2 % 3]
        rows.append({"slide_path": f"s{at}.png", "label": CLASSES[at % 2], "split": part, "mpp": 1.0})
    pd.DataFrame(rows).to_csv(root / "slides.csv", index=False)
    return str(root / "slides.csv")


def weno_checkpoint(root, path):
    """An untrained WENO of tiles of 32 pixels at 1 µm."""
    data = SlidesData(path, Loading(), TilingSettings(32, mpp=1.0), TISSUE, classes=CLASSES, cache_dir=str(root / "c"))
    data.setup()
    torch.manual_seed(1)
    method = WENO(
        **data.model_inputs,
        encoder=partial(SmallCNN, channels=(4, 8), hidden=None, norm="none"),
        aggregator=tiny_abmil(),
        student_head=tiny_head(),
        hpm=no_mining(),
        preprocess=Preprocess(),
        optimizer=partial(torch.optim.Adam, lr=0.1),
    )
    checkpoint = {"state_dict": method.state_dict(), "model_card": own_card(method.call, data)}
    torch.save(checkpoint, root / "weno.ckpt")
    return method.eval()


def taught_slides(root, path, **settings):
    tiling, cache = TilingSettings(16, mpp=4.0, min_tissue=0.1), str(root / "cache")
    given = {"teacher": str(root / "weno.ckpt")} | settings
    data = TaughtSlides(path, Loading(), tiling=tiling, tissue=TISSUE, classes=CLASSES, cache_dir=cache, **given)
    data.setup()
    return data


def test_training_slides_are_predicted_once_and_taught(tmp_path, monkeypatch):
    path = slides(tmp_path)
    method, data = weno_checkpoint(tmp_path, path), taught_slides(tmp_path, path)
    teach(data, PLAIN)
    [written] = (tmp_path / "cache" / "teachers").rglob("s1.parquet")
    table, pixels = pd.read_parquet(written), np.asarray(Image.open(tmp_path / "s1.png")).transpose(2, 0, 1)
    own = [pixels[:, y : y + 32, x : x + 32] for x, y in zip(table.x, table.y, strict=True)]
    said = method.predict(np.stack(own))["student"].instance_probs
    assert table.student_prob.tolist() == pytest.approx(said.tolist(), abs=1e-6)
    positions = data.bags.instances_of(torch.tensor([data.bags.bag_ids.index("s1")]))
    for (x, y), word in zip(data.bags.coords[positions].tolist(), data.taught.probs[positions], strict=True):
        inside = table.student_prob[table.x.between(x, x + 32) & table.y.between(y, y + 32)]
        assert word[1].item() == pytest.approx(inside.max(), abs=1e-6, nan_ok=True)
    assert data.taught.probs[positions].isfinite().any()
    assert data.taught.attention[positions].sum().item() == pytest.approx(1, abs=1e-5)
    negative = data.bags.instances_of(torch.tensor([data.bags.bag_ids.index("s0")]))
    assert (data.taught.probs[negative, 1] == 0).all()
    tested = data.bags.instances_of(data.splits.test)
    assert data.taught.probs[tested].isnan().all(), "test slides teach nothing"
    monkeypatch.setattr(Predictor, "_predict", lambda *_: pytest.fail("predicted again"))
    again = taught_slides(tmp_path, path)
    teach(again, PLAIN)
    assert torch.equal(again.taught.probs.nan_to_num(), data.taught.probs.nan_to_num())


def test_a_damaged_slide_is_left_out_and_listed(tmp_path, capsys):
    path = slides(tmp_path, 18)
    weno_checkpoint(tmp_path, path)
    (tmp_path / "s1.png").write_bytes(b"no picture")
    Image.new("RGB", (192, 192), "white").save(tmp_path / "s6.png")
    data = taught_slides(tmp_path, path, on_error="skip")
    teach(data, PLAIN)
    assert list(data.left_out) == ["s1", "s6"]
    assert "left out s1: " in capsys.readouterr().err
    data.write_tables(tmp_path)
    assert pd.read_csv(tmp_path / "left_out.csv").name.tolist() == ["s1", "s6"]
    with pytest.raises(UserError, match=r"s1\.png"):
        taught_slides(tmp_path, path)


def test_a_teacher_of_other_classes_or_without_the_role(tmp_path):
    path = slides(tmp_path)
    weno_checkpoint(tmp_path, path)
    with pytest.raises(UserError, match=r"data\.role=model: choose teacher or student"):
        teach(taught_slides(tmp_path, path, role="model"), PLAIN)
    data = taught_slides(tmp_path, path)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(TaughtSlides, "class_names", ("benign", "malignant"))
    with pytest.raises(UserError, match=r"tells \['normal', 'tumour'\] apart"):
        teach(data, PLAIN)
    monkey.undo()


def test_a_teacher_that_was_trained_on_what_is_held_out_here(tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    refuse_seen(checkpoint, ["a"])
    checkpoint.parent.mkdir(parents=True)
    (tmp_path / "run" / "splits.csv").write_text("bag_id,split\na,train\nb,test\n")
    refuse_seen(checkpoint, ["b", "c"])
    with pytest.raises(UserError, match=r"trained on slide 'a', which is held out here: .*data\.split_file="):
        refuse_seen(checkpoint, ["b", "a"])


@pytest.mark.slow
def test_one_command_from_slides_and_a_run_to_a_student(tmp_path):
    path = slides(tmp_path)
    weno_checkpoint(tmp_path, path)
    small = ["trainer=cpu", "trainer.max_epochs=2", "data.slides=slides.csv", "data.classes=[normal,tumour]"]
    small += ["encoder=tiny_cnn", "tissue.mpp=4", "tissue.min_area_um2=0", "tiling.magnification=null", "cost_of=1"]
    small += ["tiling.mpp=4", "tiling.tile_size=16", "tiling.min_tissue=0.1", "hydra.run.dir=student"]
    guided = ["method.aggregator=${aggregator}", "data.teacher=weno.ckpt"]
    kd_mil("run", "experiment=resolution_weno", *small, *guided, cwd=tmp_path)
    metrics = json.loads((tmp_path / "student" / "metrics.json").read_text())
    assert 0 <= metrics["test/student/bag_auroc"] <= 1
    assert "test/aggregate/bag_auroc" in metrics
    assert 0 < metrics["cost/all/gmac"] < 0.1
    assert metrics["cost/all/seconds"] > 0
    kd_mil("predict", "ckpt=student", "slides=slides.csv", "out=out", "num_workers=0", cwd=tmp_path)
    table = pd.read_csv(tmp_path / "out" / "slides.csv")
    assert table.student_prob.between(0, 1).all()
    wrong = kd_mil("run", "experiment=resolution_weno", *small, "overwrite=true", cwd=tmp_path, check=False)
    assert wrong.returncode == 2
    assert "give one of them" in wrong.stderr
