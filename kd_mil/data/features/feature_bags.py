"""FeatureBags: slides whose instances were encoded before, listed in a manifest."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from kd_mil.core.checks import share
from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits, narrowed
from kd_mil.data.classes import Classes
from kd_mil.data.datamodules import BagDataModule, Loading, Pooling, Unit
from kd_mil.data.features.files.facts import FileFacts
from kd_mil.data.features.files.feature_file import TUMOUR_THRESHOLD
from kd_mil.data.features.files.file_set import FeatureFiles
from kd_mil.data.features.files.index import FeatureIndex
from kd_mil.data.features.files.provenance import common_source, warn_of_old_stores
from kd_mil.data.features.loading import LoadedFiles, load_files
from kd_mil.data.features.manifest import Manifest, read_manifest
from kd_mil.data.features.remote import RemoteFiles
from kd_mil.data.split_columns import Folds, choose_parts
from kd_mil.data.split_table import bag_content, split_table
from kd_mil.slides.label_columns import LabelColumns
from kd_mil.slides.slide_content import equal_ones, warn_of_twins

DTYPES = {"float16": torch.float16, "float32": torch.float32}


class FeatureBags(BagDataModule):
    """Bags of feature vectors (N, D), one file per slide; formats and keys are listed in docs/formats.md.

    Sets up to `loading.resident_gib` are read at once; larger ones stay in their files. New files are read through
    once, before the first training on them, and what was found is kept beside the manifest (`features.index`).

    Args:
        manifest: CSV `slide_id,label,feature_path` and, where wanted, `case_id`, `split`, `fold`, `mpp`; or a
            folder of features of `kd_mil.extract`, CLAM, TRIDENT, STAMP or torchmil; or DSMIL's CSV.
        labels: CSV `slide_id,label` and, where wanted, `case_id`, `split`, `fold`, for a folder.
        label_column: column of the labels where it is not `label`.
        clini: STAMP's clinical table, beside its slide table in `labels`.
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
        cache_dir: copies of what is named by a URL (`features.remote`), and the index of files where the folder of the
            manifest cannot be written.
        split_file: CSV `bag_id,split` that replaces the split.
        seed: of folds, validation part and visiting order.
        bag_by, report_by, case_pooling: as in `SplitDataModule`.

    Raises:
        UserError: a threshold outside (0, 1].
    """

    def __init__(
        self,
        manifest: str | None,
        loading: Loading,
        labels: str | None = None,
        label_column: str | None = None,
        clini: str | None = None,
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
        bag_by: Unit = "slide",
        report_by: Unit = "slide",
        case_pooling: Pooling = "max",
    ) -> None:
        super().__init__(loading, split_file, seed)
        self.bag_by, self.report_by, self.case_pooling = bag_by, report_by, case_pooling
        self.manifest, self.root, self.classes, self.labels = manifest, root, classes, labels
        self.columns = LabelColumns(label_column, clini, fold)
        self.folds = Folds(fold, num_folds, val_fraction, seed)
        share("data.tumour_threshold", tumour_threshold, zero=False)
        self.tumour_threshold, self.negatives_known = tumour_threshold, negatives_known
        self.dtype, self.cache_dir = DTYPES[dtype], Path(cache_dir)

    def load(self) -> BagSplits:
        """Check the manifest, open every file, and read the features where they fit in memory."""
        if self.manifest is None:
            raise UserError("data.manifest is not set: give a CSV with columns slide_id,label,feature_path")
        manifest = read_manifest(self.manifest, self.classes, self.root, self.labels, self.columns, self.cache_dir)
        self.split_file = RemoteFiles(self.cache_dir / "remote").here(self.split_file)
        paths, self._index = manifest.feature_paths, FeatureIndex(manifest.folder, self.cache_dir)
        with self._index:
            loaded = load_files(paths, manifest.mpps, self._index, self.dtype, self.loading.host_bytes)
        contents = [facts.digest for facts in loaded.facts]
        warn_of_twins(manifest.slide_ids, paths, contents, self.manifest)
        self.twins = equal_ones(contents) + equal_ones([facts.slide for facts in loaded.facts])
        warn_of_old_stores([facts.untold for facts in loaded.facts])
        bags = read_bags(manifest, loaded, self.tumour_threshold, self.negatives_known)
        self._of_area = any(facts.of_area for facts in loaded.facts)
        if self._of_area:
            self._say(bags)
        self._source = common_source(paths, [facts.source for facts in loaded.facts])
        if self.split_file is not None:  # it says all
            return BagSplits(bags, torch.arange(len(bags)), torch.empty(0).long(), torch.empty(0).long())
        folds = replace(self.folds, fold=None) if manifest.is_of_fold else self.folds
        return BagSplits(bags, *choose_parts(bags, manifest.splits, manifest.folds, folds))

    def split_rows(self) -> list[dict[str, str]]:
        """As in `BagDataModule`; of bags that stay in files, the hash of their content is taken from the index."""
        rows = split_table(self.splits, self._content)
        self._index.save()
        return rows

    def _content(self, bags: Bags, bag: int) -> str:
        files = bags.instances
        if not isinstance(files, FeatureFiles) or files.facts is None:
            return bag_content(bags, bag)
        path, facts = files.paths[bag], files.facts[bag]
        negative = self.negatives_known and int(bags.labels[bag]) == 0
        settings = f"{files.dtype} {self.tumour_threshold if facts.of_area else ''} {negative}"
        if settings not in facts.contents:
            facts.contents[settings] = bag_content(bags, bag)
            self._index.remember_content(path, settings, facts.contents[settings])
        return facts.contents[settings]

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


def read_bags(manifest: Manifest, loaded: LoadedFiles, tumour_threshold: float, negatives_known: bool) -> Bags:
    """The bags of a manifest; instance labels follow from tumour areas by the threshold, where files hold areas.

    Raises:
        UserError: instance labels that contradict the classes or, with `negatives_known`, the label of their bag.
    """
    instance_labels = []
    for path, facts, label in zip(manifest.feature_paths, loaded.facts, manifest.labels.tolist(), strict=True):
        known = facts.instance_labels(tumour_threshold)
        if negatives_known and label == 0:
            known = with_negatives(known, facts)
        if facts.marks is not None:
            _refuse_contradictions(path, known, label, manifest.class_names, negatives_known)
        instance_labels.append(narrowed(known, (torch.int16,)))
    return Bags(
        instances=loaded.instances,
        sizes=torch.tensor([facts.num_instances for facts in loaded.facts]),
        labels=manifest.labels,
        bag_ids=manifest.slide_ids,
        instance_labels=torch.cat(instance_labels),
        coords=loaded.coords,
        case_ids=manifest.case_ids,
        class_names=manifest.class_names,
    )


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


def with_negatives(instance_labels: Tensor, facts: FileFacts) -> Tensor:
    """The labels (N,) of the instances of a bag of the first class: 0 where nobody knows them and the file says so.

    It says so by `negatives_known`, and the rule is that of `data.tiles.slides`: where nobody drew anything, tiles of a
    slide without tumour are negative.
    """
    unknown = bool((instance_labels == -1).all())
    return torch.zeros_like(instance_labels) if unknown and facts.negatives_known else instance_labels
