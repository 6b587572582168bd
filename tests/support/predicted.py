"""A folder as `kd_mil.predict` leaves it, of slides drawn here, without a model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kd_mil.core.run_files import write_json
from kd_mil.prediction.panels import Layer, Panel, TilePicture, panel_path, write_panel
from kd_mil.slides.overlays.score_grid import cell_step, score_grid

TILE = 256
MPP = 0.5
ROLES = ("teacher", "student")
Scored = Callable[[int, int], dict[str, np.ndarray]]


def picture_of_tissue(columns: int, rows: int, side: int = 8) -> np.ndarray:
    """A pink field (rows * side, columns * side, 3) with darker stripes, so that a shift shows."""
    y, x = np.mgrid[: rows * side, : columns * side]
    wave = 20 * np.sin(x / 9) + 20 * np.cos(y / 7)
    return np.stack([215 + wave / 2, 150 + wave, 195 + wave / 2], -1).clip(0, 255).astype(np.uint8)


def scores_of(columns: int, rows: int) -> dict[str, np.ndarray]:
    """Scores (rows * columns,) of a round finding at a quarter of the slide; the student is surer."""
    y, x = np.mgrid[:rows, :columns]
    peak = np.exp(-(((x - columns / 4) / (columns / 8)) ** 2 + ((y - rows / 4) / (rows / 8)) ** 2)).ravel()
    return {"teacher": (0.1 + 0.5 * peak).astype(np.float32), "student": (0.02 + 0.96 * peak).astype(np.float32)}


def noise(columns: int, rows: int) -> dict[str, np.ndarray]:
    """Scores (rows * columns,) of which each says what it likes: half the tiles are findings of their own."""
    rng = np.random.default_rng(0)
    return {role: rng.random(columns * rows).astype(np.float32) for role in ROLES}


def predicted_slide(
    out: Path, name: str, columns: int = 20, rows: int = 16, positive: str = "tumour", scored: Scored = scores_of
) -> dict[str, object]:
    """Write table and panel of one slide; its row of `slides.csv`."""
    y, x = np.mgrid[:rows, :columns]
    coords = np.stack([x.ravel(), y.ravel()], 1) * TILE
    scores = scored(columns, rows)
    table = {"instance_id": np.arange(len(coords)), "x": coords[:, 0], "y": coords[:, 1], "tile_size_level0": TILE}
    for role, values in scores.items():
        table |= {f"{role}_prob": values, f"{role}_score": values}
    (out / "instances").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).to_parquet(out / "instances" / f"{name}.parquet", index=False)
    probs = {role: float(values.max()) for role, values in scores.items()}
    decision = {role: "tumour" if prob >= 0.5 else "normal" for role, prob in probs.items()}
    side = max(1, min(8, 1024 // max(columns, rows)))
    thumbnail = picture_of_tissue(columns, rows, side)
    step = cell_step(coords, TILE)
    layers = []
    for role, values in scores.items():
        order = np.argsort(-values, kind="stable")
        shown = [
            tuple(TilePicture(*map(int, coords[row]), float(values[row]), picture_of_tissue(4, 4)) for row in rows)
            for rows in (order[:8], order[::-1][:8])
        ]
        grid = score_grid(coords, values, TILE, step).astype(np.float32)
        label = f"{role}: tile probability of {positive}"
        layers.append(Layer(role, label, 0.5, grid, values, *shown))
    verdict = f"student: {decision['student']} (tumour {probs['student']:.2f}, threshold 0.50)"
    panel = Panel(name, verdict, thumbnail, TILE / side, (0, 0), MPP, step, (0, 0), TILE, tuple(layers))
    write_panel(panel_path(out, name), panel)
    row: dict[str, object] = {"slide_id": name, "tiles": len(coords)}
    for role in ROLES:
        row |= {f"{role}_prob": probs[role], f"{role}_threshold": 0.5}
    return row | {"student_decision": decision["student"]}


def predicted_folder(
    out: Path, names: list[str], columns: int = 20, rows: int = 16, scored: Scored = scores_of
) -> Path:
    """The folder, with a slide that could not be read beside those of the names."""
    lines = [predicted_slide(out, name, columns, rows, scored=scored) for name in names]
    lines = [line | {"label": "tumour" if number % 2 == 0 else "normal"} for number, line in enumerate(lines)]
    write_json(out / "model.json", {"class_names": ["normal", "tumour"], "decides": "student"})
    lines.append({"slide_id": "damaged", "note": "slide 'damaged.svs' cannot be opened"})
    table = pd.DataFrame(lines)
    table["tiles"] = table["tiles"].astype("Int64")
    table.to_csv(out / "slides.csv", index=False)
    return out


def slide_file(path: Path, columns: int = 20, rows: int = 16) -> Path:
    """A slide (PNG) of the extent of the tiles, small tiles of the same stripes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture_of_tissue(columns, rows, TILE)).save(path, compress_level=1)
    return path
