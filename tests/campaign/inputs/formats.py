"""Pixel types, compressions and pyramids of slides."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tests.campaign.cases import Case
from tests.campaign.checks import done, either, listed
from tests.campaign.inputs.dicom import write_dicom
from tests.campaign.inputs.pictures import GLASS, TILES, aperio, picture, striped, tiled, tissue
from tests.campaign.inputs.slides import slide
from tests.campaign.inputs.vendors import leica, ndpi


def cases() -> Iterator[Case]:
    """Pixel types, compressions and pyramids."""
    kind, whole, half = "pixel types and pyramids", tissue(1.0), tissue(0.5)
    given = {"mpp": 1.0}
    alpha = np.dstack([whole, np.full(whole.shape[:2], 255, np.uint8)])
    alpha[(whole == GLASS).all(axis=2)] = 0  # glass is transparent black
    for name, file, write in (
        ("rgba_png", "rgba.png", lambda path: picture(path, alpha)),
        ("rgba_tiff", "rgba.tif", lambda path: striped(path, alpha, photometric="rgb", extrasamples="unassalpha")),
        ("palette_png", "palette.png", lambda path: Image.fromarray(whole).quantize(64).save(path)),
        ("interlaced_png", "adam7.png", lambda path: path.write_bytes(_interlaced(whole))),
        ("jpeg", "plain.jpg", lambda path: picture(path, whole, quality=95)),
        ("jpeg_progressive", "progressive.jpeg", lambda path: picture(path, whole, quality=95, progressive=True)),
        ("jpeg_cmyk", "cmyk.jpg", lambda path: Image.fromarray(whole).convert("CMYK").save(path, quality=95)),
        ("jpeg_turned", "turned.jpg", lambda path: picture(path, whole, quality=95, exif=_turned())),
        ("upper_case", "UPPER.PNG", lambda path: picture(path, whole)),
        ("tiff_zlib_big", "zlib.tif", lambda path: tiled(path, whole, bigtiff=True)),
        ("tiff_jpeg", "jpeg.tif", lambda path: tiled(path, whole, compression="jpeg")),
        ("tiff_lzw_predictor", "lzw.tif", lambda path: tiled(path, whole, compression="lzw", predictor=True)),
        ("tiff_packbits", "packbits.tif", lambda path: striped(path, whole, compression="packbits")),
        ("tiff_pages", "pages.tif", lambda path: tifffile.imwrite(path, np.stack([whole] * 3), photometric="rgb")),
        ("tiff_small_tiles", "tiles16.tif", lambda path: tiled(path, whole, tile=(16, 16))),
        (
            "tiff_planar",
            "planar.tif",
            lambda path: striped(path, np.moveaxis(whole, -1, 0), photometric="rgb", planarconfig="separate"),
        ),
        ("tiff_big_endian", "big.tif", lambda path: striped(path, whole, byteorder=">")),
    ):
        yield slide(name, kind, file, write, **given)
    for name, file, write in (
        ("rgb_16_bit", "rgb16.tif", lambda path: striped(path, whole.astype(np.uint16) * 257, photometric="rgb")),
        ("rgb_16_bit_tiles", "rgb16t.tif", lambda path: tiled(path, whole.astype(np.uint16) * 257)),
        ("rgb_float", "float.tif", lambda path: striped(path, whole.astype(np.float32) / 255, photometric="rgb")),
        (
            "rgb_float_big",
            "floatb.tif",
            lambda path: striped(path, whole.astype(np.float32) / 255, photometric="rgb", byteorder=">"),
        ),
        ("grey_16_png", "grey16.png", lambda path: picture(path, whole[..., 0].astype(np.uint16) * 257)),
        ("tiff_jpeg2000", "jpeg2000.tif", lambda path: tiled(path, whole, compression="jpeg2000")),
        ("tiff_zstd", "zstd.tif", lambda path: striped(path, whole, compression="zstd", photometric="rgb")),
        ("tiff_jpegxl", "jxl.tif", lambda path: striped(path, whole, compression="jpegxl", photometric="rgb")),
    ):
        yield slide(
            name,
            kind,
            file,
            write,
            either(done(name, tiles=TILES), listed(name, "convert|save|export|damaged|cannot be")),
            **given,
        )
    yield slide(
        "pyramid_three",
        kind,
        "three.svs",
        lambda path: aperio(path, half, levels=3),
        done("pyramid_three", tiles=TILES, mpp=0.5),
    )
    yield slide(
        "pyramid_uneven",
        kind,
        "uneven.tif",
        lambda path: _levels(path, [half, half[::3, ::3]]),
        done("pyramid_uneven", tiles=TILES),
        mpp=0.5,
    )
    yield slide(
        "pyramid_reversed",
        kind,
        "reversed.tif",
        lambda path: _levels(path, [half[::4, ::4], half[::2, ::2], half]),
        either(done("pyramid_reversed", tiles=TILES, mpp=0.5), listed("pyramid_reversed", ".")),
        mpp=0.5,
    )
    yield slide(
        "leica_bounds",
        "slides with bounds",
        "bounds.scn",
        leica,
        done("leica_bounds", tiles=TILES, first=(2048, 1536), mpp=0.5),
    )
    yield slide("ndpi", kind, "hamamatsu.ndpi", lambda path: ndpi(path, half), done("ndpi", tiles=TILES, mpp=0.5))
    yield slide(
        "dicom_file",
        "DICOM",
        "dicom_file/level0.dcm",
        lambda path: write_dicom(path, half, 0.5),
        done("dicom_file", tiles=TILES, mpp=0.5),
    )
    yield slide(
        "dicom_compressed",
        "DICOM",
        "dicom_jpeg/level0.dcm",
        lambda path: write_dicom(path, half, 0.5, jpeg=True),
        done("dicom_compressed", tiles=TILES, mpp=0.5),
    )
    yield slide(
        "mrxs_alone",
        "damaged slides",
        "alone.mrxs",
        lambda path: picture(path.with_suffix(".jpg"), whole) or path.with_suffix(".jpg").rename(path),
        listed("mrxs_alone", "folder|alone/"),
    )


def _levels(path: Path, levels: list[np.ndarray]) -> None:
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(level, tile=(256, 256), photometric="rgb", metadata=None, subfiletype=int(number > 0))


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _interlaced(pixels: np.ndarray) -> bytes:
    """A PNG in Adam7's seven passes, which Pillow reads but does not write."""
    raw = b""
    for x0, y0, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        raw += b"".join(b"\0" + row.tobytes() for row in pixels[y0::dy, x0::dx])
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(*one) for one in ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
