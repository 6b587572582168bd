"""Every method at the scale of milliseconds, on the networks of `tests.support.tiny`."""

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from kd_mil.core.checkpoints import AtomicCheckpointIO
from kd_mil.methods.baselines.mhim import MHIM
from kd_mil.methods.baselines.mil import MIL
from kd_mil.methods.baselines.rnn_mil import RNNMIL
from kd_mil.methods.distill_to_label.distill_to_label import DistillToLabel
from kd_mil.methods.distill_to_label.vat import VAT
from kd_mil.methods.distill_to_label.weights import Distillation
from kd_mil.methods.weno.weno import WENO
from tests.support.tiny import no_mining, tiny_abmil, tiny_head, tiny_parts


def make_d2l(norm=False, seed=0, vat=None, kd=None, **switches):
    torch.manual_seed(seed)
    settings = {"aggregator": tiny_abmil(gated=True), "teacher_epochs": 3, "student_epochs": 3, "seed": seed}
    parts = {"vat": VAT(**vat or {}), "kd": Distillation(**kd or {})}
    return DistillToLabel(**tiny_parts(norm) | settings | parts | switches)


def quiet_trainer(**settings):
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False}
    return L.Trainer(num_sanity_val_steps=0, use_distributed_sampler=False, **quiet | settings)


def make_mil(seed=0, norm=False, **settings):
    torch.manual_seed(seed)
    return MIL(**tiny_parts(norm) | {"aggregator": tiny_abmil(), "seed": seed} | settings)


def make_mhim(seed=0, norm=False, **settings):
    torch.manual_seed(seed)
    return MHIM(**tiny_parts(norm) | {"aggregator": tiny_abmil(), "seed": seed} | settings)


def make_rnn_mil(seed=0, norm=False, **settings):
    torch.manual_seed(seed)
    settings = {"student_head": tiny_head(), "state": 5, "read": 3, "rnn_start_epoch": 1, "seed": seed} | settings
    return RNNMIL(**tiny_parts(norm) | settings)


def make_weno(norm=True, seed=0, **switches):
    torch.manual_seed(seed)
    settings = {"aggregator": tiny_abmil(), "student_head": tiny_head(), "hpm": no_mining(), "seed": seed}
    return WENO(**tiny_parts(norm) | settings | switches)


def checkpointing(folder):
    last = ModelCheckpoint(
        dirpath=folder,
        filename="epoch{epoch}",
        auto_insert_metric_name=False,
        save_top_k=-1,
        save_on_train_epoch_end=True,
    )
    return {"callbacks": [last], "enable_checkpointing": True, "plugins": [AtomicCheckpointIO()]}
