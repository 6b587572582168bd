"""Label images in every type they are saved in."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from tests.campaign.cases import Case
from tests.campaign.checks import done, either, listed
from tests.campaign.inputs.annotations import RIGHT, annotation
from tests.campaign.inputs.pictures import picture, striped, tiled


def cases() -> Iterator[Case]:
    """Label images in every type they are saved in."""
    kind = "label masks"
    labels = np.zeros((1024, 1024), np.uint8)
    labels[256:512, 256:512] = 1
    objects = np.zeros((1024, 1024), np.uint16)  # 16 x 16 = 256 objects of 16 pixels side by side
    blocks = np.arange(256, dtype=np.uint16).reshape(16, 16) + 1
    objects[256:512, 256:512] = np.kron(blocks, np.ones((16, 16), np.uint16))
    variants: tuple[tuple[str, str, Callable[[Path], Any]], ...] = (
        ("mask_0_1", ".png", lambda path: picture(path, labels)),
        ("mask_0_255", ".png", lambda path: picture(path, labels * 255)),
        ("mask_bits", ".png", lambda path: Image.fromarray(labels > 0).save(path)),
        ("mask_palette", ".png", lambda path: _palette(path, labels)),
        ("mask_256_objects", ".png", lambda path: picture(path, objects)),
        ("mask_256_objects_tiff", ".tif", lambda path: striped(path, objects)),
        ("mask_200_objects", ".png", lambda path: picture(path, (objects % 200 + (objects > 0)).astype(np.uint8))),
        ("mask_big_endian", ".tif", lambda path: striped(path, objects, byteorder=">")),
        ("mask_int32", ".tif", lambda path: striped(path, objects.astype(np.int32))),
        ("mask_half_size", ".png", lambda path: picture(path, labels[::2, ::2])),
        ("mask_16th", ".png", lambda path: picture(path, labels[::16, ::16])),
        ("mask_pyramid", ".tif", lambda path: _mask_pyramid(path, labels * 255)),
        ("mask_pyramid_reversed", ".tif", lambda path: _mask_pyramid(path, labels * 255, -1)),
        ("mask_tiled", ".tif", lambda path: tiled(path, labels * 255, photometric="minisblack")),
        ("mask_lzw", ".tif", lambda path: striped(path, labels, compression="lzw")),
    )
    for name, suffix, write in variants:
        yield annotation(name, kind, write, suffix=suffix)
    rgb = np.repeat(labels[..., None] * 255, 3, axis=2)
    soft = np.asarray(
        Image.fromarray(labels * 255)
        .resize((256, 256), Image.Resampling.BOX)
        .resize((1024, 1024), Image.Resampling.BICUBIC)
    )
    for name, suffix, write, words in (
        ("mask_rgb", ".png", lambda path: picture(path, rgb), "channel"),
        ("mask_rgba", ".png", lambda path: picture(path, np.dstack([rgb, rgb[..., 0] | 255])), "channel"),
        (
            "mask_grey_alpha",
            ".png",
            lambda path: Image.fromarray(np.dstack([labels, np.full_like(labels, 255)]), "LA").save(path),
            "channel",
        ),
        ("mask_float", ".tif", lambda path: striped(path, labels.astype(np.float32)), "integer|float"),
        (
            "mask_float_big_endian",
            ".tif",
            lambda path: striped(path, labels.astype(np.float32), byteorder=">"),
            "integer|float",
        ),
        ("mask_jpeg", ".jpg", lambda path: picture(path, labels * 255, quality=60), "jpeg|grey|png|lossless"),
        ("mask_grey_rims", ".png", lambda path: picture(path, soft), "grey|values"),
    ):
        yield annotation(name, kind, write, either(done(name, tumour=RIGHT), listed(name, words)), suffix)
    for name, suffix, content in (
        ("mask_transposed", ".png", lambda path: picture(path, labels[:512])),
        ("mask_cut", ".png", lambda path: path.write_bytes(_png(labels)[:200])),
        ("mask_empty_file", ".png", b""),
        ("mask_text", ".tif", b"no picture"),
        ("mask_nan", ".tif", lambda path: striped(path, np.where(labels > 0, np.nan, 0).astype(np.float32))),
        ("mask_negative", ".tif", lambda path: striped(path, labels.astype(np.int16) - 1)),
        ("mask_npy", ".npy", lambda path: np.save(path, labels)),
    ):
        check = listed(name, "mask|annotation|image")
        if name == "mask_negative":
            check = either(check, done(name, tumour=0.0))
        yield annotation(name, kind, content, check, suffix)
    yield annotation("mask_all_zero", kind, lambda path: picture(path, labels * 0), suffix=".png", tumour=0.0)


def _png(labels: np.ndarray) -> bytes:
    import io

    packed = io.BytesIO()
    Image.fromarray(labels).save(packed, "PNG")
    return packed.getvalue()


def _palette(path: Path, labels: np.ndarray) -> None:
    image = Image.fromarray(labels, "P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(path)


def _mask_pyramid(path: Path, labels: np.ndarray, order: int = 1) -> None:
    levels = [labels, labels[::2, ::2], labels[::4, ::4]][::order]
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(level, tile=(256, 256), photometric="minisblack", metadata=None, subfiletype=int(number > 0))
