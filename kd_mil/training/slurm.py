"""SLURM as kd_mil uses it: exact resume instead of Lightning's checkpoints inside an epoch."""

import os

from lightning.pytorch.plugins.environments import SLURMEnvironment

from kd_mil.core.errors import UserError


class Slurm(SLURMEnvironment):
    """Ranks as `srun` made them. Putting the job back into the queue is left to `callbacks.stop_on_signal`.

    Raises:
        UserError: outside a SLURM job step.
    """

    def __init__(self) -> None:
        if "SLURM_NTASKS" not in os.environ or "SLURM_PROCID" not in os.environ:
            raise UserError("trainer=slurm works inside `srun` only: elsewhere use trainer=ddp, gpu or auto")
        super().__init__(auto_requeue=False)
