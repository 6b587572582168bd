"""Lesions, FROC and overlap on grids drawn by hand."""

import math

import numpy as np
import pytest

from kd_mil.evaluation.statistics.lesions import (
    ScoredSlide,
    found_lesions,
    froc,
    grid_step,
    merged,
    tile_overlap,
    weighted_froc,
)

STEP = 256


def slide(truth, scores):
    """Tiles of two drawings of digits, row by row; `?` is unknown."""
    rows = [line.split() for line in truth]
    coords = np.array([(x * STEP, y * STEP) for y, row in enumerate(rows) for x in range(len(row))])
    marks = np.array([-1 if cell == "?" else int(cell) for row in rows for cell in row])
    return ScoredSlide(coords, np.array([float(cell) for row in scores for cell in row.split()]), marks)


ONE = slide(["1 0 0 0", "0 1 0 1", "0 0 0 ?"], [".9 .8 0 0", "0 .6 0 .2", ".7 0 0 .95"])
"""Two lesions (the tiles of the first touch by a corner); detections: 0.9 in it with its neighbours, 0.95 unknown."""


def test_tiles_that_touch_are_one_lesion():
    assert grid_step(ONE.coords) == STEP
    assert len(set(merged(ONE.coords[ONE.truth > 0], STEP))) == 2
    assert merged(ONE.coords[:1], math.nan).tolist() == [0]


def test_a_curve_by_hand():
    """One of two lesions at 0.9, and a slide without a lesion that has false positives at 0.95 and 0.6."""
    other = slide(["0 0 0 0"], [".95 0 0 .6"])
    found = froc([ONE, other], least=0.5)
    assert (found.lesions, found.slides) == (2, 2)
    assert found.false_positives.tolist() == [0, 0.5, 1]
    assert found.sensitivity.tolist() == [0, 0.5, 0.5]
    assert found.at == {0.25: 0.25, 0.5: 0.5, 1.0: 0.5, 2.0: 0.5, 4.0: 0.5, 8.0: 0.5}
    assert found.score == pytest.approx((0.25 + 5 * 0.5) / 6)


def test_all_lesions_found_without_a_false_positive():
    perfect = ONE._replace(scores=(ONE.truth > 0).astype(float))
    assert froc([perfect], 0.5).score == 1


def test_no_detection_at_all_and_no_lesion_at_all():
    assert froc([ONE], least=2).score == 0
    assert math.isnan(froc([slide(["0 0"], ["1 0"])], 0.5).score)


def test_overlap_by_hand_and_by_pixels():
    """Four tiles of 4 x 4 pixels."""
    decided, area = np.array([True, True, False, False]), np.array([1, 0.25, 0.5, 0])
    truth = np.concatenate([np.arange(16) < 16 * share for share in area])
    marked = np.repeat(decided, 16)
    dice = 2 * (truth & marked).sum() / (truth.sum() + marked.sum())
    iou = (truth & marked).sum() / (truth | marked).sum()
    assert tile_overlap(decided, area) == {"dice": pytest.approx(dice), "iou": pytest.approx(iou)}
    assert math.isnan(tile_overlap(decided, np.zeros(4))["dice"])


def test_drawn_slides_are_slides_repeated_as_often():
    """The weighted score against `froc` of slides laid end to end as often as they were drawn."""
    rng = np.random.default_rng(0)
    coords = np.array([(x * STEP, y * STEP) for y in range(6) for x in range(6)])
    slides = []
    for number in range(5):
        truth = (rng.random(36) < (0.15 if number else 0)).astype(int)
        scores = np.round(rng.random(36) * 0.7 + 0.2 * truth, 1)
        slides.append(ScoredSlide(coords, scores, np.where(rng.random(36) < 0.05, -1, truth)))
    score = weighted_froc(found_lesions(slides, 0.5))
    counts = rng.multinomial(5, np.full(5, 0.2), 30)
    for weights, value in zip(counts, score(counts.astype(float)), strict=True):
        drawn = [slide for slide, times in zip(slides, weights, strict=True) for _ in range(times)]
        assert value == pytest.approx(froc(drawn, 0.5).score, nan_ok=True)
    assert len(np.unique(score(counts.astype(float)).round(6))) > 5
    only_negative = np.array([[3.0, 0, 0, 0, 0]])
    assert np.isnan(score(only_negative)).all()
