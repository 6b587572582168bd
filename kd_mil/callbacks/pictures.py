"""Figures as PNG files and in TensorBoard, laid out and drawn once for both."""

from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from kd_mil.core.atomic import PNG_LEVEL, atomic_path


def show_figure(figure: Figure, trainer: Trainer, tag: str, path: Path | None = None, dpi: float | None = None) -> None:
    """Show a figure in TensorBoard, where the run has it, under a tag at the present epoch, and write it as a PNG.

    Args:
        figure: it is drawn as it is, and cannot be laid out again.
        trainer: of the run; ranks but the first show nothing.
        tag: in TensorBoard.
        path: of the PNG; None for TensorBoard alone.
        dpi: pixels per inch; None as the figure says.
    """
    writer = tensorboard(trainer)
    if path is None and writer is None:
        return
    pixels = drawn(figure, dpi)
    if path is not None:
        with atomic_path(path) as temporary:
            per_inch = (figure.dpi, figure.dpi)
            Image.fromarray(pixels).save(temporary, format="PNG", dpi=per_inch, compress_level=PNG_LEVEL)
    if writer is not None:
        writer.add_image(tag, pixels, trainer.current_epoch, dataformats="HWC")


def drawn(figure: Figure, dpi: float | None = None) -> np.ndarray:
    """Pixels (H, W, 3) uint8 of a figure."""
    canvas = FigureCanvasAgg(figure)
    if dpi is not None:
        figure.set_dpi(dpi)
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        figure.set_layout_engine(None)  # drawing would lay it out once more
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def tensorboard(trainer: Trainer) -> SummaryWriter | None:
    """The TensorBoard writer of rank 0; None elsewhere and without that logger."""
    if not trainer.is_global_zero:
        return None
    return next((logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
