"""Files that are no slides, no longer or not at all, and odd names."""

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from tests.campaign.cases import Case
from tests.campaign.checks import done, either, listed
from tests.campaign.inputs.dicom import write_dicom
from tests.campaign.inputs.formats import _chunk
from tests.campaign.inputs.pictures import TILES, aperio, picture, striped, tissue
from tests.campaign.inputs.slides import slide


def cases() -> Iterator[Case]:
    yield from damaged()
    yield from names()


def damaged() -> Iterator[Case]:
    """Files that are no slides, no longer or not at all."""
    kind, whole = "damaged slides", tissue(1.0)

    def cut(share: float, write: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def put(path: Path) -> None:
            write(path)
            os.truncate(path, int(path.stat().st_size * share))

        return put

    def text(content: bytes) -> Callable[[Path], Any]:
        return lambda path: path.write_bytes(content)

    huge = (
        _chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", b"")
        + _chunk(b"IEND", b"")
    )
    for name, file, write in (
        ("empty_svs", "empty.svs", text(b"")),
        ("empty_png", "empty.png", text(b"")),
        ("text_svs", "text.svs", text(b"this is no slide\n")),
        ("html_svs", "html.svs", text(b"<!DOCTYPE html><html><body>404 Not Found</body></html>")),
        ("lfs_pointer", "lfs.svs", text(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")),
        ("random_tif", "random.tif", text(np.random.default_rng(0).bytes(5000))),
        ("zip_ndpi", "zip.ndpi", text(b"PK\x03\x04" + bytes(400))),
        ("tiff_header", "header.tif", text(b"II*\0\x08\0\0\0")),
        ("tiff_loop", "loop.tif", text(b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8))),
        ("tiff_huge", "huge.tif", text(_tiff_header(1_000_000, 1_000_000))),
        ("png_huge", "huge.png", text(b"\x89PNG\r\n\x1a\n" + huge)),
        ("png_bomb", "bomb.png", text(png_bomb(30_000))),
        ("cut_png", "cut.png", cut(0.5, lambda path: picture(path, whole))),
        ("cut_jpeg", "cut.jpg", cut(0.5, lambda path: picture(path, whole, quality=95))),
        ("cut_strips", "cut_strips.tif", cut(0.5, lambda path: striped(path, whole))),
        ("cut_svs", "cut.svs", cut(0.5, lambda path: aperio(path, whole, "AppMag = 10|MPP = 1.0"))),
        ("cut_header_svs", "cut_header.svs", cut(0.01, lambda path: aperio(path, whole))),
        ("zeroed_tiles", "zeroed.svs", lambda path: _zeroed(path, whole)),
        ("dicom_cut", "dicom_cut/a.dcm", cut(0.5, lambda path: write_dicom(path, whole, 1.0))),
        ("svg", "drawing.png", text(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')),
    ):
        check = listed(name, "empty|damaged|truncated|cannot|readable|image|too large|no slide|copy|export")
        yield slide(name, kind, file, write, check, mpp=1.0)
    grey = either(done("gif_as_tif", tiles=0), listed("gif_as_tif", "tissue|tile|image|readable"))
    yield slide("gif_as_tif", kind, "gif.tif", text(_gif()), grey, mpp=1.0)
    yield slide(
        "png_named_jpg",
        kind,
        "png_inside.jpg",
        lambda path: picture(path, whole, format="PNG"),
        done("png_named_jpg", tiles=TILES),
        mpp=1.0,
    )
    yield slide(
        "jpeg_named_tif",
        kind,
        "jpeg_inside.tif",
        lambda path: picture(path, whole, format="JPEG"),
        done("jpeg_named_tif", tiles=TILES),
        mpp=1.0,
    )
    yield slide(
        "no_suffix",
        kind,
        "slide_without_suffix",
        lambda path: aperio(path, whole, "AppMag = 10|MPP = 1.0"),
        done("no_suffix", tiles=TILES),
    )
    yield slide(
        "png_text_bomb",
        kind,
        "text_bomb.png",
        lambda path: picture(path, whole, pnginfo=_text_bomb()),
        either(done("png_text_bomb", tiles=TILES), listed("png_text_bomb", "text|large|damaged")),
        mpp=1.0,
    )


def _tiff_header(width: int, height: int) -> bytes:
    """A TIFF that declares a picture and has hardly any of it."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, 2**32 - 1),
    ]
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + body + bytes(4)


def png_bomb(side: int) -> bytes:
    """A white picture of `side` squared pixels in a few hundred kB."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    row, packer = b"\0" + bytes(3 * side), zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _text_bomb() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 3_000_000, zip=True)
    return info


def _gif() -> bytes:
    packed = io.BytesIO()
    Image.new("P", (64, 64)).save(packed, "GIF")
    return packed.getvalue()


def _zeroed(path: Path, pixels: np.ndarray) -> None:
    """Compressed tiles overwritten by zeros, as a broken copy leaves them."""
    aperio(path, pixels, "AppMag = 10|MPP = 1.0", levels=1)
    with tifffile.TiffFile(path) as file:
        places = list(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    with path.open("r+b") as raw:
        for start, length in places[4:9]:
            raw.seek(start)
            raw.write(bytes(length))


def names() -> Iterator[Case]:
    """Names of files and ids that are legal but odd."""
    kind, whole = "odd names", tissue(1.0)
    for number, name in enumerate(
        (
            "two words",
            "P0.3",
            "P0.3.final",
            "café",
            "cafe\u0301",
            "切片",
            "🔬",
            "a=b",
            "a,b",
            "semi;colon",
            "[1]",
            "{x}",
            "100%",
            "it's",
            "#1",
            "~tilde",
            "$HOME",
            "a&b",
            "id" * 90,
        )
    ):
        yield slide(
            name,
            kind,
            f"name{number}_{name[:40]}.png",
            lambda path: picture(path, whole),
            done(name, tiles=TILES),
            mpp=1.0,
        )
