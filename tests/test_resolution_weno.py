"""From slides with labels and a WENO run to a student at low magnification, and its predictions."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kd_mil.core.checkpoints import read_checkpoint
from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.tiles.taught_slides import TaughtSlides
from kd_mil.jobs.teach import refuse_seen, teach
from kd_mil.prediction.pipeline import Predictor
from kd_mil.slides.tiles.tiling import TilingSettings
from tests.support.command import kd_mil
from tests.support.taught import CLASSES, TISSUE, slides, weno_checkpoint

PLAIN = {"loading": {"num_workers": 0}, "trainer": {"accelerator": "cpu"}}


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
    monkeypatch.setattr(Predictor, "said_of", lambda *_: pytest.fail("predicted again"))
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
    refuse_seen(checkpoint, {"a": "a"})
    checkpoint.parent.mkdir(parents=True)
    (tmp_path / "run" / "splits.csv").write_text("bag_id,split\na,train\nb,test\n")
    refuse_seen(checkpoint, {"b": "b", "c": "c"})
    with pytest.raises(UserError, match=r"trained on slide 'a', which is held out here: .*data\.split_file="):
        refuse_seen(checkpoint, {"b": "b", "a": "a"})


@pytest.mark.parametrize("rows", ["bag_id,case_id,split\na,p,train\n", "bag_id,case_id,split\np,p,train\n"])
def test_a_teacher_that_was_trained_on_another_slide_of_a_case_that_is_held_out_here(tmp_path, rows):
    """Also one whose bags were cases."""
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir(parents=True)
    (tmp_path / "run" / "splits.csv").write_text(rows)
    refuse_seen(checkpoint, {"b": "q"})
    with pytest.raises(UserError, match=r"trained on case 'p', of which slide 'b' is held out here: .*split_file="):
        refuse_seen(checkpoint, {"b": "p"})


def said_of_all(folder, path, classes=None):
    """A folder as `kd_mil.predict` writes it, one tile a slide."""
    (folder / "instances").mkdir(parents=True)
    for name in pd.read_csv(path).slide_path.str.removesuffix(".png"):
        table = {"x": [64], "y": [64], "tile_size_level0": [32], "student_prob": [0.75]}
        pd.DataFrame(table).to_parquet(folder / "instances" / f"{name}.parquet")
    if classes is not None:
        (folder / "model.json").write_text(json.dumps({"class_names": classes}))
    return {"teacher": None, "predictions": str(folder)}


def test_predictions_teach_the_slides_that_the_split_file_trains_on(tmp_path):
    path = slides(tmp_path)
    parts = pd.read_csv(path).assign(bag_id=lambda table: table.slide_path.str.removesuffix(".png"))
    parts["split"] = parts.split.map({"train": "val", "val": "test", "test": "train"})
    parts[["bag_id", "split"]].to_csv(tmp_path / "splits.csv", index=False)
    given = said_of_all(tmp_path / "said", path)
    data = taught_slides(tmp_path, path, split_file=str(tmp_path / "splits.csv"), **given)
    known = data.taught.probs.isfinite().all(1)
    for part in ("train", "val", "test"):
        for bag in getattr(data.splits, part).tolist():
            assert known[data.bags.instances_of(torch.tensor([bag]))].any() == (part == "train")


def test_a_teacher_that_has_the_classes_in_another_order_is_refused(tmp_path):
    path = slides(tmp_path)
    given = said_of_all(tmp_path / "said", path, ["tumour", "normal"])
    with pytest.raises(UserError, match=r"data\.classes=\['normal', 'tumour'\]: .* those of 'normal': give both"):
        taught_slides(tmp_path, path, **given)
    (tmp_path / "said" / "model.json").write_text(json.dumps({"class_names": ["benign", "malignant"]}))
    taught_slides(tmp_path, path, **given)


def test_cases_are_no_bags_of_taught_slides(tmp_path):
    with pytest.raises(UserError, match=r"data\.bag_by=case: a teacher's word is that on single slides"):
        taught_slides(tmp_path, slides(tmp_path), bag_by="case")


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
    kd_mil("run", "experiment=resolution_weno", *small, *guided, "cost_of=0", "hydra.run.dir=again", cwd=tmp_path)
    weights = [read_checkpoint(tmp_path / run / "checkpoints/last.ckpt")["state_dict"] for run in ("student", "again")]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items()), "what it read again"
    wrong = kd_mil("run", "experiment=resolution_weno", *small, "overwrite=true", cwd=tmp_path, check=False)
    assert wrong.returncode == 2
    assert "give one of them" in wrong.stderr
