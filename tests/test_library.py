"""The library from Python: methods built, trained, saved and loaded without a command."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import h5py
import lightning as L
import pytest
import torch

import kd_mil
from kd_mil.cards.recipes import build, recipe_of
from kd_mil.core.errors import UserError
from kd_mil.methods.weno.correction import LabelCorrection
from kd_mil.methods.weno.feedback import StudentFeedback
from kd_mil.methods.weno.transport_labels import TransportLabels

ROOT = Path(__file__).resolve().parent.parent


def bags(count=12, width=4):
    """Bags of three instances; those of positive bags hold one that is far off."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(count):
        features = torch.randn(3, width, generator=generator)
        features[0] += 4 * (number % 2)
        made.append(kd_mil.Bag(features, number % 2, f"slide_{number}"))
    return made


def weno(**settings):
    return kd_mil.WENO(
        (4,),
        2,
        encoder=partial(kd_mil.FeatureProjector, out_features=8),
        aggregator=partial(kd_mil.ABMIL, gated=True, hidden=[8]),
        student_head=partial(kd_mil.InstanceHead, hidden=(8,)),
        hpm=kd_mil.HardPositiveMining("threshold", threshold=0.9, start_epoch=1),
        preprocess=kd_mil.Preprocess(),
        optimizer=partial(torch.optim.Adam, lr=0.01),
        **settings,
    )


def fitted(folder, method=None):
    """A method trained by a plain trainer, and where its checkpoint lies."""
    method = method or weno()
    data = kd_mil.InMemoryBags(bags(), parts=["train", "train", "val", "val", "test", "test"] * 2)
    settings = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(max_epochs=1, default_root_dir=folder, use_distributed_sampler=False, **settings)
    trainer.fit(method, data)
    trainer.save_checkpoint(folder / "own.ckpt")
    return method.eval(), folder / "own.ckpt"


def modules_after(code):
    """Modules of a process of its own that imported kd_mil and ran the code."""
    code = f"import sys, kd_mil\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("library"))


def test_a_method_built_in_python_is_loaded_with_all_it_was(trained):
    method, checkpoint = trained
    loaded = kd_mil.load(checkpoint)
    assert type(loaded) is kd_mil.WENO
    assert not loaded.training
    assert (loaded.hpm.threshold, loaded.class_names) == (0.9, ["negative", "positive"])
    assert loaded.thresholds == method.thresholds
    bag = bags()[1].instances
    for role, said in method.predict(bag).items():
        again = loaded.predict(bag.numpy())[role]
        assert torch.equal(said.instance_probs, again.instance_probs)
        assert torch.equal(said.bag_probs, again.bag_probs)


def test_predict_leaves_the_modes_of_training_as_they_are(trained):
    method, _ = trained
    method.train()
    method.student_head.eval()
    method.predict(bags()[0].instances)
    assert method.training
    assert not method.student_head.training
    method.eval()


def test_a_class_loads_its_own_checkpoints(trained):
    _, checkpoint = trained
    assert isinstance(kd_mil.WENO.load_from_checkpoint(checkpoint, weights_only=True), kd_mil.WENO)
    with pytest.raises(UserError, match="holds WENO, not MIL"):
        kd_mil.MIL.load_from_checkpoint(checkpoint)
    with pytest.raises(UserError, match="seed: a checkpoint is loaded with the settings"):
        kd_mil.WENO.load_from_checkpoint(checkpoint, seed=3)


def test_the_command_predicts_with_a_method_built_in_python(trained, tmp_path, monkeypatch):
    import pandas as pd

    from kd_mil.predict import start

    method, checkpoint = trained
    (tmp_path / "features").mkdir()
    features = bags()[1].instances
    with h5py.File(tmp_path / "features" / "one.h5", "w") as file:
        file["features"] = features.numpy()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["predict", f"ckpt={checkpoint}", "features=features", "out=out", "device=cpu"])
    start()
    found = pd.read_csv(tmp_path / "out" / "slides.csv").iloc[0]
    expected = method.predict(features)["student"].bag_probs[0, 1]
    assert found["student_prob"] == pytest.approx(float(expected), abs=1e-6)


def test_what_cannot_be_described_is_said_and_trains_all_the_same(tmp_path):
    method = kd_mil.MIL(
        (4,),
        2,
        encoder=lambda instance_shape: kd_mil.FeatureProjector(instance_shape, out_features=3),
        aggregator=kd_mil.ABMIL,
        preprocess=kd_mil.Preprocess(),
        optimizer=partial(torch.optim.SGD, lr=0.01),
    )
    with pytest.warns(UserWarning, match=r"kd_mil.load will not read checkpoints of this MIL: .*<lambda>"):
        _, checkpoint = fitted(tmp_path, method)
    with pytest.raises(UserError, match="its model card has no method"):
        kd_mil.load(checkpoint)


