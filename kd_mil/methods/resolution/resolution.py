"""Resolution-based distillation (DiPalma et al. 2021): a network at low magnification learns from one at high."""

import copy
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from kd_mil.core.checks import above, at_least
from kd_mil.core.errors import UserError
from kd_mil.data.batches import PairBatch
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.resolution.losses import Reduction, Resize, pixel_floor, pixel_loss, resize_map, soft_loss
from kd_mil.methods.resolution.pair_method import Losses, PairMethod, load_teacher
from kd_mil.models.image_classifier import ImageClassifier, ImageOutput


class Phase(NamedTuple):
    """A stretch of epochs with one aim."""

    name: Literal["teacher", "distil", "finetune", "baseline"]
    epochs: int


VIEWS = {"teacher": "teacher", "distil": "pairs", "finetune": "student", "baseline": "student"}
"""What the data module shows in each phase."""


@dataclass(frozen=True)
class PairLoss:
    """Eq. 1 of a pair's two outputs.

    Raises:
        UserError: a setting out of range.
    """

    temperature: float = 1.0
    """T of Eq. 2."""
    w_soft: float = 1.0
    w_pixel: float = 1.0
    """Weights of the two terms; 1 in Eq. 1."""
    resize: Sequence[Resize] = ("maxpool", "bicubic")
    """The g of Eq. 3; none leaves the pixel loss out."""
    clamp_min: float | None = None
    """Smallest value of the bicubic map; None as published."""
    reduction: Reduction = "mean"
    """Of the pixel loss within an image."""

    def __post_init__(self) -> None:
        above("method.loss.temperature", self.temperature)
        for name in ("w_soft", "w_pixel"):
            at_least(f"method.loss.{name}", getattr(self, name), 0)

    def __call__(self, student: ImageOutput, teacher: ImageOutput) -> Losses:
        """Losses of B pairs: `soft`, `pixel` and what lies above its floor, `pixel` by each resizing, `total`."""
        losses = {"soft": soft_loss(student.logits, teacher.logits, self.temperature)}
        total = self.w_soft * losses["soft"]
        height, width = student.feature_map.shape[-2:]
        targets = [resize_map(teacher.feature_map, (height, width), one, self.clamp_min) for one in self.resize]
        if targets:
            losses["pixel"] = pixel_loss(student.feature_map, targets, self.reduction)
            losses["pixel_excess"] = losses["pixel"] - pixel_floor(targets, self.reduction)
            for name, target in zip(self.resize, targets, strict=True):
                losses[f"pixel_{name}"] = pixel_loss(student.feature_map, [target], self.reduction)
            total = total + self.w_pixel * losses["pixel"]
        return losses | {"total": total}


