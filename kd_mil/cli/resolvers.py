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


def register_resolvers() -> None:
    """Functions the configuration files call by name."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("chosen_or_custom", lambda choice: choice or "custom", replace=True)
    OmegaConf.register_new_resolver("cuda_or_cpu", cuda_or_cpu, replace=True)


def cuda_or_cpu() -> str:
    """Accelerator of this machine; Apple's has no float64, which scores are kept in."""
    return "cuda" if torch.cuda.is_available() else "cpu"
