"""Configuration files are parsed once a process, and once for all processes that are forked: of YAML, not of settings.

Tests compose some thousand configurations, and a fifth of that time is the parser.
"""

import io
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[2]
_load = OmegaConf.load
_parsed = {}


def remember_parsed():
    """From here on a text that was read before is not parsed again."""
    OmegaConf.load = staticmethod(_load_remembered)


def parse_all():
    """Read the configuration of the package before anybody asks for it."""
    for path in (ROOT / "conf").rglob("*.yaml"):
        with path.open(encoding="utf-8") as file:
            OmegaConf.load(file)


def _load_remembered(source):
    if not isinstance(source, io.TextIOBase):
        return _load(source)
    text = source.read()
    if text not in _parsed:
        _parsed[text] = OmegaConf.to_container(_load(io.StringIO(text)))
    return OmegaConf.create(_parsed[text])
