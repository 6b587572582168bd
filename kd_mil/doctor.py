"""Is everything in order? `python -m kd_mil.doctor [smoke=true] [data=feature_bags data.manifest=slides.csv]`."""

import sys
from collections.abc import Sequence

from hydra import compose
from omegaconf import DictConfig

from kd_mil.cli.arguments import check_additions, with_words_as_list
from kd_mil.cli.command import command


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: `+` adds to the settings of a run what nobody reads.
        HydraException: they are no settings of a run.
    """
    settings = list(config.run)
    check_additions(settings, "run")
    compose("run", overrides=settings)


@command("doctor", first=refuse)
def main(config: DictConfig) -> None:
    """Make all checks, print what they found, and exit with 1 where something is wrong."""
    from kd_mil.jobs import doctor

    doctor.main(config)


def with_run_settings(arguments: Sequence[str]) -> list[str]:
    """Command line with the settings of `kd_mil.run`, which stand by themselves, as one."""
    root = [text for text in arguments if text.startswith("paths.run_root=")]
    return [*root, *with_words_as_list(arguments, "doctor", "run", listed=["paths"])]


if __name__ == "__main__":
    sys.argv[1:] = with_run_settings(sys.argv[1:])
    main()
