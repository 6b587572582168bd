"""Cases predicted as bags: one bag of all slides of a patient, shown slide by slide."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.core.run_files import write_json
from kd_mil.core.shards import EVERYTHING, Shard
from kd_mil.models.outputs import Prediction
from kd_mil.prediction.case_bags import CasePredictor, part_of
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.outputs import Model, OutputSettings, write_table
from kd_mil.reporting.cohort.reading import read_predictions
from tests.support.methods import make_weno
from tests.support.slides_in_memory import Bag

HALVES = {"teacher": 0.5, "student": 0.5}


@pytest.fixture
def method():
    return make_weno().eval()


def predicted(method, out: Path, bags: list[Bag], on_error: Any = "skip", shard: Shard = EVERYTHING):
    model = Model(["normal", "tumour"], HALVES, HALVES, "weno", "abc", "teacher")
    return CasePredictor(method, model, out, OutputSettings(), Ledger(out / ".finished", []), on_error, shard).run(bags)


def cohort() -> list[Bag]:
    """Patient p has two slides with tissue and one without, q one damaged slide of two, r one slide."""
    rows = (("p1", 5, "p"), ("q1", 4, "q"), ("p2", 3, "p"), ("p3", 0, "p"), ("q2", None, "q"), ("r1", 6, "r"))
    return [Bag(name, size, case, seed) for seed, (name, size, case) in enumerate(rows)]


def test_a_case_is_the_bag_of_its_slides_and_each_slide_has_its_tiles(method, tmp_path):
    bags = cohort()
    rows = predicted(method, tmp_path, bags)
    assert [row["slide_id"] for row in rows] == [bag.slide_id for bag in bags]
    table = pd.read_csv(tmp_path / "slides.csv", index_col="slide_id")
    whole = method.predict_pieces([bags[0].features, bags[2].features])
    assert (
        table.teacher_prob["p1"] == table.teacher_prob["p2"] == pytest.approx(float(whole["teacher"].bag_probs[0, 1]))
    )
    assert table.loc["p3", "note"] == "no tissue"
    assert set(table.loc[["q1", "q2"], "note"]) == {"slide 'q2' is damaged"}
    for name, part in (("p1", slice(0, 5)), ("p2", slice(5, 8))):
        tiles = pd.read_parquet(tmp_path / "instances" / f"{name}.parquet")
        assert tiles.student_prob.tolist() == pytest.approx(whole["student"].instance_probs[part].tolist())
        assert tiles.attention.tolist() == pytest.approx(whole["teacher"].attention[part].tolist())
        assert (tmp_path / "panels" / f"{name}.js").is_file()
    cases = pd.read_csv(tmp_path / "cases.csv", index_col="case_id")
    assert cases.index.tolist() == ["p", "r"]
    assert cases.loc["p", ["slides", "tiles"]].tolist() == [2, 8]
    assert cases.teacher_prob["p"] == table.teacher_prob["p1"]
    assert cases.teacher_decision["r"] == table.teacher_decision["r1"]
    known = {"class_names": ["normal", "tumour"], "thresholds": HALVES, "decides": "teacher", "operating_point": "f1"}
    write_json(tmp_path / "model.json", known)
    assert read_predictions(tmp_path).cases == ["p", "p", "r"]


def test_what_is_finished_is_kept_and_another_slide_of_the_case_changes_all_of_it(method, tmp_path):
    bags = [Bag("a1", 5, "a"), Bag("a2", 3, "a", 1), Bag("b1", 4, "b", 2)]
    first = predicted(method, tmp_path, bags)
    assert predicted(method, tmp_path, bags) == first
    assert [bag.opened for bag in bags] == [1, 1, 1]
    bags[1].version = 1
    predicted(method, tmp_path, bags)
    assert [bag.opened for bag in bags] == [2, 2, 1]
    predicted(method, tmp_path, [bags[0], bags[2]])
    assert bags[0].opened == 3, "without its second slide the case is another bag"


def test_a_part_holds_whole_cases(method, tmp_path):
    bags = [Bag(f"{case}{number}", 3, case, number) for number in range(2) for case in "abcdef"]
    for index in range(2):
        rows = predicted(method, tmp_path, bags, shard=Shard(index, 2))
        assert {row["case_id"] for row in rows} == {case for case in "abcdef" if Shard(index, 2).holds(case)}
    assert len(pd.read_csv(tmp_path / "cases.csv")) == 6


def test_the_spread_of_an_ensemble_stays_with_its_slides():
    class Said(dict):
        pass

    probs = torch.tensor([0.1, 0.2, 0.9])
    said = Said(teacher=Prediction(torch.tensor([[0.1, 0.9]]), probs, probs, readings=lambda: {"own": probs}))
    said.spread = {"teacher": 0.1}
    part = part_of(said, slice(1, 3))
    assert part.spread == {"teacher": 0.1}
    assert part["teacher"].instance_probs.tolist() == probs[1:].tolist()
    assert part["teacher"].readings()["own"].tolist() == probs[1:].tolist()
    assert part["teacher"].attention is None
    assert said["teacher"].instance_probs is probs


def test_mistakes_are_one_line(method, tmp_path):
    with pytest.raises(UserError, match="give their list a column case_id"):
        predicted(method, tmp_path, [Bag("a", 3), Bag("b", 3)])
    with pytest.raises(UserError, match="'q2' is damaged"):
        predicted(method, tmp_path, cohort(), on_error="stop")


def test_a_slide_that_cannot_be_written_is_the_fault_of_its_case(method, tmp_path, monkeypatch):
    def full_disk(folder, slide_id, *rest):
        if slide_id == "p2":
            raise OSError(28, "No space left on device")
        return write_table(folder, slide_id, *rest)

    monkeypatch.setattr("kd_mil.prediction.pipeline.write_table", full_disk)
    rows = {row["slide_id"]: row["note"] for row in predicted(method, tmp_path, cohort())}
    assert all("No space left" in rows[name] for name in ("p1", "p2", "p3"))
    assert rows["r1"] == ""
