"""A viewer in a process of its own, as people start it."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.warm import WarmProcess, start_warm

SECONDS = 60
"""Within which it listens."""


class RunningViewer(NamedTuple):
    """Where to look, and the process behind it."""

    url: str
    process: WarmProcess


@contextmanager
def running_viewer(folder: Path, *settings: str) -> Iterator[RunningViewer]:
    """`kd_mil.view` with settings, in a folder."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    words = ["-m", "kd_mil.view", *settings]
    log = folder / f"viewer-{time.monotonic_ns()}.log"
    with log.open("w") as lines:
        process = start_warm(words, folder, environment, lines.fileno(), lines.fileno())
    try:
        yield RunningViewer(_address(process, log), process)
    finally:
        process.terminate()
        process.wait(20)
        log.unlink()


def _address(process: WarmProcess, log: Path) -> str:
    for _ in range(10 * SECONDS):
        found = re.search(r"^open (\S+)", log.read_text(), re.MULTILINE)
        if found:
            return found[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"the viewer did not start: {log.read_text()}")


LONGEST_FRAME = """async () => {
  const range = Bokeh.documents[0].get_model_by_name("plot").x_range;
  let longest = 0, last = performance.now();
  for (let step = 0; step < 30; step++) {
    const by = (range.end - range.start) / 100;
    range.setv({start: range.start + by, end: range.end + by});
    await new Promise(done => requestAnimationFrame(done));
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }
  return longest;
}"""
"""The longest time in ms between two frames while the view moves."""
