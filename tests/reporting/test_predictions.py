"""Ids as text, cases from the table or the split file, and tables that do not fit each other."""

import numpy as np
import pandas as pd
import pytest

from kd_mil.core.errors import UserError
from kd_mil.reporting.predictions import held_out, image_values, predicted_rows
from tests.support.runs import group, make_run

IDS = ["001", "NA", "1.10", "1.1", "1", "nan", "1e3", "None", "TRUE", "01", *(f"0{i}.50" for i in range(10, 40))]


def test_ids_are_text(tmp_path):
    """`001` and `1`, `1.10` and `1.1` are four bags; `NA` and `nan` are names. Instances find their bags."""
    run = make_run(tmp_path, "weno", [], 0, 1.0, ids=IDS)
    group(run, lambda bag_id: {"001": "NA", "NA": "NA"}.get(bag_id, bag_id))
    tested = held_out(run)
    assert tested.ids == IDS
    assert tested.cases == ["NA", "NA", *IDS[2:]]
    rows = predicted_rows(run, "instance", "student", tested)
    table = pd.read_parquet(run / "instances.parquet")
    assert [IDS[owner] for owner in rows.owners] == table.bag_id[table.label >= 0].tolist()
    np.testing.assert_array_equal(rows.classes[0].ranking, table.student_score[table.label >= 0])


def test_what_is_resampled_in_words(tmp_path):
    run = make_run(tmp_path, "weno", [], 0, 1.0)
    assert held_out(run).resampled == "bags (the run does not say of which cases)"
    group(run, lambda bag_id: bag_id)
    assert held_out(run).resampled == "bags"
    group(run, lambda bag_id: bag_id[:2])
    assert held_out(run).resampled == "cases, all bags of a case together"


def test_cases_in_the_table_itself_come_first(tmp_path):
    run = make_run(tmp_path, "weno", [], 0, 1.0)
    group(run, lambda bag_id: "from splits")
    bags = pd.read_csv(run / "bags.csv")
    bags.insert(1, "case_id", ["", *["007"] * 39])
    bags.to_csv(run / "bags.csv", index=False)
    assert held_out(run).cases == ["b0", *["007"] * 39], "without one a bag is its own case"


def test_tables_of_two_runs_are_refused(tmp_path):
    run = make_run(tmp_path, "weno", [], 0, 1.0)
    pd.DataFrame({"bag_id": ["b0"], "case_id": ["c"]}).to_csv(run / "splits.csv", index=False)
    with pytest.raises(UserError, match="bag 'b1' was tested, but is not listed"):
        held_out(run)
    (run / "splits.csv").unlink()
    tested = held_out(run)
    with pytest.raises(UserError, match=r"bag 'b3' is not in bags.csv"):
        predicted_rows(run, "instance", "student", tested._replace(ids=["b0", "b1", "b2"]))


@pytest.mark.parametrize("name", ["bags.csv", "instances.parquet"])
def test_a_damaged_table_is_one_line(tmp_path, name):
    run = make_run(tmp_path, "weno", [], 0, 1.0)
    tested = held_out(run)
    (run / name).write_bytes(b"PAR1\x00\xff\xfe")
    with pytest.raises(UserError, match=name):
        predicted_rows(run, "instance" if name.endswith("parquet") else "bag", "student", tested)
    (run / name).write_text("bag_id,label,student_prob\nb0,1,much\n")
    with pytest.raises(UserError, match=name):
        predicted_rows(run, "instance" if name.endswith("parquet") else "bag", "student", tested)


def test_an_undefined_probability_leaves_nothing_to_resample(tmp_path):
    run = make_run(tmp_path, "weno", [], 0, 1.0)
    text = (run / "bags.csv").read_text().splitlines()
    text[1] = "b0,0,"
    (run / "bags.csv").write_text("\n".join(text))
    assert predicted_rows(run, "bag", "student", held_out(run)) is None


def test_images_of_both_kinds(tmp_path):
    """Classes are named in the tables of resolution distillation, and numbered in those of segmentation."""
    named = "image_id,case_id,label,student_prob_1,student_prob_0\n001,a,1,.9,.1\n002,a,0,.2,.8\n003,b,0,.6,.4\n"
    (tmp_path / "images.csv").write_text(named)
    rows = predicted_rows(tmp_path, "image", "student", held_out(tmp_path))
    assert rows.right.tolist() == [1, 1, 0]
    assert [of_class.labels.tolist() for of_class in rows.classes] == [[1, 0, 0], [0, 1, 1]]
    numbered = "image_id,case_id,label,student_prob,student_f1\n001,a,1,.9,.25\n002,a,0,.6,\n"
    (tmp_path / "images.csv").write_text(numbered)
    tested = held_out(tmp_path)
    rows = predicted_rows(tmp_path, "image", "student", tested)
    assert (rows.right.tolist(), rows.classes[0].ranking.tolist()) == ([1, 0], [0.9, 0.6])
    np.testing.assert_array_equal(image_values(tmp_path, "student", "f1", tested), [0.25, np.nan])
    assert tested.resampled == "cases, all images of a case together"