def test_loading_needs_no_hydra(trained):
    _, checkpoint = trained
    ours = modules_after(f"kd_mil.load({str(checkpoint)!r})") - modules_after("import lightning.pytorch, torchmetrics")
    assert "kd_mil.methods.weno.weno" in ours
    assert not {name for name in ours if name.partition(".")[0] in ("hydra", "omegaconf", "matplotlib")}


def test_import_alone_imports_no_library():
    code = (
        "import sys, kd_mil; print([m for m in ('torch', 'lightning', 'pandas', 'hydra', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'WEN0'"):
        _ = kd_mil.WEN0


@pytest.mark.parametrize(
    "value",
    [
        3,
        [1, "a", None],
        {"a": (1.5, True)},
        partial(torch.nn.Linear, 3, bias=False),
        torch.optim.Adam,
        kd_mil.HardPositiveMining("threshold", threshold=0.25),
        TransportLabels("mixture", largest_mass=0.25),
        LabelCorrection(0.5),
        StudentFeedback(0.5, ramp=0.2),
    ],
)
def test_what_is_built_from_a_recipe_has_that_recipe(value):
    recipe = recipe_of(value)
    assert recipe_of(build(recipe)) == recipe


def test_a_recipe_is_what_hydra_builds_too():
    from hydra.utils import instantiate

    recipe = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2, "bias": False}
    nested = {"layers": [recipe], "late": recipe | {"_partial_": True}}
    ours, theirs = build(nested), instantiate(nested, _convert_="all")
    assert [type(layer) for layer in ours["layers"]] == [type(layer) for layer in theirs["layers"]]
    assert (ours["late"].func, ours["late"].keywords) == (theirs["late"].func, theirs["late"].keywords)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ([], "no bags"),
        ([(torch.zeros(2, 3), 0), (torch.zeros(2, 4), 1)], r"bag '1' has instances \(4,\)"),
        ([(torch.zeros(2, 3), 0), (torch.zeros(2, 3).half(), 1)], "float16"),
        ([(torch.zeros(3), 0)], r"not \(3,\)"),
        ([(torch.zeros(2, 3).long(), 0)], "int64"),
        ([(torch.full((2, 3), torch.nan), 0)], "NaN or infinite"),
        ([(torch.zeros(2, 3), 2)], "label 2"),
        ([(torch.zeros(0, 3), 0)], "empty"),
        ([(torch.zeros(2, 3), 0, "a"), (torch.zeros(2, 3), 1, "a")], "more than once"),
        ([kd_mil.Bag(torch.zeros(2, 3), 0, coords=[[0, 0], [1, 1]]), (torch.zeros(2, 3), 1)], "has no coords"),
        ([(torch.zeros(2, 3), 0, "a", [1])], "has 2 instances, but instance_labels of shape"),
    ],
)
def test_bags_that_are_none_are_refused(own, message):
    with pytest.raises(UserError, match=message):
        kd_mil.Bags.from_list(own)


def test_a_list_of_bags_is_laid_end_to_end():
    packed = kd_mil.Bags.from_list(
        [([[1.0, 2.0]], 0), kd_mil.Bag([[3.0, 4.0], [5.0, 6.0]], 1, "b", [0, 1], case_id="p")]
    )
    assert packed.instances.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert (packed.sizes.tolist(), packed.labels.tolist(), packed.bag_ids) == ([1, 2], [0, 1], ["0", "b"])
    assert packed.instance_labels.tolist() == [-1, 0, 1]
    assert packed.case_ids == ["0", "p"]


def test_cases_stay_whole_in_folds():
    made = [bag._replace(case_id=f"case_{number // 4}_{bag.label}") for number, bag in enumerate(bags(40))]
    data = kd_mil.InMemoryBags(made, num_folds=3, val_fraction=0.3)
    data.setup()
    cases = [{data.bags.case_ids[bag] for bag in part.tolist()} for part in data.splits[1:]]
    assert not cases[0] & cases[1] | cases[0] & cases[2] | cases[1] & cases[2]


@pytest.mark.parametrize("parts", [["train"], ["train"] * 11 + ["tset"]])
def test_parts_that_are_none_are_refused(parts):
    with pytest.raises(UserError, match="one of train, val, test for each of 12 bags"):
        kd_mil.InMemoryBags(bags(), parts=parts)


def test_the_example_of_the_readme_finds_its_positive_instances(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"## From Python\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    probs = names["said"].instance_probs
    assert probs[:5].mean() > probs[5:].mean()
