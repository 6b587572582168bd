"""A check of feature files that stay on disk: each is read once before training, and again only when it changes."""

from pathlib import Path

import torch
from tqdm import tqdm

from kd_mil.core.errors import UserError
from kd_mil.core.hashing import digest, file_identity
from kd_mil.data.features.files import FeatureFile, FeatureFiles

ROWS = 65_536


def check_values(files: FeatureFiles, memory: Path) -> None:
    """Read every file that `memory` does not know, so that NaN shows before training and not hours into it.

    Args:
        files: features kept in their files.
        memory: text file with one line per checked file (path, size, time of change, type as a hash); it grows file by
            file, so an interrupted check resumes.

    Raises:
        UserError: NaN or infinite features, values beyond the range of the type, or a `memory` that cannot be written.
    """
    known = set(memory.read_text().split()) if memory.is_file() else set()
    keys = {path: digest([*file_identity(path), str(files.dtype)]) for path in files.paths}
    pending = {path: key for path, key in keys.items() if key not in known}
    if not pending:
        return
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with memory.open("a") as lines:
            for path, key in tqdm(pending.items(), desc="checking features", unit="bag", disable=None, leave=False):
                _read_through(path, files.dtype)
                lines.write(f"{key}\n")
                lines.flush()
    except OSError as error:
        raise UserError(f"paths.cache_dir={memory.parent} cannot be written ({error.strerror})") from error


def _read_through(path: Path, dtype: torch.dtype) -> None:
    file = FeatureFile(path)
    for start in range(0, file.num_instances, ROWS):
        file.read(torch.arange(start, min(start + ROWS, file.num_instances)), dtype)
