"""Compiled networks: the same weights under the same names, by whatever backend; what is missing is said in a line."""

import copy
import shutil
from functools import partial

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.core.machine.compiling import INDUCTOR, call_as_written, compile_parts, require_compiler
from kd_mil.core.records import config_hash
from kd_mil.jobs.run import check_compilation
from kd_mil.methods.distill_to_label.distill_to_label import DistillToLabel
from kd_mil.methods.distill_to_label.vat import VAT
from kd_mil.methods.distill_to_label.weights import Distillation
from kd_mil.methods.weno.weno import WENO
from tests.support.tiny import TinyData, fit, no_mining, tiny_abmil, tiny_head, tiny_parts, tiny_splits
from tests.support.tiny_images import SHAPE, image_parts

METHODS = {
    "weno": lambda: partial(WENO, **tiny_parts(), aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining()),
    "distill to label": lambda: partial(
        DistillToLabel,
        **tiny_parts(norm=False),
        aggregator=tiny_abmil(),
        vat=VAT(mode="adversarial"),
        kd=Distillation(),
        teacher_epochs=1,
        student_epochs=1,
    ),
}


class Counting:
    """Runs the graphs that it is given as they are, and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self, graph, inputs):
        def run(*arguments):
            self.calls += 1
            return graph.forward(*arguments)

        return run


def trained(method, epochs=2):
    torch.manual_seed(0)
    built = method()
    fit(built, TinyData(tiny_splits()), epochs=epochs)
    return built


@pytest.mark.parametrize("name", METHODS)
def test_compiled_encoders_train_the_same_weights_under_the_same_names(name):
    torch._dynamo.reset()
    backend = Counting()
    plain, compiled = trained(METHODS[name]()), trained(compile_parts(METHODS[name](), backend))
    assert backend.calls > 20
    expected, found = plain.state_dict(), compiled.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_what_is_called_as_written_calls_no_graph():
    torch._dynamo.reset()
    backend = Counting()
    method = compile_parts(METHODS["weno"](), backend)()
    features = torch.randn(3, 6)
    method.eval().encode(features)
    called = backend.calls
    assert called > 0
    copy.deepcopy(method).encode(features)
    call_as_written(method)
    method.encode(features)
    assert backend.calls == called


def test_segmenters_are_compiled_as_encoders_are():
    torch._dynamo.reset()
    backend = Counting()
    made = compile_parts(partial(dict, **image_parts()), backend)()["segmenter"](instance_shape=SHAPE)
    images = torch.rand(2, *SHAPE)
    compiled = made.eval()(images)
    assert backend.calls > 0
    call_as_written(made)
    torch.testing.assert_close(compiled.fused, made(images).fused)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_inductor_trains_nearly_the_same_weights():
    torch._dynamo.reset()
    plain, compiled = trained(METHODS["weno"]()), trained(compile_parts(METHODS["weno"](), INDUCTOR))
    expected = plain.state_dict()
    for key, value in compiled.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5)


def test_what_is_missing_is_one_line(monkeypatch):
    with pytest.raises(UserError, match=r"dict has no encoder and no segmenter of its own"):
        compile_parts(partial(dict, widths=3))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"no compiler \(g\+\+ or clang\+\+\) is installed"):
        require_compiler(on_gpu=False)
    monkeypatch.setenv("CC", "my-cc")
    with pytest.raises(UserError, match=r"no compiler \(my-cc\) is installed"):
        require_compiler(on_gpu=True)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    require_compiler(on_gpu=False)
    monkeypatch.setattr("kd_mil.core.machine.compiling.find_spec", lambda name: None)
    with pytest.raises(UserError, match="Triton is not installed"):
        require_compiler(on_gpu=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"compile": "yes"}, "trainer.compile"),
        ({"devices": 2}, r"trainer.devices=1 alone"),
        ({"devices": "auto"}, r"trainer.devices=1 alone"),
        ({"num_nodes": 2}, r"trainer.devices=1 alone"),
    ],
)
def test_what_cannot_be_compiled_is_refused(settings, said):
    trainer = {"compile": True, "devices": 1, "accelerator": "cpu"} | settings
    with pytest.raises(UserError, match=said):
        check_compilation(trainer)
    check_compilation(trainer | {"compile": False})


def test_a_run_that_is_not_compiled_is_the_one_of_earlier_versions():
    earlier, plain, compiled = (
        {"trainer": {"max_epochs": 3} | more} for more in ({}, {"compile": False}, {"compile": True})
    )
    assert config_hash(earlier) == config_hash(plain) != config_hash(compiled)
