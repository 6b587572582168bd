"""A folder of predictions against labels: every number again from the tables, by scikit-learn."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from kd_mil.core.errors import UserError
from kd_mil.evaluation.statistics.delong import delong
from kd_mil.jobs.evaluate import Evaluation, evaluate
from tests.support.runs import group, make_run

MODEL = {
    "class_names": ["normal", "tumour"],
    "decides": "teacher",
    "operating_point": "youden",
    "thresholds": {"teacher": 0.4, "student": 0.6},
    "case_thresholds": {"teacher": 0.45, "student": 0.65},
    "case_pooling": "max",
}


@pytest.fixture
def folder(tmp_path):
    """40 slides of 20 cases, one without a prediction and one without a label."""
    rng = np.random.default_rng(0)
    ids, labels = [f"s{i:02}" for i in range(42)], np.arange(42) // 2 % 2
    probs = {role: (0.3 * labels + 0.7 * rng.random(42)).round(3) for role in ("teacher", "student")}
    table = pd.DataFrame({"slide_id": ids, **{f"{role}_prob": column for role, column in probs.items()}, "note": ""})
    table.loc[40, ["teacher_prob", "student_prob", "note"]] = [math.nan, math.nan, "no tissue"]
    table.to_csv(tmp_path / "slides.csv", index=False)
    (tmp_path / "model.json").write_text(json.dumps(MODEL))
    truth = pd.DataFrame({"slide_id": ids[:41], "label": np.take(["normal", "tumour"], labels[:41])})
    truth["case_id"], truth["site"] = [f"c{i // 2}" for i in range(41)], ["A", "B", "A"] * 13 + ["A", "B"]
    truth.to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


def evaluated(folder, **settings):
    evaluate(folder, folder / "out", Evaluation(str(folder / "labels.csv"), resamples=200, **settings))
    read = {path.stem: pd.read_csv(path) for path in (folder / "out").glob("*.csv")}
    return read, json.loads((folder / "out" / "metrics.json").read_text())


@pytest.mark.parametrize("unit", ["slide", "case"])
def test_every_number_again_from_the_rows(folder, unit):
    tables, found = evaluated(folder, report_by=unit)
    rows = tables["evaluated"]
    thresholds = MODEL["thresholds" if unit == "slide" else "case_thresholds"]
    truth = rows.label == "tumour"
    assert (found["count"], found["cases"]) == ((40, 20) if unit == "slide" else (20, 20))
    assert found["left_out"] == {"s40": "no prediction: no tissue", "s41": "no label"}
    for role in ("teacher", "student"):
        probs, decided = rows[f"{role}_prob"], rows[f"{role}_decision"] == "tumour"
        assert (decided == (probs >= thresholds[role])).all()
        confusion = tables["confusion"].query("role == @role").set_index(["label", "decision"])["count"]
        [[tn, fp], [fn, tp]] = metrics.confusion_matrix(truth, decided)
        assert confusion["normal", "tumour"] == fp
        expected = {
            "auroc": metrics.roc_auc_score(truth, probs),
            "ap": metrics.average_precision_score(truth, probs),
            "accuracy": metrics.accuracy_score(truth, decided),
            "balanced_accuracy": metrics.balanced_accuracy_score(truth, decided),
            "f1": metrics.f1_score(truth, decided),
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "precision": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "brier": metrics.brier_score_loss(truth, probs),
            "loss": metrics.log_loss(truth, probs),
        }
        for metric, value in expected.items():
            name = f"{role}/{unit}_{metric}"
            assert found[name] == pytest.approx(value), metric
            assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"], metric
        curve = tables["roc"].query("role == @role")
        assert metrics.auc(curve.false_positive_rate, curve.true_positive_rate) == pytest.approx(expected["auroc"])
        bins = tables["reliability"].query("role == @role and counts > 0")
        gap = ((bins.predicted - bins.observed).abs() * bins.counts).sum() / bins.counts.sum()
        assert found[f"{role}/{unit}_ece"] == pytest.approx(gap)
    assert (folder / "out" / "roc.png").is_file()


def test_a_case_is_as_positive_as_its_most_positive_slide(folder):
    slides, cases = evaluated(folder)[0]["evaluated"], evaluated(folder, report_by="case")[0]["evaluated"]
    assert cases.set_index("case_id").teacher_prob.to_dict() == slides.groupby("case_id").teacher_prob.max().to_dict()
    with pytest.warns(UserWarning, match="thresholds of cases were chosen with max in training"):
        means = evaluated(folder, report_by="case", case_pooling="mean")[0]["evaluated"]
    expected = slides.groupby("case_id").teacher_prob.mean()
    assert means.set_index("case_id").teacher_prob.to_dict() == pytest.approx(expected.to_dict())


def test_cases_are_pooled_as_training_pooled_them(folder):
    (folder / "model.json").write_text(json.dumps(MODEL | {"case_pooling": "mean"}))
    slides, cases = evaluated(folder)[0]["evaluated"], evaluated(folder, report_by="case")[0]["evaluated"]
    expected = slides.groupby("case_id").teacher_prob.mean()
    assert cases.set_index("case_id").teacher_prob.to_dict() == pytest.approx(expected.to_dict())


def test_a_column_of_labels_called_like_a_prediction_is_kept(folder):
    labels = pd.read_csv(folder / "labels.csv").assign(teacher_prob=range(41))
    labels.to_csv(folder / "labels.csv", index=False)
    rows = evaluated(folder)[0]["evaluated"]
    assert rows.teacher_prob.between(0, 1).all()
    assert rows.teacher_prob_given.tolist() == list(range(40))


def test_intervals_draw_cases_and_delong_needs_independent_rows(folder):
    """Slides of a case are correlated, so the test of two roles exchanges cases; of cases DeLong's is right."""
    slides, cases = evaluated(folder)[0], evaluated(folder, report_by="case")[0]
    assert slides["comparisons"].test.tolist() == ["permutation"]
    assert cases["comparisons"].test.tolist() == ["DeLong"]
    assert "DeLong" not in slides["metrics"].interval.tolist()
    rows = cases["evaluated"]
    area = delong(rows.teacher_prob.to_numpy(), (rows.label == "tumour").to_numpy())
    [found] = cases["metrics"].query("interval == 'DeLong' and role == 'teacher'").to_dict("records")
    assert (found["value"], found["low"], found["high"]) == pytest.approx((area.auroc, area.low, area.high))
    assert "Wilson" not in slides["metrics"].interval.tolist()
    truth, decided = rows.label == "tumour", rows.teacher_decision == "tumour"
    expected = binomtest(int((truth & decided).sum()), int(truth.sum())).proportion_ci(method="wilson")
    asked = "interval == 'Wilson' and role == 'teacher' and metric == 'sensitivity'"
    [found] = cases["metrics"].query(asked).to_dict("records")
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert "sensitivity (Wilson)" in (folder / "out" / "index.html").read_text()


