"""A cohort larger than memory: both phases of training read from its files, beside bare reads and others' loaders."""

import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from benchmarks.cohort_loaders import Loaded, RunsByH5py, concatenated, load_npy, padded, read_h5, torchmil_loader
from benchmarks.configuration import train
from benchmarks.feature_store import tiles_of
from benchmarks.machine import Clock, cpu_ratio, ratio
from benchmarks.parts import configured
from benchmarks.training_loop import PHASES
from kd_mil.data.batches import BagBatch
from kd_mil.data.features.feature_bags import FeatureBags
from kd_mil.data.features.files.file_set import FeatureFiles
from kd_mil.slides.extraction.store import write_slide

HELD_OUT = 2
"""Slides for validation, and for test."""
COLUMNS = ("unit", "what", "ms", "cpu_ms", "over_h5py", "cpu_over_h5py", "first_ms", "in_an_epoch", "epoch_s")
MOST_OVER = 1.5
"""Largest ratio of our loaders to h5py."""
Row = dict[str, Any]
Rounds = list[list[Clock]]
"""Of each round, what each batch took; the first one of a round plans the order of the epoch, too."""


class Size(NamedTuple):
    """Of a cohort, and how much of an epoch is measured."""

    slides: int
    tiles: int
    width: int
    files: int
    """Different files; the other slides are hard links to them."""
    batches: int
    """Of each loader in a round, and of each phase of training."""
    rounds: int


WHOLE, QUICK = Size(2000, 10_000, 1024, 16, 100, 5), Size(12, 70, 16, 6, 3, 1)


def run(quick: bool) -> Row:
    """Measure the first batches of an epoch; quickly: of a few small slides."""
    size = QUICK if quick else WHOLE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cohort(folder, size)
        config, data = opened(folder, size)
        bags, steps = len(data.splits.train), len(data.instance_loader().sampler)  # type: ignore[arg-type]
        rows = rows_of("bag", rounds_of(bag_loaders(data, folder, size), size), bags)
        rows += rows_of("step", rounds_of(instance_loaders(data, size), size), steps)
        timer = StepClock()
        train(config, data, timer)
        rows += rows_of("bag", {"WENO, gated ABMIL: teacher phase": [timer.laps["teacher"]]}, bags)
        rows += rows_of("step", {"WENO, gated ABMIL: student phase": [timer.laps["student"]]}, steps)
    return {
        "title": f"{size.slides} slides of {size.tiles} x {size.width} half floats in their files",
        "note": f"Mean of {size.batches - 1} bags, or steps of 256 instances, after the first; an epoch is "
        f"extrapolated from them. Slides are hard links to {size.files} files, so all lie in the page cache.",
        "columns": COLUMNS,
        "size": size._asdict(),
        "torchmil": importlib.util.find_spec("torchmil") is not None,
        "rows": rows,
        "goals": [] if quick else [goal(row) for row in rows if row["what"] == "ours"],
    }


def goal(row: Row) -> Row:
    """Our loader against h5py."""
    text = f"a {row['unit']} on disk: <= {MOST_OVER:g}x h5py"
    return {"goal": text, "value": row["over_h5py"], "reached": row["over_h5py"] <= MOST_OVER}


def write_cohort(folder: Path, size: Size) -> None:
    """Files and their links as `sNUMBER.h5`, the first ones also as `.pt` and `.npy`, and `manifest.csv`."""
    rng, rows = np.random.default_rng(0), ["slide_id,label,split,feature_path"]
    for number in range(size.slides):
        path = folder / f"s{number}.h5"
        split = "val" if number < HELD_OUT else "test" if number < 2 * HELD_OUT else "train"
        original = number if number < size.files else trained_file(number, size)
        if original == number:
            features = rng.normal(size=(size.tiles, size.width)).astype(np.float16)
            tiles = tiles_of(rng.integers(0, 100_000, (size.tiles, 2)))
            write_slide(path, tiles, features, attributes={"kd_mil": json.dumps({"n": number})})
            torch.save(torch.from_numpy(features).float(), path.with_suffix(".pt"))
            np.save(path.with_suffix(".npy"), features)
        else:
            os.link(folder / f"s{original}.h5", path)
        rows.append(f"s{number},{number % 2},{split},{path.name}")
    (folder / "manifest.csv").write_text("\n".join(rows))


def trained_file(number: int, size: Size) -> int:
    """One of the files of training slides; copies in several parts of the split would be refused."""
    return 2 * HELD_OUT + number % (size.files - 2 * HELD_OUT)


