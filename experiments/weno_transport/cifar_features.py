"""CIFAR-10-MIL as bags of EfficientNet-lite0 features, a manifest for each ratio of trucks and seed of the bags.

python experiments/weno_transport/cifar_features.py DATA OUT   # OUT/RATIO/SEED.csv, for data=feature_bags

DATA holds CIFAR-10 as `data=cifar10_mil` reads it. Every image is encoded once: ImageNet weights, stages 2 and 3, at 64
pixels, half precision. A fifth of the training bags of each label validates.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kd_mil.data.datamodules import Loading
from kd_mil.data.patches.cifar10_mil import Cifar10MIL
from kd_mil.models.encoders.lite0 import Lite0

RATIOS = (0.01, 0.05, 0.1, 0.2, 0.5, 0.7)
SEEDS = range(3)


class Encoded:
    """Features of images, of each once."""

    def __init__(self) -> None:
        self.encoder = Lite0((3, 32, 32), resize=64).eval()
        self.known: dict[bytes, Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """(N, D) half precision of (N, 3, 32, 32) uint8."""
        keys = [hashlib.sha256(image.numpy().tobytes()).digest() for image in images]
        new = {key: number for number, key in enumerate(keys) if key not in self.known}
        for part in torch.tensor(list(new.values()), dtype=torch.long).split(500):
            with torch.inference_mode():
                features = self.encoder(images[part].float() / 255).half()
            self.known |= zip((keys[number] for number in part.tolist()), features, strict=True)
        return torch.stack([self.known[key] for key in keys])


def write_bags(data: str, out: Path, ratio: float, seed: int, encoded: Encoded) -> None:
    """The bags of one ratio and seed: a feature file each, and the manifest beside their folder."""
    ratios = {"positive_ratio": ratio, "positive_bag_ratio": 0.5}
    cache = str(out.parent / "cache")
    splits = Cifar10MIL(["truck"], None, data, cache, Loading(), val_fraction=0.2, seed=seed, **ratios).load()
    bags, rows = splits.bags, []
    (out / f"{seed}").mkdir(parents=True, exist_ok=True)
    for part, numbers in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        for number in numbers.tolist():
            inside = slice(100 * number, 100 * number + 100)
            path = f"{seed}/{bags.bag_ids[number]}.npz"
            np.savez(
                out / path,
                features=encoded(bags.instances[inside]),
                instance_labels=bags.instance_labels[inside],
            )
            rows.append((bags.bag_ids[number], int(bags.labels[number]), path, part))
    table = pd.DataFrame(rows, columns=["slide_id", "label", "feature_path", "split"])
    table.to_csv(out / f"{seed}.csv", index=False)


def main() -> None:
    """Write the bags of every ratio and seed."""
    data, out = sys.argv[1:]
    encoded = Encoded()
    for ratio in RATIOS:
        for seed in SEEDS:
            write_bags(data, Path(out) / str(ratio), ratio, seed, encoded)


if __name__ == "__main__":
    main()
