"""Any bag classifier of torchmil (https://torchmil.readthedocs.io) as an aggregator: `kd-mil[torchmil]`.

TorchMIL(in_features=512, model="TransformerABMIL")(features, sizes).bag_logits
"""

import importlib
import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.models.outputs import MILOutput
from kd_mil.models.segments import segment_softmax, segment_weighted_sum

NORMALISED = ("DSMIL", "TransMIL")
"""Models whose "attention" is what their softmax left; the others return what goes into one."""
ATTENTION = ("return_att", "return_inst_pred", "return_inst_cam")
"""Arguments that make a model say something about instances, the best of those it has."""


class TorchMIL(nn.Module):
    """A torchmil model on packed bags, one bag after the other: no padding and no masks, which some models mishandle.

    Its one logit z becomes the two logits (0, z), whose cross-entropy is the model's binary cross-entropy. What else
    the model's `compute_loss` holds is added to the loss. The embedding, which torchmil does not give, is the mean of
    the features weighted by attention.

    Args:
        in_features: D, width of the instance features.
        num_classes: 2.
        model: name of a class in `torchmil.models` that takes bags alone, such as ABMIL, TransformerABMIL or CLAM.
        **settings: further arguments of that class.

    Raises:
        UserError: torchmil is missing, the model unknown, in need of a graph or silent on instances, or the settings
            do not fit it.
    """

    def __init__(self, in_features: int, num_classes: int = 2, model: str = "ABMIL", **settings: Any) -> None:
        super().__init__()
        if num_classes != 2:
            raise UserError(f"aggregator=torchmil is binary, but the data has {num_classes} classes")
        factory = find_model(model)
        self.attention_argument = attention_argument(model, factory)
        self.normalised, self.masked = model in NORMALISED, "mask" in inspect.signature(factory.forward).parameters
        try:
            self.model: nn.Module = factory(in_shape=(in_features,), **settings)
            self.adds_loss = self._try(in_features)
        except (TypeError, ValueError, RuntimeError, AssertionError, IndexError) as error:
            raise UserError(f"aggregator.model={model} cannot be used so: {str(error).splitlines()[0]}") from error

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Pool features (N, D) of bags with sizes (B,)."""
        bags = features.split(sizes.tolist())
        if len(features) == len(sizes) and not self.mixes_bags:  # bags of one need no padding: all at once
            positive, scores = self.pool_equal(features.unsqueeze(1))
        else:
            pooled = [self.pool_equal(bag.unsqueeze(0)) for bag in bags]
            positive, scores = (torch.cat(column) for column in zip(*pooled, strict=True))
        attention = segment_softmax(scores, sizes)
        return MILOutput(
            torch.stack([torch.zeros_like(positive), positive], 1),
            scores,
            attention,
            segment_weighted_sum(features, attention, sizes),
            auxiliary_loss=partial(self.model_loss, bags) if self.adds_loss else None,
        )

    def pool_equal(self, bags: Tensor) -> tuple[Tensor, Tensor]:
        """Bag logits (B,) and attention logits (B * n,) of bags of equal sizes (B, n, D)."""
        logits, attention, *_ = self.model(bags, **self.mask(bags), **{self.attention_argument: True})
        attention = attention.reshape(-1)
        if self.normalised:
            attention = attention.clamp_min(torch.finfo(torch.float32).tiny).log()
        return logits.reshape(-1).float(), attention.float()

    def mask(self, bags: Tensor) -> dict[str, Tensor]:
        """The mask of bags (B, n, D) without padding, for models that cannot do without."""
        return {"mask": bags.new_ones(bags.shape[:2], dtype=torch.bool)} if self.masked else {}

    def model_loss(self, bags: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """What the model adds to the loss of its prediction: a mean over the bags."""
        losses = [sum(self._added(bag, label).values()) for bag, label in zip(bags, labels.split(1), strict=True)]
        return torch.stack(losses).mean()  # type: ignore[arg-type]

    def _added(self, bag: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Terms of the model's loss on one bag other than its criterion of the prediction."""
        model: Any = self.model
        _, losses = model.compute_loss(label, bag.unsqueeze(0), **self.mask(bag.unsqueeze(0)))
        return {name: loss for name, loss in losses.items() if name != type(model.criterion).__name__}

    def _mixes_bags(self, instances: Tensor) -> bool:
        """Whether bags of one say something else together than alone: the Nystrom attention scales over a batch."""
        self.model.eval()
        together = self.pool_equal(instances.unsqueeze(1))[0]
        alone = torch.cat([self.pool_equal(row[None, None])[0] for row in instances])
        self.model.train()
        return not torch.allclose(together, alone, rtol=1e-5, atol=1e-6)

    def _try(self, in_features: int) -> bool:
        """Run it once on a random bag, to find now what it cannot do; says whether it has losses of its own."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():  # leaves the run's random numbers alone
            bag = torch.randn(16, in_features)
            self.pool_equal(bag.unsqueeze(0))
            self.mixes_bags = self._mixes_bags(bag)
            return bool(self._added(bag, torch.ones(1, dtype=torch.long)))


def find_model(name: str) -> Any:
    """The class `name` of torchmil; raises `UserError` without it."""
    try:
        models = importlib.import_module("torchmil.models")
    except ImportError as error:
        raise UserError("aggregator=torchmil needs torchmil: pip install 'kd-mil[torchmil]'") from error
    known = [key for key, value in vars(models).items() if inspect.isclass(value) and issubclass(value, nn.Module)]
    if name not in known:
        raise UserError(f"aggregator.model={name}: torchmil has {', '.join(sorted(known))}")
    return getattr(models, name)


def attention_argument(name: str, factory: Any) -> str:
    """The argument that makes the model speak of instances; raises `UserError` if it cannot or needs more than bags."""
    arguments = inspect.signature(factory.forward).parameters
    needed = [key for key, argument in arguments.items() if argument.default is argument.empty and key != "self"]
    if needed != ["X"]:
        raise UserError(f"aggregator.model={name} needs {', '.join(needed)}: only models of bags alone are supported")
    for argument in ATTENTION:
        if argument in arguments:
            return argument
    raise UserError(f"aggregator.model={name} says nothing about instances")
