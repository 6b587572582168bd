"""TCGA lung: classes from folders or a list, patients from barcodes."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.tiles.tcga_lung import TcgaLung
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings
from tests.support.camelyon import drawn_slides, slides_with_label


def keywords(tmp_path: Path) -> dict[str, Any]:
    tiling = TilingSettings(tile_size=32, mpp=2.0)
    common = {"tiling": tiling, "tissue": TissueSettings(), "cache_dir": str(tmp_path / "cache")}
    return common | {"data_dir": str(tmp_path), "loading": Loading()}


@pytest.fixture(scope="module")
def slide_list(tmp_path_factory) -> Path:
    return drawn_slides(tmp_path_factory.mktemp("sets"))


def test_tcga_lung_by_folders_keeps_patients_whole(slide_list, tmp_path):
    """In the folders that the download tool makes; the second and the third slide are of one patient."""
    patients = {"LUAD": (0, 1, 1, 2), "LUSC": (3, 4, 5, 6)}
    sources = {
        "LUAD": slides_with_label(slide_list, "negative")[:4],
        "LUSC": slides_with_label(slide_list, "positive")[:4],
    }
    for name, numbers in patients.items():
        for index, (patient, source) in enumerate(zip(numbers, sources[name], strict=True)):
            folder = tmp_path / "tcga_lung" / name / f"uuid{index}"
            folder.mkdir(parents=True)
            shutil.copyfile(source, folder / f"TCGA-05-400{patient}-01Z-00-DX{index}.tif")
    data = TcgaLung(None, num_folds=3, fold=0, val_fraction=0.25, **keywords(tmp_path))
    data.setup()
    assert data.bags.labels.tolist() == [0] * 4 + [1] * 4
    cases = data.bags.case_ids
    assert sorted(cases) == [f"TCGA-05-400{patient}" for patient in (0, 1, 1, 2, 3, 4, 5, 6)]
    parts = [{cases[bag] for bag in part.tolist()} for part in data.splits[1:]]
    assert sum(map(len, parts)) == len(set(cases)) == 7


def test_tcga_lung_from_a_list(slide_list, tmp_path):
    lines = ["slide_path,slide_id,label"]
    for number, row in enumerate(csv.DictReader(slide_list.open())):
        label = "LUSC" if row["label"] == "positive" else "LUAD"
        lines.append(f"{slide_list.parent / row['slide_path']},TCGA-05-{4000 + number}-01Z,{label}")
    (tmp_path / "slides.csv").write_text("\n".join(lines))
    data = TcgaLung(None, slides=str(tmp_path / "slides.csv"), num_folds=2, val_fraction=0.2, **keywords(tmp_path))
    data.setup()
    assert data.class_names == ("LUAD", "LUSC")
    assert (data.bags.instance_labels == -1).all()  # adenocarcinoma is no "negative"


def test_tcga_lung_missing_or_misnamed(slide_list, tmp_path):
    with pytest.raises(UserError, match=r"no data at .*tcga_lung.*: download diagnostic slides of TCGA-LUAD"):
        TcgaLung(None, **keywords(tmp_path)).setup()
    with pytest.raises(UserError, match="slide 'synthetic_000' is not named by a TCGA barcode"):
        TcgaLung(None, slides=str(slide_list), **keywords(tmp_path)).setup()
