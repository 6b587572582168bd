"""Base of the methods on images: reading of maps, evaluation without padding, and what may select."""

import math
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.data.batches import MaskedBatch
from kd_mil.evaluation.hausdorff import hausdorff_distances
from kd_mil.evaluation.map_reading import MapReading
from kd_mil.evaluation.metrics import Scores
from kd_mil.evaluation.segmentation import (
    at_point,
    choose_point,
    count_pixels,
    gaussian_blur,
    image_probs,
    image_scores,
    pixel_scores,
)
from kd_mil.evaluation.tables import Columns, Rows
from kd_mil.evaluation.whole_images import whole_image_scores
from kd_mil.methods.base.method import Method, refuse_nan
from kd_mil.methods.base.weight_average import evaluating
from kd_mil.models.outputs import Prediction
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

    trains_on, units = "images with masks", "images"
    train_views: tuple[str, ...] = ("images",)
    """`images`, labels alone; or `masked_images`, for a method that trains on masks."""

    monitors = SELECTABLE
    operating_points: Tensor
    """(roles, 2) blur and threshold that validation chose for each role."""

    def __init__(self, preprocess: Preprocess, reading: MapReading, **training: Any) -> None:
        super().__init__(**training)
        self.preprocess, self.reading = preprocess, reading
        self.register_buffer("operating_points", torch.tensor([[reading.blur, reading.threshold]] * len(self.roles)))
        self._rows = Rows("index")

    def predict_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Probability map (B, H, W) of each role that has something to say, from stored images (B, C, H, W).

        Called in eval mode without gradient.
        """
        raise NotImplementedError

    def predict_images(self, images: Tensor, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """Probability (B,) that each image is positive, by role: the generalised mean of its map."""
        return {role: image_probs(predicted) for role, predicted in maps.items()}

    @torch.inference_mode()
    def predict(self, images: Tensor | np.ndarray) -> dict[str, Prediction]:
        """What each role says of images (B, C, H, W) as the training data stored them; on the CPU.

        `predict(images)["student"].instance_probs` is the map (B, H, W): the pixels of an image are its instances.
        `bag_probs` are (B, 2).
        """
        given = torch.as_tensor(images, device=self.device)
        with evaluating(self):
            maps = self.predict_maps(given)
            probs = {role: of.double().cpu() for role, of in self.predict_images(given, maps).items()}
        return {
            role: Prediction(torch.stack([1 - probs[role], probs[role]], 1), found.cpu(), found.cpu())
            for role, found in maps.items()
        }

    @property
    def thresholds(self) -> dict[str, float]:
        """Probability of a pixel from which on each role marks it, in a map with the blur of `reading`."""
        return dict.fromkeys(self.roles, self.reading.threshold)

    @property
    def default_monitor(self) -> str:
        """Cross-entropy of the last role's image probabilities: needs labels of validation images, no masks."""
        return f"val/{self.roles[-1]}/image_loss"

    def selectable(self, role: str) -> tuple[str, ...]:
        return self.monitors

    def check_monitor(self, monitor: str) -> None:
        """As for all methods; notes whether masks of validation images select."""
        super().check_monitor(monitor)
        by_masks = monitor.split("/")[2].startswith("pixel_")
        self.selected_by = "validation masks" if by_masks else "validation labels"
        self.model_card["selected_by"] = self.selected_by
        if by_masks:
            rank_zero_only(print)(f"monitor={monitor}: masks of validation images select the checkpoint")

    def setup(self, stage: str) -> None:
        """Pixel statistics of the training images; raises `UserError` where masks are to select and there are none."""
        super().setup(stage)
        if stage != "fit":
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        by_masks = self.selected_by == "validation masks" or self.reading.tuned_by == "masks"
        if by_masks and not (data.masks("val") == 1).any():
            raise UserError(
                "no validation image has a mask with a positive pixel: select by labels, with monitor=null and "
                "reading.tuned_by=none"
            )
        if self.preprocess.standardise:
            splits = data.splits
            self.preprocess.fit(splits.bags.sample(splits.train, STATISTICS_SAMPLE))

    def collect(self, batch: MaskedBatch) -> None:
        """Keep image probabilities and pixel counts of each role; distances of outlines in the test only."""
        columns = {"index": batch.indices, "label": batch.labels}
        maps = self.predict_maps(batch.images)
        probs = self.predict_images(batch.images, maps)
        for role, predicted in maps.items():
            counts = count_pixels(predicted, batch.masks, self.reading)
            columns |= {f"{role}/prob": probs[role]} | {f"{role}/{name}": column for name, column in counts.items()}
            if self.trainer.testing:
                columns[f"{role}/distances"] = self._distances(predicted, batch)
        if len(maps) >= 2:
            *_, first, second = (predicted >= 0.5 for predicted in maps.values())
            columns["agreement"] = (first == second).flatten(1).double().mean(1)
        self._rows.add(columns)

    def gather(self) -> Columns:
        return self._rows.collect()

    def _distances(self, maps: Tensor, batch: MaskedBatch) -> Tensor:
        """Hausdorff distance and HD95 (B, 2) of positive images with a whole mask; NaN for the rest."""
        decided = (gaussian_blur(maps, self.reading.blur) >= self.reading.threshold).cpu().numpy()
        masks = batch.masks.cpu().numpy()
        rows = [
            hausdorff_distances(predicted, mask == 1, self.reading.hausdorff_empty)
            if label and mask.max() <= 1
            else (math.nan, math.nan)
            for predicted, mask, label in zip(decided, masks, batch.labels.tolist(), strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def counts_of(self, table: Columns, role: str) -> Columns:
        """The pixel counts of one role."""
        return {name: table[f"{role}/{name}"] for name in ("hit", "predicted", "area", "truth", "known")}

    def score_role(self, stage: str, role: str) -> Scores | None:
        """Scores of images and of pixels, at the configured blur and threshold and at those that validation chose."""
        table: Columns = self.tables[stage]
        if f"{role}/prob" not in table:
            return None
        refuse_nan(role, table[f"{role}/prob"])
        labels, counts = table["label"], self.counts_of(table, role)
        if stage == "val":
            self._tune(role, counts, labels)
        scores = image_scores(table[f"{role}/prob"], labels, of=f"{stage}/{role} images")
        scores |= pixel_scores(at_point(counts, self.reading.configured), labels)
        scores |= self._tuned_scores(role, counts, labels)
        if f"{role}/distances" in table:
            whole, most = table[f"{role}/distances"].nanmean(0).tolist()
            scores |= {"pixel_hd": whole, "pixel_hd95": most}
        if role == self.roles[-1] and "agreement" in table:
            scores["pixel_agreement"] = float(table["agreement"].mean())
        return scores

    def _score(self, stage: str) -> None:
        """As for all methods; once training is over, beside the roles, what marking whole images scores."""
        super()._score(stage)
        if self.fitting:
            return
        table: Columns = self.tables[stage]
        role = next(role for role in reversed(self.roles) if f"{role}/prob" in table)
        counts, labels = self.counts_of(table, role), table["label"]
        found = whole_image_scores(counts["truth"], counts["known"], labels, table[f"{role}/prob"])
        for name, scores in found.items():
            self.scores[stage][name] = scores
            self.log_dict({f"{stage}/{name}/{metric}": value for metric, value in scores.items()}, batch_size=1)

    def _tune(self, role: str, counts: Columns, labels: Tensor) -> None:
        """Choose the blur and threshold that validation likes best."""
        blurs, thresholds = self.reading.grid
        blur, threshold = choose_point(counts, labels, self.reading)
        self.operating_points[self.roles.index(role)] = torch.tensor([blurs[blur], thresholds[threshold]])

    def _tuned_scores(self, role: str, counts: Columns, labels: Tensor) -> Scores:
        """Scores of pixels at the chosen blur and threshold, and the two."""
        blurs, thresholds = self.reading.grid
        blur, threshold = self.operating_points[self.roles.index(role)].tolist()
        scores = pixel_scores(at_point(counts, (_nearest(blurs, blur), _nearest(thresholds, threshold))), labels)
        tuned = {f"pixel_{name}_tuned": scores[f"pixel_{name}"] for name in TUNED}
        return tuned | {"pixel_blur": blur, "pixel_threshold": threshold}


def _nearest(values: list[float], wanted: float) -> int:
    """Index of a value that a float32 buffer has rounded."""
    return min(range(len(values)), key=lambda index: abs(values[index] - wanted))
