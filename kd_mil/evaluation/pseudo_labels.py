"""How right pseudo-labels of training instances are, and whether the student that learns from them is right more often.

Measured, never trained on: these are the only numbers that instance labels of training bags enter.
"""

from torch import Tensor

from kd_mil.evaluation.ranking import ranking_scores

Scores = dict[str, float]


def pseudo_label_scores(pseudo_labels: Tensor, student: Tensor, truth: Tensor, bags: Tensor) -> Scores:
    """Scores of instances of positive bags with a known label; nothing where there are none.

    `auroc`, `ap` and the same `_per_bag` rank by pseudo-label; `tpr` and `fpr` are the shares of positive and of
    negative instances whose pseudo-label is at least 0.5; `student_auroc`, ... rank the same instances by the student.
    NaN where undefined.

    Args:
        pseudo_labels: (N,) in [0, 1].
        student: (N,) the student's score of being positive.
        truth: (N,) label of the instance, -1 = unknown.
        bags: (N,) int64 bag of the instance.
    """
    known = truth >= 0
    if not known.any():
        return {}
    positive, bags = truth[known] > 0, bags[known]
    said = pseudo_labels[known] >= 0.5
    scores = {"tpr": _share(said[positive]), "fpr": _share(said[~positive])}
    for prefix, column in {"": pseudo_labels, "student_": student}.items():
        ranked = ranking_scores(column[known].double(), positive, bags, positive.new_ones(len(bags)))
        scores |= {f"{prefix}{name}": value for name, value in ranked.items() if not name.endswith("_within")}
    return scores


def dropped_precision(truth: Tensor) -> Scores:
    """`precision`: share of positive ones among the instances with known labels `truth` (N,) that mining dropped."""
    known = truth[truth >= 0]
    return {"precision": _share(known > 0)} if len(known) else {}


def _share(chosen: Tensor) -> float:
    return float(chosen.double().mean())  # NaN of nothing
