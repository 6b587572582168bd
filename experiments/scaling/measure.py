"""What one slide costs, and what ranks cost each other: `python experiments/scaling/measure.py OUT.json`.

Processor seconds of one thread, not seconds on the clock, so that other work on the machine matters little. Numbers of
operations and of instances are exact. `docs/scaling.md` is computed from the record.
"""

import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
import timm
import torch
import torch.multiprocessing as mp
from hydra.utils import instantiate
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.configuration import configured
from kd_mil.data.batches import BagBatch, InstanceBatch
from kd_mil.data.features.files import FeatureFile, FeatureFiles
from kd_mil.data.samplers import BagSampler
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides
from tests.support.tiny import TinyData, fit, tiny_splits

TILES, WIDTH = 10_000, 1024
"""A typical resection slide at 20x and 256 pixels, and a typical foundation model's features."""


def seconds(work, repeat: int = 3) -> float:
    """Processor seconds of one call, the least of a few."""
    took = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return min(took)


def reading_features() -> dict[str, float]:
    """A slide's features from HDF5: our contiguous half precision, and one chunk a row in single precision."""
    values = np.random.default_rng(0).normal(size=(TILES, WIDTH)).astype(np.float32)
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        layouts = {"contiguous_float16": (np.float16, None), "chunk_per_row_float32": (np.float32, (1, WIDTH))}
        for name, (dtype, chunks) in layouts.items():
            path = Path(folder) / f"{name}.h5"
            with h5py.File(path, "w") as file:
                file.create_dataset("features", data=values.astype(dtype), chunks=chunks)
            read = partial(FeatureFile(path).read, torch.arange(TILES), torch.float16)
            costs[name] = seconds(read)
            costs[f"{name}_mib"] = path.stat().st_size / 1024**2
    return costs


def reading_scattered_rows() -> dict[str, float]:
    """256 random instances of 256 slides, as a student step takes them where features stay in files."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.h5" for index in range(256)]
        for path in paths:
            with h5py.File(path, "w") as file:
                file.create_dataset("features", data=np.ones((1000, WIDTH), np.float16))
        files = FeatureFiles(paths, torch.full((256,), 1000), WIDTH, torch.float16)
        scattered = torch.arange(256) * 1000 + torch.randint(0, 1000, (256,))
        return {"seconds_of_256_rows": seconds(lambda: files[scattered])}


def training_a_slide(experiment: str) -> dict[str, float]:
    """One slide through both phases of WENO on features: seconds, operations, and gradient bytes a rank sends."""
    config = configured(f"experiment={experiment}", "encoder=features", "preprocess=features", "hpm=off")
    method = instantiate(config.method, _convert_="all")(instance_shape=[WIDTH], num_classes=2)
    method.memory.allocate(num_bags=1, num_instances=TILES)
    features, labels = torch.randn(TILES, WIDTH), torch.tensor([1])
    ids, unknown = torch.arange(TILES), torch.full((TILES,), -1)
    bag = BagBatch(features, torch.tensor([TILES]), labels, unknown, ids, None, torch.tensor([0]), ["slide"])
    few = ids[:256]
    batch = InstanceBatch(features[few], labels.repeat(256), unknown[few], few, few * 0)

    def teacher() -> None:
        method.teacher_loss(bag).backward()

    def student() -> None:
        method.student_loss(batch).backward()

    teacher()
    method.memory.finalize()
    with FlopCounterMode(display=False) as counted:
        teacher()
    steps = TILES / 256
    return {
        "teacher_seconds": seconds(teacher),
        "student_seconds": seconds(student) * steps,
        "teacher_gflop": counted.get_total_flops() / 1e9,
        "gradient_mib": sum(one.numel() for one in method.parameters()) * 4 / 1024**2,
        "student_steps": steps,
    }


def encoding_a_tile() -> dict[str, Any]:
    """Reading and decoding a tile of a pyramid, ResNet-50 on it, and operations of encoders."""
    costs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        csv = build_synthetic_slides(Path(folder), SyntheticSettings(slides=2), seed=0)
        paths = [path for path in Path(csv).parent.rglob("*.tif*") if "truth" not in path.name]
        slide = open_slide(max(paths, key=lambda path: path.stat().st_size))
        width, height = slide.dimensions
        places = [(x, y) for x in range(0, width - 256, 256) for y in range(0, height - 256, 256)][:100]
        whole = seconds(lambda: [slide.read(x, y, (256, 256), slide.mpp) for x, y in places])
        costs["read_seconds"] = whole / len(places)
    network = timm.create_model("resnet50", pretrained=False, num_classes=0).eval()
    tiles = torch.randn(8, 3, 224, 224)
    with torch.inference_mode():
        costs["resnet50_seconds"] = seconds(lambda: network(tiles), repeat=2) / 8
    for name in ("resnet50", "vit_small_patch16_224", "vit_large_patch16_224", "vit_giant_patch14_dinov2"):
        model = timm.create_model(name, pretrained=False, num_classes=0, img_size=224) if "vit" in name else network
        with FlopCounterMode(display=False) as counted, torch.inference_mode():
            model.to("meta")(torch.empty(1, 3, 224, 224, device="meta"))
        costs[f"{name}_gflop"] = counted.get_total_flops() / 1e9
    return costs


def waiting(sizes: torch.Tensor, ranks: int) -> dict[str, float]:
    """Share of an epoch's instance-steps that ranks spend waiting for the largest bag of the step."""
    shares = {}
    for name, balance in (("dealt_in_turn", False), ("balanced", True)):
        held = []
        for rank in range(ranks):
            sampler = BagSampler(
                sizes, torch.arange(len(sizes)), 1, seed=0, rank=rank, world_size=ranks, balance=balance
            )
            held.append(torch.stack([sizes[batch].sum() for batch in sampler]).double())
        table = torch.stack(held)
        shares[name] = float(1 - table.mean(0).sum() / table.max(0).values.sum())
    return shares


