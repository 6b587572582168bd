"""Extraction of slides into the feature store: resumable, and shared by several processes."""

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.atomic import remove_unfinished
from kd_mil.core.checks import at_least, one_of
from kd_mil.core.errors import UserError
from kd_mil.slides.extraction.claims import Claims
from kd_mil.slides.extraction.planning import PlannedSlide, plan_slide, slide_attributes
from kd_mil.slides.extraction.progress import Progress
from kd_mil.slides.extraction.store import is_complete, num_tiles, read_attributes, read_slide, slide_file, write_slide
from kd_mil.slides.extraction.tile_loader import TileBatch, requests_of, tile_loader
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.cutting import Cutting

WAIT_SECONDS = 0.5
Status = Literal["written", "kept", "failed"]


class Encoder(Protocol):
    """Turns tiles into features, as `kd_mil.models.encoders.tile_encoder.TileEncoder` does."""

    device: torch.device
    num_features: int
    identity: dict[str, Any]
    transform: dict[str, Any]

    def __call__(self, tiles: Tensor) -> Tensor:
        """Encode tiles (N, H, W, 3) uint8 to (N, D) on the device."""
        ...


@dataclass(frozen=True)
class Outcome:
    """The result for one slide."""

    entry: SlideEntry
    status: Status
    """`kept`: its file existed already, or another process wrote it in the meantime."""
    path: Path
    tiles: int = 0
    message: str = ""
    """Why it failed, or what makes its tiles doubtful."""


@dataclass
class SlideInProgress:
    """A slide whose features are being computed."""

    plan: PlannedSlide
    features: np.ndarray
    """(N, D) float16, filled as they come."""
    missing: int


