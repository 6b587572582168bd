"""Pixels by level-0 position and resolution: native equality, choice of level, resampling, processes, bad files."""

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.formats import pyramid
from kd_mil.slides.formats.image_slide import ImageSlide
from kd_mil.slides.formats.openslide_slide import scanned_bounds
from kd_mil.slides.formats.pyramid import level_and_downsample, resolve_mpp
from kd_mil.slides.formats.reader import open_slide

RED, GREEN, BLUE = (200, 30, 40), (30, 200, 40), (40, 30, 200)


def write_tiff(path: Path, levels: list[np.ndarray], **options) -> Path:
    """A tiled multi-page TIFF, which OpenSlide opens as `generic-tiff`, or as Aperio by its description."""
    with tifffile.TiffWriter(path) as writer:
        for number, level in enumerate(levels):
            writer.write(
                level,
                tile=(128, 128),
                photometric="rgb",
                compression="deflate",
                subfiletype=int(number > 0),
                metadata=None,
                **(options if number == 0 else {}),
            )
    return path


def flat(side: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((side, side, 3), colour, dtype=np.uint8)


def ramp(width: int, height: int) -> np.ndarray:
    """Red grows by 1 every 8 pixels to the right, green by 1 every 8 downwards, blue is constant."""
    x, y = np.meshgrid(np.arange(width) / 8, np.arange(height) / 8)
    return np.stack([x, y, np.full_like(x, 77)], axis=2).round().astype(np.uint8)


@pytest.fixture(scope="module")
def real_slide(shared_data):
    return open_slide(shared_data("slides") / "CMU-1-Small-Region.svs")


@pytest.fixture
def coloured(tmp_path):
    """Levels of 1024, 512 and 256 pixels in red, green and blue at 0.25 µm per pixel: a colour tells the level read."""
    levels = [flat(1024, RED), flat(512, GREEN), flat(256, BLUE)]
    return open_slide(write_tiff(tmp_path / "levels.tif", levels), mpp=0.25)


def test_real_slide_metadata(real_slide):
    assert real_slide.dimensions == (2220, 2967)
    assert real_slide.level_downsamples == (1.0,)
    assert (real_slide.mpp, real_slide.magnification) == (0.499, 20)
    assert real_slide.bounds == (0, 0, 2220, 2967)
    assert real_slide.properties["openslide.vendor"] == "aperio"
    assert real_slide.name == "CMU-1-Small-Region"


def test_native_tiles_of_the_real_slide_equal_openslide(real_slide):
    plain = openslide.OpenSlide(real_slide.path)
    corners = np.random.default_rng(0).integers(0, (2220 - 224, 2967 - 256), size=(20, 2)).tolist()
    for x, y in corners:
        expected = np.asarray(plain.read_region((x, y), 0, (224, 256)).convert("RGB"))
        np.testing.assert_array_equal(real_slide.read(x, y, (224, 256), mpp=0.499), expected)
        np.testing.assert_array_equal(real_slide.read(x, y, (224, 256), mpp=0.5), expected)  # within 1 %


def test_outside_of_the_slide_is_white(real_slide):
    tile = real_slide.read(2220 - 40, -50, (100, 100), mpp=0.499)
    assert (tile[:50] == 255).all()
    assert (tile[:, 40:] == 255).all()
    assert tile[60:, :40].min() < 250


@pytest.mark.parametrize(
    ("downsample", "colour"),
    [(0.5, RED), (1, RED), (1.9, RED), (1.985, GREEN), (2, GREEN), (3.9, GREEN), (3.97, BLUE), (4, BLUE), (30, BLUE)],
)
def test_nearest_level_at_or_above_the_target_is_read(coloured, downsample, colour):
    tile = coloured.read(100, 60, (16, 16), mpp=0.25 * downsample)
    np.testing.assert_array_equal(tile, np.broadcast_to(np.uint8(colour), (16, 16, 3)))


def test_native_coarse_level_equals_openslide_at_any_position(tmp_path):
    levels = [ramp(512, 512), ramp(512, 512)[::2, ::2].copy()]
    path = write_tiff(tmp_path / "ramp.tif", levels)
    slide, plain = open_slide(path, mpp=0.5), openslide.OpenSlide(path)
    for corner in ((0, 0), (64, 32), (33, 101)):
        expected = np.asarray(plain.read_region(corner, 1, (50, 60)).convert("RGB"))
        np.testing.assert_array_equal(slide.read(*corner, (50, 60), mpp=1.0), expected)


@pytest.mark.parametrize("downsample", [1.3, 2.0, 2.7, 5.0, 11.0])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_resampled_pixels_are_where_they_should_be(tmp_path, downsample, suffix):
    """On a ramp a pixel's value is the position of its centre: x0 + (i + 1/2) downsample - 1/2, over 8."""
    path = tmp_path / f"ramp{suffix}"
    if suffix == ".png":
        Image.fromarray(ramp(1600, 1200)).save(path)
    else:
        write_tiff(path, [ramp(1600, 1200), np.asarray(Image.fromarray(ramp(1600, 1200)).reduce(2))])
    tile = open_slide(path, mpp=0.25).read(203, 101, (60, 40), mpp=0.25 * downsample)
    centre = (np.arange(60) + 0.5) * downsample - 0.5
    # The first and last pixel lack their neighbours outside the region that was read.
    np.testing.assert_allclose(tile[20, 1:-1, 0], (203 + centre[1:-1]) / 8, atol=1.01)
    np.testing.assert_allclose(tile[1:39, 30, 1], (101 + centre[1:39]) / 8, atol=1.01)
    assert np.abs(tile[20, 1:-1, 0] - (203 + centre[1:-1]) / 8).mean() < 0.5
    np.testing.assert_allclose(tile[..., 2], 77, atol=1)  # OpenSlide rounds at seams between its tiles


def test_origin_between_pixels_of_the_level_is_kept(tmp_path):
    """On a ramp of 0.37 per level-0 pixel every step to the right brightens by 0.37, though a level pixel is 4 wide."""
    full = np.tile((np.arange(640) * 0.37).round().astype(np.uint8)[None, :, None], (640, 1, 3))
    slide = open_slide(write_tiff(tmp_path / "a.tif", [full, np.asarray(Image.fromarray(full).reduce(4))]), mpp=0.25)
    tiles = [slide.read(x, x, (50, 20), mpp=0.25 * 9)[3:-3, 3:-3].mean() for x in range(100, 105)]
    assert np.diff(tiles).tolist() == pytest.approx([0.37] * 4, abs=0.1)


def test_large_areas_are_read_in_parts_with_the_same_result(real_slide, monkeypatch):
    whole = real_slide.thumbnail(500)
    monkeypatch.setattr(pyramid, "BLOCK_PIXELS", 300_000)
    parts = real_slide.thumbnail(500)
    assert whole.shape == parts.shape == (500, 374, 3)
    assert np.abs(whole.astype(int) - parts).mean() < 2


def test_thumbnail_covers_the_bounds_and_is_never_enlarged(tmp_path):
    slide = open_slide(write_tiff(tmp_path / "ramp.tif", [ramp(1000, 600)]), mpp=0.25)
    slide.bounds = (200, 100, 400, 300)
    small = slide.thumbnail(100)
    assert small.shape == (75, 100, 3)
    assert small[40, [0, -1], 0].tolist() == pytest.approx([201.5 / 8, 597.5 / 8], abs=1)
    assert slide.thumbnail(5000).shape == (300, 400, 3)


def test_level_and_downsample_by_hand():
    downsamples = (1.0, 4.0003, 16.01)
    assert level_and_downsample(downsamples, 4) == (1, 4.0003)
    assert level_and_downsample(downsamples, 3.9) == (0, 3.9)
    assert level_and_downsample(downsamples, 8) == (1, 8)
    assert level_and_downsample(downsamples, 0.5) == (0, 0.5)


def test_pickled_slide_reopens_lazily(coloured):
    copy = pickle.loads(pickle.dumps(coloured))
    assert copy._handles == {}
    np.testing.assert_array_equal(copy.read(3, 4, (9, 9), mpp=0.5), coloured.read(3, 4, (9, 9), mpp=0.5))
    coloured.close()
    assert coloured.read(0, 0, (2, 2), mpp=0.25).shape == (2, 2, 3)


def mean_colour(slide, mpp: float) -> tuple[list[float], int]:
    return slide.read(0, 0, (64, 64), mpp).mean(axis=(0, 1)).tolist(), len(slide._handles)


def child(slide, mpp, queue):
    queue.put(mean_colour(slide, mpp))


def test_forked_process_opens_its_own_handle(coloured):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(coloured, 0.5, queue))
    process.start()
    colour, handles = queue.get(timeout=30)
    process.join()
    assert colour == list(GREEN)
    assert handles == 2  # the inherited one, left alone, and its own
    assert len(coloured._handles) == 1


