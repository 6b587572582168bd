"""The command `kd_mil.report`: a page that stands alone, its tables, and one line for a mistake."""

import json
import re
import sys
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from kd_mil import report
from kd_mil.reporting.resampling import CaseDraws
from kd_mil.reporting.runs import find_runs, points_of
from tests.support.command import kd_mil
from tests.support.runs import make_run, make_sweep


@pytest.fixture
def runs(tmp_path):
    make_sweep(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_command_writes_a_page_that_needs_nothing_beside_it(runs):
    result = kd_mil("report", str(runs), "baseline=mil", "resamples=50", cwd=runs)
    out = runs / "report"
    page = (out / "report.html").read_text()
    assert "from</td><td><code>25 % tumour area" in page
    assert "Not finished: 1" in page
    assert not re.search(r"(src|href)=['\"](https?:)?//", page)
    links = re.findall(r"href='([^']*)'", page)
    assert links
    assert all((out / unquote(link)).exists() for link in links)
    assert page.count("data:image/png;base64,") == 2
    assert page.count("<tr class='chosen'>") == 2
    content = json.loads((out / "report.json").read_text())
    assert content["chosen_on_validation"]["weno"] == "weno hpm.threshold=0.9"
    table = pd.read_csv(out / "report.csv")
    assert len(table) == 4
    assert "**weno hpm.threshold=0.9**" in (out / "report.md").read_text()
    assert len(list((out / "tensorboard").iterdir())) == 7
    assert "hpm.threshold=0.9" in result.stdout
    assert "2 pairs" in (out / "report.md").read_text()
    again = kd_mil("report", str(runs), cwd=runs)
    assert again.returncode == 0, "a report does not take itself for a run"


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), [(["nowhere"], "no such folder"), ([], "no folder given")])
def test_a_mistake_is_one_line(arguments, message, tmp_path):
    result = kd_mil("report", *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def reported(folder, monkeypatch, *arguments):
    """The page's folder after the command ran in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["report", str(folder), "resamples=20", "out=out", *arguments])
    report.start()
    return folder / "out"


def test_odd_ids_and_values_are_reported(tmp_path, monkeypatch, capsys):
    """Ids that look like numbers or gaps, a chosen value that is no number, a name too long for a file."""
    ids = ["001", "01", "NA", "1.10", "1.1", *(f"0{i}" for i in range(35))]
    for value, val in (("0.5", 0.6), ("0.7", 0.5), ("auto", 0.1)):
        make_run(
            tmp_path,
            "weno",
            [f"hpm.threshold={value}", f"note={'$x$ $' * 60 if value == 'auto' else 'y'}"],
            0,
            1.0,
            val,
            ids=ids,
        )
    out = reported(tmp_path, monkeypatch)
    content = json.loads((out / "report.json").read_text())
    assert "hpm.threshold=auto" in content["chosen_on_validation"]["weno"]
    assert (out / "choosing_hpm_threshold.png").is_file()
    assert pd.read_csv(out / "report.csv").low.notna().all()
    assert len(list((out / "tensorboard").iterdir())) == 3


def test_a_run_that_cannot_be_read_is_listed_and_the_others_are_reported(tmp_path, monkeypatch, capsys):
    make_run(tmp_path, "weno", [], 0, 1.0)
    (make_run(tmp_path, "weno", [], 1, 1.0) / "metrics.json").write_text("{")
    (make_run(tmp_path, "weno", [], 2, 1.0) / "run.json").write_text('{"status": "finished", "overrides": 3}')
    out = reported(tmp_path, monkeypatch)
    content = json.loads((out / "report.json").read_text())
    assert [len(point["runs"]) for point in content["points"]] == [1]
    assert len(content["not_readable"]) == 2
    printed = capsys.readouterr().out
    assert printed.count("left out: ") == 2
    assert "Not readable: 2" in (out / "report.html").read_text()


def make_image_run(root, seed):
    """A finished run on images, as IFKD leaves it."""
    directory = root / "ifkd" / f"seed={seed}"
    directory.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    labels = np.arange(30) % 2
    table = {
        "image_id": [f"{i:03}" for i in range(30)],
        "case_id": [f"{i // 3:02}" for i in range(30)],
        "label": labels,
    }
    table |= {"student_prob": rng.uniform(size=30) / 2 + labels / 3, "student_f1": rng.uniform(size=30)}
    pd.DataFrame(table).to_csv(directory / "images.csv", index=False)
    metrics = {
        "val/student/image_loss": 0.5,
        "val/student/image_auroc": 0.75,
        "test/student/image_auroc": roc_auc_score(labels, table["student_prob"]),
        "test/student/image_accuracy": ((table["student_prob"] >= 0.5) == labels).mean(),
        "test/student/pixel_f1": table["student_f1"].mean(),
        "test/student/pixel_iou": None,
        "test/student/pixel_dice": 0.625,
    }
    (directory / "metrics.json").write_text(json.dumps(metrics))
    record = {"status": "finished", "experiment": "ifkd", "overrides": [f"seed={seed}"], "seed": seed}
    record |= {"data_fingerprint": "f", "monitor": "val/student/image_loss", "monitor_mode": "min"}
    (directory / "run.json").write_text(json.dumps(record))
    return metrics


def test_methods_on_images_are_reported(tmp_path, monkeypatch, capsys):
    """Images and pixels by themselves, with intervals over the cases; other metrics where they are asked for."""
    metrics = [make_image_run(tmp_path, seed) for seed in (0, 1)]
    table = pd.read_csv(reported(tmp_path, monkeypatch) / "report.csv").set_index("metric")
    assert table.index.tolist() == ["image_auroc", "image_accuracy", "pixel_f1"]
    for name, row in table.iterrows():
        values = [one[f"test/student/{name}"] for one in metrics]
        assert row["mean"] == pytest.approx(np.mean(values))
        assert row["sd"] == pytest.approx(np.std(values, ddof=1))
        assert row["low"] < row["mean"] < row["high"]
    assert "cases, all images of a case together" in (tmp_path / "out" / "report.html").read_text()
    table = pd.read_csv(reported(tmp_path, monkeypatch, "metrics=[pixel_dice]") / "report.csv")
    assert table["mean"].tolist() == [0.625]


@pytest.mark.parametrize(
    ("metrics", "message"), [("[bag_aurok]", "did you mean 'bag_auroc'"), ("[pixel_f1]", "no run has any of pixel_f1")]
)
def test_metrics_that_no_run_has_are_refused(tmp_path, monkeypatch, capsys, metrics, message):
    make_run(tmp_path, "weno", [], 0, 1.0)
    with pytest.raises(SystemExit) as stopped:
        reported(tmp_path, monkeypatch, f"metrics={metrics}")
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_brackets_of_a_setting_are_shown(tmp_path, monkeypatch, capsys):
    """Rich would take `[horizontal]` for a colour."""
    for flips in ("[horizontal]", "[]"):
        make_run(tmp_path, "weno", [f"augment.flips={flips}"], 0, 1.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path), "resamples=5", "out=folder [bold], here"])
    report.start()
    printed = capsys.readouterr().out
    assert "augment.flips=[horizontal]" in printed
    assert "folder [bold], here/report.html" in printed
    assert (tmp_path / "folder [bold], here" / "report.json").is_file()


def test_every_number_of_the_table_is_computed_again(tmp_path, monkeypatch, capsys):
    """From the files of the runs, with NumPy, SciPy and scikit-learn: every column of report.csv, and what is printed.

    Intervals too, from rows repeated as often as the bootstrap drew them.
    """
    make_sweep(tmp_path)
    out = reported(tmp_path, monkeypatch, "baseline=mil", "seed=5", "metrics=[bag_auroc]")
    printed, table = capsys.readouterr().out, pd.read_csv(out / "report.csv").set_index("point")
    auroc = {"mil": aurocs(tmp_path, "mil", "model", "", (0, 1))}
    for threshold, seeds in (("0.5", (0, 1)), ("0.7", (0,)), ("0.9", (0, 1))):
        name = f"weno hpm.threshold={threshold}"
        auroc[name] = aurocs(tmp_path, "weno", "student", f"hpm.threshold={threshold},", seeds)
    tests, resampled = {}, resampled_aurocs(tmp_path, resamples=20, seed=5)
    for name, values in auroc.items():
        row, pairs = table.loc[name], list(zip(values, auroc["mil"], strict=False))
        assert [float(text) for text in str(row["values"]).split()] == pytest.approx(values)
        assert row["mean"] == pytest.approx(np.mean(values))
        assert f"{np.mean(values):.3f}" in printed
        if len(values) > 1:
            assert row.sd == pytest.approx(np.std(values, ddof=1))
        assert (row.low, row.high) == pytest.approx(ends(np.mean(resampled[name], 0)))
        if name != "mil":
            differences = [ours - theirs for ours, theirs in pairs]
            assert (row.versus_pairs, row.versus_difference) == (len(pairs), pytest.approx(np.mean(differences)))
            theirs = resampled["mil"][: len(pairs)]
            assert (row.versus_low, row.versus_high) == pytest.approx(ends(np.mean(resampled[name] - theirs, 0)))
            assert (row.versus_independent, row.versus_over) == (len(pairs), "seeds")
            tests |= {name: stats.ttest_1samp(differences, 0).pvalue} if len(pairs) > 1 else {}
            assert f"Δ {np.mean(differences):+.3f}" in printed
    assert dict(table.versus_p.dropna()) == pytest.approx(tests)
    small, large = sorted(tests, key=tests.get)
    holm = {small: min(1, 2 * tests[small]), large: min(1, max(2 * tests[small], tests[large]))}
    assert dict(table.versus_p_holm.dropna()) == pytest.approx(holm)


def aurocs(root, experiment, role, setting, seeds):
    """Test AUROC of the bags of runs of these seeds, from their tables."""
    tables = [pd.read_csv(root / experiment / f"trainer=cpu,{setting}seed={seed}" / "bags.csv") for seed in seeds]
    return [roc_auc_score(table.label, table[f"{role}_prob"]) for table in tables]


def resampled_aurocs(root, resamples, seed):
    """By point (runs, R): AUROC of the bags as often as each was drawn."""
    points = points_of([run for run in find_runs([root]) if run.finished])
    draws = CaseDraws({run.directory: run.held_out for point in points for run in point.runs}, resamples, seed)
    found = {}
    for point in points:
        for run in point.runs:
            bags = pd.read_csv(run.directory / "bags.csv")
            counts = np.concatenate(list(draws.counts(run.directory, len(bags))))
            each = [auroc_of(bags.loc[bags.index.repeat(times)], run.roles[0]) for times in counts]
            found.setdefault(point.name, []).append(each)
    return {name: np.array(values) for name, values in found.items()}


def auroc_of(bags, role):
    return roc_auc_score(bags.label, bags[f"{role}_prob"]) if bags.label.nunique() > 1 else np.nan


def ends(values):
    """Of the 95 % interval."""
    return tuple(np.nanquantile(values, [0.025, 0.975]))
