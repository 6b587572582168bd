"""Teacher, student and both together as words on instances, each with how it was normalised; and lesions found.

scorecard(tables, "teacher", "student")
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_mil.evaluation.metrics import Scores
from kd_mil.evaluation.ranking import ranking_scores
from kd_mil.evaluation.statistics.lesions import ScoredSlide, froc, tile_overlap
from kd_mil.evaluation.tables import PredictionTables

NORMALISATIONS = ("none", "bag", "set")
"""As it is; by the range of its bag; by the range of all bags of the table."""


def scorecard(tables: PredictionTables, teacher: str, student: str) -> list[dict[str, Any]]:
    """Rows `word, normalisation` and the scores of `ranking_scores`: pooled, `_within` positive bags, `_per_bag`.

    Words are the teacher's attention (its instance score, where it has no attention), the student's probability and
    the mean of both, which is there where attention is normalised to [0, 1]. A ranking within a bag does not depend on
    the normalisation, a pooled one does.

    Args:
        tables: of a split, with instance labels.
        teacher, student: roles.

    Returns:
        Nothing without a known instance label.
    """
    instances = tables.instances
    known = instances["label"] >= 0
    if not known.any():
        return []
    attention = instances.get(f"{teacher}/attention", instances[f"{teacher}/scores"])
    inside, rows = tables.in_positive_bag()[known], []
    for word, how, column in words(attention, instances[f"{student}/probs"], instances["bag"]):
        scores = ranking_scores(column[known], instances["label"][known] > 0, instances["bag"][known], inside)
        rows.append({"word": word, "normalisation": how} | scores)
    return rows


def words(attention: Tensor, said: Tensor, bags: Tensor) -> Iterator[tuple[str, str, Tensor]]:
    """Word, normalisation and scores (N,) float64 of every row of a scorecard.

    Args:
        attention: (N,) of the teacher.
        said: (N,) probabilities of the student.
        bags: (N,) int64 bag of each.
    """
    for how in NORMALISATIONS:
        scaled = normalised(attention.double(), bags, how)
        yield "teacher", how, scaled
        yield ("student", how, said.double()) if how == "none" else ("mean", how, (scaled + said.double()) / 2)


def normalised(scores: Tensor, bags: Tensor, how: str) -> Tensor:
    """Scores (N,) brought to [0, 1] by their range in each bag or in all; equal ones become 0.

    Args:
        scores: (N,).
        bags: (N,) int64 bag of each.
        how: one of `NORMALISATIONS`.
    """
    if how == "none":
        return scores
    groups = torch.unique(bags, return_inverse=True)[1] if how == "bag" else torch.zeros_like(bags)
    count = int(groups.max()) + 1
    low = torch.full((count,), torch.inf, dtype=scores.dtype).scatter_reduce_(0, groups, scores, "amin")[groups]
    high = torch.full((count,), -torch.inf, dtype=scores.dtype).scatter_reduce_(0, groups, scores, "amax")[groups]
    return (scores - low) / (high - low).clamp_min(torch.finfo(scores.dtype).tiny)


def lesion_scores(tables: PredictionTables, role: str, threshold: float) -> Scores:
    """`instance_froc`, `instance_dice_tuned` and `instance_iou_tuned` of tiles with coordinates and known labels.

    FROC merges tiles at or above the threshold into lesions; Dice and IoU take a tile for its pixels. Nothing without
    coordinates.

    Args:
        tables: of a split.
        role: whose instance probabilities.
        threshold: of instances, chosen on validation bags.
    """
    rows = {name: tables.instances[name].cpu().numpy() for name in ("bag", "label", "x", "y")}
    probs = tables.instances[f"{role}/probs"].cpu().numpy()
    placed = rows["x"] >= 0
    if not placed.any():
        return {}
    order = np.flatnonzero(placed)[np.argsort(rows["bag"][placed], kind="stable")]
    slides = [
        ScoredSlide(np.stack([rows["x"][own], rows["y"][own]], 1), probs[own], rows["label"][own])
        for own in np.split(order, np.flatnonzero(np.diff(rows["bag"][order])) + 1)
    ]
    known = placed & (rows["label"] >= 0)
    overlap = tile_overlap(probs[known] >= threshold, (rows["label"][known] > 0).astype(float))
    return {"instance_froc": froc(slides, threshold).score} | {
        f"instance_{name}_tuned": value for name, value in overlap.items()
    }
