"""Checkpoints that are damaged, hostile, or predict nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.campaign.cases import Case
from tests.campaign.checks import either, listed, predicted, refused
from tests.campaign.inputs.features import hdf5


def cases(checkpoints: dict[str, Path]) -> Iterator[Case]:
    """Checkpoints that are damaged, hostile, or predict nothing."""
    kind = "checkpoints"

    def with_weights(change: Callable[[torch.Tensor], torch.Tensor], which: str = "features") -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            content = torch.load(checkpoints[which], weights_only=True)
            state = content["state_dict"]
            content["state_dict"] = {
                key: change(value) if value.is_floating_point() and value.numel() else value
                for key, value in state.items()
            }
            _save(folder, content)

        return write

    def changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            content = torch.load(checkpoints["features"], weights_only=True)
            change(content)
            _save(folder, content)

        return write

    def target(name: str) -> Callable[[Path], None]:
        return changed(lambda content: content["model_card"]["method"].update(_target_=name, _partial_=False))

    predict = ("ckpt=in/c.ckpt", "features=in/f.h5", "out=out", "table=csv", "device=cpu")
    segment = ("ckpt=in/c.ckpt", "images=in/images", "out=out", "device=cpu")
    yield Case(
        "weights_right",
        kind,
        with_weights(lambda value: value),
        predicted("f", 20),
        command="predict",
        settings=predict,
    )
    for name, value in (("nan", float("nan")), ("infinite", float("inf"))):
        yield Case(
            f"weights_{name}",
            kind,
            with_weights(lambda tensor, value=value: tensor * 0 + value),
            refused("c.ckpt", "finite|nan|weights"),
            command="predict",
            settings=predict,
        )
        yield Case(
            f"weights_{name}_segment",
            kind,
            with_weights(lambda tensor, value=value: tensor * 0 + value, "masks"),
            refused("c.ckpt", "finite|nan|weights"),
            command="segment",
            settings=segment,
        )
    yield Case(
        "weights_one_nan",
        kind,
        with_weights(_one_nan),
        refused("c.ckpt", "finite|nan|weights"),
        command="predict",
        settings=predict,
    )
    yield Case(
        "weights_huge",
        kind,
        with_weights(lambda tensor: tensor * 1e30),
        either(refused("c.ckpt", "finite|weights"), listed("f", "finite|probabilit"), _no_class_of_nothing),
        command="predict",
        settings=predict,
    )
    for name, write in (
        ("empty", lambda folder: _bytes(folder, b"")),
        ("text", lambda folder: _bytes(folder, b"no checkpoint")),
        ("cut", lambda folder: _bytes(folder, checkpoints["features"].read_bytes()[:3000])),
        ("tensor", lambda folder: _save(folder, torch.zeros(3))),
        ("list", lambda folder: _save(folder, [1])),
        ("no_card", changed(lambda content: content.pop("model_card"))),
        ("no_weights", changed(lambda content: content.pop("state_dict"))),
        ("card_text", changed(lambda content: content.update(model_card="x"))),
        ("card_empty", changed(lambda content: content.update(model_card={}))),
        ("no_classes", changed(lambda content: content["model_card"].pop("class_names"))),
        ("other_state", changed(lambda content: content.update(state_dict={}))),
        ("source_images", changed(lambda content: content["model_card"].update(instance_source={"kind": "images"}))),
        ("source_empty", changed(lambda content: content["model_card"].update(instance_source={"kind": "features"}))),
        ("system", target("os.system")),
        ("evaluate", target("builtins.eval")),
        ("through_module", target("kd_mil.models.encoders.small.math.sqrt")),
        ("interpolation", changed(lambda content: content["model_card"]["method"].update(x="${oc.env:HOME}"))),
        (
            "inputs_text",
            changed(
                lambda content: content["model_card"].update(model_inputs={"instance_shape": "x", "num_classes": 2})
            ),
        ),
        (
            "inputs_huge",
            changed(
                lambda content: content["model_card"].update(model_inputs={"instance_shape": [10**9], "num_classes": 2})
            ),
        ),
    ):
        yield Case(f"checkpoint_{name}", kind, write, refused("c.ckpt"), command="predict", settings=predict)
    yield Case(
        "checkpoint_of_masks",
        kind,
        lambda folder: _bytes(folder, checkpoints["masks"].read_bytes()),
        refused("c.ckpt|bags|segment"),
        command="predict",
        settings=predict,
    )
    yield Case(
        "checkpoint_of_bags",
        kind,
        lambda folder: _bytes(folder, checkpoints["features"].read_bytes()),
        refused("c.ckpt", "masks|predict"),
        command="segment",
        settings=segment,
    )
    yield Case("checkpoint_evil", kind, _evil, refused("c.ckpt"), command="predict", settings=predict)
    yield Case(
        "checkpoint_missing",
        kind,
        _beside,
        refused("c.ckpt"),
        command="predict",
        settings=predict,
    )


def _no_class_of_nothing(result: Any) -> list[str]:
    rows = result.rows_of("f")
    return (
        []
        if rows and all(row["model_prob"] not in ("", "nan") or not row["model_decision"] for row in rows)
        else ["a class of no probability"]
    )


def _one_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[:1] = float("nan")
    return tensor


def _beside(folder: Path) -> None:
    from PIL import Image

    hdf5()(folder / "f.h5")
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (32, 32), (200, 100, 150)).save(folder / "images" / "i.png")


def _save(folder: Path, content: Any) -> None:
    _beside(folder)
    torch.save(content, folder / "c.ckpt")


def _bytes(folder: Path, content: bytes) -> None:
    _beside(folder)
    (folder / "c.ckpt").write_bytes(content)


def _evil(folder: Path) -> None:
    from tests.campaign.inputs.tensors import Evil

    _save(folder, {"state_dict": Evil(folder / "executed5.txt"), "model_card": {}})
