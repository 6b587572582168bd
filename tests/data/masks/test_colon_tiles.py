"""Tiles around nuclei: what is known of them, and what is not; on two written images and on the set itself."""

import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.batches import UNKNOWN
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.colon_tiles import ColonTiles, even_corners, nuclei_within, nucleus_mask


def test_tiles_cover_the_image_and_no_more_than_needed(tmp_path):
    corners = even_corners((500, 500), 128, tmp_path)
    assert sorted(set(corners[:, 0].tolist())) == sorted(set(corners[:, 1].tolist())) == [0, 124, 248, 372]
    assert len(corners) == 16
    assert even_corners((128, 256), 128, tmp_path).tolist() == [[0, 0], [128, 0]]
    with pytest.raises(UserError, match="tile_size=128 does not fit"):
        even_corners((100, 500), 128, tmp_path)


def test_a_nucleus_belongs_to_the_tile_of_its_centre():
    """A centre between two pixels counts for the one it is rounded to, in either tile."""
    centres, epithelial = np.array([[127.4, 3.0], [127.6, 3.0], [300.0, 3.0]]), np.array([True, False, True])
    left, right = (nuclei_within(centres, epithelial, np.array([x, 0]), 128) for x in (0, 128))
    assert left[0].tolist() == [[127.4, 3.0]]
    assert left[1].tolist() == [True]
    np.testing.assert_allclose(right[0], [[-0.4, 3.0]])
    assert right[1].tolist() == [False]


def test_masks_are_discs_and_of_two_the_nearer():
    mask = nucleus_mask(np.array([[2.0, 2.0], [5.0, 2.0]]), np.array([True, False]), 8, radius=2.0)
    row = mask[2].tolist()
    assert row == [1, 1, 1, 1, 0, 0, 0, 0]
    assert mask[:, 2].tolist() == [1, 1, 1, 1, 1, UNKNOWN, UNKNOWN, UNKNOWN]
    assert (mask[5:] == UNKNOWN).all()
    assert (nucleus_mask(np.empty((0, 2)), np.empty(0, bool), 8, 2.0) == UNKNOWN).all()


def test_labels_and_masks_of_the_set_agree(shared_data):
    data = ColonTiles(Loading(), str(shared_data("crc-histo-phenotypes")), "")
    data.setup()
    assert len(data.bags) == 1600
    labels, masks = data.bags.labels[data.splits.test], data.masks("test")
    assert torch.equal((masks == 1).flatten(1).any(1), labels == 1)
    owners = [{data.bags.case_ids[i] for i in part.tolist()} for part in data.splits[1:]]
    assert [len(own) for own in owners] == [70, 10, 20]
    assert not owners[0] & owners[2]
