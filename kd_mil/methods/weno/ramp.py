"""The weight of a loss or a correction that grows in a straight line while training begins."""

from kd_mil.core.errors import UserError


def ramped(weight: float, ramp: float, epoch: int, run_epochs: int | None, setting: str) -> float:
    """The weight in an epoch (from 0): 0 at the first, full once the share `ramp` of the run is over.

    Args:
        weight: the full one; 0 is off in every epoch.
        ramp: share of the run's epochs, in [0, 1]; 0 for the full weight from the first epoch on.
        run_epochs: epochs of the run, None or -1 for no end.
        setting: what the user sets the weight with, in messages.

    Raises:
        UserError: a ramp in a run without an end.
    """
    if weight == 0 or ramp == 0:
        return weight
    if run_epochs in (None, -1):
        raise UserError(f"{setting}.ramp={ramp} needs trainer.max_epochs, or {setting}.ramp=0")
    return weight * min(1.0, epoch / (ramp * run_epochs))
