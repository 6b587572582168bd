"""Functions that the configuration files call by name."""

import hashlib
import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_mil.cli.arguments import on_a_disk
from kd_mil.core.machine.gpus import cuda_available


def run_name(overrides: list[str]) -> str:
    """Directory name of a run from its command-line overrides: readable, and the same for the same command."""
    apart = ("experiment=", "hydra.", "overwrite=", "ckpt_path=", "sweep.", "sweep=")
    named = [text for text in overrides if not text.startswith(apart)]
    name = re.sub(r"[^\w.,=+~-]+", "_", ",".join(sorted(named))) or "default"
    if len(name) <= 120:
        return name
    return f"{name[:100]}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def register_resolvers() -> None:
    """Functions the configuration files call by name."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("chosen_or_custom", lambda choice: choice or "custom", replace=True)
    OmegaConf.register_new_resolver("cuda_or_cpu", cuda_or_cpu, replace=True)
    OmegaConf.register_new_resolver("leaves_normalising", leaves_normalising, replace=True)
    OmegaConf.register_new_resolver("jobs_folder", jobs_folder, replace=True)


def leaves_normalising(encoder: Any) -> bool:
    """Whether an encoder, as configured, expects the data's own statistics: published weights bring theirs."""
    return not (isinstance(encoder, DictConfig) and (encoder.get("pretrained") or encoder.get("weights")))


def jobs_folder(out: str | None) -> str:
    """Where launchers of `-m` keep their own files: within the results, once it is said where these go.

    Raises:
        UserError: a URL, of which Hydra would make a folder before the command can refuse it.
    """
    on_a_disk({"out": out}, "out")
    return ".jobs" if out is None else f"{out}/.jobs"


def cuda_or_cpu() -> str:
    """Accelerator of this machine; Apple's has no float64, which scores are kept in."""
    return "cuda" if cuda_available() else "cpu"
