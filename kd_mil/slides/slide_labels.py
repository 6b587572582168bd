"""Labels of slides from tables beside the slides, ours and other tools'."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean
from kd_mil.core.tables import by_part, read_table, require_columns
from kd_mil.slides.label_columns import LabelColumns, completed
from kd_mil.slides.slide_files import SLIDE_EXTENSIONS
from kd_mil.slides.slide_list import SlideEntry, check_names, fold_of, further_of, split_of

FEATURE_EXTENSIONS = (".h5", ".hdf5", ".pt", ".pth", ".npy", ".npz")
"""Of feature files, whose names may stand for slides in a table of labels."""
LABEL_COLUMNS = ("label", "case_id", "split", "fold")


def with_labels(entries: Sequence[SlideEntry], path: str | Path) -> list[SlideEntry]:
    """The slides with `label` (and `case_id`, `split`, `fold`, further columns where given) from a table of labels.

    Slides without a row keep what they have.

    Raises:
        UserError: as `read_labels`; no column `label`, or a value out of range.
    """
    by_id = {entry.slide_id: entry for entry in entries}
    table = read_labels(path, by_id, "slides")
    require_columns(table, ("label",), path)
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        where, entry = f"{path}, line {line}", by_id[row["slide_id"]]
        check_names(row, where)
        fold = fold_of(row, where)
        by_id[entry.slide_id] = replace(
            entry,
            label=row["label"] or None,
            case_id=row.get("case_id") or entry.case_id,
            split=split_of(row, where) or entry.split,
            fold=entry.fold if fold is None else fold,
            further={**entry.further, **further_of(row, ("slide_id", *LABEL_COLUMNS))},
        )
    return list(by_id.values())


def read_labels(
    path: str | Path, known: Collection[str], kind: str, columns: LabelColumns | None = None
) -> pd.DataFrame:
    """A table of labels, as those of other tools: `slide_id` and any of `LABEL_COLUMNS`, as text.

    Ids may be file names, where `known` has them without the suffix of a slide or of a feature file: nothing else is
    cut off, for `P0.3` is not `P0`. Further columns are kept.

    Args:
        path: CSV, by `tables.by_part` and `label_columns.completed`.
        known: ids of the slides that are there.
        kind: what they are, for the message on an unknown one: slides, feature files.
        columns: what the table does not say itself.

    Returns:
        The table by line in the file; its ids are known and unique.

    Raises:
        UserError: no such file, no CSV, no ids, an id that is not known, or one listed twice.
    """
    table = by_part(read_table(path, (), ("slide_id", *LABEL_COLUMNS)), path)
    table = completed(table, columns or LabelColumns(), path)
    if "slide_id" not in table:
        raise UserError(f"{path}: column 'slide_id' (STAMP: 'FILENAME') is missing; it has {', '.join(table.columns)}")
    stems = table["slide_id"].map(without_suffix)
    table["slide_id"] = table["slide_id"].where(table["slide_id"].isin(known) | ~stems.isin(known), stems)
    for line, slide_id in table["slide_id"].items():
        if slide_id not in known:
            raise UserError(
                f"{path}, line {line}: slide {slide_id!r} is not among the {len(known)} {kind}; "
                f"{did_you_mean(slide_id, known)}"
            )
    for line, slide_id in table["slide_id"][table["slide_id"].duplicated()].items():
        raise UserError(f"{path}, line {line}: slide {slide_id!r} is listed twice")
    return table


def without_suffix(name: str) -> str:
    """The name without the suffix of a slide or a feature file; other dots belong to an id, as in `P0.3`."""
    path = Path(name)
    return path.stem if path.suffix.lower() in (*SLIDE_EXTENSIONS, *FEATURE_EXTENSIONS) else name
