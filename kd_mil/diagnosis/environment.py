"""The machine and what is installed on it."""

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
import torch.distributed
from packaging.requirements import Requirement

from kd_mil.diagnosis.finding import Finding

LEAST_FREE_GIB = 5


def environment_findings(run_root: Path) -> list[Finding]:
    """Python, packages, devices, threads, and room for runs."""
    return [
        Finding("ok", "python", f"{sys.version.split()[0]} at {sys.executable}"),
        *package_findings(),
        *device_findings(),
        *room_findings(run_root),
    ]


def package_findings() -> list[Finding]:
    """Versions against what this package asks for; missing extras are a note."""
    try:
        wanted = [Requirement(text) for text in requires("kd-mil") or []]
    except PackageNotFoundError:
        return [Finding("warning", "packages", "kd-mil is not installed, so nothing says which versions it needs")]
    found, missing = [], set()
    for package in wanted:
        name, specifier = package.name, package.specifier
        extra = package.marker is not None and not package.marker.evaluate({"extra": ""})
        try:
            installed = version(name)
        except PackageNotFoundError:
            if extra:
                missing.add(name)
            else:
                found.append(Finding("error", "packages", f"{name} is missing: pip install '{name}{specifier}'"))
            continue
        if not extra and not specifier.contains(installed, prereleases=True):
            found.append(Finding("error", "packages", f"{name} {installed} does not satisfy {specifier}"))
    names = ("kd-mil", "torch", "lightning", "hydra-core", "torchmetrics", "timm", "numpy")
    found.append(Finding("ok", "packages", ", ".join(f"{name} {version(name)}" for name in names)))
    if missing:
        found.append(Finding("note", "extras", f"not installed: {', '.join(sorted(missing))}"))
    return found


def device_findings() -> list[Finding]:
    """GPUs, threads, and what processes can talk through."""
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} processors"
    found = [Finding("ok", "processor", threads)]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        found.append(Finding("ok", f"GPU {index}", f"{facts.name}, {facts.total_memory / 1024**3:.0f} GiB"))
    if not torch.cuda.is_available():
        found.append(
            Finding("warning", "GPU", "nvidia-smi sees one, but this torch cannot use it: install a build for CUDA")
            if has_nvidia_gpu()
            else Finding("note", "GPU", "none: trainer=cpu and ddp_cpu work")
        )
    backends = [name for name in ("gloo", "nccl") if torch.distributed.is_backend_available(name)]
    level = "ok" if "gloo" in backends else "error"
    found.append(Finding(level, "processes", f"torch.distributed with {', '.join(backends) or 'no backend'}"))  # type: ignore[arg-type]
    return found


def has_nvidia_gpu() -> bool:
    """Whether the driver knows a GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return False
    return "GPU 0" in listed.stdout


def room_findings(run_root: Path) -> list[Finding]:
    """Whether runs can be written, and how many."""
    folder = next(path for path in (run_root.absolute(), *run_root.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return [Finding("error", "room for runs", f"{folder} cannot be written ({error.strerror}): set paths.run_root")]
    free = shutil.disk_usage(folder).free / 1024**3
    level = "ok" if free >= LEAST_FREE_GIB else "warning"
    return [Finding(level, "room for runs", f"{free:.0f} GiB free in {folder}")]  # type: ignore[arg-type]
