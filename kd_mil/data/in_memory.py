"""InMemoryBags: a data set of one's own, out of tensors."""

from collections.abc import Sequence
from typing import Any

import torch

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.datamodules import BagDataModule, Loading
from kd_mil.data.single_bags import Bag
from kd_mil.data.splits import PARTS, stratified_folds


class InMemoryBags(BagDataModule):
    """Bags that Python code has in memory, as data of any method on bags.

    Args:
        bags: packed, or a list as `Bags.from_list` takes it.
        parts: `train`, `val` or `test` of each bag; None = folds, stratified, cases kept whole.
        fold: which of the folds is tested.
        num_folds: number of folds.
        val_fraction: share of all cases held out for validation.
        loading: as in `BagDataModule`; None = one bag a step.
        seed: of the folds; the order of visits follows the seed of the method.

    Raises:
        UserError: as `Bags.from_list`, or parts that are not one of three names for each bag.

    Examples:
        >>> data = InMemoryBags([(torch.randn(20, 16), number % 2) for number in range(50)], num_folds=5)
        >>> data.model_inputs["instance_shape"], data.class_names
        ([16], ('negative', 'positive'))
        >>> L.Trainer(max_epochs=10).fit(method, data)  # doctest: +SKIP
    """

    def __init__(
        self,
        bags: Bags | Sequence[Bag | tuple[Any, ...]],
        parts: Sequence[str] | None = None,
        fold: int = 0,
        num_folds: int = 5,
        val_fraction: float = 0.1,
        loading: Loading | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(loading or Loading(), seed=seed)
        self.packed = bags if isinstance(bags, Bags) else Bags.from_list(bags)
        if parts is not None and (len(parts) != len(self.packed) or not set(parts) <= set(PARTS)):
            raise UserError(f"parts: give one of {', '.join(PARTS)} for each of {len(self.packed)} bags")
        self.parts, self.fold, self.num_folds, self.val_fraction = parts, fold, num_folds, val_fraction

    def load(self) -> BagSplits:
        """Divide the bags."""
        bags = self.packed
        if self.parts is not None:
            return BagSplits(
                bags, *(torch.tensor([own == part for own in self.parts]).nonzero()[:, 0] for part in PARTS)
            )
        folds = stratified_folds(bags.labels, bags.case_ids, self.fold, self.num_folds, self.val_fraction, self.seed)
        return BagSplits(bags, *folds)

    @property
    def instance_source(self) -> dict[str, Any]:
        """Features of whatever encoder; nothing where they are pixels."""
        dtype = str(self.packed.instances.dtype).removeprefix("torch.")
        return {"kind": "features", "dtype": dtype} if dtype in ("float16", "float32") else {}
