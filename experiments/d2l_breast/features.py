"""Breast images as bags of EfficientNet-lite0 features, with the folds of `data=ucsb_breast`.

python experiments/d2l_breast/features.py IMAGES OUT   # OUT/FOLD.csv, for data=feature_bags

ImageNet weights, stages 2 and 3, patches of 32 pixels at 64, half precision. An image is encoded once.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kd_mil.data.datamodules import Loading
from kd_mil.data.patches.ucsb_breast import UcsbBreast
from kd_mil.models.encoders.lite0 import Lite0


def main() -> None:
    """Write a file of each image, and a manifest of each fold."""
    images, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    folds = [UcsbBreast(images, "data", Loading(), fold=fold).load() for fold in range(5)]
    bags = folds[0].bags
    encoder = Lite0(bags.instance_shape, resize=64).eval()
    for name, patches in zip(bags.bag_ids, bags.instances.split(bags.sizes.tolist()), strict=True):
        with torch.inference_mode():
            features = [encoder(part.float() / 255).half() for part in patches.split(512)]
        np.savez(out / f"{name}.npz", features=torch.cat(features))
    for fold, splits in enumerate(folds):
        part = pd.Series("", index=range(len(bags.bag_ids)))
        for name in ("train", "val", "test"):
            part[getattr(splits, name).tolist()] = name
        table = {"slide_id": bags.bag_ids, "case_id": bags.case_ids, "label": bags.labels, "split": part}
        paths = [f"{name}.npz" for name in bags.bag_ids]
        pd.DataFrame(table | {"feature_path": paths}).to_csv(out / f"{fold}.csv", index=False)


if __name__ == "__main__":
    main()
