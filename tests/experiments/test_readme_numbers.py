"""The tables of the README, once more from the records they come from: what it prints is what was measured."""

import json
import re
from statistics import mean

import pytest

from experiments.weno_transport.compare import METRICS, compare
from tests.support.command import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def record(name):
    return json.loads((ROOT / "experiments" / name / "results.json").read_text())


def row(beginning):
    """Cells of the one row of a table of the README that begins so, without what makes them bold."""
    [line] = [line for line in README.replace("*", "").splitlines() if line.startswith(f"| {beginning} |")]
    return [cell.strip() for cell in line.strip("| ").split(" | ")][1:]


@pytest.mark.parametrize(
    ("name", "run", "role"),
    [
        ("gated ABMIL alone, its attention", "mil_gated_abmil", "model"),
        ("WENO teacher, its attention", "weno_gated_abmil", "teacher"),
        ("WENO student", "weno_gated_abmil", "student"),
        ("supervised by nucleus labels", "supervised", "model"),
    ],
)
def test_real_nuclei(name, run, role):
    scores = record("colon_nuclei")[run]["test"]
    instances, bags = (scores[f"{role}/{unit}_auroc"] for unit in ("instance", "bag"))
    spread = f" ({min(instances['values']):.2f} to {max(instances['values']):.2f})"
    printed, of_bags = row(name)
    assert printed == f"{instances['mean']:.3f}{spread if '(' in printed else ''}"
    assert of_bags == f"{bags['mean']:.3f}"


SETS = {
    "colon nuclei, ImageNet features": [("colon", None)],
    "texture features, 10, 20, 50 % positive": [("kather", ratio) for ratio in ("0.1", "0.2", "0.5")],
    "CIFAR-10, ImageNet features, 5, 20 % positive": [("cifar 0.05", None), ("cifar 0.2", None)],
    "texture features, 20 %: DSMIL, CLAM-SB as teachers": [("kather 0.2, dsmil", None), ("kather 0.2, clam_sb", None)],
    "texture features, 20 %: TransMIL as teacher, student at a rate of its own": [
        ("kather 0.2, transmil, student_lr=1e-3", None)
    ],
    "the same at TransMIL's small rate for both": [("kather 0.2, transmil", None)],
    "colon nuclei, pixels, trained end to end": [("colon pixels", None)],
    "the same, an encoder of its own for the student": [("colon pixels, shared_encoder=false", None)],
}


@pytest.mark.parametrize("name", SETS)
def test_best_readings(name):
    """Within positive bags; the best of the eight readings by the script of the record."""
    within, compared, attention = METRICS[1], [], []
    for of, ratio in SETS[name]:
        found = record("weno_transport")
        alone = found[of.removesuffix(", student_lr=1e-3").removesuffix(", shared_encoder=false")]  # the same teachers
        pairs = {tuple(key.split(", seed ")): alone[key] | networks for key, networks in found[of].items()}
        own = {key: value for key, value in pairs.items() if ratio in (None, key[0])}
        compared.append(compare(own, within, ""))
        epochs = ("alone best", "alone last")
        attention.append(max(mean(one[epoch][f"attention/{within}"] for one in own.values()) for epoch in epochs))
    printed = row(name)
    assert numbers(printed[0], 2) == [f"{value:.2f}"[1:] for value in attention]
    assert numbers(printed[1], 3) == [f"{one['alone']:.3f}"[1:] for one in compared]
    assert numbers(printed[2], 3) == [f"{one['student']:.3f}"[1:] for one in compared]
    assert printed[3] == f"{sum(one['above'] for one in compared)} of {sum(one['pairs'] for one in compared)}"


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("naive student", "naive"),
        ("WENO told bags of one", "weno_bag_of_one"),
        ("SeLa-MIL", "sela_mil"),
        ("INS", "ins"),
        ("`dmkd_style`", "dmkd_style"),
        ("`weno_transport`", "weno_transport"),
        ("supervised by instances", "supervised"),
    ],
)
def test_who_wins_where(name, method):
    found = record("instance_claims")
    gains = [
        found[of]["gains"][method]["instance_auroc_within"] for of in ("kather_0.2", "colon", "cifar_0.2", "procedural")
    ]
    assert row(name) == ["{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**gain) for gain in gains]


def numbers(cell, digits):
    """`.82 .80` as its numbers, which have so many digits."""
    found = re.findall(r"\.\d+", cell)
    assert {len(number) for number in found} == {digits + 1}
    return found


def test_slides_with_exact_truth():
    found = record("synthetic_slides")
    alone, with_mining, without = (
        found[name]["instance_auroc"] for name in ("mil_dsmil", "weno_dsmil, hpm threshold", "weno_dsmil, hpm off")
    )
    text = " ".join(README.split())
    expected = [
        alone["model/all"],
        with_mining["student/all"],
        alone["model/hard"],
        with_mining["student/hard"],
        without["student/hard"],
    ]
    said = re.search(
        r"with an AUROC of (0\.\d\d), WENO's student with (0\.\d\d); on scattered tumour cells alone (0\.\d\d) against "
        r"(0\.\d\d), and (0\.\d\d) without hard positive mining",
        text,
    )
    assert list(said.groups()) == [f"{value['mean']:.2f}" for value in expected]
