"""Predictions of a whole split, collected batch by batch and gathered over the ranks without padding."""

from typing import NamedTuple

import torch
from torch import Tensor

from kd_mil.core.machine.distributed import gather_rows
from kd_mil.data.batches import BagBatch
from kd_mil.models.outputs import Prediction

Columns = dict[str, Tensor]


class Rows:
    """Rows of one rank, batch by batch, until `collect` gathers those of all ranks.

    Args:
        key: column to order them by, such as the position in the data set.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._parts: list[Columns] = []

    def add(self, columns: Columns) -> None:
        """Keep the rows of a batch, each column (B, ...)."""
        self._parts.append({name: column.detach() for name, column in columns.items()})

    def collect(self) -> Columns:
        """Gather, order and forget all rows; every rank gets the whole table, each row once."""
        parts, self._parts = self._parts, []
        rows = gather_rows({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
        order = rows[self.key].argsort()
        return {name: column[order] for name, column in rows.items()}


class PredictionTables(NamedTuple):
    """One row per bag and one per instance, each exactly once, ordered by position in the data set."""

    bags: Columns
    """`bag` (index), `label`, and `{role}/probs` (B, C)."""
    instances: Columns
    """`bag`, `instance` (id), `label`, `x`, `y`, and for each role `{role}/probs|scores[|attention|class_probs]`.

    Where readings were asked for, `{role}/readings/{name}` has the scores of each."""

    @property
    def roles(self) -> list[str]:
        """Roles that predicted; one that has not begun to train is not among them."""
        return [name.removesuffix("/probs") for name in self.bags if name.endswith("/probs")]

    def readings(self, role: str) -> Columns:
        """Scores (N,) of each reading of a role, by name; empty where none were asked for."""
        prefix = f"{role}/readings/"
        return {name.removeprefix(prefix): column for name, column in self.instances.items() if name.startswith(prefix)}

    def in_positive_bag(self) -> Tensor:
        """Whether each instance (N,) lies in a bag of a positive class."""
        return self.bags["label"][torch.searchsorted(self.bags["bag"], self.instances["bag"])] > 0


def shown_as(reading: str | None) -> str:
    """What a map of the instance probabilities of that reading shows; None: of an instance classifier."""
    words = {"attention": "attention, scaled", "attention_x_bag": "attention, scaled, times bag probability"}
    return words.get(reading or "", "probability")


def prediction_rows(
    bags: BagBatch, predictions: dict[str, Prediction], with_readings: bool = False
) -> PredictionTables:
    """What each role says about a batch, in all its readings if asked; coordinates are -1 where there are none."""
    missing = torch.full((len(bags.instance_ids), 2), -1, device=bags.sizes.device)
    coords = missing if bags.coords is None else bags.coords
    bag_rows = {"bag": bags.bag_indices, "label": bags.labels}
    instance_rows = {
        "bag": bags.bag_indices.repeat_interleave(bags.sizes),
        "instance": bags.instance_ids,
        "label": bags.instance_labels,
        "x": coords[:, 0],
        "y": coords[:, 1],
    }
    for role, prediction in predictions.items():
        bag_rows[f"{role}/probs"] = prediction.bag_probs
        instance_rows[f"{role}/probs"] = prediction.instance_probs
        instance_rows[f"{role}/scores"] = prediction.instance_scores
        if prediction.attention is not None:
            instance_rows[f"{role}/attention"] = prediction.attention
        if prediction.class_probs is not None:
            instance_rows[f"{role}/class_probs"] = prediction.class_probs
        if with_readings and prediction.readings is not None:
            instance_rows |= {f"{role}/readings/{name}": scores for name, scores in prediction.readings().items()}
    return PredictionTables(bag_rows, instance_rows)
