"""What an instance classifier was told in an epoch and what it said, kept for callbacks to show; alike on all ranks."""

import torch
from torch import Tensor

from kd_mil.data.batches import InstanceBatch
from kd_mil.methods.base.readings import classified


class EpochNotes:
    """One entry for each step of this epoch; nothing learns from them."""

    def __init__(self) -> None:
        self._mined: list[tuple[Tensor, Tensor]] = []
        self.pseudo_labels: list[tuple[Tensor, Tensor]] = []
        """Ids and pseudo-labels of the instances that the student saw."""
        self.student_scores: list[Tensor] = []
        """The student's log-odds of the same instances while it learned."""

    def clear(self) -> None:
        """Begin an epoch."""
        for notes in (self._mined, self.pseudo_labels, self.student_scores):
            notes.clear()

    def mined(self, instance_ids: Tensor, stays: Tensor) -> None:
        """Keep which of the instances (N,) of a step mining left to the teacher, a mask (N,)."""
        self._mined.append((instance_ids, stays))

    @property
    def dropped(self) -> list[Tensor]:
        """Ids of the instances that mining hid from a teacher, by step."""
        return [ids[~stays] for ids, stays in self._mined]

    @torch.no_grad()
    def student_step(self, instances: InstanceBatch, pseudo_labels: Tensor, logits: Tensor) -> None:
        """Keep pseudo-labels (M,) and the student's logits (M, C) of a step."""
        self.pseudo_labels.append((instances.instance_ids, pseudo_labels))
        self.student_scores.append(classified(logits).scores)
