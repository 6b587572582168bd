"""The tissue mask on drawn slides of known truth, on odd slides, and on the real one."""

import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kd_mil.core.errors import UserError
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.tiles.ink import is_ink
from kd_mil.slides.tiles.tissue import TissueSettings, find_tissue, pieces_of_at_least, tissue_mask

GLASS = (243, 242, 244)
STROMA = (214, 140, 180)
NUCLEI = (110, 70, 150)


def glass(width: int = 200, height: int = 150) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width, height), GLASS)
    return image, ImageDraw.Draw(image)


def mask_of(image: Image.Image, **settings) -> np.ndarray:
    """The mask at 8 µm per pixel of a picture with camera noise."""
    noise = np.random.default_rng(0).normal(0, 2, (image.height, image.width, 3))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).round().astype(np.uint8)
    return tissue_mask(pixels, 8.0, TissueSettings(**settings))


def agreement(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union."""
    return (found & truth).sum() / (found | truth).sum()


def disc(image: Image.Image, centre: tuple[int, int], radius: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(image.width), np.arange(image.height))
    return np.hypot(x - centre[0], y - centre[1]) <= radius


def draw_tissue(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse([50, 35, 130, 115], fill=STROMA)
    draw.ellipse([80, 60, 110, 90], fill=NUCLEI)


def test_tissue_is_found_where_it_is_drawn():
    image, draw = glass()
    draw_tissue(draw)
    assert agreement(mask_of(image), disc(image, (90, 75), 40)) > 0.95


def test_small_holes_are_filled_and_large_ones_kept():
    image, draw = glass()
    draw.rectangle([20, 20, 180, 130], fill=STROMA)
    draw.rectangle([40, 40, 51, 51], fill=GLASS)  # 12 x 12 pixels = 9,216 um2
    draw.rectangle([100, 50, 139, 89], fill=GLASS)  # 40 x 40 pixels = 102,400 um2
    mask = mask_of(image)
    assert mask[41:50, 41:50].all()
    assert not mask[55:85, 105:135].any()


def test_pieces_below_the_minimum_area_are_dropped():
    image, draw = glass()
    draw.rectangle([20, 20, 27, 27], fill=STROMA)  # 64 pixels = 4,096 um2
    draw.rectangle([80, 80, 99, 99], fill=STROMA)  # 400 pixels = 25,600 um2
    assert mask_of(image)[20:28, 20:28].sum() == 0
    assert mask_of(image)[82:98, 82:98].all()
    assert mask_of(image, min_area_um2=2_000)[22:26, 22:26].all()


@pytest.mark.parametrize(
    "ink",
    [(20, 160, 60), (10, 120, 90), (0, 140, 160), (30, 60, 190), (20, 30, 120), (200, 30, 40), (15, 15, 20)],
    ids=["green", "dark green", "cyan", "blue", "navy", "red", "black"],
)
def test_pen_marks_are_no_tissue(ink):
    image, draw = glass()
    draw_tissue(draw)
    draw.line([(5, 20), (45, 10), (195, 25)], fill=ink, width=6)
    draw.line([(160, 40), (170, 140)], fill=ink, width=6)
    assert agreement(mask_of(image), disc(image, (90, 75), 40)) > 0.93


def test_stain_is_never_taken_for_ink():
    """Hues and strengths of haematoxylin and eosin, from pale to dark, by the Beer-Lambert law (Macenko's vectors)."""
    haematoxylin, eosin = np.meshgrid(np.linspace(0, 1.2, 30), np.linspace(0, 1.2, 30))
    density = haematoxylin[..., None] * [0.5626, 0.7201, 0.4062] + eosin[..., None] * [0.2159, 0.8012, 0.5581]
    colours = (243 * np.exp(-density)).round().astype(np.uint8)
    assert not is_ink(colours).any()


def test_haematoxylin_alone_is_never_ink_however_dark():
    """The counterstain of immunohistochemistry, up to a density at which 5 % of the light is left."""
    colours = (243 * np.exp(-np.linspace(0, 3, 60)[:, None, None] * [0.650, 0.704, 0.286])).round().astype(np.uint8)
    assert not is_ink(colours).any()
    image, draw = glass()
    draw.ellipse([50, 35, 130, 115], fill=tuple(colours[50, 0].tolist()))
    assert agreement(mask_of(image), disc(image, (90, 75), 40)) > 0.95


@pytest.mark.parametrize(
    "ink", [(150, 40, 200), (110, 20, 160), (110, 40, 160), (190, 210, 240), (170, 190, 240), (200, 235, 210)]
)
def test_purple_and_faint_pens_are_no_tissue(ink):
    image, draw = glass()
    draw_tissue(draw)
    draw.line([(160, 10), (170, 140)], fill=ink, width=8)
    assert agreement(mask_of(image), disc(image, (90, 75), 40)) > 0.93


@pytest.mark.parametrize("micrometres", [48, 64, 80, 96])
@pytest.mark.parametrize("colour", [(15, 15, 20), (20, 160, 60), (30, 60, 190)], ids=["black", "green", "blue"])
def test_ink_and_dark_spots_within_tissue_stay_out(micrometres, colour):
    image, draw = glass()
    draw.rectangle([20, 20, 180, 130], fill=STROMA)
    side = micrometres // 8
    draw.rectangle([100, 70, 99 + side, 69 + side], fill=colour)
    mask = mask_of(image)
    assert not mask[70 : 70 + side, 100 : 100 + side].any()
    assert mask[25:60, 25:90].all()


@pytest.mark.parametrize(
    "tint", [(234, 223, 195), (238, 232, 180), (220, 214, 190), (225, 240, 225), (190, 190, 190), (205, 200, 190)]
)
def test_yellow_and_grey_glass_is_no_tissue(tint):
    """The same picture as through a filter."""
    image, draw = glass()
    draw_tissue(draw)
    pixels = np.asarray(image) * (np.array(tint) / GLASS)
    assert agreement(mask_of(Image.fromarray(pixels.round().astype(np.uint8))), disc(image, (90, 75), 40)) > 0.93


def faded(image: Image.Image, share: float) -> Image.Image:
    """Optical density times `share`."""
    return Image.fromarray((np.array(GLASS) * (np.asarray(image) / GLASS) ** share).round().astype(np.uint8))


@pytest.mark.parametrize("share", [0.5, 0.3, 0.15])
def test_faded_stain_is_found(share):
    image, draw = glass()
    draw_tissue(draw)
    assert agreement(mask_of(faded(image, share)), disc(image, (90, 75), 40)) > 0.9


@pytest.mark.parametrize(
    ("colours", "doubt"),
    [
        (((235, 200, 225), STROMA), r"nearly everything \(100%\) counts as tissue: tinted glass"),
        ((GLASS, (30, 50, 120)), "counts as ink: blue or green stain"),
        ((GLASS, (235, 226, 231)), "the stain is faint"),
    ],
)
def test_doubts_are_kept_and_warned_of(tmp_path, colours, doubt):
    image = Image.new("RGB", (200, 150), colours[0])
    draw = ImageDraw.Draw(image)
    draw.ellipse([50, 35, 130, 115], fill=colours[1])
    draw.ellipse([150, 50, 190, 90], fill=STROMA)
    noise = np.random.default_rng(0).normal(0, 1, (150, 200, 3))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).round().astype(np.uint8)
    if "faint" in doubt:
        pixels[45:95, 145:195] = pixels[:50, :50]
    with pytest.warns(UserWarning, match=doubt):
        tissue = find_tissue(slide_of(tmp_path, Image.fromarray(pixels)))
    assert len(tissue.doubts) == 1


def test_nearly_nothing_is_a_warning(tmp_path):
    image, draw = glass(600, 600)
    draw.rectangle([100, 100, 117, 117], fill=STROMA)  # 324 of 360,000 pixels
    with pytest.warns(UserWarning, match=r"nearly nothing \(0\.\d+%\) counts as tissue"):
        assert find_tissue(slide_of(tmp_path, image)).mask.any()


def test_green_stain_needs_the_pen_rule_off():
    image, draw = glass()
    draw.ellipse([50, 35, 130, 115], fill=(120, 190, 160))
    assert not mask_of(image).any()
    assert agreement(mask_of(image, exclude_pen=False), disc(image, (90, 75), 40)) > 0.95


def test_black_border_is_no_tissue():
    image, draw = glass()
    draw_tissue(draw)
    draw.rectangle([0, 0, 12, 150], fill=(0, 0, 0))
    draw.rectangle([0, 138, 200, 150], fill=(25, 20, 24))
    assert agreement(mask_of(image), disc(image, (90, 75), 40)) > 0.95


def test_all_tissue_is_all_tissue():
    """Otsu would split pale from dark; the bound on the threshold does not let it."""
    image, draw = glass()
    draw.rectangle([0, 0, 200, 150], fill=STROMA)
    draw.rectangle([100, 0, 200, 150], fill=NUCLEI)
    assert mask_of(image).mean() > 0.99


def slide_of(tmp_path, image: Image.Image, mpp: float = 8.0):
    image.save(tmp_path / "drawn.png")
    return open_slide(tmp_path / "drawn.png", mpp=mpp)


@pytest.mark.parametrize("colour", [GLASS, (255, 255, 255), (225, 228, 222), (128, 128, 128)])
def test_empty_glass_is_a_warning_and_an_empty_mask(tmp_path, colour):
    with pytest.warns(UserWarning, match="'drawn': no tissue found"):
        tissue = find_tissue(slide_of(tmp_path, Image.new("RGB", (200, 150), colour)))
    assert tissue.mask.shape == (150, 200)
    assert not tissue.mask.any()


@pytest.mark.parametrize("colour", [(0, 0, 0), (30, 25, 28)])
def test_black_slide_is_a_warning_and_an_empty_mask(tmp_path, colour):
    slide = slide_of(tmp_path, Image.new("RGB", (200, 150), colour))
    with pytest.warns(UserWarning, match="no tissue"), pytest.warns(UserWarning, match="mostly black"):
        tissue = find_tissue(slide)
    assert not tissue.mask.any()


def test_tissue_on_a_dark_background_is_found_with_a_warning(tmp_path):
    image = Image.new("RGB", (200, 150), (10, 8, 12))
    draw_tissue(ImageDraw.Draw(image))
    with pytest.warns(UserWarning, match="mostly black"):
        tissue = find_tissue(slide_of(tmp_path, image))
    assert agreement(tissue.mask, disc(image, (90, 75), 40)) > 0.8  # the margin of the black is cut off


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (20, 5)])
def test_tiny_slides_do_not_crash(tmp_path, size):
    with pytest.warns(UserWarning, match="no tissue"):
        assert find_tissue(slide_of(tmp_path, Image.new("RGB", size, STROMA))).mask.shape == size[::-1]


