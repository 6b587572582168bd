"""Images reduced in one step, without going over a pyramid."""

from PIL import Image


def downsampled_size(size: tuple[int, int], downsample: float) -> tuple[int, int]:
    """(width, height) after dividing by `downsample`, rounded, at least one pixel."""
    return max(1, round(size[0] / downsample)), max(1, round(size[1] / downsample))


def downsampled(original: Image.Image, downsample: float) -> Image.Image:
    """An RGB image reduced in one Lanczos step (DiPalma et al. 2021, Sec. 4.1); itself where there is nothing to do."""
    if downsample == 1:
        return original
    return original.resize(downsampled_size(original.size, downsample), Image.Resampling.LANCZOS)
