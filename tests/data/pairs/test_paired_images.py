"""The sets themselves: folders, tables, GlaS, CIFAR-10, slides; and what is said when something is missing."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.pairs.cifar10_paired import Cifar10Paired
from kd_mil.data.pairs.glas_grade import GlasGrade
from kd_mil.data.pairs.paired_images import Celiac, ImageFolders, Luad
from kd_mil.data.pairs.paired_slides import PairedSlides
from kd_mil.slides.tiles.tissue import TissueSettings


def write_image(path, at=0, size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(at).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


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
        (lambda root: GlasGrade(None, root), "GlaS"),
        (lambda root: Cifar10Paired(None, root, root), "CIFAR-10"),
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


def test_glas_is_divided_by_patient(shared_data):
    root = shared_data("glas")
    tested = []
    for fold in range(4):
        data = GlasGrade(str(root), "", fold=fold, num_folds=4, teacher_downsample=16, student_downsample=32)
        data._make_images = lambda source: {}  # the division alone: nothing is decoded
        data.setup()
        parts = [{data.source.cases[at] for at in positions.tolist()} for positions in data.positions.values()]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 16
        tested += data.positions["test"].tolist()
    assert sorted(tested) == list(range(165))
    assert data.source.open(0).size[0] > 500
    assert data.source.labels.tolist().count(1) == 91


def test_cifar10_pairs(tmp_path):
    for part in ("train", "test"):
        for label in "abc":
            for at in range(12):
                write_image(tmp_path / "cifar10-jpg" / part / label / f"{at}.png", at, (32, 32))
    data = Cifar10Paired(
        None, str(tmp_path), str(tmp_path), max_train_images=30, max_test_images=6, student_downsample=4
    )
    data.setup()
    assert data.counts()["test"] == 6
    assert data.counts()["train"] + data.counts()["val"] == 30
    assert data.source.labels[data.positions["test"]].bincount().tolist() == [2, 2, 2]
    assert data.images["teacher"][0].shape == (3, 32, 32)
    assert data.images["student"][0].shape == (3, 8, 8)
    assert set(data.input_sizes("student")) == {(8, 8)}
    for limit in (31, 39):
        with pytest.raises(UserError, match=rf"data.max_train_images={limit}: must be a multiple of the 3.*at most 36"):
            Cifar10Paired(None, str(tmp_path), str(tmp_path), max_train_images=limit).setup()


def slide_table(root, count=8, mpp=(1.0, 0.5)):
    """Slides of two tissue sections, at two resolutions."""
    lines = []
    for at in range(count):
        scale = 1.0 / mpp[at % 2]
        side = int(400 * scale)
        image = np.full((side, 2 * side, 3), 244, dtype=np.uint8)
        for left in (0.1, 1.1):
            box = slice(int(0.2 * side), int(0.8 * side)), slice(int(left * side), int((left + 0.7) * side))
            image[box] = np.random.default_rng(at).integers(0, 40, (*image[box].shape[:2], 3)) + np.array(
                [180, 60, 130]
            )
        Image.fromarray(image).save(root / f"s{at}.png")
        lines.append({"slide_path": f"s{at}.png", "label": "ab"[at // 2 % 2], "case_id": f"p{at}", "mpp": mpp[at % 2]})
    path = root / "slides.csv"
    pd.DataFrame(lines).to_csv(path, index=False)
    return path


def test_tissue_sections_become_images_of_one_resolution(tmp_path):
    path = slide_table(tmp_path)
    settings = TissueSettings(mpp=4.0)
    data = PairedSlides(str(path), settings, mpp=1.0, min_side_um=100, teacher_downsample=1, student_downsample=4)
    data.setup()
    assert len(data.source.ids) == 16
    assert data.source.scales[0] == pytest.approx(1.0)
    assert data.source.scales[2] == pytest.approx(2.0)
    sides = torch.tensor([data.images["teacher"].sizes[at] for at in range(16)]).float()
    assert (sides.amax(0) - sides.amin(0)).max() <= 12, "both kinds of slides give images of the same resolution"
    assert (sides[:, 0] - 240).abs().max() < 90
    ratio = sides / torch.tensor([data.images["student"].sizes[at] for at in range(16)])
    assert (ratio - 4).abs().max() < 0.1
    assert data.source.cases[0] == data.source.cases[1] == "p0"
    darkness = data.images["teacher"][0].float().mean((1, 2))
    assert darkness[1] < darkness[0], "the section is pink"


def test_slides_too_coarse_or_sections_too_large_are_refused(tmp_path):
    path = slide_table(tmp_path, 4)
    with pytest.raises(UserError, match="coarser than the teacher's"):
        PairedSlides(str(path), TissueSettings(mpp=4.0), mpp=0.25).setup()
    with pytest.raises(UserError, match="max_megapixels"):
        PairedSlides(str(path), TissueSettings(mpp=4.0), min_side_um=100, max_megapixels=0.01).setup()
    with pytest.raises(UserError, match=r"no tissue section has sides of 9000 µm: lower data.min_side_um"):
        PairedSlides(str(path), TissueSettings(mpp=4.0), min_side_um=9000).setup()
