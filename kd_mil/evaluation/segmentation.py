"""Scores of probability maps against pixel masks and image labels, from counts per image; NaN where undefined."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_mil.data.batches import UNKNOWN
from kd_mil.evaluation.map_reading import MapReading
from kd_mil.evaluation.metrics import Scores, binary_scores
from kd_mil.evaluation.tables import Columns

IMAGE_EXPONENT = 4.0
LEAST_PROB = 1e-6


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """Smooth (B, H, W) by a Gaussian of `sigma` pixels, cut off at 4 sigma, mirrored at the border."""
    if sigma == 0:
        return maps
    blurred = maps[:, None].float()
    for axis in (-2, -1):
        radius = min(math.ceil(4 * sigma), maps.shape[axis] - 1)
        offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=torch.float32)
        kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).view(1, 1, *((-1, 1) if axis == -2 else (1, -1)))
        margin = (0, 0, radius, radius) if axis == -2 else (radius, radius, 0, 0)
        blurred = F.conv2d(F.pad(blurred, margin, mode="reflect"), kernel)
    return blurred[:, 0]


def blur_within(maps: Tensor, seen: Tensor, sigma: float) -> Tensor:
    """As `gaussian_blur`, by pixels that were seen, (B, H, W) bool, alone: the others have no weight, and are 0."""
    weights = gaussian_blur(seen.float(), sigma).clamp(min=torch.finfo(torch.float32).tiny)
    return gaussian_blur(maps * seen, sigma) / weights * seen


def image_probs(maps: Tensor) -> Tensor:
    """Generalised mean (exponent 4) of each map (B, H, W), (B,) float64: the probability that the image is positive."""
    return maps.double().flatten(1).pow(IMAGE_EXPONENT).mean(1).pow(1 / IMAGE_EXPONENT)


def count_pixels(maps: Tensor, masks: Tensor, reading: MapReading) -> Columns:
    """What every score of pixels is made from, for each image, blur (S) and threshold (T) of the grid.

    Args:
        maps: (B, H, W) in [0, 1].
        masks: (B, H, W) 0, 1, or 255 where unknown.
        reading: the grid.

    Returns:
        `hit` and `predicted` (B, S, T), known pixels at or above the threshold that are positive, and all of them;
        `area` (B, S, T), the same of all pixels, known or not; `truth` and `known` (B,), positive and known pixels.
    """
    blurs, thresholds = reading.grid
    kinds = torch.where(masks == UNKNOWN, 2, masks.long())
    edges = torch.tensor(thresholds, device=maps.device)
    counts = torch.stack([_histogram(gaussian_blur(maps, blur), kinds, edges) for blur in blurs], 1)
    above = counts.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    return {
        "hit": above[:, :, 1],
        "predicted": above[:, :, :2].sum(2),
        "area": above.sum(2),
        "truth": (masks == 1).flatten(1).sum(1),
        "known": (masks != UNKNOWN).flatten(1).sum(1),
    }


def _histogram(maps: Tensor, kinds: Tensor, edges: Tensor) -> Tensor:
    """Pixels (B, 3, T + 1) by image, kind of pixel and number of thresholds reached."""
    count, bins = len(maps), len(edges) + 1
    reached = torch.bucketize(maps.float().contiguous(), edges, right=True)
    image = torch.arange(count, device=maps.device).view(-1, 1, 1)
    flat = (image * 3 + kinds) * bins + reached
    return torch.bincount(flat.flatten(), minlength=count * 3 * bins).view(count, 3, bins)


def image_pixel_scores(counts: Columns, labels: Tensor) -> Columns:
    """F1 and IoU (N, ...) of each image: of the positive class in positive images, of the negative one in others.

    NaN where the mask does not hold the class: nothing is known of the image, or all that is known is of the other one.
    """
    shape = (-1, *[1] * (counts["hit"].dim() - 1))
    truth, known, positive = (column.view(shape) for column in (counts["truth"], counts["known"], labels > 0))
    hit, predicted = counts["hit"], counts["predicted"]
    rejected = known - predicted - truth + hit
    agreed = torch.where(positive, hit, rejected).double()
    total = torch.where(positive, predicted + truth, 2 * known - predicted - truth).double()
    undefined = torch.where(positive, truth, known - truth) == 0
    return {
        "f1": torch.where(undefined, math.nan, 2 * agreed / total),
        "iou": torch.where(undefined, math.nan, agreed / (total - agreed)),
    }


def pixel_scores(counts: Columns, labels: Tensor) -> Scores:
    """Scores at one blur and threshold, keys prefixed `pixel_`.

    `f1` and `iou` are means over the images, `_pos` and `_neg` over those of one label: `f1_pos` is the mean Dice of
    positive images. Of the positive class over all pixels together are `dice` (the pooled F1), `iou_micro`,
    `precision`, `recall`, and `precision_pos` in the pixels of positive images alone; `foreground` is the share of
    pixels called positive.

    Args:
        counts: `count_pixels` at one place of the grid: all columns (N,).
        labels: (N,) int64 in {0, 1}.
    """
    scores = {}
    for name, values in image_pixel_scores(counts, labels).items():
        scores[name] = _mean(values)
        scores |= {f"{name}_{word}": _mean(values[labels == label]) for label, word in ((1, "pos"), (0, "neg"))}
    known = counts["known"] > 0
    hit, predicted, truth = (int(counts[name][known].sum()) for name in ("hit", "predicted", "truth"))
    together = predicted + truth
    scores["dice"] = 2 * hit / together if truth else math.nan
    scores["iou_micro"] = hit / (together - hit) if truth else math.nan
    found = int(counts["predicted"][labels > 0].sum())
    scores["precision"] = hit / predicted if predicted else math.nan
    scores["precision_pos"] = hit / found if found else math.nan
    scores["recall"] = hit / truth if truth else math.nan
    scores["foreground"] = predicted / total if (total := int(counts["known"].sum())) else math.nan
    return {f"pixel_{name}": value for name, value in scores.items()}


def image_scores(probs: Tensor, labels: Tensor, of: str = "") -> Scores:
    """Cross-entropy `loss`, AUROC, average precision, accuracy and F1 of image probabilities, prefixed `image_`."""
    clipped = probs.clamp(LEAST_PROB, 1 - LEAST_PROB)
    likelihood = torch.where(labels > 0, clipped, 1 - clipped)
    scores = {"loss": float(-likelihood.log().mean())} | binary_scores(probs, labels, of=of)
    return {f"image_{name}": value for name, value in scores.items()}


def at_point(counts: Columns, point: tuple[int, int]) -> Columns:
    """The counts (N,) at one place (blur, threshold) of the grid."""
    blur, threshold = point
    return {name: column[:, blur, threshold] if column.dim() == 3 else column for name, column in counts.items()}


def choose_point(counts: Columns, labels: Tensor, reading: MapReading) -> tuple[int, int]:
    """Place on the grid that validation likes best, by labels or by masks; of equals the nearest to the configured.

    By labels: sensitivity + specificity of "the image has a pixel at or above the threshold". The configured place
    where nothing is to choose, and where nothing can be told: one label alone, or no masks.
    """
    if reading.tuned_by == "none":
        return reading.configured
    if reading.tuned_by == "labels":
        found, positive = counts["area"] > 0, labels > 0
        quality = found[positive].double().mean(0) + (~found[~positive]).double().mean(0)
    else:
        quality = image_pixel_scores(counts, labels)["f1"].nanmean(0)
    if not quality.isfinite().any():
        return reading.configured
    blurs, thresholds = (torch.tensor(values) for values in reading.grid)
    best = quality.nan_to_num(-1.0) >= quality.nan_to_num(-1.0).max() - 1e-9
    away = (thresholds - reading.threshold).abs()[None] + 1e-3 * (blurs - reading.blur).abs()[:, None]
    index = int(torch.where(best, away, math.inf).argmin())
    return divmod(index, len(thresholds))


def _mean(values: Tensor) -> float:
    return float(values.nanmean()) if values.numel() else math.nan
