"""What one slide costs: `python experiments/scaling/measure.py OUT.json`.

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
from hydra.utils import instantiate
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.parts import configured
from kd_mil.data.batches import BagBatch, InstanceBatch
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.file_set import FeatureFiles
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides

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
        "instances_10000_slides": {"mean": float(slides.double().mean()), "largest": int(slides.max())},
        "unit": "processor seconds of one thread, unless the name says otherwise",
        "torch": torch.__version__,
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
