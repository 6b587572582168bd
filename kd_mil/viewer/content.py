"""All that a viewer has in hand."""

from dataclasses import dataclass

from kd_mil.viewer.drawings import Drawings
from kd_mil.viewer.sources import Run, Slides


@dataclass
class Content:
    """What a viewer shows, and where it may write."""

    run: Run
    slides: Slides
    drawings: Drawings
    compare: Run | None = None
    segments: Run | None = None
