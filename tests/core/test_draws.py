import torch

from kd_mil.core.draws import apart


def test_draws_apart_repeat_and_leave_the_generators_of_the_run_alone(monkeypatch):
    """Those of GPUs, too, which `torch.manual_seed` sets on every device and `fork_rng` need not put back."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    torch.default_generator.manual_seed(1)
    expected = torch.rand(4)
    torch.default_generator.manual_seed(1)
    draws = []
    for seed in (7, 7, 8):
        with apart(seed):
            draws.append(torch.rand(3))
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not seeded
