from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import shapely
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.overlays.heatmap import comparison_figure, draw_heatmap
from kd_mil.slides.overlays.score_grid import cell_step, score_colors, score_grid, smoothed

WHITE = np.full((100, 120, 3), 255, np.uint8)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), float)


def panel(picture: np.ndarray) -> np.ndarray:
    """The heat map alone: left of the colour bar, below the title."""
    return picture[50:, : int(picture.shape[1] * 0.8)]


def is_coloured(picture: np.ndarray) -> np.ndarray:
    return np.ptp(picture, axis=-1) > 20


def loop_grid(coords, scores, tile, step, shape) -> np.ndarray:
    """Oracle: tile by tile, cell by cell."""
    total, count = np.zeros(shape), np.zeros(shape)
    for (x, y), score in zip(coords, scores, strict=True):
        if np.isnan(score):
            continue
        for row in range(round(y / step), max(round((y + tile) / step), round(y / step) + 1)):
            for column in range(round(x / step), max(round((x + tile) / step), round(x / step) + 1)):
                if 0 <= row < shape[0] and 0 <= column < shape[1]:
                    total[row, column] += score
                    count[row, column] += 1
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


def test_grid_by_hand() -> None:
    """Two tiles side by side and one that overlaps the second by half; cells of half a tile."""
    grid = score_grid(np.array([[0, 0], [100, 0], [150, 0]]), np.array([1.0, 0.0, 0.5]), 100, 50)
    row = [1.0, 1.0, 0.0, 0.25, 0.5]
    assert np.allclose(grid, [row, row])
    gap = score_grid(np.array([[0, 100], [200, 100]]), np.array([0.3, 0.4]), 100, 100)
    assert np.allclose(gap, [[np.nan] * 3, [0.3, np.nan, 0.4]], equal_nan=True)


@pytest.mark.parametrize(("tile", "step"), [(64, 64), (64, 32), (70, 13.7), (10, 25)])
def test_grid_equals_a_plain_loop(tile: int, step: float) -> None:
    """Tiles off any common grid, negative and outside positions, NaN scores."""
    generator = np.random.default_rng(0)
    coords = generator.integers(-50, 900, (200, 2))
    scores = generator.normal(size=200)
    scores[::7] = np.nan
    grid = score_grid(coords, scores, tile, step, (30, 25))
    assert np.allclose(grid, loop_grid(coords, scores, tile, step, (30, 25)), equal_nan=True)


def test_grid_of_nothing() -> None:
    assert score_grid(np.empty((0, 2)), np.empty(0), 64, 64).shape == (0, 0)
    assert np.isnan(score_grid(np.empty((0, 2)), np.empty(0), 64, 64, (3, 4))).all()
    assert np.isnan(score_grid(np.array([[0, 0]]), np.array([np.nan]), 64, 64, (3, 4))).all()


def test_one_score_per_tile() -> None:
    with pytest.raises(UserError, match="3 scores for 2 tiles"):
        score_grid(np.zeros((2, 2)), np.zeros(3), 64, 64)


