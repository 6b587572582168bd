"""cases.csv and scorecard.csv: what the trained method says of test cases, and which word on instances ranks best."""

from pathlib import Path
from typing import Any, cast

import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer

from kd_mil.core.atomic import atomic_path
from kd_mil.data.bags import Bags
from kd_mil.evaluation.scorecard import scorecard
from kd_mil.evaluation.statistics.pooling import Pooling, cases_of, pooled_labels, pooled_probs
from kd_mil.evaluation.tables import PredictionTables


class WriteCases(Callback):
    """Write `cases.csv` where the data report cases, and `scorecard.csv` where teacher and student were both tested.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data = cast(Any, trainer).datamodule
        tables: PredictionTables = cast(Any, pl_module).tables["test"]
        cases = getattr(data, "reported_cases", None)
        if cases is not None:
            self._write("cases", case_frame(tables, data.bags, cases, data.case_pooling))
        if {"teacher", "student"} <= set(tables.roles):
            rows = scorecard(tables, "teacher", "student")
            if rows:
                self._write("scorecard", pd.DataFrame(rows))

    def _write(self, name: str, table: pd.DataFrame) -> None:
        with atomic_path(self.directory / f"{name}.csv") as path:
            table.to_csv(path, index=False)


def case_frame(tables: PredictionTables, bags: Bags, cases: list[str], pooling: Pooling) -> pd.DataFrame:
    """Columns `case_id, bags, label`, and `{role}_prob` or, of more than two classes, `{role}_prob_{class}`."""
    grouped = cases_of([cases[index] for index in tables.bags["bag"].tolist()])
    columns: dict[str, Any] = {
        "case_id": grouped.names,
        "bags": pd.Series(grouped.of_row).value_counts().sort_index().to_numpy(),
        "label": pooled_labels(tables.bags["label"].cpu().numpy(), grouped),
    }
    for role in tables.roles:
        probs = pooled_probs(tables.bags[f"{role}/probs"].cpu().numpy(), grouped, pooling)
        if probs.shape[1] == 2:
            columns[f"{role}_prob"] = probs[:, 1]
        else:
            columns |= {f"{role}_prob_{name}": probs[:, index] for index, name in enumerate(bags.class_names)}
    return pd.DataFrame(columns)
