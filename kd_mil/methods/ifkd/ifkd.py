"""IFKD: weakly supervised segmentation by iterative fusion distillation (He, Li, Zemp, arXiv 2407.10274).

python -m kd_mil.run experiment=ifkd_vgg
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kd_mil.core.checks import at_least
from kd_mil.core.draws import apart
from kd_mil.core.errors import UserError
from kd_mil.data.batches import ImageBatch
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.phases import Phase, Phases
from kd_mil.methods.base.segmentation_method import SegmentationMethod
from kd_mil.methods.base.snapshot import Select, Snapshot
from kd_mil.methods.ifkd.losses import (
    DistillationMode,
    PixelSpace,
    PixelTarget,
    distillation_loss,
    teacher_dice,
    teacher_gm_bce,
    teacher_targets,
    weighted_cross_entropy,
)
from kd_mil.methods.ifkd.role_switch import RoleSwitch
from kd_mil.models.outputs import SegmentationOutput


@dataclass(frozen=True)
class PixelCrossEntropy:
    """The weighted cross-entropy L_wce of stage two; see `weighted_cross_entropy` of the losses.

    Raises:
        UserError: a negative weight.
    """

    weight: float = 2.0
    """lambda_wce; 0 = none."""
    target: PixelTarget = "threshold"
    space: PixelSpace = "logit"
    easy_examples: bool = True

    def __post_init__(self) -> None:
        at_least("method.wce.weight", self.weight, 0)


class IFKD(SegmentationMethod):
    """A MIL segmenter teaches a copy of itself by its fused map; when the student is better, they change places.

    Stage one trains the teacher on image labels. Stage two freezes its best epoch and trains the student: in positive
    images on the teacher's fused map, in negative ones on an empty map. No mask is ever read for it.

    What is "best" in either stage, and whether a switch pays, is judged by the metric of the run's `monitor`, taken for
    the role in question.

    Args:
        instance_shape: (C, H, W) of the images.
        num_classes: 2.
        segmenter: factory of the network, one architecture for both roles.
        teacher_epochs: length of stage one.
        stage_one: loss of stage one, `dice` against the image label everywhere (released), or `gm_bce`, cross-entropy
            of the generalised mean (the base works).
        mode: which map teaches which, Fig. 2: `fusion`, `layer` or `output`.
        wce: the pixel cross-entropy of stage two.
        switch: when and how roles are switched.
        reload: the epoch that stage one hands on, and that counts as the student's best: its `best` by the monitor, or
            the `last`, where validation is too small to tell.
        **training: preprocess, reading, optimizer, gradient_clip, seed of `SegmentationMethod`.

    Raises:
        UserError: more than two classes, or no epoch of stage one.
    """

    roles = ("teacher", "student")
    distilling: Tensor
    switches: Tensor
    score_to_beat: Tensor
    last_score: Tensor

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        segmenter: ModuleFactory,
        wce: PixelCrossEntropy,
        switch: RoleSwitch,
        teacher_epochs: int = 30,
        stage_one: Literal["dice", "gm_bce"] = "dice",
        mode: DistillationMode = "fusion",
        reload: Select = "best",
        **training: Any,
    ) -> None:
        super().__init__(**training)
        if num_classes != 2:
            raise UserError(f"IFKD tells tumour from the rest, but the data has {num_classes} classes")
        at_least("method.teacher_epochs", teacher_epochs, 1)
        self.new_segmenter, self.instance_shape = segmenter, tuple(instance_shape)
        self.teacher = segmenter(instance_shape=self.instance_shape)
        self.student = segmenter(instance_shape=self.instance_shape)
        self.best = BestSoFar(self.teacher)
        self.snapshot = Snapshot(self.best, "network", "score", mode="max", select=reload)
        self.phases = Phases(Phase("teacher", teacher_epochs, "method.teacher_epochs"), Phase("student"))
        self.mode, self.wce, self.switch = mode, wce, switch
        self.teacher_loss = teacher_dice if stage_one == "dice" else teacher_gm_bce
        self.metric = "image_loss"
        self.stage_two = False
        self.register_buffer("distilling", torch.tensor(False))
        self.register_buffer("switches", torch.tensor(0))
        for name in ("score_to_beat", "last_score"):
            self.register_buffer(name, torch.tensor(math.nan, dtype=torch.float64))

    def parts(self) -> list[nn.Module]:
        return [self.teacher, self.student]

    def trained_parts(self) -> list[nn.Module]:
        return [self.student if self.stage_two else self.teacher]

    def check_monitor(self, monitor: str) -> None:
        """As for all methods on images; the metric also judges the best epochs and the switches."""
        super().check_monitor(monitor)
        self.metric = monitor.split("/")[2]

    def on_train_epoch_start(self) -> None:
        """Freeze, switch or continue: decided before the epoch, so that checkpoints hold what validation scored."""
        super().on_train_epoch_start()
        epochs = self.current_epoch - self.phases.starts[1]
        if epochs >= 0 and not self.distilling:
            self.freeze_teacher()
        elif epochs > 0 and self.switch.due(epochs):
            self.switch_roles()
        self.stage_two = bool(self.distilling)
        self.teacher.train(not self.stage_two)
        self.student.train(self.stage_two)

    def freeze_teacher(self) -> None:
        """From stage one to stage two: the teacher's best epoch is the teacher, and nothing trains it any more."""
        self.score_to_beat.copy_(self.snapshot.score)
        self.snapshot.hand_on(self.teacher)
        self.distilling.fill_(True)

    def switch_roles(self) -> None:
        """The student becomes the teacher, if the rule says so. Weights move, networks and optimisers stay."""
        from_best = self.switch.source == "best" and not self.snapshot.empty
        score = self.snapshot.score if from_best else self.last_score
        better = bool(score > self.score_to_beat) or bool(self.score_to_beat.isnan())
        if self.switch.rule == "if_better" and not better:
            return
        promoted = self.snapshot.network if from_best and better else self.student
        old_teacher = {name: value.clone() for name, value in self.teacher.state_dict().items()}
        self.teacher.load_state_dict(promoted.state_dict())
        if self.switch.student_reinit == "old_teacher":
            self.student.load_state_dict(old_teacher)
        elif self.switch.student_reinit == "fresh":
            self.student.load_state_dict(self._fresh_weights())
        if self.switch.reset_optimizer:
            self.optimizer_list()[1].optimizer.state.clear()
        self.score_to_beat.copy_(score if better else self.score_to_beat)
        self.snapshot.forget()
        self.switches += 1

    def _fresh_weights(self) -> dict[str, Tensor]:
        """New weights, the same on every rank, another set at each switch."""
        with apart(self.seed * 1_000_003 + int(self.switches) + 1):
            return self.new_segmenter(instance_shape=self.instance_shape).state_dict()

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        teacher, student = self.optimizer_list()
        images = self.preprocess(batch.images)
        if self.stage_two:
            terms = self.student_terms(images, batch.labels)
            loss = terms["distillation"] + self.wce.weight * terms.get("wce", 0.0)
            self.step_optimizers(loss, student)
            self.log_loss("student", loss, len(batch.labels), **terms)
        else:
            output: SegmentationOutput = self.teacher(images)
            loss = self.teacher_loss(output.sides, output.fused, batch.labels).mean()
            self.step_optimizers(loss, teacher)
            self.log_loss("teacher", loss, len(batch.labels))

    def student_terms(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """L_kd and L_wce of the student, means over images already preprocessed (B, C, H, W)."""
        with torch.no_grad():
            teacher: SegmentationOutput = self.teacher(images)
        student: SegmentationOutput = self.student(images)
        terms = {
            "distillation": distillation_loss(
                student.sides, student.fused, teacher.sides, teacher.fused, labels, self.mode
            ).mean()
        }
        if self.wce.weight > 0:
            targets, how = teacher_targets(teacher.fused, labels), self.wce
            pixels = weighted_cross_entropy(student.fused, targets, how.target, how.space, how.easy_examples)
            terms["wce"] = pixels.mean()
        return terms

    def shorten_phases(self, epochs: int) -> None:
        """Stage one, stage two up to the first chance to switch, and as much after it."""
        teacher, student = self.phases
        self.phases = Phases(teacher._replace(epochs=epochs), student._replace(epochs=2 * epochs))
        self.switch = replace(self.switch, first=epochs, period=epochs)

    def predict_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Fused maps; the student's once it has begun to learn."""
        pixels = self.preprocess(images)
        maps = {"teacher": self.teacher(pixels).fused}
        return maps | {"student": self.student(pixels).fused} if self.distilling else maps

    def on_validation_epoch_end(self) -> None:
        """Score, then offer the network in training to the snapshot of its stage."""
        super().on_validation_epoch_end()
        if not self.fitting:
            return
        role = "student" if self.stage_two else "teacher"
        score = self.scores["val"][role][self.metric]
        score = -score if self.metric.endswith("loss") else score
        self.snapshot.offer(self.student if self.stage_two else self.teacher, score)
        self.last_score.fill_(score)
        self.log("switch/count", float(self.switches), batch_size=1)


class BestSoFar(nn.Module):
    """Where a checkpoint keeps the best network of a stage, and its score: higher is better, NaN before the first."""

    score: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("score", torch.tensor(math.nan, dtype=torch.float64))
