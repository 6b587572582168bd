"""Random numbers beside those of the run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def apart(seed: int) -> Iterator[None]:
    """Draw on the CPU from a seed of one's own: equal on all ranks, and the run's generators stay as they are.

    Those of GPUs are not touched at all, which `torch.manual_seed` would reset on every one.

        with apart(seed): network = new_network()
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
