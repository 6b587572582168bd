"""An ensemble says the mean of its members, and refuses those that do not belong together."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kd_mil.cards.card import ModelCard
from kd_mil.core.errors import UserError
from kd_mil.methods.weno.weno import WENO
from kd_mil.predict import with_listed_members
from kd_mil.prediction.ensemble import Ensemble, one_card, refuse_other_roles
from kd_mil.prediction.members import checkpoints_of, model_of, write_model
from tests.support.tiny import TinyData, fit, no_mining, tiny_abmil, tiny_head, tiny_parts, tiny_splits

CARD = ModelCard({}, {"instance_shape": [6]}, ["normal", "tumour"], {"kind": "features"}, "weno", "abc")


@pytest.fixture(scope="module")
def members() -> list[WENO]:
    trained = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        method = WENO(**tiny_parts(), aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining(), seed=seed)
        fit(method, TinyData(tiny_splits()))
        trained.append(method.eval())
    return trained


def test_the_mean_of_the_members_and_their_spread(members: list[WENO]) -> None:
    bag = torch.randn(11, 6, generator=torch.Generator().manual_seed(0))
    found = Ensemble(members).predict_pieces(iter(bag.split(4)))
    each = [member.predict_pieces(bag.split(4)) for member in members]
    for role in ("teacher", "student"):
        bags = torch.stack([one[role].bag_probs for one in each])
        torch.testing.assert_close(found[role].bag_probs, bags.mean(0))
        assert found.spread[role] == pytest.approx(float(bags[:, 0, 1].std()))
        assert found.spread[role] > 0
        tiles = torch.stack([one[role].instance_probs for one in each])
        torch.testing.assert_close(found[role].instance_probs, tiles.mean(0))
        torch.testing.assert_close(found[role].instance_scores, tiles.mean(0))
    assert found["student"].attention is None


def test_members_that_read_instances_in_several_ways_are_told_of_once(
    members: list[WENO], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    bag = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    Ensemble(members).predict_pieces([bag])
    assert not [warning for warning in recwarn if "in several ways" in str(warning.message)]
    monkeypatch.setattr(members[1], "instance_score", "bag_of_one")
    both = Ensemble(members)
    for _ in range(2):
        both.predict_pieces([bag])
    [told] = [warning for warning in recwarn if "in several ways" in str(warning.message)]
    assert "read the instances of the teacher in several ways (attention, bag_of_one)" in str(told.message)


def test_thresholds_and_temperatures_are_means(members: list[WENO], tmp_path: Path) -> None:
    both = Ensemble(members)
    points = [member.operating.thresholds("sensitivity_95")["teacher"] for member in members]
    model = model_of(both, CARD, "sensitivity_95", calibrated=True)
    assert model.thresholds["teacher"] == pytest.approx(sum(points) / 2)
    temperatures = [member.operating.temperature_of["student"] for member in members]
    assert model.temperatures["student"] == pytest.approx((temperatures[0] * temperatures[1]) ** 0.5)
    assert model.decides == "teacher", "the role whose validation bags select the checkpoint"
    write_model(tmp_path, both, model)
    written = json.loads((tmp_path / "model.json").read_text())
    assert (written["members"], written["operating_point"]) == (2, "sensitivity_95")
    assert written["thresholds"] == model.thresholds
    assert model_of(members[0], CARD, None, calibrated=False).thresholds == members[0].thresholds


def test_members_of_another_task_are_refused(members: list[WENO]) -> None:
    paths = [Path("a"), Path("b")]
    assert one_card([CARD, replace(CARD, checkpoint="def")], paths).experiment == "weno (2 members)"
    for change in ({"class_names": ["a", "b"]}, {"source": {"kind": "tiles"}}, {"model_inputs": {}}):
        with pytest.raises(UserError, match=r"ckpt: a and b differ in .*: no ensemble"):
            one_card([CARD, replace(CARD, **change)], paths)
    other = WENO(**tiny_parts(), aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining())
    other.roles = ("teacher",)
    with pytest.raises(UserError, match="a predicts teacher, student, b predicts teacher"):
        refuse_other_roles([members[0], other], paths)


def test_a_folder_of_a_sweep_stands_for_its_finished_runs(tmp_path: Path) -> None:
    for name, status in (("seed=0", "finished"), ("seed=1", "finished"), ("seed=2", "running")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"status": status}))
    with pytest.warns(UserWarning, match="seed=2 is not finished"):
        found = checkpoints_of(str(tmp_path))
    assert found == [tmp_path / f"seed={seed}" / "checkpoints" / "best.ckpt" for seed in (0, 1)]
    assert checkpoints_of(str(tmp_path / "seed=0")) == found[:1]
    with pytest.raises(UserError, match="is given twice"):
        checkpoints_of([str(tmp_path / "seed=0")] * 2)
    with pytest.raises(UserError, match="ckpt is not set"):
        checkpoints_of(None)


def test_names_of_runs_keep_their_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("fold=0,seed=1", "fold=1,seed=1"):
        Path(name).mkdir()
    assert with_listed_members(["ckpt=[fold=0,seed=1, fold=1,seed=1]", "out=x"]) == [
        "ckpt=['fold=0,seed=1','fold=1,seed=1']",
        "out=x",
    ]
