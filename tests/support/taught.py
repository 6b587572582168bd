"""Slides of a few tiles, and an untrained WENO that says something of them, for students that a run teaches."""

from functools import partial

import numpy as np
import pandas as pd
import torch
from PIL import Image

from kd_mil.cards.card import own_card
from kd_mil.data.datamodules import Loading
from kd_mil.data.tiles.slides import SlideBags
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.encoders.small import SmallCNN
from kd_mil.models.preprocess import Preprocess
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings
from tests.support.tiny import no_mining, tiny_abmil, tiny_head

TISSUE = TissueSettings(mpp=4.0, min_area_um2=0)
CLASSES = ("normal", "tumour")


def slides(root, count=12):
    """Slides of one section; those of tumour are darker in one corner."""
    rows = []
    for at in range(count):
        image = np.full((192, 192, 3), 244, dtype=np.uint8)
        image[32:160, 32:160] = np.random.default_rng(at).integers(0, 40, (128, 128, 3)) + np.array([180, 60, 130])
        image[32:96, 32:96] -= np.uint8(50 * (at % 2))
        Image.fromarray(image).save(root / f"s{at}.png")
        part = ("train", "val", "test")[at // 2 % 3]
        rows.append({"slide_path": f"s{at}.png", "label": CLASSES[at % 2], "split": part, "mpp": 1.0})
    pd.DataFrame(rows).to_csv(root / "slides.csv", index=False)
    return str(root / "slides.csv")


def weno_checkpoint(root, path):
    """An untrained WENO of tiles of 32 pixels at 1 µm."""
    data = SlideBags(path, Loading(), TilingSettings(32, mpp=1.0), TISSUE, classes=CLASSES, cache_dir=str(root / "c"))
    data.setup()
    torch.manual_seed(1)
    method = WENO(
        **data.model_inputs,
        encoder=partial(SmallCNN, channels=(4, 8), hidden=None, norm="none"),
        aggregator=tiny_abmil(),
        student_head=tiny_head(),
        hpm=no_mining(),
        preprocess=Preprocess(),
        optimizer=partial(torch.optim.Adam, lr=0.1),
    )
    checkpoint = {"state_dict": method.state_dict(), "model_card": own_card(method.call, data)}
    torch.save(checkpoint, root / "weno.ckpt")
    return method.eval()
