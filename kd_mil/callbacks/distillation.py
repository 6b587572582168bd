"""What passes between teacher and student: attention range, pseudo-labels, and what hard positive mining hides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from kd_mil.callbacks.pictures import show_figure, tensorboard
from kd_mil.data.bags import Bags
from kd_mil.evaluation.pseudo_labels import dropped_precision, pseudo_label_scores


class DistillationMonitor(Callback):
    """Show at the end of each epoch what an instance classifier was told and what it told, and how right it was.

    The attention range, histograms of the pseudo-labels in positive bags by true class (in negative bags they are 0),
    the number of instances that mining dropped, and a montage of those. Where instances have labels, how well
    pseudo-labels and student rank the instances of positive training bags, both as they were while the student learned,
    and the precision of mining. `kd_mil.run` adds those of the tested epoch to metrics.json.

    Args:
        directory: where `mined.png`, the montage of the last epoch that dropped anything, goes.
        montage: largest number of instances shown; instances that are no images are counted only.
    """

    def __init__(self, directory: str, montage: int = 48) -> None:
        self.directory, self.montage = Path(directory), montage
        self.by_epoch: dict[int, dict[str, float]] = {}
        """Scores against instance labels, by epoch (from 0) and name; kept in checkpoints."""

    def state_dict(self) -> dict[str, Any]:
        return {"by_epoch": self.by_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.by_epoch = dict(state_dict["by_epoch"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        memory, notes = getattr(pl_module, "memory", None), getattr(pl_module, "notes", None)
        if memory is not None:
            memory.finalize()  # a method does so after its callbacks
            pl_module.log_dict({"attention/low": memory.low.mean(), "attention/high": memory.high.mean()})
        bags: Bags = trainer.datamodule.bags  # type: ignore[attr-defined]
        scores: dict[str, float] = {}
        if notes is not None:
            scores |= self._pseudo_labels(trainer, bags, notes)
        if hasattr(pl_module, "hpm"):
            scores |= self._dropped(trainer, bags, pl_module)
        self.by_epoch[trainer.current_epoch] = scores
        pl_module.log_dict(scores, sync_dist=True)  # equal on all ranks

    def _pseudo_labels(self, trainer: Trainer, bags: Bags, notes: Any) -> dict[str, float]:
        """Draw the pseudo-labels; their scores, and those of the student."""
        told: list[tuple[Tensor, Tensor]] = notes.pseudo_labels
        ids = _joined([ids for ids, _ in told], torch.long)
        labels = _joined([labels for _, labels in told], torch.float32)
        student = _joined(notes.student_scores, torch.float32)
        owners, truth = bags.bag_of_instance.cpu()[ids].long(), bags.instance_labels.cpu()[ids]
        inside = bags.labels.cpu()[owners] > 0
        self._histograms(trainer, labels[inside], truth[inside])
        scores = pseudo_label_scores(labels[inside], student[inside], truth[inside], owners[inside])
        return {f"pseudo_labels/{name}": value for name, value in scores.items()}

    def _histograms(self, trainer: Trainer, labels: Tensor, truth: Tensor) -> None:
        writer = tensorboard(trainer)
        if writer is None:
            return
        for name, chosen in (("positive", truth > 0), ("negative", truth == 0), ("unknown", truth < 0)):
            if chosen.any():
                writer.add_histogram(f"train/pseudo_labels/{name}", labels[chosen], trainer.current_epoch)

    def _dropped(self, trainer: Trainer, bags: Bags, pl_module: Any) -> dict[str, float]:
        """Count and show what mining dropped; how much of it is positive."""
        ids = _joined(pl_module.notes.dropped, torch.long)
        pl_module.log("hpm/dropped", float(len(ids)), sync_dist=True)
        if len(ids) and len(bags.instance_shape) == 3 and trainer.is_global_zero:
            self._show(trainer, bags, ids)
        precision = dropped_precision(bags.instance_labels.cpu()[ids])
        return {f"hpm/{name}": value for name, value in precision.items()}

    def _show(self, trainer: Trainer, bags: Bags, dropped: Tensor) -> None:
        step = max(1, len(dropped) // self.montage)
        shown = bags.instance_batch(dropped[::step][: self.montage])
        figure = montage_figure(
            shown.instances.cpu(), f"epoch {trainer.current_epoch}: {len(dropped)} instances dropped"
        )
        show_figure(figure, trainer, "hpm/mined", self.directory / "mined.png", dpi=120)


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The parts end to end on the CPU, of that type also where there are none."""
    return torch.cat([torch.empty(0, dtype=dtype), *(part.detach().to("cpu", dtype) for part in parts)])


def montage_figure(images: Tensor, title: str, columns: int = 12) -> Figure:
    """Images (K, C, H, W) uint8 or float in [0, 1] on a grid."""
    grid = montage(images, columns).permute(1, 2, 0).numpy()
    rows, white = -(-len(images) // columns), 1.0 if images.is_floating_point() else 255
    figure = Figure(figsize=(columns * 0.7, rows * 0.7 + 0.4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()  # one for all: 48 would take a second to lay out
    axes.axis("off")
    axes.imshow(grid.squeeze(-1) if grid.shape[-1] == 1 else grid, cmap="gray", vmin=0, vmax=white)
    return figure


def montage(images: Tensor, columns: int) -> Tensor:
    """Images (K, C, H, W) row after row on white (C, ...), a sixteenth of their height apart."""
    count, channels, height, width = images.shape
    gap, rows = max(1, height // 16), -(-count // columns)
    white = 1 if images.is_floating_point() else 255
    places = images.new_full((rows * columns, channels, height + gap, width + gap), white)
    places[:count, :, :height, :width] = images
    by_row = places.view(rows, columns, channels, height + gap, width + gap).permute(2, 0, 3, 1, 4)
    return by_row.reshape(channels, rows * (height + gap), columns * (width + gap))
