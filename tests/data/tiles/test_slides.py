"""Slides as bags of tiles: pixels, labels, splits, what is kept between starts, and one line for each mistake."""

import csv
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openslide
import pytest
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.samplers import BagSampler, IndexedView
from kd_mil.data.tiles import cache as tile_cache
from kd_mil.data.tiles.files import TilesInCache, TilesInSlides
from kd_mil.data.tiles.slides import SlideBags
from kd_mil.slides.annotations.annotations import AnnotationSettings, MaskAnnotation
from kd_mil.slides.formats.pyramid import READER_BYTES
from kd_mil.slides.overlays.slide_picture import tumour_area
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides, truth_fractions
from kd_mil.slides.tiles import cutting
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings

SETTINGS = SyntheticSettings(slides=10, size=768, mpp=1.0, slides_per_case=1)
TILING = TilingSettings(tile_size=32, mpp=2.0)
TILE = 64
"""Level-0 pixels."""


@pytest.fixture(scope="module")
def slide_list(tmp_path_factory) -> Path:
    return build_synthetic_slides(tmp_path_factory.mktemp("sets"), SETTINGS, seed=0)


def module(slides: Any, cache_dir: Path, loading: Loading | None = None, **settings: Any) -> SlideBags:
    settings = {"classes": ("negative", "positive")} | settings
    data = SlideBags(str(slides), loading or Loading(), TILING, TissueSettings(), cache_dir=str(cache_dir), **settings)
    data.setup()
    return data


def rewrite(slide_list: Path, path: Path, **columns: Any) -> Path:
    """The slide list with other cells; a function of the row, or None to leave the column out."""
    rows = list(csv.DictReader(slide_list.open()))
    for row in rows:
        for name in ("slide_path", "annotation_path"):
            row[name] = str(slide_list.parent / row[name])
        row |= {name: change(row) for name, change in columns.items() if change is not None}
        for name in [name for name, change in columns.items() if change is None]:
            del row[name]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


# --- what the bags hold ---


@pytest.mark.parametrize("cache", [False, True])
def test_tiles_are_openslides_own_pixels_at_a_native_level(slide_list, tmp_path, cache):
    """2 µm per pixel is level 1 of these slides: nothing is resampled."""
    data = module(slide_list, tmp_path, cache=cache)
    for bag in (0, 7):
        batch = data.bags.batch(torch.tensor([bag]))
        slide = openslide.OpenSlide(slide_list.parent / "slides" / f"{batch.bag_ids[0]}.tif")
        for tile, (x, y) in list(zip(batch.instances, batch.coords.tolist(), strict=True))[::9]:
            own = np.asarray(slide.read_region((x, y), 1, (32, 32)).convert("RGB"))
            assert np.array_equal(tile.permute(1, 2, 0).numpy(), own)


def test_tiles_are_labelled_by_their_share_of_the_truth_mask(slide_list, tmp_path):
    data = module(slide_list, tmp_path)
    seen = set()
    for bag, bag_id in enumerate(data.bags.bag_ids):
        batch = data.bags.batch(torch.tensor([bag]))
        mask = slide_list.parent / "truth" / f"{bag_id}.png"
        share = truth_fractions(mask, batch.coords.numpy(), TILE).sum(axis=1)
        clear = abs(share - 0.25) > 0.03  # the mask has pixels of 4 level-0 pixels, the outlines have none
        assert np.array_equal(batch.instance_labels.numpy()[clear], (share >= 0.25)[clear])
        seen |= set(batch.instance_labels.tolist())
    assert seen == {0, 1}


def test_a_damaged_file_of_the_cache_is_one_line(slide_list, tmp_path):
    module(slide_list, tmp_path)
    for pattern in ("*.tumour.npy", "*.tiles.npz"):
        for path in (tmp_path / "tiles").glob(pattern):
            path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(UserError, match=f"{pattern[2:]}: not readable .*remove it, it is made anew"):
            module(slide_list, tmp_path)


def test_the_threshold_is_applied_at_load_time(slide_list, tmp_path, monkeypatch, capsys):
    few = module(slide_list, tmp_path, tumour_threshold=0.75)
    assert "from 75% of their area on" in capsys.readouterr().out
    monkeypatch.setattr(cutting, "open_slide", lambda *_: pytest.fail("a slide was opened"))
    many = module(slide_list, tmp_path, tumour_threshold=0.1)
    assert (many.bags.instance_labels >= few.bags.instance_labels).all()
    assert many.bags.instance_labels.sum() > few.bags.instance_labels.sum()


