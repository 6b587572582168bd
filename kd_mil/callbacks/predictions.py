"""bags.csv and instances.parquet: what the trained method says about every test bag and instance."""

from pathlib import Path
from typing import Any, cast

import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer

from kd_mil.core.atomic import atomic_path
from kd_mil.data.bags import Bags
from kd_mil.evaluation.tables import PredictionTables


class WritePredictions(Callback):
    """Write the test predictions, one row per bag and one per instance, when the test ends.

    Args:
        directory: where `bags.csv` and `instances.parquet` go.
    """

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        bags: Bags = trainer.datamodule.bags  # type: ignore[attr-defined]
        tables: PredictionTables = cast(Any, pl_module).tables["test"]
        bag_rows, instance_rows = bag_frame(tables, bags), instance_frame(tables, bags)
        with atomic_path(self.directory / "bags.csv") as path:
            bag_rows.to_csv(path, index=False)
        with atomic_path(self.directory / "instances.parquet") as path:
            instance_rows.to_parquet(path, index=False)


def bag_frame(tables: PredictionTables, bags: Bags) -> pd.DataFrame:
    """Columns `bag_id, case_id, label`, and `{role}_prob` (two classes) or `{role}_prob_{class}` (more)."""
    tested = tables.bags["bag"].tolist()
    columns = {
        "bag_id": [bags.bag_ids[index] for index in tested],
        "case_id": [(bags.case_ids or bags.bag_ids)[index] for index in tested],
        "label": tables.bags["label"].numpy(),
    }
    for name, values in tables.bags.items():
        role, _, kind = name.partition("/")
        if kind != "probs":
            continue
        if values.shape[1] == 2:
            columns[f"{role}_prob"] = values[:, 1].numpy()
        else:
            columns |= {f"{role}_prob_{c}": values[:, i].numpy() for i, c in enumerate(bags.class_names)}
    return pd.DataFrame(columns)


def instance_frame(tables: PredictionTables, bags: Bags) -> pd.DataFrame:
    """Columns `bag_id, instance_id, x, y, label`, then `attention`, `{role}_prob`, `{role}_score`, `{role}_{reading}`.

    `attention` is that of the first role that has any, as in the tables of `kd_mil.predict`.
    Roles that tell more than two classes of instances apart add `{role}_prob_{class}`.
    `instance_id` counts from 0 within each bag; x and y are -1 without coordinates, label -1 where unknown.
    """
    rows = tables.instances
    owners = pd.Categorical.from_codes(rows["bag"].numpy(), categories=bags.bag_ids)
    frame = pd.DataFrame(
        {
            "bag_id": owners.remove_unused_categories(),
            "instance_id": (rows["instance"] - bags.starts[rows["bag"]]).numpy(),
            "x": rows["x"].numpy(),
            "y": rows["y"].numpy(),
            "label": rows["label"].numpy(),
        }
    )
    for name, values in rows.items():
        role, _, kind = name.partition("/")
        if kind == "attention":
            if "attention" not in frame:
                frame["attention"] = values.numpy()
        elif kind == "class_probs":
            for number, class_name in enumerate(bags.class_names):
                frame[f"{role}_prob_{class_name}"] = values[:, number].numpy()
        elif kind in ("probs", "scores"):
            frame[f"{role}_{kind[:-1]}"] = values.numpy()
        elif kind.startswith("readings/"):
            frame[f"{role}_{kind.removeprefix('readings/')}"] = values.numpy()
    return frame
