"""Pictures of segmentation: truth and maps over images, and one image over the epochs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from kd_mil.callbacks.pictures import show_figure, tensorboard
from kd_mil.data.batches import UNKNOWN, MaskedBatch
from kd_mil.evaluation.segmentation import gaussian_blur
from kd_mil.slides.overlays.score_grid import score_colors

DPI = 110
LARGEST_FILM_SIDE = 128
MOST_FILM_COLUMNS = 10
MAP_COLOURS = "viridis"


class Overlays(Callback):
    """Image, truth and maps of a few images: of validation into TensorBoard, of the test into `overlays.png`.

    `film.png` shows the first of the validation images over the epochs, with the switches of roles marked.

    Args:
        directory: where the pictures go.
        images: how many; positive ones first.
        every_n_epochs: how often validation is shown and the film gets a frame.
    """

    def __init__(self, directory: str, images: int = 4, every_n_epochs: int = 5) -> None:
        self.directory, self.images, self.every_n_epochs = Path(directory), images, every_n_epochs
        self.frames: list[dict[str, Any]] = []
        """Of each epoch shown: `epoch`, `switches`, and the map of each role, uint8 (h, w)."""

    def state_dict(self) -> dict[str, Any]:
        return {"frames": self.frames}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.frames = list(state_dict["frames"])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = trainer.current_epoch % self.every_n_epochs == 0
        if trainer.state.fn != "fit" or trainer.sanity_checking or not due or not trainer.is_global_zero:
            return
        shown = self._chosen(trainer, "val")
        maps = maps_of(pl_module, shown)
        switches = int(getattr(pl_module, "switches", 0))
        frame = {role: small_map(probs[:1]) for role, probs in maps.items()}
        self.frames.append({"epoch": trainer.current_epoch, "switches": switches, **frame})
        if tensorboard(trainer) is not None:
            show_figure(overlay_figure(shown, maps, threshold_of(pl_module)), trainer, "val/overlays")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.frames:
            shown = self._chosen(trainer, "val")
            figure = film_figure(self.frames, shown.images[0].cpu(), shown.masks[0].cpu())
            self._save(trainer, "film", figure)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            shown = self._chosen(trainer, "test")
            self._save(trainer, "overlays", overlay_figure(shown, maps_of(pl_module, shown), threshold_of(pl_module)))

    def _chosen(self, trainer: Trainer, part: str) -> MaskedBatch:
        """Images spread over the positive ones of a part, the last a negative one; always the same."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        members = getattr(data.splits, part)
        labels = data.bags.labels[members]
        positive, negative = (labels > 0).nonzero().flatten(), (labels == 0).nonzero().flatten()
        rows = torch.cat([spread(positive, self.images - 1), spread(negative, 1)])
        batch = data.bags.instance_batch(members[rows])
        return MaskedBatch(batch.instances, batch.labels, batch.bag_indices, data.masks(part)[rows])

    def _save(self, trainer: Trainer, name: str, figure: Figure) -> None:
        show_figure(figure, trainer, f"segmentation/{name}", self.directory / f"{name}.png", dpi=DPI)


