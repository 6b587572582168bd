"""Whether the data of a run are still those that it recorded in `splits.csv`, and what has changed if not."""

from pathlib import Path

import pandas as pd

from kd_mil.core.errors import UserError
from kd_mil.core.tables import read_table

CHANGES = {"case_id": "another case", "label": "another label", "split": "another part", "content": "another content"}
"""Columns of the table, and what to say of rows that differ in one."""
NAMED = 3


def refuse_changed_data(path: Path, now: pd.DataFrame) -> None:
    """Compare the data with the table that a run has written.

    A table without the column `content`, of an earlier version, tells ids, cases, labels and parts alone; that is said.

    Args:
        path: `splits.csv` of the run.
        now: the same table of the present data.

    Raises:
        UserError: they differ, which names how many bags or images and some of them; or a damaged table.
    """
    if not path.exists():
        print(f"{path} is gone: whether the data have changed cannot be told")
        return
    before = read_table(path, (now.columns[0], "split"))
    if changes := data_changes(before, now):
        raise UserError(
            f"the data are no longer those of the run in {path.parent}: {'; '.join(changes)}. "
            "Choose another hydra.run.dir=..., or overwrite=true"
        )
    if "content" not in before:
        print(f"{path} names bags, labels and parts only: whether the contents have changed cannot be told")


def data_changes(before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """What differs between two tables of bags or images, in words; nothing if nothing does.

    Args:
        before, now: text columns `bag_id` or `image_id` first, then those of `CHANGES` that are known.
    """
    key = now.columns[0]
    before, now = before.set_index(key), now.set_index(key)
    kind = key.removesuffix("_id")
    both = now.index.intersection(before.index)
    changes = []
    for word, ids in (("new", now.index.difference(before.index)), ("gone", before.index.difference(now.index))):
        if len(ids):
            changes.append(f"{_count(len(ids), kind)} {word} ({_some(list(ids))})")
    for column, words in CHANGES.items():
        if column not in before or column not in now:
            continue
        earlier, present = before.loc[both, column], now.loc[both, column]
        ids = list(both[earlier != present])
        if ids and column == "content":
            changes.append(f"{_count(len(ids), kind)} with {words} ({_some(ids)})")
        elif ids:
            named = [f"{item}: {earlier[item]}, now {present[item]}" for item in ids]
            changes.append(f"{_count(len(ids), kind)} with {words} ({_some(named)})")
    return changes


def _count(number: int, kind: str) -> str:
    return f"{number} {kind}{'s' if number > 1 else ''}"


def _some(names: list[str]) -> str:
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])
