"""Features of planned slides: their tiles are read by workers and encoded batch by batch."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.errors import UserError, one_line
from kd_mil.slides.extraction.outcome import Encoder, SlideInProgress
from kd_mil.slides.extraction.planning import PlannedSlide
from kd_mil.slides.extraction.progress import Progress
from kd_mil.slides.extraction.tile_loader import TileBatch, requests_of, tile_loader
from kd_mil.slides.tiles.stain import StainMap

Encoded = tuple[PlannedSlide, np.ndarray | str]
"""A slide with its features (N, D) float16, or with the reason why it has none."""


class Encoding:
    """Encodes slides one after the other, the next ones being read meanwhile.

    Args:
        encoder: turns tiles into features.
        backend: the slide reader.
        batch_size: tiles of a slide encoded together.
        num_workers: processes that read tiles; 0 = this one.
        progress: bars that are told of tiles.
        moved: called whenever there is progress.
    """

    def __init__(
        self,
        encoder: Encoder,
        backend: str,
        batch_size: int,
        num_workers: int,
        progress: Progress,
        moved: Callable[[], None],
    ) -> None:
        self.encoder, self.backend = encoder, backend
        self.batch_size, self.num_workers = batch_size, num_workers
        self._progress, self._moved = progress, moved
        self._in_progress: dict[str, SlideInProgress] = {}
        self._ready: list[Encoded] = []

    def __call__(self, planned: Iterable[PlannedSlide]) -> Iterator[Encoded]:
        """Each slide once its last batch is there; those that need no encoding in between."""
        requests = requests_of(self._begun(planned), self.batch_size, self._in_progress.__contains__)
        pin_memory = self.encoder.device.type == "cuda"
        earlier: tuple[TileBatch, Tensor] | None = None
        for batch in tile_loader(requests, self.backend, self.num_workers, pin_memory):
            self._moved()
            yield from self._taken()
            if batch.slide_id not in self._in_progress:  # it failed meanwhile
                continue
            if batch.error:
                yield self._in_progress.pop(batch.slide_id).plan, batch.error
                continue
            try:
                features = self._encoded(batch.pixels, self._in_progress[batch.slide_id].plan.stain)
            except Exception as error:  # whatever it is, the other slides are done
                yield self._in_progress.pop(batch.slide_id).plan, one_line(error)
                continue
            if earlier is not None:  # collected one batch late, so that a GPU has the next one to work on
                yield from self._collected(*earlier)
            earlier = batch, features
        if earlier is not None:
            yield from self._collected(*earlier)
        yield from self._taken()

    def _encoded(self, pixels: Tensor, stain: StainMap | None) -> Tensor:
        """Features (M, D) float16 of tiles (M, H, W, 3) uint8; UserError where the device has no room for them."""
        try:
            if stain is not None:
                pixels = stain(pixels.to(self.encoder.device, non_blocking=True))
            return self.encoder(pixels).half()
        except torch.OutOfMemoryError as error:
            raise UserError(f"out of memory: lower batch_size={self.batch_size}") from error

    def _begun(self, planned: Iterable[PlannedSlide]) -> Iterator[PlannedSlide]:
        """The slides with features to compute; the others are ready at once."""
        for plan in planned:
            count = len(plan.tiles.coords)
            self._progress.begin(plan.entry.slide_id, count)
            if plan.features is None and count > 0:
                features = np.empty((count, self.encoder.num_features), np.float16)
                self._in_progress[plan.entry.slide_id] = SlideInProgress(plan, features, count)
                yield plan
            else:
                none = np.empty((0, self.encoder.num_features), np.float16)
                self._ready.append((plan, none if plan.features is None else plan.features))
                self._progress.tiles.update(count)

    def _taken(self) -> Iterator[Encoded]:
        while self._ready:
            yield self._ready.pop(0)

    def _collected(self, batch: TileBatch, features: Tensor) -> Iterator[Encoded]:
        work = self._in_progress.get(batch.slide_id)
        if work is None:  # it failed meanwhile
            return
        work.features[batch.first : batch.first + len(features)] = features.cpu().numpy()
        work.missing -= len(features)
        self._progress.tiles.update(len(features))
        if work.missing == 0:
            del self._in_progress[batch.slide_id]
            yield work.plan, work.features
