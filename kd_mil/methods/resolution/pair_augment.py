"""Random changes of image pairs: both members of a pair get the same draw."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_mil.core.errors import UserError

RGB_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


class Draw(NamedTuple):
    """What happens to each of B images."""

    flip: Tensor
    """(B, 2) bool: left-right, up-down."""
    quarter_turns: Tensor
    """(B,) int64 in 0..3."""
    angle: Tensor
    """(B,) radians, 0 unless rotations are free."""
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    """(B,) factors; 1 changes nothing."""
    hue: Tensor
    """(B,) shares of a full turn of the colour circle."""


class PairAugment:
    """Flips, rotations and colour changes (Sec. 3.2), drawn once for an image and applied at every resolution.

    Args:
        flips: any of `horizontal`, `vertical`, each taken with probability 1/2.
        rotate: `none`, `rot90` (quarter turns) or `any` (free angles; corners are filled by mirroring).
        brightness, contrast, saturation: factors are drawn from [1 - x, 1 + x].
        hue: turns are drawn from [-x, x], as a share of a full turn.

    Raises:
        UserError: a strength out of range.
    """

    def __init__(
        self,
        flips: Sequence[Literal["horizontal", "vertical"]] = ("horizontal", "vertical"),
        rotate: Literal["none", "rot90", "any"] = "rot90",
        brightness: float = 0.5,
        contrast: float = 0.5,
        saturation: float = 0.5,
        hue: float = 0.2,
    ) -> None:
        strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        for name, strength in strengths.items():
            largest = 0.5 if name == "hue" else 1.0
            if not 0 <= strength <= largest:
                raise UserError(f"augment.{name}={strength}: must lie in [0, {largest:g}]")
        self.flips, self.rotate = tuple(flips), rotate
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def draw(self, count: int) -> Draw:
        """What happens to each of `count` images, from torch's global generator of the CPU."""
        flip, turns, angle = torch.rand(count, 2) < 0.5, torch.randint(4, (count,)), torch.rand(count) * 2 * math.pi
        spread = torch.rand(4, count) * 2 - 1
        return Draw(
            flip & torch.tensor([name in self.flips for name in ("horizontal", "vertical")]),
            turns if self.rotate == "rot90" else torch.zeros_like(turns),
            angle if self.rotate == "any" else torch.zeros_like(angle),
            1 + self.brightness * spread[0],
            1 + self.contrast * spread[1],
            1 + self.saturation * spread[2],
            self.hue * spread[3],
        )


def turn(image: Tensor, draw: Draw, position: int) -> Tensor:
    """One image (3, H, W) flipped and turned by quarters; a view of the same memory where possible."""
    dims = [dim for dim, flipped in ((-1, draw.flip[position, 0]), (-2, draw.flip[position, 1])) if flipped]
    image = image.flip(dims) if dims else image
    return image.rot90(int(draw.quarter_turns[position]), (-2, -1))


def recolour(images: Tensor, draw: Draw, positions: Tensor) -> Tensor:
    """Images (B, 3, H, W) uint8 of one size, rotated freely and recoloured, as float in [0, 1].

    Args:
        positions: (B,) int64 which entries of the draw belong to the images.
    """
    values = images.float() / 255
    chosen = Draw(*(value[positions].to(images.device) for value in draw))
    if chosen.angle.any():
        values = rotate_freely(values, chosen.angle)
    matrix, offset = colour_change(values, chosen)
    return (torch.einsum("bij,bjhw->bihw", matrix, values) + offset[:, :, None, None]).clamp_(0, 1)


def colour_change(images: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Brightness, contrast, saturation and hue in this order as one affine map: matrix (B, 3, 3) and offset (B, 3).

    Contrast is about the image's mean grey. Hue turns in the chroma plane of YIQ, which is linear; HSV is not.
    """
    identity, yiq = torch.eye(3, device=images.device), RGB_TO_YIQ.to(images.device)
    grey = yiq[:1].expand(3, 3)
    brightness, contrast, saturation = (
        factor[:, None, None] for factor in (draw.brightness, draw.contrast, draw.saturation)
    )
    mean_grey = torch.einsum("c,bchw->b", yiq[0], images) / images[0, 0].numel() * draw.brightness
    cos, sin = torch.cos(2 * math.pi * draw.hue), torch.sin(2 * math.pi * draw.hue)
    one, nothing = torch.ones_like(cos), torch.zeros_like(cos)
    rotation = torch.stack([one, nothing, nothing, nothing, cos, -sin, nothing, sin, cos], dim=1).view(-1, 3, 3)
    after = torch.linalg.inv(yiq) @ rotation @ yiq @ (saturation * identity + (1 - saturation) * grey)
    offset = after @ ((1 - draw.contrast) * mean_grey)[:, None, None].expand(-1, 3, 1)
    return after * (brightness * contrast), offset.squeeze(2)


def rotate_freely(images: Tensor, angle: Tensor) -> Tensor:
    """Images (B, C, H, W) turned about their centre by (B,) radians, same size, corners mirrored."""
    height, width = images.shape[-2:]
    cos, sin, nothing = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    theta = torch.stack([cos, -sin * height / width, nothing, sin * width / height, cos, nothing], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
