"""What counts as tissue: glass, stain, ink, edges."""

from collections.abc import Iterator

import numpy as np

from tests.campaign.cases import Case
from tests.campaign.checks import done, either, everything, listed, warned
from tests.campaign.inputs.pictures import GLASS, TILES, picture, tissue
from tests.campaign.inputs.slides import slide


def cases() -> Iterator[Case]:
    """What counts as tissue: glass, stain, ink, edges; a tile covers 64 um."""
    kind = "tissue"
    for name, glass in (
        ("yellow", (238, 224, 178)),
        ("strong_yellow", (235, 221, 150)),
        ("grey", (188, 188, 190)),
        ("dark_grey", (120, 120, 122)),
        ("bluish", (214, 226, 246)),
        ("pinkish", (248, 228, 236)),
    ):
        name = f"glass_{name}"
        yield slide(
            name,
            kind,
            f"{name}.png",
            lambda path, glass=glass: picture(path, tissue(glass=glass)),
            either(done(name, tiles=TILES), warned(f"{name}.*(tissue|glass)")),
            mpp=1.0,
        )
    for name, share in (("half", 0.5), ("quarter", 0.25), ("fifteen_percent", 0.15)):
        name = f"faded_{name}"
        stain = tuple(round(g + share * (s - g)) for g, s in zip(GLASS, (190, 120, 175), strict=True))
        yield slide(
            name,
            kind,
            f"{name}.png",
            lambda path, stain=stain: picture(path, tissue(stain=stain, noise=2)),
            either(done(name, tiles=TILES), warned(f"{name}.*tissue")),
            mpp=1.0,
        )
    for name, stain in (
        ("dab", (110, 70, 45)),
        ("dark_haematoxylin", (62, 52, 110)),
        ("pale_eosin", (240, 205, 220)),
        ("strong_eosin", (215, 80, 130)),
        ("very_dark_haematoxylin", (45, 40, 85)),
    ):
        yield slide(
            name,
            kind,
            f"{name}.png",
            lambda path, stain=stain: picture(path, tissue(stain=stain)),
            either(done(name, tiles=TILES), warned(f"{name}.*tissue")),
            mpp=1.0,
        )
    for colour, rgb in (
        ("black", (15, 15, 15)),
        ("green", (30, 140, 60)),
        ("blue", (40, 60, 190)),
        ("red", (205, 20, 25)),
    ):
        for side in (48, 64, 80):
            name = f"spot_{colour}_{side}"
            yield slide(
                name,
                "ink and dark spots",
                f"{name}.png",
                lambda path, rgb=rgb, side=side: picture(path, _spotted(rgb, side)),
                done(name, tiles=TILES - 1),
                mpp=1.0,
            )
    for side in (48, 80):
        name = f"lumen_{side}"
        yield slide(
            name,
            kind,
            f"{name}.png",
            lambda path, side=side: picture(path, _spotted(GLASS, side)),
            done(name, tiles=TILES),
            mpp=1.0,
        )
    for colour, rgb in (
        ("green", (30, 140, 60)),
        ("purple", (110, 40, 160)),
        ("faint_blue", (170, 190, 240)),
        ("black", (20, 20, 20)),
    ):
        name = f"pen_{colour}"
        yield slide(
            name,
            "ink and dark spots",
            f"{name}.png",
            lambda path, rgb=rgb: picture(path, _penned(rgb)),
            either(done(name, tiles=TILES), warned(f"{name}.*(ink|pen|tissue)")),
            mpp=1.0,
        )
    for width in (1001, 1009, 1017):
        name = f"edge_{width}"
        share = (width - 960) / 64
        yield slide(
            name,
            "tissue at edges",
            f"{name}.png",
            lambda path, width=width: picture(path, tissue(size=(width, 1024), box=(0, 0, width, 1024))),
            done(name, tiles=256, edge=share),
            mpp=1.0,
        )
    for name, size, tiles in (("smaller_than_tile", (40, 40), 1), ("sliver", (2000, 30), 31), ("one_pixel", (1, 1), 1)):
        none = everything(done(name, tiles=0), warned(name, "smaller than"))
        yield slide(
            name,
            "small slides",
            f"{name}.png",
            lambda path, size=size: picture(path, tissue(size=size, box=(0, 0, *size))),
            either(done(name, tiles=tiles), none, listed(name, "smaller than")),
            mpp=1.0,
        )
    yield slide(
        "one_tile",
        "small slides",
        "one_tile.png",
        lambda path: picture(path, tissue(size=(128, 128), box=(0, 0, 128, 128))),
        done("one_tile", tiles=4, first=(0, 0)),
        mpp=1.0,
    )
    for name, colour in (("all_white", (255, 255, 255)), ("all_black", (0, 0, 0)), ("all_grey", (200, 200, 200))):
        yield slide(
            name,
            kind,
            f"{name}.png",
            lambda path, colour=colour: picture(path, tissue(glass=colour, box=(0, 0, 0, 0))),
            everything(done(name, tiles=0), warned(name)),
            mpp=1.0,
        )


def _spotted(colour: tuple[int, int, int], side: int) -> np.ndarray:
    """Tissue with a round spot of `side` um in the middle of one tile."""
    pixels = tissue()
    rows, columns = np.ogrid[:1024, :1024]
    pixels[(rows - 480) ** 2 + (columns - 480) ** 2 <= (side / 2) ** 2] = colour
    return pixels


def _penned(colour: tuple[int, int, int]) -> np.ndarray:
    """A pen's stroke of 60 um on the glass beside the tissue."""
    pixels = tissue()
    pixels[100:160, 100:900] = colour
    return pixels
