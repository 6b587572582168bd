"""What the answer of a trained method on a test slide or image costs, from the file on."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from kd_mil.data.pairs.pair_data import PairedImages
from kd_mil.data.pairs.slide_pieces import SlidePieces
from kd_mil.data.tiles.slides import SlideBags
from kd_mil.evaluation.end_to_end import end_to_end
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.image_method import ImageMethod
from kd_mil.prediction.image_inputs import SlideOfPieces
from kd_mil.prediction.image_model import ImageModel
from kd_mil.prediction.inputs import SlideInput
from kd_mil.prediction.pipeline import PiecePredictor

Call = Callable[[], object]
ALL_ROLES = "all"
"""In place of a role, of a method whose roles are one computation."""
PICTURE_SIDE = 64
"""Pixels of a thumbnail that nobody looks at."""


def measured_costs(method: Any, data: Any, count: int) -> dict[str, float]:
    """`cost/ROLE/seconds`, `bytes` and `gmac` of a test slide (of image files: of an image), the mean over `count`.

    Slides are read from their files again, tissue is found, and all is computed in one process. Methods on bags have
    one cost for all their roles, `cost/all/...`. Empty for data that are not slides or images in files.

    Args:
        method: trained, on its device.
        data: set up.
        count: at least 1 test slide or image, the first ones.
    """
    calls = calls_of(method, data, count)
    method.eval()
    with torch.inference_mode():
        found = {role: end_to_end(items) for role, items in calls.items() if items}
    return {f"cost/{role}/{name}": value for role, costs in found.items() for name, value in costs.items()}


def calls_of(method: Any, data: Any, count: int) -> Mapping[str, list[Call]]:
    """By role, the calls that predict one slide or image each."""
    if isinstance(method, BagMethod) and isinstance(data, SlideBags):
        chosen = [data.cuts[bag].entry for bag in data.splits.test[:count].tolist()]
        slides = [SlideInput(entry, data.cutting, PICTURE_SIDE) for entry in chosen]
        return {ALL_ROLES: [partial(predicted, method, slide) for slide in slides]}
    if isinstance(method, ImageMethod) and isinstance(data, SlidePieces):
        return {role: slide_calls(method, role, data, count) for role in method.roles}
    if isinstance(method, ImageMethod) and isinstance(data, PairedImages):
        return {role: image_calls(method, role, data, count) for role in method.roles}
    return {}


def predicted(method: PiecePredictor, slide: SlideInput | SlideOfPieces) -> object:
    """What the method says of a slide."""
    return method.predict_pieces(slide.open().batches)


def slide_calls(method: ImageMethod, role: str, data: SlidePieces, count: int) -> list[Call]:
    """Of the first test slides, at the resolution of a role."""
    _, resolution = method.classifiers()[role]
    downsample, mpp = data.downsamples[resolution], data.cutting.mpp
    model = ImageModel(method, role, downsample, data.cutting, mpp, "max", list(data.class_names), "", "")
    entries = {piece.slide.slide_id: piece.slide for piece in data.pieces_of_part("test")}
    slides = [
        SlideOfPieces(entry, data.cutting, mpp * downsample, data.reading, picture_side=PICTURE_SIDE)
        for entry in list(entries.values())[:count]
    ]
    return [partial(predicted, model, slide) for slide in slides]


def image_calls(method: ImageMethod, role: str, data: PairedImages, count: int) -> list[Call]:
    """Of the first test images, decoded and reduced to the resolution of a role."""
    network, resolution = method.classifiers()[role]

    def classified(position: int) -> object:
        return network(data.images[resolution].made(position)[None].to(method.device)).logits

    return [partial(classified, position) for position in data.positions["test"][:count].tolist()]
