"""The page: whatever a run is called, it is text there, and links lead where they say."""

import json
import re
import shutil
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

from kd_mil.reporting.comparison import baselines_of, compare, entries_of
from kd_mil.reporting.page import page
from kd_mil.reporting.runs import find_runs, points_of
from kd_mil.reporting.tables import document, markdown, rows_of
from tests.support.runs import make_run

EVIL = "<img src=x onerror='alert(1)'>&amp;"


def page_of(root: Path, out: Path, title: str = "title") -> str:
    runs = find_runs([root])
    points = points_of(runs)
    entries = entries_of(points, ["bag_auroc"], resamples=10, seed=0)
    compare(entries, points, baselines_of(points, "mil"))
    chosen = {point.experiment: point.name for point in points}
    rows = rows_of(entries, chosen)
    return page(title, rows, ["bag_auroc"], [], points, document(points, runs, entries, chosen, "mil"), {}, {}, out)


@pytest.mark.parametrize("name", ["seed", "git_commit", "monitor", "data_fingerprint"])
def test_whatever_a_record_says_is_text(tmp_path, name):
    make_run(tmp_path, "mil", [], 0, 1.0)
    run = make_run(tmp_path, "weno", ["a=1"], 0, 1.0)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {name: EVIL}))
    assert "<img" not in page_of(tmp_path, tmp_path / "report")


def test_faults_and_copies_are_text(tmp_path):
    make_run(tmp_path, "mil", [], 0, 1.0)
    run = make_run(tmp_path, "weno", ["a=1"], 0, 1.0)
    shutil.copytree(run, tmp_path / "weno" / EVIL)
    damaged = make_run(tmp_path, "weno", ["a=2"], 0, 1.0)
    (damaged / "run.json").write_text(json.dumps({"status": "finished", "overrides": [EVIL], "seed": [EVIL]}))
    found = page_of(tmp_path, tmp_path / "report")
    assert "<img" not in found
    assert "Not readable: 1" in found
    assert "Counted once: 1 of them repeats" in found


@pytest.mark.parametrize("where", ["setting", "role", "experiment", "title", "folder", "record"])
def test_every_cell_is_text(tmp_path, where):
    make_run(tmp_path, "mil", [], 0, 1.0)
    experiment = EVIL.replace("/", "") if where == "experiment" else "weno"
    overrides = [f"note={EVIL}"] if where == "setting" else ["a=1"]
    role = EVIL if where == "role" else "student"
    run = make_run(tmp_path, experiment, overrides, 0, 1.0, role=role)
    if where == "folder":
        run.rename(run.with_name(EVIL))
    if where == "record":
        text = (run / "run.json").read_text()
        (run / "run.json").write_text(
            text.replace('"device": "cpu"', f'"device": "{EVIL}", "versions": {{"a": "{EVIL}"}}')
        )
    found = page_of(tmp_path, tmp_path / "report", EVIL if where == "title" else "title")
    assert "<img" not in found
    assert "onerror" in found, "it is shown, as text"


def test_links_lead_to_the_files(tmp_path):
    """Names of runs hold what means something else in a URL."""
    make_run(tmp_path, "mil", [], 0, 1.0)
    run = make_run(tmp_path, "weno", ["a=1"], 0, 1.0)
    run = run.rename(run.with_name("a=50%25,b=#1?&'ü"))
    (run / "heatmaps").mkdir()
    (run / "heatmaps" / "slide 1.png").touch()
    out = tmp_path / "report"
    out.mkdir()
    links = re.findall(r"href='([^']*)'", page_of(tmp_path, out))
    assert len(links) == 7
    for link in links:
        assert not set(link) & set("#?&\"' ")
        assert (out / unquote(unescape(link))).exists()


def test_a_bar_in_a_name_ends_no_cell_of_the_markdown_table(tmp_path):
    make_run(tmp_path, "weno", ["a=x|y"], 0, 1.0)
    make_run(tmp_path, "weno", ["a=z"], 0, 1.0)
    points = points_of(find_runs([tmp_path]))
    lines = markdown(rows_of(entries_of(points, ["bag_auroc"], 10, 0), {}), ["bag_auroc"]).splitlines()
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {6}


def test_runs_are_listed_by_seed_and_fold(tmp_path):
    make_run(tmp_path, "mil", [], 0, 1.0)
    for fold in (10, 2):
        for seed in (1, 0):
            make_run(tmp_path, "weno", [f"data.fold={fold}"], seed, 1.0, fingerprint=str(fold))
    listed = re.findall(r"<td class='n'>(\d, fold \d+)</td>", page_of(tmp_path, tmp_path / "report"))
    assert listed == ["0, fold 2", "1, fold 2", "0, fold 10", "1, fold 10"]
