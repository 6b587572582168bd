"""A bag classifier of one's own teaches WENO without a line in this package; sweeps end in their table and figure."""

import importlib
import json

import pytest
from hydra import compose, initialize_config_dir

from kd_mil.cli.command import CONFIG_DIR
from tests.support.command import ROOT, kd_mil, python

SMALL = ["trainer=cpu", "trainer.max_epochs=1", "data.max_train_bags=8", "data.max_test_bags=4"]
OWN_MODULE = """
import torch
from torch import nn
from kd_mil.models.outputs import MILOutput


class PowerPooling(nn.Module):
    def __init__(self, in_features, num_classes, power=1.0):
        super().__init__()
        self.score, self.classify, self.power = nn.Linear(in_features, 1), nn.Linear(in_features, num_classes), power

    def forward(self, features, sizes):
        logits = self.power * self.score(features).squeeze(1)
        parts = zip(features.split(sizes.tolist()), logits.split(sizes.tolist()))
        attention = [part.softmax(0) for part in logits.split(sizes.tolist())]
        embedding = torch.stack([a @ h for a, (h, _) in zip(attention, parts)])
        return MILOutput(self.classify(embedding), logits, torch.cat(attention), embedding)
"""


@pytest.mark.slow
def test_a_module_outside_the_repository_teaches_weno(tmp_path):
    """Found by its dotted path in the working directory, with a setting of its own."""
    (tmp_path / "my_pooling.py").write_text(OWN_MODULE)
    own = ["aggregator=custom", "aggregator._target_=my_pooling.PowerPooling", "+aggregator.power=2.0"]
    kd_mil("run", "experiment=weno", *own, *SMALL, "hydra.run.dir=out", cwd=tmp_path)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 <= metrics["test/teacher/instance_auroc"] <= 1
    assert metrics["test/student/bag_loss"] > 0


@pytest.mark.slow
def test_the_class_must_be_named(tmp_path):
    result = kd_mil("run", "experiment=weno", "aggregator=custom", *SMALL, cwd=tmp_path, check=False)
    assert result.returncode == 2
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "_target_" in line


@pytest.mark.parametrize(("experiment", "without"), [("weno_any", {"mean"}), ("mil_any", set())])
def test_one_command_sweeps_every_aggregator_of_the_framework(experiment, without):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("run", overrides=[f"experiment={experiment}"], return_hydra_config=True)
    swept = set(config.hydra.sweeper.params.aggregator.split(","))
    known = {path.stem for path in (CONFIG_DIR / "aggregator").glob("*.yaml")}
    assert swept == {name for name in known if not name.endswith("_released")} - {"custom", "torchmil"} - without


@pytest.mark.slow
def test_the_ablation_sweep_ends_in_table_and_curves(tmp_path, monkeypatch):
    """Two of its rows; the sweep's other rows are in its configuration."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("run", overrides=["experiment=weno_ablation"], return_hydra_config=True)
    rows = config.hydra.sweeper.params.ablation.split(",")
    assert sorted(rows) == sorted(path.stem for path in (CONFIG_DIR / "ablation").glob("*.yaml"))
    kd_mil("run", "-m", "experiment=weno_ablation", "ablation=teacher,hpm", *SMALL, cwd=tmp_path)
    runs = sorted((tmp_path / "runs" / "weno_ablation").glob("ablation=*"))
    assert len(runs) == 2
    python(str(ROOT / "experiments" / "ablation.py"), "out", *map(str, runs), cwd=tmp_path)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    for row, role in (("teacher", "model"), ("hpm", "student")):
        [run] = [path for path in runs if f"ablation={row}" in path.name]
        metrics = json.loads((run / "metrics.json").read_text())
        assert results[row]["instance_auroc"]["values"] == [metrics[f"test/{role}/instance_auroc"]]
    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert table[2].startswith("|  |  |  | ")
    assert table[3].startswith("| yes | yes | yes | ")
    assert (tmp_path / "out" / "curves.png").stat().st_size > 5000
    monkeypatch.syspath_prepend(ROOT / "experiments")
    curve = importlib.import_module("ablation").curve
    [run] = [path for path in runs if "ablation=hpm" in path.name]
    assert len(curve(run, "val/student/bag_auroc")) == 1, "one epoch; the selected checkpoint's score is none"
