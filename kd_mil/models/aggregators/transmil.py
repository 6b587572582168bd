"""TransMIL: transformer based correlated multiple instance learning (Shao et al., NeurIPS 2021, arXiv 2106.00908).

TransMIL(in_features=1024)(features, sizes).bag_logits
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.models.aggregators.nystrom import NystromAttention
from kd_mil.models.heads import LogitLayer
from kd_mil.models.outputs import MILOutput
from kd_mil.models.segments import bags_of_one, segment_softmax


class TransMIL(nn.Module):
    """Two transformer layers over the instances of a bag and a class token, with positions from convolutions between.

    The instances of a bag fill a square grid in their order, the first ones again where the grid is larger (Alg. 1),
    and the convolutions of PPEG (Alg. 2) run over that grid: the result depends on the order of the instances, by
    design. Bags of equal grids share one dense batch; bags never see each other.

    Attention is what the class token pays in the last layer: the logits are its scaled products with the keys, averaged
    over the heads. They depend on the whole bag, so there is no `attention_logits` of instances outside it.

    Args:
        in_features: D, width of the instance features.
        num_classes: C.
        width: of the tokens, 512 in the paper; divisible by `heads`.
        heads, landmarks, pinv_iterations: of the Nystrom attention.
        dropout: after each attention layer, 0.1 in the authors' code.
        exact_small_bags: exact attention for bags with no more tokens than landmarks; False pads them with zero tokens,
            which share in the attention, as in the authors' code.

    Raises:
        UserError: `width` is not divisible by `heads`.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int = 2,
        width: int = 512,
        heads: int = 8,
        landmarks: int = 256,
        pinv_iterations: int = 6,
        dropout: float = 0.1,
        exact_small_bags: bool = True,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"aggregator.width={width} is not divisible by aggregator.heads={heads}")
        options = (width, heads, landmarks, pinv_iterations, dropout, exact_small_bags)
        self.project = nn.Sequential(nn.Linear(in_features, width), nn.ReLU(inplace=True))
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.first_norm, self.first_attention = nn.LayerNorm(width), NystromAttention(*options)
        self.positions = PPEG(width)
        self.last_norm, self.last_attention = nn.LayerNorm(width), NystromAttention(*options)
        self.norm = nn.LayerNorm(width)
        self.classifier = LogitLayer(width, num_classes)

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Pool features (N, D) of bags with sizes (B,)."""
        instances, total = self.project(features), features.shape[0]
        if sizes.shape[0] == 1:
            embedding, attention_logits = self.transform_one(instances, sizes)
        elif bags_of_one(sizes, total):
            embedding, logits = self.transform(instances.unsqueeze(1), 1)
            attention_logits = logits.squeeze(1)
        else:
            embedding, attention_logits = self.transform_groups(instances, sizes.cpu())
        attention = segment_softmax(attention_logits, sizes)
        return MILOutput(self.classifier(embedding), attention_logits, attention, embedding)

    def transform_one(self, instances: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Class token (1, E) and attention logits (N,) of one bag (N, E), whose N an export may leave open."""
        total = instances.shape[0]
        side = cast(
            int, sizes[0].double().sqrt().ceil().long().item()
        )  # a symbol while exported: int() would ask for it
        torch._check(side >= 1)
        cells = torch.arange(side * side, device=instances.device)
        embedding, logits = self.transform(instances[cells % sizes].unsqueeze(0), side)
        return embedding, logits[0].index_select(0, torch.arange(total, device=instances.device))

    def transform_groups(self, instances: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens (B, E) and attention logits (N,) of bags (N, E) of these lengths (B,), on the CPU."""
        sides = lengths.double().sqrt().ceil().long()
        bags, places, embeddings, logits = [], [], [], []
        for side in sides.unique().tolist():
            group = (sides == side).nonzero().squeeze(1)
            grid, real = square_grid(lengths, group, side)
            embedding, group_logits = self.transform(instances[grid.to(instances.device)], side)
            embeddings.append(embedding)
            logits.append(group_logits.flatten()[real.flatten().nonzero().squeeze(1).to(instances.device)])
            bags.append(group)
            places.append(grid[real])
        embedding = torch.cat(embeddings)[torch.cat(bags).argsort().to(instances.device)]
        return embedding, torch.cat(logits)[torch.cat(places).argsort().to(instances.device)]

    def transform(self, instances: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Class tokens (B, E) and attention logits (B, side²) of bags that fill their grids, (B, side², E)."""
        tokens = torch.cat([self.class_token.expand(instances.shape[0], -1, -1), instances], 1)
        tokens = tokens + self.first_attention(self.first_norm(tokens))
        tokens = self.positions(tokens, side)
        normed = self.last_norm(tokens)
        # nothing but the class token is read from the last layer, so nothing else is computed
        class_token = tokens[:, :1] + self.last_attention(normed, count=1)
        return self.norm(class_token).squeeze(1), self.last_attention.first_token_logits(normed)[:, 1:]


def square_grid(lengths: Tensor, group: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Places (G, side²) in the packed batch that fill the grids of bags `group` (G,), and which of them are real.

    Where a bag of n instances is smaller than its grid, its first instances come again.
    """
    starts, cells = (lengths.cumsum(0) - lengths)[group, None], torch.arange(side * side)
    lengths = lengths[group, None]
    return starts + cells % lengths, cells < lengths


class PPEG(nn.Module):
    """Pyramid position encoding generator: depth-wise 7x7, 5x5 and 3x3 convolutions added to the grid of instances."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.middle = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.narrow = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        """Encode tokens (B, 1 + side², E), the class token first; it passes unchanged."""
        grid = tokens[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        weight, bias = self.merged()
        encoded = F.conv2d(grid, weight, bias, padding=3, groups=grid.shape[1])
        return torch.cat([tokens[:, :1], encoded.flatten(2).transpose(1, 2)], 1)

    def merged(self) -> tuple[Tensor, Tensor]:
        """The three convolutions and the identity as one 7x7 convolution: they are linear in the same grid."""
        identity = F.pad(torch.ones_like(self.wide.weight[:, :, :1, :1]), [3] * 4)
        weight = self.wide.weight + F.pad(self.middle.weight, [1] * 4) + F.pad(self.narrow.weight, [2] * 4) + identity
        wide, middle, narrow = (conv.get_parameter("bias") for conv in (self.wide, self.middle, self.narrow))
        return weight, wide + middle + narrow
