"""Camelyon16's tiles: labels and masks of their outlines, of the slides that the one reader of its folders finds."""

import numpy as np
import pytest
import shapely
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.camelyon16_patches import Camelyon16Patches
from kd_mil.data.masks.outlined_tiles import tile_mask
from kd_mil.slides.annotations.annotations import MaskAnnotation, PolygonAnnotation
from tests.support.camelyon import drawn_slides, lay_out_camelyon16

SMALL = Loading(instances_per_step=4, eval_instances_per_step=3)


def test_tile_masks_are_cut_from_outlines_by_pixel_centres():
    outline = PolygonAnnotation(np.array([shapely.box(100, 200, 164, 232)]))
    mask = tile_mask(outline, (96, 196), side=64, size=16)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 8, 1, 15)
    assert mask.sum() == 8 * 15
    painted = np.zeros((100, 100), bool)
    painted[50:58, 25:41] = True
    same = tile_mask(MaskAnnotation(painted, 4.0, (10**6, 10**6)), (96, 196), side=64, size=16)
    assert (mask == same).all()


@pytest.fixture(scope="module")
def camelyon(tmp_path_factory):
    slide_list = drawn_slides(tmp_path_factory.mktemp("sets"))
    return lay_out_camelyon16(tmp_path_factory.mktemp("camelyon16"), slide_list)


@pytest.mark.slow
def test_camelyon_tiles_have_labels_and_masks_of_their_outlines(camelyon, tmp_path, monkeypatch):
    def data():
        made = Camelyon16Patches(
            SMALL,
            str(camelyon),
            "",
            str(tmp_path),
            mpp=1.0,
            tile_size=64,
            positive_per_slide=5,
            negative_per_slide=4,
            min_tumour=0.3,
            val_fraction=0.25,
        )
        made.setup()
        return made

    first = data()
    for part in ("val", "test"):
        labels, masks = first.bags.labels[getattr(first.splits, part)], first.masks(part)
        shares = masks.float().flatten(1).mean(1)
        assert (shares[labels == 1] > 0.25).all(), "at least min_tumour, but for rounding to pixels"
        assert not masks[labels == 0].any()
        assert 0 < labels.sum() < len(labels)
    tested = {first.bags.case_ids[i] for i in first.splits.test.tolist()}
    assert tested == {"test_001", "test_003"}, "neither the duplicate nor the slide that is outlined in part"
    owners = [{first.bags.case_ids[i] for i in part.tolist()} for part in first.splits[1:]]
    assert not owners[0] & owners[1] | owners[0] & owners[2] | owners[1] & owners[2]
    assert first.instance_source["mpp"] == 1.0
    monkeypatch.setattr(Camelyon16Patches, "_cut", lambda *_: pytest.fail("the tiles are in the cache"))
    again = data()
    assert again.fingerprint() == first.fingerprint()
    assert torch.equal(again.masks("test"), first.masks("test"))


def test_a_test_slide_without_its_outlines_is_no_normal_slide(camelyon, tmp_path):
    outlines = camelyon / "testing" / "lesion_annotations" / "test_001.xml"
    kept = outlines.read_bytes()
    outlines.unlink()
    try:
        with pytest.raises(UserError, match=r"tumour slide .*test_001\.tif' has no outlines"):
            Camelyon16Patches(SMALL, str(camelyon), "", str(tmp_path)).setup()
    finally:
        outlines.write_bytes(kept)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="download CAMELYON16"):
        Camelyon16Patches(SMALL, None, str(tmp_path), str(tmp_path)).setup()
    with pytest.raises(UserError, match="min_tumour=0"):
        Camelyon16Patches(SMALL, str(tmp_path), "", str(tmp_path), min_tumour=0)
    with pytest.raises(UserError, match="must be at least 1"):
        Camelyon16Patches(SMALL, str(tmp_path), "", str(tmp_path), negative_per_slide=0)
