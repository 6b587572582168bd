"""images.csv: what the trained method says about every test image."""

import math
from pathlib import Path
from typing import Any, cast

import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer

from kd_mil.core.atomic import atomic_path
from kd_mil.data.bags import Bags
from kd_mil.evaluation.segmentation import at_point, image_pixel_scores
from kd_mil.evaluation.tables import Columns


class WriteImagePredictions(Callback):
    """Write one row per test image when the test ends.

    Args:
        directory: where `images.csv` goes.
    """

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            images: Bags = trainer.datamodule.bags  # type: ignore[attr-defined]
            with atomic_path(self.directory / "images.csv") as path:
                image_frame(cast(Any, pl_module), images).to_csv(path, index=False)


def image_frame(method: Any, images: Bags) -> pd.DataFrame:
    """Columns `image_id, case_id, label, positive_share`, then `{role}_prob, {role}_f1, {role}_iou, {role}_foreground`.

    Pixel scores are at the configured blur and threshold, of the class of the image's label.
    """
    table: Columns = method.tables["test"]
    tested = table["index"].tolist()
    columns: dict[str, Any] = {
        "image_id": [images.bag_ids[index] for index in tested],
        "case_id": [(images.case_ids or images.bag_ids)[index] for index in tested],
        "label": table["label"].tolist(),
    }
    for role in method.roles:
        if f"{role}/prob" not in table:
            continue
        counts = at_point(method.counts_of(table, role), method.reading.configured)
        scores = image_pixel_scores(counts, table["label"])
        known = counts["known"].double().where(counts["known"] > 0, math.nan)
        columns.setdefault("positive_share", (counts["truth"] / known).tolist())
        columns[f"{role}_prob"] = table[f"{role}/prob"].tolist()
        columns |= {f"{role}_{name}": values.tolist() for name, values in scores.items()}
        columns[f"{role}_foreground"] = (counts["predicted"] / known).tolist()
    return pd.DataFrame(columns)
