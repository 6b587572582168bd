"""Which slides an output folder holds already, so that an interrupted prediction resumes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_mil.core.hashing import digest
from kd_mil.core.run_files import write_json


class Ledger:
    """One small file for each finished slide, written when all its other files stand.

    Args:
        folder: where they go.
        settings: plain values that decide the outputs, beside the slide itself.
        overwrite: take nothing for finished.
    """

    def __init__(self, folder: Path, settings: Sequence[Any], overwrite: bool = False) -> None:
        self.folder, self.settings, self.overwrite = folder, list(settings), overwrite

    def finished(self, slide_id: str, facts: Sequence[Any]) -> dict[str, Any] | None:
        """The row of a slide that was predicted from the same input in the same way; None if not, or unclear."""
        path = self.path(slide_id)
        if self.overwrite or not path.is_file():
            return None
        try:
            entry = json.loads(path.read_text())
            files = [self.folder.parent / name for name in entry["files"]]
            same = entry["key"] == self._key(facts) and all(file.is_file() for file in files)
            return dict(entry["row"]) if same else None
        except (ValueError, TypeError, LookupError):  # damaged: the slide is predicted again
            return None

    def record(self, slide_id: str, facts: Sequence[Any], row: dict[str, Any], files: Sequence[Path]) -> None:
        """Note that a slide is finished."""
        names = [str(file.relative_to(self.folder.parent)) for file in files]
        write_json(self.path(slide_id), {"key": self._key(facts), "row": row, "files": names})

    def path(self, slide_id: str) -> Path:
        """Where a slide is noted."""
        return self.folder / f"{slide_id}.json"

    def _key(self, facts: Sequence[Any]) -> str:
        return digest([*self.settings, *facts])