class Resolution(PairMethod):
    """Teacher on labelled images, student on pairs of resolutions without labels, then its last layer on labels.

    Args:
        class_names, teacher_downsample, student_downsample, auxiliary, held_out: what `PairedImages` says of itself.
        network: factory of both networks, `network(num_classes=C) -> images (B, 3, H, W) -> ImageOutput`, with a
            `head` that takes the average of the feature map.
        loss: of a pair.
        mode: `distil`; `teacher` or `baseline` train one network on labels, at the teacher's or student's resolution.
        teacher_epochs, student_epochs, finetune_epochs: of the phases; 0 leaves one out.
        finetune: `on`, `off`, or `auto`: only if the student saw other images than the teacher (Sec. 3.4).
        teacher_ckpt: best.ckpt of an earlier run with a teacher; takes the place of the teacher phase.
        student_init: `random` or `teacher`.
        **training: augment, max_pixels, optimizer, gradient_clip, seed of `PairMethod`.
    """

    student_updates: Tensor
    best_loss: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        teacher_downsample: float,
        student_downsample: float,
        auxiliary: bool,
        held_out: str,
        network: ModuleFactory,
        loss: PairLoss,
        mode: Literal["distil", "teacher", "baseline"] = "distil",
        teacher_epochs: int = 100,
        student_epochs: int = 100,
        finetune_epochs: int = 20,
        finetune: Literal["auto", "on", "off"] = "auto",
        teacher_ckpt: str | None = None,
        student_init: Literal["random", "teacher"] = "random",
        **training: Any,
    ) -> None:
        super().__init__(**training)
        for name, epochs in (("teacher", teacher_epochs), ("student", student_epochs), ("finetune", finetune_epochs)):
            at_least(f"method.{name}_epochs", epochs, 0)
        if mode != "distil" and teacher_ckpt is not None:
            raise UserError(f"method.teacher_ckpt is of use with method.mode=distil, not with {mode}")
        if mode == "distil" and student_downsample <= teacher_downsample:
            raise UserError(
                f"data.student_downsample={student_downsample:g} must exceed data.teacher_downsample="
                f"{teacher_downsample:g}: the student sees less"
            )
        self.mode, self.student_init, self.pair_loss = mode, student_init, loss
        self.phases = _schedule(
            mode,
            teacher=0 if teacher_ckpt else teacher_epochs,
            distil=student_epochs,
            finetune=finetune_epochs if finetune == "on" or (finetune == "auto" and auxiliary) else 0,
        )
        if mode == "distil" and teacher_ckpt is None and self.phases[0].name != "teacher":
            raise UserError("there is no teacher: set method.teacher_epochs, or method.teacher_ckpt=.../best.ckpt")
        self.roles = {"distil": ("teacher", "student"), "teacher": ("teacher",), "baseline": ("model",)}[mode]
        for name in ("teacher", "student"):
            if name in self.resolutions:
                setattr(self, name, ImageClassifier(network(num_classes=len(class_names))))
        if len(self.phases) > 1:  # the network a phase ends with is its best one on validation labels
            self.best = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("student_updates", torch.tensor(0))
        self.register_buffer("best_loss", torch.tensor(torch.inf))
        expected = {"class_names": class_names, "teacher_downsample": teacher_downsample, "held_out": held_out}
        self.teacher_is_given = teacher_ckpt is not None
        if teacher_ckpt is not None:
            load_teacher(self.teacher, teacher_ckpt, expected)
            self._start_student()

    @property
    def resolutions(self) -> tuple[str, ...]:
        return {"distil": ("teacher", "student"), "teacher": ("teacher",), "baseline": ("student",)}[self.mode]

    @property
    def phase(self) -> str:
        """Name of the phase of the present epoch."""
        return self.phases[bisect_right(self.phase_starts, self.current_epoch) - 1].name

    @property
    def phase_starts(self) -> list[int]:
        ends = accumulate(phase.epochs for phase in self.phases)
        return [0, *ends][:-1]

    @property
    def train_view(self) -> str:
        return VIEWS[self.phase]

    def parts(self) -> list[nn.Module]:
        return list(self._trained().values())

    def _trained(self) -> dict[str, nn.Module]:
        """Parts with an optimiser: the teacher if it is trained here, the student without its head, and its head."""
        parts: dict[str, nn.Module] = {}
        if self.phases[0].name == "teacher":
            parts["teacher"] = self.teacher
        if "student" in self.resolutions:
            layers = self.student.network.named_children()
            parts["trunk"] = nn.ModuleList([layer for name, layer in layers if name != "head"])
            parts["head"] = self.student.network.head  # type: ignore[assignment]
        return parts

    def moved(self) -> list[Any]:
        moved = {"teacher": ("teacher",), "finetune": ("head",)}.get(self.phase, ("trunk", "head"))
        named = dict(zip(self._trained(), self.optimizer_list(), strict=True))
        return [named[name] for name in moved]

    def setup(self, stage: str) -> None:
        """Pixel statistics of the training images, and the number of epochs."""
        if stage != "fit":
            return
        for name in self.resolutions:
            if not (name == "teacher" and self.teacher_is_given):
                statistics = self.trainer.datamodule.channel_statistics(name)  # type: ignore[attr-defined]
                preprocess = getattr(self, name).preprocess
                preprocess.mean, preprocess.std = (value.to(preprocess.mean.device) for value in statistics)
        total, limit = sum(phase.epochs for phase in self.phases), self.trainer.max_epochs
        if limit in (None, -1) or limit > total:
            self.trainer.fit_loop.max_epochs = total
        elif limit <= total - self.phases[-1].epochs:
            warnings.warn(
                f"trainer.max_epochs={limit} ends the run before its phase {self.phases[-1].name}", stacklevel=2
            )

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.current_epoch in self.phase_starts[1:]:
            self._enter(self.phase)
        if self.mode == "distil" and self.phase != "teacher":
            self.teacher.eval()

    def _enter(self, phase: str) -> None:
        """Start a later phase from the best network of the one before."""
        before = self.teacher if phase == "distil" else self.student
        if self.best_loss.isfinite():
            before.load_state_dict(self.best.state_dict())
        self.best_loss.fill_(torch.inf)
        if phase == "distil":
            self._start_student()
        if phase == "finetune":
            self.moved()[0].optimizer.state.clear()

    def _start_student(self) -> None:
        if self.student_init == "teacher":
            self.student.network.load_state_dict(self.teacher.network.state_dict())

    def training_step(self, images: PairBatch, batch_idx: int) -> None:
        super().training_step(images, batch_idx)
        self.student_updates += self.phase != "teacher"

    def losses(self, teacher_images: Tensor | None, student_images: Tensor | None, labels: Tensor) -> Losses:
        if self.phase == "distil":
            assert teacher_images is not None
            assert student_images is not None
            with torch.no_grad():
                teacher = self.teacher(teacher_images)
            return self.pair_loss(self.student(student_images), teacher)
        if self.phase == "finetune":
            with torch.no_grad():
                feature_map = self.student(student_images).feature_map
            logits = self.student.network.head(feature_map.mean((2, 3)))  # type: ignore[operator]
        else:
            logits = (self.teacher(teacher_images) if self.phase == "teacher" else self.student(student_images)).logits
        loss = F.cross_entropy(logits.float(), labels)
        return {"total": loss, "ce": loss}

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        trainer, role = self.trainer, "teacher" if self.phase == "teacher" else self.roles[-1]
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or len(self.phases) == 1:
            return
        loss = self.scores["val"][role]["image_loss"]
        if loss < self.best_loss:
            self.best_loss.fill_(loss)
            self.best.load_state_dict(self.classifiers()[role][0].state_dict())

    def has_learned(self, role: str) -> bool:
        return role == "teacher" or bool(self.student_updates > 0)


def _schedule(mode: str, teacher: int, distil: int, finetune: int) -> list[Phase]:
    """The phases of a mode that have epochs.

    Raises:
        UserError: none to train in.
    """
    phases = {
        "distil": [Phase("teacher", teacher), Phase("distil", distil), Phase("finetune", finetune)],
        "teacher": [Phase("teacher", teacher)],
        "baseline": [Phase("baseline", distil)],
    }[mode]
    chosen = [phase for phase in phases if phase.epochs]
    if not chosen or (mode == "distil" and distil == 0):
        name = "teacher_epochs" if mode == "teacher" else "student_epochs"
        raise UserError(f"method.mode={mode} without epochs: set method.{name}")
    return chosen