def test_missing_resolution_names_the_slide_and_the_override(tmp_path):
    path = write_tiff(tmp_path / "bare.tif", [flat(256, RED)])
    with pytest.raises(UserError, match=r"bare\.tif.*neither.*`mpp=`.*`mpp` column.*mpp=0\.25"):
        open_slide(path)
    assert open_slide(path, mpp=0.5).mpp == 0.5


def test_magnification_alone_gives_ten_over_it(tmp_path):
    path = write_tiff(tmp_path / "a.svs", [flat(256, RED)], description="Aperio |AppMag = 40")
    slide = open_slide(path)
    assert (slide.mpp, slide.magnification) == (0.25, 40)


def test_printing_resolution_is_no_scanner_resolution(tmp_path):
    path = write_tiff(tmp_path / "dpi.tif", [flat(256, RED)], resolution=(72, 72), resolutionunit="INCH")
    with pytest.raises(UserError, match=r"352\.778 µm per pixel"):
        open_slide(path)
    path = write_tiff(tmp_path / "cm.tif", [flat(256, RED)], resolution=(40000, 40000), resolutionunit="CENTIMETER")
    assert open_slide(path).mpp == 0.25


def test_resolution_by_hand():
    path = Path("s.svs")
    assert resolve_mpp(path, 0.3, (0.5, 0.5), 20) == 0.3
    assert resolve_mpp(path, None, (0.5, 0.51), 20) == pytest.approx(0.505)
    with pytest.raises(UserError, match="not square"):
        resolve_mpp(path, None, (0.5, 0.6), 20)
    with pytest.raises(UserError, match=r"give `mpp_override=` for the run"):
        resolve_mpp(path, -1.0, None, None)
    assert resolve_mpp(path, None, None, 20, default=1.0) == 0.5, "a magnification is a statement"
    assert resolve_mpp(path, None, None, None, default=1.0) == 1.0


