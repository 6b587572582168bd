"""The one reader of Camelyon16's folders, and its slides as bags."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.tiles.camelyon16 import Camelyon16, camelyon16_slides
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings
from tests.support.camelyon import drawn_slides, lay_out_camelyon16


def keywords(tmp_path: Path) -> dict[str, Any]:
    tiling = TilingSettings(tile_size=32, mpp=2.0)
    common = {"tiling": tiling, "tissue": TissueSettings(), "cache_dir": str(tmp_path / "cache")}
    return common | {"data_dir": str(tmp_path), "loading": Loading()}


@pytest.fixture(scope="module")
def slide_list(tmp_path_factory) -> Path:
    return drawn_slides(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def camelyon(slide_list, tmp_path) -> Path:
    return lay_out_camelyon16(tmp_path / "CAMELYON16", slide_list)


def empty_files(root: Path, *names: str) -> Path:
    """The set as the reader of folders needs it: no file is opened."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def listed(root: Path) -> dict[str, tuple[str | None, str | None, bool]]:
    slides = camelyon16_slides(root)
    return {slide.slide_id: (slide.label, slide.split, slide.annotation_path is not None) for slide in slides}


@pytest.fixture
def small(tmp_path) -> Path:
    slides = ("training/normal/normal_001", "training/tumor/tumor_001", *(f"testing/images/test_{n}" for n in OF_TEST))
    outlines = ("training/lesion_annotations/tumor_001", *(f"testing/lesion_annotations/test_{n}" for n in OUTLINED))
    empty_files(tmp_path, *(f"{name}.tif" for name in slides), *(f"{name}.xml" for name in outlines))
    lines = [f"test_{n},{'Normal' if n == '003' else 'Tumor'},IDC,Macro" for n in OF_TEST]
    (tmp_path / "testing" / "reference.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


OF_TEST, OUTLINED = ("001", "003", "049", "114"), ("001", "049", "114")


def test_every_slide_comes_with_label_split_and_outlines(small):
    assert listed(small) == {
        "normal_001": ("normal", "train", False),
        "tumor_001": ("tumor", "train", True),
        "test_001": ("tumor", "test", True),
        "test_003": ("normal", "test", False),
        "test_114": ("tumor", "test", False),  # its outlines are incomplete; test_049 is a duplicate
    }


def test_outlines_may_lie_anywhere_below_their_part_and_masks_are_no_slides(small):
    (small / "training" / "lesion_annotations").rename(small / "training" / "tumor" / "unpacked")
    empty_files(small, "training/tumor/tumor_001_mask.tif", "testing/images/test_001_Mask.tif")
    assert len(listed(small)) == 5
    assert listed(small)["tumor_001"] == ("tumor", "train", True)


def test_the_reference_decides_and_a_tumour_slide_without_outlines_is_no_normal_slide(small):
    (small / "testing" / "lesion_annotations" / "test_001.xml").unlink()
    with pytest.raises(UserError, match=r"tumour slide .*test_001\.tif' has no outlines test_001\.xml below .*testing"):
        camelyon16_slides(small)
    reference = small / "testing" / "reference.csv"
    reference.write_text(reference.read_text().replace("test_001,Tumor", "test_001,Normal"))
    assert listed(small)["test_001"] == ("normal", "test", False)


def test_outlines_of_a_normal_slide_are_a_contradiction(small):
    empty_files(small, "testing/lesion_annotations/test_003.xml")
    with pytest.raises(UserError, match=r"slide 'test_003' is normal, but .*test_003\.xml' outlines tumour: fix"):
        camelyon16_slides(small)


def test_camelyon16_in_its_official_folders(camelyon, tmp_path):
    data = Camelyon16(None, val_fraction=0.25, **keywords(tmp_path))
    data.setup()
    bags, tested = data.bags, [data.bags.bag_ids[bag] for bag in data.splits.test.tolist()]
    assert tested == ["test_001", "test_003", "test_114"]  # without the duplicate
    assert data.counts() == {"train": 4, "val": 2, "test": 3}
    assert bags.class_names == ("normal", "tumor")
    assert [bags.bag_ids[bag][:5] for bag in bags.labels.nonzero().flatten().tolist()] == ["tumor"] * 3 + ["test_"] * 2
    labels = {bag_id: bags.batch(torch.tensor([bag])).instance_labels for bag, bag_id in enumerate(bags.bag_ids)}
    assert set(labels["normal_001"].tolist()) == {0}
    assert set(labels["tumor_001"].tolist()) == set(labels["test_001"].tolist()) == {0, 1}
    assert set(labels["test_114"].tolist()) == {-1}  # not all of its tumour is outlined


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("", "no data at .*CAMELYON16.*: download CAMELYON16 .* and put it there, or set data.root=FOLDER"),
        ("training/tumor", "tumor' does not exist"),
        (
            "training/lesion_annotations/tumor_002.xml",
            r"has no outlines tumor_002.xml below .*: unpack",
        ),
        ("testing/reference.csv", r"reference.csv: not readable as csv .*: download it again"),
    ],
)
def test_camelyon16_incomplete(camelyon, tmp_path, missing, message):
    path = camelyon / missing
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(UserError, match=message):
        Camelyon16(None, **keywords(tmp_path)).setup()


def test_a_test_slide_missing_in_the_reference_is_named(small):
    (small / "testing" / "reference.csv").write_text("test_003,Normal,None,None\n")
    with pytest.raises(UserError, match=r"does not say whether 'test_001' is Normal or Tumor"):
        camelyon16_slides(small)
