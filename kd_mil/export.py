"""Features for other tools: `python -m kd_mil.export features=DIR_or_MANIFEST format=clam|torchmil out=DIR`."""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_mil.cli.arguments import with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.atomic import require_writable
from kd_mil.core.checks import one_of, share
from kd_mil.core.errors import UserError
from kd_mil.data.features.export import export_clam, export_torchmil
from kd_mil.data.features.layouts import feature_table

FORMATS = ("clam", "torchmil")


@command("export")
def main(config: DictConfig) -> None:
    """Write a set of features in another layout."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    for name, hint in (("features", "a manifest or a folder of features"), ("out", "a folder for the results")):
        if plain[name] is None:
            raise UserError(f"{name}= is not set: give {hint}")
    one_of("format", plain["format"], FORMATS)
    share("tumour_threshold", plain["tumour_threshold"], zero=False)
    table, folder = feature_table(plain["features"], plain["labels"])
    out = Path(plain["out"]).absolute()
    if out == folder.absolute():
        raise UserError(f"out={plain['out']} is where the features are: choose another folder")
    require_writable(out)
    if plain["format"] == "clam":
        summary = export_clam(table, folder, out)
    else:
        summary = export_torchmil(table, folder, out, plain["classes"], plain["tumour_threshold"])
    written = int((summary["status"] == "written").sum())
    failed = f", {len(summary) - written} could not be read: see summary.csv" if written < len(summary) else ""
    print(f"{written} slides in {out}{failed}")


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], ("features", "labels", "out"))
    main()


if __name__ == "__main__":
    start()
