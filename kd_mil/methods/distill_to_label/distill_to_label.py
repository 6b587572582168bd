"""Distill-to-Label: instance labels from a distilled bag classifier (Thiagarajan et al. 2019, arXiv 1907.12926).

python -m kd_mil.run experiment=d2l_colon
"""

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor

from kd_mil.core.checks import at_least, share
from kd_mil.core.draws import apart
from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.core.machine.shares import WHOLE
from kd_mil.data.batches import BagBatch
from kd_mil.methods.base.bag_method import BagMethod, aggregator_loss
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.phases import Phase, Phases
from kd_mil.methods.base.readings import BagReadings
from kd_mil.methods.base.snapshot import Select, Snapshot
from kd_mil.methods.distill_to_label.bag_classifier import BagClassifier, first_bags, relative_attention
from kd_mil.methods.distill_to_label.losses import consistency, divergence, entropy
from kd_mil.methods.distill_to_label.vat import VAT
from kd_mil.methods.distill_to_label.weights import Distillation
from kd_mil.models.outputs import MILOutput, Prediction
from kd_mil.models.segments import known_sizes, per_instance, segment_mean, segment_sum

Terms = dict[str, Tensor]


class DistillToLabel(BagMethod):
    """A bag classifier trained to withstand disturbed bags teaches an equal one that also reads single instances.

    The teacher trains for `teacher_epochs` (Eq. 3). Its best epoch by validation bag loss is then reloaded and frozen
    (`reload`), and the student trains for `student_epochs` (Eq. 5) on the same augmented bags. An instance is a bag
    of one.

    Args:
        instance_shape: (C, H, W) or (D,) of one instance.
        num_classes: C >= 2; class 0 is the negative one. The paper has two.
        encoder, aggregator: factories of the parts of both networks.
        vat: how bags are disturbed, weights of Eq. 3.
        kd: weights and temperature of Eq. 5.
        teacher_epochs: epochs of the teacher.
        student_epochs: epochs of the student in each round; 0 trains the teacher alone.
        rounds: more than 1: the best student becomes the teacher of a new one (born-again; not in the paper).
        student_init: `random`, or the weights of the `teacher`.
        reload: the epoch of a network that teaches: its `best` on validation, or its `last` validated one, where too
            few validation bags would pick one by luck.
        instance_score: the teacher's word on instances: `bag_of_one`, its `attention` scaled to [0, 1] in each bag, or
            `attention_times_prob`, the same times the bag's probability.
        instance_stream_weight: share of the instance stream in cross-entropies of labels, where the aggregator has one.
        **training: preprocess, optimizer, gradient_clip, seed of `BagMethod`.

    Raises:
        UserError: a setting out of range.
    """

    roles: tuple[str, ...] = ("teacher", "student")
    best_loss: Tensor
    student_began: Tensor

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        encoder: ModuleFactory,
        aggregator: ModuleFactory,
        vat: VAT,
        kd: Distillation,
        teacher_epochs: int = 100,
        student_epochs: int = 100,
        rounds: int = 1,
        student_init: Literal["random", "teacher"] = "random",
        reload: Select = "best",
        instance_score: Literal["bag_of_one", "attention", "attention_times_prob"] = "bag_of_one",
        instance_stream_weight: float = 0.5,
        **training: Any,
    ) -> None:
        at_least("method.teacher_epochs", teacher_epochs, 1)
        at_least("method.student_epochs", student_epochs, 0)
        at_least("method.rounds", rounds, 1)
        share("method.instance_stream_weight", instance_stream_weight)
        self.roles = ("teacher", "student") if student_epochs else ("teacher",)
        super().__init__(num_classes=num_classes, **training)
        self._parts = encoder, aggregator, {"instance_shape": tuple(instance_shape)}, {"num_classes": num_classes}
        self.teacher, self.student = self._new_network(), self._new_network()
        self.best = copy.deepcopy(self.teacher).requires_grad_(False)
        self.register_buffer("best_loss", torch.tensor(math.inf))
        self.register_buffer("student_began", torch.tensor(False))
        self.vat, self.kd = vat, kd
        self.vat.allocate(instance_shape[0])
        teaching = Phase("teacher", teacher_epochs, "method.teacher_epochs")
        learning = Phase("student", student_epochs, "method.student_epochs")
        self.phases = Phases(teaching, *[learning] * rounds)
        self.snapshot = Snapshot(self, select=reload)
        self.student_init, self.teacher_score = student_init, instance_score
        self.instance_stream_weight = instance_stream_weight

    def _new_network(self) -> BagClassifier:
        make_encoder, make_aggregator, instances, classes = self._parts
        encoder = make_encoder(**instances)
        return BagClassifier(encoder, make_aggregator(in_features=encoder.out_features, **classes))

    @property
    def default_monitor(self) -> str:
        return f"val/{self.roles[-1]}/bag_loss"

    def parts(self) -> list[torch.nn.Module]:
        return [self.teacher, self.student]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        sample = self.training_sample()
        others = [0, *range(2, sample.dim())]
        extremes = torch.cat([sample.amin(others, keepdim=True), sample.amax(others, keepdim=True)])
        # the data may be on the training device by now, the method is not yet
        self.vat.set_range(*self.preprocess.eval()(extremes.to(self.preprocess.mean.device)).flatten(1))
        self.preprocess.train()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.phases.begins(self.current_epoch):
            self._begin_round(self.phases.round(self.current_epoch))
        self.teacher.train(self.phase == "teacher")
        self.student.train(self.phase == "student")

    def _begin_round(self, number: int) -> None:
        """The network kept is the teacher, frozen from now on; a new student begins."""
        if self.snapshot.empty:
            raise UserError("the teacher was never validated: use trainer.check_val_every_n_epoch=1")
        self.snapshot.hand_on(self.teacher, self.teacher if number == 0 else self.student)
        self.student_began.fill_(True)
        if number > 0:
            self.optimizer_list()[1].state.clear()
            with apart(self.seed * 1_000_003 + number):
                self.student.load_state_dict(self._new_network().state_dict())
        if self.student_init == "teacher":
            self.student.load_state_dict(self.teacher.state_dict())

    def training_step(self, bags: BagBatch, batch_idx: int) -> None:
        teacher, student = self.optimizer_list()
        if self.phase == "teacher":
            optimizer, terms, weights = teacher, self.teacher_terms(bags), self.vat.weights
        else:
            optimizer, terms, weights = student, self.student_terms(bags), self.kd.weights
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        self.step_optimizers(loss, optimizer)
        self.log_loss(self.phase, loss, len(bags.sizes), **terms)

    def teacher_terms(self, bags: BagBatch) -> Terms:
        """Terms of Eq. 3 without their weights, each the mean over the bags.

        The clean bag, the bag with noise, the perturbed bag and the subsets are packed and go through the network as
        one batch; features of clean instances serve all but the perturbed bag, unless batch statistics mix the views.
        """
        vat, step = self.vat, bags.share or WHOLE
        with dealing(step):
            clean = self.preprocess(bags.instances, bags.sizes)
        sizes, pixels, noise_counts = known_sizes(bags.sizes, len(bags.instance_ids)), [(step, clean)], None
        if "noise" in vat.weights:
            noise, noise_counts = vat.noise(clean, sizes)
            of_noise = step.alike(len(noise))
            pixels.append((of_noise, of_noise.own(noise)))
        if perturbed := "perturbation" in vat.weights:
            moved = vat.perturb(clean, lambda values: self.teacher(values, bags.sizes, step).bag_logits, step)
            pixels.append((step, moved))
        views = vat.views(sizes, noise_counts, perturbed)
        everything, own = step.joined(pixels)
        output = self.teacher.classify_views(own, views, everything)
        by_view = list(zip(views.names, output.bag_logits.split(len(bags.sizes)), strict=True))
        clean_output = first_bags(output, len(bags.sizes), len(bags.instance_ids))
        terms = {"label": self.label_loss(clean_output, bags)}
        for name, logits in by_view:
            if name in ("noise", "perturbation"):
                terms[name] = consistency(by_view[0][1], logits, vat.detach_target).mean()
        if "subset" in vat.weights:
            terms["subset"] = entropy(torch.cat([logits for name, logits in by_view if name == "subset"])).mean()
        return terms

    def student_terms(self, bags: BagBatch) -> Terms:
        """Terms of Eq. 5 without their weights, each the mean over the bags."""
        over_bag = segment_sum if self.kd.reduction == "sum" else segment_mean
        with dealing(bags.share) as deal:
            pixels = self.preprocess(bags.instances, bags.sizes)
            with torch.no_grad():
                taught = deal.gather(self.teacher.encoder(pixels))
            features = deal.gather(self.student.encoder(pixels))
        with torch.no_grad():
            teacher, teacher_instances = self.teacher.read(taught, bags.sizes)
        student, instances = self.student.read(features, bags.sizes)
        from_teacher = self._divergence(teacher_instances, instances)
        if self.kd.negative_bags == "zero":
            labels = per_instance(bags.labels, bags.sizes, len(instances))
            from_teacher = torch.where(labels == 0, -instances.log_softmax(1)[:, 0], from_teacher)
        return {
            "label": self.label_loss(student, bags),
            "bag": self._divergence(teacher.bag_logits, student.bag_logits).mean(),
            "instance": over_bag(from_teacher, bags.sizes).mean(),
            "entropy": over_bag(entropy(instances), bags.sizes).mean(),
        }

    def label_loss(self, output: MILOutput, bags: BagBatch) -> Tensor:
        """Cross-entropy of the bags under their labels."""
        return aggregator_loss(output, bags.labels, bags.sizes, self.instance_stream_weight, self.bag_targets)

    def _divergence(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        """Divergence (N,) of the student from the teacher at the temperature."""
        return self.kd.scale * divergence(teacher_logits, student_logits, self.kd.temperature)

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        pixels = self.preprocess(instances)
        return tuple(network.encoder(pixels) for network in self._readers.values())

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        """Bag probabilities, and every instance as a bag of one; the student is left out until it trains."""
        read = zip(self._readers.items(), encoded, strict=True)
        predictions = {}
        for (role, network), features in read:
            output, instance_logits = network.read(features, sizes)
            readings = BagReadings(network.aggregator, features, sizes, output, output.attention_logits, None)
            predictions[role] = self._predict(role, output, instance_logits, sizes)._replace(readings=readings.scores)
        return predictions

    @property
    def _readers(self) -> dict[str, BagClassifier]:
        """Networks that have a word to say."""
        return {"teacher": self.teacher} | ({"student": self.student} if self.student_began else {})

    def _predict(self, role: str, output: MILOutput, instance_logits: Tensor, sizes: Tensor) -> Prediction:
        bag_probs, logits = output.bag_logits.double().softmax(1), instance_logits.double()
        if role == "student" or self.teacher_score == "bag_of_one":
            margin = logits[:, 1:].logsumexp(1) - logits[:, 0]
            return Prediction(bag_probs, margin.sigmoid(), margin, output.attention, reading="bag_of_one")
        probs, reading = relative_attention(output.attention.double(), sizes), "attention"
        if self.teacher_score == "attention_times_prob":
            probs, reading = probs * per_instance(1 - bag_probs[:, 0], sizes, probs.shape[0]), "attention_x_bag"
        return Prediction(bag_probs, probs, probs, output.attention, reading=reading)

    def on_validation_epoch_end(self) -> None:
        """Score, then offer the network in training to the snapshot, by its validation loss of bags, or of cases."""
        super().on_validation_epoch_end()
        if self.fitting:
            network = self.teacher if self.phase == "teacher" else self.student
            self.snapshot.offer(network, self.validation_loss(self.phase))
