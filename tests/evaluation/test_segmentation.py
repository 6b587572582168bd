"""Scores of maps against hand counts, scipy and scikit-learn; what is undefined is NaN."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff
from sklearn.metrics import f1_score, jaccard_score, log_loss, precision_score, recall_score, roc_auc_score

from kd_mil.core.errors import UserError
from kd_mil.evaluation.hausdorff import hausdorff_distances, outline
from kd_mil.evaluation.map_reading import MapReading
from kd_mil.evaluation.segmentation import (
    at_point,
    blur_within,
    choose_point,
    count_pixels,
    gaussian_blur,
    image_probs,
    image_scores,
    pixel_scores,
)

PLAIN = MapReading(blur=0.0, blurs=(0.0,))
LABELS = torch.tensor([1, 0, 1, 0])


def example(seed=0, size=16):
    random = np.random.default_rng(seed)
    masks = (random.random((4, size, size)) < 0.4).astype(np.uint8) * LABELS.numpy()[:, None, None].astype(np.uint8)
    maps = np.clip(masks * 0.3 + random.random((4, size, size)) * 0.7, 0, 1).astype(np.float32)
    return torch.from_numpy(maps), torch.from_numpy(masks)


def scores_of(maps, masks, labels=LABELS, reading=PLAIN):
    return pixel_scores(at_point(count_pixels(maps, masks, reading), reading.configured), labels)


@pytest.mark.parametrize("sigma", [0.8, 3.0])
def test_blur_is_scipys(sigma):
    maps, _ = example(size=40)
    expected = ndimage.gaussian_filter(
        maps.numpy(), (0, sigma, sigma), mode="mirror", radius=(0, *[math.ceil(4 * sigma)] * 2)
    )
    torch.testing.assert_close(gaussian_blur(maps, sigma), torch.from_numpy(expected), atol=1e-5, rtol=0)
    assert gaussian_blur(maps, 0) is maps


def test_what_was_not_seen_has_no_weight_in_a_blur():
    """A constant stays one up to the rim of what was seen; where all is seen the two blurs are one."""
    seen = torch.zeros(1, 24, 24, dtype=torch.bool)
    seen[:, 5:16, 3:20] = True
    torch.testing.assert_close(blur_within(0.7 * seen, seen, 2.0), 0.7 * seen)
    maps = example()[0]
    torch.testing.assert_close(
        blur_within(maps, torch.ones_like(maps, dtype=torch.bool), 2.0), gaussian_blur(maps, 2.0)
    )
    assert torch.equal(blur_within(maps, torch.zeros_like(maps, dtype=torch.bool), 2.0), torch.zeros_like(maps))


def test_blur_wider_than_the_image_stays_within_its_range():
    blurred = gaussian_blur(example(size=8)[0], 30.0)
    assert 0 <= blurred.min() <= blurred.max() <= 1


def test_scores_are_those_of_scikit_learn():
    maps, masks = example()
    decided = (maps >= 0.5).numpy().astype(int)
    by_image = {"f1": [], "iou": []}
    for own, mask, label in zip(decided, masks.numpy(), LABELS.tolist(), strict=True):
        by_image["f1"].append(f1_score(mask.ravel(), own.ravel(), pos_label=label))
        by_image["iou"].append(jaccard_score(mask.ravel(), own.ravel(), pos_label=label))
    scores = scores_of(maps, masks)
    for name, values in by_image.items():
        assert scores[f"pixel_{name}"] == pytest.approx(np.mean(values))
        assert scores[f"pixel_{name}_pos"] == pytest.approx(np.mean(values[0::2]))
        assert scores[f"pixel_{name}_neg"] == pytest.approx(np.mean(values[1::2]))
    assert scores["pixel_dice"] == pytest.approx(f1_score(masks.numpy().ravel(), decided.ravel()))
    assert scores["pixel_iou_micro"] == pytest.approx(jaccard_score(masks.numpy().ravel(), decided.ravel()))
    assert scores["pixel_precision"] == pytest.approx(precision_score(masks.numpy().ravel(), decided.ravel()))
    assert scores["pixel_recall"] == pytest.approx(recall_score(masks.numpy().ravel(), decided.ravel()))
    of_positives = masks[0::2].numpy().ravel(), decided[0::2].ravel()
    assert scores["pixel_precision_pos"] == pytest.approx(precision_score(*of_positives))
    assert scores["pixel_foreground"] == pytest.approx(decided.mean())


def test_a_probability_at_the_threshold_is_positive():
    maps = torch.tensor([[[0.5, 0.4999999]]])
    assert scores_of(maps, torch.tensor([[[1, 0]]]), torch.tensor([1]))["pixel_f1"] == 1


def test_unknown_pixels_count_nowhere():
    maps, masks = example()
    known_part = scores_of(maps[:, :8], masks[:, :8])
    masks[:, 8:] = 255
    assert scores_of(maps, masks) == pytest.approx(known_part)


def test_images_without_any_known_pixel_are_left_out():
    maps, masks = example()
    masks[0] = 255
    assert scores_of(maps, masks)["pixel_f1"] == pytest.approx(scores_of(maps[1:], masks[1:], LABELS[1:])["pixel_f1"])
    nothing = scores_of(maps, torch.full_like(masks, 255))
    assert all(math.isnan(value) for value in nothing.values())


def test_pixels_without_a_positive_have_no_f1_though_some_are_called_positive():
    """As for bags: an image of positive label whose known pixels are all negative says nothing of finding positives."""
    scores = scores_of(torch.ones(1, 4, 4), torch.zeros(1, 4, 4).byte(), torch.tensor([1]))
    assert all(math.isnan(scores[f"pixel_{name}"]) for name in ("f1", "iou", "dice", "iou_micro", "recall"))
    assert scores["pixel_foreground"] == 1


def test_undefined_scores_are_nan():
    empty = torch.zeros(1, 4, 4)
    scores = scores_of(empty, empty.byte(), torch.tensor([1]))
    assert math.isnan(scores["pixel_f1"])
    assert math.isnan(scores["pixel_f1_neg"])
    assert math.isnan(scores["pixel_dice"])


def test_image_scores():
    maps, _ = example()
    probs = image_probs(maps)
    by_hand = [float(np.mean(own.numpy().astype(float) ** 4) ** 0.25) for own in maps]
    assert probs.tolist() == pytest.approx(by_hand)
    scores = image_scores(probs, LABELS)
    assert scores["image_loss"] == pytest.approx(log_loss(LABELS, probs))
    assert scores["image_auroc"] == roc_auc_score(LABELS, probs)


def test_point_by_masks_is_the_best_of_a_search():
    maps, masks = example()
    reading = MapReading(blurs=(0.0, 1.0), blur=1.0, tuned_by="masks")
    counts = count_pixels(maps, masks, reading)
    blurs, thresholds = reading.grid
    chosen = pixel_scores(at_point(counts, choose_point(counts, LABELS, reading)), LABELS)["pixel_f1"]
    every = [
        scores_of(gaussian_blur(maps, blur), masks, LABELS, MapReading(blur=0.0, blurs=(0.0,), threshold=threshold))
        for blur in blurs
        for threshold in thresholds
    ]
    assert chosen == pytest.approx(max(one["pixel_f1"] for one in every))


def test_point_by_labels_tells_images_apart_and_ignores_masks():
    """Negative maps peak at 0.6, positive ones at 0.8: a threshold between, the nearest to 0.5."""
    by_labels = replace(PLAIN, tuned_by="labels")
    maps = torch.zeros(4, 8, 8)
    maps[:, 4, 4] = torch.tensor([0.82, 0.58, 0.9, 0.3])
    counts = count_pixels(maps, torch.zeros(4, 8, 8, dtype=torch.uint8), PLAIN)
    _, threshold = choose_point(counts, LABELS, by_labels)
    assert PLAIN.grid[1][threshold] == pytest.approx(0.6)
    for masks in (torch.full((4, 8, 8), 255, dtype=torch.uint8), torch.ones(4, 8, 8, dtype=torch.uint8)):
        assert choose_point(count_pixels(maps, masks, PLAIN), LABELS, by_labels) == (0, threshold)
    assert choose_point(counts, LABELS, PLAIN) == PLAIN.configured, "by default nothing is chosen"


def test_point_stays_as_configured_where_nothing_can_be_told():
    maps, masks = example()
    only_positive = torch.ones_like(LABELS)
    by_labels = MapReading(blur=1.5, threshold=0.35, tuned_by="labels")
    assert choose_point(count_pixels(maps, masks, by_labels), only_positive, by_labels) == by_labels.configured
    by_masks = MapReading(tuned_by="masks")
    unknown = torch.full_like(masks, 255)
    assert choose_point(count_pixels(maps, unknown, by_masks), LABELS, by_masks) == by_masks.configured
    assert by_labels.grid[1][by_labels.configured[1]] == 0.35


def test_hausdorff_distance_is_scipys_on_outlines():
    random = np.random.default_rng(0)
    one, other = (ndimage.gaussian_filter(random.random((40, 50)), 4) > 0.5 for _ in range(2))
    points = [np.argwhere(outline(mask)) for mask in (one, other)]
    expected = max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0])
    whole, most = hausdorff_distances(one, other)
    assert whole == pytest.approx(expected)
    assert most <= whole


def test_hausdorff_distance_of_shifted_squares():
    one, other = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    one[4:9, 5:10], other[4:9, 12:17] = True, True
    assert hausdorff_distances(one, other) == (7.0, 7.0)
    assert hausdorff_distances(one, one) == (0.0, 0.0)


def test_empty_predictions_and_truths():
    truth = np.zeros((30, 40), bool)
    truth[3, 4] = True
    empty = np.zeros_like(truth)
    assert hausdorff_distances(empty, truth)[0] == 50
    assert hausdorff_distances(empty, truth, "origin")[0] == 5
    assert math.isnan(hausdorff_distances(empty, truth, "skip")[0])
    assert math.isnan(hausdorff_distances(truth, empty)[0])


@pytest.mark.parametrize("settings", [{"blur": -1.0}, {"threshold": 1.0}, {"blurs": -1.0}])
def test_readings_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match=f"reading.{next(iter(settings))}="):
        MapReading(**{name: [value] if name == "blurs" else value for name, value in settings.items()})