def test_bounds_of_a_mirax_slide():
    properties = {f"openslide.bounds-{key}": str(value) for key, value in (("x", 100), ("y", 50), ("width", 600))}
    assert scanned_bounds(properties, (1000, 800)) == (0, 0, 1000, 800)  # incomplete: as QuPath, the whole slide
    properties["openslide.bounds-height"] = "900"
    assert scanned_bounds(properties, (1000, 800)) == (100, 50, 600, 750)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_plain_images_become_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.fromarray(flat(64, RED)).convert(mode).save(tmp_path / f"image.{suffix}")
    slide = open_slide(tmp_path / f"image.{suffix}", mpp=0.5)
    assert slide.level_dimensions == ((64, 64),)
    assert slide.read(60, 60, (8, 8), mpp=0.5).shape == (8, 8, 3)
    assert (slide.read(60, 60, (8, 8), mpp=0.5)[4:, 4:] == 255).all()


def test_untiled_tiff_is_a_plain_image(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", ramp(300, 200), photometric="rgb")
    slide = open_slide(tmp_path / "plain.tif", mpp=0.5)
    np.testing.assert_array_equal(slide.read(10, 20, (100, 50), mpp=0.5), ramp(300, 200)[20:70, 10:110])


def damaged_tiff(path: Path) -> Path:
    """Opens well, but the tiles in the middle are overwritten."""
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    content = bytearray(write_tiff(path, [noise]).read_bytes())
    content[200_000:400_000] = bytes(200_000)
    path.write_bytes(content)
    return path


def test_damage_inside_a_slide_is_named_and_the_slide_stays_usable(tmp_path):
    slide = open_slide(damaged_tiff(tmp_path / "hurt.tif"), mpp=0.5)
    for _ in range(2):
        with pytest.raises(UserError, match=r"hurt\.tif.*damaged at \(0, 256\), level 0"):
            slide.read(0, 256, (256, 128), mpp=0.5)
    assert slide.read(0, 0, (64, 64), mpp=0.5).shape == (64, 64, 3)


def test_truncated_svs(tmp_path, real_slide):
    content = real_slide.path.read_bytes()
    for share in (0.01, 0.5, 0.95):
        path = tmp_path / "short.svs"
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UserError, match=r"short\.svs.*truncated"):
            open_slide(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.svs", b"", "0 bytes"),
        ("text.svs", b"slide_id,label\n", "no slide format"),
        ("text.png", b"slide_id,label\n", "not a readable image"),
        ("half.png", None, "not a readable image"),
        ("deep.png", None, "pixels of type I;16: convert the image to 8-bit RGB"),
    ],
)
def test_files_that_are_no_slides(tmp_path, name, content, message):
    path = tmp_path / name
    if name == "half.png":
        Image.fromarray(ramp(300, 300)).save(path)
        content = path.read_bytes()[:400]
    if name == "deep.png":
        Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as failure:
        open_slide(path, mpp=0.5)
    assert "\n" not in str(failure.value)
    assert name in str(failure.value)


