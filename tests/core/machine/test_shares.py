"""Rows dealt over gloo ranks: values, gradients, draws and batch statistics of one process."""

import pytest
import torch
from torch import nn

from kd_mil.core.machine.dealing import dealing, draw_rows
from kd_mil.core.machine.shares import WHOLE, Share, dealt
from kd_mil.models.heads import Dropout
from tests.support.ranks import together


class Depth(nn.Module):
    """Drops whole rows, as stochastic depth does."""

    def forward(self, rows):
        kept = rows.new_empty(len(rows), *[1] * (rows.dim() - 1)).bernoulli_(0.5) if self.training else 1.0
        return rows * kept


class Network(nn.Sequential):
    """Everything that looks at, or draws for, a whole batch."""

    def __init__(self):
        convolutions = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout2d(0.3), Depth()]
        super().__init__(*convolutions, nn.Flatten(), nn.Linear(36, 5), nn.BatchNorm1d(5, affine=False), Dropout(0.3))
        self.append(nn.Dropout(0.1))


def images(count):
    return torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(count)).double()


def step(network, share, total):
    """Losses of rows before and after they are gathered, with the gradients that DDP's mean would give."""
    torch.manual_seed(7)
    head = nn.Linear(5, 2).double()
    values = images(total)
    with dealing(share) as deal:
        rows = deal.own(values) + draw_rows(len(deal.own(values)), lambda n: torch.rand(n, 3, 5, 5))
        features = network(rows)
        own_term = deal.mean(features.square()) + deal.sum(deal.real(features).sum()) / 10
        gathered = deal.gather(features)
    loss = own_term + (head(gathered).softmax(1)[:, 0] * torch.arange(total)).sum()
    loss.backward()
    parts = [*network.parameters(), *head.parameters()]
    return loss.detach(), gathered.detach(), [part.grad for part in parts], torch.rand(1)


def ranks_step(rank, ranks, totals):
    torch.manual_seed(0)
    network = Network().double().to(memory_format=torch.channels_last)
    results = []
    for total in totals:
        network.zero_grad()
        loss, gathered, gradients, drawn = step(network, dealt(total, rank, ranks), total)
        results.append((loss, gathered, gradients, drawn, [b.clone() for b in network.buffers()]))
    return results


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_compute_what_one_process_does(ranks, tmp_path):
    """Of 7, 2 and 3 rows: shares that differ, and a rank without any."""
    totals = (7, 2, 3)
    [one] = [ranks_step(0, 1, totals)]
    by_rank = together(ranks_step, tmp_path, ranks, totals, ranks=ranks)
    for number, (loss, gathered, gradients, drawn, buffers) in enumerate(one):
        for results in by_rank:
            theirs = results[number]
            torch.testing.assert_close(theirs[0], loss)
            torch.testing.assert_close(theirs[1], gathered)
            assert torch.equal(theirs[3], drawn), "the generators of ranks stay alike"
            torch.testing.assert_close(theirs[4], buffers)
        means = [torch.stack(list(parts)).mean(0) for parts in zip(*(r[number][2] for r in by_rank), strict=True)]
        torch.testing.assert_close(means, gradients)


def test_equal_shares_are_consecutive_and_differ_by_one_row():
    shares = [dealt(7, rank, 3) for rank in range(3)]
    assert [share.rows.tolist() for share in shares] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [dealt(2, rank, 3).count for rank in range(3)] == [1, 1, 0]
    assert dealt(7, 0, 1) is None


def test_a_share_of_chosen_rows_stays_with_those_who_hold_them():
    """Rows 6, 0, 3 of seven: the second rank of three holds row 3, its first."""
    share = dealt(7, 1, 3)
    taken, mine = share.take(torch.tensor([6, 0, 3]))
    assert taken.owners.tolist() == [2, 0, 1]
    assert (taken.rows.tolist(), mine.tolist()) == ([2], [0])
    nothing, stand_in = share.take(torch.tensor([6, 0]))
    assert (nothing.count, len(nothing.rows), stand_in.tolist()) == (0, 1, [0])


def test_joined_steps_lie_end_to_end():
    """Two rows over three ranks, then three: the last rank has a row of the second step alone."""
    first, second = dealt(2, 2, 3), dealt(3, 2, 3)
    together_, rows = first.joined([(first, torch.tensor([9.0])), (second, torch.tensor([5.0]))])
    assert isinstance(together_, Share)
    assert (together_.total, together_.rows.tolist(), rows.tolist()) == (5, [4], [5.0])


def test_one_process_deals_nothing():
    rows = torch.rand(3, 2)
    with dealing(None) as deal:
        assert deal is WHOLE
        assert deal.gather(rows) is rows
        assert deal.own(rows) is rows
        assert torch.equal(deal.mean(rows), rows.mean())


def test_draws_that_are_not_of_rows_are_refused():
    with dealing(Share(torch.tensor([0, 0, 1]), 0, 2)), pytest.raises(RuntimeError, match="cannot be dealt"):
        torch.empty(3, 2).bernoulli_(0.5)


def test_evaluation_within_a_share_is_left_alone():
    network = Network().eval()
    rows = images(2).float()
    with dealing(Share(torch.tensor([0, 0, 1]), 0, 2)):
        inside = network(rows)
    assert torch.equal(inside, network(rows))
