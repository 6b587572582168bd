import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Folder of a real data set, from KD_MIL_DATA, `data/` or `../shared/data`; skips the test where it is absent."""

    def find(name: str) -> Path:
        for root in (os.environ.get("KD_MIL_DATA"), ROOT / "data", ROOT.parent / "shared" / "data"):
            if root is not None and (Path(root) / name).exists():
                return Path(root) / name
        pytest.skip(f"real data set {name!r} is not on this machine")

    return find
