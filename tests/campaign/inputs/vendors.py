"""Slides of scanners whose formats no library writes: Leica's SCN with bounds, Hamamatsu's NDPI."""

import io
import struct
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tests.campaign.inputs.pictures import tissue

LEICA_CORNER = (1536, 1024)
"""(x, y) of the scanned area of `leica`, level-0 pixels of 0.5 um."""
DEVICE = (
    '<creationDate>2020-01-01T00:00:00.0Z</creationDate><device model="Leica SCN400" version="1.5"/>'
    "<pixels {pixels}>{dimensions}</pixels><view {view} spacingZ='0'/><scanSettings><objectiveSettings>"
    "<objective>{power}</objective></objectiveSettings><illuminationSettings><numericalAperture>0.4</numericalAperture>"
    "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>"
)


def leica(path: Path) -> None:
    """A slide of 4096 x 6144 pixels of 0.5 um whose scanned area, `pictures.tissue`, lies at `LEICA_CORNER`."""
    pixels = tissue(0.5)
    levels = [pixels, pixels[::4, ::4]]
    macro = np.full((768, 512, 3), 240, np.uint8)
    sizes = [
        f'<dimension sizeX="{one.shape[1]}" sizeY="{one.shape[0]}" r="{r}" ifd="{r + 1}"/>'
        for r, one in enumerate(levels)
    ]
    images = (
        DEVICE.format(
            pixels='sizeX="512" sizeY="768"',
            dimensions='<dimension sizeX="512" sizeY="768" r="0" ifd="0"/>',
            view='sizeX="2048000" sizeY="3072000" offsetX="0" offsetY="0"',
            power=0.6,
        ),
        DEVICE.format(
            pixels='sizeX="2048" sizeY="2048"',
            dimensions="".join(sizes),
            power=20,
            view='sizeX="1024000" sizeY="1024000" offsetX="768000" offsetY="512000"',
        ),
    )
    text = "".join(f'<image name="i{number}" uuid="i{number}">{one}</image>' for number, one in enumerate(images))
    scn = (
        '<?xml version="1.0" encoding="utf-8"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" uuid="u" sizeX="2048000" sizeY="3072000"><barcode>MQ==</barcode>{text}'
        "</collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, one in enumerate([macro, *levels]):
            file.write(
                one,
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                metadata=None,
                description=scn if number == 0 else None,
                software="Leica Microsystems",
                resolution=(20_000, 20_000),
                resolutionunit=3,
            )


def ndpi(path: Path, pixels: np.ndarray, mpp: float = 0.5) -> None:
    """One level in one strip of JPEG, with Hamamatsu's tags and offsets of eight bytes."""
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG", quality=95, subsampling=0)
    data, start = packed.getvalue(), 512
    rational = start + len(data)
    per_cm = struct.pack("<II", round(10_000 / mpp), 1)
    model = b"C9600-12\0"
    height, width = pixels.shape[:2]
    lens = struct.unpack("<I", struct.pack("<f", 20.0))[0]
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 7),
        (262, 3, 1, 6),
        (271, 2, 10, rational + 32),
        (272, 2, len(model), rational + 16),
        (273, 4, 1, start),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (282, 5, 1, rational),
        (283, 5, 1, rational),
        (296, 3, 1, 3),
        (65420, 4, 1, 1),
        (65421, 11, 1, lens),
        (65422, 9, 1, 0),
        (65423, 9, 1, 0),
        (65424, 9, 1, 0),
    ]
    head = b"II*\0" + struct.pack("<Q", 12) + struct.pack("<H", len(tags))
    head += b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<Q", 0)
    tail = per_cm.ljust(16, b"\0") + model.ljust(16, b"\0") + b"Hamamatsu\0"
    path.write_bytes(head.ljust(start, b"\0") + data + tail)
