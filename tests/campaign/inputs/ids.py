"""Ids become names of files, labels become cells: what may not is refused where it enters."""

from collections.abc import Callable, Iterator
from pathlib import Path

from tests.campaign.cases import Case, Result, table_text
from tests.campaign.checks import either, exits, refused
from tests.campaign.inputs.features import hdf5
from tests.campaign.inputs.lists import extract
from tests.campaign.inputs.pictures import good

UNFIT = {
    "parent": "../outside",
    "deep_parent": "../../../../outside",
    "absolute": "@/outside",
    "inside": "a/b",
    "dot": ".",
    "two_dots": "..",
    "newline": "a\nb",
    "dash": "-dash",
    "long": "x" * 201,
    "very_long": "x" * 300,
    "many_bytes": "切" * 80,
}
ODD = {"backslash": "..\\outside", "tab": "a\tb"}
"""Legal names of files here, and not everywhere: refused or done."""
FEATURES = "features=in/features.csv"
COMMANDS = {
    "predict": ("ckpt=@features", FEATURES, "out=out", "table=csv", "device=cpu"),
    "export_clam": (FEATURES, "format=clam", "out=out"),
    "export_torchmil": (FEATURES, "format=torchmil", "out=out"),
}


def cases() -> Iterator[Case]:
    """Every id through every command that takes a table, and labels that a spreadsheet would run."""
    for name, value in (UNFIT | ODD).items():
        check = refused("id|line") if name in UNFIT else either(refused("id|line"), exits(0))
        yield extract(f"extract_id_{name}", "ids", _tables(value), check)
        for command, settings in COMMANDS.items():
            yield Case(
                f"{command}_id_{name}", "ids", _tables(value), check, command=command.split("_")[0], settings=settings
            )
    for name, sign in (("equals", "="), ("plus", "+"), ("minus", "-"), ("at", "@")):
        check = either(_no_formulas, refused("list.csv|label"))
        yield extract(f"formula_{name}", "formulas in cells", _tables("s", f"{sign}cmd|' /C calc'!A0"), check)


def _tables(slide_id: str, label: str = "1") -> Callable[[Path], None]:
    """A slide and a feature file of this id and label, each in a table."""

    def write(folder: Path) -> None:
        good(folder / "a.svs")
        hdf5()(folder / "f.h5")
        row = {"slide_id": slide_id.replace("@", str(folder.parents[1])), "label": label}
        (folder / "list.csv").write_text(table_text([row | {"slide_path": "a.svs"}]))
        (folder / "features.csv").write_text(table_text([row | {"feature_path": "f.h5"}]))

    return write


def _no_formulas(result: Result) -> list[str]:
    found = [
        f"{row['']}: {key} starts {text[:10]!r}"
        for row in result.rows()
        for key, text in row.items()
        if key and text and text[0] in "=+-@"
    ]
    return found if result.rows() else ["nothing written"]
