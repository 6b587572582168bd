"""The same output folder again, its inputs or its files changed meanwhile."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py

from tests.campaign.cases import Case
from tests.campaign.checks import done, either, everything, listed, refused
from tests.campaign.inputs.lists import LIST, extract
from tests.campaign.inputs.pictures import TILES, TILING, aperio, good, picture, tissue


def cases() -> Iterator[Case]:
    """The same output folder again, its inputs or its files changed meanwhile."""
    kind = "another slide of the same id"
    settings = ("slides=in", "out=out", *TILING)
    again = (("extract", *settings),)

    def first(folder: Path) -> None:
        good(folder / "a.svs")
        good(folder / "b.svs")

    def other(folder: Path) -> None:
        aperio(folder / "a.svs", tissue(box=(256, 256, 512, 512)), "AppMag = 10|MPP = 1.0", levels=1)

    redone = either(done("a", tiles=16), refused("a|slide"), listed("a", "slide"))
    yield extract("replaced_slide", kind, first, redone, *settings, before=again, between=other)

    def keep_time(folder: Path) -> None:
        status = (folder / "a.svs").stat()
        other(folder)
        os.utime(folder / "a.svs", ns=(status.st_atime_ns, status.st_mtime_ns))

    yield extract("replaced_slide_old_time", kind, first, redone, *settings, before=again, between=keep_time)
    yield extract(
        "other_folder",
        kind,
        lambda folder: (
            (folder / "one").mkdir(),
            (folder / "two").mkdir(),
            good(folder / "one" / "a.svs"),
            aperio(folder / "two" / "a.svs", tissue(box=(256, 256, 512, 512)), "AppMag = 10|MPP = 1.0", levels=1),
        ),
        redone,
        "slides=in/two",
        "out=out",
        *TILING,
        before=(("extract", "slides=in/one", "out=out", *TILING),),
    )
    yield extract(
        "moved_slide",
        kind,
        lambda folder: ((folder / "one").mkdir(), good(folder / "one" / "a.svs")),
        done("a", tiles=TILES),
        "slides=in/two",
        "out=out",
        *TILING,
        before=(("extract", "slides=in/one", "out=out", *TILING),),
        between=lambda folder: (folder / "one").rename(folder / "two"),
    )
    yield extract(
        "other_pixels_same_size",
        kind,
        lambda folder: (
            picture(folder / "a.bmp.png", tissue())
            or (folder / "list.csv").write_text("slide_path,slide_id,mpp\na.bmp.png,a,1\n")
        ),
        either(done("a", tiles=16), refused("a"), listed("a", "slide")),
        *LIST,
        before=(("extract", *LIST),),
        between=lambda folder: picture(folder / "a.bmp.png", tissue(box=(256, 256, 512, 512))),
    )
    kind = "stores that were touched"

    def damage(change: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda folder: change(folder.parent / "out")

    file = Path("patches/a_patches.h5")
    for name, change in (
        ("cut", lambda out: os.truncate(out / file, 1000)),
        ("emptied", lambda out: os.truncate(out / file, 0)),
        ("removed", lambda out: (out / file).unlink()),
        ("text", lambda out: (out / file).write_text("x")),
        ("no_coords", lambda out: _without(out / file, "coords")),
        ("no_attributes", lambda out: _without_attributes(out / file)),
        ("no_annotation", lambda out: _without_attributes(out / file, "kd_mil_annotation")),
        ("attribute_no_json", lambda out: _with_attribute(out / file, "kd_mil_tiling", "{")),
        ("attribute_number", lambda out: _with_attribute(out / file, "kd_mil_tiling", 5)),
        ("attribute_list", lambda out: _with_attribute(out / file, "kd_mil_tiling", "[1]")),
        ("parts_left", lambda out: (out / "patches" / ".a_patches.h5.0123abcd.part").write_text("x")),
        ("claim_text", lambda out: _claim(out, "x")),
        ("claim_empty", lambda out: _claim(out, "")),
        ("claim_number", lambda out: _claim(out, "5")),
        (
            "claim_dead",
            lambda out: _claim(out, json.dumps({"host": socket.gethostname(), "pid": 2**22 - 3, "token": "x"})),
        ),
        ("claim_no_pid", lambda out: _claim(out, json.dumps({"host": socket.gethostname()}))),
        (
            "claim_pid_text",
            lambda out: _claim(out, json.dumps({"host": socket.gethostname(), "pid": "x"})),
        ),
        ("summary_cut", lambda out: (out / "summary.csv").write_text("slide_id")),
        ("manifest_removed", lambda out: (out / "manifest.csv").unlink()),
        ("is_folder", lambda out: ((out / file).unlink(), (out / file).mkdir())),
    ):
        check = done("a", tiles=TILES)
        if name in ("is_folder", "no_attributes", "attribute_number", "attribute_list", "attribute_no_json"):
            check = either(check, refused("a_patches"), listed("a", "."))
        yield extract(
            f"store_{name}",
            kind,
            first,
            everything(check, either(done("b", tiles=TILES), refused("a_patches"))),
            *settings,
            before=again,
            between=damage(change),
        )
    for name, change in (
        ("cut", lambda out: (out / "settings.json").write_text("{")),
        ("list", lambda out: (out / "settings.json").write_text("[]")),
        ("empty", lambda out: (out / "settings.json").write_text("")),
        ("folder", lambda out: ((out / "settings.json").unlink(), (out / "settings.json").mkdir())),
    ):
        yield extract(
            f"settings_{name}",
            kind,
            first,
            either(refused("settings.json"), done("a", tiles=TILES)),
            *settings,
            before=again,
            between=damage(change),
        )
    for name, changed in (("tiling", "tiling.tile_size=32"), ("tissue", "tissue.mpp=4"), ("mpp", "mpp=0.5")):
        yield extract(
            f"changed_{name}",
            kind,
            first,
            either(
                refused(name, "out="), everything(done("a", tiles=TILES), done("b")) if name == "mpp" else refused(name)
            ),
            *settings,
            changed,
            before=again,
        )


def _without(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]


def _without_attributes(path: Path, *names: str) -> None:
    with h5py.File(path, "r+") as file:
        for name in names or list(file.attrs):
            del file.attrs[name]


def _with_attribute(path: Path, name: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value


def _claim(out: Path, text: str) -> None:
    """A claim on slide `a`, left behind long ago, whose file is still to be made."""
    (out / ".claims").mkdir()
    claim = out / ".claims" / "a.claim"
    claim.write_text(text)
    os.utime(claim, (1_000_000, 1_000_000))
    (out / "patches" / "a_patches.h5").unlink()