def test_missing_file_folder_and_backend(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_slide(tmp_path / "none.svs")
    with pytest.raises(UserError, match="is a folder"):
        open_slide(tmp_path)
    path = write_tiff(tmp_path / "a.tif", [flat(256, RED)])
    with pytest.raises(UserError, match="backend=libvips: choose openslide or fastslide"):
        open_slide(path, mpp=0.5, backend="libvips")
    with pytest.raises(UserError, match="cannot be imported"):
        open_slide(path, mpp=0.5, backend="no_such_package.Slide")
    with pytest.raises(UserError, match="no subclass of"):
        open_slide(path, mpp=0.5, backend="pathlib.Path")


def test_a_reader_of_your_own_is_found_by_its_dotted_path(tmp_path):
    """A file that OpenSlide would read is left to the class that was named."""
    path = write_tiff(tmp_path / "a.tif", [flat(256, RED)])
    slide = open_slide(path, mpp=0.5, backend="kd_mil.slides.formats.image_slide.ImageSlide")
    assert type(slide) is ImageSlide
    assert (slide.read(0, 0, (4, 4), mpp=0.5) == RED).all()


def test_fastslide_is_optional(coloured):
    try:
        import fastslide  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="pip install fastslide"):
            open_slide(coloured.path, mpp=0.25, backend="fastslide")


@pytest.mark.parametrize("mpp", [0.499, 0.8, 1.0, 3.0])
def test_fastslide_equals_openslide_on_the_real_slide(real_slide, mpp):
    """JPEG decoders may round differently, by one grey level."""
    pytest.importorskip("fastslide")
    fast = open_slide(real_slide.path, backend="fastslide")
    assert (fast.mpp, fast.magnification, fast.bounds) == (real_slide.mpp, real_slide.magnification, real_slide.bounds)
    for corner in ((0, 0), (701, 1203), (-40, -30), (2100, 2900), (9000, 0)):
        expected = real_slide.read(*corner, (200, 150), mpp).astype(int)
        assert np.abs(fast.read(*corner, (200, 150), mpp) - expected).max() <= 1


def test_fastslide_equals_openslide_on_a_pyramid(tmp_path):
    pytest.importorskip("fastslide")
    rng = np.random.default_rng(0)
    levels = [rng.integers(0, 255, (side, side, 3), dtype=np.uint8) for side in (1024, 512, 256)]
    path = write_tiff(tmp_path / "noise.tif", levels)
    slow, fast = open_slide(path, mpp=0.25), open_slide(path, mpp=0.25, backend="fastslide")
    assert fast.level_downsamples == slow.level_downsamples
    for mpp in (0.25, 0.4, 0.5, 0.7, 1.0, 1.9):
        np.testing.assert_array_equal(fast.read(104, 52, (60, 40), mpp), slow.read(104, 52, (60, 40), mpp))


def strip_tiff(path: Path, **tags) -> Path:
    tifffile.imwrite(path, flat(64, RED), rowsperstrip=8, photometric="rgb", metadata=None, **tags)
    return path


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        ((20_000, 20_000), "CENTIMETER", 0.5),
        ((40_160.64, 40_160.64), "CENTIMETER", 0.249),
        ((50_800, 50_800), "INCH", 0.5),
        ((3175, 3175), "INCH", 8.0),
    ],
)
def test_resolution_of_tiff_tags(tmp_path, tiled, resolution, unit, mpp):
    tags = {"resolution": resolution, "resolutionunit": unit}
    path = tmp_path / "tags.tif"
    slide = open_slide(write_tiff(path, [flat(256, RED)], **tags) if tiled else strip_tiff(path, **tags))
    assert slide.mpp == pytest.approx(mpp, rel=1e-4)
    assert open_slide(path, mpp=0.3).mpp == 0.3


@pytest.mark.parametrize(
    ("resolution", "unit"),
    [
        ((72, 72), "INCH"),
        ((300, 300), "INCH"),
        ((1200, 1200), "INCH"),
        ((28.35, 28.35), "CENTIMETER"),
        ((1, 1), "NONE"),
    ],
)
def test_resolution_of_printers_and_screens_is_none(tmp_path, resolution, unit):
    path = strip_tiff(tmp_path / "tags.tif", resolution=resolution, resolutionunit=unit)
    with pytest.raises(UserError, match=r"tags\.tif' states neither"):
        open_slide(path)


def test_index_of_a_mirax_slide_without_its_folder(tmp_path):
    (tmp_path / "case7.mrxs").write_bytes(b"\xff\xd8")
    with pytest.raises(UserError, match=r"copy the folder 'case7' with its \.dat files"):
        open_slide(tmp_path / "case7.mrxs", mpp=0.25)


def test_memory_of_open_slides(tmp_path, coloured):
    Image.new("RGB", (300, 200)).save(tmp_path / "plain.png")
    assert open_slide(tmp_path / "plain.png", mpp=1.0).resident_bytes == 300 * 200 * 3
    assert coloured.resident_bytes == pyramid.READER_BYTES
