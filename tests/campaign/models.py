"""Three small trained models for the campaigns."""

from pathlib import Path

import numpy as np
import torch

from tests.campaign import runner
from tests.campaign.inputs.features import WIDTH, hdf5

COMMON = ("trainer=cpu", "trainer.max_epochs=1", "hydra.run.dir=run", "paths.cache_dir=cache")
RUNS = {
    "features": (
        "experiment=mil_max",
        "data=feature_bags",
        "data.manifest=manifest.csv",
        "data.classes=[normal,tumour]",
        "encoder=features",
        "preprocess=features",
    ),
    "tiles": ("experiment=mil_max", "data=synthetic_slides", "data.synthetic.slides=10", "data.synthetic.size=768"),
    "masks": (
        "experiment=cam_baseline",
        "data.image_size=32",
        "data.train_images=24",
        "data.val_images=8",
        "data.test_images=8",
        "segmenter.widths=[4,6,8]",
        "instances_per_step=8",
    ),
}


def train_all(folder: Path) -> dict[str, Path]:
    """A checkpoint of each of `RUNS`, trained where it is not there yet."""
    found = {}
    for name, settings in RUNS.items():
        place = folder / name
        found[name] = place / "run" / "checkpoints" / "best.ckpt"
        if not found[name].is_file():
            place.mkdir(parents=True, exist_ok=True)
            if name == "features":
                write_training_features(place)
            pid = runner.start("run", place, [*settings, *COMMON])
            if runner.wait(pid, 300) != 0:
                raise SystemExit(
                    f"the campaign's own model was not trained:\n{(place / 'log.err').read_text()[-3000:]}"
                )
    return found


def write_training_features(folder: Path) -> None:
    rows = ["slide_id,label,split,feature_path"]
    for number in range(8):
        generator = np.random.default_rng(number)
        features = generator.normal(size=(20, WIDTH)).astype(np.float32) + number % 2
        hdf5(features, None)(folder / f"t{number}.h5")
        label, part = ("normal", "tumour")[number % 2], ("train", "train", "val", "test")[number // 2]
        rows.append(f"t{number},{label},{part},t{number}.h5")
    (folder / "manifest.csv").write_text("\n".join(rows))


def with_other_weights(checkpoint: Path) -> Path:
    """A checkpoint beside it of the same method and run, its weights a little changed."""
    content = torch.load(checkpoint, weights_only=True)
    state = content["state_dict"].items()
    content["state_dict"] = {key: value * 1.0001 if value.is_floating_point() else value for key, value in state}
    path = checkpoint.with_name("again.ckpt")
    torch.save(content, path)
    return path
