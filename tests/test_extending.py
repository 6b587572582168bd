"""Every block of `docs/extending.md` is a file or a command, and does what the page says."""

import json
import re
import shlex
from pathlib import Path

import h5py
import pandas as pd
import pytest

from tests.support.command import ROOT, python

PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
TINY = ("trainer=cpu", "trainer.max_epochs=1", "loading.limit_batches=4", "callbacks.figures=null")
pytestmark = pytest.mark.slow


def follow(section: str, folder: Path) -> None:
    """Write the files of a section, then run its commands in their order; runs at a tiny scale."""
    blocks = BLOCK.findall(SECTIONS[section])
    for language, text in blocks:
        if language != "bash":
            path = folder / text.splitlines()[0].removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for line in (line for language, text in blocks if language == "bash" for line in text.splitlines()):
        program, *words = shlex.split(line)
        assert program == "python", line
        words += TINY if "kd_mil.run" in words else ()
        python(*words, cwd=folder)


def targets(folder: Path) -> set[str]:
    """Targets that the finished runs in a folder were built from."""
    found: set[str] = set()
    for metrics in folder.glob("runs/*/*/metrics.json"):
        assert any(value is not None for value in json.loads(metrics.read_text()).values())
        found |= set(re.findall(r"_target_: (\S+)", (metrics.parent / ".hydra" / "config.yaml").read_text()))
    return found


@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("An aggregator", "my_pooling.LinearAttention"),
        ("An encoder", "my_encoder.Perceptron"),
        ("A method", "single_instance.SingleInstance"),
        ("A data set", "point_clouds.PointClouds"),
    ],
)
def test_a_part_of_your_own_trains(section, target, tmp_path):
    follow(section, tmp_path)
    assert target in targets(tmp_path)


def test_a_slide_format_of_your_own_is_extracted(tmp_path):
    follow("A slide format", tmp_path)
    [row] = pd.read_csv(tmp_path / "tiles" / "summary.csv").to_dict("records")
    assert row["status"] == "written"
    with h5py.File(tmp_path / "tiles" / row["path"]) as file:
        coords = file["coords"][:]
    assert len(coords) == row["tiles"] > 0
    assert ((coords > 500 - 256) & (coords < 1500)).all(), "tiles lie on the one piece of tissue"


def test_every_section_is_run():
    assert list(SECTIONS) == ["An aggregator", "An encoder", "A method", "A data set", "A slide format"]