def train_rank(rank: int, port: int, ranks: int, epochs: int, folder: str) -> None:
    """One rank's processor seconds for some epochs of features."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ["WORLD_SIZE"] = str(ranks)
    config = configured("experiment=weno_gated_abmil", "encoder=features", "preprocess=features", "hpm=off")
    splits = tiny_splits(bags=48, largest=400)
    bags = splits.bags
    wide = torch.randn(len(bags.instances), WIDTH, generator=torch.Generator().manual_seed(0))
    object.__setattr__(bags, "instances", wide)
    method = instantiate(config.method, _convert_="all")(instance_shape=[WIDTH], num_classes=2)
    data = TinyData(splits, instances_per_step=256, balance_ranks=True)
    strategy = DDPStrategy(find_unused_parameters=True, process_group_backend="gloo") if ranks > 1 else "auto"
    start = time.process_time()
    fit(method, data, epochs=epochs, devices=ranks, strategy=strategy)
    Path(folder, f"{rank}").write_text(str(time.process_time() - start))


def ranks_seconds(ranks: int, epochs: int) -> list[float]:
    """Processor seconds of each rank."""
    port = 20_000 + os.getpid() % 10_000 + ranks * 10 + epochs
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            mp.get_context("spawn").Process(target=train_rank, args=(rank, port, ranks, epochs, folder))
            for rank in range(ranks)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return [float(Path(folder, f"{rank}").read_text()) for rank in range(ranks)]


def two_ranks() -> dict[str, float]:
    """An epoch by one process and by two: the work a rank has left, and how near to half it is."""
    epoch = {}
    for ranks in (1, 2):
        short, long = (max(ranks_seconds(ranks, epochs)) for epochs in (1, 5))
        epoch[ranks] = (long - short) / 4
    return {"one": epoch[1], "two_largest_rank": epoch[2], "efficiency": epoch[1] / epoch[2] / 2}


def main(out: Path) -> None:
    """Measure everything and write the record."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    slides = torch.from_numpy(np.exp(generator.normal(np.log(8000), 0.7, 10_000)).astype(np.int64))
    record = {
        "features_of_a_slide": reading_features(),
        "scattered_features": reading_scattered_rows(),
        "training": {name: training_a_slide(name) for name in ("weno_gated_abmil", "weno_dsmil", "weno_transmil")},
        "tile": encoding_a_tile(),
        "waiting_10000_slides": {ranks: waiting(slides, ranks) for ranks in (2, 4, 8, 32)},
        "instances_10000_slides": {"mean": float(slides.double().mean()), "largest": int(slides.max())},
        "two_gloo_ranks": two_ranks(),
        "unit": "processor seconds of one thread, unless the name says otherwise",
        "torch": torch.__version__,
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
