"""Instance probabilities laid over the images that bags were cut from, with the truth beside them."""

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

from kd_mil.callbacks.pictures import show_figure
from kd_mil.data.bags import Bags
from kd_mil.evaluation.tables import PredictionTables
from kd_mil.slides.formats.image_decoding import decode_rgb


class BagMaps(Callback):
    """Maps of test bags when the test ends, for data whose bags are images: it knows them as `image_paths`.

    Patches that tile the image are coloured as squares, others, around nuclei, as discs.

    Args:
        directory: where `maps/BAG.png` go.
        per_class: bags of each class that are drawn, the first ones of the test part.
    """

    def __init__(self, directory: str, per_class: int = 2) -> None:
        self.directory, self.per_class = Path(directory), per_class

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        paths: dict[str, Path] | None = getattr(trainer.datamodule, "image_paths", None)  # type: ignore[attr-defined]
        if paths is None or not trainer.is_global_zero:
            return
        bags: Bags = trainer.datamodule.bags  # type: ignore[attr-defined]
        tables: PredictionTables = cast(Any, pl_module).tables["test"]
        for bag in self._chosen(tables):
            name = bags.bag_ids[bag]
            figure = map_figure(np.asarray(decode_rgb(paths[name])), tables, bags, bag)
            show_figure(figure, trainer, f"test/map_{name}", self.directory / "maps" / f"{name}.png", dpi=110)

    def _chosen(self, tables: PredictionTables) -> list[int]:
        bags, labels = tables.bags["bag"], tables.bags["label"]
        return [bag for label in labels.unique() for bag in bags[labels == label][: self.per_class].tolist()]


def map_figure(image: np.ndarray, tables: PredictionTables, bags: Bags, bag: int) -> Figure:
    """The image (H, W, 3), the labels of its instances where they are known, and what each role says of them."""
    rows = tables.instances
    own = rows["bag"] == bag
    side = bags.instance_shape[-1]
    corners = np.stack([rows["x"][own].numpy(), rows["y"][own].numpy()], axis=1)
    panels: list[tuple[str, Tensor | None]] = [(f"{bags.bag_ids[bag]}: {bags.class_names[bags.labels[bag]]}", None)]
    labels = rows["label"][own]
    known = labels >= 0
    if known.any():
        panels.append(("truth", torch.where(known, (labels > 0).double(), math.nan)))
    for role in tables.roles:
        prob = 1 - float(tables.bags[f"{role}/probs"][tables.bags["bag"] == bag, 0])
        panels.append((f"{role}: bag {prob:.2f}", rows[f"{role}/probs"][own].double()))
    height = 3.6 * image.shape[0] / image.shape[1] + 0.5
    figure = Figure(figsize=(3.6 * len(panels) + 0.6, height), layout="constrained")
    coloured = None
    for axes, (title, values) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        grey = image.mean(axis=2) / 255  # stained tissue is of the same colours as the map
        axes.imshow(image if values is None else grey, cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=9)
        axes.axis("off")
        if values is not None:
            coloured = _colour(axes, corners, side, values.numpy())
    if coloured is not None:
        figure.colorbar(coloured, ax=figure.axes, shrink=0.8, label="probability")
    return figure


def _square(x: float, y: float, side: int) -> Rectangle:
    return Rectangle((x - 0.5, y - 0.5), side, side)


def _colour(axes: Axes, corners: np.ndarray, side: int, values: np.ndarray) -> PatchCollection:
    """Draw the instances with top-left corners (n, 2) in the colours of their values (n,)."""
    tiled = not (corners % side).any()
    corners, values = corners[np.isfinite(values)], values[np.isfinite(values)]
    shapes = [_square(x, y, side) if tiled else Circle((x + side / 2, y + side / 2), side / 4) for x, y in corners]
    drawn = PatchCollection(shapes, cmap="coolwarm", alpha=0.45 if tiled else 0.9, linewidth=0)
    drawn.set_array(values)
    drawn.set_clim(0, 1)
    axes.add_collection(drawn)
    return drawn
