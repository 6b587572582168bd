"""Change one operator, constant or call of the code at a time, and see whether a test notices.

`python -m tests.campaign.mutants out=FILE count=100 seed=0` draws mutants of the modules below, runs the tests of their
rooms on each in a forked process (libraries are imported once), and writes what survived. The same command resumes.
"""

import ast
import copy
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
"""After this long a mutant counts as noticed: it hangs where the code does not."""
MODULES = {
    "kd_mil/methods/weno/*.py": ["tests/methods/weno"],
    "kd_mil/methods/distill_to_label/*.py": ["tests/methods/distill_to_label"],
    "kd_mil/methods/ifkd/*.py": ["tests/methods/ifkd"],
    "kd_mil/methods/resolution/*.py": ["tests/methods/resolution"],
    "kd_mil/methods/baselines/*.py": ["tests/methods/baselines"],
    "kd_mil/methods/base/*.py": ["tests/methods"],
    "kd_mil/data/splits.py": ["tests/data/test_splits.py"],
    "kd_mil/data/samplers.py": ["tests/data/test_samplers.py", "tests/methods/weno"],
    "kd_mil/training/selection.py": ["tests/training"],
    "kd_mil/training/lr_decay.py": ["tests/training"],
    "kd_mil/evaluation/metrics.py": ["tests/evaluation"],
    "kd_mil/evaluation/bootstrap.py": ["tests/evaluation"],
    "kd_mil/evaluation/thresholds.py": ["tests/evaluation", "tests/methods/baselines/test_mil.py"],
    "kd_mil/models/segments.py": ["tests/models/test_segments.py", "tests/models/aggregators"],
    "kd_mil/models/masking.py": ["tests/models"],
    "kd_mil/reporting/comparison.py": ["tests/reporting", "tests/test_report.py"],
    "kd_mil/reporting/resampling.py": ["tests/reporting", "tests/test_report.py"],
    "kd_mil/slides/extraction/claims.py": ["tests/slides/extraction"],
}
"""Modules to change -> the tests that have to notice."""
OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
CALLS = {
    **{"mean": "sum", "min": "max", "max": "min", "argmax": "argmin", "eval": "train", "ones": "zeros"},
    **{"amin": "amax", "amax": "amin", "clamp_min": "clamp_max", "detach": "clone", "zeros": "ones", "any": "all"},
}


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    path: str
    number: int
    """Which of the file's changes, in the order of `changes`."""
    line: int
    what: str


def changes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Apply every change to the tree in turn, yielding (line, description) while it is applied."""
    for node in list(ast.walk(tree)):
        line = getattr(node, "lineno", 0)
        for name in ("op", "ops"):
            operator = getattr(node, name, None)
            old = operator[0] if isinstance(operator, list) and operator else operator
            if type(old) in OPERATORS and isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp | ast.Compare):
                new = OPERATORS[type(old)]()
                setattr(node, name, [new, *operator[1:]] if isinstance(operator, list) else new)
                yield line, f"{type(old).__name__} -> {type(new).__name__}"
                setattr(node, name, operator)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            kept, node.op = node.op, ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
            if isinstance(kept, ast.USub):
                yield line, "sign dropped"
            node.op = kept
        if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            kept, node.value = node.value, not node.value if isinstance(node.value, bool) else node.value + 1
            yield line, f"{kept} -> {node.value}"
            node.value = kept
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
            kept, node.func.attr = node.func.attr, CALLS[node.func.attr]
            yield line, f"{kept}() -> {node.func.attr}()"
            node.func.attr = kept


def all_mutants() -> list[Mutant]:
    found = []
    for pattern in MODULES:
        for path in sorted(ROOT.glob(pattern)):
            tree = ast.parse(path.read_text())
            name = str(path.relative_to(ROOT))
            found += [Mutant(name, number, *change) for number, change in enumerate(changes(tree))]
    return found


def mutated(mutant: Mutant) -> str:
    """The source of its file with its change."""
    tree = ast.parse((ROOT / mutant.path).read_text())
    for number, _ in enumerate(changes(tree)):
        if number == mutant.number:
            return ast.unparse(copy.deepcopy(tree))
    raise ValueError(f"{mutant}: the file has changed")


class Served(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from given source, all others as they are."""

    def __init__(self, module: str, source: str) -> None:
        self.module, self.source = module, source

    def find_spec(self, fullname, path=None, target=None):
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.module else None

    def get_source(self, fullname):
        return self.source


def tests_of(mutant: Mutant) -> list[str]:
    """The tests that have to notice, the file of the same name first."""
    path = Path(mutant.path)
    own = Path("tests", *path.parts[1:-1], f"test_{path.name}")
    rest = next(tests for pattern, tests in MODULES.items() if path.match(pattern))
    return [str(own)] * (ROOT / own).exists() + rest


def noticed(mutant: Mutant) -> bool:
    """Whether a test fails on the mutant."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        import pytest

        sys.meta_path.insert(0, Served(mutant.path.removesuffix(".py").replace("/", "."), mutated(mutant)))
        os._exit(int(pytest.main(["-x", "-m", "not slow", "-p", "no:cacheprovider", *tests_of(mutant)])))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main(out: str, count: str = "100", seed: str = "0") -> None:
    """Draw, run what is not in `out` yet, and say what survived."""
    import lightning  # noqa: F401
    import pandas  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torchmetrics  # noqa: F401

    os.chdir(ROOT)
    drawn = random.Random(int(seed)).sample(all_mutants(), int(count))
    results = (
        {json.dumps(row["mutant"]): row for row in json.loads(Path(out).read_text())} if Path(out).exists() else {}
    )
    for index, mutant in enumerate(drawn, 1):
        key = json.dumps(asdict(mutant))
        if key not in results:
            started = time.monotonic()
            seen = noticed(mutant)
            results[key] = {"mutant": asdict(mutant), "noticed": seen, "seconds": round(time.monotonic() - started, 1)}
            Path(out).write_text(json.dumps(list(results.values()), indent=1))
        state = "noticed" if results[key]["noticed"] else "SURVIVED"
        print(f"{index}/{len(drawn)} {state} {mutant.path}:{mutant.line} {mutant.what}", flush=True)
    survivors = [row["mutant"] for row in results.values() if not row["noticed"]]
    print(f"{len(results) - len(survivors)} of {len(results)} noticed")


if __name__ == "__main__":
    main(**dict(argument.split("=", 1) for argument in sys.argv[1:]))
