"""A machine without a driver has no GPU, and PyTorch is not asked."""

import ctypes

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
