"""Heat maps of a few validation slides: truth, teacher and student side by side."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure
from torch import Tensor

from kd_mil.callbacks.pictures import show_figure, tensorboard
from kd_mil.core.checks import at_least
from kd_mil.data.bags import Bags
from kd_mil.evaluation.tables import PredictionTables, shown_as
from kd_mil.evaluation.thresholds import decision_text
from kd_mil.slides.overlays.heatmap import comparison_figure
from kd_mil.slides.overlays.slide_picture import SlidePicture

TENSORBOARD_DPI = 60
"""Of maps while training, half of that of the files."""


class SlideMaps(Callback):
    """Draw what each role says about the tiles of a few validation slides; silent where the data are no slides.

    While training, maps go to TensorBoard; those of the selected checkpoint also become PNG files.

    Args:
        directory: where `slide_ID.png` go.
        slides: how many slides, one of them without tumour where there is one.
        every_n_epochs: how often maps go to TensorBoard.
        max_side: longer side of the thumbnails in pixels.
        smoothing: standard deviation, in edges of a tile, of a Gaussian over the scores; 0 = none.

    Raises:
        UserError: negative smoothing.
    """

    def __init__(
        self, directory: str, slides: int = 4, every_n_epochs: int = 10, max_side: int = 512, smoothing: float = 0.0
    ) -> None:
        at_least("smoothing", smoothing, 0)
        self.directory, self.slides, self.smoothing = Path(directory), slides, smoothing
        self.every_n_epochs, self.max_side = every_n_epochs, max_side
        self._pictures: dict[int, SlidePicture] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = cast(Any, trainer).datamodule
        selected = trainer.state.fn == TrainerFn.VALIDATING
        due = selected or (trainer.current_epoch % self.every_n_epochs == 0 and tensorboard(trainer) is not None)
        if not (due and trainer.is_global_zero and hasattr(data, "slide_picture") and data.bag_by == "slide"):
            return
        tables: PredictionTables = cast(Any, pl_module).tables["val"]
        for bag in chosen_slides(tables.bags["bag"], data.bags.labels, self.slides):
            if bag not in self._pictures:
                self._pictures[bag] = data.slide_picture(bag, self.max_side)
            shown = getattr(pl_module, "shown_readings", {})
            roles = {role: shown.get(role) for role in tables.roles}
            where, size = self._pictures[bag], data.tile_size_level0(bag)
            thresholds = getattr(pl_module, "thresholds", {})
            figure = slide_figure(data.bags, bag, tables, roles, where, size, thresholds, self.smoothing)
            name = data.bags.bag_ids[bag]
            path = self.directory / f"slide_{name}.png" if selected else None
            show_figure(figure, trainer, f"slides/{name}", path, dpi=None if selected else TENSORBOARD_DPI)


def chosen_slides(bags: Tensor, labels: Tensor, count: int) -> list[int]:
    """Up to `count` of the bags (V,), evenly spaced among those of a class above 0, and one of class 0 at the end."""
    negative = bags[labels[bags] == 0][:1].tolist()
    positive = bags[labels[bags] > 0].tolist()
    places = max(1, count - len(negative)) if positive else 0
    step = max(1, len(positive) // max(1, places))
    return [*positive[::step][:places], *negative][:count]


def slide_figure(
    bags: Bags,
    bag: int,
    tables: PredictionTables,
    roles: Mapping[str, str | None],
    picture: SlidePicture,
    tile_size_level0: int,
    thresholds: Mapping[str, float] = MappingProxyType({}),
    smoothing: float = 0.0,
) -> Figure:
    """The slide with its truth, then a heat map for each of the roles, all on the scale 0 to 1.

    The title has the label and the decision of the last role, by its threshold (0.5 where there is none). With each
    role stands the reading that its instance probabilities are. Attention is shown scaled as the student learns it: by
    its range over the training set, so that slides without tumour stay without colour.
    """
    rows = tables.instances["bag"] == bag
    [position] = (tables.bags["bag"] == bag).nonzero().flatten().tolist()
    panels = {}
    for role, reading in roles.items():
        panels[f"{role}: {shown_as(reading)}"] = tables.instances[f"{role}/probs"][rows].numpy()
    probs = tables.bags[f"{role}/probs"][position].tolist()
    decision = decision_text(probs, thresholds.get(role, 0.5), bags.class_names)
    return comparison_figure(
        picture.thumbnail,
        picture.truth,
        bags.coords[bags.instances_of(tables.bags["bag"][[position]])].long().numpy(),  # type: ignore[index]
        panels,
        tile_size_level0,
        picture.downsample,
        f"{bags.bag_ids[bag]}\n{role}: {decision}; label: {bags.class_names[int(bags.labels[bag])]}",
        limits=dict.fromkeys(panels, (0.0, 1.0)),
        origin=picture.origin,
        smoothing=smoothing,
    )
