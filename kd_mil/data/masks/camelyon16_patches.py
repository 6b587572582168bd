"""Camelyon16Patches: labelled tiles of the slides of Camelyon16, and masks cut from their outlines.

Source of the slides: see `kd_mil.data.tiles.camelyon16`.
"""

from typing import Any

from kd_mil.data.datamodules import Loading
from kd_mil.data.locations import find_root
from kd_mil.data.masks.outlined_tiles import OutlinedTiles
from kd_mil.data.tiles.camelyon16 import FOLDERS, SOURCE, camelyon16_slides
from kd_mil.slides.slide_list import SlideEntry


class Camelyon16Patches(OutlinedTiles):
    """Tiles with tile labels, as IFKD trains on; masks of the same tiles for evaluation.

    `training` slides are divided into train and val, `testing` slides are tested. `test_114`, whose tumour is not
    outlined completely, is left out.

    Args:
        loading: as in `OutlinedTiles`.
        root: holds what `camelyon16_slides` reads; None = looked for under `data_dir`.
        data_dir: folder of all data sets.
        cache_dir: keeps the tiles read.
        **tiles: further settings of `OutlinedTiles`.
    """

    def __init__(self, loading: Loading, root: str | None, data_dir: str, cache_dir: str, **tiles: Any) -> None:
        super().__init__(loading, cache_dir, **tiles)
        self.root, self.data_dir = root, data_dir

    def entries(self) -> list[SlideEntry]:
        root = find_root(self.root, self.data_dir, FOLDERS, SOURCE)
        return [entry for entry in camelyon16_slides(root) if has_tile_labels(entry)]


def has_tile_labels(entry: SlideEntry) -> bool:
    """Whether every tile of a slide is known to hold tumour or none."""
    return entry.label == "normal" or entry.annotation_path is not None
