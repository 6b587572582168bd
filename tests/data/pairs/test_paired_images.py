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
        ({"case_id": "=1+1"}, "case_id '=1.1' begins as a formula"),
    ],
)
def test_mistakes_in_a_table(change, message, tmp_path):
    path = table(tmp_path, [row | change for row in rows()])
    with pytest.raises(UserError, match=message):
        ImageFolders(str(path), "", classes=["a", "b"]).setup()


def test_names_that_spreadsheets_would_run_are_refused(tmp_path):
    """They become cells of images.csv and splits.csv: names of files, of folders of classes, of patients."""
    path = table(tmp_path, rows())
    path.write_text(path.read_text().replace("3_1.png", "=3_1.png"))
    with pytest.raises(UserError, match=r"image id '=3_1\.png' begins as a formula"):
        ImageFolders(str(path), "").setup()
    (folders(tmp_path / "set") / "benign").rename(tmp_path / "set" / "-benign")
    with pytest.raises(UserError, match=r"'-benign.* begins as a formula"):
        ImageFolders(str(tmp_path / "set"), "").setup()


def test_missing_and_broken_files_are_left_out_and_listed_once(tmp_path, capsys):
    """The parts of the others are those of the whole set."""
    path = table(tmp_path, rows(20))
    whole = ImageFolders(str(path), "")
    whole.setup()
    (tmp_path / "0_0.png").write_bytes(b"no picture")
    (tmp_path / "3_1.png").unlink()
    data = ImageFolders(str(path), "")
    data.setup()
    data.setup()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert lines[1:] == [f"left out 3_1.png: {tmp_path / '3_1.png'}: no such image"]
    assert lines[0].startswith(f"left out 0_0.png: {tmp_path / '0_0.png'}: not a readable image")
    assert data.split_rows() == [row for row in whole.split_rows() if row["image_id"] not in ("0_0.png", "3_1.png")]
    assert sum(data.counts().values()) == 38
    data.write_tables(tmp_path)
    assert pd.read_csv(tmp_path / "left_out.csv").name.tolist() == ["0_0.png", "3_1.png"]
    whole.write_tables(tmp_path)
    assert not (tmp_path / "left_out.csv").exists()


def test_too_few_readable_images_are_one_line(tmp_path):
    path = table(tmp_path, rows())
    for at in range(1, 8, 2):
        for name in (f"{at}_0.png", f"{at}_1.png"):
            (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"^8 images or slides are left out \(.*1_0\.png: not a readable.*class"):
        ImageFolders(str(path), "").setup()
    for name in tmp_path.glob("*.png"):
        name.unlink()
    with pytest.raises(UserError, match=r"there is no image .*, and none of the others"):
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
