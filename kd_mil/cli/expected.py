"""What may stand in the settings of each command that no class is built from."""

from typing import Any, Literal

from kd_mil.cli.settings import check_value
from kd_mil.core.errors import UserError

OnError = Literal["skip", "stop"]
MPP = {"mpp": float | None, "mpp_override": float | None}
SHARDS = {"shard": int | str | None, "shards": int | None}
EXPECTED: dict[str, dict[str, Any]] = {
    "run": {
        **{"experiment_name": str, "seed": int, "ckpt_path": str | None, "overwrite": bool},
        **{"monitor": str | None, "monitor_mode": str | None, "select": str, "phase_epochs": int | None},
        **{"lr_decay": str, "bags_per_step": int, "instances_per_step": int},
        **{"accumulate_bags": int, "class_weights": str | list[float] | None, "label_smoothing": float},
        **{"max_instances_per_step": int | None, "cost_of": int},
    },
    "extract": {
        **{"slides": str | None, "out": str | None, "labels": str | None, **MPP, "backend": str},
        **{"negatives_known": bool, "on_error": OnError, "num_workers": int | None, "batch_size": int, "seed": int},
        **{"device": str, "precision": Literal["float32", "bfloat16"] | None},
        **SHARDS,
        **{"wait": bool, "hung_minutes": float, "contours": bool, "picture_side": int | None, "gpus": int | None},
        **{"cache": str | None, "cache_gib": float},
    },
    "predict": {
        **{"ckpt": str | list[str] | None, "slides": str | None, "features": str | None, "out": str, **MPP},
        **{"labels": str | None, "report_by": Literal["slide", "case"], "case_pooling": Literal["max", "mean"] | None},
        **{"subgroups": list[str], "operating_point": str | None, "calibrated": bool},
        **{"bag_by": Literal["slide", "case"]},
        **{"overwrite": bool, "on_error": OnError, "trust": bool, "backend": str | None, "device": str},
        **{"tile_size_level0": int | None, "instances_per_step": int | None, "num_workers": int | None, "table": str},
        **{"region_threshold": float | None, "region_class": str | None, "in_bounds": bool, "compress": bool},
        **{"picture_side": int, "outlines": str | None, "readings": bool, "smoothing": float},
        **{"images": str | None, "role": str | None},
        **{"read_from": Literal["pyramid", "level0"] | None, "pooling": Literal["max", "mean"] | None},
        **SHARDS,
    },
    "evaluate": {
        **{"predictions": str | None, "labels": str | None, "out": str | None, "against": str | None},
        **{"report_by": Literal["slide", "case"], "case_pooling": Literal["max", "mean"] | None},
        **{"subgroups": list[str], "resamples": int, "seed": int},
    },
    "reproduce": {
        **{"paper": str | None, "table": str, "scale": Literal["paper", "small"], "seeds": list[int], "out": str},
        **{"start": bool, "settings": str, "parallel": int, "attempts": int, "resamples": int, "seed": int},
    },
    "segment": {
        **{"ckpt": str | None, "images": str | None, "slides": str | None, "out": str, "overwrite": bool},
        **{"on_error": OnError, "role": str | None, "mpp": float | None, "overlap": float, "reduce": int},
        **{"scale": float | Literal["fit"], "tuned": bool, "threshold": float | None, "min_pixels": int},
        **{"tolerance": float, "in_bounds": bool, "max_gib": float, "batch_size": int, "device": str, "trust": bool},
    },
    "view": {
        **{"predictions": str | None, "slides": str | None, "compare": str | None, "segments": str | None},
        **{"drawings": str | None, "port": int},
    },
    "chain": {
        **{"slides": str | None, "out": str, "classes": list[str], "weno": str, "ifkd": str},
        **{"segment": str, "runs": str},
    },
    "export": {
        **{"features": str | None, "labels": str | None, "format": str | None, "out": str | None},
        **{"classes": list[str] | None, "tumour_threshold": float, "label_column": str | None, "clini": str | None},
        **{"ckpt": str | None, "license": str | None, "trust": bool},
    },
    "report": {
        **{"directories": list[str], "out": str | None, "baseline": str | None, "metrics": list[str] | None},
        **{"x": str | None, "resamples": int, "seed": int},
    },
    "frontier": {"runs": str, "out": str, "metric": str, "cost": str, "within": float, "bootstrap": str},
    "doctor": {
        **{"smoke": bool, "smoke_seconds": float, "features": str | None, "run": list[str], "data_sets": bool},
    },
}
"""By command and setting; ranges are the business of who uses them."""


def check_types(command: str, plain: dict[str, Any]) -> None:
    """Compare the plain settings of a command with what may stand there.

    Raises:
        UserError: naming the first that is of another kind.
    """
    for name, hint in EXPECTED[command].items():
        check_value(name, plain[name], hint)
    check_seeds(plain)


def check_seeds(config: dict[str, Any], path: str = "") -> None:
    """Refuse seeds that NumPy or scikit-learn would, whatever part of the configuration they are of.

    Raises:
        UserError: naming the seed, and its range.
    """
    for key, value in config.items():
        if isinstance(value, dict):
            check_seeds(value, f"{path}{key}.")
        elif key == "seed" and isinstance(value, int) and not 0 <= value < 2**32:
            raise UserError(f"{path}seed={value}: must lie in [0, 2**32)")
