"""The RNN that reads the best tiles of a slide (Campanella et al., Nature Medicine 2019)."""

import torch
from torch import Tensor, nn

from kd_mil.models.heads import LogitLayer


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
