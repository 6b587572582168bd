"""Features or a model for other tools; the format says which.

`python -m kd_mil.export features=DIR_or_MANIFEST format=FORMAT out=DIR`, or `... ckpt=RUN format=FORMAT out=DIR`.
"""

import sys

from omegaconf import DictConfig

from kd_mil.cli.arguments import on_a_disk, require, with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.checks import one_of, share
from kd_mil.core.errors import UserError

OF_FEATURES = ("clam", "stamp", "torchmil", "trident", "spatialdata")
OF_MODELS = ("safetensors", "torch_export", "onnx")


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: nothing to read, nowhere to write, an unknown format, one of features for a model or the other way
            round, or a threshold that is no share.
    """
    one_of("format", config.format, (*OF_FEATURES, *OF_MODELS))
    read, other = ("ckpt", "features") if config.format in OF_MODELS else ("features", "ckpt")
    if config[other] not in (None, ""):
        raise UserError(f"{other}={config[other]}: format={config.format} is for {read}=; leave {other} out")
    hints = {
        "ckpt": "the .ckpt file, or the directory, of a finished run",
        "features": "a manifest or a folder of features",
    }
    require(config, **{read: hints[read], "out": "a folder for the results"})
    on_a_disk(config, "out")
    share("tumour_threshold", config.tumour_threshold, zero=False)


@command("export", first=refuse)
def main(config: DictConfig) -> None:
    """Write a set of features in another layout, or a trained model for other programs."""
    from kd_mil.jobs import export, export_model

    (export_model if config.format in OF_MODELS else export).main(config)


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], ("features", "labels", "clini", "ckpt", "out"))
    main()


if __name__ == "__main__":
    start()
