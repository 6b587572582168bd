"""Several trained methods that predict as one: folds or seeds of the same training.

ensemble = Ensemble(methods); ensemble.predict_pieces(pieces)["teacher"].bag_probs
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from kd_mil.cards.card import ModelCard
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import digest
from kd_mil.evaluation.statistics.pooling import Pooling
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.weight_average import evaluating
from kd_mil.models.outputs import Prediction


class MeanPredictions(dict[str, Prediction]):
    """What the members say on average, by role, and how far apart they are."""

    spread: dict[str, float]
    """Standard deviation over the members of the probability of a bag, by role: the largest over the classes."""


class MeanOperatingPoints:
    """Thresholds and temperatures of an ensemble, as `OperatingPoints` has those of a method.

    Args:
        members: of the ensemble.
    """

    def __init__(self, members: Sequence[BagMethod]) -> None:
        self.members = members

    def thresholds(self, point: str, of: str = "bags") -> dict[str, float]:
        """Mean of the members' thresholds of an operating point; errors as theirs."""
        return mean_of([member.operating.thresholds(point, of) for member in self.members])

    @property
    def case_pooling(self) -> Pooling | None:
        """How all members pooled the cases of their thresholds; None where they differ, or do not say."""
        said = {member.operating.case_pooling for member in self.members}
        return said.pop() if len(said) == 1 else None

    @property
    def temperature_of(self) -> dict[str, float]:
        """Geometric mean of the members' temperatures, by role."""
        logs = [{role: math.log(t) for role, t in one.operating.temperature_of.items()} for one in self.members]
        return {role: math.exp(value) for role, value in mean_of(logs).items()}


class Ensemble:
    """The mean of the probabilities of its members: of bags, of instances, and of attention.

    Args:
        members: methods with the same roles, in eval mode; at least two.
    """

    def __init__(self, members: Sequence[BagMethod]) -> None:
        self.members = list(members)
        self.operating = MeanOperatingPoints(self.members)
        self._told: set[str] = set()
        """Roles that were warned of."""

    def to(self, device: torch.device) -> "Ensemble":
        """Move all members."""
        for member in self.members:
            member.to(device)
        return self

    @property
    def decides(self) -> str:
        """As of a member."""
        return self.members[0].decides

    @property
    def thresholds(self) -> dict[str, float]:
        """Mean of the members' thresholds of bags, by role."""
        return mean_of([member.thresholds for member in self.members])

    @property
    def thresholds_of_instances(self) -> dict[str, float]:
        """Mean of the members' thresholds of instances, by role."""
        return mean_of([member.thresholds_of_instances for member in self.members])

    @torch.inference_mode()
    def predict_pieces(self, pieces: Iterable[Tensor], readings: bool = False) -> MeanPredictions:
        """As `BagMethod.predict_pieces`, of one bag; pieces are read once, whatever the number of members.

        Readings are not averaged, their scales differ: with `readings` there are none, either.
        """
        encoded: list[list[tuple[Tensor, ...]]] = [[] for _ in self.members]
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(evaluating(member))
            for piece in pieces:
                for member, parts in zip(self.members, encoded, strict=True):
                    parts.append(member.encode(piece.to(member.device, non_blocking=True)))
            said = [self._said(member, parts) for member, parts in zip(self.members, encoded, strict=True)]
        found = MeanPredictions()
        found.spread = {}
        for role in said[0]:
            words = [one[role] for one in said if role in one]
            self._compare_readings(role, words)
            probs = torch.stack([word.bag_probs for word in words])
            found[role] = mean_prediction(words)
            found.spread[role] = float(probs.std(0, correction=1).max()) if len(words) > 1 else 0.0
        return found

    def _compare_readings(self, role: str, words: Sequence[Prediction]) -> None:
        """A warning, once for each role, where members read their instances in several ways: each has its own scale."""
        readings = list(dict.fromkeys(str(word.reading) for word in words))
        if len(readings) > 1 and role not in self._told:
            self._told.add(role)
            warnings.warn(
                f"members read the instances of the {role} in several ways ({', '.join(readings)}): the mean of their "
                "tile probabilities has no one meaning, that of slides has; train with one method.instance_score",
                stacklevel=2,
            )

    @staticmethod
    def _said(member: BagMethod, parts: Sequence[tuple[Tensor, ...]]) -> dict[str, Prediction]:
        together = tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
        sizes = torch.tensor([len(together[0])], device=member.device)
        return {role: word.on_cpu() for role, word in member.predict_encoded(together, sizes).items()}


def mean_of(tables: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each entry."""
    return {name: sum(table[name] for table in tables) / len(tables) for name in tables[0]}


def mean_prediction(words: Sequence[Prediction]) -> Prediction:
    """Mean of what members say of one bag; instances are ranked by their mean probability."""

    def mean(name: str) -> Tensor | None:
        columns = [getattr(word, name) for word in words]
        return None if any(column is None for column in columns) else torch.stack(columns).mean(0)

    probs = mean("instance_probs")
    bag_probs = mean("bag_probs")
    assert probs is not None
    assert bag_probs is not None
    return Prediction(bag_probs, probs, probs, mean("attention"), mean("class_probs"), None, words[0].reading)


def one_card(cards: Sequence[ModelCard], paths: Sequence[Path]) -> ModelCard:
    """The card of an ensemble.

    Raises:
        UserError: members of different classes, or made from different kinds of instances.
    """
    first = cards[0]
    for card, path in zip(cards[1:], paths[1:], strict=True):
        for name, ours, theirs in (
            ("classes", first.class_names, card.class_names),
            ("shape of an instance", first.model_inputs, card.model_inputs),
            ("source of instances", first.source, card.source),
        ):
            if ours != theirs:
                raise UserError(f"ckpt: {paths[0]} and {path} differ in {name} ({ours} and {theirs}): no ensemble")
    checkpoint = digest(sorted(card.checkpoint for card in cards))
    names = ", ".join(dict.fromkeys(card.experiment for card in cards))
    return ModelCard(
        first.method, first.model_inputs, first.class_names, first.source, f"{names} ({len(cards)} members)", checkpoint
    )


def refuse_other_roles(members: Sequence[BagMethod], paths: Sequence[Path]) -> None:
    """Refuse members that do not predict in the same roles; UserError names both."""
    for member, path in zip(members[1:], paths[1:], strict=True):
        if tuple(member.roles) != tuple(members[0].roles):
            roles = [", ".join(one.roles) for one in (members[0], member)]
            raise UserError(f"ckpt: {paths[0]} predicts {roles[0]}, {path} predicts {roles[1]}: no ensemble")