def test_subgroups_are_scored_apart_and_counted(folder):
    tables, _ = evaluated(folder, subgroups=["site"])
    rows, scores = tables["evaluated"], tables["metrics"]
    for site, part in rows.groupby("site"):
        asked = f"group == 'site={site}' and role == 'student' and metric == 'auroc' and interval == 'cases'"
        [one] = scores.query(asked).to_dict("records")
        assert one["value"] == pytest.approx(metrics.roc_auc_score(part.label == "tumour", part.student_prob))
        assert (one["rows"], one["positives"]) == (len(part), (part.label == "tumour").sum())
    with pytest.raises(UserError, match=r"no column 'sites'; known: site; did you mean 'site'"):
        evaluated(folder, subgroups=["sites"])


def test_one_class_and_one_case_prove_nothing(folder):
    """No p value and no interval of what is undefined, and no interval over a single case."""
    truth = pd.read_csv(folder / "labels.csv")
    truth.assign(label="tumour").to_csv(folder / "labels.csv", index=False)
    [one] = evaluated(folder)[0]["comparisons"].to_dict("records")
    assert np.isnan([one[name] for name in ("difference", "low", "high", "p", "p_adjusted")]).all()
    truth.assign(case_id="same").to_csv(folder / "labels.csv", index=False)
    tables, _ = evaluated(folder, subgroups=["site", "site"])
    scores, [one] = tables["metrics"], tables["comparisons"].to_dict("records")
    assert scores.low.isna().all()
    assert scores.query("metric == 'accuracy'").value.notna().all()
    assert np.isnan([one["low"], one["high"], one["p"]]).all()
    assert not scores.duplicated(["group", "role", "metric"]).any(), "a column asked for twice counts once"


def test_against_itself_nothing_differs(folder):
    tables, _ = evaluated(folder, against=str(folder))
    same = tables["comparisons"].query("theirs == 'other teacher' and ours == 'teacher'")
    assert same[["difference", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]]
    assert same.p.item() == 1


def test_the_page_shows_the_tables_and_names_stay_text(folder):
    """The numbers of metrics.csv, a subgroup with a hostile name, and what was left out."""
    labels = pd.read_csv(folder / "labels.csv").replace({"site": {"A": "<script>alert(1)</script>"}})
    labels.to_csv(folder / "labels.csv", index=False)
    tables, _ = evaluated(folder, subgroups=["site"], against=str(folder))
    page = (folder / "out" / "index.html").read_text()
    assert "<script" not in page
    assert "site=&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "decided by the teacher from 0.400 on (youden, chosen on validation)" in page
    whole = tables["metrics"].query("group == 'all' and metric == 'auroc' and interval == 'cases'")
    for row in whole.itertuples():
        assert f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" in page
    assert page.count("data:image/png;base64,") == 2
    assert "Confusion of the student" in page
    assert "s40: no prediction: no tissue" in page
    assert "Benjamini" in page


