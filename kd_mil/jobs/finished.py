"""A finished run that is asked for again, where its data can be known to be the same without reading them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kd_mil.cli.catalogue import LOOKED_FOR
from kd_mil.core.records import RunRecord
from kd_mil.core.run_files import read_record
from kd_mil.core.version import __version__
from kd_mil.training.final_table import show_finished

PLACES = ("cache_dir", "data_dir")
"""Of what is made once, and of sets that `root` would choose."""


def answer_of(record: RunRecord, data: Mapping[str, Any]) -> float | None:
    """Print the table of a finished run and return its score; None, and nothing printed, where data must be read first.

    Embedded data are a function of their settings and of the code: no user can have changed them since.

    Args:
        record: of the run.
        data: its settings.
    """
    return show_finished(record) if record.finished and is_embedded(data) and is_of_this_code(record) else None


def is_embedded(data: Mapping[str, Any]) -> bool:
    """Whether the settings of a data set of ours name no file of a user's, and let it look for none."""
    ours = str(data.get("_target_")).startswith("kd_mil.data.")
    return ours and not set(LOOKED_FOR) & set(data) and not any(Path(text).exists() for text in texts(data))


def texts(settings: Any) -> Iterator[str]:
    """All text in nested settings, `PLACES` apart."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from () if key in PLACES else texts(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from texts(value)
    elif isinstance(settings, str):
        yield settings


def is_of_this_code(record: RunRecord) -> bool:
    """Whether the run was made by this version, at this commit, without changes that are in no commit."""
    earlier = read_record(record.path)
    version = (earlier.get("versions") or {}).get("kd_mil")
    commit = earlier.get("git_commit")
    return version == __version__ and commit == record.git_commit and not str(commit).endswith("+")
