"""What it costs to get from a file to an answer: seconds, bytes read from files, and operations, reading included.

end_to_end([lambda: method.predict_pieces(slide.open().batches) for slide in slides])
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from torch.utils.flop_counter import FlopCounterMode

COUNTERS = Path("/proc/self/io")
"""Where Linux counts what a process has read, from disk or from the system's cache alike."""


def end_to_end(items: Sequence[Callable[[], object]]) -> dict[str, float]:
    """Mean `seconds`, `bytes` and `gmac` of the items, after one that warms up.

    Seconds are wall time of this machine as it is used at the moment; bytes are those that the process asks files for,
    and are left out where the system does not count them (all but Linux); GMAC are 10^9 multiply-accumulate operations
    of convolutions and matrix products, as torch counts them.

    Args:
        items: each opens, reads and classifies one slide, or one image, in this process.
    """
    items[0]()
    seconds, read = zip(*(timed(item) for item in items), strict=True)
    with FlopCounterMode(display=False) as counter:
        for item in items:
            item()
    found = {"seconds": fmean(seconds), "gmac": counter.get_total_flops() / 2e9 / len(items)}
    counted = [count for count in read if count is not None]
    return found | ({"bytes": fmean(counted)} if len(counted) == len(read) else {})


def timed(item: Callable[[], object]) -> tuple[float, int | None]:
    """Seconds that a call takes, and bytes that it reads from files."""
    before, started = bytes_read(), time.perf_counter()
    item()
    seconds, after = time.perf_counter() - started, bytes_read()
    return seconds, None if before is None or after is None else after - before


def bytes_read() -> int | None:
    """Bytes that this process has asked files for so far; None where nobody counts them."""
    if not COUNTERS.is_file():
        return None
    counters = dict(line.split(": ") for line in COUNTERS.read_text().splitlines())
    return int(counters["rchar"])
