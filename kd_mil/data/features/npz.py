"""Feature tables in NumPy's .npz files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.data.bags import BagSplits
from kd_mil.data.features.files.arrays import open_arrays, stored_array
from kd_mil.data.features.files.feature_file import FeatureFile


def standardised(splits: BagSplits) -> BagSplits:
    """Features with mean 0 and variance 1 over the training instances; constant ones become 0."""
    bags = splits.bags
    assert isinstance(bags.instances, Tensor)
    train = bags.instances[bags.instances_of(splits.train).to(bags.device)]
    deviation, mean = torch.std_mean(train, dim=0, correction=0)
    scaled = (bags.instances - mean) / torch.where(deviation > 0, deviation, 1)
    return splits._replace(bags=replace(bags, instances=scaled))


def read_arrays(path: Path, keys: Sequence[str]) -> tuple[Tensor, list[np.ndarray]]:
    """`X` (N, D) float32, and the arrays of the other keys."""
    file = FeatureFile(path)
    features = file.read(torch.arange(file.num_instances), torch.float32)
    arrays = open_arrays(path)
    for key in keys:
        if key not in arrays:
            raise UserError(f"{path} has no array {key!r}; it has {', '.join(arrays)}")
    return features, [np.asarray(stored_array(path, arrays, key)) for key in keys]
