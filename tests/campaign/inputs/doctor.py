"""`doctor features=FOLDER`: it says what it looked at, and ok only of that."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign.cases import Case, Check
from tests.campaign.checks import everything, exits, says, says_not
from tests.campaign.inputs.features import COUNT, FEATURES, TRIDENT, hdf5

SETTINGS = ("data_sets=false", "features=in")


def cases() -> Iterator[Case]:
    """Three good files and an odd one; folders of one kind of file, and of none."""
    nan = FEATURES.copy()
    nan[3] = np.nan
    wide = np.ones((COUNT, 12), np.float32)
    for name, write in (
        ("damaged.h5", _text),
        ("damaged.npy", _text),
        ("damaged.pt", _text),
        ("zero.h5", lambda path: path.write_bytes(b"")),
        ("nan.h5", hdf5(nan)),
        ("nan.npy", lambda path: np.save(path, nan)),
        ("no_rows.h5", hdf5(FEATURES[:0], None)),
        ("axes.h5", hdf5(FEATURES[None, None])),
        ("width.h5", hdf5(wide)),
        ("width.npy", lambda path: np.save(path, wide)),
        ("complex.h5", hdf5(FEATURES.astype(complex))),
        ("magnification.h5", hdf5(attributes=TRIDENT | {"target_magnification": 10})),
        ("coords.h5", hdf5(coords=np.full((COUNT, 2), np.nan), attributes=TRIDENT)),
        ("nothing.h5", hdf5(None, None)),
        ("CAPITALS.H5", hdf5(nan)),
    ):
        yield _case(f"doctor_{name}", {name: write}, everything(exits(1), says(name.replace(".", r"\."))))
    yield _case("doctor_good", {}, everything(exits(0), says("3 files")))
    pair = {f"{encoder}.h5": hdf5(None, None, feats=FEATURES, _extractor=encoder) for encoder in ("uni", "gigapath")}
    yield _case("doctor_pair_differs", pair, everything(exits(1), says("uni", "gigapath")))
    yield _case("doctor_empty_folder", {}, exits(1), good=0)
    yield Case(
        "doctor_empty_set",
        "doctor: data sets",
        lambda folder: (folder / "camelyon16").mkdir(),
        says_not("ok . data set . camelyon16: "),
        command="doctor",
        settings=("paths.data_dir=in",),
    )


def _case(name: str, odd: dict[str, Callable[[Path], Any]], check: Check, good: int = 3) -> Case:
    def write(folder: Path) -> None:
        for number in range(good):
            hdf5(attributes=TRIDENT)(folder / f"a{number}.h5")
        for file, put in odd.items():
            put(folder / file)

    return Case(name, "doctor: feature files", write, check, command="doctor", settings=SETTINGS)


def _text(path: Path) -> None:
    path.write_bytes(b"x" * 100)
