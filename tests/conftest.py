import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.support import stores

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


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URL of a bucket in a store on this machine that speaks S3; skips the test where it cannot be had."""
    with stores.s3() as url:
        yield url


@pytest.fixture(scope="session")
def gs() -> Iterator[str]:
    """As `s3`, of one that speaks Google Cloud Storage."""
    with stores.gs() as url:
        yield url
