"""A trained method on slides, one after the other: encoded piece by piece, aggregated once, written."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.atomic import remove_unfinished
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.methods.base.bag_method import BagMethod
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


@torch.inference_mode()
def predict_bag(method: BagMethod, batches: Iterable[Tensor]) -> dict[str, Prediction]:
    """What each role says about one bag, on the CPU; of its instances only what `encode` makes of them is kept.

    Args:
        method: in eval mode.
        batches: instances (M, ...), the bag cut into pieces.
    """
    pieces = [method.encode(batch.to(method.device, non_blocking=True)) for batch in batches]
    encoded = tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))
    sizes = torch.tensor([len(encoded[0])], device=method.device)
    predictions = method.predict_encoded(encoded, sizes)
    return {
        role: Prediction(*(None if tensor is None else tensor.cpu() for tensor in prediction))  # type: ignore[arg-type]
        for role, prediction in predictions.items()
    }


@dataclass(frozen=True)
class Predictor:
    """Predicts slides into a folder.

    Raises:
        UserError: an unknown `on_error`.
    """

    method: BagMethod
    model: Model
    out: Path
    settings: OutputSettings
    ledger: Ledger
    on_error: Literal["skip", "stop"] = "skip"

    def __post_init__(self) -> None:
        one_of("on_error", self.on_error, ("skip", "stop"))

    def run(self, inputs: Sequence[PredictionInput]) -> list[dict[str, Any]]:
        """Predict what is not predicted yet; one row for each slide, with its `note`. `slides.csv` is written last.

        Raises:
            UserError: a slide that cannot be read with `on_error=stop`.
        """
        rows: list[dict[str, Any]] = []
        try:
            for item in tqdm(inputs, desc="slides", unit="slide", disable=None):
                rows.append(self._row(item))
        finally:
            if rows:
                write_slides_table(self.out / "slides.csv", rows)
        return rows

    def _row(self, item: PredictionInput) -> dict[str, Any]:
        try:
            facts = item.facts()
            row = self.ledger.finished(item.slide_id, facts)
            if row is None:
                row, files = self._predict(item)
                self.ledger.record(item.slide_id, facts, row, files)
            return row
        except (UserError, OSError, MemoryError, torch.OutOfMemoryError) as error:
            line = str(error).rsplit("UserError: ", 1)[-1].strip()  # a worker process wraps it in its traceback
            line = line.splitlines()[0] if line else "out of memory: lower instances_per_step"
            if self.on_error == "stop":
                raise UserError(f"{line} (on_error=skip leaves it out)") from error
            tqdm.write(f"skipped {item.slide_id}: {line}", file=sys.stderr)
            return {"slide_id": item.slide_id, "tiles": None, "note": line}

    def _predict(self, item: PredictionInput) -> tuple[dict[str, Any], list[Path]]:
        """Row and files of one slide; a slide without tissue has the row alone.

        Raises:
            UserError: a slide that cannot be read, or a probability that is not finite.
        """
        for path in self._outputs(item.slide_id):
            remove_unfinished(path)
        instances = item.open()
        if instances.total == 0:
            return {"slide_id": item.slide_id, "tiles": 0, "note": instances.note}, []
        bar = {"total": instances.total, "desc": item.slide_id, "unit": "tile", "disable": None, "leave": False}
        with tqdm(**bar) as progress:
            predictions = predict_bag(self.method, counted(instances.batches, progress))
        for role, prediction in predictions.items():
            if not (prediction.bag_probs.isfinite().all() and prediction.instance_probs.isfinite().all()):
                raise UserError(f"{item.slide_id}: probabilities of {role} are not finite: no decision")
        row = slide_row(item.slide_id, predictions, instances.total, self.model) | {"note": ""}
        return row, self._write(item.slide_id, instances, predictions)

    def _outputs(self, slide_id: str) -> list[Path]:
        """All files that a slide may have."""
        pictures = [self.out / "heatmaps" / f"{slide_id}_{role}.png" for role in self.model.thresholds]
        tables = [self.out / "instances" / f"{slide_id}.{self.settings.table}"]
        overlays = [self.out / "geojson" / f"{slide_id}.geojson{suffix}" for suffix in ("", ".gz")]
        return [*pictures, *tables, *overlays, self.ledger.path(slide_id), self.out / "slides.csv"]

    def _write(self, slide_id: str, instances: SlideInstances, predictions: dict[str, Prediction]) -> list[Path]:
        geometry, picture = instances.geometry, instances.picture
        table = instance_table(predictions, geometry, instances.total, self.model.class_names)
        files = [write_table(self.out / "instances", slide_id, table, self.settings.table)]
        if geometry is not None and picture is not None:
            files += write_heatmaps(self.out / "heatmaps", slide_id, predictions, geometry, picture, self.model)
            files.append(
                write_overlay(self.out / "geojson", slide_id, predictions, geometry, self.model, self.settings)
            )
        return files


def counted(batches: Iterable[Tensor], progress: tqdm) -> Iterable[Tensor]:
    """The batches, their instances counted on the bar."""
    for batch in batches:
        yield batch
        progress.update(len(batch))
