"""A server that shows predictions to the people at this machine."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from kd_mil.viewer.content import Content
from kd_mil.viewer.drawings import Drawings
from kd_mil.viewer.server import Viewer
from kd_mil.viewer.sources import Run, Slides


def main(config: DictConfig) -> None:
    """Say where, and serve until Ctrl-C."""
    for name in ("tornado.access", "bokeh"):  # which tell of every tile
        logging.getLogger(name).setLevel(logging.ERROR)
    viewer = Viewer(content_of(config), config.port)
    print(f"open {viewer.url} (whoever knows this address may look and draw; Ctrl-C ends it)", flush=True)
    viewer.run()


def content_of(config: DictConfig) -> Content:
    """What is shown.

    Raises:
        UserError: a folder that holds no predictions, or slides that cannot be listed.
    """
    others = [None if config[name] is None else Run(config[name]) for name in ("compare", "segments")]
    drawings = Drawings(Path(config.drawings or Path(config.predictions) / "drawn"))
    return Content(Run(config.predictions), Slides(config.slides), drawings, *others)
