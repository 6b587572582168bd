"""What passes between teacher and student: attention range, pseudo-labels, and what hard positive mining hides."""

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from kd_mil.callbacks.figures import tensorboard
from kd_mil.core.atomic import write_figure
from kd_mil.data.bags import Bags


class DistillationMonitor(Callback):
    """Show at the end of each epoch what the two networks told each other.

    The attention range, histograms of the pseudo-labels in positive bags by true class (of rank 0's share; in negative
    bags they are 0), the number of instances that mining dropped, and a montage of those.

    Args:
        directory: where `mined.png`, the montage of the last epoch that dropped anything, goes.
        montage: largest number of instances shown; instances that are no images are counted only.
    """

    def __init__(self, directory: str, montage: int = 48) -> None:
        self.directory, self.montage = Path(directory), montage

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        memory, dropped = getattr(pl_module, "memory", None), getattr(pl_module, "dropped", None)
        if memory is not None:
            memory.finalize()  # a method does so after its callbacks
            pl_module.log_dict({"attention/low": memory.low.mean(), "attention/high": memory.high.mean()})
        bags: Bags = trainer.datamodule.bags  # type: ignore[attr-defined]
        if getattr(pl_module, "pseudo_labels", None):
            self._histograms(trainer, bags, pl_module.pseudo_labels)  # type: ignore[arg-type]
        if dropped is None:
            return
        ids = torch.cat([*dropped, torch.empty(0, dtype=torch.long, device=pl_module.device)])
        pl_module.log("hpm/dropped", float(len(ids)), sync_dist=True, reduce_fx="sum")
        if len(ids) and len(bags.instance_shape) == 3 and trainer.is_global_zero:
            self._show(trainer, bags, ids.cpu())

    def _histograms(self, trainer: Trainer, bags: Bags, pseudo_labels: list[tuple[Tensor, Tensor]]) -> None:
        writer = tensorboard(trainer)
        if writer is None:
            return
        ids, targets = (torch.cat(column).cpu() for column in zip(*pseudo_labels, strict=True))
        truth = bags.instance_labels.cpu()[ids]
        in_positive_bag = bags.labels.cpu()[bags.bag_of_instance.cpu()[ids]] > 0
        for name, chosen in (
            ("positive", in_positive_bag & (truth > 0)),
            ("negative", in_positive_bag & (truth == 0)),
            ("unknown", in_positive_bag & (truth < 0)),
        ):
            if chosen.any():
                writer.add_histogram(f"train/pseudo_labels/{name}", targets[chosen], trainer.current_epoch)

    def _show(self, trainer: Trainer, bags: Bags, dropped: Tensor) -> None:
        step = max(1, len(dropped) // self.montage)
        shown = bags.instance_batch(dropped[::step][: self.montage])
        figure = montage_figure(
            shown.instances.cpu(), f"epoch {trainer.current_epoch}: {len(dropped)} instances dropped"
        )
        write_figure(self.directory / "mined.png", figure, dpi=120)
        writer = tensorboard(trainer)
        if writer is not None:
            writer.add_figure("hpm/mined", figure, trainer.current_epoch)


def montage_figure(images: Tensor, title: str, columns: int = 12) -> Figure:
    """Images (K, C, H, W) uint8 or float in [0, 1] on a grid."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns * 0.7, rows * 0.7 + 0.4), layout="constrained")
    figure.suptitle(title)
    for position, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if position < len(images):
            pixels = images[position].permute(1, 2, 0).numpy()
            axes.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray")
    return figure