def test_colour_lies_where_the_tiles_are_and_low_scores_show_the_tissue(tmp_path: Path) -> None:
    """The left half has low, the upper right quarter high scores, the lower right no tiles."""
    coords = np.array([(x, y) for y in range(0, 1000, 100) for x in range(0, 1200, 100) if x < 600 or y < 500])
    high = coords[:, 0] >= 600
    where = {}
    for low in (0.0, 0.4):
        draw_heatmap(WHITE, coords, np.where(high, 1, low), 100, 10.0, tmp_path / "a.png", "slide", limits=(0, 1))
        where[low] = is_coloured(panel(pixels(tmp_path / "a.png")))
    rows, columns = (np.flatnonzero(where[0.4].any(axis=axis)) for axis in (1, 0))
    area = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    assert abs(where[0.4][area].mean() - 0.75) < 0.03
    assert abs(where[0.0][area].mean() - 0.25) < 0.03
    picture = panel(pixels(tmp_path / "a.png"))[area]
    red, green, blue = picture[picture.shape[0] // 4, picture.shape[1] * 3 // 4]
    assert min(red, green) > blue + 40  # the yellow end


def test_scores_fade_and_their_lightness_tells_them_apart() -> None:
    """What rises for every kind of colour vision: opacity, and luminance (Rec. 709)."""
    colors = score_colors()
    assert (np.diff(colors[:, 3]) > 0).all()
    assert (np.diff(colors[:, :3] @ (0.2126, 0.7152, 0.0722)) > 0).all()
    assert colors[0, 3] == 0


def test_smoothing_by_hand() -> None:
    """A constant stays, gaps stay, the sum over an unbounded row stays, and a peak spreads as the Gaussian does."""
    constant = np.full((5, 5), 0.3)
    constant[1, 1] = np.nan
    assert np.allclose(smoothed(constant, 2.0), constant, equal_nan=True)
    peak = np.zeros((41, 41))
    peak[20, 20] = 1
    spread = smoothed(peak, 1.0)
    assert spread.sum() == pytest.approx(1, abs=1e-3)
    assert spread[20, 21] / spread[20, 20] == pytest.approx(np.exp(-0.5), abs=1e-3)
    assert smoothed(peak, 0.0) is peak


def test_cells_are_as_large_as_they_can_be_and_not_too_many() -> None:
    coords = np.array([[1000, 500], [1512, 756], [3048, 500]])
    assert cell_step(coords, 512) == 256
    assert cell_step(np.array([[0, 0], [1, 0]]), 512) == 1
    step = cell_step(np.array([[0, 0], [99_999, 70_001]]), 512, most_cells=10_000)
    assert (100_511 / step) * (70_513 / step) == pytest.approx(10_000)


def test_origin_moves_the_tiles_onto_a_cropped_thumbnail(tmp_path: Path) -> None:
    coords, scores = np.array([[300, 400], [600, 700]]), np.array([0.0, 1.0])
    draw_heatmap(WHITE, coords, scores, 100, 10.0, tmp_path / "a.png", "slide")
    draw_heatmap(WHITE, coords + 5000, scores, 100, 10.0, tmp_path / "b.png", "slide", origin=(5000, 5000))
    assert (pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")).all()
    assert is_coloured(panel(pixels(tmp_path / "a.png"))).any()


@pytest.mark.parametrize("scores", [[0.7, 0.7], [0.0, 0.0], [0.7, np.nan]])
def test_constant_scores_and_nan(tmp_path: Path, scores: list[float]) -> None:
    draw_heatmap(WHITE, np.array([[0, 0], [300, 0]]), np.array(scores), 300, 10.0, tmp_path / "a.png", "slide")
    assert is_coloured(panel(pixels(tmp_path / "a.png"))).any()


@pytest.mark.parametrize(("coords", "scores"), [(np.empty((0, 2)), []), (np.array([[0, 0]]), [np.nan])])
def test_a_slide_without_tiles_shows_its_thumbnail(tmp_path: Path, coords: np.ndarray, scores: list[float]) -> None:
    draw_heatmap(WHITE, coords, np.array(scores), 300, 10.0, tmp_path / "a.png", "empty slide")
    assert not is_coloured(panel(pixels(tmp_path / "a.png"))).any()


def test_a_failing_picture_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 scores for 2 tiles"):
        draw_heatmap(WHITE, np.zeros((2, 2)), np.zeros(1), 300, 10.0, tmp_path / "a.png", "slide")
    assert list(tmp_path.iterdir()) == []


def test_comparison_has_a_panel_each_and_outlines_the_truth() -> None:
    truth = shapely.MultiPolygon([shapely.box(100, 200, 300, 400), shapely.box(600, 600, 800, 900)])
    coords = np.array([[0, 0], [300, 300]])
    scores = {"teacher attention": np.array([0.1, 0.2]), "student probability": np.array([0.9, np.nan])}
    figure = comparison_figure(
        WHITE, truth, coords, scores, 300, 10.0, "slide", limits={"student probability": (0, 1)}, origin=(100, 0)
    )
    panels, bars = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title() for axes in panels] == ["truth", "teacher attention", "student probability"]
    assert len(bars) == 2
    assert panels[2].images[1].get_clim() == (0, 1)
    assert panels[1].images[1].get_clim() == pytest.approx((0.1, 0.2))
    for axes in panels:
        rings = axes.collections[0].get_segments()
        assert len(rings) == 2
        assert rings[0].min(axis=0).tolist() == [-0.5, 19.5]  # pixel centres are whole numbers, corners halves
        assert rings[0].max(axis=0).tolist() == [19.5, 39.5]
    assert isinstance(figure.canvas, FigureCanvasAgg)
    figure.canvas.draw()
    assert np.asarray(figure.canvas.buffer_rgba()).std() > 0


def test_comparison_without_annotation_says_so() -> None:
    figure = comparison_figure(WHITE, None, np.empty((0, 2)), {"student": np.empty(0)}, 300, 10.0, "slide")
    assert figure.axes[0].get_title() == "truth unknown"
    assert not any(axes.collections for axes in figure.axes[:2])


def test_drawing_touches_no_pyplot_state() -> None:
    before = plt.get_fignums()
    comparison_figure(WHITE, None, np.empty((0, 2)), {"student": np.empty(0)}, 300, 10.0, "slide")
    assert plt.get_fignums() == before


def test_the_scale_bar_has_the_length_it_says(tmp_path: Path) -> None:
    """600 um of slide in 120 pixels: the longest round length within a quarter of that is 100 um, a sixth."""
    coords, scores = np.array([[0, 0]]), np.array([0.5])  # one tile, half as wide as the slide
    draw_heatmap(WHITE, coords, scores, 600, 10.0, tmp_path / "a.png", "slide", mpp=0.5)
    picture = panel(pixels(tmp_path / "a.png"))
    width = 2 * np.ptp(np.flatnonzero(is_coloured(picture).any(axis=0))) + 1
    black = (picture.max(axis=-1) < 60)[int(0.9 * len(picture)) :].sum(axis=1).max()
    assert black / width == pytest.approx(1 / 6, abs=0.01)
