"""The version of the package that runs."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """The version that was installed; `0+source` for a source tree that never was."""
    try:
        return version("kd-mil")
    except PackageNotFoundError:
        return "0+source"


__version__ = installed_version()
