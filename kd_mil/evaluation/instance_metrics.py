"""Scores of the instances of a prediction table, in a role's own word and in each of its readings."""

from torch import Tensor

from kd_mil.evaluation.metrics import Scores, instance_class_scores, instance_scores
from kd_mil.evaluation.ranking import ranking_scores
from kd_mil.evaluation.tables import PredictionTables


def instance_table_scores(tables: PredictionTables, role: str, threshold: float = 0.5, of: str = "") -> Scores:
    """Scores of the instances with a known label, keys prefixed `instance_`.

    AUROC and average precision come pooled, `_within` positive bags and `_per_bag`; those of a reading begin with its
    name, as `bag_of_one/instance_auroc`.

    Args:
        tables: of a split.
        role: whose predictions.
        threshold: of `_tuned` decisions.
        of: what is scored, named in warnings.
    """
    instances = tables.instances
    probs, ranking, labels = instances[f"{role}/probs"], instances[f"{role}/scores"], instances["label"]
    scores = instance_scores(probs, ranking, labels, threshold, of=of) | {"instance_threshold": threshold}
    if f"{role}/class_probs" in instances:
        scores |= instance_class_scores(instances[f"{role}/class_probs"], labels, of=of)
    known, in_positive_bag = labels >= 0, tables.in_positive_bag()

    def rank(column: Tensor) -> Scores:
        found = ranking_scores(column[known], labels[known] > 0, instances["bag"][known], in_positive_bag[known])
        return {f"instance_{name}": value for name, value in found.items()}

    scores |= rank(ranking)
    for reading, column in tables.readings(role).items():
        scores |= {f"{reading}/{name}": value for name, value in rank(column).items()}
    return scores
