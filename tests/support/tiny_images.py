"""Small drawn images and a narrow network, shared by the tests of methods on images."""

from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.synthetic_glands import SyntheticGlands
from kd_mil.evaluation.map_reading import MapReading
from kd_mil.methods.ifkd.ifkd import IFKD
from kd_mil.methods.ifkd.role_switch import RoleSwitch
from kd_mil.methods.ifkd.stage_two import PixelCrossEntropy
from kd_mil.models.preprocess import Preprocess
from kd_mil.models.segmenters.vgg import VggMIL

SHAPE = (3, 32, 32)


def tiny_glands(train: int = 16, val: int = 8, test: int = 8, size: int = 32, **settings: Any) -> SyntheticGlands:
    loading = Loading(instances_per_step=settings.pop("batch", 4), eval_instances_per_step=5)
    counts = {"train_images": train, "val_images": val, "test_images": test}
    return SyntheticGlands(loading, image_size=size, **counts, **settings)


def image_parts(**settings: Any) -> dict[str, Any]:
    """Factories and settings every method on images takes."""
    return {
        "instance_shape": SHAPE,
        "num_classes": 2,
        "segmenter": partial(VggMIL, widths=(4, 6, 8)),
        "preprocess": Preprocess(),
        "reading": MapReading(blurs=(0.0, 1.0), blur=1.0),
        "optimizer": partial(torch.optim.Adam, lr=2e-3),
    } | settings


def tiny_ifkd(switch: dict[str, Any] | None = None, wce: dict[str, Any] | None = None, **settings: Any) -> IFKD:
    """Two epochs of stage one; chances to switch after 2, 4, ... epochs of stage two."""
    torch.manual_seed(0)
    roles = RoleSwitch(**{"first": 2, "period": 2} | (switch or {}))
    return IFKD(**image_parts(**{"teacher_epochs": 2} | settings), switch=roles, wce=PixelCrossEntropy(**(wce or {})))


def write_pictures(root):
    for label, colour in (("benign", 60), ("malignant", 200)):
        (root / label).mkdir(parents=True)
        for at in range(15):
            pixels = np.random.default_rng(at).integers(0, 50, (24 + at % 2 * 8, 32, 3)) + colour
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{at}.png")


def paint(path, value=0, size=(24, 16), corner=None):
    """Write an image of one grey value; with `corner`, a mask whose upper left quarter has that value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0]), value, np.uint8)
    if corner is not None:
        pixels[: size[1] // 2, : size[0] // 2] = corner
    image = Image.fromarray(pixels)
    (image if corner is not None else image.convert("RGB")).save(path)


def write_image(path, seed=0, size=(20, 16)):
    """Write an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
