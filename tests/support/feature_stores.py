"""A folder of features as `kd_mil.extract` leaves it."""

import numpy as np
import torch

from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.slides.extraction.store import slide_file, write_slide
from kd_mil.slides.tiles.tiling import Tiles

SIZES = {"s1": 3, "s2": 1, "s3": 4}
CLASSES = ["normal", "tumour"]
LABELS, PARTS, CASES = ["normal", "tumour", "tumour"], ["train", "val", "test"], ("p1", "p1", "p2")
COLUMNS = "slide_id,case_id,label,split,feature_path"


def write_store(out, cases=CASES):
    """Three slides; the last has no annotation."""
    rng = np.random.default_rng(0)
    for name, count in SIZES.items():
        coords = rng.integers(0, 4000, (count, 2))
        tiles = Tiles(coords, np.ones(count, np.float32), 64, 128, 0.5, 0, name, (5000, 5000), 0.25)
        fraction = None if name == "s3" else np.linspace(0, 1, count, dtype=np.float32)
        write_slide(slide_file(out, name), tiles, rng.normal(size=(count, 5)), fraction, attributes={})
    rows = zip(SIZES, cases, LABELS, PARTS, strict=True)
    lines = [f"{name},{case},{label},{part},features/{name}.h5" for name, case, label, part in rows]
    (out / "manifest.csv").write_text("\n".join([COLUMNS, *lines]) + "\n")
    return out


def features_of(store, name):
    file = FeatureFile(slide_file(store, name))
    return file.read(torch.arange(file.num_instances), torch.float32).numpy()
