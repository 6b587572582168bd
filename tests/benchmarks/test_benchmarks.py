"""The benchmarks compare like with like, and do what they say; how fast anything is is not tested."""

import json
import math
import os
from types import SimpleNamespace

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import aggregators, packing, time_to_accuracy
from benchmarks.bare_loop import BareLoop
from benchmarks.machine import Clock, in_fresh_process, peak_memory_mib, ratio, timed_in_turn
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.aggregators.pooling import Max
from kd_mil.models.encoders.small import Identity
from tests.support.ranks import WarmProcess
from tests.support.tiny import TinyData, fit, no_mining, tiny_abmil, tiny_head, tiny_parts


@pytest.fixture
def equal_bags():
    """12 bags of 5 random instances, the first 8 for training."""
    order = torch.arange(12)
    features = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    bags = Bags(features, torch.full((12,), 5), order % 2, [str(bag) for bag in order.tolist()])
    return BagSplits(bags, order[:8], order[8:10], order[10:])


@pytest.mark.parametrize("attention_from", ["bank", "recompute"])
def test_the_bare_loop_trains_the_same_weights_as_the_framework(equal_bags, attention_from):
    torch.manual_seed(0)
    method = WENO(
        **tiny_parts(),
        aggregator=tiny_abmil(),
        student_head=tiny_head(),
        hpm=no_mining(),
        attention_from=attention_from,
        negative_weight=0.2,
    )
    data = TinyData(equal_bags)
    data.setup()
    bare = BareLoop(method, data)
    bare.teacher_phase(torch.cat(list(data.bag_loader().sampler)))
    bare.student_phase(torch.cat(list(data.instance_loader().sampler)))
    before = method.encoder.linear.weight.clone()
    fit(method, data)
    pairs = ((bare.encoder, method.encoder), (bare.teacher, method.aggregator), (bare.student, method.student_head))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    assert not torch.equal(before, method.encoder.linear.weight)


@pytest.mark.parametrize("name", packing.AGGREGATORS)
def test_packed_and_looped_work_is_the_same(name):
    batch = packing.random_batch("few", torch.tensor([3, 1, 7]), width=8)
    aggregator = packing.part("aggregator", name)(in_features=8, num_classes=2).eval()
    packing.packed(aggregator, batch)()
    gradients = {key: parameter.grad.clone() for key, parameter in aggregator.named_parameters()}
    packing.looped(aggregator, batch)()
    looped = {key: parameter.grad for key, parameter in aggregator.named_parameters()}
    torch.testing.assert_close(gradients, looped, rtol=1e-4, atol=1e-6)


def test_work_takes_turns():
    calls = []
    works = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    samples = timed_in_turn(works, repeats=3, seconds=60)
    assert calls == ["a", "b"] * 4
    assert [len(times) for times in samples.values()] == [3, 3], "the first round warms up"
    assert len(timed_in_turn(works, repeats=3, seconds=0)["a"]) == 1


def test_a_record_says_how_far_its_repeats_lie_apart():
    row = {"name": "a", "samples_ms": [3.0, 1.0, 2.0], "ratio": 2.0, "none": [], "parts": [[1], [2]]}
    assert command.spread(row) == {"samples_ms": {"repeats": 3, "median": 2.0, "min": 1.0, "max": 3.0}}


def test_ratios_compare_times_of_the_same_round():
    """A machine twice as slow in the second round: the ratio stays 3."""
    assert ratio([Clock(3, 0), Clock(6, 0), Clock(3, 0)], [Clock(1, 0), Clock(2, 0), Clock(1, 0)]) == 3


def test_memory_goals_compare_peaks_and_growth():
    rows = [
        {"aggregator": "abmil_released", "features": width, "instances": size, "peak_mib": peak}
        for width, size, peak in ((1024, 1000, 400), (1024, 10_000, 900), (1024, 50_000, 2080), (512, 50_000, 1))
    ]
    total, growth = aggregators.memory_goals("abmil_released", rows)
    assert (total["value"], total["reached"]) == (2080, False)
    assert (growth["value"], growth["reached"]) == (1680, True)
    assert "1693" in growth["goal"]
    lost = aggregators.memory_goals("abmil_released", [*rows[:2], {**rows[2], "peak_mib": math.inf}])
    assert not any(goal["reached"] for goal in lost)


def test_missing_data_is_a_line_in_the_result(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_MIL_DATA", str(tmp_path))
    row = time_to_accuracy.measure(time_to_accuracy.CASES[0])
    assert "CRCHistoPhenotypes" in row["skipped"]


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--only", "speed"])
    assert stop.value.code == 2
    assert "time_to_accuracy" in capsys.readouterr().err


def test_quick_results_do_not_replace_records():
    assert command.parse(["--quick"]).out != command.parse([]).out == command.RECORDS


@pytest.mark.slow
def test_a_fresh_process_has_memory_of_its_own():
    """A million instances of 64 floats are 244 MiB; what this process held before is not counted."""
    torch.ones(1000 * 2**20, dtype=torch.uint8)
    small, large = (in_fresh_process(aggregators.measure_steps, Identity, Max, n, 64, 0.0) for n in (1000, 1_000_000))
    assert 244 < large["peak_mib"] - small["peak_mib"] < 350
    assert small["peak_mib"] < peak_memory_mib() - 500
    assert "exit code 3" in in_fresh_process(os._exit, 3)["error"]


@pytest.mark.slow
@pytest.mark.parametrize("name", command.BENCHMARKS)
def test_quick_benchmarks_leave_their_record(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.ranks.mp.get_context", lambda _: SimpleNamespace(Process=WarmProcess))
    monkeypatch.setenv("COLUMNS", "200")
    if name == "viewer":  # `make bench` says nothing of threads; without it, the others start processes of two here
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    command.main(["--quick", "--threads", "1", "--only", name, "--out", str(tmp_path)])
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["benchmark"] == name
    assert record["machine"]["threads"] == 1
    assert {"load_average", "load_average_after"} <= set(record["machine"])
    assert {"torch", "lightning", "kd_mil"} <= set(record["versions"])
    assert record["rows"]
    for row in record["rows"]:
        assert "error" not in row
        assert any(isinstance(value, list) and value for value in row.values()), "every repeat is recorded"
        assert all(one["min"] <= one["median"] <= one["max"] for one in row["spread"].values())
    printed = capsys.readouterr().out
    assert record["title"] in printed
    assert str(record["rows"][0][record["columns"][0]]) in printed