def test_mask_scale_and_origin_follow_the_bounds(tmp_path):
    image, draw = glass(400, 300)
    draw.rectangle([200, 100, 320, 220], fill=STROMA)
    slide = slide_of(tmp_path, image, mpp=2.0)
    slide.bounds = (160, 60, 200, 200)
    tissue = find_tissue(slide)
    assert (tissue.origin, tissue.downsample, tissue.mask.shape) == ((160, 60), 4.0, (50, 50))
    assert tissue.thumbnail.shape == (50, 50, 3)
    rows, columns = np.nonzero(tissue.mask)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == pytest.approx((10, 39, 10, 39), abs=1)


def test_pieces_by_hand():
    mask = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 1]], dtype=bool)
    assert pieces_of_at_least(mask, 2).astype(int).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]]
    assert pieces_of_at_least(mask, 3).astype(int).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_real_slide(shared_data):
    """The piece of skin stands in the middle, from the top almost to the lower edge; the corners are glass."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tissue = find_tissue(open_slide(shared_data("slides") / "CMU-1-Small-Region.svs"))
    height, width = tissue.mask.shape
    assert 0.33 < tissue.mask.mean() < 0.43
    assert tissue.mask[int(0.4 * height) : int(0.95 * height), int(0.42 * width) : int(0.45 * width)].all()
    for corner in (tissue.mask[:60, :40], tissue.mask[:40, -40:], tissue.mask[-60:, :25], tissue.mask[-60:, -20:]):
        assert not corner.any()
    # Nothing coloured is far from the mask, nothing white makes up much of it.
    saturation = np.ptp(tissue.thumbnail.astype(int), axis=2) / tissue.thumbnail.max(axis=2)
    assert tissue.mask[saturation > 0.2].mean() > 0.95
    assert (saturation[tissue.mask] < 0.03).mean() < 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mpp": 0}, "tissue.mpp"),
        ({"closing_um": -1}, "tissue.closing_um=-1: must be at least 0"),
        ({"min_saturation": 0.3}, "in order"),
        ({"max_saturation": 1.5}, r"must lie in \[0, 1\]"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        TissueSettings(**settings)


def test_absurd_mask_size(tmp_path):
    slide = slide_of(tmp_path, Image.new("RGB", (9000, 2), GLASS), mpp=40.0)
    with pytest.raises(UserError, match=r"'drawn': a tissue mask of 9000 x 2 pixels"):
        find_tissue(slide)
