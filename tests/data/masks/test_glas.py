"""GlaS as tumour segmentation."""

import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.glas import Glas
from tests.support.tiny_images import paint

SMALL = Loading(instances_per_step=4, eval_instances_per_step=3)


def glas_folder(root):
    lines = ["name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for number in range(16):
        part = ("train", "testA")[number % 2]
        name, patient, malignant = f"{part}_{number}", number // 2, number % 4 >= 2
        lines.append(f"{name},{patient}, {'malignant' if malignant else 'benign'}, whatever")
        paint(root / "images" / f"{name}.jpg", 100)
        paint(root / "masks" / f"{name}.png", corner=255)
    (root / "Grade.csv").write_text("\n".join(lines) + "\n")
    return root


def test_glas_is_split_by_patient_and_benign_glands_are_no_tumour(tmp_path):
    data = Glas(SMALL, str(glas_folder(tmp_path)), "", image_size=(8, 16), num_folds=4)
    data.setup()
    parts = [{data.bags.case_ids[index] for index in part.tolist()} for part in data.splits[1:]]
    assert sum(map(len, parts)) == 8
    assert len(set.union(*parts)) == 8
    labels, masks = data.bags.labels[data.splits.test], data.masks("test")
    assert (masks[labels == 1].flatten(1).sum(1) == 4 * 8).all()
    assert not masks[labels == 0].any()


def test_glas_names_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match=r"GlaS \(K\. Sirinukunwattana"):
        Glas(SMALL, None, str(tmp_path)).setup()
    root = glas_folder(tmp_path / "glas")
    (root / "masks" / "train_4.png").unlink()
    with pytest.raises(UserError, match=r"line 6: no image or no mask 'train_4'"):
        Glas(SMALL, None, str(tmp_path)).setup()


def test_real_glas(shared_data):
    data = Glas(SMALL, str(shared_data("glas")), "", image_size=(32, 48))
    data.setup()
    assert sum(data.counts().values()) == 165
    assert int(data.bags.labels.sum()) == 91
    assert len(set(data.bags.case_ids)) == 16
    table = {
        part: {data.bags.case_ids[i] for i in getattr(data.splits, part).tolist()} for part in ("train", "val", "test")
    }
    assert not table["train"] & table["test"]
    assert not table["train"] & table["val"]
    malignant = data.masks("test")[data.bags.labels[data.splits.test] == 1]
    assert 0.3 < malignant.float().mean() < 0.7
