"""How probability maps become masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kd_mil.core.checks import at_least, share

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
    tuned_by: Literal["none", "labels", "masks"] = "none"
    """What of validation chooses: `none`, `*_tuned` scores are those as configured; `labels`, so that images with any
    positive pixel are best told from the rest, which says little of where in the image; `masks`, so that `pixel_f1` is
    best."""
    hausdorff_empty: Literal["diagonal", "origin", "skip"] = "diagonal"
    """Distance of an empty prediction: the image's diagonal, that of a point at the corner (released), or left out."""

    def __post_init__(self) -> None:
        at_least("reading.blur", self.blur, 0)
        for blur in self.blurs:
            at_least("reading.blurs", blur, 0)
        share("reading.threshold", self.threshold, zero=False, one=False)

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
