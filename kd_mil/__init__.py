"""Weakly supervised knowledge distillation for computational pathology."""

import re
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn


def _leave(signum: int, frame: object) -> NoReturn:
    print("stopped by Ctrl-C: nothing lost, the same command resumes", file=sys.stderr)
    raise SystemExit(128 + signum)


# `python -m kd_mil.COMMAND` imports this first, then libraries for seconds; `command` takes over from there.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)


STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
"""What type checkers and editors read; its imports are the names that the library offers."""
HOMES = {name: home for home, name in re.findall(r"^from (kd_mil\.\S+) import (\w+) as", STUB, re.MULTILINE)}
MODULES = ("evaluate", "extract", "plot", "predict")
"""Imported when asked for; the commands among them may be called: `kd_mil.predict(ckpt=RUN, slides=DIR, out=DIR)`."""


def __getattr__(name: str) -> Any:
    """Import what is asked for; `import kd_mil` alone imports none of it."""
    if name in MODULES:
        return import_module(f"kd_mil.{name}")
    if name not in HOMES:
        raise AttributeError(f"module 'kd_mil' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*HOMES, *MODULES])
