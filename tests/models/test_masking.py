import torch

from kd_mil.models.masking import keep_harder_part, random_of_top


def test_draws_from_the_top_of_each_bag_and_nowhere_else():
    torch.manual_seed(0)
    scores, sizes = torch.tensor([5.0, 1, 4, 3, 2, 9, 8]), torch.tensor([5, 2])
    seen = torch.zeros(7)
    for _ in range(100):
        mask = random_of_top(scores, sizes, top=torch.tensor([3, 1]), chosen=torch.tensor([2, 5]))
        assert mask[:5].sum() == 2
        assert mask[5:].tolist() == [True, False]
        seen += mask
    assert (seen[[1, 4]] == 0).all()
    assert (seen[[0, 2, 3]] > 40).all()


def test_without_chance_exactly_the_highest_and_lowest_go():
    scores, sizes = torch.arange(20.0), torch.tensor([10, 10])
    keep = keep_harder_part(scores, sizes, ratio=0.2, share=1.0, low_ratio=0.1)
    assert keep.tolist() == ([False] + [True] * 7 + [False] * 2) * 2


def test_counts_round_up_and_no_bag_is_emptied():
    scores = torch.tensor([1.0, 3, 2, 7])
    keep = keep_harder_part(scores, torch.tensor([3, 1]), ratio=0.5)
    assert keep.tolist() == [True, False, False, True]
    assert keep_harder_part(scores, torch.tensor([3, 1]), ratio=0.99, low_ratio=0.5).tolist() == [
        True,
        False,
        False,
        True,
    ]


def test_candidates_are_ratio_over_share_of_the_bag():
    torch.manual_seed(0)
    scores, sizes = torch.arange(100.0), torch.tensor([100])
    masked = torch.stack([~keep_harder_part(scores, sizes, ratio=0.1, share=0.5) for _ in range(50)])
    assert (masked.sum(1) == 10).all()
    assert masked[:, :80].sum() == 0
    assert masked[:, 80:].any(0).all()


def test_what_is_asked_is_masked_where_the_candidates_would_exceed_the_bag():
    """Half of the bag in shares of .3 asks for 1.67 bags of candidates: all are, and half of them go."""
    torch.manual_seed(0)
    scores, sizes = torch.arange(20.0), torch.tensor([10, 10])
    masked = torch.stack([~keep_harder_part(scores, sizes, ratio=0.5, share=0.3) for _ in range(50)])
    assert (masked[:, :10].sum(1) == 5).all()
    assert masked.any(0).all()
