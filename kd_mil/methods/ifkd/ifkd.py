"""IFKD: weakly supervised segmentation by iterative fusion distillation (He, Li, Zemp, arXiv 2407.10274).

python -m kd_mil.run experiment=ifkd_vgg
"""

import math
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kd_mil.core.checks import at_least, share
from kd_mil.core.draws import apart
from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.data.batches import ImageBatch
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.phases import Phase, Phases
from kd_mil.methods.base.segmentation_method import SegmentationMethod
from kd_mil.methods.base.snapshot import Select, Snapshot
from kd_mil.methods.ifkd.kept_networks import BestSoFar, complete_earlier_state, frozen_copy
from kd_mil.methods.ifkd.losses import GM_EXPONENT, DistillationMode, teacher_dice, teacher_gm_bce
from kd_mil.methods.ifkd.pasting import paste_negatives
from kd_mil.methods.ifkd.role_switch import RoleSwitch
from kd_mil.methods.ifkd.stage_two import PixelCrossEntropy, student_terms
from kd_mil.models.outputs import SegmentationOutput


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
        teacher_epochs: length of stage one; None = no other stage: multiple-instance learning alone, to compare with.
        stage_one: its loss, `dice` against the image label everywhere (released), or `gm_bce`, cross-entropy of the
            generalised mean (the base works).
        gm_exponent: of that mean, >= 1: 1 is the mean of the map, large values near its maximum.
        mode: which map teaches which, Fig. 2: `fusion`, `layer` or `output`.
        paste: share of the positive images that get a rectangle of a negative one, in both stages (`pasting`).
        wce: the pixel cross-entropy of stage two.
        switch: when and how roles are switched.
        reload: the epoch that a stage hands on or promotes: its `best` by the monitor, or the `last`, where validation
            is too small to tell.
        **training: preprocess, reading, optimizer, gradient_clip, seed of `SegmentationMethod`.

    The role `stage_one` is the teacher as stage one left it; `teacher` is the one of the present, which after a switch
    is a student that was promoted.

    Raises `UserError` for more than two classes, or a value out of range.
    """

    roles = ("stage_one", "teacher", "student")
    distilling: Tensor
    first_kept: Tensor
    switches: Tensor
    fruitless: Tensor
    score_to_beat: Tensor
    last_score: Tensor

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        segmenter: ModuleFactory,
        wce: PixelCrossEntropy,
        switch: RoleSwitch,
        teacher_epochs: int | None = 30,
        stage_one: Literal["dice", "gm_bce"] = "dice",
        gm_exponent: float = GM_EXPONENT,
        mode: DistillationMode = "fusion",
        paste: float = 0.0,
        reload: Select = "best",
        **training: Any,
    ) -> None:
        super().__init__(**training)
        if num_classes != 2:
            raise UserError(f"IFKD tells tumour from the rest, but the data has {num_classes} classes")
        if teacher_epochs is not None:
            at_least("method.teacher_epochs", teacher_epochs, 1)
        at_least("method.gm_exponent", gm_exponent, 1)
        share("method.paste", paste)
        self.new_segmenter, self.instance_shape = segmenter, tuple(instance_shape)
        self.teacher = segmenter(instance_shape=self.instance_shape)
        self.student = segmenter(instance_shape=self.instance_shape)
        self.first_teacher = frozen_copy(self.teacher)
        self.best = BestSoFar(self.teacher)
        self.snapshot = Snapshot(self.best, "network", "score", mode="max", select=reload)
        teacher = Phase("teacher", teacher_epochs, "method.teacher_epochs")
        self.phases = Phases(teacher) if teacher_epochs is None else Phases(teacher, Phase("student"))
        self.mode, self.paste, self.wce, self.switch = mode, paste, wce, switch
        gm_bce = partial(teacher_gm_bce, exponent=gm_exponent)
        self.teacher_loss = teacher_dice if stage_one == "dice" else gm_bce
        self.metric = "image_loss"
        self.stage_two = False
        for name, start in (("distilling", False), ("first_kept", False), ("switches", 0), ("fruitless", 0)):
            self.register_buffer(name, torch.tensor(start))
        for name in ("score_to_beat", "last_score"):
            self.register_buffer(name, torch.tensor(math.nan, dtype=torch.float64))
        self.register_load_state_dict_pre_hook(complete_earlier_state)

    def parts(self) -> list[nn.Module]:
        return [self.teacher, self.student]

    @property
    def default_monitor(self) -> str:
        """As for all methods on images: of the student, or of the teacher where there is no student."""
        return f"val/{self.phases.names[-1]}/image_loss"

    def check_monitor(self, monitor: str) -> None:
        """As for all methods on images, of a network that trains; the metric also judges best epochs and switches.

        Raises:
            UserError: as there, or a student that will never be, or the teacher of stage one.
        """
        super().check_monitor(monitor)
        _, role, self.metric = monitor.split("/")
        if role not in self.phases.names:
            trained = " or ".join(self.phases.names)
            raise UserError(f"monitor={monitor}: selection reads validation images only, as {trained} sees them")

    def on_train_epoch_start(self) -> None:
        """Freeze, switch or continue: decided before the epoch, so that checkpoints hold what validation scored."""
        super().on_train_epoch_start()
        if self.distilled_epochs >= 0 and not self.distilling:
            self.freeze_teacher()
        elif self.switch.due(self.distilled_epochs):
            self.switch_roles()
        self.stage_two = bool(self.distilling)
        self.teacher.train(not self.stage_two)
        self.student.train(self.stage_two)

    @property
    def distilled_epochs(self) -> int:
        """Epochs of stage two that are over; negative before it begins, -1 where it never does."""
        return -1 if self.phases.undivided else self.current_epoch - self.phases.starts[1]

    def freeze_teacher(self) -> None:
        """From stage one to stage two: the teacher's best epoch is the teacher, and nothing trains it any more."""
        self.score_to_beat.copy_(self.snapshot.score)
        self.snapshot.hand_on(self.teacher, self.teacher)
        self.first_teacher.load_state_dict(self.teacher.state_dict())
        self.first_kept.fill_(True)
        self.distilling.fill_(True)

    @property
    def promotes_best(self) -> bool:
        """Whether a switch would promote the best student kept, not the present one."""
        return self.switch.source == "best" and not self.snapshot.empty

    @property
    def student_score(self) -> Tensor:
        """() of the student that a switch would promote."""
        return self.snapshot.score if self.promotes_best else self.last_score

    @property
    def student_is_better(self) -> bool:
        """Whether it beats the present teacher, or the teacher has no score."""
        return bool(self.student_score > self.score_to_beat) or bool(self.score_to_beat.isnan())

    def on_train_epoch_end(self) -> None:
        """End the run where the chances to switch have found no better student for long enough."""
        if self.switch.patience is not None and self.switch.due(self.distilled_epochs + 1):
            self.fruitless.copy_(torch.tensor(0) if self.student_is_better else self.fruitless + 1)
            self.trainer.should_stop = self.given_up

    def on_train_start(self) -> None:
        """A run that was interrupted after it had given up has nothing left to train."""
        self.trainer.should_stop = self.trainer.should_stop or self.given_up

    @property
    def given_up(self) -> bool:
        """Whether the chances to switch have found no better student for `patience` times in a row."""
        return self.switch.patience is not None and int(self.fruitless) >= self.switch.patience

    def switch_roles(self) -> None:
        """The student becomes the teacher, if the rule says so. Weights move, networks and optimisers stay."""
        score, better = self.student_score.clone(), self.student_is_better
        if self.switch.rule == "if_better" and not better:
            return
        promoted = self.snapshot.network if self.promotes_best and better else self.student
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
        role, optimizer = list(zip(("teacher", "student"), self.optimizer_list(), strict=True))[self.stage_two]
        terms: dict[str, Tensor] = {}
        with dealing(batch.share) as deal:
            labels = deal.own(batch.labels)
            images, pasted = paste_negatives(self.preprocess(batch.images), batch.labels, self.paste, deal)
            with torch.set_grad_enabled(not self.stage_two):
                teacher: SegmentationOutput = self.teacher(images)
            if self.stage_two:
                found = student_terms(self.student(images), teacher, labels, self.mode, self.wce, pasted)
                terms = {name: deal.mean(values) for name, values in found.items()}
                loss = terms["distillation"] + self.wce.weight * terms.get("wce", 0.0)
            else:
                loss = deal.mean(self.teacher_loss(teacher.sides, teacher.fused, labels, pasted=pasted))
        self.step_optimizers(loss, optimizer)
        self.log_loss(role, loss, len(batch.labels), **terms)

    def shorten_phases(self, epochs: int) -> None:
        """Stage one, stage two up to the first chance to switch, and as much after it."""
        teacher, student = self.phases
        self.phases = Phases(teacher._replace(epochs=epochs), student._replace(epochs=2 * epochs))
        self.switch = replace(self.switch, first=epochs, period=epochs)

    def predict_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Fused maps; the student's, and that of the teacher of stage one, once it has begun to learn."""
        pixels, maps = self.preprocess(images), {}
        teacher = self.teacher(pixels).fused
        if self.first_kept:
            maps["stage_one"] = self.first_teacher(pixels).fused if self.switches else teacher
        maps["teacher"] = teacher
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
