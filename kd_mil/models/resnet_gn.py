"""Residual networks with group normalisation: images of any size in, last feature map and logits out."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.models.image_classifier import ImageOutput

Stem = Literal["large", "small"]


class ResNetGN(nn.Module):
    """ResNet whose batch normalisation is group normalisation, so that images may come one by one (Sec. 3.5).

    He initialisation (fan out) of convolutions. The feature map has a 32nd of the side lengths with the large stem, an
    8th with the small one, rounded up.

    Args:
        num_classes: C.
        depth: `resnet10_half` (the authors' code: one block a stage, half the usual width), `resnet18`, `resnet34`,
            `resnet50`.
        stem: `large` = 7x7 of stride 2 and max-pooling; `small` = 3x3 of stride 1, for images of up to about 64 pixels.
        width: channels of the first stage, doubled in each of the others; None = the depth's own (32 or 64).
        groups: of each normalisation; 32 in the authors' code.

    Raises:
        UserError: an unknown depth, or channels that do not come in that many groups.
    """

    def __init__(
        self,
        num_classes: int,
        depth: str = "resnet10_half",
        stem: Stem = "large",
        width: int | None = None,
        groups: int = 32,
    ) -> None:
        super().__init__()
        one_of("method.network.depth", depth, DEPTHS)
        block, blocks, usual_width = DEPTHS[depth]
        width = usual_width if width is None else width
        if groups < 1 or width < groups or width % groups:
            raise UserError(f"network.groups={groups} does not divide network.width={width}")
        self.smallest = 4 if stem == "large" else 1
        self.stem = nn.Sequential(*_stem(stem, width, groups))
        self.stages = nn.Sequential()
        channels = width
        for stage, count in enumerate(blocks):
            for position in range(count):
                stride = 2 if stage > 0 and position == 0 else 1
                self.stages.append(block(channels, width * 2**stage, stride, groups))
                channels = width * 2**stage * block.expansion
        self.head = nn.Linear(channels, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> ImageOutput:
        """Classify standardised images (B, 3, H, W).

        Raises:
            UserError: images of so few pixels that one is left after the stem: nothing to normalise.
        """
        if max(images.shape[-2:]) <= self.smallest:
            raise UserError(
                f"images of {images.shape[-1]}x{images.shape[-2]} pixels are too small for the network: it takes more "
                f"than {self.smallest} a side; choose a smaller data.student_downsample, or method.network.stem=small"
            )
        feature_map = self.stages(self.stem(images))
        return ImageOutput(feature_map, self.head(feature_map.mean((2, 3))))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.GroupNorm(groups, width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(groups, width),
        )
        self.shortcut = _shortcut(channels, width, stride, groups)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.residual(images) + self.shortcut(images))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, around a shortcut; four times as many channels leave it."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.GroupNorm(groups, width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.GroupNorm(groups, width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.GroupNorm(groups, 4 * width),
        )
        self.shortcut = _shortcut(channels, 4 * width, stride, groups)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.residual(images) + self.shortcut(images))


DEPTHS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], Sequence[int], int]] = {
    "resnet10_half": (BasicBlock, (1, 1, 1, 1), 32),
    "resnet18": (BasicBlock, (2, 2, 2, 2), 64),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 64),
}
"""Block, blocks in each stage, and width of the first stage."""


def _stem(stem: Stem, width: int, groups: int) -> list[nn.Module]:
    kernel, stride = (7, 2) if stem == "large" else (3, 1)
    layers = [nn.Conv2d(3, width, kernel, stride, padding=kernel // 2, bias=False), nn.GroupNorm(groups, width)]
    pooling = [nn.MaxPool2d(3, 2, padding=1)] if stem == "large" else []
    return [*layers, nn.ReLU(inplace=True), *pooling]


def _shortcut(channels: int, width: int, stride: int, groups: int) -> nn.Module:
    if stride == 1 and channels == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.GroupNorm(groups, width))
