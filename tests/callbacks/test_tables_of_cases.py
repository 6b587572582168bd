"""cases.csv of a run that reports cases, and its numbers again from the table."""

from dataclasses import replace

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from kd_mil.callbacks.tables_of_cases import WriteCases
from kd_mil.methods.weno.weno import WENO
from tests.support.tiny import TinyData, fit, no_mining, tiny_abmil, tiny_head, tiny_parts, tiny_splits


def test_cases_are_scored_and_written(tmp_path):
    splits = tiny_splits(bags=48)
    cases = [f"{index % 2}-{index // 4}" for index in range(48)]
    splits = splits._replace(bags=replace(splits.bags, case_ids=cases))
    data = TinyData(splits)
    data.report_by = "case"
    method = WENO(**tiny_parts(), aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining())
    trainer = fit(method, data)
    of_validation = method.scores["val"]["teacher"]
    assert method.validation_loss("teacher") == of_validation["case_loss"] != of_validation["bag_loss"]
    trainer.callbacks.append(WriteCases(str(tmp_path)))
    trainer.test(method, datamodule=data, verbose=False)
    table, scores = pd.read_csv(tmp_path / "cases.csv"), method.scores["test"]
    assert table.bags.sum() == 12
    assert table.case_id.is_unique
    for role in ("teacher", "student"):
        assert scores[role]["case_auroc"] == pytest.approx(roc_auc_score(table.label, table[f"{role}_prob"]))
        threshold = scores[role]["case_threshold"]
        assert threshold == method.operating.thresholds("youden", of="cases")[role]
        right = (table[f"{role}_prob"] >= threshold) == table.label
        assert scores[role]["case_accuracy_tuned"] == pytest.approx(right.mean())
        assert method.operating.thresholds("youden")[role] == pytest.approx(method.thresholds[role])
    card = pd.read_csv(tmp_path / "scorecard.csv")
    [student] = card[card.word == "student"].to_dict("records")
    assert student["auroc"] == pytest.approx(scores["student"]["instance_auroc"])
