"""From stored instances (uint8 pixels, fp16 features) to what an encoder takes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_mil.core.checks import share
from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import draw_rows
from kd_mil.models.stain_jitter import jitter_stain


class Preprocess(nn.Module):
    """Scale to float, normalise by channel, augment while training. Part of the model, so checkpoints carry it.

    Args:
        mean, std: per channel, on pixels scaled to [0, 1] or on raw features; None leaves them as they are.
        standardise: take mean and std from the training instances before the first epoch (`fit`).
        augment: while training, apply one of the 8 flips and quarter turns to each instance (square pixels only).
        stain_jitter: while training, change the staining of each bag by up to this much (`jitter_stain`); 0 leaves it.
            For 8-bit RGB images of haematoxylin and eosin. Instances that come without their bags are changed one by
            one. Resolution distillation has changes of its own (`method.augment`).

    Raises:
        UserError: a stain jitter outside [0, 1).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        standardise: bool = False,
        augment: bool = False,
        stain_jitter: float = 0.0,
    ) -> None:
        super().__init__()
        share("preprocess.stain_jitter", stain_jitter, one=False)
        self.made_with = {
            **{"mean": mean, "std": std},  # buffers of these names may be fitted
            **{"standardise": standardise, "augment": augment, "stain_jitter": stain_jitter},
        }
        self.standardise, self.augment, self.stain_jitter = standardise, augment, stain_jitter
        self.normalises = standardise or mean is not None or std is not None
        self.register_buffer("mean", torch.tensor(0.0 if mean is None else mean))
        self.register_buffer("std", torch.tensor(1.0 if std is None else std))

    def forward(self, instances: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Map (N, C, H, W) uint8 or float, or (N, D) float, to the default float type, same shape.

        Instances of a bag share their staining, where the sizes (B,) of the bags are given; flips are drawn for each.
        Images come in channels-last memory, in which convolutions run faster on a CPU.
        """
        values = instances.to(torch.get_default_dtype())
        if instances.dtype == torch.uint8:
            values = values.div_(255)
        if self.stain_jitter and self.training:
            if instances.dtype != torch.uint8 or instances.shape[1] != 3:
                kind = f"{str(instances.dtype).removeprefix('torch.')} {tuple(instances.shape[1:])}"
                raise UserError(f"preprocess.stain_jitter is for 8-bit RGB images, but instances are {kind}")
            values = jitter_stain(values, self.stain_jitter, sizes)
        if self.normalises:
            shape = (-1, *[1] * (values.dim() - 2))
            values = (values - self.mean.view(shape)) / self.std.view(shape)
        if self.augment and self.training:
            if values.dim() != 4 or values.shape[-1] != values.shape[-2]:
                raise UserError(f"preprocess.augment turns square images, but instances are {tuple(values.shape[1:])}")
            values = random_dihedral(values)
        return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values

    @torch.no_grad()
    def fit(self, instances: Tensor) -> None:
        """Set mean and std per channel from a sample (N, ...) of the training instances; constant channels get 1."""
        values = (instances.float() / 255 if instances.dtype == torch.uint8 else instances.float()).transpose(0, 1)
        values = values.flatten(1).double()
        std = values.std(1, correction=0)
        self.mean = values.mean(1).float().to(self.mean.device)
        self.std = torch.where(std > 0, std, 1.0).float().to(self.std.device)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        """Statistics may be per channel in the checkpoint and still scalar here."""
        for name in ("mean", "std"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def random_dihedral(images: Tensor) -> Tensor:
    """Each square image (N, C, S, S) under a random one of the 8 symmetries of the square."""
    device = images.device
    for transform in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2)):
        chosen = draw_rows(len(images), lambda count: torch.rand(count, 1, 1, 1, device=device)) < 0.5
        images = torch.where(chosen, transform(images), images)
    return images
