"""Graphs as files of torch.export or ONNX, each tried against the method once it is written."""

import contextlib
import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from kd_mil.core.errors import UserError
from kd_mil.prediction.exporting.graphs import Graph

ENDINGS = {"torch_export": ".pt2", "onnx": ".onnx"}
NEEDED = {"torch_export": (), "onnx": ("onnx", "onnxscript", "onnxruntime")}
"""Libraries by format."""
TOLERANCE = 1e-5
"""Largest difference from the method, of numbers from 1 on as a share of them."""
SMALLEST_SIDE = 64
"""Pixels; a network that halves them five times sees more than one place."""
TRIED = (1, 2, 300)
"""Sizes with which a graph is tried."""


def require_libraries(format: str) -> None:
    """Raises `UserError` where the libraries of a format are missing."""
    for name in NEEDED[format]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"format={format} needs {name}: pip install 'kd-mil[export]'") from error


def write_graph(graph: Graph, folder: Path, format: str) -> Path:
    """Write a graph; what its file computes equals what the method does, for bags of 1, 2 and 300 instances.

    Raises:
        UserError: the network cannot be exported, or computes something else as a file.
    """
    path = folder / f"{graph.name}{ENDINGS[format]}"
    try:
        with quiet(), torch.no_grad():
            program = exported(graph)
            run = _write_onnx(graph, program, path) if format == "onnx" else _write_program(program, path)
            compare(graph, run)
    except UserError:
        raise
    except Exception as error:  # whatever the exporter meets in a network
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"format={format}: {graph.name} cannot be exported ({reason}): take format=safetensors"
        ) from error
    return path


def exported(graph: Graph) -> ExportedProgram:
    """The graph as a program; the number of instances stays open from 1 on, sides of images from 64 pixels on."""
    open_sizes = {place: Dim(name, min=SMALLEST_SIDE if place else 1) for place, name in graph.open.items()}
    shapes = {"tensors": tuple(open_sizes for _ in graph.inputs)}
    program = torch.export.export(graph.module, tuple(graph.inputs.values()), dynamic_shapes=shapes, strict=False)
    return without_unused(program.run_decompositions({}))


def without_unused(program: ExportedProgram) -> ExportedProgram:
    """The program without weights that it does not read: those of other roles, and of the encoder."""
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:  # keeps alive what nobody asks for
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    places = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    kept = []
    for spec in program.graph_signature.input_specs:
        of_module = spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)
        if of_module and not places[spec.arg.name].users:
            program.graph.erase_node(places[spec.arg.name])
            program.state_dict.pop(spec.target, None)
        else:
            kept.append(spec)
    program.graph_signature.input_specs[:] = kept
    program.graph_module.recompile()
    return program


def _write_program(program: ExportedProgram, path: Path) -> Callable[..., Sequence[Tensor]]:
    with path.open("wb") as file:
        torch.export.save(program, file)
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _write_onnx(graph: Graph, program: ExportedProgram, path: Path) -> Callable[..., Sequence[Tensor]]:
    names: dict[str, Any] = {"input_names": list(graph.inputs), "output_names": list(graph.outputs)}
    sorts: dict[Any, Any] = {torch.ops.aten.sort.stable: stable_sort}
    made: Any = torch.onnx.export(program, **names, custom_translation_table=sorts, dynamo=True, verbose=False)
    made.save(path)
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(*tensors: Tensor) -> list[Tensor]:
        inputs = {name: tensor.numpy() for name, tensor in zip(graph.inputs, tensors, strict=True)}
        return [torch.from_numpy(found) for found in session.run(list(graph.outputs), inputs)]

    return run


def stable_sort(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """ONNX for `aten.sort.stable`, for which PyTorch's exporter has none: TopK puts the lower index first of equals."""
    ops: Any = importlib.import_module("onnxscript").opset18
    count = ops.Gather(ops.Shape(values), ops.Constant(value_ints=[dim]))
    return ops.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def compare(graph: Graph, run: Callable[..., Sequence[Tensor]]) -> None:
    """Compare a graph as written with the method.

    Raises:
        UserError: an output differs by more than `TOLERANCE`.
    """
    for count in TRIED:
        tensors = [of_size(example, count) for example in graph.inputs.values()]
        for name, expected, found in zip(graph.outputs, graph.module(*tensors), run(*tensors), strict=True):
            error = ((found - expected).abs() / expected.abs().clamp_min(1)).max()
            if not error <= TOLERANCE:  # also where it is NaN
                raise UserError(
                    f"{graph.name} as a graph gives another {name} for {count} instances (by {float(error):.1e}): "
                    "take format=safetensors"
                )


def of_size(example: Tensor, count: int) -> Tensor:
    """As many rows as asked for, each like one of the example's, and features all different."""
    generator = torch.Generator().manual_seed(count)
    rows = example[torch.randint(len(example), (count,), generator=generator)]
    if not rows.is_floating_point():
        return rows
    return rows + rows.std(correction=0) * torch.randn(rows.shape, generator=generator)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's talk to developers."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