def opened(folder: Path, size: Size) -> tuple[Any, FeatureBags]:
    """A run on the cohort, and its data, whose index is made."""
    reading = ("loading.resident_gib=0", "loading.instance_order=by_slide", f"loading.limit_batches={size.batches}")
    data = ("data=feature_bags", f"data.manifest={folder}/manifest.csv", f"data.cache_dir={folder}/cache")
    length = ("trainer=cpu", "trainer.max_epochs=1", "++trainer.limit_val_batches=0")
    config = configured("experiment=weno_gated_abmil", "hpm=off", *length, *reading, *data, run_dir=folder / "run")
    module: FeatureBags = instantiate(config.data, _convert_="all")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of copies, and of files without a history
        module.setup()
    return config, module


def bag_loaders(data: FeatureBags, folder: Path, size: Size) -> dict[str, Iterable[Any]]:
    """The same bags in the same order by each; the formats of others lie beside the files, not beside their links."""
    order = [int(bag) for bag in islice(data.bag_loader().sampler, size.batches)]
    assert isinstance(data.bags.instances, FeatureFiles)
    paths = [data.bags.instances.paths[bag] for bag in order]
    names = [f"s{bag if bag < size.files else trained_file(bag, size)}" for bag in order]
    clam = DataLoader(Loaded([folder / f"{name}.pt" for name in names], torch.load), collate_fn=concatenated)
    npy = DataLoader(Loaded([folder / f"{name}.npy" for name in names], load_npy), collate_fn=padded)
    loaders: dict[str, Iterable[Any]] = {"ours": data.bag_loader(), "h5py": Loaded(paths, read_h5)}
    loaders |= {"as CLAM: .pt, single precision": clam, "as torchmil: .npy, padded": npy}
    return loaders | torchmil_loader(folder, names)


def instance_loaders(data: FeatureBags, size: Size) -> dict[str, Iterable[Any]]:
    """The same runs of neighbours in the same order by both."""
    steps = list(islice(data.instance_loader().sampler, size.batches))
    assert isinstance(data.bags.instances, FeatureFiles)
    return {"ours": data.instance_loader(), "h5py": RunsByH5py(data.bags.instances, steps)}


def rounds_of(loaders: dict[str, Iterable[Any]], size: Size) -> dict[str, Rounds]:
    """Laps of the first batches of every loader, which take turns; a first round warms up and does not count."""
    rounds: dict[str, Rounds] = {name: [] for name in loaders}
    for number in range(1 + size.rounds):
        for name, loader in loaders.items():
            laps = list(laps_of(loader, size.batches))
            if number:
                rounds[name].append(laps)
    return rounds


def laps_of(loader: Iterable[Any], count: int) -> Iterator[Clock]:
    """What each of the first batches took."""
    mark = Clock.now()
    for _ in islice(loader, count):
        yield Clock.now().since(mark)
        mark = Clock.now()


def rows_of(unit: str, rounds: dict[str, Rounds], in_an_epoch: int) -> list[Row]:
    """A row for each loader; ratios to h5py are those of the same rounds."""
    means = {name: [mean_of(laps[1:]) for laps in of_loader] for name, of_loader in rounds.items()}
    rows = []
    for name, clocks in means.items():
        wall, first = median(clock.wall for clock in clocks), median(laps[0].wall for laps in rounds[name])
        row: Row = {"unit": unit, "what": name, "ms": round(1000 * wall, 3), "first_ms": round(1000 * first, 3)}
        row |= {"cpu_ms": round(1000 * median(clock.cpu for clock in clocks), 3), "in_an_epoch": in_an_epoch}
        row["epoch_s"] = round(first + wall * (in_an_epoch - 1), 1)
        if "h5py" in means:
            base = means["h5py"]
            row |= {"over_h5py": round(ratio(clocks, base), 2), "cpu_over_h5py": round(cpu_ratio(clocks, base), 2)}
        rows.append(row | {"samples_ms": [round(1000 * clock.wall, 4) for clock in clocks]})
    return rows


def mean_of(laps: Sequence[Clock]) -> Clock:
    """Of some laps."""
    return Clock(*(sum(values) / len(laps) for values in zip(*laps, strict=True)))


class StepClock(Callback):
    """Laps of the steps of each phase, fetching included."""

    def __init__(self) -> None:
        self.laps: dict[str, list[Clock]] = {phase: [] for phase in PHASES}

    def on_train_epoch_start(self, *args: Any) -> None:
        self._mark = Clock.now()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        now = Clock.now()
        self.laps[PHASES[not isinstance(args[1], BagBatch)]].append(now.since(self._mark))
        self._mark = now
