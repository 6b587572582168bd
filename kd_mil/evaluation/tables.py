"""Predictions of a whole split, collected batch by batch and gathered over the ranks without padding."""

from typing import NamedTuple

import torch
from torch import Tensor

from kd_mil.core.distributed import gather_rows
from kd_mil.data.batches import BagBatch
from kd_mil.models.outputs import Prediction

Columns = dict[str, Tensor]


class PredictionTables(NamedTuple):
    """One row per bag and one per instance, each exactly once, ordered by position in the data set."""

    bags: Columns
    """`bag` (index), `label`, and `{role}/probs` (B, C)."""
    instances: Columns
    """`bag`, `instance` (id), `label`, `x`, `y`, and for each role `{role}/probs|scores[|attention|class_probs]`."""

    @property
    def roles(self) -> list[str]:
        """Roles that predicted; one that has not begun to train is not among them."""
        return [name.removesuffix("/probs") for name in self.bags if name.endswith("/probs")]


class PredictionCollector:
    """Rows of one rank until `collect` gathers those of all."""

    def __init__(self) -> None:
        self._bags: list[Columns] = []
        self._instances: list[Columns] = []

    def add(self, bags: BagBatch, predictions: dict[str, Prediction]) -> None:
        """Keep what each role says about a batch."""
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
        self._bags.append({name: column.detach() for name, column in bag_rows.items()})
        self._instances.append({name: column.detach() for name, column in instance_rows.items()})

    def collect(self) -> PredictionTables:
        """Gather, order and forget all rows; every rank gets the whole tables."""
        bags, instances = _merge(self._bags, "bag"), _merge(self._instances, "instance")
        self._bags, self._instances = [], []
        return PredictionTables(bags, instances)


def _merge(parts: list[Columns], key: str) -> Columns:
    rows = gather_rows({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    order = rows[key].argsort()
    return {name: column[order] for name, column in rows.items()}


class ImageRows:
    """Predictions of one rank, batch by batch, until `collect` gathers those of all."""

    def __init__(self) -> None:
        self._parts: list[Columns] = []

    def add(self, indices: Tensor, labels: Tensor, probs: dict[str, Tensor]) -> None:
        """Keep class probabilities (B, C) of each role for B images."""
        rows = {"image": indices, "label": labels} | {f"{role}/probs": value for role, value in probs.items()}
        self._parts.append({name: column.detach() for name, column in rows.items()})

    def collect(self) -> Columns:
        """Gather all rows, each once, ordered by image, and forget them: `image`, `label`, `{role}/probs` (N, C)."""
        rows = gather_rows({name: torch.cat([part[name] for part in self._parts]) for name in self._parts[0]})
        self._parts = []
        order = rows["image"].argsort()
        return {name: column[order] for name, column in rows.items()}


class MapCollector:
    """Rows of one rank, one per image, until `collect` gathers those of all, ordered by position in the data set."""

    def __init__(self) -> None:
        self._parts: list[Columns] = []

    def add(self, **columns: Tensor) -> None:
        """Keep the rows of a batch; `index` (B,) is the position of each image."""
        self._parts.append({name: column.detach() for name, column in columns.items()})

    def collect(self) -> Columns:
        """Gather, order and forget all rows; every rank gets the whole table."""
        parts, self._parts = self._parts, []
        rows = gather_rows({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
        order = rows["index"].argsort()
        return {name: column[order] for name, column in rows.items()}
