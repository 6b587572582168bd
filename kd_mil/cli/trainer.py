"""Settings of Lightning's trainer that cannot be, or that would break what a run promises, found before it begins."""

from collections.abc import Mapping
from typing import Any

from kd_mil.core.checks import shown, whole
from kd_mil.core.errors import UserError

KEPT = "a run keeps checkpoints, which it tests and from which it resumes"
WHOLE = "a run is made of whole epochs, which are validated and kept: trainer.max_epochs=N"
PART = "scores would be those of a part of the bags: give the data fewer of them"
UNFIT: dict[str, tuple[tuple[Any, ...], str]] = {
    "fast_dev_run": ((False, None), "keeps no checkpoint to test: debug=one_batch tries whether a run works"),
    "enable_checkpointing": ((True, None), KEPT),
    "barebones": ((False,), KEPT),
    "max_steps": ((-1,), WHOLE),
    "max_time": ((None,), WHOLE),
    "val_check_interval": ((1.0, None), WHOLE),
    "limit_val_batches": ((1.0, None), PART),
    "limit_test_batches": ((1.0, None), PART),
    "limit_train_batches": ((1.0, None), "loading.limit_batches=N trains on so many batches of each view"),
    "overfit_batches": ((0, 0.0), "debug=overfit tries whether a few bags can be learned by heart"),
    "accumulate_grad_batches": ((1,), "bags_per_step=N makes one update of N bags"),
    "gradient_clip_val": ((None,), "method.gradient_clip=NORM clips, where a method does"),
    "use_distributed_sampler": ((False,), "the data module deals bags to processes; evaluation is never padded"),
}
"""By setting: the values that are taken (one batch is `1`, all of them `1.0`), and what to do instead of others."""


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuse values under `trainer` that would fail, or spoil a result, only after training.

    Raises:
        UserError: naming the setting, and what serves instead.
    """
    for name, (taken, instead) in UNFIT.items():
        value = trainer.get(name, taken[0])
        if not any(value == one and type(value) is type(one) for one in taken):
            raise UserError(f"trainer.{name}={shown(value)}: {instead}")
    epochs, every = trainer.get("max_epochs"), trainer.get("check_val_every_n_epoch", 1)
    if epochs == 0:
        raise UserError("trainer.max_epochs=0: nothing would be trained; give at least 1")
    whole("trainer.check_val_every_n_epoch", every, 1)
    if isinstance(epochs, int) and 0 < epochs < every:
        raise UserError(f"trainer.check_val_every_n_epoch={every}: none of {epochs} epochs would be validated")
    check_processes(trainer)


def check_processes(trainer: Mapping[str, Any]) -> None:
    """Refuse numbers of processes that are none.

    Args:
        trainer: `devices` is a number (-1: all GPUs), a list of GPUs, or either as text.

    Raises:
        UserError: naming the setting.
    """
    devices, on_cpu = trainer.get("devices", "auto"), trainer.get("accelerator") == "cpu"
    words = [str(one) for one in devices] if isinstance(devices, list) else str(devices).split(",")
    is_counted = bool(words) and all(word.isdecimal() for word in words)
    if isinstance(devices, list) or len(words) > 1:  # which GPUs
        is_right = is_counted and not on_cpu
    else:
        is_right = devices == "auto" or (is_counted and int(words[0]) > 0) or (words == ["-1"] and not on_cpu)
    if not is_right:
        gpus = "" if on_cpu else ", trainer.devices=-1 for all GPUs, trainer.devices=[0,2] for some"
        raise UserError(f"trainer.devices={devices}: give a number of processes, as trainer.devices=2{gpus}")
    whole("trainer.num_nodes", trainer.get("num_nodes", 1), 1)
