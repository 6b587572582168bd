"""`config.json` of an exported model: what a program must know to use its files, and the card to load it again."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kd_mil.core.version import __version__
from kd_mil.evaluation.statistics.operating_points import POINTS
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.method import Method
from kd_mil.methods.base.segmentation_method import SegmentationMethod
from kd_mil.models.preprocess import Preprocess
from kd_mil.prediction.exporting.graphs import Graph, example_of

OF_TILES = ("mpp", "magnification", "tile_size", "slide_mpp", "encoder", "weights")


def facts_of(method: Method, checkpoint: str, format: str) -> dict[str, Any]:
    """The content of `config.json`.

    Args:
        method: as loaded; its graphs, once they are made, are added by `signatures`.
        checkpoint: the first 16 digits of its file's SHA-256.
        format: `safetensors`, `torch_export` or `onnx`.
    """
    card = method.model_card
    return {
        "kd_mil": __version__,
        "format": format,
        "experiment": card.get("experiment", ""),
        "checkpoint": checkpoint,
        "class_names": card["class_names"],
        "roles": list(method.roles),
        "decisions": decisions_of(method),
        "instances": instances_of(method),
        "transforms": transforms_of(method),
        "graphs": {},
        "model_card": card,
    }


def decisions_of(method: Method) -> dict[str, Any]:
    """How probabilities become decisions: which role decides, and every role's thresholds."""
    if isinstance(method, BagMethod):
        points = {name: method.operating.bags[:, number].tolist() for number, name in enumerate(POINTS)}
        chosen = {
            name: dict(zip(method.roles, values, strict=True)) for name, values in points.items() if max(values) >= 0
        }
        return {
            "decides": method.decides,
            "thresholds": method.thresholds,
            "instance_thresholds": method.thresholds_of_instances,
            "operating_points": chosen,
            "temperatures": dict(method.operating.temperature_of),
        }
    if isinstance(method, SegmentationMethod):
        pairs = zip(method.roles, method.operating_points.tolist(), strict=True)
        tuned = {role: {"blur": blur, "threshold": threshold} for role, (blur, threshold) in pairs}
        return {
            "decides": method.roles[-1],
            "blur": method.reading.blur,
            "thresholds": method.thresholds,
            "tuned": tuned,
        }
    return {"decides": method.roles[-1], "thresholds": dict.fromkeys(method.roles, 0.5)}


def instances_of(method: Method) -> dict[str, Any]:
    """Shape and type of what goes in, and how it was made of slides as far as the card says it."""
    source = method.model_card.get("instance_source") or {}
    inputs = method.model_card["model_inputs"]
    known = {**(source.get("tiling") or {}), **source}
    facts = {name: known[name] for name in OF_TILES if known.get(name) is not None}
    if "instance_shape" not in inputs:
        return {"dtype": "uint8", **facts}
    example = example_of(method, 1)
    return {"shape": list(example.shape[1:]), "dtype": str(example.dtype).removeprefix("torch."), **facts}


def transforms_of(method: nn.Module) -> dict[str, dict[str, Any]]:
    """What happens to stored instances first, by the module that does it; graphs do it themselves."""
    found: dict[str, dict[str, Any]] = {}
    for name, module in method.named_modules():
        if isinstance(module, Preprocess):
            found[name] = {"uint8_scale": 1 / 255, "mean": numbers(module.mean), "std": numbers(module.std)}
        elif isinstance(getattr(module, "mean", None), Tensor) and isinstance(getattr(module, "std", None), Tensor):
            own: Mapping[str, Any] = {key: getattr(module, key, None) for key in ("resize", "crop", "interpolation")}
            found[name] = {"mean": numbers(module.mean), "std": numbers(module.std), **own}
    return found


def numbers(values: Any) -> list[float]:
    """A tensor of any shape as a flat list."""
    return [float(value) for value in values.flatten().tolist()]


def signatures(graphs: Sequence[Graph]) -> dict[str, Any]:
    """Inputs and outputs of all graphs, by name."""
    return {graph.name: signature_of(graph) for graph in graphs}


def signature_of(graph: Graph) -> dict[str, Any]:
    """Inputs by name, with their type and open dimensions by name, and the names of the outputs."""

    def described(example: Tensor) -> dict[str, Any]:
        shape = [graph.open.get(place, side) for place, side in enumerate(example.shape)]
        return {"dtype": str(example.dtype).removeprefix("torch."), "shape": shape}

    return {"inputs": {name: described(value) for name, value in graph.inputs.items()}, "outputs": list(graph.outputs)}
