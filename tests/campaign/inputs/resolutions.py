"""Where a slide says how large its pixels are, and where it does not."""

from collections.abc import Iterator

import tifffile

from tests.campaign.cases import Case
from tests.campaign.checks import done, either, everything, listed, warned
from tests.campaign.inputs.pictures import TILES, aperio, picture, striped, tiled, tissue
from tests.campaign.inputs.slides import NO_RESOLUTION, slide


def cases() -> Iterator[Case]:
    """Where a slide says how large its pixels are."""
    kind = "resolution in tags"
    half, whole = tissue(0.5), tissue(1.0)
    for name, facts, mpp in (
        ("aperio_both", "AppMag = 20|MPP = 0.5000", 0.5),
        ("aperio_power_only", "AppMag = 20", 0.5),
        ("aperio_decimal_comma", "AppMag = 20|MPP = 0,5", 0.5),
        ("aperio_mpp_first", "MPP = 0.5|AppMag = 20", 0.5),
    ):
        yield slide(
            name,
            kind,
            f"{name}.svs",
            lambda path, facts=facts: aperio(path, half, facts),
            done(name, tiles=TILES, mpp=mpp, side=128),
        )
    for name, facts in (("zero", "0"), ("negative", "-0.5"), ("nan", "nan"), ("infinite", "inf"), ("words", "n/a")):
        name = f"aperio_mpp_{name}"
        check = either(done(name, tiles=TILES, mpp=0.5), listed(name, *NO_RESOLUTION))
        yield slide(
            name,
            "resolution that is none",
            f"{name}.svs",
            lambda path, facts=facts: aperio(path, half, f"AppMag = 20|MPP = {facts}"),
            check,
        )
    for name, facts in (("tiny", "MPP = 0.0000005"), ("huge", "MPP = 500000")):
        name = f"aperio_mpp_{name}"
        yield slide(
            name,
            "resolution that is none",
            f"{name}.svs",
            lambda path, facts=facts: aperio(path, half, facts),
            listed(name, "resolution", "mpp"),
        )
    yield slide(
        "aperio_contradiction",
        "resolution that is none",
        "contradiction.svs",
        lambda path: aperio(path, half, "AppMag = 40|MPP = 0.5"),
        everything(done("aperio_contradiction", tiles=TILES, mpp=0.5), warned("aperio_contradiction|contradiction")),
    )
    for unit in ("centimeter", "inch"):
        for order in "<>":
            name = f"strips_{unit}_{'little' if order == '<' else 'big'}"
            yield slide(
                name,
                kind,
                f"{name}.tif",
                lambda path, unit=unit, order=order: striped(path, half, 0.5, unit, byteorder=order),
                done(name, tiles=TILES, mpp=0.5),
            )
    yield slide(
        "strips_lzw",
        kind,
        "strips_lzw.tiff",
        lambda path: striped(path, half, 0.5, compression="lzw"),
        done("strips_lzw", tiles=TILES, mpp=0.5),
    )
    yield slide(
        "strips_screen",
        "resolution that is none",
        "strips_screen.tif",
        lambda path: striped(path, whole, 25_400 / 72, "inch"),
        listed("strips_screen", *NO_RESOLUTION),
    )
    yield slide(
        "strips_no_unit",
        "resolution that is none",
        "strips_no_unit.tif",
        lambda path: striped(path, whole, resolution=(1, 1), resolutionunit="none"),
        listed("strips_no_unit", *NO_RESOLUTION),
    )
    yield slide(
        "strips_oblong",
        "resolution that is none",
        "strips_oblong.tif",
        lambda path: striped(path, whole, resolution=(10_000, 20_000), resolutionunit="centimeter"),
        listed("strips_oblong", "square|x and y|mpp", "mpp"),
    )
    yield slide(
        "strips_given",
        kind,
        "strips_given.tif",
        lambda path: striped(path, whole, 25_400 / 72, "inch"),
        done("strips_given", tiles=TILES, mpp=1.0),
        mpp=1.0,
    )
    for order in "<>":
        name = f"generic_tiled_{'little' if order == '<' else 'big'}"
        yield slide(
            name,
            kind,
            f"{name}.tif",
            lambda path, order=order: tiled(
                path, half, 2, resolution=(20_000, 20_000), resolutionunit=3, byteorder=order
            ),
            done(name, tiles=TILES, mpp=0.5),
        )
    yield slide(
        "imagej",
        kind,
        "imagej.tif",
        lambda path: tifffile.imwrite(path, half, imagej=True, resolution=(2.0, 2.0), metadata={"unit": "micron"}),
        either(done("imagej", tiles=TILES, mpp=0.5), listed("imagej", *NO_RESOLUTION)),
    )
    yield slide(
        "png_phys",
        kind,
        "png_phys.png",
        lambda path: picture(path, half, dpi=(50_800, 50_800)),
        either(done("png_phys", tiles=TILES, mpp=0.5), listed("png_phys", *NO_RESOLUTION)),
    )
    yield slide(
        "png_silent",
        "resolution that is none",
        "png_silent.png",
        lambda path: picture(path, whole),
        listed("png_silent", *NO_RESOLUTION),
    )
    yield slide(
        "jpeg_screen",
        "resolution that is none",
        "jpeg_screen.jpg",
        lambda path: picture(path, whole, dpi=(72, 72)),
        listed("jpeg_screen", *NO_RESOLUTION),
    )
