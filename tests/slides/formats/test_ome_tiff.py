"""OME-TIFF as tifffile writes it: resolution by the XML, sub-IFDs as levels, planar pixels, and what is no picture."""

import os

import numpy as np
import pytest
import tifffile

from kd_mil.core.errors import UserError
from kd_mil.slides.formats.ome_tiff import OmeTiffSlide
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings

PIXELS = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
HALF_UM = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}


def write_ome(path, pixels=PIXELS, planar=False, tiled=True, levels=3, compression="deflate", **metadata):
    """A pyramid whose levels lie in sub-IFDs, as QuPath and Bio-Formats write it."""
    shape = {"tile": (256, 256)} if tiled else {"rowsperstrip": 50}
    form = {"photometric": "rgb", "compression": compression, **shape}
    form |= {"planarconfig": "separate"} if planar else {}
    with tifffile.TiffWriter(path, ome=True) as file:
        for level in range(levels):
            part = pixels[:: 2**level, :: 2**level]
            part = np.moveaxis(part, -1, 0) if planar else part
            if level:
                file.write(part, subfiletype=1, **form)
            else:
                axes = "SYX" if planar else "YXS"
                file.write(part, subifds=levels - 1, metadata={"axes": axes, **(metadata or HALF_UM)}, **form)
    return path


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("tiled", [False, True])
def test_levels_and_pixels_are_those_written(tmp_path, planar, tiled):
    slide = open_slide(write_ome(tmp_path / "a.ome.tif", planar=planar, tiled=tiled))
    assert isinstance(slide, OmeTiffSlide)
    assert slide.level_dimensions == ((900, 700), (450, 350), (225, 175))
    assert (slide.level_downsamples, slide.mpp, slide.states_mpp) == ((1.0, 2.0, 4.0), 0.5, True)
    np.testing.assert_array_equal(slide.read(100, 77, (333, 222), 0.5), PIXELS[77:299, 100:433])
    np.testing.assert_array_equal(slide.read(200, 100, (100, 50), 1.0), PIXELS[::2, ::2][50:100, 100:200])
    np.testing.assert_array_equal(slide.read(0, 0, (225, 175), 2.0), PIXELS[::4, ::4])
    corner = slide.read(880, 690, (40, 50), 0.5)
    np.testing.assert_array_equal(corner[:10, :20], PIXELS[690:, 880:])
    assert (corner[10:] == 255).all()
    assert (slide.read(-60, -60, (50, 50), 0.5) == 255).all()


def test_jpeg_is_decoded_in_its_colours(tmp_path):
    flat = np.full((256, 256, 3), (180, 90, 140), np.uint8)
    slide = open_slide(write_ome(tmp_path / "a.ome.tif", flat, compression="jpeg"))
    assert np.abs(slide.read(0, 0, (256, 256), 0.5).astype(int) - flat).max() <= 3


@pytest.mark.parametrize(
    ("size", "unit", "mpp"),
    [(250, "nm", 0.25), (0.001, "mm", 1.0), (2500, "Å", 0.25), (0.5, "µm", 0.5), (0.00001, "in", 0.254)],
)
def test_units_of_length(tmp_path, size, unit, mpp):
    sizes = {f"PhysicalSize{axis}": size for axis in "XY"} | {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    assert open_slide(write_ome(tmp_path / "a.ome.tif", **sizes)).mpp == pytest.approx(mpp)


@pytest.mark.parametrize("sizes", [{"Name": "silent"}, {**HALF_UM, "PhysicalSizeXUnit": "pixel"}])
def test_a_file_that_states_no_length_asks_for_one(tmp_path, sizes):
    path = write_ome(tmp_path / "a.ome.tif", **sizes)
    with pytest.raises(UserError, match=r"states neither µm per pixel.*mpp"):
        open_slide(path)
    assert open_slide(path, default_mpp=0.25).mpp == 0.25


@pytest.mark.parametrize(("names", "is_read"), [(["Red", "green", "B"], True), (["DAPI", "FITC", "TRITC"], False)])
def test_planes_of_their_own_are_colours_where_they_say_so(tmp_path, names, is_read):
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "CYX", "Channel": {"Name": names}, **HALF_UM}
    tifffile.imwrite(path, np.moveaxis(PIXELS, -1, 0), ome=True, photometric="minisblack", metadata=metadata)
    if is_read:
        np.testing.assert_array_equal(open_slide(path).read(10, 20, (30, 40), 0.5), PIXELS[20:60, 10:40])
    else:
        with pytest.raises(UserError, match=r"a\.ome\.tif.*no RGB picture of 8 bits.*CYX"):
            open_slide(path)


def test_deep_and_damaged_files_are_one_line(tmp_path):
    deep, cut = tmp_path / "deep.ome.tif", write_ome(tmp_path / "cut.ome.tif")
    metadata = {"axes": "YXS", **HALF_UM}
    tifffile.imwrite(deep, PIXELS.astype(np.uint16), ome=True, photometric="rgb", metadata=metadata)
    with pytest.raises(UserError, match=r"8 bits a channel.*uint16"):
        open_slide(deep)
    with tifffile.TiffFile(cut) as file:
        last = file.pages[0].dataoffsets[-1]
    with cut.open("r+b") as raw:
        raw.seek(last)
        raw.write(os.urandom(100))
    with pytest.raises(UserError, match=r"cut\.ome\.tif' is damaged at \(0, 0\), level 0"):
        open_slide(cut).read(0, 0, (900, 700), 0.5)


def test_tiles_of_a_coarser_target_come_from_a_sub_resolution(tmp_path):
    """Level 1 is red and level 0 green: what is cut shows which was read."""
    path = tmp_path / "a.ome.tif"
    form = {"photometric": "rgb", "tile": (256, 256), "compression": "deflate"}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(
            np.full((512, 512, 3), (20, 200, 20), np.uint8), subifds=1, metadata={"axes": "YXS", **HALF_UM}, **form
        )
        file.write(np.full((256, 256, 3), (200, 20, 90), np.uint8), subfiletype=1, **form)
    slide = open_slide(path)
    tiles = Cutting(TilingSettings(tile_size=64, mpp=1.0)).cut(slide)
    assert len(tiles.coords) == 16
    assert slide.read(*tiles.coords[5].tolist(), (64, 64), tiles.mpp)[0, 0].tolist() == [200, 20, 90]
