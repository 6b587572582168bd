"""CPU threads of PyTorch: sums in another order round differently, so their number belongs to a run."""

import os

import torch

from kd_mil.core.checks import at_least

VARIABLE = "OMP_NUM_THREADS"
"""What processes started by this one take their number from."""


def use_threads(chosen: int | None, earlier: int | None) -> None:
    """Compute with so many threads, here and in the ranks that this process starts.

    Args:
        chosen: `trainer.threads`; None: as many as before the run was interrupted, else as PyTorch finds right.
        earlier: of the interrupted run that resumes; None where there is none.

    Raises:
        UserError: fewer than one.
    """
    if chosen is not None:
        at_least("trainer.threads", chosen, 1)
    here = torch.get_num_threads()
    if chosen is None and earlier not in (None, here):
        print(f"the interrupted run had {earlier} CPU threads, {here} are usual here: it resumes with {earlier}")
    threads = chosen or earlier
    if threads is not None:
        os.environ[VARIABLE] = str(threads)
        torch.set_num_threads(threads)
