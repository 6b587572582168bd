"""Tables and files as training reads them; `doctor data=...` reads them in the same way and trains nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.campaign.cases import Case, Check, Result, table_text
from tests.campaign.checks import either, everything, exits, says, says_not
from tests.campaign.inputs.features import COUNT, FEATURES, WIDTH, hdf5
from tests.campaign.inputs.pictures import picture, tissue

SETTINGS = ("data_sets=false", "data=feature_bags", "data.manifest=in/manifest.csv", "paths.cache_dir=out/cache")
OF_FOLDER = ("data.manifest=in", "data.labels=in/labels.csv")
RIGHT = everything(exits(0), says("train", "val"))
BAGS = 24
Row = dict[str, object]


def cases() -> Iterator[Case]:
    yield from manifests()
    yield from files()
    yield from folders()
    yield from masks()


def case(name: str, write: Callable[[Path], Any], check: Check, *settings: str) -> Case:
    return Case(f"data_{name}", "training data", write, check, command="doctor", settings=(*SETTINGS, *settings))


def error(*words: str) -> Check:
    return everything(exits(1), says(*words))


def rows(change: dict[int, Row] | None = None, **columns: list[Any]) -> list[Row]:
    """A manifest's rows, labels 0 and 1 in turn; `columns` are repeated, `change` replaces cells of single rows."""
    table: list[Row] = []
    for number in range(BAGS):
        row: Row = {"slide_id": f"b{number}", "label": number % 2, "feature_path": f"b{number}.h5"}
        row |= {key: values[number % len(values)] for key, values in columns.items()}
        table.append(row | (change or {}).get(number, {}))
    return table


