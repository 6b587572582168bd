"""How probability maps become masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kd_mil.core.errors import UserError

STEPS = 20


@dataclass(frozen=True)
class MapReading:
    """How maps are read: blurred, then cut at a threshold.

    Scores come at `blur` and `threshold` as set here and, suffixed `_tuned`, at the pair of the grid that validation
    chose for each role.

    Raises:
        UserError: a value out of range.
    """

    blur: float = 3.0
    """Standard deviation in pixels of the Gaussian that smooths a map; 0 = none."""
    threshold: float = 0.5
    """A pixel is positive from here on."""
    blurs: Sequence[float] = (0.0, 1.5, 3.0)
    """Blurs to choose among; thresholds to choose among are 0.05, 0.10, ... 0.95."""
    tuned_by: Literal["labels", "masks"] = "labels"
    """What of validation chooses: `labels`, so that images with any positive pixel are best told from the rest;
    `masks`, so that `pixel_f1` is best."""
    hausdorff_empty: Literal["diagonal", "origin", "skip"] = "diagonal"
    """Distance of an empty prediction: the image's diagonal, that of a point at the corner (released), or left out."""

    def __post_init__(self) -> None:
        if min(self.blur, *self.blurs) < 0 or not 0 < self.threshold < 1:
            raise UserError(
                f"reading.blur={self.blur}, reading.threshold={self.threshold}: blurs must not be negative, the "
                "threshold must lie between 0 and 1"
            )
        for name, choices in (("tuned_by", ("labels", "masks")), ("hausdorff_empty", ("diagonal", "origin", "skip"))):
            if getattr(self, name) not in choices:
                raise UserError(f"reading.{name}={getattr(self, name)!r}: choose {', '.join(choices)}")

    @property
    def grid(self) -> tuple[list[float], list[float]]:
        """Blurs and thresholds, each ascending, the configured ones among them."""
        thresholds = {step / STEPS for step in range(1, STEPS)} | {self.threshold}
        return sorted({*map(float, self.blurs), float(self.blur)}), sorted(thresholds)

    @property
    def configured(self) -> tuple[int, int]:
        """Place of the configured pair on the grid."""
        blurs, thresholds = self.grid
        return blurs.index(float(self.blur)), thresholds.index(self.threshold)
