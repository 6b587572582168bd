"""The packages of the wheel, found rather than listed; all else is in pyproject.toml."""

from setuptools import find_namespace_packages, find_packages, setup

HYDRA_PLUGINS = "hydra_plugins.kd_mil_plugins"  # Hydra looks for launchers and sweepers in this namespace alone
CONFIGURATION = "kd_mil.conf"  # conf/ at the top of the source tree

# folders of data count as packages, too: setuptools is going to leave others out
groups = [f"{CONFIGURATION}.{name}" for name in find_namespace_packages("conf", exclude=["local", "local.*"])]
packages = [*find_packages(include=["kd_mil", "kd_mil.*"]), "kd_mil.reporting.templates"]
setup(packages=[*packages, HYDRA_PLUGINS, CONFIGURATION, *groups])
