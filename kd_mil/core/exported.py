"""The folder of an exported model: its files' names, and the folder read again."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from kd_mil.core.errors import UserError
from kd_mil.core.run_files import read_json

WEIGHTS, CONFIG, README = "model.safetensors", "config.json", "README.md"


def read_exported(path: Path) -> dict[str, Any]:
    """Weights and model card of `model.safetensors` and the `config.json` beside it, as a checkpoint has them.

    Raises:
        UserError: a file that is missing or damaged.
    """
    config = read_json(path.with_name(CONFIG))
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or no file of weights: {str(error)[:200]}") from error
    if "model_card" not in config:
        raise UserError(f"{path.with_name(CONFIG)} was not written by kd_mil: it has no model card")
    return {"state_dict": state, "model_card": config["model_card"]}
