"""How much a Distill-to-Label student (arXiv 1907.12926) learns of what from its teacher, and how softly.

Distillation(temperature=2.0).weights  # by term of Eq. 5
"""

from dataclasses import dataclass
from typing import Literal

from kd_mil.core.checks import above, at_least


@dataclass(frozen=True)
class Distillation:
    """What the student's loss weighs, Eq. 5.

    Raises:
        UserError: a setting out of range.
    """

    label_weight: float = 0.3
    """gamma_c, cross-entropy of the bag label."""
    bag_weight: float = 0.5
    """gamma_b, divergence from the teacher on the bag."""
    instance_weight: float = 0.5
    """gamma_i, divergence from the teacher on every instance as a bag of one."""
    entropy_weight: float = 0.1
    """gamma_e, entropy of the student on every instance."""
    temperature: float = 2.0
    """tau of Eq. 4, not given in the paper."""
    tau_squared: bool = False
    """Multiply divergences by tau squared, as Hinton et al. 2015; the paper writes no such factor."""
    reduction: Literal["sum", "mean"] = "sum"
    """Of the instance terms over a bag; Eq. 5 sums."""
    negative_bags: Literal["teacher", "zero"] = "teacher"
    """Target of instances of negative bags: the teacher's word (paper), or their class, which is known."""

    def __post_init__(self) -> None:
        for name in ("label_weight", "bag_weight", "instance_weight", "entropy_weight"):
            at_least(f"method.kd.{name}", getattr(self, name), 0)
        above("method.kd.temperature", self.temperature)

    @property
    def scale(self) -> float:
        """Factor of divergences."""
        return self.temperature**2 if self.tau_squared else 1.0

    @property
    def weights(self) -> dict[str, float]:
        """Weights of Eq. 5 by term."""
        names = ("label", "bag", "instance", "entropy")
        return {name: getattr(self, f"{name}_weight") for name in names}
