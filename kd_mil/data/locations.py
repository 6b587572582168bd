"""Finding the folder of a data set, with a clear message where it is missing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from kd_mil.core.errors import UserError


def find_root(root: str | None, data_dir: str, folders: Sequence[str], source: str) -> Path:
    """Folder (or archive) of a data set.

    Args:
        root: where the user says it is (`data.root`); None = the first of `folders` that exists under `data_dir`.
        data_dir: folder of all data sets (`paths.data_dir`).
        folders: names to look for.
        source: what to download and who publishes it, for the error message.

    Raises:
        UserError: it is not there.
    """
    if root is not None:
        if not Path(root).exists():
            raise UserError(f"data.root={root} does not exist: point it to {source}")
        return Path(root)
    for folder in folders:
        if (Path(data_dir) / folder).exists():
            if _only_locating.get():
                raise Located(Path(data_dir) / folder)
            return Path(data_dir) / folder
    wanted = " or ".join(str(Path(data_dir) / folder) for folder in folders)
    raise UserError(f"no data at {wanted}: download {source} and put it there, or set data.root=FOLDER")


_only_locating: ContextVar[bool] = ContextVar("only_locating", default=False)


class Located(Exception):  # noqa: N818  it is the answer
    """The folder of a data set, where only its folder was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


@contextmanager
def only_locating() -> Iterator[None]:
    """Within it, loading a data set ends where its folder is found, by raising `Located`."""
    token = _only_locating.set(True)
    try:
        yield
    finally:
        _only_locating.reset(token)
