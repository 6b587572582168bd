"""Environment variables that processes of this package pass to each other."""

import os
from collections.abc import Mapping, Sequence

FULL_ERROR = "HYDRA_FULL_ERROR"
TRACEBACK_WANTED = "KD_MIL_TRACEBACK"
"""What the user had set `HYDRA_FULL_ERROR` to: the command sets it for itself, but must not for its children."""
RANK_VARIABLES = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "PL_GLOBAL_SEED"),
)
"""What would make a fresh process believe that it is one rank of several."""


def environment(more: Mapping[str, str], without: Sequence[str] = ()) -> dict[str, str]:
    """Environment of a fresh process: this one's, with tracebacks only where the user wants them."""
    kept = {key: value for key, value in os.environ.items() if key not in (FULL_ERROR, *without)}
    return kept | dict(more) | ({FULL_ERROR: "1"} if os.environ.get(TRACEBACK_WANTED) else {})
