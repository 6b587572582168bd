"""Heat maps of a few validation slides: truth, teacher and student side by side."""

from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure
from torch import Tensor

from kd_mil.callbacks.figures import tensorboard
from kd_mil.core.atomic import write_figure
from kd_mil.data.bags import Bags
from kd_mil.evaluation.tables import PredictionTables
from kd_mil.slides.overlays.heatmap import comparison_figure
from kd_mil.slides.overlays.slide_picture import SlidePicture


class SlideMaps(Callback):
    """Draw what each role says about the tiles of a few validation slides; silent where the data are no slides.

    While training, maps go to TensorBoard; those of the selected checkpoint also become PNG files.

    Args:
        directory: where `slide_ID.png` go.
        slides: how many slides, one of them without tumour where there is one.
        every_n_epochs: how often maps go to TensorBoard.
        max_side: longer side of the thumbnails in pixels.
    """

    def __init__(self, directory: str, slides: int = 4, every_n_epochs: int = 5, max_side: int = 512) -> None:
        self.directory, self.slides = Path(directory), slides
        self.every_n_epochs, self.max_side = every_n_epochs, max_side
        self._pictures: dict[int, SlidePicture] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = cast(Any, trainer).datamodule
        selected = trainer.state.fn == TrainerFn.VALIDATING
        due = selected or trainer.current_epoch % self.every_n_epochs == 0
        if not (due and trainer.is_global_zero and hasattr(data, "slide_picture")):
            return
        writer = tensorboard(trainer)
        tables: PredictionTables = cast(Any, pl_module).tables["val"]
        for bag in chosen_slides(tables.bags["bag"], data.bags.labels, self.slides):
            if bag not in self._pictures:
                self._pictures[bag] = data.slide_picture(bag, self.max_side)
            figure = slide_figure(data.bags, bag, tables, tables.roles, self._pictures[bag], data.tile_size_level0(bag))
            if selected:
                write_figure(self.directory / f"slide_{data.bags.bag_ids[bag]}.png", figure)
            if writer is not None:
                writer.add_figure(f"slides/{data.bags.bag_ids[bag]}", figure, trainer.current_epoch)


def chosen_slides(bags: Tensor, labels: Tensor, count: int) -> list[int]:
    """Up to `count` of the bags (V,), evenly spaced among those of a class above 0, and one of class 0 at the end."""
    negative = bags[labels[bags] == 0][:1].tolist()
    positive = bags[labels[bags] > 0].tolist()
    places = max(1, count - len(negative)) if positive else 0
    step = max(1, len(positive) // max(1, places))
    return [*positive[::step][:places], *negative][:count]


def slide_figure(
    bags: Bags, bag: int, tables: PredictionTables, roles: list[str], picture: SlidePicture, tile_size_level0: int
) -> Figure:
    """The slide with its truth, then a heat map for each role, all on the scale 0 to 1.

    A role with attention shows it scaled as the student learns it: by its range over the training set, so that slides
    without tumour stay dark.
    """
    rows = tables.instances["bag"] == bag
    [position] = (tables.bags["bag"] == bag).nonzero().flatten().tolist()
    panels, words = {}, []
    for role in roles:
        kind = "attention, scaled" if f"{role}/attention" in tables.instances else "probability"
        panels[f"{role}: {kind}"] = tables.instances[f"{role}/probs"][rows].numpy()
        probs = tables.bags[f"{role}/probs"][position]
        words.append(f"{role} {bags.class_names[int(probs.argmax())]} {float(probs.max()):.2f}")
    return comparison_figure(
        picture.thumbnail,
        picture.truth,
        bags.coords[bags.instances_of(tables.bags["bag"][[position]])].numpy(),  # type: ignore[index]
        panels,
        tile_size_level0,
        picture.downsample,
        f"{bags.bag_ids[bag]}, {bags.class_names[int(bags.labels[bag])]}: {', '.join(words)}",
        limits=dict.fromkeys(panels, (0.0, 1.0)),
        origin=picture.origin,
    )
