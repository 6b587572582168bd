"""The scripts behind the records read runs as the report does, and compute what they say."""

import json
import statistics
import sys

import pytest

from benchmarks.__main__ import BENCHMARKS, RECORDS
from experiments import collect
from kd_mil.reporting.runs import Run
from tests.support.command import ROOT
from tests.support.runs import make_run, make_sweep


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.py")), ids=lambda path: path.name)
def test_no_script_reads_the_files_of_a_run_by_itself(path):
    text = path.read_text()
    assert "run.json" not in text
    assert "metrics.json" not in text


@pytest.mark.parametrize("path", sorted((ROOT / RECORDS).glob("*.json")), ids=lambda path: path.stem)
def test_every_record_is_of_a_benchmark(path):
    assert path.stem in BENCHMARKS, "`make bench` would not renew it"
    assert json.loads(path.read_text())["benchmark"] == path.stem


def test_the_record_has_every_run_of_every_experiment(tmp_path, monkeypatch, capsys):
    make_run(tmp_path, "mil", [], 0, 0.2, role="model")
    runs = [make_run(tmp_path, "weno", [], seed, 1.0) for seed in (0, 1)]
    for run in [tmp_path / "mil" / "trainer=cpu,seed=0", *runs]:
        record = json.loads((run / "run.json").read_text())
        record |= {"data_counts": {"test": 40}, "threads": 1, "versions": {"torch": "2"}}
        record["overrides"].append("hydra.run.dir=somewhere")
        (run / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr(sys, "argv", ["collect", str(tmp_path / "out.json"), *map(str, tmp_path.glob("*/*"))])
    collect.main()
    record = json.loads((tmp_path / "out.json").read_text())
    assert list(record) == ["mil", "weno"]
    areas = [Run(run).metrics["test/student/bag_auroc"] for run in runs]
    found = record["weno"]["test"]["student/bag_auroc"]
    assert found == {"mean": statistics.fmean(areas), "sd": statistics.stdev(areas), "values": areas}
    assert record["weno"]["test"]["student/bag_ap"] == {"mean": None, "sd": None, "values": [None, None]}
    assert record["weno"]["seeds"] == [0, 1]
    assert record["weno"]["overrides"][1] == ["experiment=weno", "trainer=cpu", "seed=1"]
    assert f"| weno | student | 2 | {found['mean']:.3f} ± {found['sd']:.3f} | - |" in capsys.readouterr().out


def test_a_run_that_did_not_finish_is_not_recorded(tmp_path):
    make_sweep(tmp_path)
    with pytest.raises(SystemExit, match=r"threshold=0.7,seed=1 is not finished"):
        collect.collect(list((tmp_path / "weno").iterdir()))
