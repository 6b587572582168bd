"""WENO's ablation: `python experiments/ablation.py OUT_DIR RUN_DIR [RUN_DIR ...]`.

RUN_DIR are finished runs of `python -m kd_mil.run -m experiment=weno_ablation seed=0,1,2`. Writes `results.json` (all
values), `table.md` (Table 4 of the paper, distillation, shared encoder, HPM, with two controls) and `curves.png`
(Fig. 3: validation AUROC of instances and bags by epoch for the bare teacher, WENO without and with HPM).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from collect import spread
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_mil.reporting.runs import Run

ROWS = {
    "teacher": ("", "", "", "model"),
    "teacher_updates": ("no, as many updates", "", "", "model"),
    "naive": ("no, labels of bags", "yes", "", "student"),
    "distillation": ("yes", "", "", "student"),
    "shared_encoder": ("yes", "yes", "", "student"),
    "hpm": ("yes", "yes", "yes", "student"),
}
"""Row of the ablation: distillation, shared encoder, HPM, and the role whose numbers the paper reports."""
CURVES = {"teacher": "teacher alone", "shared_encoder": "WENO without HPM", "hpm": "WENO"}
LEVELS = {"instance_auroc": "instances", "bag_auroc": "bags"}
LOSSES = ("loss/teacher", "loss/model")
"""What a row of the ablation logs at the end of an epoch: WENO the first, the teacher alone the second."""


def read(directories: Sequence[Path]) -> dict[str, list[Run]]:
    """Finished runs by row of the ablation, in the order of their seeds."""
    finished = [run for run in map(Run, directories) if run.finished]
    by_row = {row: [run for run in finished if run.overrides.get("ablation") == row] for row in ROWS}
    return {row: sorted(runs, key=lambda run: run.record["seed"]) for row, runs in by_row.items() if runs}


def table(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Test scores of every row: mean, standard deviation, all values."""
    return {
        row: {
            "seeds": [run.record["seed"] for run in found],
            "overrides": [run.record["overrides"] for run in found],
            "git_commits": sorted({str(run.record["git_commit"]) for run in found}),
            **{level: spread([run.metrics[f"test/{ROWS[row][3]}/{level}"] for run in found]) for level in LEVELS},
        }
        for row, found in runs.items()
    }


def markdown(results: dict[str, Any]) -> str:
    """The table as the paper has it, with all values."""
    lines = ["| distillation | shared encoder | HPM | instance AUROC | bag AUROC | runs |", "|---|---|---|---|---|---|"]
    for row, entry in results.items():
        cells = [*ROWS[row][:3], *(cell(entry[level]) for level in LEVELS), str(len(entry["seeds"]))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(entry: dict[str, Any]) -> str:
    """Mean, and the values it is of."""
    defined = [value for value in entry["values"] if value is not None]
    return "-" if not defined else f"{entry['mean']:.3f} ({' '.join(f'{value:.3f}' for value in defined)})"


def curve(directory: Path, tag: str) -> np.ndarray:
    """A validation score by epoch, from the run's TensorBoard files; resumed epochs count once.

    The last score there is of no epoch: it is that of the selected checkpoint. Epochs have a training loss as well.
    """
    events = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    logged = {name: events.Scalars(name) for name in (tag, *LOSSES) if name in events.Tags()["scalars"]}
    trained = {event.step for name in LOSSES for event in logged.get(name, [])}
    scores = {event.step: event.value for event in logged.get(tag, [])}
    return np.array([scores[step] for step in sorted(scores.keys() & trained)])


def curves_figure(runs: dict[str, list[Run]]) -> Figure:
    """Mean curve of each row, a thin line for each seed."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, (level, title) in zip(figure.subplots(1, 2), LEVELS.items(), strict=True):
        for number, (row, label) in enumerate(CURVES.items()):
            tag = f"val/{ROWS[row][3]}/{level}"
            series = [scores for scores in (curve(run.directory, tag) for run in runs.get(row, [])) if len(scores)]
            if not series:
                continue
            shortest = min(map(len, series))
            for scores in series:
                axes.plot(scores, color=f"C{number}", linewidth=0.6, alpha=0.4)
            axes.plot(np.mean([scores[:shortest] for scores in series], 0), color=f"C{number}", label=label)
        axes.set(title=title, xlabel="epoch", ylabel="validation AUROC")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, loc="lower right")
    return figure


def main() -> None:
    """Parse the command line, write the three files, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    runs = read(arguments.runs)
    if not runs:
        raise SystemExit("no finished run of experiment=weno_ablation among these directories")
    results = table(runs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.out / "table.md").write_text(markdown(results))
    curves_figure(runs).savefig(arguments.out / "curves.png", dpi=120)
    print(markdown(results))


if __name__ == "__main__":
    main()
