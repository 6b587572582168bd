"""Labels for WENO's student by optimal transport from what both networks say, the core of `weno_transport`.

python -m kd_mil.run experiment=weno_transport
"""

from typing import Literal

from torch import Tensor, nn

from kd_mil.core.checks import above, at_least, one_of
from kd_mil.methods.base.positive_mass import PositiveMass
from kd_mil.methods.base.transport import keep_winners, standardised, transport_labels
from kd_mil.methods.weno.margins import Margins

Source = Literal["teacher", "student", "both"]


class TransportLabels(nn.Module):
    """Rank the instances of positive bags, and let a share of them be positive: SeLa-MIL with a teacher's word in it.

    Not part of the WENO paper. Bag labels stand in for the labels of the first epochs.

    Args:
        mass: share of positive instances in positive bags, a number or `mixture`, with its limit `largest_mass` and its
            `momentum`: `PositiveMass`.
        source: whose margins rank the instances: `teacher` (bags of one), `student`, or the mean of `both`, each
            standardised.
        sharpness: of the labels, in standard deviations of the margins.
        warm_up: epochs with bag labels.

    Raises:
        UserError: a setting outside its range.
    """

    def __init__(
        self,
        mass: float | str = "mixture",
        source: Source = "both",
        sharpness: float = 3.0,
        largest_mass: float = 0.5,
        warm_up: int = 1,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        self.made_with = {
            **{"mass": mass, "source": source, "sharpness": sharpness},
            **{"largest_mass": largest_mass, "warm_up": warm_up, "momentum": momentum},
        }
        one_of("method.transport.source", source, ("teacher", "student", "both"))
        above("method.transport.sharpness", sharpness)
        at_least("method.transport.warm_up", warm_up, 0)
        self.mass = PositiveMass(mass, largest_mass, momentum, "method.transport")
        self.source, self.sharpness, self.warm_up = source, sharpness, warm_up

    def labels(self, positive: Margins, mass: float) -> Tensor:
        """Soft labels (M,) of all instances of positive training bags, with the given mass."""
        scores = self.scores(positive, positive)
        scores = self.sharpness * standardised(scores, scores)
        return keep_winners(transport_labels(scores, mass), scores, positive.owners)

    def scores(self, margins: Margins, reference: Margins) -> Tensor:
        """What ranks instances (M,), in units of the reference instances, those of positive training bags."""
        teacher = standardised(margins.teacher, reference.teacher)
        student = standardised(margins.student, reference.student)
        return {"teacher": teacher, "student": student, "both": 0.5 * teacher + 0.5 * student}[self.source]

    def estimated_mass(self, positive: Margins, validation: Margins, labels: Tensor, mean_size: float) -> float:
        """Mass by the mixture estimate on validation bags.

        Args:
            positive: instances of positive training bags.
            validation: instances of validation bags.
            labels: (M,) bag label of each of the latter.
            mean_size: mean size of training bags.
        """
        scores = self.scores(validation, positive)
        return self.mass.estimated(scores[labels > 0], scores[labels == 0], mean_size)
