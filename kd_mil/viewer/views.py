"""What a link to the viewer says: which slide, and where on it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode


@dataclass(frozen=True)
class View:
    """A place on a slide; None = all of it."""

    slide_id: str | None = None
    x: float | None = None
    y: float | None = None
    """Centre, in level-0 pixels."""
    width: float | None = None
    """What is seen from left to right, in level-0 pixels."""

    def query(self) -> str:
        """The part of a link after the question mark; numbers are whole pixels.

        >>> View("case 1", 10.2, 20, 300).query()
        'slide=case+1&x=10&y=20&width=300'
        """
        places = {name: getattr(self, name) for name in ("x", "y", "width")}
        known = {} if self.slide_id is None else {"slide": self.slide_id}
        return urlencode(known | {name: round(value) for name, value in places.items() if value is not None})


def view_of(arguments: Mapping[str, list[bytes]]) -> View:
    """The view that the arguments of a request ask for; what is no number is left out."""
    slide_id = arguments.get("slide")
    x, y, width = (_number(arguments.get(name)) for name in ("x", "y", "width"))
    complete = x is not None and y is not None and width is not None and width > 0
    place = (x, y, width) if complete else (None, None, None)
    return View(None if not slide_id else slide_id[-1].decode(errors="replace"), *place)


def _number(values: list[bytes] | None) -> float | None:
    try:
        number = float(values[-1]) if values else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
