"""Masks of a chain against the tiles that WENO marks: `python experiments/ifkd_from_weno/compare.py CHAIN SLIDES.csv`.

For each positive test slide the Dice of IFKD's mask and of WENO's tiles with the truth, on the pixels of the truth
mask; then the means and the paired difference with an interval over slides. Writes results.json beside it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kd_mil.slides.synthetic.build import TRUTH_DOWNSAMPLE

MARKED_FROM = 0.5
RESAMPLES = 10_000


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two masks (H, W) bool; the truth is not empty."""
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def enlarged(path: Path, pixel: float, shape: tuple[int, int]) -> np.ndarray:
    """A mask of `kd_mil.segment`, whose pixels measure `pixel` of level 0, on the pixels (H, W) of a truth mask."""
    mask = np.asarray(Image.open(path)) > 0
    rows, columns = (((np.arange(side) + 0.5) * TRUTH_DOWNSAMPLE / pixel).astype(int) for side in shape)
    rows, columns = rows.clip(max=mask.shape[0] - 1), columns.clip(max=mask.shape[1] - 1)
    return mask[np.ix_(rows, columns)]


def marked(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The tiles (H, W) whose student's probability is at least `MARKED_FROM`, on the pixels of a truth mask."""
    found = np.zeros(shape, dtype=bool)
    table = pd.read_parquet(path)
    for row in table[table.student_prob >= MARKED_FROM].itertuples():
        left, top, side = (round(value / TRUTH_DOWNSAMPLE) for value in (row.x, row.y, row.tile_size_level0))
        found[top : top + side, left : left + side] = True
    return found


def slide_scores(chain: Path, slides: Path) -> pd.DataFrame:
    """Dice of both, by positive test slide."""
    labels = pd.read_csv(slides).set_index("slide_id").label
    parts = pd.read_csv(chain / "weno" / "splits.csv").set_index("bag_id").split
    pixel = pd.read_csv(chain / "segments" / "segments.csv").set_index("name").pixel
    rows = []
    for name in parts.index[(parts == "test") & (labels[parts.index] == "positive")]:
        truth = np.asarray(Image.open(slides.parent / "truth" / f"{name}.png")) > 0
        mask = enlarged(chain / "segments" / "masks" / f"{name}.png", float(pixel[name]), truth.shape)
        tiles = marked(chain / "tiles" / "instances" / f"{name}.parquet", truth.shape)
        rows.append({"slide": name, "ifkd": dice(mask, truth), "weno": dice(tiles, truth)})
    return pd.DataFrame(rows)


def main(chain: Path, slides: Path) -> None:
    """Print and write the scores."""
    table = slide_scores(chain, slides)
    gains = (table.ifkd - table.weno).to_numpy()
    means = gains[np.random.default_rng(0).integers(0, len(gains), (RESAMPLES, len(gains)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    found = {
        "slides": table.to_dict("records"),
        "mean": {"ifkd": float(table.ifkd.mean()), "weno": float(table.weno.mean())},
        "difference": {"mean": float(gains.mean()), "low": float(low), "high": float(high)},
    }
    Path(__file__).with_name("results.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table.round(3).to_string(index=False))
    print(json.dumps({key: found[key] for key in ("mean", "difference")}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
