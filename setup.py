"""The packages of the wheel, found rather than listed; all else is in pyproject.toml."""

from setuptools import find_packages, setup

HYDRA_PLUGINS = "hydra_plugins.kd_mil_plugins"  # Hydra looks for launchers and sweepers in this namespace alone
CONFIGURATION = "kd_mil.conf"  # conf/ at the top of the source tree

setup(packages=[*find_packages(include=["kd_mil", "kd_mil.*"]), HYDRA_PLUGINS, CONFIGURATION])
