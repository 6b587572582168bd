"""Your own folders and tables, and the two sets of the paper; and what is said when something is missing."""

import pandas as pd
import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.pairs.paired_images import Celiac, ImageFolders, Luad
from tests.support.tiny_images import write_image


def folders(root, parts=("",), each=6):
    for part in parts:
        for name in ("benign", "malignant"):
            for at in range(each):
                write_image(root / part / name / f"{at}.png", at, (20 + at, 16))
    return root


def table(root, rows):
    for at, row in enumerate(rows):
        write_image(root / row["image_path"], at)
    path = root / "images.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def rows(cases=8, each=2):
    return [
        {"image_path": f"{c}_{i}.png", "label": "ab"[c % 2], "case_id": f"p{c}"}
        for c in range(cases)
        for i in range(each)
    ]


def test_class_folders_are_divided(tmp_path):
    data = ImageFolders(str(folders(tmp_path)), "")
    data.setup()
    assert data.class_names == ("benign", "malignant")
    assert data.source.ids[0] == "benign/0.png"
    assert min(data.counts()[part] for part in ("train", "val", "test")) > 0


def test_parts_and_unlabelled_folder(tmp_path):
    folders(tmp_path, ("train", "val", "test"))
    for at in range(5):
        write_image(tmp_path / "auxiliary" / f"{at}.jpg", at)
    data = ImageFolders(str(tmp_path), "", distil_on="auxiliary")
    data.setup()
    assert data.counts() == {"train": 12, "val": 12, "test": 12, "auxiliary": 5}
    assert (data.source.labels[data.positions["auxiliary"]] == -1).all()


def test_table_with_patients_and_parts(tmp_path):
    given = [row | {"split": "auxiliary" if row["case_id"] == "p7" else ""} for row in rows()]
    data = ImageFolders(str(table(tmp_path, given)), "", classes=["b", "a"])
    data.setup()
    assert data.class_names == ("b", "a")
    assert data.counts()["auxiliary"] == 2
    assert data.source.cases[:2] == ["p0", "p0"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "c"}, "label 'c'"),
        ({"split": "train/test"}, "is no part"),
        ({"image_id": "x"}, "listed twice"),
    ],
)
def test_mistakes_in_a_table(change, message, tmp_path):
    path = table(tmp_path, [row | change for row in rows()])
    with pytest.raises(UserError, match=message):
        ImageFolders(str(path), "", classes=["a", "b"]).setup()


def test_missing_and_broken_files(tmp_path):
    path = table(tmp_path, rows())
    (tmp_path / "0_0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0_0\.png: not a readable image"):
        ImageFolders(str(path), "").setup()
    (tmp_path / "0_0.png").unlink()
    with pytest.raises(UserError, match="there is no image"):
        ImageFolders(str(path), "").setup()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: ImageFolders(None, root), "data.root is not set"),
        (lambda root: Celiac(None, root), "ask the authors"),
        (lambda root: Luad(None, root), "ask the authors"),
    ],
)
def test_missing_sets_say_what_to_get(make, message, tmp_path):
    with pytest.raises(UserError, match=message):
        make(str(tmp_path)).setup()


def test_the_papers_sets_know_their_classes(tmp_path):
    given = [
        {"image_path": f"{c}.png", "label": ["Normal", "Non-specific Duodenitis", "Celiac Sprue"][c % 3]}
        for c in range(24)
    ]
    (tmp_path / "celiac").mkdir()
    table(tmp_path / "celiac", given)
    data = Celiac(None, str(tmp_path))
    data.setup()
    assert data.class_names == ("Normal", "Non-specific Duodenitis", "Celiac Sprue")
