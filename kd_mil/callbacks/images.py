"""What a run on images leaves: predictions, intervals and cost as files, confusion matrices and pairs as pictures."""

import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from kd_mil.callbacks.image_calibration import calibration, reliability_figure
from kd_mil.callbacks.pictures import show_figure
from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import at_least
from kd_mil.evaluation.bootstrap import RESAMPLES, bootstrap
from kd_mil.evaluation.classification import confusion_matrix
from kd_mil.evaluation.cost import inference_cost


class ImageReport(Callback):
    """Write images.csv, report.json and pictures of the test set when the test ends.

    Args:
        directory: of the run; pictures go to its `figures`.
        resamples: of the bootstrap.
        latency_repeats: timed forward passes of an image of median size; 0 leaves the latency out.
        pairs: test images shown at every resolution.

    Raises:
        UserError: a number out of range.
    """

    def __init__(self, directory: str, resamples: int = RESAMPLES, latency_repeats: int = 0, pairs: int = 8) -> None:
        at_least("callbacks.images.resamples", resamples, 1)
        at_least("callbacks.images.latency_repeats", latency_repeats, 0)
        at_least("callbacks.images.pairs", pairs, 1)
        self.directory, self.resamples = Path(directory), resamples
        self.latency_repeats, self.pairs = latency_repeats, pairs

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data, method = cast(Any, trainer).datamodule, cast(Any, pl_module)
        rows = method.tables["test"]
        frame = image_frame(rows, data.source, list(method.roles))
        with atomic_path(self.directory / "images.csv") as path:
            frame.to_csv(path, index=False)
        unit = "image" if data.instance_source["kind"] == "image_files" else "slide"
        report = {
            role: self._intervals(rows, role, frame["case_id"].tolist())
            | {"downsample": data.downsamples[resolution], "unit": unit}
            | {"calibration": calibration(method.tables["val"], rows, role)}
            | {"cost": inference_cost(classifier, data.input_sizes(resolution), self.latency_repeats)._asdict()}
            for role, (classifier, resolution) in method.classifiers().items()
        }
        resampled = "cases" if frame["case_id"].duplicated().any() else "images"
        content = {"test_images": len(frame), "plain_resamples": resampled, "roles": _plain(report)}
        text = json.dumps(content, indent=1)
        with atomic_path(self.directory / "report.json") as path:
            path.write_text(text + "\n")
        for name, figure in (
            ("confusion", confusion_figure(rows, list(method.roles), list(data.class_names))),
            ("reliability", reliability_figure(rows, list(method.roles))),
            ("pairs", pair_figure(rows, method, data, self.pairs)),
        ):
            show_figure(figure, trainer, f"test/{name}", self.directory / "figures" / f"{name}.png", dpi=120)

    def _intervals(self, rows: dict[str, Tensor], role: str, cases: list[str]) -> dict[str, Any]:
        """95 % intervals by plain resampling, of whole cases, and by class-balanced resampling, of images."""
        labels, probs = rows["label"], rows[f"{role}/probs"]
        decided, classes = probs.argmax(1), probs.shape[1]
        found = {
            "plain": bootstrap(labels, decided, classes, self.resamples, cases=cases),
            "balanced": bootstrap(labels, decided, classes, self.resamples, balanced=True),
        }
        return {
            name: {score: interval._asdict() for score, interval in scores.items()} for name, scores in found.items()
        }


def image_frame(rows: dict[str, Tensor], source: Any, roles: list[str]) -> pd.DataFrame:
    """Columns `image_id, case_id, label` and `{role}_prob_{class}` for every role and class."""
    indices = rows["index"].tolist()
    columns: dict[str, Any] = {
        "image_id": [source.ids[index] for index in indices],
        "case_id": [(source.cases or source.ids)[index] for index in indices],
        "label": [source.class_names[label] for label in rows["label"].tolist()],
    }
    for role in roles:
        for index, name in enumerate(source.class_names):
            columns[f"{role}_prob_{name}"] = rows[f"{role}/probs"][:, index].numpy()
    return pd.DataFrame(columns)


def confusion_figure(rows: dict[str, Tensor], roles: list[str], names: list[str]) -> Figure:
    """Share of each true class by decision, one panel a role."""
    side = max(3.2, 0.45 * len(names) + 1.6)
    figure = Figure(figsize=(side * len(roles), side), layout="constrained")
    for axes, role in zip(np.atleast_1d(figure.subplots(1, len(roles))), roles, strict=True):
        counts = confusion_matrix(rows["label"], rows[f"{role}/probs"].argmax(1), len(names)).numpy()
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=7)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set(title=role, xlabel="decided", ylabel="true")
    return figure


def pair_figure(rows: dict[str, Tensor], method: Any, data: Any, count: int) -> Figure:
    """Test images, one a column, as each network gets them, with the truth and its decision."""
    chosen = np.linspace(0, len(rows["label"]) - 1, min(count, len(rows["label"]))).round().astype(int).tolist()
    roles = list(method.classifiers().items())
    figure = Figure(figsize=(1.6 * len(chosen), 2.4 * len(roles)), layout="constrained")
    grid = figure.subplots(len(roles), len(chosen), squeeze=False)
    for line, (role, (_, resolution)) in zip(grid, roles, strict=True):
        for axes, row in zip(line, chosen, strict=True):
            image = data.images[resolution][int(rows["index"][row])]
            probs = rows[f"{role}/probs"][row]
            decided, true = data.class_names[int(probs.argmax())], data.class_names[int(rows["label"][row])]
            axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_title(
                f"{role} {image.shape[2]}x{image.shape[1]}\n{true}\nsays {decided} {float(probs.max()):.2f}",
                fontsize=6,
                color="black" if decided == true else "tab:red",
            )
            axes.axis("off")
    return figure


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
