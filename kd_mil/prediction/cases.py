"""One decision for each case, from those of its slides or images."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kd_mil.core.atomic import atomic_path
from kd_mil.prediction.decisions import Model, decision_columns
from kd_mil.prediction.image_inputs import ImageFile, SlideOfPieces
from kd_mil.prediction.image_model import ImageModel, Pooling
from kd_mil.prediction.pipeline import Predictor


def write_cases(predictor: Predictor, inputs: Sequence[SlideOfPieces | ImageFile]) -> None:
    """Write `cases.csv` from the table of slides or images that stands in the folder, whichever shards wrote it.

    Args:
        predictor: of an `ImageModel`, which has run.
        inputs: all slides or images, with their cases.
    """
    model, unit, path = predictor.method, predictor.unit, predictor.out / f"{predictor.unit}s.csv"
    assert isinstance(model, ImageModel)
    if not path.is_file():
        return
    table = pd.read_csv(path, dtype={f"{unit}_id": str}, keep_default_na=False, na_values=[""])
    case_of = {item.slide_id: item.case_id for item in inputs}
    found = case_table(table, unit, case_of, predictor.model, model.role, model.pooling)
    with atomic_path(predictor.out / "cases.csv") as temporary:
        found.to_csv(temporary, index=False)


def case_table(
    table: pd.DataFrame, unit: str, case_of: Mapping[str, str], model: Model, role: str, pooling: Pooling
) -> pd.DataFrame:
    """`case_id`, how many slides or images count, `tiles`, and the columns of a slide; of those with a prediction.

    A case is what one slide with all its pieces would be: the highest probability, or the mean over the pieces.
    """
    columns = [f"{role}_prob"] if len(model.class_names) == 2 else [f"{role}_prob_{name}" for name in model.class_names]
    names = ["case_id", f"{unit}s", "tiles"]
    if not set(columns) <= set(table):
        return pd.DataFrame(columns=names)
    table = table[table[columns[0]].notna()]
    rows = []
    for case, members in table.groupby(table[f"{unit}_id"].map(case_of), sort=False):
        probs, tiles = members[columns].to_numpy(float), members["tiles"].to_numpy(float)
        if len(columns) == 1:
            probs = np.concatenate([1 - probs, probs], 1)
        weights = tiles / tiles.sum()
        whole = probs[probs[:, 1:].max(1).argmax()] if pooling == "max" else weights @ probs
        counted = {"case_id": case, f"{unit}s": len(members), "tiles": int(tiles.sum())}
        rows.append(counted | decision_columns(role, whole.tolist(), model))
    return pd.DataFrame(rows, columns=None if rows else names)
