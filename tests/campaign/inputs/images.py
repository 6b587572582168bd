"""Odd images for `segment`, which takes a folder of them."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from tests.campaign.cases import Case, Check, Result
from tests.campaign.checks import either, listed
from tests.campaign.inputs.pictures import picture, striped, tissue

BATCH = "images"


def masked(name: str, size: tuple[int, int] = (256, 256)) -> Check:
    """A mask and a map of the image's own size (width, height), and outlines within it."""

    def check(result: Result) -> list[str]:
        if not result.is_done(name):
            return [f"not done: {result.failure_of(name) or result.last_line}"]
        for kind in ("masks", "maps"):
            with Image.open(result.out / kind / f"{name}.png") as image:
                if image.size != size:
                    return [f"{kind}: {image.size}, not {size}"]
        return [] if (result.out / "geojson" / f"{name}.geojson").is_file() else ["no outlines"]

    return check


def cases() -> Iterator[Case]:
    plain = tissue(size=(256, 256), box=(64, 64, 192, 192))

    def image(name: str, kind: str, suffix: str, write: Callable[[Path], Any], check: Check | None = None) -> Case:
        return Case(name, kind, lambda folder: write(folder / f"{name}{suffix}"), check or masked(name), BATCH)

    kind = "images as they come"
    alpha = np.dstack([plain, np.full((256, 256), 255, np.uint8)])
    for name, suffix, write in (
        ("grey", ".png", lambda path: picture(path, plain[..., 0])),
        ("rgba", ".png", lambda path: picture(path, alpha)),
        ("bits", ".png", lambda path: Image.fromarray(plain[..., 1] > 150).save(path)),
        ("palette", ".png", lambda path: Image.fromarray(plain).quantize(32).save(path)),
        ("cmyk", ".jpg", lambda path: Image.fromarray(plain).convert("CMYK").save(path)),
        ("progressive", ".jpeg", lambda path: picture(path, plain, progressive=True)),
        ("capitals", ".PNG", lambda path: picture(path, plain)),
        ("bitmap", ".bmp", lambda path: picture(path, plain)),
        ("strips", ".tif", lambda path: striped(path, plain)),
        ("big_endian", ".tif", lambda path: striped(path, plain, byteorder=">")),
        ("pages", ".tif", lambda path: tifffile.imwrite(path, np.stack([plain] * 3), photometric="rgb")),
        ("lzw", ".tiff", lambda path: striped(path, plain, compression="lzw")),
        ("jpeg_named_png", ".png", lambda path: picture(path, plain, format="JPEG")),
        ("two words", ".png", lambda path: picture(path, plain)),
        ("café 切片 🔬", ".png", lambda path: picture(path, plain)),
        ("P0.3", ".png", lambda path: picture(path, plain)),
        ("a=b,c", ".png", lambda path: picture(path, plain)),
        ("turned", ".jpg", lambda path: picture(path, plain, exif=_turned())),
        ("n" * 240, ".png", lambda path: picture(path, plain)),
    ):
        yield image(name, kind, suffix, write)
    yield image("one_pixel", kind, ".png", lambda path: picture(path, plain[:1, :1]), masked("one_pixel", (1, 1)))
    yield image(
        "sliver", kind, ".png", lambda path: picture(path, np.tile(plain[:2], (1, 8, 1))), masked("sliver", (2048, 2))
    )
    for name, suffix, write in (
        ("grey_16", ".png", lambda path: picture(path, plain[..., 0].astype(np.uint16) * 257)),
        ("rgb_16", ".tif", lambda path: striped(path, plain.astype(np.uint16) * 257, photometric="rgb")),
        ("rgb_float", ".tif", lambda path: striped(path, plain.astype(np.float32) / 255, photometric="rgb")),
        ("grey_float", ".tif", lambda path: striped(path, plain[..., 0].astype(np.float32) / 255)),
        ("grey_int32", ".tif", lambda path: striped(path, plain[..., 0].astype(np.int32) * 65_537)),
        ("zstd", ".tif", lambda path: striped(path, plain, compression="zstd", photometric="rgb")),
    ):
        right = either(listed(name, "8.bit|convert|type|read"), _not_flat(name))
        yield image(name, kind, suffix, write, right)
    packed = io.BytesIO()
    Image.fromarray(plain).save(packed, "JPEG")
    for name, suffix, write in (
        ("empty", ".png", lambda path: path.write_bytes(b"")),
        ("text", ".png", lambda path: path.write_bytes(b"no image")),
        ("cut", ".jpg", lambda path: path.write_bytes(packed.getvalue()[:900])),
        ("cut_png", ".png", lambda path: _cut(path, plain)),
        ("html", ".jpg", lambda path: path.write_bytes(b"<!DOCTYPE html>")),
        ("bomb", ".png", _bomb),
        ("random", ".tif", lambda path: path.write_bytes(np.random.default_rng(0).bytes(4000))),
        ("header", ".bmp", lambda path: path.write_bytes(b"BM" + bytes(60))),
    ):
        yield image(name, "damaged images", suffix, write, listed(name, "image|read|large"))


def _not_flat(name: str) -> Check:
    """Read with its contrast kept: deep pixels cut off at 255 are one white area."""

    def check(result: Result) -> list[str]:
        complaints = masked(name)(result)
        if complaints:
            return complaints
        with Image.open(result.out / "maps" / f"{name}.png") as image:
            spread = float(np.asarray(image).std())
        with Image.open(result.out / "maps" / "good.png") as image:
            expected = float(np.asarray(image).std())
        return (
            []
            if spread > expected / 3
            else [f"its map is flat ({spread:.2f}, of the 8-bit image {expected:.2f}): pixels were cut off"]
        )

    return check


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _cut(path: Path, pixels: np.ndarray) -> None:
    picture(path, pixels)
    os.truncate(path, path.stat().st_size // 2)


def _bomb(path: Path) -> None:
    from tests.campaign.inputs.damaged_slides import png_bomb

    path.write_bytes(png_bomb(30_000))
