"""Ours beside the originals, with equal weights on the same bags: prints differences, writes results.json.

python experiments/equivalence/compare.py results.json weno=WENO clam=CLAM dsmil=dsmil-wsi dtfd=DTFD-MIL acmil=ACMIL \
    transmil=TransMIL

Each setting is the folder of a checkout; of those left out the file keeps what it says. TransMIL and ACMIL import
`einops`, TransMIL `nystrom_attention`.
"""

import json
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import weno
from aggregators import acmil, clam, differences, dsmil, dtfd, transmil
from checkouts import commit

Comparison = Callable[[str], dict[str, float]]


def beside(build: Callable) -> Comparison:
    """Differences of an aggregator from the original in a folder."""
    return lambda folder: differences(build(folder))


COMPARISONS: dict[str, dict[str, Comparison]] = {
    "weno": {name: partial(weno.compare, teacher=name) for name in ("abmil", "dsmil")},
    "clam": {name: beside(partial(clam, branches=name)) for name in ("single", "multi")},
    "dsmil": {"dsmil": beside(dsmil)},
    "dtfd": {"afs": beside(dtfd)},
    "acmil": {"gated": beside(acmil)},
    "transmil": {"transmil": beside(transmil)},
}
"""By the setting that names the checkout."""


def main() -> None:
    """Compare what the command line names."""
    out, *settings = sys.argv[1:]
    folders = dict(setting.split("=", 1) for setting in settings)
    unknown = folders.keys() - COMPARISONS.keys()
    if unknown or not folders:
        raise SystemExit(f"name checkouts as NAME=FOLDER, with NAME one of {', '.join(COMPARISONS)}")
    results: dict[str, object] = json.loads(Path(out).read_text()) if Path(out).exists() else {}
    for name, folder in folders.items():
        torch.manual_seed(0)
        found = {variant: compare(folder) for variant, compare in COMPARISONS[name].items()}
        versions = {"commit": commit(folder), "torch": torch.__version__, "processor": platform.machine()}
        results[name] = versions | {"differences": found}
        Path(out).write_text(json.dumps(results, indent=1) + "\n")
        for variant, differences_of in found.items():
            for quantity, value in differences_of.items():
                print(f"{name:9} {variant:9} {quantity:36} {value:.2g}", flush=True)


if __name__ == "__main__":
    main()
