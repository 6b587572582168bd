"""Scores of cases, from the probabilities of their bags, and of how far probabilities can be believed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kd_mil.evaluation.metrics import Scores, bag_scores
from kd_mil.evaluation.statistics.calibration import brier_score, expected_calibration_error, tempered, top_class
from kd_mil.evaluation.statistics.pooling import Pooling, cases_of, pooled_labels, pooled_probs


def case_scores(
    probs: Tensor, labels: Tensor, cases: Sequence[str], pooling: Pooling, threshold: float, of: str = ""
) -> Scores:
    """The scores of `bag_scores` for cases, keys prefixed `case_`, and `case_threshold`.

    Args:
        probs: (B, C) of bags.
        labels: (B,) int64.
        cases: (B,) case of each bag.
        pooling: of a case's bags.
        threshold: of `_tuned` decisions; a negative one, where validation has not chosen any, is 0.5.
        of: what is scored, named in warnings.
    """
    grouped = cases_of(cases)
    of_cases = torch.from_numpy(pooled_probs(probs.cpu().numpy(), grouped, pooling))
    truth = torch.from_numpy(pooled_labels(labels.cpu().numpy(), grouped))
    threshold = 0.5 if threshold < 0 else threshold
    found = bag_scores(of_cases, truth, threshold, of=f"{of} cases")
    return {name.replace("bag_", "case_", 1): value for name, value in found.items()} | {"case_threshold": threshold}


def calibration_scores(probs: Tensor, labels: Tensor, temperature: float) -> Scores:
    """`bag_brier`, `bag_ece` and, at the temperature that validation chose, `bag_brier_tempered`, `bag_ece_tempered`.

    ECE is that of the positive class; of more than two classes that of the most probable one. Ten bins.

    Args:
        probs: (B, C).
        labels: (B,) int64.
        temperature: above 0; also returned, as `bag_temperature`.
    """
    given, truth = probs.cpu().numpy(), labels.cpu().numpy()
    scores = {"bag_temperature": temperature}
    for suffix, values in {"": given, "_tempered": tempered(given, temperature)}.items():
        events = (values[:, 1], truth == 1) if values.shape[1] == 2 else top_class(values, truth)
        scores[f"bag_brier{suffix}"] = brier_score(values, truth)
        scores[f"bag_ece{suffix}"] = expected_calibration_error(*events)
    return scores
