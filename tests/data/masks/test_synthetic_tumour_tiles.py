"""Tiles of procedural slides: parts by slide, small tumours, exact masks, cut once."""

import pytest
import torch

from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.outlined_tiles import OutlinedTiles
from kd_mil.data.masks.synthetic_tumour_tiles import SyntheticTumourTiles
from kd_mil.slides.synthetic.build import SyntheticSettings


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def tiles(cache, **settings):
    slides = SyntheticSettings(slides=5, size=768, mpp=1.0, slides_per_case=1)
    data = SyntheticTumourTiles(slides, Loading(), cache, positive_per_slide=4, negative_per_slide=2, **settings)
    data.setup()
    return data


def test_slides_separate_the_parts_and_masks_are_of_the_outlines(cache):
    data = tiles(cache)
    assert data.model_inputs == {"instance_shape": [3, 128, 128], "num_classes": 2}
    owners = [{data.bags.case_ids[i] for i in part.tolist()} for part in data.splits[1:]]
    assert [len(own) for own in owners] == [3, 1, 1], "the parts of the slides, 3 : 1 : 1"
    assert not owners[0] & owners[1] | owners[0] & owners[2] | owners[1] & owners[2]
    for part in ("train", "val", "test"):
        labels, masks = data.bags.labels[getattr(data.splits, part)], data.masks(part)
        shares = masks.float().flatten(1).mean(1)
        assert (shares[labels == 1] > 0.045).all(), "at least min_tumour, but for rounding to pixels"
        assert not masks[labels == 0].any()
        assert 0 < labels.sum() < len(labels)
    assert data.instance_source["mpp"] == 1.0


def test_tiles_are_cut_once(cache, monkeypatch):
    first = tiles(cache)
    monkeypatch.setattr(OutlinedTiles, "_cut", lambda *_: pytest.fail("the tiles are in the cache"))
    again = tiles(cache)
    assert again.fingerprint() == first.fingerprint()
    assert torch.equal(again.masks("test"), first.masks("test"))
