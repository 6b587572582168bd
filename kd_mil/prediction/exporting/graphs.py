"""What a trained method computes, as networks of tensors alone: its encoder, and the word of each role on one bag.

for graph in graphs_of(method): torch.export.export(graph.module, tuple(graph.inputs.values()))
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.image_method import ImageMethod
from kd_mil.methods.base.method import Method
from kd_mil.methods.base.segmentation_method import SegmentationMethod
from kd_mil.models.outputs import Prediction

SAID = ("bag_probs", "instance_probs", "instance_scores", "attention", "class_probs")
"""What a graph of a role may give, in the words of `Prediction`."""
EXAMPLES = 7
"""Instances of the example that is traced; their number stays open."""


@dataclass(frozen=True)
class Graph:
    """A network from tensors to tensors, all of the same first dimension where it is open."""

    name: str
    """Of its file: `encoder`, or a role."""
    module: nn.Module
    """Takes the inputs in their order, and gives a tuple."""
    inputs: dict[str, Tensor]
    """An example of each."""
    outputs: tuple[str, ...]
    open: dict[int, str]
    """Dimensions of the inputs that may be of any size, the first of them from 1 on."""


class Function(nn.Module):
    """A function of a method as a module, of which the method is a part."""

    def __init__(self, method: nn.Module, function: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.method, self.function = method, function

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.function(*tensors)


def graphs_of(method: Method) -> list[Graph]:
    """The graphs of a method in eval mode; its buffers that only decide something become Python values.

    Raises:
        UserError: a method of another kind.
    """
    settle(method)
    if isinstance(method, BagMethod):
        return bag_graphs(method)
    if isinstance(method, ImageMethod):
        return image_graphs(method)
    if isinstance(method, SegmentationMethod):
        return mask_graphs(method)
    raise UserError(f"format: {type(method).__name__} cannot be exported as a graph: take format=safetensors")


def settle(method: nn.Module) -> None:
    """Replace a method's own whole numbers and truth values by those of Python: no graph branches on a tensor."""
    for name, buffer in list(method.named_buffers(recurse=False)):
        if not buffer.is_floating_point():
            delattr(method, name)
            setattr(method, name, buffer.tolist())


@torch.no_grad()
def bag_graphs(method: BagMethod) -> list[Graph]:
    """Stored instances to features, and the features of one bag to what each role says of it."""
    instances = example_of(method, EXAMPLES)
    encoded = method.encode(instances)
    names = ["features"] if len(encoded) == 1 else [f"features_{number}" for number in range(1, len(encoded) + 1)]
    encoder = Function(method, method.encode)
    graphs = [Graph("encoder", encoder, {"instances": instances}, tuple(names), {0: "instances"})]
    for role, said in method.predict_encoded(encoded, torch.tensor([EXAMPLES])).items():
        outputs = tuple(name for name in SAID if getattr(said, name) is not None)
        module = Function(method, word_of(method, role, outputs))
        graphs.append(Graph(role, module, dict(zip(names, encoded, strict=True)), outputs, {0: "instances"}))
    return graphs


def word_of(method: BagMethod, role: str, outputs: tuple[str, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """The function from the features (N, E) of a bag to what a role says of it."""

    def say(*encoded: Tensor) -> tuple[Tensor, ...]:
        sizes = torch.full((1,), encoded[0].shape[0], dtype=torch.long)
        said: Prediction = method.predict_encoded(encoded, sizes)[role]
        return tuple(getattr(said, name) for name in outputs)

    return say


def image_graphs(method: ImageMethod) -> list[Graph]:
    """Images (B, 3, H, W) uint8, each role's at its own resolution, to class probabilities (B, C) float64."""
    graphs = []
    images = torch.randint(256, (2, 3, 96, 128), dtype=torch.uint8)
    for role, (network, _) in method.classifiers().items():
        if method.has_learned(role):
            module = Function(method, lambda images, network=network: (network(images).logits.double().softmax(1),))
            graphs.append(
                Graph(role, module, {"images": images}, ("class_probs",), {0: "images", 2: "height", 3: "width"})
            )
    return graphs


@torch.no_grad()
def mask_graphs(method: SegmentationMethod) -> list[Graph]:
    """Images (B, C, H, W) of the training's size to maps (B, H, W) of probabilities, one graph for each role."""
    images = example_of(method, 2)
    return [
        Graph(
            role,
            Function(method, lambda images, role=role: (method.predict_maps(images)[role],)),
            {"images": images},
            ("map",),
            {0: "images"},
        )
        for role in method.predict_maps(images)
    ]


def example_of(method: Method, count: int) -> Tensor:
    """Random instances (count, ...) of the shape and type of the training data: pixels are uint8, features float32."""
    shape = method.model_card["model_inputs"]["instance_shape"]
    source = method.model_card.get("instance_source") or {}
    generator = torch.Generator().manual_seed(0)
    if len(shape) == 1 or str(source.get("dtype")).startswith("float"):
        return torch.randn(count, *shape, generator=generator)
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)
