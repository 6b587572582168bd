import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import shapely
import tifffile
from defusedxml import ElementTree
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.synthetic.build import (
    EASY,
    HARD,
    TRUTH_DOWNSAMPLE,
    SyntheticSettings,
    build_synthetic_slides,
    plan_slides,
    truth_fractions,
)
from kd_mil.slides.synthetic.layout import CellKind, Layout
from kd_mil.slides.synthetic.layout_drawing import draw_layout
from kd_mil.slides.synthetic.painting import Painter
from kd_mil.slides.synthetic.pyramid_tiff import write_pyramid
from kd_mil.slides.synthetic.stain import EOSIN, HAEMATOXYLIN, Stain

SMALL = SyntheticSettings(slides=4, size=960, mpp=1.0, slides_per_case=1)


@pytest.fixture(scope="module")
def slide_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_synthetic_slides(tmp_path_factory.mktemp("sets"), SMALL, seed=0)


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(seed=0, mpp=1.0)


def layout_of(truth: str, seed: int = 0) -> Layout:
    return draw_layout(np.random.default_rng(seed), 960, 1.0, truth)  # type: ignore[arg-type]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def annotated(path: Path) -> dict[str, list[shapely.Polygon]]:
    """Outlines by the first word of their name, "easy" or "hard"."""
    found: dict[str, list[shapely.Polygon]] = {"easy": [], "hard": []}
    for annotation in ElementTree.parse(path).iter("Annotation"):
        assert annotation.get("PartOfGroup") == "Tumor"
        assert annotation.get("Type") == "Polygon"
        corners = [(float(point.get("X")), float(point.get("Y"))) for point in annotation.iter("Coordinate")]
        found[annotation.get("Name").split()[0]].append(shapely.Polygon(corners))
    return found


# --- the pyramid file ---


def gradient(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("factor", [2, 4])
def test_openslide_reads_every_level_of_a_pyramid(tmp_path: Path, factor: int) -> None:
    pixels = gradient(1100, 777)  # neither side a multiple of the tile
    write_pyramid(tmp_path / "a.tif", [pixels[:100], pixels[100:555], pixels[555:]], (1100, 777), 0.25, factor=factor)

    assert openslide.OpenSlide.detect_format(str(tmp_path / "a.tif")) == "generic-tiff"
    slide = openslide.OpenSlide(tmp_path / "a.tif")
    assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
    assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.25)
    assert slide.level_dimensions == {2: ((1100, 777), (550, 389), (275, 195)), 4: ((1100, 777), (275, 195))}[factor]
    for level, (width, height) in enumerate(slide.level_dimensions):
        read = np.asarray(slide.read_region((0, 0), level, (width, height)).convert("RGB"), int)
        assert np.abs(read - gradient(width, height)).mean() < 2


