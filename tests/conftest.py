import gc
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import stores, warm
from tests.support.parsed import remember_parsed

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background, which commands would inherit
        signal.signal(signal.SIGINT, signal.default_int_handler)
    remember_parsed()
    warm.given = getattr(config, "workerinput", {}).get("warm")
    if config.getoption("numprocesses", None) is None:  # this process runs tests, and does not only hand them out
        import torch

        torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """All workers have commands started by one process."""
    node.workerinput["warm"] = warm.server()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that workers that take one file after the other end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """What has been imported stays: no search for garbage needs to go through a million objects of libraries."""
    gc.collect()
    gc.freeze()


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
