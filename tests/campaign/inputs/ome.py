"""OME-TIFF: the resolution stands in its XML, the pyramid in sub-IFDs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tests.campaign.cases import Case
from tests.campaign.checks import done, either, listed
from tests.campaign.inputs.pictures import TILES, tissue
from tests.campaign.inputs.slides import NO_RESOLUTION, slide


def cases() -> Iterator[Case]:
    """OME-TIFF: the resolution stands in its XML, the pyramid in sub-IFDs."""
    kind, half = "OME-TIFF", tissue(0.5)

    def write(
        path: Path,
        size: float | None = 0.5,
        unit: str | None = "µm",
        subs: int = 0,
        tile: int | None = 256,
        **form: Any,
    ) -> None:
        facts: dict[str, Any] = {"axes": "YXS"}
        for axis in "XY" if size is not None else "":
            facts |= {f"PhysicalSize{axis}": size} | ({f"PhysicalSize{axis}Unit": unit} if unit else {})
        common = {"photometric": "rgb", "compression": "deflate"} | ({"tile": (tile, tile)} if tile else {})
        with tifffile.TiffWriter(path, ome=True, **form) as file:
            file.write(half, subifds=subs, metadata=facts, **common)
            for level in range(1, subs + 1):
                file.write(half[:: 2**level, :: 2**level], subfiletype=1, **common)

    variants: tuple[tuple[str, dict[str, Any]], ...] = (
        ("ome_um", {}),
        ("ome_default_unit", {"unit": None}),
        ("ome_nm", {"size": 500, "unit": "nm"}),
        ("ome_mm", {"size": 0.0005, "unit": "mm"}),
        ("ome_pyramid", {"subs": 2}),
        ("ome_strips", {"tile": None}),
        ("ome_big_endian", {"byteorder": ">"}),
        ("ome_bigtiff", {"bigtiff": True, "subs": 1}),
    )
    for name, settings in variants:
        yield slide(
            name,
            kind,
            f"{name}.ome.tif",
            lambda path, settings=settings: write(path, **settings),
            done(name, tiles=TILES, mpp=0.5),
        )
    yield slide(
        "ome_silent",
        kind,
        "ome_silent.ome.tif",
        lambda path: write(path, size=None),
        listed("ome_silent", *NO_RESOLUTION),
    )
    yield slide(
        "ome_pixels",
        kind,
        "ome_pixels.ome.tif",
        lambda path: write(path, size=1.0, unit="pixel"),
        listed("ome_pixels", *NO_RESOLUTION),
    )
    yield slide(
        "ome_planes",
        kind,
        "ome_planes.ome.tif",
        lambda path: tifffile.imwrite(
            path,
            np.moveaxis(half, -1, 0),
            ome=True,
            photometric="minisblack",
            metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        ),
        either(done("ome_planes", tiles=TILES, mpp=0.5), listed("ome_planes", "RGB|channel|plane")),
    )
    yield slide(
        "ome_fluorescence",
        kind,
        "ome_fluorescence.ome.tif",
        lambda path: tifffile.imwrite(
            path,
            np.zeros((5, 512, 512), np.uint16),
            ome=True,
            photometric="minisblack",
            metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        ),
        listed("ome_fluorescence", "8.bit|RGB|channel"),
    )
