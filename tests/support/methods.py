"""Every method at the scale of milliseconds, on the networks of `tests.support.tiny`."""

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from kd_mil.core.checkpoints import AtomicCheckpointIO
from kd_mil.data.tiles.taught_slides import Taught
from kd_mil.methods.baselines.mhim import MHIM
from kd_mil.methods.baselines.mil import MIL
from kd_mil.methods.baselines.rnn_mil import RNNMIL
from kd_mil.methods.distill_to_label.distill_to_label import DistillToLabel
from kd_mil.methods.distill_to_label.vat import VAT
from kd_mil.methods.distill_to_label.weights import Distillation
from kd_mil.methods.ins.ins import INS
from kd_mil.methods.resolution.low_magnification import LowMagnification
from kd_mil.methods.sela_mil.sela_mil import SeLaMIL
from kd_mil.methods.weno.weno import WENO
from tests.support.tiny import TinyData, no_mining, tiny_abmil, tiny_head, tiny_parts


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


def make_ins(seed=0, norm=False, **settings):
    torch.manual_seed(seed)
    small = {"student_head": tiny_head(), "projection": 4, "queue": 24, "seed": seed}
    return INS(**tiny_parts(norm) | small | settings)


def make_sela_mil(seed=0, norm=False, **settings):
    torch.manual_seed(seed)
    return SeLaMIL(**tiny_parts(norm) | {"student_head": tiny_head(), "seed": seed} | settings)


def make_low_magnification(**settings):
    torch.manual_seed(0)
    return LowMagnification(**tiny_parts(), student_head=tiny_head(), **settings)


class TaughtData(TinyData):
    """Bags whose instances come with a teacher's word: the truth."""

    def __init__(self, splits):
        super().__init__(splits)
        truth = splits.bags.instance_labels.clamp_min(0).long()
        probs = torch.nn.functional.one_hot(truth, 2).float()
        sizes = splits.bags.sizes[splits.bags.bag_of_instance]
        self.taught = Taught(probs, 1 / sizes.float())


def checkpointing(folder):
    last = ModelCheckpoint(
        dirpath=folder,
        filename="epoch{epoch}",
        auto_insert_metric_name=False,
        save_top_k=-1,
        save_on_train_epoch_end=True,
    )
    return {"callbacks": [last], "enable_checkpointing": True, "plugins": [AtomicCheckpointIO()]}
