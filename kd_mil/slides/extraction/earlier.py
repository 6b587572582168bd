"""What an earlier extraction left of a slide: whether it is this slide's, and was made as asked for."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_mil.core.errors import UserError
from kd_mil.slides.extraction.store import is_complete, read_attributes, read_slide, refuse_other_settings
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.cutting import Cutting


def still_holds(path: Path, entry: SlideEntry, wanted: Mapping[str, Any], cutting: Cutting) -> bool:
    """Whether a file holds the tiles and features of a slide, be it with another tumour.

    A slide is known again by samples of its content, wherever it lies now. Files of an earlier version do not hold
    them (`is_traceable`): there, the slide's size in pixels and its resolution are compared.

    Args:
        path: the file; absent and damaged ones do not hold anything.
        entry: the slide.
        wanted: attributes as in `planning.slide_attributes`, and those of the encoder.
        cutting: how slides are opened.

    Raises:
        OtherSettingsError: it was made with other settings.
        UserError: it was made from another slide, or the slide cannot be opened.
    """
    if not is_complete(path, wanted):
        return False
    stored = read_attributes(path)
    if is_traceable(stored):
        same = stored["slide"]["content"] == wanted["slide"]["content"]
    else:
        slide = cutting.open(entry)
        same = read_slide(path, with_features=False).tiles.slide_dimensions == slide.dimensions
        slide.close()
    if not same:
        raise UserError(
            f"{path} was made from another slide than {str(entry.path)!r}: give this one another slide_id, or remove "
            "the file to extract it anew"
        )
    if stored.get("outlines") != wanted.get("outlines"):
        raise UserError(f"{path} was made with other outlines of the tissue: remove the file to extract it anew")
    expected = _expected_mpp(entry, stored, cutting)
    if not math.isclose(expected, stored["slide_mpp"], rel_tol=1e-6):
        refuse_other_settings(path, {"slide_mpp": stored["slide_mpp"]}, {"slide_mpp": expected})
    return True


def is_traceable(stored: Mapping[str, Any]) -> bool:
    """Whether the attributes of a file say from which slide it was made."""
    return isinstance(stored.get("slide"), dict) and "content" in stored["slide"]


def has_same_truth(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two sets of attributes agree on what is known of the tumour, as far as the stored ones say."""
    negatives = wanted.get("negatives_known")
    same = stored.get("annotation") == wanted.get("annotation")
    return same and stored.get("negatives_known", negatives) == negatives


def given_mpp(stored: Mapping[str, Any]) -> float | None:
    """µm per level-0 pixel where a setting or a list says it, None where the slide itself does."""
    if "mpp_source" not in stored:
        return stored.get("mpp_override")
    return None if stored["mpp_source"] == "file" else stored["slide_mpp"]


def _expected_mpp(entry: SlideEntry, stored: Mapping[str, Any], cutting: Cutting) -> float:
    """µm per level-0 pixel at which the slide would be read now; the file is opened where nothing else tells."""
    override = cutting.override_of(entry)
    if override is not None:
        return override
    if given_mpp(stored) is None:
        return stored["slide_mpp"]
    if stored.get("mpp_source") == "mpp" and cutting.mpp is not None:
        return cutting.mpp
    slide = cutting.open(entry)
    slide.close()
    return slide.mpp
