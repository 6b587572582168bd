"""Cases as bags: all slides of a patient laid end to end.

splits = merged_by_case(splits)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits, LazyInstances


class Reordered:
    """Instances that stay in their files, by other positions.

    Args:
        source: the files.
        order: (N,) int64, the position in the source of each.
    """

    def __init__(self, source: LazyInstances, order: Tensor) -> None:
        self.source, self.order = source, order
        self.shape, self.dtype = source.shape, source.dtype

    def __getitem__(self, positions: Tensor) -> Tensor:
        return self.source[self.order[positions]]


def merged_by_case(splits: BagSplits) -> BagSplits:
    """The same data with a bag for each case, called like it: the instances of its slides, slide after slide.

    The label is that of its slides, or of its positive ones where some are negative. Coordinates stay only where every
    case has one slide: those of several slides would lie on each other.

    Args:
        splits: whose parts hold whole cases; slides of no part belong to none.

    Raises:
        UserError: slides of two positive classes in one case.
    """
    bags = splits.bags
    cases = bags.bag_ids if bags.case_ids is None else bags.case_ids
    number = {case: index for index, case in enumerate(dict.fromkeys(cases))}
    case_of = torch.tensor([number[case] for case in cases])
    slides = torch.argsort(case_of, stable=True)
    order, labels = bags.instances_of(slides), torch.zeros(len(number), dtype=torch.long)
    labels.scatter_reduce_(0, case_of, bags.labels, "amax")
    _refuse_two_classes(bags, case_of, labels, list(number))
    lazy = not isinstance(bags.instances, Tensor)
    alone = len(number) == len(bags)
    merged = Bags(
        instances=Reordered(bags.instances, order) if lazy else bags.instances[order.to(bags.device)],  # type: ignore[arg-type]
        sizes=torch.zeros(len(number), dtype=torch.long).index_add_(0, case_of, bags.sizes),
        labels=labels,
        bag_ids=list(number),
        instance_labels=bags.instance_labels[order],
        coords=bags.coords if alone else None,
        case_ids=list(number),
        class_names=bags.class_names,
    )
    parts = (case_of[part].unique() for part in splits[1:])
    return BagSplits(merged, *parts)


def _refuse_two_classes(bags: Bags, case_of: Tensor, labels: Tensor, cases: Sequence[str]) -> None:
    odd = (bags.labels > 0) & (bags.labels != labels[case_of])
    for bag in odd.nonzero().flatten().tolist():
        case = int(case_of[bag])
        names = [bags.class_names[int(label)] for label in (bags.labels[bag], labels[case])]
        raise UserError(
            f"data.bag_by=case: case {cases[case]!r} has slides of {names[0]!r} and of {names[1]!r}: correct the "
            "labels, or give its parts case ids of their own"
        )
