"""A worker fills the same shared memory again and again; a batch is whole for as long as it is worked on."""

import numpy as np
from PIL import Image

from kd_mil.slides.extraction.tile_loader import BUFFERS, TileRequest, tile_loader


def test_batches_of_a_worker_are_those_of_the_main_process(tmp_path):
    """More batches than buffers, the last ones smaller, and a batch is looked at when the next are read already."""
    path, rng = tmp_path / "slide.png", np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64 * BUFFERS, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    corners = [(x, y) for y in (0, 32) for x in range(0, pixels.shape[1], 32)]
    cuts = [corners[first : first + 2] for first in range(0, len(corners) - 1, 2)] + [corners[-1:]]
    batches = [TileRequest("slide", path, 1.0, 0, np.array(cut), 32, 1.0) for cut in cuts]
    assert len(batches) > 2 * BUFFERS
    for cut, batch in zip(cuts, tile_loader(iter(batches), "openslide", num_workers=1, pin_memory=False), strict=True):
        assert not batch.error
        expected = [pixels[y : y + 32, x : x + 32] for x, y in cut]
        np.testing.assert_array_equal(batch.pixels.numpy(), expected)
