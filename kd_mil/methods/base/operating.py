"""Where a method on bags decides, and how its probabilities are calibrated: chosen on the labels of validation bags.

method.operating.thresholds("teacher")["sensitivity_95"]
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.evaluation.case_metrics import calibration_scores, case_scores
from kd_mil.evaluation.metrics import Scores
from kd_mil.evaluation.statistics.calibration import fit_temperature
from kd_mil.evaluation.statistics.operating_points import POINTS, operating_points
from kd_mil.evaluation.statistics.pooling import POOLINGS, Pooling, cases_of, pooled_labels, pooled_probs
from kd_mil.evaluation.tables import Columns


class OperatingPoints(nn.Module):
    """Thresholds and a temperature for each role, kept in checkpoints as buffers; -1 and 1 before validation.

    Args:
        roles: of the method.
    """

    bags: Tensor
    """(roles, points) float64 thresholds of bags, in the order of `POINTS`."""
    cases: Tensor
    """The same of cases, from the probabilities of their bags."""
    temperatures: Tensor
    """(roles,) float64, by which the log-odds of bags are divided."""
    pooled_by: Tensor
    """Position in `POOLINGS` of what made the probabilities of those cases; -1 where no cases were reported."""

    def __init__(self, roles: Sequence[str]) -> None:
        super().__init__()
        self.roles = tuple(roles)
        for name in ("bags", "cases"):
            self.register_buffer(name, torch.full((len(roles), len(POINTS)), -1.0, dtype=torch.float64))
        self.register_buffer("temperatures", torch.ones(len(roles), dtype=torch.float64))
        self.register_buffer("pooled_by", torch.tensor(-1))

    def choose(
        self, role: str, probs: Tensor, labels: Tensor, cases: Sequence[str] | None = None, pooling: Pooling = "max"
    ) -> None:
        """Choose all of a role from validation bags: probs (B, C), labels (B,), and the case of each bag.

        Points are there for two classes only: of more the most probable one is decided.
        """
        number, bag_probs, bag_labels = self.roles.index(role), probs.cpu().numpy(), labels.cpu().numpy()
        self.temperatures[number] = fit_temperature(bag_probs, bag_labels)
        if probs.shape[1] != 2:
            return
        if cases is not None:
            self.pooled_by.fill_(POOLINGS.index(pooling))
        grouped = cases_of([str(index) for index in range(len(labels))] if cases is None else cases)
        pairs = {
            "bags": (bag_probs, bag_labels),
            "cases": (pooled_probs(bag_probs, grouped, pooling), pooled_labels(bag_labels, grouped)),
        }
        for name, (values, truth) in pairs.items():
            points = operating_points(values[:, 1], truth)
            getattr(self, name)[number] = torch.tensor([points[point] for point in POINTS], dtype=torch.float64)

    def scores(self, stage: str, role: str, bags: Columns, data: Any, of: str) -> Scores:
        """Calibration of the bags of a stage and, where the data report them, scores of cases.

        On validation (`val`) thresholds and temperature of the role are chosen first.

        Args:
            stage: `val` or `test`.
            role: whose predictions.
            bags: a table of bags.
            data: data module, whose `reported_cases` and `case_pooling` say what is made of cases.
            of: what is scored, named in warnings.
        """
        probs, labels = bags[f"{role}/probs"], bags["label"]
        every: list[str] | None = getattr(data, "reported_cases", None)
        pooling: Pooling = getattr(data, "case_pooling", "max")
        cases = None if every is None else [every[index] for index in bags["bag"].tolist()]
        if stage == "val":
            self.choose(role, probs, labels, cases, pooling)
        scores = calibration_scores(probs, labels, self.temperature_of[role])
        if cases is None:
            return scores
        threshold = float(self.cases[self.roles.index(role), POINTS.index("youden")])
        return scores | case_scores(probs, labels, cases, pooling, threshold, of)

    def thresholds(self, point: str, of: str = "bags") -> dict[str, float]:
        """The thresholds of a point by role, of `bags` or `cases`.

        Raises:
            UserError: no such point, or a checkpoint from before there were any.
        """
        one_of("operating_point", point, POINTS)
        found = getattr(self, of)[:, POINTS.index(point)].tolist()
        if max(found) < 0:
            raise UserError(
                f"operating_point={point}: the checkpoint holds none (it is older, or has more than two classes): "
                "leave it out, or train again"
            )
        return dict(zip(self.roles, found, strict=True))

    @property
    def temperature_of(self) -> Mapping[str, float]:
        """Temperature by role."""
        return dict(zip(self.roles, self.temperatures.tolist(), strict=True))

    @property
    def case_pooling(self) -> Pooling | None:
        """How the cases were pooled for which thresholds were chosen; None where none were."""
        return POOLINGS[int(self.pooled_by)] if self.pooled_by >= 0 else None

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        """Checkpoints from before there were points have none."""
        for name, buffer in self.named_buffers(recurse=False):
            state_dict.setdefault(f"{prefix}{name}", buffer.clone())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
