"""Resolution-based distillation: a network at low magnification learns from one at high (DiPalma et al. 2021).

arXiv 2101.04170

    python -m kd_mil.run experiment=resolution_kd
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.data.batches import PairBatch
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.phases import Phase, Phases
from kd_mil.methods.base.snapshot import Select, Snapshot
from kd_mil.methods.resolution.given_teacher import load_teacher
from kd_mil.methods.resolution.pair_loss import PairLoss
from kd_mil.methods.resolution.pair_method import Losses, PairMethod
from kd_mil.models.image_classifier import ImageClassifier

VIEWS = {"teacher": "teacher", "distil": "pairs", "finetune": "student", "baseline": "student"}
"""What the data module shows in each phase."""


class ResolutionDistillation(PairMethod):
    """Teacher on labelled images, student on pairs of resolutions without labels, then its last layer on labels.

    Args:
        class_names, teacher_downsample, student_downsample, auxiliary, held_out, source: what `PairedImages` says of
            itself; checkpoints of earlier versions have no source.
        network: factory of both networks, `network(num_classes=C) -> images (B, 3, H, W) -> ImageOutput`, with a
            `head` that takes the average of the feature map.
        loss: of a pair.
        mode: `distil`; `teacher` or `baseline` train one network on labels, at the teacher's or student's resolution.
        teacher_epochs, student_epochs, finetune_epochs: of the phases; 0 leaves one out.
        finetune: `on`, `off`, or `auto`: only if the student saw other images than the teacher (Sec. 3.4).
        teacher_ckpt: best.ckpt of an earlier run with a teacher; takes the place of the teacher phase.
        student_init: `random` or `teacher`.
        reload: the epoch that a phase hands on to the next: its `best` by validation loss, or its `last`.
        **training: augment, max_pixels, optimizer, gradient_clip, seed of `PairMethod`.
    """

    roles: tuple[str, ...] = ("teacher", "student", "model")
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
        source: Mapping[str, Any] | None = None,
        mode: Literal["distil", "teacher", "baseline"] = "distil",
        teacher_epochs: int = 100,
        student_epochs: int = 100,
        finetune_epochs: int = 20,
        finetune: Literal["auto", "on", "off"] = "auto",
        teacher_ckpt: str | None = None,
        student_init: Literal["random", "teacher"] = "random",
        reload: Select = "best",
        **training: Any,
    ) -> None:
        super().__init__(**training)
        if mode != "distil" and teacher_ckpt is not None:
            raise UserError(f"method.teacher_ckpt is of use with method.mode=distil, not with {mode}")
        if mode == "distil" and student_downsample <= teacher_downsample:
            raise UserError(
                f"data.student_downsample={student_downsample:g} must exceed data.teacher_downsample="
                f"{teacher_downsample:g}: the student sees less"
            )
        epochs = {"teacher": teacher_epochs, "student": student_epochs, "finetune": finetune_epochs}
        for name, count in epochs.items():
            at_least(f"method.{name}_epochs", count, 0)
        self.mode, self.student_init, self.pair_loss = mode, student_init, loss
        finetune_epochs = finetune_epochs if finetune == "on" or (finetune == "auto" and auxiliary) else 0
        self.phases = phases_of(mode, 0 if teacher_ckpt else teacher_epochs, student_epochs, finetune_epochs)
        if mode == "distil" and teacher_ckpt is None and teacher_epochs == 0:
            raise UserError("there is no teacher: set method.teacher_epochs, or method.teacher_ckpt=.../best.ckpt")
        self.roles = {"distil": ("teacher", "student"), "teacher": ("teacher",), "baseline": ("model",)}[mode]
        for name in ("teacher", "student"):
            if name in self.resolutions:
                setattr(self, name, ImageClassifier(network(num_classes=len(class_names))))
        if len(self.phases.names) > 1:
            self.best = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("student_updates", torch.tensor(0))
        self.register_buffer("best_loss", torch.tensor(math.inf))
        self.snapshot = Snapshot(self, select=reload)
        expected = {
            "class_names": class_names,
            "teacher_downsample": teacher_downsample,
            "source": source or {},
            "held_out": held_out,
        }
        self.teacher_is_given = teacher_ckpt is not None
        if teacher_ckpt is not None:
            load_teacher(self.teacher, teacher_ckpt, expected)
            self._start_student()

    @property
    def resolutions(self) -> tuple[str, ...]:
        return {"distil": ("teacher", "student"), "teacher": ("teacher",), "baseline": ("student",)}[self.mode]

    @property
    def learner(self) -> str:
        return "teacher" if self.phase == "teacher" else self.roles[-1]

    @property
    def train_view(self) -> str:
        return VIEWS[self.phase]

    def parts(self) -> list[nn.Module]:
        return list(self._trained().values())

    def _trained(self) -> dict[str, nn.Module]:
        """Parts with an optimiser: the teacher if it is trained here, the student without its head, and its head."""
        parts: dict[str, nn.Module] = {}
        if "teacher" in self.phases.names:
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
        """Pixel statistics of the training images."""
        super().setup(stage)
        if stage != "fit":
            return
        for name in self.resolutions:
            if not (name == "teacher" and self.teacher_is_given):
                statistics = self.trainer.datamodule.channel_statistics(name)  # type: ignore[attr-defined]
                preprocess = getattr(self, name).preprocess
                preprocess.mean, preprocess.std = (value.to(preprocess.mean.device) for value in statistics)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.phases.begins(self.current_epoch):
            self._begin_phase()
        if self.mode == "distil" and self.phase != "teacher":
            self.teacher.eval()

    def _begin_phase(self) -> None:
        """Start a later phase from the network that the one before hands on."""
        ended = self.teacher if self.phase == "distil" else self.student
        self.snapshot.hand_on(ended, ended)
        if self.phase == "distil":
            self._start_student()
        if self.phase == "finetune":
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
        return {"total": F.cross_entropy(logits.float(), labels)}

    def on_validation_epoch_end(self) -> None:
        """Score, then offer the network in training to the snapshot, by its validation loss."""
        super().on_validation_epoch_end()
        if self.fitting and len(self.phases.names) > 1:
            network, _ = self.classifiers()[self.learner]
            self.snapshot.offer(network, self.scores["val"][self.learner]["image_loss"])

    def has_learned(self, role: str) -> bool:
        return role == "teacher" or bool(self.student_updates > 0)


def phases_of(mode: str, teacher: int, student: int, finetune: int) -> Phases:
    """The phases of a mode, of that many epochs each; those of none are left out.

    Raises:
        UserError: no epochs for what the mode is about.
    """
    needed, epochs = ("teacher_epochs", teacher) if mode == "teacher" else ("student_epochs", student)
    if epochs == 0:
        raise UserError(f"method.mode={mode} without epochs: set method.{needed}")
    if mode != "distil":
        return Phases(Phase(mode, epochs, f"method.{needed}"))
    return Phases(
        Phase("teacher", teacher, "method.teacher_epochs"),
        Phase("distil", student, "method.student_epochs"),
        Phase("finetune", finetune, "method.finetune_epochs"),
    )