def spread(rows: Tensor, count: int) -> Tensor:
    """At most `count` of the rows, evenly spread."""
    if len(rows) <= count:
        return rows
    return rows[torch.arange(count) * len(rows) // max(count, 1)]


@torch.no_grad()
def maps_of(method: LightningModule, shown: MaskedBatch) -> dict[str, Tensor]:
    """Map (B, H, W) of each role on the CPU, blurred as for the scores."""
    maps = cast(Any, method).predict_maps(shown.images.to(method.device))
    blur = cast(Any, method).reading.blur
    return {role: gaussian_blur(probs, blur).float().cpu() for role, probs in maps.items()}


def threshold_of(method: LightningModule) -> float:
    """Where scores cut the maps."""
    return float(cast(Any, method).reading.threshold)


def small_map(maps: Tensor) -> Tensor:
    """The first map (1, H, W) as uint8 (h, w), no side above `LARGEST_FILM_SIDE`."""
    factor = -(-max(maps.shape[-2:]) // LARGEST_FILM_SIDE)
    reduced = F.avg_pool2d(maps[:, None], factor)[0, 0] if factor > 1 else maps[0]
    return (reduced * 255).round().to(torch.uint8)


def overlay_figure(shown: MaskedBatch, maps: dict[str, Tensor], threshold: float) -> Figure:
    """A row for each image: itself, truth, and for each role its map with the outline at the threshold."""
    names = ["image", "truth", *maps]
    height, width = shown.images.shape[-2:]
    figure = Figure(figsize=(2.1 * len(names), 2.1 * len(shown.images) * height / width + 0.3), layout="constrained")
    grid = figure.subplots(len(shown.images), len(names), squeeze=False)
    for row, axes in enumerate(grid):
        pixels = picture(shown.images[row])
        truth = shown.masks[row].cpu().numpy()
        for column in axes:
            column.set_axis_off()
            column.imshow(pixels)
        axes[0].text(3, 3, "positive" if shown.labels[row] else "negative", va="top", fontsize=7, bbox=LABEL_BOX)
        tint(axes[1], truth == 1)
        if (truth == UNKNOWN).all():
            axes[1].text(3, 3, "unknown", va="top", fontsize=7, bbox=LABEL_BOX)
        for column, probs in zip(axes[2:], maps.values(), strict=True):
            map_over(column, probs[row].numpy(), threshold)
    for column, name in zip(grid[0], names, strict=True):
        column.set_title(name, fontsize=9)
    return figure


LABEL_BOX = {"facecolor": "white", "alpha": 0.8, "pad": 1.5, "linewidth": 0}


def film_figure(frames: list[dict[str, Any]], image: Tensor, truth: Tensor) -> Figure:
    """One image over the epochs: a row for each role, a column for each frame; a star marks a switch since the last."""
    roles = [role for role in ("teacher", "student", "model") if any(role in frame for frame in frames)]
    chosen = list(thinned(frames))
    figure = Figure(figsize=(1.2 * (len(chosen) + 1), 1.3 * len(roles) + 0.3), layout="constrained")
    grid = figure.subplots(len(roles), len(chosen) + 1, squeeze=False)
    for row, role in enumerate(roles):
        grid[row, 0].imshow(picture(image))
        tint(grid[row, 0], truth.numpy() == 1)
        grid[row, 0].set_ylabel(role, fontsize=8)
        for axes, (frame, switched) in zip(grid[row, 1:], chosen, strict=True):
            if role in frame:
                axes.imshow(frame[role].numpy(), cmap=MAP_COLOURS, vmin=0, vmax=255)
            if row == 0:
                axes.set_title(f"{frame['epoch']}{' *' if switched else ''}", fontsize=8)
    grid[0, 0].set_title("truth", fontsize=8)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def thinned(frames: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bool]]:
    """At most `MOST_FILM_COLUMNS` frames, evenly spread, each with whether roles were switched since the one before."""
    indices = spread(torch.arange(len(frames)), MOST_FILM_COLUMNS).tolist()
    switches = [frames[index]["switches"] for index in indices]
    for number, index in enumerate(indices):
        yield frames[index], number > 0 and switches[number] > switches[number - 1]


def picture(image: Tensor) -> np.ndarray:
    """(C, H, W) uint8 as (H, W, 3)."""
    pixels = image.cpu().permute(1, 2, 0).numpy()
    return pixels.repeat(3, 2) if pixels.shape[-1] == 1 else pixels


def tint(axes: Axes, mask: np.ndarray) -> None:
    """Lay a mask (H, W) bool over an image."""
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = (0.1, 0.35, 1.0, 0.45)
    axes.imshow(layer)


def map_over(axes: Axes, probs: np.ndarray, threshold: float) -> None:
    """Lay a map (H, W) in [0, 1] over an image, with its outline at the threshold."""
    axes.imshow(probs, cmap=ListedColormap(score_colors()), vmin=0, vmax=1)
    if probs.min() < threshold <= probs.max():
        axes.contour(probs, levels=[threshold], colors="white", linewidths=0.9)
