"""Figures reach TensorBoard and the disk by one drawing."""

from types import SimpleNamespace

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from kd_mil.callbacks import pictures


def test_one_drawing_serves_both(tmp_path, monkeypatch):
    shown, draws = [], []
    writer = SimpleNamespace(add_image=lambda tag, pixels, step, dataformats: shown.append((tag, pixels, step)))
    monkeypatch.setattr(pictures, "tensorboard", lambda _: writer)
    draw = pictures.FigureCanvasAgg.draw
    monkeypatch.setattr(pictures.FigureCanvasAgg, "draw", lambda canvas: draws.append(1) or draw(canvas))
    figure = Figure(figsize=(2, 1), layout="constrained")
    figure.subplots().plot([0, 1])
    pictures.show_figure(figure, SimpleNamespace(current_epoch=3), "a/b", tmp_path / "a" / "b.png", dpi=50)
    [(tag, pixels, step)] = shown
    assert (tag, step, len(draws)) == ("a/b", 3, 1)
    assert pixels.shape == (50, 100, 3)
    assert pixels.min() < 100
    assert pixels.max() == 255
    with Image.open(tmp_path / "a" / "b.png") as image:
        assert (np.asarray(image) == pixels).all()


def test_nothing_is_drawn_for_nobody(monkeypatch):
    monkeypatch.setattr(pictures, "tensorboard", lambda _: None)
    monkeypatch.setattr(pictures, "drawn", None)
    pictures.show_figure(Figure(), SimpleNamespace(current_epoch=0), "a")
