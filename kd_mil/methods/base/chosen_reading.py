"""The reading that is a bag classifier's word on instances, where validation chooses it."""

from collections.abc import Mapping

from kd_mil.evaluation.tables import Columns, PredictionTables
from kd_mil.methods.base.readings import NAMES, choose_reading
from kd_mil.models.outputs import Prediction

PROBS = "reading_probs"


def candidate_columns(predictions: Mapping[str, Prediction]) -> Columns:
    """Columns `{role}/reading_probs/{name}` (N,): the probabilities of what each role's word may become."""
    return {
        f"{role}/{PROBS}/{name}": probs
        for role, prediction in predictions.items()
        if prediction.reading_probs is not None
        for name, probs in prediction.reading_probs().items()
    }


def settle_reading(tables: PredictionTables, role: str) -> int:
    """Choose the reading of a role on validation bags, and make it the role's word in their table.

    Whatever is scored or chosen on that table afterwards, such as a threshold, is that of the reading chosen, not of
    the one that was its word while the table was made.

    Args:
        tables: of validation, with the columns of `candidate_columns`, which are taken out.
        role: of a bag classifier.

    Returns:
        Its position in `NAMES`; -1, and the table as it was, where nothing can be chosen.
    """
    prefix = f"{role}/{PROBS}/"
    of_reading = {name: tables.instances.pop(name) for name in list(tables.instances) if name.startswith(prefix)}
    scores = tables.readings(role)
    name = choose_reading(scores, tables.in_positive_bag())
    if name is None:
        return -1
    tables.instances.update({f"{role}/scores": scores[name], f"{role}/probs": of_reading[f"{prefix}{name}"]})
    return NAMES.index(name)
