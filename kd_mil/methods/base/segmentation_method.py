"""What the methods on images share: reading of maps, evaluation without padding, and what may select."""

import math
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from kd_mil.core.distributed import sync_batchnorm_statistics
from kd_mil.core.errors import UserError
from kd_mil.data.batches import MaskedBatch
from kd_mil.evaluation.hausdorff import hausdorff_distances
from kd_mil.evaluation.map_reading import MapReading
from kd_mil.evaluation.metrics import Scores
from kd_mil.evaluation.segmentation import (
    Columns,
    at_point,
    choose_point,
    count_pixels,
    gaussian_blur,
    image_probs,
    image_scores,
    pixel_scores,
)
from kd_mil.evaluation.tables import MapCollector
from kd_mil.methods.base.method import Method
from kd_mil.models.preprocess import Preprocess

STATISTICS_SAMPLE = 2000
TUNED = ("f1", "f1_pos", "f1_neg", "iou", "iou_pos", "iou_neg", "dice", "iou_micro")
SELECTABLE = (
    *(f"image_{name}" for name in ("loss", "auroc", "ap", "accuracy", "f1")),
    *(f"pixel_{name}{at}" for name in TUNED for at in ("", "_tuned")),
)


class SegmentationMethod(Method):
    """Base of every method on images: a method adds the probability map of each of its roles.

    Args:
        preprocess: from stored pixels to network input.
        reading: blur and threshold of maps.
        **training: optimizer, gradient_clip, seed of `Method`.
    """

    train_views: tuple[str, ...] = ("images",)
    """`images`, labels alone; or `masked_images`, for a method that trains on masks."""

    operating_points: Tensor
    """(roles, 2) blur and threshold that validation chose for each role."""

    def __init__(self, preprocess: Preprocess, reading: MapReading, **training: Any) -> None:
        super().__init__(**training)
        self.preprocess, self.reading = preprocess, reading
        self.register_buffer("operating_points", torch.tensor([[reading.blur, reading.threshold]] * len(self.roles)))
        self.tables: dict[str, Columns] = {}
        self.scores: dict[str, dict[str, Scores]] = {}
        self._collector = MapCollector()

    def predict_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Probability map (B, H, W) of each role that has something to say, from stored images (B, C, H, W).

        Called in eval mode without gradient.
        """
        raise NotImplementedError

    def predict_images(self, images: Tensor, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """Probability (B,) that each image is positive, by role: the generalised mean of its map."""
        return {role: image_probs(own) for role, own in maps.items()}

    def trained_parts(self) -> list[nn.Module]:
        """The networks that train at present."""
        return self.parts()

    @property
    def default_monitor(self) -> str:
        """Cross-entropy of the last role's image probabilities: needs labels of validation images, no masks."""
        return f"val/{self.roles[-1]}/image_loss"

    def check_monitor(self, monitor: str) -> None:
        """Refuse to select by anything but validation images; note whether their masks select.

        Raises:
            UserError: naming the forms a monitor has.
        """
        stage, role, metric = [*monitor.split("/"), "", ""][:3]
        if stage != "val" or role not in self.roles or metric not in SELECTABLE or monitor.count("/") != 2:
            raise UserError(
                f"monitor={monitor}: selection reads validation images only, as val/ROLE/METRIC with ROLE one of "
                f"{', '.join(self.roles)} and METRIC one of {', '.join(SELECTABLE)}"
            )
        self.selected_by = "validation masks" if metric.startswith("pixel_") else "validation labels"
        self.model_card["selected_by"] = self.selected_by
        if self.selected_by == "validation masks":
            rank_zero_only(print)(f"monitor={monitor}: masks of validation images select the checkpoint")

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        by_masks = self.selected_by == "validation masks" or self.reading.tuned_by == "masks"
        if by_masks and not (data.masks("val") == 1).any():
            raise UserError(
                "no validation image has a mask with a positive pixel: select by labels, with monitor=null and "
                "reading.tuned_by=labels"
            )
        if self.preprocess.standardise:
            splits = data.splits
            order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(0))
            sample = splits.train[order[:STATISTICS_SAMPLE]].sort().values
            self.preprocess.fit(splits.bags.instance_batch(sample).instances)

    def on_validation_start(self) -> None:
        for part in self.trained_parts():
            sync_batchnorm_statistics(part)

    def validation_step(self, batch: MaskedBatch, batch_idx: int) -> None:
        self._collect(batch, with_distances=False)

    def test_step(self, batch: MaskedBatch, batch_idx: int) -> None:
        self._collect(batch, with_distances=True)

    def _collect(self, batch: MaskedBatch, with_distances: bool) -> None:
        columns = {"index": batch.indices, "label": batch.labels}
        maps = self.predict_maps(batch.images)
        probs = self.predict_images(batch.images, maps)
        for role, own in maps.items():
            columns[f"{role}/prob"] = probs[role]
            columns |= {f"{role}/{name}": one for name, one in count_pixels(own, batch.masks, self.reading).items()}
            if with_distances:
                columns[f"{role}/distances"] = self._distances(own, batch)
        if len(maps) == 2:
            one, other = (own >= 0.5 for own in maps.values())
            columns["agreement"] = (one == other).flatten(1).double().mean(1)
        self._collector.add(**columns)

    def _distances(self, maps: Tensor, batch: MaskedBatch) -> Tensor:
        """Hausdorff distance and HD95 (B, 2) of positive images with a whole mask; NaN for the rest."""
        decided = (gaussian_blur(maps, self.reading.blur) >= self.reading.threshold).cpu().numpy()
        masks = batch.masks.cpu().numpy()
        rows = [
            hausdorff_distances(own, mask == 1, self.reading.hausdorff_empty)
            if label and mask.max() <= 1
            else (math.nan, math.nan)
            for own, mask, label in zip(decided, masks, batch.labels.tolist(), strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        self._score("val", self._collector.collect())

    def on_test_epoch_end(self) -> None:
        self._score("test", self._collector.collect())

    def counts_of(self, table: Columns, role: str) -> Columns:
        """The pixel counts of one role."""
        return {name: table[f"{role}/{name}"] for name in ("hit", "predicted", "area", "truth", "known")}

    def _score(self, stage: str, table: Columns) -> None:
        self.tables[stage] = table
        present = [role for role in self.roles if f"{role}/prob" in table]
        found = {role: self._role_scores(stage, role, table) for role in present}
        if "agreement" in table:
            found[present[-1]]["pixel_agreement"] = float(table["agreement"].mean())
        absent = dict.fromkeys(next(iter(found.values())), math.nan)
        self.scores[stage] = {role: found.get(role, absent) for role in self.roles}
        for role, scores in self.scores[stage].items():
            self.log_dict({f"{stage}/{role}/{name}": value for name, value in scores.items()}, batch_size=1)

    def _role_scores(self, stage: str, role: str, table: Columns) -> Scores:
        labels, counts = table["label"], self.counts_of(table, role)
        if not table[f"{role}/prob"].isfinite().all():
            raise UserError(f"training diverged, the {role} predicts NaN: lower optimizer.lr")
        number, (blurs, thresholds) = self.roles.index(role), self.reading.grid
        if stage == "val":
            blur, threshold = choose_point(counts, labels, self.reading)
            self.operating_points[number] = torch.tensor([blurs[blur], thresholds[threshold]])
        tuned_blur, tuned_threshold = self.operating_points[number].tolist()
        point = _nearest(blurs, tuned_blur), _nearest(thresholds, tuned_threshold)
        scores = image_scores(table[f"{role}/prob"], labels, of=f"{stage}/{role} images")
        scores |= pixel_scores(at_point(counts, self.reading.configured), labels)
        tuned = pixel_scores(at_point(counts, point), labels)
        scores |= {f"pixel_{name}_tuned": tuned[f"pixel_{name}"] for name in TUNED}
        scores |= {"pixel_blur": tuned_blur, "pixel_threshold": tuned_threshold}
        if f"{role}/distances" in table:
            whole, most = table[f"{role}/distances"].nanmean(0).tolist()
            scores |= {"pixel_hd": whole, "pixel_hd95": most}
        return scores


def _nearest(values: list[float], wanted: float) -> int:
    """Place of a value that a float32 buffer has rounded."""
    return min(range(len(values)), key=lambda place: abs(values[place] - wanted))
