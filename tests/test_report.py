"""The command `kd_mil.report`: a page that stands alone, its tables, and one line for a mistake."""

import json
import re
import sys
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from kd_mil import report
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
