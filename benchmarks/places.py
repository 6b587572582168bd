"""What was slow at one time: work that the present code and an earlier commit's can both do, timed in turn.

`python -m benchmarks.places REPEATS` prints JSON of the `kd_mil` that comes first on the path; `slow_places` runs it.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from benchmarks.feature_store import tiles_of, write_chunked
from benchmarks.machine import timed_in_turn
from benchmarks.parts import part
from benchmarks.plain_formulas import plain_dsmil, plain_mask
from kd_mil.core.atomic import write_figure
from kd_mil.data.datamodules import Loading
from kd_mil.data.features.feature_bags import FeatureBags
from kd_mil.evaluation.metrics import binary_scores
from kd_mil.methods.base.bag_losses import bag_loss
from kd_mil.methods.weno.mining import keep_below_threshold
from kd_mil.models.outputs import critical_logits
from kd_mil.models.segments import segment_softmax
from kd_mil.slides.extraction.store import write_slide
from kd_mil.slides.overlays.geojson import SlideTiles, merged_regions, write_geojson
from kd_mil.slides.overlays.heatmap import comparison_figure

try:
    from kd_mil.callbacks import pictures
except ImportError:
    pictures = None  # type: ignore[assignment]

Work = Callable[[], object]
SECONDS = 60.0
"""No further round of a place starts after this long."""
WIDTH = 1024

SMALL = 200
"""Calls in one sample of small work."""


class Place(NamedTuple):
    """Work, and what to compare it with."""

    work: Work
    references: dict[str, Work]
    times: int = 1
    """Calls in one sample, of which it is the mean."""


def places(folder: Path, quick: bool) -> dict[str, Callable[[], Place]]:
    """All of them by name, each made when it is called; their files go into the folder."""
    large, slides, tiles, scores = (100, 8, 400, 1000) if quick else (10_000, 2000, 100_000, 10**6)
    return {
        "features of a bag on disk, in training": lambda: bag_on_disk(folder / "bags", large),
        "256 instances out of many slides on disk": lambda: instances_on_disk(folder / "slides", slides),
        "AdamW, gated ABMIL": optimiser,
        "softmax of a bag of 100": softmax,
        "hard positive mining, a bag of 100": mining,
        "DSMIL, a bag of 100, forward and backward": dsmil,
        f"GeoJSON of {tiles // 10} scattered tiles": lambda: geojson(folder, tiles // 10),
        f"GeoJSON of {tiles} scattered tiles": lambda: geojson(folder, tiles),
        "map of a slide, as a file and in TensorBoard": lambda: slide_map(folder),
        f"AUROC and AP of {scores} instances": lambda: areas(scores),
    }


def feature_set(folder: Path, slides: int, count: int) -> FeatureBags:
    """Slides of `count` instances in half precision, kept on disk; two thirds of them are for training."""
    rng, rows = np.random.default_rng(0), ["slide_id,label,split,feature_path"]
    for number in range(slides):
        features = rng.normal(size=(count, WIDTH)).astype(np.float16)
        coords = tiles_of(rng.integers(0, 100_000, (count, 2)))
        write_slide(folder / f"s{number}.h5", coords, features, attributes={"kd_mil": json.dumps({"n": number})})
        rows.append(f"s{number},{number // 3 % 2},{('train', 'val', 'test')[number % 3]},s{number}.h5")
    (folder / "manifest.csv").write_text("\n".join(rows))
    data = FeatureBags(str(folder / "manifest.csv"), Loading(resident_gib=0.0), cache_dir=str(folder / "cache"))
    data.setup()
    return data


def bag_on_disk(folder: Path, count: int) -> Place:
    """One batch of training, epoch after epoch, against h5py, and the files that CLAM and TRIDENT write."""
    data = feature_set(folder, 6, count)
    with h5py.File(folder / "s0.h5") as file:
        features, coords = file["features"][:], file["coords"][:]
    torch.save(torch.from_numpy(features).float(), folder / "clam.pt")
    write_chunked(folder / "clam.h5", features.astype(np.float32), coords)
    batches = chain.from_iterable(repeat(data.bag_loader()))
    return Place(
        lambda: next(batches),
        {
            "h5py": lambda: h5py.File(folder / "s0.h5")["features"][:],
            "CLAM's .pt": lambda: torch.load(folder / "clam.pt"),
            "CLAM's row chunks": lambda: h5py.File(folder / "clam.h5")["features"][:],
        },
    )


def instances_on_disk(folder: Path, slides: int) -> Place:
    """One student batch, epoch after epoch, against opening each file and reading a row from it."""
    data = feature_set(folder, slides, 32)
    batches = chain.from_iterable(repeat(data.instance_loader()))
    paths, rng = [folder / f"s{number}.h5" for number in range(0, slides, 3)], np.random.default_rng(0)

    def open_and_read() -> None:
        for slide, row in zip(rng.integers(len(paths), size=256).tolist(), rng.integers(32, size=256), strict=True):
            handle = os.open(paths[slide], os.O_RDONLY)
            os.pread(handle, 2 * WIDTH, 4096 + 2 * WIDTH * int(row))
            os.close(handle)

    return Place(lambda: next(batches), {"open and pread": open_and_read})


def optimiser() -> Place:
    """One update of the default optimiser."""
    weights = list(part("aggregator", "gated_abmil")(in_features=512, num_classes=2).parameters())
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    return Place(part("optimizer", "adamw")(weights).step, {}, SMALL)


def softmax() -> Place:
    """Forward and backward."""
    logits, sizes, values = torch.randn(100, requires_grad=True), torch.tensor([100]), torch.randn(100)
    work = partial(_with_gradient, lambda: segment_softmax(logits, sizes) @ values)
    return Place(work, {"torch.softmax": partial(_with_gradient, lambda: torch.softmax(logits, 0) @ values)}, SMALL)


def _with_gradient(forward: Callable[[], Tensor]) -> None:
    forward().backward()


def mining() -> Place:
    """The mask of a positive bag."""
    probs, sizes, labels = torch.rand(100), torch.tensor([100]), torch.tensor([1])
    work = lambda: keep_below_threshold(probs, sizes, labels, 0.5)  # noqa: E731
    return Place(work, {"mask": lambda: plain_mask(probs, 0.5)}, SMALL)


def dsmil() -> Place:
    """With the instance stream."""
    model: nn.Module = part("aggregator", "dsmil")(in_features=512, num_classes=2)
    features, sizes, label = torch.randn(100, 512), torch.tensor([100]), torch.tensor([1])

    def work() -> None:
        output = model(features, sizes)
        bag_loss(output.bag_logits, label, critical_logits(output, sizes)).backward()

    return Place(work, {"authors' formula": lambda: plain_dsmil(model, features, label).backward()}, SMALL)


def geojson(folder: Path, count: int) -> Place:
    """Regions of tiles scattered over twice as many places, written; half of them reach the threshold."""
    rng, side = np.random.default_rng(0), int((2 * count) ** 0.5) + 1
    cells = rng.choice(side * side, count, replace=False)
    coords = np.stack([cells % side, cells // side], 1) * 256
    tiles = SlideTiles("slide", "run", coords, 256, {"prob": rng.random(count)})
    return Place(lambda: write_geojson(folder / "tiles.geojson", merged_regions(tiles, "prob", 0.5)), {})


def slide_map(folder: Path) -> Place:
    """Two panels over a thumbnail, as the demo draws them when it ends."""
    trainer: Any = SimpleNamespace(is_global_zero=True, loggers=[TensorBoardLogger(folder)], current_epoch=0)
    thumbnail, coords = np.full((512, 512, 3), 200, np.uint8), np.argwhere(np.ones((16, 16))) * 64
    panels, path = {"teacher": np.linspace(0, 1, 256), "student": np.linspace(1, 0, 256)}, folder / "map.png"

    def work() -> None:
        figure = comparison_figure(thumbnail, None, coords, panels, 64, 2.0, "a slide")
        if pictures is not None:
            pictures.show_figure(figure, trainer, "slide", path)
            return
        write_figure(path, figure)  # as callbacks did before they had one function for it
        trainer.loggers[0].experiment.add_figure("slide", figure, 0)

    return Place(work, {})


def areas(count: int) -> Place:
    """Of random scores, against the sort alone."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(count, generator=generator, dtype=torch.float64)
    labels = (torch.rand(count, generator=generator) < probs).long()
    return Place(lambda: binary_scores(probs, labels), {"one sort": probs.argsort})


def repeated(work: Work, times: int) -> None:
    """Call it so many times."""
    for _ in range(times):
        work()


def main() -> None:
    """Time every place of the command line's kind, its references in turn with it."""
    repeats, quick = int(sys.argv[1]), sys.argv[2] == "quick"
    torch.set_num_threads(int(sys.argv[3]))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in places(Path(folder), quick).items():
            torch.manual_seed(0)
            place = make()
            works = {"work": place.work} | place.references
            samples = timed_in_turn(
                {key: partial(repeated, work, place.times) for key, work in works.items()}, repeats, SECONDS
            )
            found[name] = {
                key: [[value / place.times for value in one] for one in clocks] for key, clocks in samples.items()
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
