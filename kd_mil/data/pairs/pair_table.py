"""The split of paired images as a table."""

import hashlib
from collections.abc import Mapping

from torch import Tensor

from kd_mil.data.pairs.stack import ImageSource, ImageStack


def pair_table(
    source: ImageSource, positions: Mapping[str, Tensor], images: Mapping[str, ImageStack]
) -> list[dict[str, str]]:
    """Rows `image_id, case_id, label, split, content` in the order of the source.

    Args:
        source: the N images.
        positions: those of each part, (M,) int64.
        images: their copies by resolution.
    """
    part_of = {index: part for part, members in positions.items() for index in members.tolist()}
    return [
        _row(source, index) | {"split": part_of[index], "content": _content(images, index)} for index in sorted(part_of)
    ]


def _row(source: ImageSource, index: int) -> dict[str, str]:
    label = int(source.labels[index])
    return {
        "image_id": source.ids[index],
        "case_id": source.ids[index] if source.cases is None else source.cases[index],
        "label": source.class_names[label] if label >= 0 else "",
    }


def _content(images: Mapping[str, ImageStack], index: int) -> str:
    """Hash of the sizes of an image, and of its pixels where they are in memory."""
    digest = hashlib.blake2b(digest_size=6)
    for stack in images.values():
        digest.update(repr(stack.sizes[index]).encode())
        if index in stack.kept:
            digest.update(stack.kept[index].numpy().data)
    return digest.hexdigest()
