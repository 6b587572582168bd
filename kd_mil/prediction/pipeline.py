"""A trained method on slides, one after the other: encoded piece by piece, aggregated once, written meanwhile."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.atomic import remove_all_unfinished
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError, one_line
from kd_mil.core.shards import EVERYTHING, Shard
from kd_mil.models.outputs import Prediction
from kd_mil.prediction.behind import Behind, Work, announced
from kd_mil.prediction.inputs import PredictionInput, SlideInstances
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.outputs import (
    Model,
    OutputSettings,
    instance_table,
    slide_row,
    write_heatmaps,
    write_overlay,
    write_slides_table,
    write_table,
)
from kd_mil.prediction.panel_content import slide_panel
from kd_mil.prediction.panels import FOLDER as PANELS
from kd_mil.prediction.panels import panel_path, write_panel

Row = dict[str, Any]
Rest = Callable[[], Row]
"""What is left to do for a slide once it is computed: its files; returns its row."""
Write = Callable[[], list[Path]]
MOST_ROUNDS = 5
"""Of the table: while other shards go on finishing slides there is always news, and they will write it themselves."""
NOT_YET = "not predicted yet: its shard was not run, or is not there yet"


class PiecePredictor(Protocol):
    """A trained method: of bags, or of images that are pieces of a slide."""

    def predict_pieces(self, pieces: Iterable[Tensor], readings: bool = False) -> dict[str, Prediction]:
        """What each role says about the bag, or slide, that the pieces (M, ...) make up."""
        ...


@dataclass(frozen=True)
class Predictor:
    """Predicts slides into a folder.

    Raises:
        UserError: an unknown `on_error`.
    """

    method: PiecePredictor
    model: Model
    out: Path
    settings: OutputSettings
    ledger: Ledger
    on_error: Literal["skip", "stop"] = "skip"
    shard: Shard = EVERYTHING
    """The part of the slides that this process predicts."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """By slide id, beside those of the list of slides; only shown beside the predictions."""
    unit: str = "slide"
    """What is predicted: `slide`, or `image`; names the table."""
    pictures: bool = True
    """Whether slides get heat maps and GeoJSON."""

    def __post_init__(self) -> None:
        one_of("on_error", self.on_error, ("skip", "stop"))

    def run(self, inputs: Sequence[PredictionInput]) -> list[dict[str, Any]]:
        """Predict what is not predicted yet; one row for each slide of the shard, with its `note`.

        `slides.csv` (or `images.csv`) is written last, over all slides: those of other shards as far as they are
        predicted.

        Raises:
            UserError: a slide that cannot be read with `on_error=stop`.
        """
        own: dict[str, Row] = {}
        mine = [item for item in inputs if self.shard.holds(self.part_name(item))]
        behind = Behind()
        try:
            for item in tqdm(mine, desc=f"{self.unit}s", unit=self.unit, disable=None):
                behind.wait()
                try:
                    rest = self._computed(item, behind.begin)
                except Exception as error:  # whatever it is, the other slides are predicted
                    own[item.slide_id] = self._failure(item, error)
                else:
                    behind.hold(partial(self._finish, own, item, rest))
        finally:
            try:
                behind.close()
            finally:
                for name in (".", "heatmaps", "instances", "geojson", PANELS, self.ledger.folder.name):
                    remove_all_unfinished(self.out / name)
                if own:
                    self._write_table(inputs, own)
        return [own[item.slide_id] for item in mine]

    def _finish(self, own: dict[str, Row], item: PredictionInput, rest: Rest) -> None:
        """Do the rest of a slide, and note its row."""
        try:
            own[item.slide_id] = self.named(item) | rest()
        except Exception as error:
            own[item.slide_id] = self._failure(item, error)

    def _write_table(self, inputs: Sequence[PredictionInput], own: Mapping[str, dict[str, Any]]) -> None:
        """Write the table, and again where another shard finished meanwhile: the last one to write knows all."""
        written: list[dict[str, Any]] = []
        labels = {item.slide_id: item.label for item in inputs if item.label is not None} | dict(self.labels)
        for _ in range(MOST_ROUNDS):
            found = (own.get(item.slide_id) or self._row_of_others(item) for item in inputs)
            rows = [row for row in found if row is not None]
            if labels:
                rows = [row | {"label": labels.get(row["slide_id"])} for row in rows]
            if rows == written:
                return
            write_slides_table(self.out / f"{self.unit}s.csv", rows, self.unit)
            written = rows

    def part_name(self, item: PredictionInput) -> str:
        """By which it belongs to one of the parts of the slides."""
        return item.slide_id

    def facts_of(self, item: PredictionInput) -> list[Any]:
        """Plain values that change when what is said of it may."""
        return item.facts()

    def named(self, item: PredictionInput) -> dict[str, Any]:
        """How its row begins."""
        return {"slide_id": item.slide_id}

    def _row_of_others(self, item: PredictionInput) -> dict[str, Any] | None:
        """The row of a slide that another shard predicted; None where this one's was interrupted before it."""
        if self.shard.holds(self.part_name(item)):
            return None
        try:
            found = self.ledger.finished(item.slide_id, self.facts_of(item))
        except (UserError, OSError):  # its own shard says what is wrong
            found = None
        return self.named(item) | (found or {"tiles": None, "note": NOT_YET})

    def _failure(self, item: PredictionInput, error: Exception) -> Row:
        """The row of a slide without a prediction; UserError with `on_error=stop`."""
        line = _line(error)
        if self.on_error == "stop":
            raise UserError(f"{line} (on_error=skip leaves it out)") from error
        tqdm.write(f"skipped {item.slide_id}: {line}", file=sys.stderr)
        return self.named(item) | {"tiles": None, "note": line}

    def _computed(self, item: PredictionInput, begun: Work) -> Rest:
        """Compute a slide that is not predicted yet; its files and its row are left to do.

        Args:
            item: the slide.
            begun: called when the first of its instances are there.

        Raises:
            UserError: a slide that cannot be read, or a probability that is not finite.
        """
        facts = self.facts_of(item)
        known = self.ledger.finished(item.slide_id, facts)
        if known is not None:
            return lambda: known
        instances = item.open()
        row, write = blank_row(item.slide_id, instances), no_files
        if instances.total:
            batches = announced(instances.batches, begun)
            row, write = self.shown(item.slide_id, instances, self.said_of(item.slide_id, instances.total, batches))
        return partial(self.recorded, item.slide_id, facts, row, write)

    def recorded(self, slide_id: str, facts: list[Any], row: Row, write: Write) -> Row:
        """Write the files of a slide, then note that it is finished; its row."""
        self.ledger.record(slide_id, facts, row, write())
        return row

    def said_of(self, name: str, total: int, batches: Iterable[Tensor]) -> dict[str, Prediction]:
        """What each role says of a bag of so many instances; UserError where a probability is not finite."""
        bar = {"total": total, "desc": name, "unit": "tile", "disable": None, "leave": False}
        with tqdm(**bar) as progress:
            predictions = self.method.predict_pieces(counted(batches, progress), self.settings.readings)
        for role, prediction in predictions.items():
            if not (prediction.bag_probs.isfinite().all() and prediction.instance_probs.isfinite().all()):
                raise UserError(f"{name}: probabilities of {role} are not finite: no decision")
        return predictions

    def shown(self, slide_id: str, instances: SlideInstances, predictions: dict[str, Prediction]) -> tuple[Row, Write]:
        """Row of one slide with tissue, and what writes its files."""
        row = slide_row(slide_id, predictions, instances.total, self.model) | {"note": ""}
        if instances.warnings:
            row["warnings"] = "; ".join(instances.warnings)
        # readings are computed here: only the main thread asks networks
        table = instance_table(predictions, instances.geometry, instances.total, self.model.class_names)
        return row, partial(self._write, slide_id, instances, predictions, table)

    def _write(
        self, slide_id: str, instances: SlideInstances, predictions: dict[str, Prediction], table: pd.DataFrame
    ) -> list[Path]:
        geometry, picture = instances.geometry, instances.picture
        files = [write_table(self.out / "instances", slide_id, table, self.settings.table)]
        if self.pictures and geometry is not None and picture is not None:
            heatmaps, smoothing = self.out / "heatmaps", self.settings.smoothing
            files += write_heatmaps(heatmaps, slide_id, predictions, geometry, picture, self.model, smoothing)
            files.append(
                write_overlay(self.out / "geojson", slide_id, predictions, geometry, self.model, self.settings)
            )
            content = slide_panel(slide_id, predictions, geometry, picture, instances.slide, self.model, self.settings)
            files.append(write_panel(panel_path(self.out, slide_id), content))
        if instances.slide is not None:
            instances.slide.close()
        return files


def blank_row(slide_id: str, instances: SlideInstances) -> Row:
    """The row of a slide without tissue."""
    return {"slide_id": slide_id, "tiles": 0, "note": instances.note}


def no_files() -> list[Path]:
    """What a slide without tissue has."""
    return []


def _line(error: Exception) -> str:
    """Why a slide cannot be predicted, in one line."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "out of memory: lower instances_per_step"
    *_, last = str(error).split("UserError: ")  # a worker process wraps it in its traceback
    return last.strip().splitlines()[0] if last != str(error) else one_line(error)


def counted(batches: Iterable[Tensor], progress: tqdm) -> Iterable[Tensor]:
    """The batches, their instances counted on the bar."""
    for batch in batches:
        yield batch
        progress.update(len(batch))