class Extraction:
    """Writes one file per slide into a folder; `run` does the work.

    A slide in hand is claimed by a file in `out/.claims`, so that several processes may do this at once, on one machine
    or on several; each leaves when all slides are done, and takes over from those that died.

    Args:
        entries: the slides.
        out: the folder; see `store.slide_file`.
        cutting: how slides are cut into tiles.
        encoder: None stores coordinates alone.
        batch_size: tiles encoded together.
        num_workers: processes that read tiles; 0 = this one.
        on_error: `skip` reports a slide that cannot be read and continues with the next; `stop` finishes the slides
            that were begun, and raises.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        entries: list[SlideEntry],
        out: Path,
        cutting: Cutting,
        encoder: Encoder | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        on_error: Literal["skip", "stop"] = "skip",
    ) -> None:
        at_least("batch_size", batch_size, 1)
        at_least("num_workers", num_workers, 0)
        one_of("on_error", on_error, ("skip", "stop"))
        self.entries, self.out, self.cutting, self.encoder = entries, out, cutting, encoder
        self.batch_size, self.num_workers, self.on_error = batch_size, num_workers, on_error
        made_by = {"encoder": encoder and encoder.identity, "transform": encoder and encoder.transform}
        self.attributes = {entry.slide_id: slide_attributes(entry, cutting) | made_by for entry in entries}
        self._outcomes: dict[str, Outcome] = {}
        self._in_progress: dict[str, SlideInProgress] = {}
        self._stop: UserError | None = None

    def run(self) -> list[Outcome]:
        """Do what is not done yet; one outcome for each entry, in their order.

        Raises:
            UserError: files made with other settings, a slide that cannot be read with `on_error=stop`, or a folder
                that cannot be written.
        """
        remaining = [entry for entry in self.entries if not self._is_done(entry)]
        with Claims(self.out / ".claims") as self._claims, Progress(len(self.entries)) as self._progress:
            self._progress.slides.update(len(self._outcomes))
            while remaining and self._stop is None:
                if not self._work_on(remaining):
                    time.sleep(WAIT_SECONDS)  # other processes have the rest in hand
                remaining = [entry for entry in remaining if entry.slide_id not in self._outcomes]
        if self._stop is not None:
            raise self._stop
        return [self._outcomes[entry.slide_id] for entry in self.entries]

    def _path(self, entry: SlideEntry) -> Path:
        return slide_file(self.out, entry.slide_id, with_features=self.encoder is not None)

    def _is_done(self, entry: SlideEntry) -> bool:
        path, wanted = self._path(entry), self.attributes[entry.slide_id]
        if not is_complete(path, wanted) or read_attributes(path)["annotation"] != wanted["annotation"]:
            return False
        self._outcomes[entry.slide_id] = Outcome(entry, "kept", path, num_tiles(path), doubts_in(path))
        return True

    def _work_on(self, entries: list[SlideEntry]) -> bool:
        """Do the slides that nobody else has in hand; False where there is none."""
        ours = self._claimed(entries)
        first = list(islice(ours, 1))
        planned = self._planned(chain(first, ours))
        if first and self.encoder is None:
            for plan in planned:
                self._write(plan, None)
        elif first:
            self._encode(planned)
        return bool(first)

    def _claimed(self, entries: list[SlideEntry]) -> Iterator[SlideEntry]:
        for entry in entries:
            if self._stop is not None:
                return
            if not self._claims.take(entry.slide_id):
                continue
            if self._is_done(entry):  # by another process, since we last looked
                self._claims.release(entry.slide_id)
                self._progress.slides.update()
                continue
            remove_unfinished(self._path(entry))
            yield entry

    def _planned(self, entries: Iterable[SlideEntry]) -> Iterator[PlannedSlide]:
        """Plan slides in threads, ahead of their use: a GPU does not wait for tissue to be found."""
        ahead = 1 if self.encoder is not None else max(1, self.num_workers)
        waiting: deque[tuple[SlideEntry, Future[PlannedSlide]]] = deque()
        with ThreadPoolExecutor(ahead) as threads:
            for entry in entries:
                waiting.append((entry, threads.submit(self._plan, entry)))
                if len(waiting) > ahead:
                    yield from self._plan_or_failure(*waiting.popleft())
            while waiting:
                yield from self._plan_or_failure(*waiting.popleft())

    def _plan(self, entry: SlideEntry) -> PlannedSlide:
        path = self._path(entry)
        again = is_complete(path, self.attributes[entry.slide_id])  # but for its annotation
        return plan_slide(entry, self.cutting, read_slide(path) if again else None)

    def _plan_or_failure(self, entry: SlideEntry, plan: Future[PlannedSlide]) -> Iterator[PlannedSlide]:
        try:
            planned = plan.result()
        except UserError as error:
            self._fail(entry, str(error))
            return
        if self._stop is None:
            yield planned

    def _encode(self, planned: Iterator[PlannedSlide]) -> None:
        assert self.encoder is not None
        requests = requests_of(self._begun(planned), self.cutting, self.batch_size, self._in_progress.__contains__)
        pin_memory = self.encoder.device.type == "cuda"
        earlier: tuple[TileBatch, Tensor] | None = None
        for batch in tile_loader(requests, self.cutting.backend, self.num_workers, pin_memory):
            for slide_id, message in batch.errors.items():
                if slide_id in self._in_progress:
                    self._fail(self._in_progress.pop(slide_id).plan.entry, message)
            if batch.pieces:
                features = self.encoder(batch.pixels).half()
                if earlier is not None:  # collected one batch late, so that a GPU has the next one to work on
                    self._collect(*earlier)
                earlier = batch, features
        if earlier is not None:
            self._collect(*earlier)

    def _begun(self, planned: Iterable[PlannedSlide]) -> Iterator[PlannedSlide]:
        """The slides with features to compute; the others are written at once."""
        assert self.encoder is not None
        for plan in planned:
            count = len(plan.tiles.coords)
            self._progress.begin(plan.entry.slide_id, count)
            if plan.features is None and count > 0:
                features = np.empty((count, self.encoder.num_features), np.float16)
                self._in_progress[plan.entry.slide_id] = SlideInProgress(plan, features, count)
                yield plan
            else:
                none = np.empty((0, self.encoder.num_features), np.float16)
                self._write(plan, none if plan.features is None else plan.features)
                self._progress.tiles.update(count)

    def _collect(self, batch: TileBatch, features: Tensor) -> None:
        parts = features.cpu().split([piece.length for piece in batch.pieces])
        for piece, part in zip(batch.pieces, parts, strict=True):
            work = self._in_progress.get(piece.slide_id)
            if work is None:  # it failed meanwhile
                continue
            work.features[piece.first : piece.first + piece.length] = part.numpy()
            work.missing -= piece.length
            self._progress.tiles.update(piece.length)
            if work.missing == 0:
                del self._in_progress[piece.slide_id]
                self._write(work.plan, work.features)

    def _write(self, plan: PlannedSlide, features: np.ndarray | None) -> None:
        path = self._path(plan.entry)
        attributes = self.attributes[plan.entry.slide_id]
        write_slide(path, plan.tiles, features, plan.tumour_fraction, attributes=attributes)
        self._finish(
            Outcome(
                plan.entry,
                "written",
                path,
                len(plan.tiles.coords),
                "; ".join(plan.tiles.remarks),
            )
        )

    def _fail(self, entry: SlideEntry, message: str) -> None:
        if self.on_error == "stop":
            self._stop = self._stop or UserError(f"{message} (on_error=skip continues without it)")
        else:
            tqdm.write(f"skipped {entry.slide_id}: {message}", file=sys.stderr)
        self._finish(Outcome(entry, "failed", self._path(entry), message=message))

    def _finish(self, outcome: Outcome) -> None:
        self._outcomes[outcome.entry.slide_id] = outcome
        self._claims.release(outcome.entry.slide_id)
        self._progress.slides.update()


def doubts_in(path: Path) -> str:
    """What a stored slide's tiles were doubtful for, as a message; nothing in files of earlier versions."""
    return "; ".join(read_attributes(path).get("doubts", ()))
