"""Tiles within outlines that somebody drew: from the data set to the prediction of new slides."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_mil.cards.card import ModelCard
from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.tiles.slides import SlideBags
from kd_mil.prediction.inputs import slide_inputs
from kd_mil.slides.tiles.outlines import OutlineSettings
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings

TILING = TilingSettings(tile_size=32, mpp=1.0, min_tissue=0.5)
IDS = ("a", "b", "c", "d", "e", "f")


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Six pink slides of 128 x 96 pixels at 1 µm; of each the left 64 pixels are outlined, a part of them as pen."""
    rng = np.random.default_rng(0)
    (tmp_path / "outlines").mkdir()
    rows = ["slide_path,label,split"]
    for number, name in enumerate(IDS):
        pixels = rng.integers((200, 120, 170), (220, 140, 190), (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        outline(tmp_path / "outlines" / f"{name}.geojson", 64)
        rows.append(f"{name}.png,{number % 2},{('train', 'val', 'test')[number // 2]}")
    (tmp_path / "slides.csv").write_text("\n".join(rows))
    return tmp_path


def outline(path: Path, right: int) -> None:
    features = []
    for name, (x, y) in (("Tissue", (right, 96)), ("Pen", (32, 32))):
        ring = [[0, 0], [x, 0], [x, y], [0, y], [0, 0]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        properties = {"classification": {"name": name, "color": [0, 0, 0]}}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def load(folder: Path, num_workers: int = 0, **more: object) -> SlideBags:
    tissue = OutlineSettings(str(folder / "outlines"), classes=["Tissue"], exclude=["Pen"], mpp=1.0, **more)
    loading = Loading(num_workers=num_workers)
    data = SlideBags(str(folder / "slides.csv"), loading, TILING, tissue, mpp=1.0, cache_dir=str(folder / "cache"))
    data.setup()
    return data


def corners(data: SlideBags, bag: int) -> list[tuple[int, ...]]:
    return [tuple(corner) for corner in data.cuts[bag].tiles.coords.tolist()]


WITHIN = [(32, 0), (0, 32), (32, 32), (0, 64), (32, 64)]
"""Tiles of the outlined half without the pen mark."""


def test_training_tiles_are_those_of_the_outlines(slides: Path) -> None:
    data = load(slides)
    assert data.bags.bag_ids == list(IDS)
    assert [corners(data, bag) for bag in range(6)] == [WITHIN] * 6
    assert data.bags.sizes.tolist() == [5] * 6
    outline(slides / "outlines" / "b.geojson", 96)
    again = load(slides)
    assert corners(again, 0) == WITHIN
    assert corners(again, 1) == sorted({*WITHIN, (64, 0), (64, 32), (64, 64)}, key=lambda corner: corner[::-1])


def test_new_slides_are_cut_by_outlines_of_their_own(slides: Path, tmp_path: Path) -> None:
    card = ModelCard({}, {}, ["0", "1"], load(slides).instance_source, "", "")
    config = {"slides": slides / "a.png", "mpp": None, "mpp_override": None, "picture_side": 64, "backend": None}
    config |= {"instances_per_step": None, "num_workers": 0}
    [item] = slide_inputs(config | {"outlines": None}, card)
    assert item.open().geometry.coords.tolist() == [list(corner) for corner in WITHIN]
    (tmp_path / "new").mkdir()
    [item] = slide_inputs(config | {"outlines": str(tmp_path / "new")}, card)
    with pytest.raises(UserError, match=r"slide 'a' has no outlines in .*new"):
        item.open()
    outline(tmp_path / "new" / "a.geojson", 32)
    assert item.open().geometry.coords.tolist() == [[0, 32], [0, 64]]
    by_colour = card.source | {"tissue": vars(TissueSettings())}
    with pytest.raises(UserError, match="outlines=x: the training found tissue by itself"):
        slide_inputs(config | {"outlines": "x"}, replace(card, source=by_colour))


def test_a_slide_without_outlines_ends_the_start_in_one_line(slides: Path) -> None:
    (slides / "outlines" / "e.geojson").unlink()
    with pytest.raises(UserError, match="slide 'e' has no outlines in"):
        load(slides)
