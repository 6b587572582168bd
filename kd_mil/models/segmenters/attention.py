"""Criss-cross attention (Huang et al., CCNet, ICCV 2019, arXiv 1811.11721), as SA-MIL uses it."""

import torch
from torch import Tensor, nn

REDUCTION = 8


class CrissCrossAttention(nn.Module):
    """Every pixel attends to the pixels of its row and of its column; two passes reach the whole image.

    One softmax over the H + W - 1 positions of the cross; the result, scaled by a learned number that starts at 0, is
    added to the input.

    Args:
        channels: of input and output; queries and keys have an eighth.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // REDUCTION, 1)
        self.query, self.key = nn.Conv2d(channels, inner, 1), nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        column = torch.einsum("bchw,bcgw->bhwg", query, key).float()
        row = torch.einsum("bchw,bchv->bhwv", query, key).float()
        # the pixel itself lies on both lines: it counts once
        own = torch.eye(x.shape[2], dtype=torch.bool, device=x.device)[None, :, None, :]
        column = column.masked_fill(own, -torch.inf)
        attention = torch.cat([column, row], -1).softmax(-1).to(value.dtype)
        in_column, in_row = attention.split([x.shape[2], x.shape[3]], -1)
        gathered = torch.einsum("bhwg,bcgw->bchw", in_column, value) + torch.einsum("bhwv,bchv->bchw", in_row, value)
        return x + self.scale * gathered
