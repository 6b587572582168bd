"""DigestPath2019 in its two folders."""

import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.digestpath2019 import DigestPath2019
from tests.support.tiny_images import paint

SMALL = Loading(instances_per_step=4, eval_instances_per_step=3)


def test_digestpath_pairs_images_with_masks(tmp_path):
    for number in range(8):
        paint(tmp_path / "tissue-train-neg" / f"N{number}_2019-lv1.jpg", 220)
        paint(tmp_path / "tissue-train-pos-v1" / f"P{number // 2}_2019-{number}-lv1.jpg", 120)
        paint(tmp_path / "tissue-train-pos-v1" / f"P{number // 2}_2019-{number}-lv1_mask.jpg", corner=255)
    data = DigestPath2019(SMALL, str(tmp_path), "", image_size=(16, 24), num_folds=2, val_fraction=0.25)
    data.setup()
    assert int(data.bags.labels.sum()) == 8
    assert {case for case in data.bags.case_ids if case.startswith("P")} == {"P0", "P1", "P2", "P3"}
    assert int(data.masks("test")[data.bags.labels[data.splits.test] == 1][0].sum()) == pytest.approx(8 * 12, abs=12)
    (tmp_path / "tissue-train-pos-v1" / "P0_2019-0-lv1_mask.jpg").unlink()
    with pytest.raises(UserError, match=r"P0_2019-0-lv1_mask\.jpg does not exist"):
        DigestPath2019(SMALL, str(tmp_path), "").setup()
