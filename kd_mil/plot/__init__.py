"""Pictures of predictions as Matplotlib axes: `kd_mil.plot.heatmap(kd_mil.Predictions("predictions")["case_1"])`."""

from importlib import import_module
from typing import Any

HOMES = {"heatmap": "slides", "top_tiles": "slides", "roc": "scores", "reliability": "scores"}


def __getattr__(name: str) -> Any:
    """Import what is asked for; Matplotlib is imported then."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(HOMES)
