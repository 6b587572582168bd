"""When teacher and student of IFKD change places, and by which rule (He, Li, Zemp, arXiv 2407.10274)."""

from dataclasses import dataclass
from typing import Literal

from kd_mil.core.checks import at_least


@dataclass(frozen=True)
class RoleSwitch:
    """When the student becomes the teacher, and what becomes of the student.

    Raises:
        UserError: a period or a patience below 1.
    """

    rule: Literal["if_better", "periodic", "never"] = "if_better"
    """`if_better`: at each period, if the student's score exceeds the teacher's; `periodic`: at each period (released);
    `never`."""
    first: int = 30
    """Epochs of distillation before the first chance."""
    period: int = 30
    """Epochs between chances."""
    source: Literal["best", "last"] = "best"
    """Which student is promoted: the best since the last switch, or the present one."""
    student_reinit: Literal["old_teacher", "keep", "fresh"] = "old_teacher"
    """What the student starts from after a switch: the old teacher's weights (released), its own, or new ones."""
    reset_optimizer: bool = False
    """Forget the student's optimiser state at a switch."""
    patience: int | None = None
    """Chances in a row that found no better student, after which the run ends; None = it goes on."""

    def __post_init__(self) -> None:
        at_least("method.switch.first", self.first, 1)
        at_least("method.switch.period", self.period, 1)
        if self.patience is not None:
            at_least("method.switch.patience", self.patience, 1)

    def due(self, epochs: int) -> bool:
        """Whether there is a chance after that many epochs of distillation."""
        return self.rule != "never" and epochs >= self.first and (epochs - self.first) % self.period == 0
