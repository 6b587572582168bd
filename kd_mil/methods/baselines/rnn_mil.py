"""MIL-RNN: learn from the best tiles of each slide, then read them (Campanella et al., Nature Medicine 2019).

doi 10.1038/s41591-019-0508-1

    python -m kd_mil.run experiment=rnn_mil
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.checks import at_least
from kd_mil.core.machine.dealing import dealing
from kd_mil.core.machine.shares import WHOLE
from kd_mil.data.batches import BagBatch
from kd_mil.methods.base.bag_losses import bag_cross_entropy, mean_cross_entropy
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.phases import Phase, Phases
from kd_mil.methods.base.readings import AT_ONCE, bag_log_prob, classified
from kd_mil.models.heads import LogitLayer
from kd_mil.models.outputs import Prediction, max_pooled
from kd_mil.models.segments import kept_positions, segment_ids, segment_ranks


class RNNMIL(BagMethod):
    """Two phases, Sec. "MIL training" and "RNN-based slide integration" of the paper's methods.

    In the first a tile classifier learns from the `top` most positive instances of each bag, chosen by itself, under
    the bag's label. From `rnn_start_epoch` on it and the encoder stand still, and an RNN learns to read the features
    of the `read` most positive instances, best first. The authors choose once per epoch, and start the RNN from the
    best epoch on validation: here the choice is made anew at every step, and the RNN starts from the present weights.

    Args:
        instance_shape: (C, H, W) or (D,) of one instance.
        num_classes: C >= 2; class 0 is the negative one.
        encoder, student_head: factories of the encoder and the tile classifier.
        top: instances of a bag the tile classifier learns from.
        read: instances of a bag the RNN reads.
        state: width of the RNN's state.
        rnn_start_epoch: first epoch (from 0) of the second phase.
        **training: preprocess, optimizer, gradient_clip, seed of `BagMethod`.

    Raises:
        UserError: a count below 1.
    """

    roles = ("tile", "rnn")
    rnn_trained: Tensor

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        encoder: ModuleFactory,
        student_head: ModuleFactory,
        top: int = 1,
        read: int = 10,
        state: int = 128,
        rnn_start_epoch: int = 20,
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, **training)
        for name, count in {"top": top, "read": read, "state": state, "rnn_start_epoch": rnn_start_epoch}.items():
            at_least(f"method.{name}", count, 1)
        self.encoder = encoder(instance_shape=tuple(instance_shape))
        width: Any = self.encoder.out_features
        self.tile_classifier = student_head(in_features=width, num_classes=num_classes)
        self.rnn = TileRNN(width, num_classes, state)
        self.top, self.read = top, read
        self.phases = Phases(Phase("tile", rnn_start_epoch, "method.rnn_start_epoch"), Phase("rnn"))
        self.register_buffer("rnn_trained", torch.zeros((), dtype=torch.bool))

    @property
    def default_monitor(self) -> str:
        return "val/rnn/bag_loss"

    def parts(self) -> list[nn.Module]:
        return [self.encoder, self.tile_classifier, self.rnn]

    def training_step(self, bags: BagBatch, batch_idx: int) -> None:
        encoder, tile_classifier, rnn = self.optimizer_list()
        if self.phase == "tile":
            loss = self.tile_loss(bags)
            self.step_optimizers(loss, encoder, tile_classifier)
        else:
            loss = self.rnn_loss(bags)
            self.step_optimizers(loss, rnn)
            self.rnn_trained.fill_(True)
        self.log_loss(self.phase, loss, len(bags.sizes))

    def tile_loss(self, bags: BagBatch) -> Tensor:
        """Cross-entropy of the most positive instances under their bag's label, a mean over the bags."""
        _, probs = self._look(bags)
        owner = segment_ids(bags.sizes, len(probs))
        chosen = kept_positions(segment_ranks(1 - probs[:, 0], bags.sizes) < self.top)
        share, own = (bags.share or WHOLE).take(chosen)
        with dealing(share) as deal:
            pixels = self.preprocess(bags.instances[own.to(chosen.device)], bags.sizes.clamp_max(self.top))
            logits = deal.gather(self.tile_classifier(self.encoder(pixels)))
        losses = bag_cross_entropy(logits, bags.labels[owner[chosen]], self.bag_targets)
        return (losses / bags.sizes.clamp_max(self.top)[owner[chosen]]).sum() / len(bags.sizes)

    def rnn_loss(self, bags: BagBatch) -> Tensor:
        """Cross-entropy of the RNN on the features of the most positive instances."""
        features, probs = self._look(bags)
        logits = self.rnn(*best_first(features, 1 - probs[:, 0], bags.sizes, self.read))
        return mean_cross_entropy(logits, bags.labels, self.bag_targets)

    def encode(self, instances: Tensor) -> tuple[Tensor, ...]:
        return (self.encoder(self.preprocess(instances)),)

    def predict_encoded(self, encoded: tuple[Tensor, ...], sizes: Tensor) -> dict[str, Prediction]:
        """Maximum over the tiles; and once it has learned something, what the RNN makes of the best of them."""
        [features] = encoded
        probs = self.tile_classifier(features).double().softmax(1)
        positive, by_class = 1 - probs[:, 0], probs if probs.shape[1] > 2 else None
        predictions = {"tile": Prediction(max_pooled(probs, sizes), positive, positive, None, by_class)}
        if self.rnn_trained:
            logits = self.rnn(*best_first(features, positive, sizes, self.read))

            readings = partial(self._readings, features, logits, sizes)
            predictions["rnn"] = Prediction(logits.double().softmax(1), positive, positive, None, by_class, readings)
        return predictions

    def _readings(self, features: Tensor, bag_logits: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Scores (N,): the RNN on every tile alone, and the tile classifier times the RNN's word on the bag."""
        alone = [self.rnn(part[:, None], sizes.new_ones(len(part))) for part in features.split(AT_ONCE)]
        tiles = classified(self.tile_classifier(features)).scores
        x_bag = F.logsigmoid(tiles) + bag_log_prob(bag_logits, sizes, len(features))
        return {"bag_of_one": classified(torch.cat(alone)).scores, "instance_x_bag": x_bag}

    @torch.no_grad()
    def _look(self, bags: BagBatch) -> tuple[Tensor, Tensor]:
        """Features (N, D) and tile probabilities (N, C) in evaluation mode, without gradient."""
        self.eval()
        with dealing(bags.share) as deal:
            [features] = self.encode(bags.instances)
            probs = deal.gather(self.tile_classifier(features).softmax(1))
        self.train()
        return deal.gather(features), probs


def best_first(features: Tensor, scores: Tensor, sizes: Tensor, read: int) -> tuple[Tensor, Tensor]:
    """The `read` instances of highest score of each bag in that order, (B, S, D), and how many there are (B,)."""
    if sizes.shape[0] == 1:  # always `read` places, so that an export may leave the size of the bag open
        first = F.pad(scores.argsort(descending=True, stable=True), (0, read))[:read]
        return features[first].unsqueeze(0), sizes.clamp_max(read)
    rank, owner = segment_ranks(scores, sizes), segment_ids(sizes, len(scores))
    longest = min(read, len(scores))
    sequences = features.new_zeros(len(sizes), longest + 1, features.shape[1])
    sequences[owner, rank.clamp_max(longest)] = features  # the last place takes what is not read
    return sequences[:, :longest], sizes.clamp_max(read)


class TileRNN(nn.Module):
    """state = ReLU(A x + B state) over the tiles, best first; the last state is classified.

    Args:
        in_features: D, width of the tile features.
        num_classes: C.
        state: width of the state, 128 in the paper.
    """

    def __init__(self, in_features: int, num_classes: int = 2, state: int = 128) -> None:
        super().__init__()
        self.read, self.keep = nn.Linear(in_features, state), nn.Linear(state, state)
        self.classifier = LogitLayer(state, num_classes)

    def forward(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Bag logits (B, C) from sequences (B, S, D) of which the first `lengths` (B,) tiles are real."""
        inputs = self.read(sequences)
        state = torch.zeros_like(inputs[:, 0])
        for step, tile in enumerate(inputs.unbind(1)):
            following = torch.relu(tile + self.keep(state))
            state = torch.where((step < lengths)[:, None], following, state)
        return self.classifier(state)
