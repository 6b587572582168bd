"""Where a training step would make the host wait for a GPU, found on a CPU."""

import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

PACKAGE = str(Path(__file__).resolve().parents[2] / "kd_mil")
WAITING = {
    "aten._local_scalar_dense",
    "aten.nonzero",
    "aten.masked_select",
    "aten._unique2",
    "aten.unique_dim",
    "aten.unique_consecutive",
    "aten.is_nonzero",
    "aten.equal",
    "aten.bincount",
}
"""What has to know values on the host: truth, numbers, and shapes that depend on values."""
READS = ("tolist", "numpy", "cpu")
"""Methods of tensors that copy to the host; on a CPU they do nothing that a dispatch mode sees."""


class Waits(TorchDispatchMode):
    """Counts what would wait, by the line of the package that asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function).rsplit(".", 1)[0]
        masks = name in ("aten.index", "aten.index_put", "aten.index_put_") and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        lengths = str(function) == "aten.repeat_interleave.Tensor" and (kwargs or {}).get("output_size") is None
        if name in WAITING or masks or lengths:
            self.note(name)
        return function(*args, **kwargs or {})

    def note(self, name: str) -> None:
        """Count a wait for the innermost line of the package."""
        frame = sys._getframe(1)
        while frame.f_back is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        if frame.f_code.co_filename.startswith(PACKAGE):
            where = frame.f_code.co_filename.removeprefix(PACKAGE).lstrip("/")
            self.lines[f"{where}:{frame.f_code.co_name}: {name}"] += 1


@contextmanager
def counted_waits() -> Any:
    """Waits of what is done within it."""
    waits = Waits()
    patches = []
    for name in READS:
        read = getattr(torch.Tensor, name)

        def noted(tensor: torch.Tensor, *args: Any, _name: str = name, _read: Any = read, **kwargs: Any) -> Any:
            waits.note(_name)
            return _read(tensor, *args, **kwargs)

        patches.append(mock.patch.object(torch.Tensor, name, noted))
    for patch in patches:
        patch.start()
    try:
        with waits:
            yield waits
    finally:
        for patch in patches:
            patch.stop()
