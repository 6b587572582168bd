"""What would fail, or spoil a result, only after training is refused before it."""

import pytest

from kd_mil.cli.trainer import check_trainer
from kd_mil.core.errors import UserError


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"max_epochs": 0}, "trainer.max_epochs=0: nothing would be trained"),
        ({"fast_dev_run": True}, "trainer.fast_dev_run=true: .*debug=one_batch"),
        ({"limit_val_batches": 0}, "trainer.limit_val_batches=0: scores would be those of a part"),
        ({"limit_test_batches": 1}, "trainer.limit_test_batches=1: scores would be those of a part"),
        ({"limit_test_batches": 0.5}, "trainer.limit_test_batches=0.5: "),
        ({"limit_train_batches": 3}, "trainer.limit_train_batches=3: loading.limit_batches"),
        ({"max_steps": 3}, "trainer.max_steps=3: a run is made of whole epochs"),
        ({"max_time": "00:00:01:00"}, "trainer.max_time=00:00:01:00: a run is made of whole epochs"),
        ({"val_check_interval": 0.5}, "trainer.val_check_interval=0.5: "),
        ({"overfit_batches": 1}, "trainer.overfit_batches=1: debug=overfit"),
        ({"accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches=2: bags_per_step"),
        ({"gradient_clip_val": 1.0}, "trainer.gradient_clip_val=1.0: method.gradient_clip"),
        ({"enable_checkpointing": False}, "trainer.enable_checkpointing=false: a run keeps checkpoints"),
        ({"use_distributed_sampler": True}, "trainer.use_distributed_sampler=true: "),
        ({"check_val_every_n_epoch": 3, "max_epochs": 2}, "n_epoch=3: none of 2 epochs would be validated"),
        ({"check_val_every_n_epoch": None}, "n_epoch=null: must be a whole number, at least 1"),
        *(({"devices": value}, r"trainer.devices=.*: give a number") for value in ("two", 0, -2, [], "0,x", 1.5, True)),
        *(({"devices": value, "accelerator": "cpu"}, r"trainer.devices=2$|give a number") for value in (-1, [0, 1])),
        ({"num_nodes": 0}, "trainer.num_nodes=0: must be a whole number, at least 1"),
    ],
)
def test_settings_that_break_a_run(settings, line):
    with pytest.raises(UserError, match=line):
        check_trainer({"max_epochs": 5} | settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"limit_val_batches": 1.0, "max_steps": -1, "gradient_clip_val": None, "overfit_batches": 0},
        {"max_epochs": -1, "check_val_every_n_epoch": 9},
        {"max_epochs": 2, "check_val_every_n_epoch": 2},
        *({"devices": value, "accelerator": "cuda"} for value in ("auto", 2, "2", -1, "-1", [0, 1], "0,1")),
        *({"devices": value, "accelerator": "cpu", "num_nodes": 2} for value in ("auto", 2, "2")),
    ],
)
def test_settings_that_break_none(settings):
    check_trainer({"max_epochs": 5} | settings)
