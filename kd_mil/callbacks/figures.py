"""Pictures of a run: ROC curves and probability histograms, as PNG files and in TensorBoard."""

from pathlib import Path
from typing import Any, cast

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from kd_mil.callbacks.pictures import show_figure, tensorboard
from kd_mil.evaluation.tables import PredictionTables
from kd_mil.plot.curves import draw_roc, frame_roc


class Figures(Callback):
    """Histograms of probabilities by true class and ROC curves: of validation in training, of the test at its end.

    Args:
        directory: where `roc.png` and `probabilities.png` go.
        every_n_epochs: how often histograms of validation go to TensorBoard.
        roc_every_n_epochs: how often its ROC curves do.
    """

    def __init__(self, directory: str, every_n_epochs: int = 1, roc_every_n_epochs: int = 5) -> None:
        self.directory = Path(directory)
        self.every_n_epochs, self.roc_every_n_epochs = every_n_epochs, roc_every_n_epochs

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        writer = tensorboard(trainer)
        if writer is None or trainer.state.fn != "fit":
            return
        tables: PredictionTables = cast(Any, pl_module).tables["val"]
        epoch, roles = trainer.current_epoch, tables.roles
        if epoch % self.every_n_epochs == 0:
            _write_histograms(writer, tables, roles, epoch)
        if epoch % self.roc_every_n_epochs == 0:
            show_figure(roc_figure(tables, roles), trainer, "val/roc")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        tables: PredictionTables = cast(Any, pl_module).tables["test"]
        roles = tables.roles
        for name, figure in (
            ("roc", roc_figure(tables, roles)),
            ("probabilities", probability_figure(tables, roles)),
        ):
            show_figure(figure, trainer, f"test/{name}", self.directory / f"{name}.png", dpi=120)


def _write_histograms(writer: SummaryWriter, tables: PredictionTables, roles: list[str], epoch: int) -> None:
    rows = tables.instances
    for role in roles:
        for label, name in ((0, "negative"), (1, "positive")):
            chosen = rows[f"{role}/probs"][rows["label"] == label]
            if len(chosen):
                writer.add_histogram(f"val/{role}/instance_prob_{name}", chosen, epoch)


def roc_figure(tables: PredictionTables, roles: list[str]) -> Figure:
    """ROC curves of all roles, one panel for bags and one for instances where the labels of some are known."""
    known = tables.instances["label"] >= 0
    titles = ["bags", "instances"] if known.any() else ["bags"]
    figure = Figure(figsize=(4.5 * len(titles), 4.2), layout="constrained")
    panels = dict(zip(titles, figure.subplots(1, len(titles), squeeze=False).flat, strict=True))
    for role in roles:
        if tables.bags[f"{role}/probs"].shape[1] == 2:
            _roc(panels["bags"], tables.bags[f"{role}/probs"][:, 1], tables.bags["label"], role)
        if "instances" in panels:
            labels = tables.instances["label"][known]
            _roc(panels["instances"], tables.instances[f"{role}/scores"][known], labels, role)
    for title, axes in panels.items():
        frame_roc(axes, title)
    return figure


def _roc(axes: Axes, scores: Tensor, labels: Tensor, role: str) -> None:
    draw_roc(axes, scores.numpy(), (labels > 0).numpy(), role)


def probability_figure(tables: PredictionTables, roles: list[str]) -> Figure:
    """Instance probabilities split by true class, one panel a role."""
    figure = Figure(figsize=(4.5 * len(roles), 3.4), layout="constrained")
    for axes, role in zip(np.atleast_1d(figure.subplots(1, len(roles))), roles, strict=True):
        probs, labels = tables.instances[f"{role}/probs"], tables.instances["label"]
        for label, name, colour in ((0, "negative", "0.55"), (1, "positive", "tab:red"), (-1, "unknown", "tab:blue")):
            chosen = probs[labels == label].numpy()
            if len(chosen):
                label_text = f"{name} ({len(chosen)})"
                axes.hist(chosen, bins=40, range=(0, 1), density=True, alpha=0.6, color=colour, label=label_text)
        axes.set(title=f"{role}: instances", xlabel="probability", ylabel="density", xlim=(0, 1))
        axes.legend(frameon=False)
    return figure
