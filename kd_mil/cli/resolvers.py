"""Functions that the configuration files call by name."""

import hashlib
import re

import torch
from omegaconf import OmegaConf


def run_name(overrides: list[str]) -> str:
    """Directory name of a run from its command-line overrides: readable, and the same for the same command."""
    apart = ("experiment=", "hydra.", "overwrite=", "ckpt_path=", "sweep.", "sweep=")
    named = [text for text in overrides if not text.startswith(apart)]
    name = re.sub(r"[^\w.,=+~-]+", "_", ",".join(sorted(named))) or "default"
    if len(name) <= 120:
        return name
    return f"{name[:100]}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def phased_epochs(first: int, second: int, rounds: int) -> int:
    """Epochs of a method that runs a first phase once and a second one `rounds` times."""
    return first + second * rounds


def phases_of(debug: str | None, method: str) -> str:
    """Name of the file that shortens the phases of a method; there is none without a debug preset."""
    return "none" if debug in (None, "None", "null") else method


def register_resolvers() -> None:
    """Functions the configuration files call by name."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("chosen_or_custom", lambda choice: choice or "custom", replace=True)
    OmegaConf.register_new_resolver("cuda_or_cpu", cuda_or_cpu, replace=True)
    OmegaConf.register_new_resolver("phased_epochs", phased_epochs, replace=True)
    OmegaConf.register_new_resolver("phases_of", phases_of, replace=True)


def cuda_or_cpu() -> str:
    """Accelerator of this machine; Apple's has no float64, which scores are kept in."""
    return "cuda" if torch.cuda.is_available() else "cpu"
