"""No step of a method makes the host wait for a GPU, but where the number of instances is a result."""

from collections import Counter

import pytest
import torch

from kd_mil.models import segments
from tests.support.dealt_runs import METHODS, RUNS, build
from tests.support.tiny import fit
from tests.support.waits import counted_waits

ONCE_A_STEP = "models/segments.py:kept_positions: aten.nonzero"
"""How many instances mining and masking leave is known on the device alone."""
PLACES = {
    "dmkd_style": ("methods/weno/correction.py", "methods/weno/feedback.py", "methods/base/method.py"),
    "resolution_kd": ("methods/resolution/pair_augment.py",),
}
"""Files whose sizes are random or of values: they wait in every step, and are known to."""
ON_GPU = ("mil", "mil_dtfd", "d2l", "d2l_norm", "ins", "supervised", "ifkd", "cam", "unet_supervised")
"""Methods whose steps wait nowhere."""
ONCE_AN_EPOCH = ("weno_transport", "sela_mil")
"""Labels of a whole epoch are made within its first step."""


@pytest.mark.parametrize("name", [name for name in RUNS if name not in ONCE_AN_EPOCH])
def test_a_step_waits_nowhere(name, monkeypatch):
    monkeypatch.setattr(segments, "FEW_INSTANCES", 10**9)  # as on a GPU, where nothing goes bag by bag
    method, data, epochs = build(name)
    step, found, most = method.training_step, Counter(), []

    def counted(*args):
        with counted_waits() as waits:
            result = step(*args)
        most.append(waits.lines.pop(ONCE_A_STEP, 0))
        found.update(waits.lines)
        return result

    method.training_step = counted
    validated = name.startswith("d2l") or name not in METHODS  # a phase may hand on what validation chose
    fit(method, data, epochs=epochs, limit_val_batches=1.0 if validated else 0)
    elsewhere = {line: times for line, times in found.items() if not line.startswith(PLACES.get(name, ("nowhere",)))}
    assert not elsewhere
    assert most
    assert max(most) <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ON_GPU)
def test_pytorch_sees_no_wait_either(name):
    method, data, epochs = build(name)
    step = method.training_step

    def watched(*args):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return step(*args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    method.training_step = watched
    validated = name.startswith("d2l") or name not in METHODS
    trainer = fit(method, data, epochs=epochs, accelerator="cuda", limit_val_batches=1.0 if validated else 0)
    assert trainer.current_epoch == epochs


def test_what_waits_is_found():
    with counted_waits() as waits:
        values = segments.segment_ranks(torch.tensor([1.0, 3.0]), torch.tensor([2]))
        segments.kept_positions(values > 0)
    assert waits.lines == {ONCE_A_STEP: 1}
