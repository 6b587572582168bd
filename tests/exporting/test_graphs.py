"""Graphs of a trained method compute what `predict` does, for bags of 1 to 50,000 instances."""

from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from kd_mil.core.errors import UserError
from kd_mil.models.encoders.small import Identity
from kd_mil.prediction.exporting.files import compare, exported, write_graph
from kd_mil.prediction.exporting.graphs import SAID, graphs_of
from tests.support.aggregators import AGGREGATORS, WIDTH
from tests.support.configs import compose_run
from tests.support.methods import make_d2l, make_mhim, make_mil, make_rnn_mil, make_weno

FORMATS = ("torch_export", "onnx")
SIZES = (1, 2, 3, 9, 50_000)
"""Of bags; 9 fill the landmarks of the small TransMIL without its class token."""


def described(method, shape=(WIDTH,), **inputs):
    """The method in eval mode, with as much of a card as its graphs ask for."""
    method.model_card = {"model_inputs": {"instance_shape": list(shape), "num_classes": 2} | inputs}
    return method.eval()


def require(format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")


def runner(path):
    """What a file computes, opened by its own runtime: tensors to tensors."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda *inputs: [
        torch.from_numpy(found)
        for found in session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    ]


def assert_equals_predict(method, run, graphs, sizes=SIZES):
    """Files of encoder and roles, one after the other, against `predict`."""
    for size in sizes:
        bag = torch.randn(size, WIDTH, generator=torch.Generator().manual_seed(size))
        features = run["encoder"](bag)
        for role, said in method.predict(bag).items():
            found = dict(zip(graphs[role].outputs, run[role](*features), strict=True))
            assert set(found) == {name for name in SAID if getattr(said, name) is not None}
            for name, value in found.items():
                expected = getattr(said, name)
                assert (value - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1), (role, name, size)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_aggregator_alone_and_as_bags_of_one(name, format, tmp_path):
    require(format)
    parts = {"encoder": Identity, "aggregator": AGGREGATORS[name], "instance_score": "bag_of_one_x_bag"}
    method = described(make_mil(**parts))
    with torch.no_grad():  # a classifier that is sure of nothing would hide differences
        for weight in method.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    [encoder, role] = graphs_of(method)
    run = {graph.name: runner(write_graph(graph, tmp_path, format)) for graph in (encoder, role)}
    assert_equals_predict(method, run, {role.name: role})


METHODS = {
    "weno": lambda: make_weno(average=0.5),
    "weno, two encoders": lambda: make_weno(shared_encoder=False),
    "reading by validation": lambda: make_weno(instance_score="validation"),
    "distill to label": lambda: make_d2l(instance_score="attention_times_prob"),
    "mhim": make_mhim,
    "rnn": make_rnn_mil,
}


def learned(method):
    """As late in its training as it can be: every role has something to say."""
    for name in ("student_began", "rnn_trained", "student_updates"):
        if hasattr(method, name):
            getattr(method, name).fill_(1)
    return method


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", METHODS)
def test_every_role_of_methods_on_bags(name, format, tmp_path):
    require(format)
    method = described(learned(METHODS[name]()))
    graphs = {graph.name: graph for graph in graphs_of(method)}
    assert list(graphs) == ["encoder", *method.roles]
    run = {name: runner(write_graph(graph, tmp_path, format)) for name, graph in graphs.items()}
    assert_equals_predict(method, run, graphs, sizes=(1, 2, 40))


def test_a_role_has_its_own_weights_alone():
    program = exported(next(graph for graph in graphs_of(described(make_weno())) if graph.name == "student"))
    assert {name.split(".")[1] for name in program.state_dict} == {"student_head"}


IMAGES = {
    "cam_baseline": ["segmenter.widths=[4,6,8]"],
    "ifkd_vgg": ["segmenter.widths=[4,6,8]"],
    "resolution_kd": ["method.network.stem=small", "method.network.width=8", "method.network.groups=4"],
}


def image_method(name):
    config = OmegaConf.to_container(compose_run(f"experiment={name}", *IMAGES[name]).method, resolve=True)
    pairs = {"class_names": ["a", "b"], "auxiliary": False, "held_out": "", "teacher_downsample": 1.0}
    pairs |= {"student_downsample": 2.0}
    inputs = pairs if name == "resolution_kd" else {"instance_shape": [3, 32, 32], "num_classes": 2}
    method = learned(instantiate(config, _convert_="all")(**inputs))
    method.model_card = {"model_inputs": inputs}
    return method.eval()


@pytest.mark.parametrize("name", IMAGES)
def test_methods_on_images(name, tmp_path):
    for graph in graphs_of(image_method(name)):
        run = runner(write_graph(graph, tmp_path, "torch_export"))
        images = torch.randint(256, (3, *graph.inputs["images"].shape[1:]), dtype=torch.uint8)
        images = images[:, :, :70] if 2 in graph.open else images
        for expected, found in zip(graph.module(images), run(images), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


class Branching(nn.Module):
    """A network that looks at values: no graph can follow."""

    out_features = WIDTH

    def __init__(self, instance_shape):
        super().__init__()

    def forward(self, features):
        return features if features.sum() > 0 else -features


def test_a_network_that_branches_on_values_is_refused_in_one_line(tmp_path):
    [encoder, _] = graphs_of(described(make_mil(encoder=Branching)))
    with pytest.raises(
        UserError, match=r"^format=torch_export: encoder cannot be exported \(.*take format=safetensors$"
    ):
        write_graph(encoder, tmp_path, "torch_export")


def test_a_graph_that_computes_something_else_is_refused():
    graph = graphs_of(described(make_mil()))[1]
    shifted = partial(lambda run, *inputs: [value + 1e-4 for value in run(*inputs)], graph.module)
    with torch.no_grad(), pytest.raises(UserError, match="model as a graph gives another bag_probs for 1 instances"):
        compare(graph, shifted)
