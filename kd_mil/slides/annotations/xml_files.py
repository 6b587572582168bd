"""What the readers of XML outlines share: safe parsing, and points that are finite numbers."""

from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from kd_mil.core.errors import UserError


def xml_root(path: Path) -> Element:
    """The root of an XML file without entities.

    Raises:
        UserError: no XML, or XML that defines entities.
    """
    try:
        return parse(path).getroot()
    except (ParseError, ValueError, LookupError) as error:  # of entities, of encodings it cannot read
        reason = "defines entities" if isinstance(error, DefusedXmlException) else str(error)
        raise UserError(f"annotation {str(path)!r} is not safe, well-formed XML ({reason}): export it again") from error


def finite_points(texts: Iterable[tuple[str | None, str | None]], name: str | None, path: Path) -> np.ndarray:
    """Points (K, 2) from the texts of their x and y.

    Raises:
        UserError: a text is missing or no finite number; names the annotation.
    """
    try:
        points = np.array([(float(x), float(y)) for x, y in texts]).reshape(-1, 2)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        points = np.array([[np.nan, np.nan]])
    if not np.isfinite(points).all():
        raise UserError(f"annotation {str(path)!r}: {name!r} has a point without a finite X and Y")
    return points
