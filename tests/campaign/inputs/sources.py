"""What `slides=`, `out=` and the settings of `extract` may be."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.campaign.cases import Case, Result
from tests.campaign.checks import done, everything, exits, refused
from tests.campaign.inputs.dicom import write_dicom
from tests.campaign.inputs.lists import extract
from tests.campaign.inputs.pictures import TILES, TILING, good, picture, tissue

COMMON = ("out=out", *TILING)
NO_SETTINGS = (
    *("tiling.tile_size=0", "tiling.tile_size=-64", "tiling.mpp=0", "tiling.mpp=nan", "tiling.min_tissue=2"),
    *("tiling.overlap=64", "tissue.mpp=0", "tissue.mpp=nan", "mpp=0", "mpp=-1", "mpp=nan", "mpp=inf", "mpp=fine"),
    *("batch_size=0", "num_workers=-1", "on_error=never", "backend=none"),
)


def cases() -> Iterator[Case]:
    """Folders with odd things in them, patterns, outputs that cannot be written, settings that are none."""
    kind = "sources and outputs"
    both = everything(done("a", tiles=TILES), done("b", tiles=TILES), exits(0))
    yield extract("empty_folder", kind, _beside(slides=0), refused("no slides"), "slides=in", *COMMON)
    yield extract("no_such_folder", kind, _beside(), refused("no slides|exist"), "slides=in/nowhere", *COMMON)
    yield extract("pattern", kind, _beside(), both, "slides='in/*.svs'", *COMMON)
    yield extract("same_stem", kind, _beside(_second_a), refused("'a'"), "slides=in", *COMMON)
    for name, put in (
        ("resource_fork", lambda folder: (folder / "._a.svs").write_bytes(b"\0\5\x16\7")),
        ("desktop_file", lambda folder: (folder / ".DS_Store").touch()),
        ("link_loop", lambda folder: (folder / "loop.svs").symlink_to("loop.svs")),
        ("dangling_link", lambda folder: (folder / "dangling.svs").symlink_to("nowhere")),
        ("pipe", lambda folder: os.mkfifo(folder / "pipe.svs")),
        ("folder_named_svs", lambda folder: (folder / "folder.svs").mkdir()),
    ):
        yield extract(name, kind, _beside(put), both, "slides=in", *COMMON)
    for name, out in (("out_is_file", "in/file"), ("out_below_file", "in/file/x")):
        write = _beside(lambda folder: (folder / "file").touch())
        yield extract(name, kind, write, refused("out="), "slides=in", f"out={out}", *TILING)
    one = everything(_one_dicom, exits(0))
    yield extract("dicom_folder", "DICOM", _series, one, "slides=in", *COMMON)
    yield extract("dicom_pattern", "DICOM", _series, one, "slides='in/**/*.dcm'", *COMMON)
    for setting in NO_SETTINGS:
        check = refused(setting.split("=")[0])
        yield extract(f"setting_{setting}", "settings", _beside(), check, "slides=in", *COMMON, setting)


def _beside(put: Callable[[Path], Any] | None = None, slides: int = 2) -> Callable[[Path], None]:
    """Good slides, and something odd beside them."""

    def write(folder: Path) -> None:
        for name in "ab"[:slides]:
            good(folder / f"{name}.svs")
        if put is not None:
            put(folder)

    return write


def _second_a(folder: Path) -> None:
    picture(folder / "a.png", tissue())


def _series(folder: Path) -> None:
    """One slide as a scanner leaves it: a folder with a file for each level."""
    pixels = tissue(0.5)
    for level in (1, 2, 4):
        file = folder / "series" / f"level{level}.dcm"
        write_dicom(file, pixels[::level, ::level], 0.5, series="slide", level=level)


def _one_dicom(result: Result) -> list[str]:
    rows = [row for row in result.rows() if row[""] == "summary.csv"]
    if len(rows) != 1:
        return [f"{len(rows)} slides, not 1: {result.last_line}"]
    return done(rows[0]["slide_id"], tiles=TILES, mpp=0.5)(result)