def test_mistakes_are_one_line(folder):
    (folder / "labels.csv").write_text("slide_id,label\ns00,tumor\n")
    with pytest.raises(UserError, match=r"line 2: the model knows no class 'tumor'; .*did you mean 'tumour'"):
        evaluated(folder)
    table = pd.read_csv(folder / "slides.csv", dtype=str, keep_default_na=False)
    for cell, shown in {"1.5": "1.5", "": "an empty cell", "nan": "nan"}.items():
        table.loc[3, "student_prob"] = cell
        table.to_csv(folder / "slides.csv", index=False)
        with pytest.raises(UserError, match=f"line 5: column 'student_prob' holds {shown}, which is no probability"):
            evaluated(folder)
    (folder / "model.json").unlink()
    with pytest.raises(UserError, match=r"model.json is missing: predict again"):
        evaluated(folder)


def test_a_run_is_a_cohort_with_labels_of_its_own(tmp_path):
    """Its AUROC is that of its metrics.json; a table without labels gives the subgroups."""
    run = make_run(tmp_path, "weno", [], 0, 1.0)
    group(run, lambda bag_id: f"case{int(bag_id[1:]) // 4}")
    evaluate(run, tmp_path / "own", Evaluation(None, resamples=50))
    found = json.loads((tmp_path / "own" / "metrics.json").read_text())
    recorded = json.loads((run / "metrics.json").read_text())
    assert found["student/bag_auroc"] == pytest.approx(recorded["test/student/bag_auroc"])
    assert (found["unit"], found["count"], found["cases"]) == ("bag", 40, 10)
    sites = pd.DataFrame({"slide_id": [f"b{i}" for i in range(40)], "site": ["A", "A", "B", "B"] * 10})
    sites.to_csv(tmp_path / "sites.csv", index=False)
    evaluate(run, tmp_path / "sites", Evaluation(str(tmp_path / "sites.csv"), resamples=50, subgroups=["site"]))
    scores = pd.read_csv(tmp_path / "sites" / "metrics.csv")
    assert set(scores.group) == {"all", "site=A", "site=B"}
    with pytest.raises(UserError, match=r"neither slides.csv of kd_mil.predict nor bags.csv of a run"):
        evaluate(tmp_path / "sites", tmp_path / "x", Evaluation(None))


def test_several_classes_have_scores_of_each_though_one_is_absent(tmp_path):
    """Means over classes are undefined without one of them, those of the others are not."""
    rng = np.random.default_rng(0)
    names, labels, probs = ["a", "b", "c"], np.arange(30) % 3, rng.dirichlet(np.ones(3), 30)
    table = {"slide_id": [f"s{i}" for i in range(30)]} | {
        f"model_prob_{name}": probs[:, i] for i, name in enumerate(names)
    }
    pd.DataFrame(table | {"note": ""}).to_csv(tmp_path / "slides.csv", index=False)
    model = MODEL | {"class_names": names, "decides": "model", "thresholds": {"model": 0.5}, "case_thresholds": None}
    (tmp_path / "model.json").write_text(json.dumps(model))
    truth = pd.DataFrame({"slide_id": table["slide_id"], "label": np.take(names, labels)})
    truth[labels < 2].to_csv(tmp_path / "labels.csv", index=False)
    found = evaluated(tmp_path)[1]
    assert found["model/slide_auroc"] is None
    assert found["model/slide_auroc_c"] is None
    kept = probs[labels < 2]
    assert found["model/slide_auroc_a"] == pytest.approx(metrics.roc_auc_score(labels[labels < 2] == 0, kept[:, 0]))
    decided = kept.argmax(1)
    expected = metrics.recall_score(labels[labels < 2], decided, labels=[1], average="macro")
    assert found["model/slide_sensitivity_b"] == pytest.approx(expected)
    assert found["model/slide_auroc_a_low"] < found["model/slide_auroc_a"] < found["model/slide_auroc_a_high"]


def test_a_case_of_slides_of_two_sites_is_of_both(folder):
    tables, _ = evaluated(folder, report_by="case", subgroups=["site"])
    rows = tables["evaluated"].set_index("case_id").site
    truth = pd.read_csv(folder / "labels.csv").query("slide_id != 's40'").groupby("case_id").site
    assert rows.to_dict() == truth.agg(lambda sites: " + ".join(sorted(set(sites)))).to_dict()
    assert "A + B" in set(rows)
    counted = tables["metrics"].query("role == 'teacher' and metric == 'accuracy' and interval == 'cases'")
    assert counted.set_index("group").rows["site=A + B"] == (rows == "A + B").sum()
