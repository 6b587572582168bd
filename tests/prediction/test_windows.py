"""Windows cover everything, blend without seams, and leave a map that a single window would give."""

import itertools

import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.prediction.windows import Canvas, grouped, image_map, rim_weights, window_starts


@pytest.mark.parametrize(("length", "window", "overlap"), [(10, 4, 0), (10, 4, 2), (11, 4, 3), (4, 4, 2), (3, 4, 0)])
def test_windows_cover_the_whole_length(length, window, overlap):
    starts = window_starts(length, window, overlap)
    covered = {pixel for start in starts for pixel in range(start, start + window)}
    assert covered >= set(range(length))
    assert starts == sorted(set(starts))
    assert starts[-1] == max(length - window, 0)
    assert all(later - earlier <= window - overlap for earlier, later in itertools.pairwise(starts))


def pixelwise(images):
    """A network that sees one pixel at a time: windows must not matter."""
    return images[:, 0].float() / 255


@pytest.mark.parametrize("shape", [(3, 20, 30), (3, 8, 8), (3, 5, 40), (3, 5, 6)])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_windows_do_not_show_where_the_network_sees_pixels_alone(shape, batch_size):
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = image_map(pixelwise, image, (8, 8), 4, batch_size)
    np.testing.assert_allclose(whole, image[0].numpy() / 255, atol=1e-5)


def test_neighbours_are_blended_by_their_distance_to_the_rim():
    canvas = Canvas(4, 12)
    canvas.add(0, 0, np.zeros((4, 8), np.float32))
    canvas.add(0, 4, np.ones((4, 8), np.float32))
    row = canvas.result()[2]
    assert row[:4].tolist() == [0] * 4
    assert row[8:].tolist() == pytest.approx([1] * 4)
    np.testing.assert_allclose(row[4:8], [0.125, 0.375, 0.625, 0.875], atol=1e-6)


def test_what_lies_beyond_the_canvas_is_cut_off():
    canvas = Canvas(4, 4)
    canvas.add(-2, 3, np.full((4, 4), 0.5, np.float32))
    canvas.add(9, 9, np.ones((4, 4), np.float32))
    result = canvas.result()
    assert result[:2, 3].tolist() == [0.5, 0.5]
    assert np.count_nonzero(result) == 2


def test_weights_are_positive_up_to_the_rim():
    weights = rim_weights(5, 8)
    assert weights.min() > 0
    assert weights.max() == weights[2, 3]


def test_canvases_have_a_limit():
    with pytest.raises(UserError, match=r"raise reduce"):
        Canvas(100_000, 100_000, max_gib=8)


def test_groups_keep_the_order():
    assert list(grouped(range(5), 2)) == [[0, 1], [2, 3], [4]]