def test_pillow_agrees_with_openslide(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tif", [gradient(600, 600)], (600, 600), 0.5)
    page = np.asarray(Image.open(tmp_path / "a.tif").convert("RGB"), int)
    read = openslide.OpenSlide(tmp_path / "a.tif").read_region((0, 0), 0, (600, 600)).convert("RGB")
    assert np.abs(page - np.asarray(read, int)).max() <= 2


def test_tifffile_finds_the_tags_of_a_tiled_jpeg_pyramid(tmp_path: Path) -> None:
    """An independent reader of the structure; OpenSlide forgives much."""
    write_pyramid(tmp_path / "a.tif", [gradient(1100, 777)], (1100, 777), 0.25)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert [page.shape for page in file.pages] == [(777, 1100, 3), (389, 550, 3), (195, 275, 3)]
        assert [page.subfiletype for page in file.pages] == [0, 1, 1]
        for level, page in enumerate(file.pages):
            assert page.tile == (256, 256)
            assert (page.compression, page.photometric, page.subsampling) == (7, 6, (2, 2))
            assert (
                len(page.dataoffsets) == len(page.databytecounts) == -(-page.shape[0] // 256) * -(-page.shape[1] // 256)
            )
            assert page.get_resolution("MICROMETER") == pytest.approx((4 / 2**level, 4 / 2**level))


@pytest.mark.parametrize("rows", [99, 101])
def test_wrong_number_of_rows_leaves_no_file(tmp_path: Path, rows: int) -> None:
    with pytest.raises(UserError, match=f"{rows} rows were given for a slide of 100"):
        write_pyramid(tmp_path / "a.tif", [gradient(50, rows)], (50, 100), 0.5)
    assert list(tmp_path.iterdir()) == []


# --- stain ---


def test_stain_is_beer_lambert() -> None:
    stain = Stain(white=(250, 250, 250))
    colors = stain(np.array([[0.0, 1.0, 0.0, 0.5]]), np.array([[0.0, 0.0, 1.0, 0.5]]))[0]
    assert colors[0].tolist() == [250, 250, 250]
    for color, density in zip(colors[1:], (HAEMATOXYLIN, EOSIN, (HAEMATOXYLIN + EOSIN) / 2), strict=True):
        assert np.allclose(color, 250 * np.exp(-density), atol=1.5)
    assert colors[1, 2] > colors[1, 0] > colors[1, 1]  # haematoxylin: blue
    assert colors[2, 0] > colors[2, 2] > colors[2, 1]  # eosin: pink


# --- layout and painting ---


def test_truths_hold_what_they_say() -> None:
    negative, mixed, hard = (layout_of(truth) for truth in ("negative", "mixed", "hard"))
    assert (len(negative.easy), len(negative.hard)) == (0, 0)
    assert CellKind.TUMOUR not in negative.cells.kinds
    assert mixed.easy
    assert mixed.hard
    assert (len(hard.easy), len(hard.hard) > 0) == (0, True)


def test_tumour_cells_lie_in_the_outlines_and_the_others_outside() -> None:
    for seed in range(5):
        layout = layout_of("mixed", seed)
        tumour = shapely.union_all([*layout.easy, *layout.hard])
        inside = shapely.contains(tumour, shapely.points(layout.cells.positions))
        is_tumour = layout.cells.kinds == CellKind.TUMOUR
        assert inside[is_tumour].all()
        epithelial = layout.cells.kinds == CellKind.EPITHELIAL
        assert not inside[epithelial].any()
        assert not shapely.intersects(shapely.union_all(layout.easy), shapely.union_all(layout.hard))


def test_easy_tumour_is_denser_than_hard_tumour() -> None:
    layout = layout_of("mixed")
    cells = shapely.points(layout.cells.positions[layout.cells.kinds == CellKind.TUMOUR])
    density = {}
    for name, outlines in (("easy", layout.easy), ("hard", layout.hard)):
        region = shapely.union_all(outlines)
        density[name] = shapely.contains(region, cells).sum() / region.area
    assert density["easy"] > 4 * density["hard"]


def test_benign_structures_do_not_give_the_label_away() -> None:
    """Glands and lymphoid aggregates are as frequent on slides with tumour as on those without."""
    kinds = ("gland", "lymphoid", "vessel")
    counts = {
        truth: np.array(
            [[kind in kinds for kind, _ in layout_of(truth, seed).regions].count(True) for seed in range(25)]
        )
        for truth in ("negative", "mixed")
    }
    standard_error = np.sqrt(sum(count.var() / len(count) for count in counts.values()))
    assert abs(counts["negative"].mean() - counts["mixed"].mean()) < 3 * standard_error


def test_no_room_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="no room for a tumour on a synthetic slide of 200 px"):
        draw_layout(np.random.default_rng(0), 200, 0.5, "mixed")


def test_strips_join_without_a_seam(painter: Painter) -> None:
    layout = layout_of("mixed")
    pictures = [
        np.concatenate(list(painter.strips(layout, np.random.default_rng(1), height))) for height in (64, 100, 960)
    ]
    assert pictures[0].shape == (960, 960, 3)
    assert (pictures[0] == pictures[1]).all()
    assert (pictures[0] == pictures[2]).all()


def test_nuclei_are_dark_and_glass_is_white(painter: Painter) -> None:
    layout = layout_of("mixed")
    picture = np.concatenate(list(painter.strips(layout, np.random.default_rng(1)))).astype(float)
    assert (picture[:20, :20] > 235).all()
    columns, rows = np.rint(layout.cells.positions).astype(int).T
    for kind in CellKind:
        nuclei = picture[rows, columns][layout.cells.kinds == kind]
        stroma = picture[440:520, 440:520].reshape(-1, 3)
        assert np.median(nuclei[:, 0]) < np.median(stroma[:, 0]) - 30  # red is what haematoxylin takes away
    nest = shapely.union_all(layout.easy)
    y, x = np.mgrid[:960:4, :960:4]
    in_nest = shapely.contains_xy(nest, x, y)
    assert picture[y, x][in_nest].mean() < picture[y, x][~in_nest & (picture[y, x].min(axis=2) < 225)].mean() - 20


# --- the set ---


def test_slide_list(slide_list: Path) -> None:
    table = pd.read_csv(slide_list)
    expected = ["slide_path", "slide_id", "case_id", "label", "split", "annotation_path", "mpp"]
    assert table.columns.tolist() == expected
    assert table["label"].tolist() == ["positive", "positive", "negative", "positive"]
    assert table["split"].tolist() == ["train", "val", "train", "test"]
    assert (table["mpp"] == 1.0).all()
    for _, row in table.iterrows():
        slide = openslide.OpenSlide(slide_list.parent / row["slide_path"])
        assert openslide.OpenSlide.detect_format(str(slide_list.parent / row["slide_path"])) == "generic-tiff"
        assert slide.level_dimensions == ((960, 960), (480, 480))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(1.0)


def test_annotations_outline_the_truth_mask(slide_list: Path) -> None:
    generator = np.random.default_rng(0)
    for _, row in pd.read_csv(slide_list).iterrows():
        outlines = annotated(slide_list.parent / row["annotation_path"])
        mask = np.asarray(Image.open(slide_list.parent / "truth" / f"{row['slide_id']}.png"))
        assert mask.shape == (240, 240)
        assert (mask > 0).any() == (row["label"] == "positive")
        rows, columns = generator.integers(0, 240, (2, 4000))
        centres = (np.stack([columns, rows], axis=1) + 0.5) * TRUTH_DOWNSAMPLE
        for name, value in (("easy", EASY), ("hard", HARD)):
            region = shapely.union_all(outlines[name])
            inside = shapely.contains_xy(region, *centres.T)
            near_edge = shapely.distance(region.boundary, shapely.points(centres)) < 0.05
            assert ((mask[rows, columns] == value) == inside)[~near_edge].all()
            assert (mask == value).sum() * TRUTH_DOWNSAMPLE**2 == pytest.approx(region.area, rel=0.02)


def test_truth_fractions_are_areas(slide_list: Path) -> None:
    row = pd.read_csv(slide_list).iloc[0]
    outlines = annotated(slide_list.parent / row["annotation_path"])
    coords = np.array([(x, y) for y in range(0, 960, 64) for x in range(0, 960, 64)])
    fractions = truth_fractions(slide_list.parent / "truth" / f"{row['slide_id']}.png", coords, 64)
    tiles = shapely.box(*coords.T, *(coords + 64).T)
    for column, name in enumerate(("easy", "hard")):
        exact = shapely.area(shapely.intersection(shapely.union_all(outlines[name]), tiles)) / 64**2
        assert exact.max() > 0.3
        assert np.abs(fractions[:, column] - exact).max() < 0.05


def test_rebuilding_gives_the_same_bytes_and_another_seed_other_slides(slide_list: Path, tmp_path: Path) -> None:
    first = digests(slide_list.parent)
    one_slide = replace(SMALL, slides=1)
    again = digests(build_synthetic_slides(tmp_path / "again", one_slide, seed=0).parent)
    other = digests(build_synthetic_slides(tmp_path / "other", one_slide, seed=1).parent)
    for name in ("slides/synthetic_000.tif", "annotations/synthetic_000.xml", "truth/synthetic_000.png"):
        assert again[name] == first[name]  # the first slide of a set does not depend on how many follow
        assert other[name] != first[name]


def test_two_processes_draw_the_slides_of_one(slide_list: Path, tmp_path: Path) -> None:
    again = build_synthetic_slides(tmp_path, SMALL, seed=0, processes=2)
    assert digests(again.parent) == digests(slide_list.parent)


def test_a_finished_set_is_not_built_again(slide_list: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kd_mil.slides.synthetic.build._build", lambda *_: pytest.fail("built again"))
    assert build_synthetic_slides(slide_list.parent.parent, SMALL, seed=0) == slide_list


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path, *_: object) -> None:
        folder.mkdir(parents=True)
        (folder / "slides.csv").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("kd_mil.slides.synthetic.build._build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_synthetic_slides(tmp_path, SMALL, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_the_loser_of_a_race_takes_the_winners_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_slower_than_another(folder: Path, *_: object) -> None:
        folder.mkdir(parents=True)
        winner = tmp_path / folder.name.split(".")[1]
        winner.mkdir()
        (winner / "slides.csv").write_text("winner")

    monkeypatch.setattr("kd_mil.slides.synthetic.build._build", build_slower_than_another)
    assert build_synthetic_slides(tmp_path, SMALL, seed=0).read_text() == "winner"
    assert len(list(tmp_path.iterdir())) == 1


def test_plan_groups_cases_and_balances_splits() -> None:
    plans = plan_slides(SyntheticSettings(slides=80, slides_per_case=2))
    table = pd.DataFrame([{"case": plan.case, "split": plan.split, "truth": plan.truth} for plan in plans])
    assert (table.groupby("case")["split"].nunique() == 1).all()
    assert (table.groupby("case").size() == 2).all()
    assert table["split"].value_counts().to_dict() == {"train": 48, "val": 16, "test": 16}
    for _, split in table.groupby("split"):
        shares = split["truth"].value_counts(normalize=True)
        assert shares.to_dict() == {"negative": 0.5, "mixed": 0.375, "hard": 0.125}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slides": 0}, "slides=0 must be at least 1"),
        ({"slides_per_case": 0}, "slides_per_case=0 must be at least 1"),
        ({"size": 512, "mpp": 0.5}, "size=512 px at mpp=0.5 is too small"),
        ({"mpp": 4.0}, "mpp=4.0 must lie between"),
    ],
)
def test_bad_settings(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(SyntheticSettings(), **change)


def test_small_cells_are_told_apart_by_size(painter: Painter) -> None:
    """Every tumour nucleus is larger than every lymphocyte: what sets nests and follicles apart."""
    area = painter.atlas.counts.reshape(len(CellKind), -1)
    assert area[CellKind.TUMOUR].min() > area[CellKind.LYMPHOCYTE].max()
