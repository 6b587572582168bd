"""A trained method on slides, one after the other: encoded piece by piece, aggregated once, written."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.atomic import remove_all_unfinished
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError, one_line
from kd_mil.core.shards import EVERYTHING, Shard
from kd_mil.models.outputs import Prediction
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
        own: dict[str, dict[str, Any]] = {}
        mine = [item for item in inputs if self.shard.holds(self.part_name(item))]
        try:
            for item in tqdm(mine, desc=f"{self.unit}s", unit=self.unit, disable=None):
                own[item.slide_id] = self._row(item)
        finally:
            for name in (".", "heatmaps", "instances", "geojson", PANELS, self.ledger.folder.name):
                remove_all_unfinished(self.out / name)
            if own:
                self._write_table(inputs, own)
        return list(own.values())

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

    def _row(self, item: PredictionInput) -> dict[str, Any]:
        try:
            return self.named(item) | self._predicted(item)
        except Exception as error:  # whatever it is, the other slides are predicted
            line = _line(error)
            if self.on_error == "stop":
                raise UserError(f"{line} (on_error=skip leaves it out)") from error
            tqdm.write(f"skipped {item.slide_id}: {line}", file=sys.stderr)
            return self.named(item) | {"tiles": None, "note": line}

    def _predicted(self, item: PredictionInput) -> dict[str, Any]:
        """The row of a slide, which is predicted where it is not yet.

        Raises:
            UserError: a slide that cannot be read, or a probability that is not finite.
        """
        facts = self.facts_of(item)
        row = self.ledger.finished(item.slide_id, facts)
        if row is None:
            instances = item.open()
            if instances.total == 0:
                row, files = blank_row(item.slide_id, instances), list[Path]()
            else:
                said = self.said_of(item.slide_id, instances.total, instances.batches)
                row, files = self.shown(item.slide_id, instances, said)
            self.ledger.record(item.slide_id, facts, row, files)
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

    def shown(
        self, slide_id: str, instances: SlideInstances, predictions: dict[str, Prediction]
    ) -> tuple[dict[str, Any], list[Path]]:
        """Row and files of one slide with tissue."""
        row = slide_row(slide_id, predictions, instances.total, self.model) | {"note": ""}
        if instances.warnings:
            row["warnings"] = "; ".join(instances.warnings)
        return row, self._write(slide_id, instances, predictions)

    def _write(self, slide_id: str, instances: SlideInstances, predictions: dict[str, Prediction]) -> list[Path]:
        geometry, picture = instances.geometry, instances.picture
        table = instance_table(predictions, geometry, instances.total, self.model.class_names)
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


def blank_row(slide_id: str, instances: SlideInstances) -> dict[str, Any]:
    """The row of a slide without tissue, which has no files."""
    return {"slide_id": slide_id, "tiles": 0, "note": instances.note}


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