def bags(table: list[Row], **odd: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Their manifest and files, some of them odd."""

    def write(folder: Path) -> None:
        for number in range(BAGS):
            features = np.random.default_rng(number).normal(size=(COUNT, WIDTH)).astype(np.float32)
            hdf5(features)(folder / f"b{number}.h5")
        for name, put in odd.items():
            put(folder / f"{name}.h5")
        (folder / "manifest.csv").write_text(table_text(table))

    return write


def manifests() -> Iterator[Case]:
    """Cells and encodings of a manifest."""
    halves = ["0.0", "1.0"]
    yield case("plain", bags(rows()), RIGHT)
    yield case("labels_float", bags(rows(label=halves)), RIGHT)
    empty = everything(error("line 6", "label"), says_not(r"classes=\[,"))
    yield case("label_empty", bags(rows({4: {"label": ""}}, label=halves)), empty)
    yield case("label_half", bags(rows({4: {"label": "0.5"}})), error("line 6"))
    parts = ["train", "val", "train", "train", "train", "test", "train", "test"]
    patients = [f"P{number}" for number in range(8)]
    yield case("case_blanks", bags(rows(case_id=["P1", "P1 ", *patients[2:]], split=parts)), error("P1"))
    yield case("case_leak", bags(rows(case_id=patients, split=parts[:5])), error("leak"))
    yield case("no_cases", bags(rows()), everything(exits(0), says_not("ok . case leakage")))
    same = rows({3: {"feature_path": "b0.h5"}}, split=["train", "train", "val", "test"])
    yield case("same_content", bags(same), error("b0", "b3"))
    folds = [0, 0, 1, 1, 2, 2]
    yield case("fold_column", bags(rows(fold=folds)), RIGHT, "data.fold=2")
    yield case("fold_missing", bags(rows(fold=folds)), error("fold"), "data.fold=7")
    yield case("fold_text", bags(rows(fold=["a"])), error("line 2", "fold"))
    floats = bags(rows(fold=[float(fold) for fold in folds]))
    yield case("fold_float", floats, either(RIGHT, error("line 2.*fold")), "data.fold=2")
    yield case("extra_column", bags(rows(scanner=["x"])), RIGHT)
    yield case("twice", bags(rows({23: {"slide_id": "b0"}})), error("b0", "twice"))
    yield case("leaves_root", bags(rows({23: {"feature_path": "../../../x.h5"}})), error("x.h5"))
    yield case("id_escape", bags(rows({23: {"slide_id": "../../x"}})), error("line 25|id"))
    for name, change, words in (
        ("semicolons", lambda text: text.replace(",", ";").encode(), "comma|semicolon|separat"),
        ("utf16", lambda text: text.encode("utf-16"), "UTF-8"),
    ):
        yield case(name, _rewritten(change), either(RIGHT, error("manifest.csv", words)))


def files() -> Iterator[Case]:
    """Feature files that training must not take."""
    for name, write, word in (
        ("labels_seven", hdf5(patch_labels=np.full(COUNT, 7)), "label"),
        ("labels_minus_two", hdf5(patch_labels=np.full(COUNT, -2)), "label"),
        ("coords_nan", hdf5(coords=np.full((COUNT, 2), np.nan)), "coord"),
        ("coords_negative", hdf5(coords=np.full((COUNT, 2), -5)), "coord"),
        ("features_complex", hdf5(FEATURES.astype(complex)), "b1"),
        ("features_nan", hdf5(FEATURES * np.nan), "nan"),
        ("rows_10_10", _declared, "b1"),
        ("external", _external, "external"),
    ):
        yield case(name, bags(rows(), b1=write), error("b1", word))
    positive = hdf5(patch_labels=np.ones(COUNT, np.int64))
    yield case("positive_in_negative", bags(rows(), b0=positive), error("b0"))


def folders() -> Iterator[Case]:
    """A folder of features with a table of labels: only known suffixes may be cut off an id."""
    known = [{"slide_id": f"b{number}.svs", "label": number % 2} for number in range(BAGS)]
    yield case("folder_suffixes", _labelled(known), RIGHT, *OF_FOLDER)
    plain = [{"slide_id": f"b{number}", "label": number % 2} for number in range(BAGS - 1)]
    yield case("folder_dots", _labelled([*plain, {"slide_id": "b23.3", "label": 1}]), error("b23.3"), *OF_FOLDER)


def masks() -> Iterator[Case]:
    """Masks of training images: the same values mean the same as in annotations."""
    for name, top in (("200_objects", 200), ("100_objects", 100), ("two_values", 255)):
        yield Case(
            f"masks_{name}",
            "training masks",
            lambda folder, top=top: _image_and_mask(folder, top),
            _mask_share(0.25),
            command="segment",
            settings=("ckpt=@masks", "images=in/images", "out=out", "device=cpu"),
        )


def _rewritten(change: Callable[[str], bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        bags(rows())(folder)
        path = folder / "manifest.csv"
        path.write_bytes(change(path.read_text()))

    return write


def _labelled(table: list[Row]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        bags(rows())(folder)
        (folder / "manifest.csv").unlink()
        (folder / "labels.csv").write_text(table_text(table))

    return write


def _declared(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (10**10, WIDTH), "f4")


def _external(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (COUNT, WIDTH), "u1", external=[("/etc/passwd", 0, COUNT * WIDTH)])


def _image_and_mask(folder: Path, top: int) -> None:
    """An image, and a mask of a quarter of it, whose 64 objects are numbered up to `top`."""
    (folder / "images").mkdir()
    picture(folder / "images" / "i.png", tissue(size=(64, 64), box=(0, 0, 64, 64)))
    labels = np.zeros((64, 64), np.uint8)
    numbers = np.linspace(1 if top < 255 else 255, top, 64).astype(np.uint8).reshape(8, 8)
    labels[:32, :32] = np.kron(numbers, np.ones((4, 4), np.uint8))
    picture(folder / "mask.png", labels)


def _mask_share(share: float) -> Check:
    """How much of the mask the reader of training masks takes for positive."""

    def check(result: Result) -> list[str]:
        from kd_mil.data.masks.image_files import resized_mask

        found = float(resized_mask(result.folder / "in" / "mask.png", (64, 64)).mean())
        return [] if abs(found - share) < 0.01 else [f"{found:.3f} of the mask is positive, not {share}"]

    return check