def test_without_annotations_only_slides_without_tumour_are_known(slide_list, tmp_path):
    bare = rewrite(slide_list, tmp_path / "bare.csv", annotation_path=None)
    bags = module(bare, tmp_path).bags
    assert torch.equal(bags.instance_labels, torch.where(bags.labels[bags.bag_of_instance] > 0, -1, 0))
    unknown = module(bare, tmp_path, negatives_known=False).bags
    assert (unknown.instance_labels == -1).all()


def test_configured_annotation_settings_are_those_of_the_class():
    text = (Path(__file__).parents[3] / "conf" / "data" / "slides.yaml").read_text()
    given = yaml.safe_load(text)["annotations"]
    given.pop("_target_")
    assert given == {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(AnnotationSettings()).items()}


def test_instance_source_is_plain_json(slide_list, tmp_path):
    source = module(slide_list, tmp_path).instance_source
    assert json.loads(json.dumps(source)) == source
    assert (source["kind"], source["mpp"], source["backend"]) == ("tiles", 2.0, "openslide")
    assert source["tiling"]["tile_size"] == 32
    assert source["tissue"]["mpp"] == 8.0


# --- reading and keeping ---


def test_slides_cache_and_memory_give_the_same_tiles_in_any_order(slide_list, tmp_path):
    lazy = module(slide_list, tmp_path).bags.instances
    kept = module(slide_list, tmp_path, Loading(resident_gib=0), cache=True).bags.instances
    resident = module(slide_list, tmp_path, cache=True).bags.instances
    assert isinstance(lazy, TilesInSlides)
    assert isinstance(kept, TilesInCache)
    assert isinstance(resident, torch.Tensor)
    positions = torch.randint(0, len(resident), (200,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(lazy[positions], resident[positions])
    assert torch.equal(kept[positions], resident[positions])


def test_worker_processes_read_the_same_bags(slide_list, tmp_path):
    """The parent has slides open when it forks; each worker must open its own."""
    bags = module(slide_list, tmp_path, Loading(num_workers=2)).bags
    alone = [bags.batch(torch.tensor([bag])).instances for bag in range(4)]
    sampler = BagSampler(bags.sizes, torch.arange(4), bags_per_step=1, shuffle=False)
    loader = DataLoader(IndexedView(bags.batch), sampler=sampler, batch_size=None, num_workers=2)
    for batch, expected in zip(loader, alone, strict=True):
        assert torch.equal(batch.instances, expected)


def test_few_slides_are_open_at_a_time(slide_list, tmp_path, monkeypatch):
    monkeypatch.setattr("kd_mil.data.tiles.files.OPEN_BYTES", 3 * READER_BYTES)
    tiles = module(slide_list, tmp_path).bags.instances
    tiles[torch.arange(0, len(tiles.cuts[0].tiles.coords) * 8, 5)]
    assert len(tiles._slides) == 3


def test_a_second_start_opens_no_slide(slide_list, tmp_path, monkeypatch):
    first = module(slide_list, tmp_path, cache=True)
    monkeypatch.setattr(cutting, "open_slide", lambda *_: pytest.fail("a slide was opened"))
    second = module(slide_list, tmp_path, cache=True)
    assert torch.equal(first.bags.instances, second.bags.instances)
    assert first.fingerprint() == second.fingerprint()


def test_another_file_or_other_settings_are_cut_anew(slide_list, tmp_path):
    folder = tmp_path / "slides"
    shutil.copytree(slide_list.parent, folder)
    before = module(folder / "slides.csv", tmp_path, cache=True).bags
    other, changed = (folder / "slides" / f"synthetic_00{number}.tif" for number in (1, 0))
    changed.rename(folder / "aside.tif")
    other.rename(changed)
    (folder / "aside.tif").rename(other)
    after = module(folder / "slides.csv", tmp_path, cache=True).bags
    assert torch.equal(after.batch(torch.tensor([0])).instances, before.batch(torch.tensor([1])).instances)
    coarse = SlideBags(
        str(folder / "slides.csv"),
        Loading(),
        replace(TILING, tile_size=48),
        TissueSettings(),
        classes=("negative", "positive"),
        cache=True,
        cache_dir=str(tmp_path),
    )
    coarse.setup()
    assert coarse.bags.instance_shape == (3, 48, 48)


def test_an_interrupted_start_goes_on_where_it_stopped(slide_list, tmp_path, monkeypatch):
    module(slide_list, tmp_path)
    read, calls = tile_cache.read_tile, []

    def interrupted(slide, tiles, coord):
        if slide.name == "synthetic_003" and len(calls) > 250:
            raise KeyboardInterrupt
        calls.append(slide.name)
        return read(slide, tiles, coord)

    monkeypatch.setattr(tile_cache, "read_tile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module(slide_list, tmp_path, cache=True)
    kept = sorted(path.name[:13] for path in (tmp_path / "tiles").glob("*.pixels.npy"))
    assert kept == ["synthetic_000", "synthetic_001", "synthetic_002"]
    assert not list((tmp_path / "tiles").glob(".*"))
    monkeypatch.setattr(tile_cache, "read_tile", lambda *given: calls.append(given[0].name) or read(*given))
    calls.clear()
    module(slide_list, tmp_path, cache=True)
    assert set(calls) == {f"synthetic_00{number}" for number in range(3, 10)}


def test_a_disk_too_small_is_told_before_work_begins(slide_list, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(UserError, match=r"the tiles need 0.0 GB .* data.cache=false"):
        module(slide_list, tmp_path, cache=True)
    assert not list((tmp_path / "tiles").glob("*.pixels.npy"))


# --- splits ---


def test_the_split_of_the_list_is_kept(slide_list, tmp_path):
    data = module(slide_list, tmp_path)
    words = [row["split"] for row in csv.DictReader(slide_list.open())]
    for part, bags in zip(("train", "val", "test"), data.splits[1:], strict=True):
        assert bags.tolist() == [index for index, word in enumerate(words) if word == part]


def test_folds_keep_cases_whole(slide_list, tmp_path):
    """Two cases of two slides, one with tumour and one without, and six of one."""
    partner = {"synthetic_004": "synthetic_002", "synthetic_001": "synthetic_000"}
    paired = rewrite(
        slide_list,
        tmp_path / "paired.csv",
        split=None,
        case_id=lambda row: partner.get(row["slide_id"], row["slide_id"]),
    )
    tested = []
    for fold in range(2):
        data = module(paired, tmp_path, fold=fold, num_folds=2, val_fraction=0.3)
        train, val, test = ({data.bags.case_ids[bag] for bag in part.tolist()} for part in data.splits[1:])
        assert not train & val
        assert not train & test
        tested += data.splits.test.tolist()
    assert sorted(tested) == list(range(10))


def test_a_fold_column_says_what_is_tested(slide_list, tmp_path):
    """As in a manifest of features: see `split_columns`."""
    of_fold = {f"synthetic_{index:03d}": index // 4 for index in range(10)}
    listed = rewrite(slide_list, tmp_path / "folds.csv", split=None, fold=lambda row: of_fold[row["slide_id"]])
    data = module(listed, tmp_path, fold=1, val_fraction=0.3)
    assert [data.bags.bag_ids[bag] for bag in data.splits.test.tolist()] == [f"synthetic_{i:03d}" for i in (4, 5, 6, 7)]
    with pytest.raises(UserError, match=r"data.fold=3: the column `fold` has 0, 1, 2"):
        module(listed, tmp_path, fold=3)


def test_labels_may_share_a_class(slide_list, tmp_path):
    grades = rewrite(slide_list, tmp_path / "l.csv", label=lambda row: row["label"] + row["slide_id"][-1])
    names = [row["label"] for row in csv.DictReader(grades.open())]
    data = module(grades, tmp_path, classes={name: int(name.startswith("positive")) for name in sorted(names)})
    assert torch.equal(data.bags.labels, module(slide_list, tmp_path).bags.labels)
    assert data.bags.class_names[1].startswith("positive")


def test_labels_come_from_a_table_too(slide_list, tmp_path):
    rows = list(csv.DictReader(slide_list.open()))
    lines = [f"{row['slide_id']},{row['label']},{row['split']}" for row in rows]
    (tmp_path / "labels.csv").write_text("\n".join(["slide_id,label,split", *lines]))
    data = module(slide_list.parent / "slides", tmp_path, labels=str(tmp_path / "labels.csv"))
    listed = module(slide_list, tmp_path)
    assert torch.equal(data.bags.labels, listed.bags.labels)
    assert all(map(torch.equal, data.splits[1:], listed.splits[1:]))


# --- mistakes ---


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({}, {"classes": None}, r"data.classes=\[negative,positive\]"),
        ({}, {"classes": ["negative", "tumour"]}, r"label 'positive' is outside the classes; known: negative, tumour"),
        ({"label": lambda _: ""}, {}, r"10 slides \('synthetic_000', .*, \.\.\.\) have no label"),
        ({"split": lambda row: row["split"] * (row["slide_id"][-1] != "3")}, {}, "'synthetic_003' has no split"),
        ({"label": lambda _: "negative"}, {}, "correct one of them"),
        ({}, {"exclude": ["synthetic_999"]}, "data.exclude names slide 'synthetic_999'"),
        ({}, {"tumour_threshold": 25}, "tumour_threshold=25"),
        ({}, {"backend": "turbo"}, "backend=turbo: choose openslide or fastslide"),
        ({}, {"fold": 7}, "fold=7"),
        (
            {"slide_path": lambda row: row["slide_path"].replace("007", "none")},
            {},
            r"^slide '.*synthetic_none\.tif' does not exist",
        ),
    ],
)
def test_a_mistake_is_one_clear_line(slide_list, tmp_path, columns, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        module(rewrite(slide_list, tmp_path / "list.csv", **columns), tmp_path, **settings)
    assert "\n" not in str(caught.value)


def test_no_slides_given(tmp_path):
    data = SlideBags(None, Loading(), TILING, TissueSettings(), cache_dir=str(tmp_path))
    with pytest.raises(UserError, match="slides is not set"):
        data.setup()


@pytest.mark.filterwarnings("ignore:slide 'blank'")
def test_a_slide_without_tissue_is_named_and_can_be_left_out(slide_list, tmp_path):
    Image.new("RGB", (768, 768), "white").save(tmp_path / "blank.png")
    path = rewrite(slide_list, tmp_path / "list.csv")
    path.write_text(path.read_text() + f"{tmp_path / 'blank.png'},blank,x,negative,train,,1.0\n")
    with pytest.raises(UserError, match=r"slide 'blank' has no tiles: .* data.exclude=\[blank\]"):
        module(path, tmp_path)
    assert len(module(path, tmp_path, exclude=["blank"]).bags) == 10


def test_a_damaged_slide_is_one_line_from_a_worker_too(slide_list, tmp_path):
    folder = tmp_path / "slides"
    shutil.copytree(slide_list.parent, folder)
    (folder / "slides" / "synthetic_004.tif").write_bytes(b"")
    for workers in (0, 2):
        with pytest.raises(UserError, match=r"synthetic_004.tif' is empty"):
            module(folder / "slides.csv", tmp_path / str(workers), Loading(num_workers=workers))


# --- pictures ---


def test_the_picture_of_a_slide_lies_where_the_slide_lies(slide_list, tmp_path):
    data = module(slide_list, tmp_path)
    picture = data.slide_picture(0, max_side=192)
    assert picture.thumbnail.shape == (192, 192, 3)
    assert (picture.downsample, picture.origin) == (4.0, (0, 0))
    mask = np.asarray(Image.open(slide_list.parent / "truth" / "synthetic_000.png"))
    assert picture.truth.area == pytest.approx((mask > 0).sum() * 16, rel=0.02)
    x, y = np.argwhere(mask > 0).mean(axis=0)[::-1] * 4
    assert np.hypot(picture.truth.centroid.x - x, picture.truth.centroid.y - y) < 4
    assert data.tile_size_level0(0) == TILE


def test_a_mask_becomes_an_outline_with_its_hole():
    mask = np.zeros((40, 60), bool)
    mask[5:30, 10:50] = True
    mask[12:20, 20:40] = False
    area = tumour_area(MaskAnnotation(mask, 8.0, (10**6, 10**6)))
    assert area.area == pytest.approx(mask.sum() * 64, rel=0.01)
    assert area.bounds == pytest.approx((80, 40, 400, 240), abs=0.01)
    empty = tumour_area(MaskAnnotation(np.zeros((4, 4), bool), 8.0, (32, 32)))
    assert empty.is_empty
