"""FeatureBags: slides whose instances were encoded before, listed in a manifest."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.checks import share
from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.classes import Classes
from kd_mil.data.datamodules import GIBIBYTE, BagDataModule, Loading
from kd_mil.data.features.check import check_values
from kd_mil.data.features.files import TUMOUR_THRESHOLD, FeatureFile, FeatureFiles
from kd_mil.data.features.manifest import Manifest, read_manifest
from kd_mil.data.features.provenance import common_source
from kd_mil.data.split_columns import Folds, choose_parts
from kd_mil.slides.extraction.store import read_attributes
from kd_mil.slides.slide_content import check_twins

DTYPES = {"float16": torch.float16, "float32": torch.float32}


class FeatureBags(BagDataModule):
    """Bags of feature vectors (N, D), one file per slide; formats and keys are listed in docs/formats.md.

    Sets up to `loading.resident_gib` are read and checked at once. Larger ones stay in their files, which are read
    through once before the first training on them.

    Args:
        manifest: CSV `slide_id,label,feature_path` and, where wanted, `case_id`, `split`, `fold`; or a folder of
            features of `kd_mil.extract`, CLAM, TRIDENT, STAMP or torchmil; or DSMIL's CSV.
        labels: CSV `slide_id,label` and, where wanted, `case_id`, `split`, `fold`, for a folder.
        loading: as in `BagDataModule`.
        root: folder from which relative feature paths start; None = the manifest's own.
        classes: names of the labels in order, or the index of each; None = the labels are 0..C-1.
        fold: None = the `split` column, or fold 0 where there is none; else the fold to test: of the `fold` column, or
            of `num_folds` stratified folds with cases kept whole.
        num_folds: folds made where there is no `fold` column.
        val_fraction: share of all cases held out for validation, unless the `split` column says which.
        dtype: `float16` or `float32`, in which features are kept.
        tumour_threshold: least tumour area fraction of a positive instance, in (0, 1], where files hold fractions.
        negatives_known: the first class means "no tumour": a positive instance in one of its bags is a mistake.
        cache_dir: remembers which files were read through.
        split_file: CSV `bag_id,split` that replaces the split.
        seed: of folds, validation part and visiting order.

    Raises:
        UserError: a threshold outside (0, 1].
    """

    def __init__(
        self,
        manifest: str | None,
        loading: Loading,
        labels: str | None = None,
        root: str | None = None,
        classes: Classes = None,
        fold: int | None = None,
        num_folds: int = 5,
        val_fraction: float = 0.1,
        dtype: Literal["float16", "float32"] = "float16",
        tumour_threshold: float = TUMOUR_THRESHOLD,
        negatives_known: bool = True,
        cache_dir: str = ".cache/kd_mil",
        split_file: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(loading, split_file, seed)
        self.manifest, self.root, self.classes, self.labels = manifest, root, classes, labels
        self.folds = Folds(fold, num_folds, val_fraction, seed)
        share("data.tumour_threshold", tumour_threshold, zero=False)
        self.tumour_threshold, self.negatives_known = tumour_threshold, negatives_known
        self.dtype, self.cache_dir = DTYPES[dtype], Path(cache_dir)

    def load(self) -> BagSplits:
        """Check the manifest, open every file, and read the features where they fit in memory."""
        if self.manifest is None:
            raise UserError("data.manifest is not set: give a CSV with columns slide_id,label,feature_path")
        manifest = read_manifest(self.manifest, self.classes, self.root, self.labels)
        check_twins(manifest.slide_ids, manifest.feature_paths, [None] * len(manifest.slide_ids), self.manifest)
        resident_bytes = self.loading.resident_gib * GIBIBYTE
        labelling = self.tumour_threshold, self.negatives_known
        bags, self._of_area = read_bags(manifest, self.dtype, resident_bytes, *labelling)
        if self._of_area:
            self._say(bags)
        if isinstance(bags.instances, FeatureFiles):
            check_values(bags.instances, self.cache_dir / "checked_features.txt")
        self._source = common_source(manifest.feature_paths, *bags.instance_shape)
        return BagSplits(bags, *choose_parts(bags, manifest.splits, manifest.folds, self.folds))

    @property
    def instance_source(self) -> dict[str, Any]:
        """Kind, type and, where the files know them: encoder, weights, transform, resolution and size of the tiles.

        And the threshold, where it made the instance labels.
        """
        threshold = {"tumour_threshold": self.tumour_threshold} if self._of_area else {}
        return {"kind": "features", "dtype": str(self.dtype).removeprefix("torch."), **self._source, **threshold}

    @rank_zero_only
    def _say(self, bags: Bags) -> None:
        known, positive = int((bags.instance_labels >= 0).sum()), int((bags.instance_labels > 0).sum())
        print(
            f"{len(bags)} bags, {len(bags.instance_labels)} instances; tumour in {positive} of {known} known ones "
            f"(from {self.tumour_threshold:.0%} of their area on)"
        )


def read_bags(
    manifest: Manifest,
    dtype: torch.dtype,
    resident_bytes: float,
    tumour_threshold: float = TUMOUR_THRESHOLD,
    negatives_known: bool = True,
) -> tuple[Bags, bool]:
    """The bags of a manifest, and whether instance labels follow from tumour areas by the threshold.

    Features up to `resident_bytes` are read into one tensor.

    Raises:
        UserError: a file that `FeatureFile` refuses, features of unequal width, or instance labels that contradict the
            classes or, with `negatives_known`, the label of their bag.
    """
    sizes, coords, instance_labels, width, of_area = [], [], [], None, False
    paths = manifest.feature_paths
    progress = tqdm(paths, desc="feature files", unit="bag", disable=None, leave=False)
    for path, label in zip(progress, manifest.labels.tolist(), strict=True):
        file = FeatureFile(path)
        width = width or file.width
        if file.width != width:
            raise UserError(f"{path} has {file.width} features per instance, {paths[0]} has {width}: use one encoder")
        sizes.append(file.num_instances)
        coords.append(file.coords())
        known = file.instance_labels(tumour_threshold)
        if negatives_known and label == 0:
            known = with_negatives(known, path)
        instance_labels.append(known)
        _refuse_contradictions(path, instance_labels[-1], label, manifest.class_names, negatives_known)
        of_area = of_area or file.tumour_fraction() is not None
    files = FeatureFiles(paths, torch.tensor(sizes), width or 0, dtype)
    bags = Bags(
        instances=files.read() if files.nbytes <= resident_bytes else files,
        sizes=torch.tensor(sizes),
        labels=manifest.labels,
        bag_ids=manifest.slide_ids,
        instance_labels=torch.cat(instance_labels),
        coords=_together(coords),
        case_ids=manifest.case_ids,
        class_names=manifest.class_names,
    )
    return bags, of_area


def _refuse_contradictions(
    path: Path, instance_labels: Tensor, label: int, class_names: Sequence[str], negatives_known: bool
) -> None:
    """UserError for instance labels (N,) outside the classes, or positive ones in a bag of the negative class."""
    largest = int(instance_labels.max())
    if largest >= len(class_names):
        raise UserError(f"{path}: instance label {largest} is outside the {len(class_names)} classes")
    if negatives_known and label == 0 and largest > 0:
        count = int((instance_labels > 0).sum())
        raise UserError(
            f"{path}: {count} positive instance labels in a bag labelled {class_names[0]!r}: correct one of them, or "
            "set data.negatives_known=false where the first class does not mean that there is nothing"
        )


def with_negatives(instance_labels: Tensor, path: Path) -> Tensor:
    """The labels (N,) of the instances of a bag of the first class: 0 where nobody knows them and the file says so.

    It says so by `negatives_known`, and the rule is that of `data.tiles.slides`: where nobody drew anything, tiles of a
    slide without tumour are negative.
    """
    unknown = path.suffix.lower() in (".h5", ".hdf5") and bool((instance_labels == -1).all())
    return torch.zeros_like(instance_labels) if unknown and carries_negatives(path) else instance_labels


def carries_negatives(path: Path) -> bool:
    """Whether a feature file was extracted with `negatives_known`."""
    return read_attributes(path).get("negatives_known") is True


def _together(coords: list[Tensor | None]) -> Tensor | None:
    present = [positions for positions in coords if positions is not None]
    if len(present) == len(coords):
        return torch.cat(present)
    if present:
        warnings.warn(
            f"{len(coords) - len(present)} of {len(coords)} feature files have no coords: all left out", stacklevel=2
        )
    return None
