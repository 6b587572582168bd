"""Look at predictions in a browser: `python -m kd_mil.view predictions=DIR [slides=DIR] [compare=DIR]`."""

import importlib.util
import sys
from pathlib import Path

from omegaconf import DictConfig

from kd_mil.cli.arguments import on_a_disk, with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.checks import whole
from kd_mil.core.errors import UserError

FOLDERS = ("predictions", "compare", "segments")
MOST_PORT = 65535


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: no predictions, a folder that is not there, a port that does not exist, or Bokeh is not installed.
    """
    on_a_disk(config, *FOLDERS, "slides", "drawings")
    if config.predictions is None:
        raise UserError("predictions is not set: give predictions=DIR, the output folder of kd_mil.predict")
    for name in FOLDERS:
        if config[name] is not None and not Path(config[name]).is_dir():
            raise UserError(f"{name}={config[name]}: there is no such folder")
    whole("port", config.port, 0)
    if config.port > MOST_PORT:
        raise UserError(f"port={config.port}: must be at most {MOST_PORT}")
    if importlib.util.find_spec("bokeh") is None:
        raise UserError("the viewer needs Bokeh: pip install 'kd-mil[view]'")


@command("view", first=refuse)
def main(config: DictConfig) -> None:
    """Serve until Ctrl-C."""
    from kd_mil.jobs import view

    view.main(config)


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], (*FOLDERS, "slides", "drawings"))
    main()


if __name__ == "__main__":
    start()
