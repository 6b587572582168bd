"""CPU threads of PyTorch: sums in another order round differently, so their number belongs to a run."""

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from kd_mil.core.checks import at_least

VARIABLE = "OMP_NUM_THREADS"
"""What processes started by this one take their number from."""
SIBLINGS = Path("topology", "thread_siblings_list")
"""In the folder of a processor: those that share its physical core."""


def use_threads(chosen: int | None, earlier: int | None) -> None:
    """Compute with so many threads, here and in the ranks that this process starts.

    Args:
        chosen: `trainer.threads`; None: as many as before the run was interrupted, else as PyTorch finds right.
        earlier: of the interrupted run that resumes; None where there is none.

    Raises:
        UserError: fewer than one.
    """
    import torch

    if chosen is not None:
        at_least("trainer.threads", chosen, 1)
    here = torch.get_num_threads()
    if chosen is None and earlier not in (None, here):
        print(f"the interrupted run had {earlier} CPU threads, {here} are usual here: it resumes with {earlier}")
    threads = chosen or earlier
    if threads is not None:
        os.environ[VARIABLE] = str(threads)
        torch.set_num_threads(threads)


def usual_threads(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """CPU threads that PyTorch takes where nobody says how many: one for each physical core that it may use.

    `OMP_NUM_THREADS` says how many. Linux knows its cores; elsewhere PyTorch is imported, which takes seconds.
    """
    said, plainly = os.environ.get(VARIABLE), "MKL_NUM_THREADS" not in os.environ
    if said is not None and plainly and re.fullmatch("[1-9][0-9]*", said):
        return int(said)
    if said is None and plainly and sys.platform == "linux":
        with suppress(OSError):
            return len({(topology / f"cpu{one}" / SIBLINGS).read_text() for one in os.sched_getaffinity(0)})
    import torch

    return torch.get_num_threads()
