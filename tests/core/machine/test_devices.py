"""A GPU that is asked for is there, and computes with its tensor cores."""

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.core.machine.devices import use_accelerator


@pytest.fixture
def precision(monkeypatch):
    """What is set, in order."""
    chosen = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", chosen.append)
    return chosen


@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_matrix_products_use_tensor_cores_on_a_gpu(name, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    use_accelerator(name)
    assert precision == ["high"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"trainer.accelerator={name}: PyTorch finds no GPU"):
        use_accelerator(name)


def test_a_processor_computes_as_ever(precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    use_accelerator("cpu")
    assert not precision
