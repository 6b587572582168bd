"""Extraction of slides into the feature store: resumable, and shared by several processes."""

import sys
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.atomic import remove_unfinished
from kd_mil.core.checks import at_least, one_of
from kd_mil.core.errors import UserError, one_line
from kd_mil.slides.extraction.claims import Claims
from kd_mil.slides.extraction.earlier import given_mpp, has_same_truth, is_traceable, still_holds
from kd_mil.slides.extraction.outcome import Encoder, Outcome, SlideInProgress
from kd_mil.slides.extraction.planning import PlannedSlide, plan_slide, slide_attributes
from kd_mil.slides.extraction.progress import Progress
from kd_mil.slides.extraction.store import (
    OtherSettingsError,
    UnwritableError,
    num_tiles,
    read_attributes,
    read_slide,
    slide_file,
    write_slide,
)
from kd_mil.slides.extraction.tile_loader import TileBatch, requests_of, tile_loader
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.cutting import Cutting

WAIT_SECONDS = 0.5


class Extraction:
    """Writes one file per slide into a folder; `run` does the work, which several processes may share by claims.

    Args:
        entries: the slides.
        out: the folder; see `store.slide_file`.
        cutting: how slides are cut into tiles.
        encoder: None stores coordinates alone.
        batch_size: tiles of a slide encoded together.
        num_workers: processes that read tiles; 0 = this one.
        on_error: `skip` reports a slide that cannot be done and continues; `stop` finishes those begun, and raises.
        negatives_known: kept in the files: tiles of slides of the first class are negative.

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
        negatives_known: bool = True,
    ) -> None:
        at_least("batch_size", batch_size, 1)
        at_least("num_workers", num_workers, 0)
        one_of("on_error", on_error, ("skip", "stop"))
        self.entries, self.out, self.cutting, self.encoder = entries, out, cutting, encoder
        self.batch_size, self.num_workers, self.on_error = batch_size, num_workers, on_error
        made_by = {"encoder": encoder and encoder.identity, "transform": encoder and encoder.transform}
        self.attributes = made_by | {"negatives_known": negatives_known}
        self._of_slides: dict[str, dict[str, Any]] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._in_progress: dict[str, SlideInProgress] = {}
        self._untraceable = 0
        self._stop: UserError | None = None

    def run(self) -> list[Outcome]:
        """Do what is not done yet; one outcome for each entry, in their order.

        Raises:
            UserError: files made with other settings, a slide that cannot be done with `on_error=stop`, or a folder
                that cannot be written.
        """
        with Claims(self.out / ".claims") as self._claims, Progress(len(self.entries)) as self._progress:
            remaining = [entry for entry in self.entries if self._stop is None and not self._is_done(entry)]
            while remaining and self._stop is None:
                if not self._work_on(remaining):
                    time.sleep(WAIT_SECONDS)  # other processes have the rest in hand
                remaining = [entry for entry in remaining if entry.slide_id not in self._outcomes]
        if self._stop is not None:
            raise self._stop
        if self._untraceable:
            warnings.warn(
                f"{self._untraceable} files in {self.out} were made by an earlier version and do not say from which "
                "slide: only its size in pixels and its resolution were compared",
                stacklevel=2,
            )
        return [self._outcomes[entry.slide_id] for entry in self.entries]

    def _wanted(self, entry: SlideEntry) -> dict[str, Any]:
        if entry.slide_id not in self._of_slides:
            self._of_slides[entry.slide_id] = slide_attributes(entry, self.cutting) | self.attributes
        return self._of_slides[entry.slide_id]

    def _path(self, entry: SlideEntry) -> Path:
        return slide_file(self.out, entry.slide_id, with_features=self.encoder is not None)

    def _is_done(self, entry: SlideEntry) -> bool:
        """Whether nothing is left to do: the slide's file holds, or it is another slide's."""
        path = self._path(entry)
        try:
            wanted = self._wanted(entry)
            if not still_holds(path, entry, wanted, self.cutting):
                return False
            stored = read_attributes(path)
        except OtherSettingsError:
            raise
        except Exception as error:  # whatever it is, the other slides are done
            self._fail(entry, one_line(error))
            return True
        if not has_same_truth(stored, wanted):
            return False
        self._untraceable += not is_traceable(stored)
        doubts = "; ".join(stored.get("doubts", ()))
        self._finish(Outcome(entry, "kept", path, num_tiles(path), given_mpp(stored), doubts))
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
        again = still_holds(path, entry, self._wanted(entry), self.cutting)  # but for its tumour
        return plan_slide(entry, self.cutting, read_slide(path) if again else None)

    def _plan_or_failure(self, entry: SlideEntry, plan: Future[PlannedSlide]) -> Iterator[PlannedSlide]:
        try:
            planned = plan.result()
        except Exception as error:  # whatever it is, the other slides are done
            self._fail(entry, one_line(error))
            return
        if self._stop is None:
            yield planned

    def _encode(self, planned: Iterator[PlannedSlide]) -> None:
        assert self.encoder is not None
        requests = requests_of(self._begun(planned), self.batch_size, self._in_progress.__contains__)
        pin_memory = self.encoder.device.type == "cuda"
        earlier: tuple[TileBatch, Tensor] | None = None
        for batch in tile_loader(requests, self.cutting.backend, self.num_workers, pin_memory):
            if batch.slide_id not in self._in_progress:  # it failed meanwhile
                continue
            if batch.error:
                self._fail(self._in_progress.pop(batch.slide_id).plan.entry, batch.error)
            else:
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
        work = self._in_progress.get(batch.slide_id)
        if work is None:  # it failed meanwhile
            return
        work.features[batch.first : batch.first + len(features)] = features.cpu().numpy()
        work.missing -= len(features)
        self._progress.tiles.update(len(features))
        if work.missing == 0:
            del self._in_progress[batch.slide_id]
            self._write(work.plan, work.features)

    def _write(self, plan: PlannedSlide, features: np.ndarray | None) -> None:
        path, entry = self._path(plan.entry), plan.entry
        attributes = self._wanted(entry) | {"mpp_source": plan.mpp_source}
        try:
            write_slide(path, plan.tiles, features, plan.tumour_fraction, attributes=attributes)
        except UnwritableError:
            raise
        except UserError as error:
            self._fail(entry, str(error))
            return
        mpp = given_mpp(attributes | {"slide_mpp": plan.tiles.slide_mpp})
        self._finish(Outcome(entry, "written", path, len(plan.tiles.coords), mpp, "; ".join(plan.tiles.remarks)))

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
