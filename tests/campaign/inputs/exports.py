"""`export`: one damaged file among good ones, odd labels."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign.cases import Case, Result, table_text
from tests.campaign.checks import done, either, everything, exits, listed, refused
from tests.campaign.inputs.features import FEATURES, TRIDENT, hdf5


def cases() -> Iterator[Case]:
    """`export`: one damaged file among good ones, odd labels."""
    kind = "export"

    def table(rows: list[dict[str, object]], **odd: Callable[[Path], Any]) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            for name in ("a", "b"):
                hdf5(attributes=TRIDENT)(folder / f"{name}.h5")
            for name, put in odd.items():
                put(folder / f"{name}.h5")
            (folder / "list.csv").write_text(table_text(rows))

        return write

    plain: list[dict[str, object]] = [{"slide_id": name, "feature_path": f"{name}.h5", "label": "0"} for name in "ab"]
    for form in ("clam", "torchmil"):
        settings = ("features=in/list.csv", f"format={form}", "out=out")
        yield Case(
            f"export_{form}",
            kind,
            table(plain),
            everything(exits(0), done("a"), done("b")),
            command="export",
            settings=settings,
        )
        yield Case(
            f"export_{form}_damaged",
            kind,
            table(
                [*plain, {"slide_id": "c", "feature_path": "c.h5", "label": "1"}], c=lambda path: path.write_bytes(b"x")
            ),
            everything(exits(0), done("a"), done("b"), listed("c", "c.h5")),
            command="export",
            settings=settings,
        )
        yield Case(
            f"export_{form}_nan",
            kind,
            table([*plain, {"slide_id": "c", "feature_path": "c.h5", "label": "1"}], c=hdf5(FEATURES * np.nan)),
            everything(exits(0), done("a"), done("b"), listed("c", "c.h5")),
            command="export",
            settings=settings,
        )
        yield Case(
            f"export_{form}_twice", kind, table([*plain, plain[0]]), refused("'a'"), command="export", settings=settings
        )
        yield Case(
            f"export_{form}_missing",
            kind,
            table([*plain, {"slide_id": "c", "feature_path": "c.h5", "label": "1"}]),
            either(refused("c.h5"), everything(done("a"), listed("c", "c.h5"))),
            command="export",
            settings=settings,
        )
    for sign, name in zip("=+-@", ("equals", "plus", "minus", "at"), strict=True):
        yield Case(
            f"export_formula_{name}",
            "formulas in cells",
            table([row | {"label": f"{sign}cmd()"} for row in plain]),
            either(_neutral, refused("label")),
            command="export",
            settings=("features=in/list.csv", "format=clam", "out=out"),
        )
    yield Case(
        "export_into_itself",
        kind,
        table(plain),
        refused("out="),
        command="export",
        settings=("features=in/list.csv", "format=clam", "out=in"),
    )


def _neutral(result: Result) -> list[str]:
    with (result.out / "dataset.csv").open(newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    return [f"dataset.csv: label starts {label[:5]!r}" for label in labels if label[0] in "=+-@"]
