"""bfloat16 (`trainer.precision=bf16-mixed`): every method trains with it, close to single precision at first."""

import pytest
import torch

from tests.support.dealt_runs import METHODS, RUNS, build
from tests.support.tiny import fit


def losses_of(name, precision):
    """Loss of each step by role, and the trained method."""
    method, data, epochs = build(name)
    losses, log_loss = [], method.log_loss

    def note(role, loss, batch_size, **terms):
        losses.append((role, loss.item()))
        log_loss(role, loss, batch_size, **terms)

    method.log_loss = note
    validated = name.startswith("d2l") or name not in METHODS
    torch.manual_seed(0)
    fit(method, data, epochs=epochs, precision=precision, limit_val_batches=1.0 if validated else 0)
    return losses, method


@pytest.mark.parametrize("name", RUNS)
def test_a_method_trains_in_bfloat16(name):
    exact, _ = losses_of(name, "32-true")
    narrow, method = losses_of(name, "bf16-mixed")
    assert [role for role, _ in narrow] == [role for role, _ in exact]
    assert narrow[0][1] == pytest.approx(exact[0][1], rel=0.03, abs=0.01)
    assert narrow != exact
    assert all(torch.isfinite(value).all() for value in method.parameters())
    assert torch.tensor([loss for _, loss in narrow]).isfinite().all()
