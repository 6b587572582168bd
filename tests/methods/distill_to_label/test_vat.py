"""What disturbs a bag stays within its bounds and within its bag."""

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.distill_to_label.vat import VAT, rounded_shares

SIZES = [1, 2, 5, 10, 40]


def make_vat(channels=3, **settings):
    vat = VAT(**settings)
    vat.allocate(channels)
    vat.set_range(torch.linspace(-2, 0, channels), torch.linspace(1, 4, channels))
    return vat


def test_noise_is_a_share_of_the_bag_and_fills_the_range_of_each_channel():
    torch.manual_seed(0)
    noise, counts = make_vat(noise_ratio=0.2).noise(torch.zeros(58, 3, 9, 9), SIZES)
    assert counts == [1, 1, 1, 2, 8]
    assert len(noise) == 13
    low, high = noise.amin((0, 2, 3)), noise.amax((0, 2, 3))
    torch.testing.assert_close(low, torch.tensor([-2.0, -1.0, 0.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(high, torch.tensor([1.0, 2.5, 4.0]), atol=0.02, rtol=0)
    assert (low >= torch.tensor([-2.0, -1.0, 0.0])).all()


def test_features_have_ranges_of_their_own():
    """Noise of vectors fills the range of each feature, and each feature moves by a share of its own."""
    torch.manual_seed(0)
    vat, low, high = make_vat(channels=4, delta=0.1), torch.linspace(-2, 0, 4), torch.linspace(1, 4, 4)
    noise, counts = vat.noise(torch.zeros(1000, 4), [1000])
    assert noise.shape == (200, 4)
    assert counts == [200]
    torch.testing.assert_close(noise.amin(0), low, atol=0.1, rtol=0)
    torch.testing.assert_close(noise.amax(0), high, atol=0.1, rtol=0)
    moves = (vat.perturb(torch.zeros(1000, 4), lambda values: values)).abs().amax(0)
    torch.testing.assert_close(moves, 0.1 * (high - low), atol=0.01, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("mode", ["random", "adversarial"])
def test_perturbations_stay_within_the_ball(norm, mode):
    torch.manual_seed(0)
    vat = make_vat(delta=0.1, norm=norm, mode=mode)
    clean = torch.randn(20, 3, 5, 5)
    weights = torch.randn(75, 2)
    moved = vat.perturb(clean, lambda values: values.flatten(1).mean(0, keepdim=True) @ weights) - clean
    relative = moved / (vat.high - vat.low).view(-1, 1, 1)
    size = relative.abs().amax() if norm == "linf" else relative.pow(2).mean((1, 2, 3)).sqrt().amax()
    assert size <= 0.1 + 1e-6
    assert size > 0.09
    assert moved.std(0).amin() > 0 or mode == "adversarial"


def test_the_adversarial_perturbation_changes_the_prediction_more_than_a_random_one():
    torch.manual_seed(0)
    clean, weights = torch.randn(6, 3, 5, 5), torch.randn(75, 2)

    def predict(values):
        return values.flatten(1).mean(0, keepdim=True) @ weights

    changes = {}
    for mode in ("random", "adversarial"):
        vat = make_vat(mode=mode, delta=0.02)
        changes[mode] = (predict(vat.perturb(clean, predict)).softmax(1) - predict(clean).softmax(1)).abs().max()
    assert changes["adversarial"] > 3 * changes["random"]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_adversarial_perturbation_moves_away_from_the_clean_prediction_along_the_gradient(norm):
    """Two logits (w x, 0) of one bag of one: whichever side is tried first, the move ends where p is farther from p(x).

    The divergence rises on both sides of x, so the direction is that of the first trial: its sign is asked for.
    """
    vat, weight = make_vat(channels=2, mode="adversarial", delta=0.1, norm=norm), torch.tensor([2.0, -1.0])
    clean = torch.tensor([[0.3, 0.2]])

    def logits(values):
        margin = values @ weight
        return torch.stack([margin, torch.zeros_like(margin)], 1)

    for trial in (torch.tensor([[1.0, 0.5]]), torch.tensor([[-1.0, -0.5]])):
        vat._random_move = lambda values, trial=trial: trial
        moved = vat.perturb(clean, logits) - clean
        assert float((moved @ weight).sign()) == float((trial @ weight).sign())


def test_the_adversarial_search_leaves_no_gradient_behind():
    network = torch.nn.Linear(3, 2)
    vat = make_vat(mode="adversarial")
    moved = vat.perturb(torch.randn(4, 3), lambda values: network(values).mean(0, keepdim=True))
    assert network.weight.grad is None
    assert not moved.requires_grad


def test_shares_round_as_pytorch_rounds_them():
    """Sizes are known on the host, so that no step waits for a device; half goes to the even number."""
    sizes = list(range(1, 2000))
    for ratio in (0.2, 0.25, 0.3, 0.5, 0.8, 1.0):
        assert rounded_shares(ratio, sizes) == (ratio * torch.tensor(sizes)).round().long().tolist()


@pytest.mark.parametrize(("keep_ratio", "expected"), [(0.8, [1, 1, 4, 8, 32]), (1.0, [1, 1, 4, 9, 39])])
def test_subsets_are_smaller_than_their_bag_and_within_it(keep_ratio, expected):
    torch.manual_seed(0)
    vat, total = make_vat(keep_ratio=keep_ratio), sum(SIZES)
    owners = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    drawn = []
    for _ in range(60):
        positions, sizes = vat.subset(SIZES)
        assert sizes == expected
        assert owners[positions].tolist() == owners[positions].sort().values.tolist()
        assert owners[positions].bincount(minlength=5).tolist() == expected
        assert len(positions.unique()) == len(positions)
        drawn.append(positions)
    assert len(torch.cat(drawn).unique()) == total  # every instance is kept at times


def test_views_are_the_papers_bags():
    vat = make_vat(subsets=2, keep_ratio=0.5)
    views = vat.views([2, 3], noise_counts=[1, 1], perturbed=True)
    assert views.names == ("clean", "noise", "perturbation", "subset", "subset")
    assert views.sizes == [2, 3, 3, 4, 2, 3, 1, 2, 1, 2]
    parts = views.positions.split([5, 7, 5, 3, 3])
    assert parts[0].tolist() == [0, 1, 2, 3, 4]
    assert parts[1].tolist() == [0, 1, 5, 2, 3, 4, 6]  # noise at the end of its own bag
    assert parts[2].tolist() == [7, 8, 9, 10, 11]
    for part in parts[3:]:
        assert part[0] < 2 <= part[1] < part[2] < 5


@pytest.mark.parametrize("setting", ["noise", "perturbation", "entropy"])
def test_a_weight_of_zero_leaves_a_term_out(setting):
    weights = make_vat(**{f"{setting}_weight": 0.0}).weights
    assert set(weights) == {"label", "noise", "perturbation", "subset"} - {setting.replace("entropy", "subset")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_weight": -1.0}, "method.vat.noise_weight=-1.0: must be at least 0"),
        ({"delta": float("nan")}, "method.vat.delta=nan"),
        ({"keep_ratio": 0.0}, "method.vat.keep_ratio=0.0: a share"),
        ({"subsets": 0}, "method.vat.subsets=0: at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        VAT(**settings)
