"""Periodic textures: drawn once, seen by each slide from another offset."""

import numpy as np
from scipy import fft
from scipy.ndimage import fourier_gaussian

TEXTURE_SIZE = 1024
FIBRE_STEPS = 14


class Textures:
    """Periodic textures (1024, 1024) float32 with mean 0 and standard deviation 1."""

    def __init__(self, rng: np.random.Generator, mpp: float) -> None:
        unit = 1 / mpp  # pixels per micrometre
        self.cloud = noise(rng, 40 * unit)
        self.grain = standardised(noise(rng, 0.5 * unit) + 0.7 * noise(rng, 1.5 * unit))
        self.fibre_angle = np.arctan2(noise(rng, 45 * unit), noise(rng, 45 * unit)) / 2
        streaks = noise(rng, 0.5 * unit) + 1.5 * noise(rng, 1.5 * unit)
        self.fibre = smeared_along(self.fibre_angle, streaks, step=max(1.0, unit))


def noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Smooth periodic noise; `sigma` in pixels."""
    spectrum = fft.rfft2(rng.standard_normal((TEXTURE_SIZE, TEXTURE_SIZE), dtype=np.float32))
    return standardised(fft.irfft2(fourier_gaussian(spectrum, sigma, n=TEXTURE_SIZE)))


def standardised(texture: np.ndarray) -> np.ndarray:
    """The texture with mean 0 and standard deviation 1, float32."""
    return ((texture - texture.mean()) / texture.std()).astype(np.float32)


def smeared_along(angle: np.ndarray, noise: np.ndarray, step: float) -> np.ndarray:
    """Line integral convolution: smear the noise along a field of directions that have no sign (radians)."""
    indices: np.ndarray = np.indices(noise.shape)
    rows, columns = indices[0], indices[1]
    directions = np.exp(1j * angle).astype(np.complex64)
    total = noise.copy()
    for sign in (1, -1):
        position, heading = (columns + 1j * rows).astype(np.complex64), sign * directions
        for _ in range(FIBRE_STEPS):
            position += step * heading
            y, x = (np.rint(axis).astype(np.int32) % TEXTURE_SIZE for axis in (position.imag, position.real))
            here = y * TEXTURE_SIZE + x
            total += noise.take(here)
            turned = directions.take(here)
            heading = np.where((turned * heading.conj()).real < 0, -turned, turned)
    return standardised(total)


def seen_from(shift: np.ndarray, texture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(len(rows), len(columns)) of the texture as a slide sees it whose corner lies at `shift` (x, y)."""
    return texture.take((rows + shift[1]) % TEXTURE_SIZE, axis=0).take((columns + shift[0]) % TEXTURE_SIZE, axis=1)
