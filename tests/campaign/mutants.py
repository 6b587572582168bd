"""Change one operator, constant or call of the code at a time, and see whether a test notices.

`python -m tests.campaign.mutants out=FILE count=100 seed=0` draws mutants of the modules below, from each in turn, in a
copy of the project. First the tests that import the module are run on each, then those of its room on what survived, in
forked processes (libraries are imported once). The same command resumes.
"""

import ast
import copy
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 900
"""After this long a mutant counts as noticed: it hangs where the code does not."""
LIBRARIES = ("lightning", "pandas", "sklearn.metrics", "torchmetrics", "timm", "torchvision", "hydra", "scipy.stats")
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
    aside = annotations(tree)
    for node in [node for node in ast.walk(tree) if node not in aside]:
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
            kept, node.value = node.value, other_constant(node.value)
            yield line, f"{kept} -> {node.value}"
            node.value = kept
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
            kept, node.func.attr = node.func.attr, CALLS[node.func.attr]
            yield line, f"{kept}() -> {node.func.attr}()"
            node.func.attr = kept


def other_constant(value: bool | float) -> bool | float:
    """The next number, or twice a large one."""
    if isinstance(value, bool):
        return not value
    return value + 1 if value < 10 else value * 2


def annotations(tree: ast.AST) -> set[ast.AST]:
    """All that stands in annotations: a changed one fails at the import, whatever the tests are worth."""
    found = [getattr(node, name, None) for node in ast.walk(tree) for name in ("annotation", "returns")]
    return {below for one in found if one is not None for below in ast.walk(one)}


def drawn(count: int, seed: int) -> list[Mutant]:
    """Mutants of every row of the table in turn."""
    dice, rows = random.Random(seed), []
    for pattern in MODULES:
        row = []
        for path in sorted(ROOT.glob(pattern)):
            name = str(path.relative_to(ROOT))
            row += [Mutant(name, number, *change) for number, change in enumerate(changes(ast.parse(path.read_text())))]
        rows.append(dice.sample(row, len(row)))
    turns = itertools.chain.from_iterable(itertools.zip_longest(*rows))
    return [mutant for mutant in turns if mutant is not None][:count]


def mutated(mutant: Mutant) -> str:
    """The source of its file with its change."""
    tree = ast.parse((ROOT / mutant.path).read_text())
    for number, _ in enumerate(changes(tree)):
        if number == mutant.number:
            return ast.unparse(copy.deepcopy(tree))
    raise ValueError(f"{mutant}: the file has changed")


def tests_of(mutant: Mutant) -> tuple[list[str], list[str]]:
    """The tests that have to notice: those that import the module, its own first, and those of its room."""
    path = Path(mutant.path)
    own, module = Path("tests", *path.parts[1:-1], f"test_{path.name}"), ".".join(path.with_suffix("").parts)
    direct = [test.relative_to(ROOT) for test in sorted(ROOT.glob("tests/**/test_*.py")) if module in test.read_text()]
    direct.sort(key=lambda test: (test != own, test.parts[1] != path.parts[1]))
    return [str(test) for test in direct], next(tests for pattern, tests in MODULES.items() if path.match(pattern))


def failed(tests: list[str]) -> bool:
    """Whether a test fails, or they do not come to an end."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        import pytest

        quick = ["-x", "-m", "not slow", "-p", "no:cacheprovider", f"--basetemp={ROOT.parent / 'tests'}"]
        os._exit(int(pytest.main([*quick, *tests])) not in (0, 5))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def noticed(mutant: Mutant, tests: list[str]) -> bool:
    """Whether one of these tests fails on the mutant, which takes its file's place meanwhile."""
    path = ROOT / mutant.path
    kept, status = path.read_bytes(), path.stat()
    path.write_text(mutated(mutant))
    try:
        return bool(tests) and failed(tests)
    finally:
        path.write_bytes(kept)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # else its bytecode may be that of the mutant


def in_copy(arguments: Sequence[str]) -> int:
    """The campaign with these arguments in a copy of the project; what happens to this one meanwhile is not seen."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        for name in os.fsdecode(listed).rstrip("\0").split("\0"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
        line = [sys.executable, "-m", "tests.campaign.mutants", "copied=yes", *arguments]
        return subprocess.run(line, check=False, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}).returncode


def main(out: str, count: str = "100", seed: str = "0") -> None:
    """Draw, run what is not in `out` yet, and say what survived: first the quick tests of all, then the rooms'."""
    for name in (
        "lightning",
        "pandas",
        "sklearn.metrics",
        "torchmetrics",
        "timm",
        "torchvision",
        "hydra",
        "scipy.stats",
    ):
        importlib.import_module(name)
    known = json.loads(Path(out).read_text()) if Path(out).exists() else []
    results = {json.dumps(row["mutant"]): row for row in known}
    mutants = drawn(int(count), int(seed))
    for tests in ("own", "room"):
        for index, mutant in enumerate(mutants, 1):
            row = results.setdefault(
                json.dumps(asdict(mutant)), {"mutant": asdict(mutant), "noticed": False, "tests": [], "seconds": 0.0}
            )
            if row["noticed"] or tests in row["tests"]:
                continue
            started = time.monotonic()
            row["noticed"] = noticed(mutant, tests_of(mutant)[tests == "room"])
            row["tests"].append(tests)
            row["seconds"] = round(row["seconds"] + time.monotonic() - started, 1)
            Path(out).write_text("[\n" + ",\n".join(map(json.dumps, results.values())) + "\n]\n")
            state = "noticed" if row["noticed"] else "SURVIVED"
            print(f"{tests} {index}/{len(mutants)} {state} {mutant.path}:{mutant.line} {mutant.what}", flush=True)
    survivors = [row["mutant"] for row in results.values() if not row["noticed"]]
    print(f"{len(results) - len(survivors)} of {len(results)} noticed")


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if given.pop("copied", "no") == "yes":
        main(**given)
    else:
        given["out"] = str(Path(given["out"]).absolute())
        sys.exit(in_copy([f"{key}={value}" for key, value in given.items()]))
