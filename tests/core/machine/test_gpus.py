"""A machine without a driver has no GPU, and PyTorch is not asked."""

import ctypes
import os

import pytest
import torch

from kd_mil.core.machine import gpus


@pytest.fixture
def asked(monkeypatch):
    """How often PyTorch is asked, which finds a GPU."""
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: calls.append(1) or True)
    return calls


def libraries(*found):
    def load(name):
        if name not in found:
            raise OSError(name)

    return load


@pytest.mark.parametrize(
    ("platform", "library", "amd", "finds"),
    [
        ("linux", (), False, False),
        ("linux", ("libcuda.so.1",), False, True),
        ("linux", (), True, True),
        ("darwin", (), False, False),
        ("win32", (), False, True),
    ],
)
def test_pytorch_is_asked_where_a_driver_may_be(platform, library, amd, finds, asked, monkeypatch, tmp_path):
    monkeypatch.setattr(gpus.sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", libraries(*library))
    monkeypatch.setattr(gpus, "AMD", tmp_path if amd else tmp_path / "none")
    assert gpus.cuda_available() is finds
    assert len(asked) == int(finds)


@pytest.mark.parametrize(("driver", "expected"), [(True, "1"), (False, "0")])
def test_nvml_is_asked_where_a_driver_is(driver, expected, monkeypatch):
    """Asking it does not start CUDA, which forked workers of a process with a GPU need; without a driver it is slow."""
    monkeypatch.setenv(gpus.NVML_CHECK, "1")
    monkeypatch.setattr(gpus, "has_driver", lambda: driver)
    gpus.stop_asking_nvml()
    assert os.environ[gpus.NVML_CHECK] == expected


def test_optimisers_do_not_look_for_a_missing_library(monkeypatch):
    """PyTorch's own reading of the variable: with `0` a step of an optimiser loads no library."""
    if gpus.has_driver():
        pytest.skip("a driver is here")
    monkeypatch.setenv(gpus.NVML_CHECK, "1")
    gpus.stop_asking_nvml()
    monkeypatch.setattr(ctypes, "CDLL", libraries())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("NVML is asked"))
    weight = torch.ones(1, requires_grad=True)
    weight.sum().backward()
    torch.optim.AdamW([weight]).step()
