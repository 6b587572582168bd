"""F1 of positive images if every pixel is marked: `python experiments/ifkd_glas/marking_everything.py DATA`."""

import sys

from kd_mil.data.datamodules import Loading
from kd_mil.data.masks.glas import Glas


def main(data_dir: str) -> None:
    """Print the share of gland in positive test images of fold 0, and the mean F1 over them."""
    data = Glas(Loading(), root=None, data_dir=data_dir, image_size=(96, 96))
    data.setup()
    positive = data.bags.labels[data.splits.test] == 1
    share = (data.masks("test")[positive] == 1).double().flatten(1).mean(1)
    print(f"gland {share.mean():.3f}, F1 of marking everything {(2 * share / (1 + share)).mean():.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
