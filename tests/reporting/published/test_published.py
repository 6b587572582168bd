"""The published numbers, the runs beside them, and the lines of a comparison."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hydra.utils import get_class, instantiate

from kd_mil.cli.arguments import CONFIG_DIR
from kd_mil.cli.composed import composed
from kd_mil.cli.experiments import register_experiments
from kd_mil.core.errors import UserError
from kd_mil.reporting.published.compare import Line, lines_of, write_comparison
from kd_mil.reporting.published.tables import SCALES, last_of_each, published, tables_of
from kd_mil.reporting.runs import Run
from tests.support.runs import make_run

TABLES = [table for tables in published().values() for table in tables.values()]


def cell(paper, table, row, column):
    [found] = [one for one in tables_of(paper, table)[0].cells("paper", [0]) if (one.row, one.column) == (row, column)]
    return found


def test_numbers_as_the_papers_print_them():
    """One of each table, looked up in the papers."""
    assert cell("weno", "1a", "ABMIL + WENO", "1%").published == 0.7427
    assert cell("weno", "1b", "DSMIL", "50%").published == 0.9850
    assert cell("weno", "2a", "DSMIL + WENO", "70%").published == 0.9760
    assert cell("weno", "2b", "ABMIL", "50%").published == 0.9766
    assert cell("weno", "3a_instances", "DSMIL + WENO", "AUROC").published == 0.9377
    assert cell("weno", "3b", "RNN-MIL", "AUROC").published == 0.9107
    assert cell("weno", "3c", "ABMIL + WENO", "AUROC").published == 0.8056
    assert cell("weno", "4_bags", "distillation", "AUROC").published == 0.8574
    assert cell("distill_to_label", "I", "student, F1", "average").published == 0.80
    assert cell("distill_to_label", "II", "MIL, accuracy", "fold 1").published == 0.21
    assert cell("resolution", "3_luad", "recall", "10x").published == pytest.approx(0.8531)
    assert cell("resolution", "4_celiac", "KD (ADv2), accuracy", "0.625x").published == pytest.approx(0.8317)
    assert cell("resolution", "4_luad", "Baseline, F1", "5x").published == pytest.approx(0.8361)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.paper} {table.name}")
def test_every_row_has_a_number_or_a_gap_for_each_column(table):
    for row in table.content["rows"].values():
        assert len(row["published"]) == len(table.content["columns"])
        assert ("settings" in row) != ("no_data" in row)
    for scale in SCALES:
        assert scale in table.content["scales"]
        for one in table.cells(scale, [0, 1]):
            assert one.published is None or 0 <= one.published <= 1
            assert (one.published is None) == bool(one.unpublished)
            assert bool(one.runs) != bool(one.no_data)
            assert len({tuple(run) for run in one.runs}) == len(one.runs)


def test_every_run_is_a_configuration_whose_method_has_the_role(tmp_path):
    """Of each row and scale the first column: the settings compose, and somebody will have such a metric."""
    register_experiments(CONFIG_DIR, tmp_path)
    seen = set()
    for table in TABLES:
        for scale in SCALES:
            for one in table.cells(scale, [0]):
                if (
                    not one.runs
                    or (first := tuple(one.runs[0])) in seen
                    or one.column != next(iter(table.content["columns"]))
                ):
                    continue
                seen.add(first)
                config, _ = composed(first)
                role = one.metric.split("/")[0]
                assert role in get_class(config.method._target_).roles, (table.name, one.row)
                if (mining := config.method.get("hpm")) is not None:
                    epochs = config.trainer.max_epochs
                    assert mining.mode == "off" or instantiate(mining).active(epochs - 1, epochs), one.row
    assert len(seen) > 50


def test_a_mean_over_folds_has_a_run_of_each():
    average = cell("distill_to_label", "I", "teacher, AUROC", "average")
    assert [text for run in average.runs for text in run if text.startswith("data.fold=")] == [
        f"data.fold={fold}" for fold in range(5)
    ]


def test_the_last_of_equal_settings_counts_and_the_experiment_comes_first():
    assert last_of_each(["a=1", "experiment=x", "a=2"]) == ["experiment=x", "a=2"]


def test_tables_by_the_beginning_of_their_name():
    assert [table.name for table in tables_of("weno", "1")] == ["1a", "1b"]
    assert [table.name for table in tables_of("distill_to_label", "I")] == ["I"]
    with pytest.raises(UserError, match=r"paper=wno: choose .* did you mean 'weno'"):
        tables_of("wno", "1")
    with pytest.raises(UserError, match="table=9"):
        tables_of("weno", "9")


def test_lines_stand_beside_the_paper_and_say_what_is_missing(tmp_path: Path):
    """Two seeds of one row, one unfinished; data that are not there; a cell that nobody can run."""
    [table] = tables_of("weno", "1a")
    cells = [one for one in table.cells("small", [0, 1]) if one.row == "ABMIL + WENO"]
    directories = [
        make_run(tmp_path, "weno", [text for text in words if "seed=" not in text], seed, 1.0, status=status)
        for words, seed, status in zip(cells[0].runs, (0, 1), ("finished", "running"), strict=True)
    ]
    for directory in directories:
        metrics = json.loads((directory / "metrics.json").read_text())
        (directory / "metrics.json").write_text(json.dumps(metrics | {"test/student/instance_auroc": 0.75}))
    runs = {tuple(settings): Run(directory) for settings, directory in zip(cells[0].runs, directories, strict=True)}
    first, second, *_ = lines_of(table, cells, runs, "", 100, 0)
    assert (first.published, first.ours, first.seeds, first.runs) == (0.7427, 0.75, 1, 1)
    assert first.difference == pytest.approx(0.75 - 0.7427)
    assert first.low < first.high
    assert first.note == "1 runs not finished"
    assert (second.ours, second.note) == (None, "not run yet, 2 to go")
    [lacking, *_] = lines_of(table, cells, {}, "cifar10 is not in data", 100, 0)
    assert lacking.note == "no data: cifar10 is not in data"
    [private] = tables_of("weno", "3c")
    lines = lines_of(private, private.cells("small", [0]), {}, "", 100, 0)
    assert {line.note for line in lines} == {"no data: the slides are private"}
    [ifkd] = tables_of("ifkd", "loss")
    [unknown, *_] = lines_of(ifkd, ifkd.cells("small", [0]), {}, "", 100, 0)
    assert unknown.note == "no published value found; not run yet, 1 to go"
    assert cell("weno", "fig3", "ABMIL, instances", "20%").unpublished == "the figure prints no numbers"
    write_comparison(tmp_path, "weno_1a", "WENO <1>", [table], [first, second], "small")
    assert "| ABMIL + WENO | 1% | 0.743 | 0.750 | +0.007 | 1 | 1 |" in (tmp_path / "weno_1a.md").read_text()
    assert "WENO &lt;1&gt;" in (tmp_path / "weno_1a.html").read_text()
    written = pd.read_csv(tmp_path / "weno_1a.csv")
    assert list(written) == list(Line._fields)
    assert written.published.tolist() == [0.7427, second.published]


def test_a_line_says_what_its_runs_had_set_beside_the_table(tmp_path):
    """As in a trial of one epoch, whose folder the table then finds; where a run computes says nothing."""
    [table] = tables_of("weno", "1a")
    [first, *_] = table.cells("small", [0])
    own = [text for text in first.runs[0] if not text.startswith("seed=")]
    for further, note in (
        (["trainer=gpu", "loading.num_workers=4"], ""),
        (["trainer.max_epochs=1", "data.val_fraction=0.5"], "with trainer.max_epochs=1 data.val_fraction=0.5"),
    ):
        run = Run(make_run(tmp_path / str(len(note)), "weno", [*own, *further], 0, 1.0))
        [line] = lines_of(table, [first], {tuple(first.runs[0]): run}, "", 20, 0)
        missing = f"{first.metric} is undefined or not among the metrics"
        assert line.note == (f"{missing}; {note}" if note else missing)
