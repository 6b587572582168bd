"""What knowing the label of an image is worth: `python experiments/ifkd_glas/marking_everything.py DATA [OUT.json]`."""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.glas import Glas


def scores(share: Tensor, positive: Tensor) -> dict[str, float]:
    """Mean over images of pixel F1 (1 for an empty mask of an empty truth), precision and recall over all pixels.

    Args:
        share: of tumour in each image (I,), which is marked as a whole where `positive` (I,).
    """
    f1 = torch.where(positive, 2 * share / (1 + share), (share == 0).double())
    marked = share[positive].sum()
    return {
        "pixel F1": f1.mean().item(),
        "pixel F1 of positive images": f1[share > 0].mean().item(),
        "pixel F1 of negative images": f1[share == 0].mean().item(),
        "precision": (marked / positive.sum()).item(),
        "recall": (marked / share.sum()).item(),
    }


def main(data_dir: str, out: str | None = None) -> None:
    """Print, and write, scores on the test images of fold 0 for marking all, and the images that are positive."""
    data = Glas(Loading(), root=None, data_dir=data_dir, image_size=(96, 96))
    data.setup()
    positive = data.bags.labels[data.splits.test] == 1
    share = (data.masks("test") == 1).double().flatten(1).mean(1)
    found = {
        "mark everything": scores(share, torch.ones_like(positive)),
        "perfect image classifier x mark everything": scores(share, positive),
    }
    rounded = {name: {key: round(value, 4) for key, value in row.items()} for name, row in found.items()}
    text = json.dumps(rounded, indent=1)
    print(text)
    if out is not None:
        Path(out).write_text(text + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
