"""Extraction of slides into the feature store: resumable, and shared by several processes."""

import sys
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from kd_mil.core.atomic import remove_unfinished
from kd_mil.core.checks import above, one_of, whole
from kd_mil.core.errors import UserError, one_line
from kd_mil.slides.extraction.claims import Claims
from kd_mil.slides.extraction.earlier import given_mpp
from kd_mil.slides.extraction.encoding import Encoding
from kd_mil.slides.extraction.finished import Finished
from kd_mil.slides.extraction.outcome import Encoder, Outcome, made_by
from kd_mil.slides.extraction.pictures import Pictures
from kd_mil.slides.extraction.planning import PlannedSlide, plan_slide
from kd_mil.slides.extraction.progress import Progress
from kd_mil.slides.extraction.slide_cache import SlideCache
from kd_mil.slides.extraction.store import OtherSettingsError, UnwritableError, read_slide, write_slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.stain import Macenko

WAIT_SECONDS = 0.5
IN_OTHER_HANDS = "another process has it in hand: wait=true waits for it"


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
        wait: for slides that other processes have in hand, to take them over should these fail; else they are left.
        hung_minutes: without progress, after which other processes may take this one's slides.
        pictures: draws what was tiled; None draws nothing.
        stain: normalises tiles before they are encoded; None leaves them as they are.
        cache: copies slides before they are read; None reads them where they are.

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
        wait: bool = False,
        hung_minutes: float = 30.0,
        pictures: Pictures | None = None,
        stain: Macenko | None = None,
        cache: SlideCache | None = None,
    ) -> None:
        whole("batch_size", batch_size, 1)
        whole("num_workers", num_workers, 0)
        one_of("on_error", on_error, ("skip", "stop"))
        above("hung_minutes", hung_minutes)
        self.entries, self.out, self.cutting, self.encoder = entries, out, cutting, encoder
        self.batch_size, self.num_workers, self.on_error = batch_size, num_workers, on_error
        self.wait, self.hung_minutes, self.pictures, self.stain = wait, hung_minutes, pictures, stain
        self.cache = cache
        self.finished = Finished(out, cutting, made_by(encoder, stain) | {"negatives_known": negatives_known})
        self.outcomes: dict[str, Outcome] = {}
        """By slide, of those that this process looked at."""
        self._stop: UserError | None = None

    def run(self) -> list[Outcome]:
        """Do what is not done yet; one outcome for each entry, in their order.

        Raises:
            UserError: files made with other settings, a slide that cannot be done with `on_error=stop`, or a folder
                that cannot be written.
        """
        claims = Claims(self.out / ".claims", patience=60 * self.hung_minutes)
        with claims as self._claims, Progress(len(self.entries)) as self._progress:
            remaining = [entry for entry in self.entries if self._stop is None and not self._is_done(entry)]
            while remaining and self._stop is None:
                if not self._work_on(remaining):  # other processes have the rest in hand
                    if not self.wait:
                        break
                    time.sleep(WAIT_SECONDS)
                remaining = [entry for entry in remaining if entry.slide_id not in self.outcomes]
        if self._stop is not None:
            raise self._stop
        if self.finished.untraceable:
            warnings.warn(
                f"{self.finished.untraceable} files in {self.out} were made by an earlier version and do not say from "
                "which slide: only its size in pixels and its resolution were compared",
                stacklevel=2,
            )
        return self.result()

    def result(self) -> list[Outcome]:
        """One outcome for each entry, in their order, as it is now."""
        return [
            self.outcomes.get(entry.slide_id)
            or Outcome(entry, "pending", self.finished.path(entry), message=IN_OTHER_HANDS)
            for entry in self.entries
        ]

    def _is_done(self, entry: SlideEntry) -> bool:
        """Whether nothing is left to do: the slide is finished, or its file is another slide's."""
        try:
            outcome = self.finished.known(entry) or self.finished.by_file(entry)
        except (OtherSettingsError, UnwritableError):
            raise
        except Exception as error:  # whatever it is, the other slides are done
            self._fail(entry, one_line(error))
            return True
        if outcome is not None:
            self._finish(outcome)
        return outcome is not None

    def _work_on(self, entries: list[SlideEntry]) -> bool:
        """Do the slides that nobody else has in hand; False where nothing came of any."""
        before = len(self.outcomes)
        ours = self._claimed(entries)
        first = list(islice(ours, 1))
        planned = self._planned(chain(first, ours))
        if first and self.encoder is None:
            for plan in planned:
                self._write(plan, None)
        elif first:
            self._encode(planned)
        return len(self.outcomes) > before

    def _encode(self, planned: Iterable[PlannedSlide]) -> None:
        assert self.encoder is not None
        how = self.cutting.backend, self.batch_size, self.num_workers
        encoding = Encoding(self.encoder, *how, self._progress, self._claims.progressed)
        for plan, result in encoding(planned):
            if isinstance(result, str):
                self._fail(plan.entry, result)
            else:
                self._write(plan, result)

    def _claimed(self, entries: list[SlideEntry]) -> Iterator[SlideEntry]:
        for entry in entries:
            if self._stop is not None:
                return
            if not self._claims.take(entry.slide_id):
                continue
            if self._is_done(entry):  # by another process, since we last looked
                continue
            if not self._has_room(entry):
                return
            if entry.slide_id not in self.outcomes:
                remove_unfinished(self.finished.path(entry))
                self._claims.progressed()
                yield entry

    def _has_room(self, entry: SlideEntry) -> bool:
        """Whether the cache takes a slide of an object store now; if not, those in hand are finished first."""
        try:
            if self.cache is None or self.cache.admits(entry):
                return True
        except UserError as error:
            self._fail(entry, str(error))
            return True
        self._claims.release(entry.slide_id)
        return False

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
        here = entry
        if entry.remote is not None and self.cache is not None:
            here = replace(entry, path=self.cache.fetch(entry), remote=None)
        self.finished.wanted(here)  # as the slide is before it is read
        again = self.finished.holds(here)  # but for its tumour
        stored = read_slide(self.finished.path(entry)) if again else None
        if self.cache is not None and here is entry and not again:
            here = replace(entry, path=self.cache.fetch(entry))
        plan = plan_slide(here, self.cutting, stored, self.pictures, self.stain)
        return plan if here is entry else replace(plan, entry=entry, copy=here.path)

    def _plan_or_failure(self, entry: SlideEntry, plan: Future[PlannedSlide]) -> Iterator[PlannedSlide]:
        try:
            planned = plan.result()
        except Exception as error:  # whatever it is, the other slides are done
            self._fail(entry, one_line(error))
            return
        if self._stop is None:
            yield planned

    def _write(self, plan: PlannedSlide, features: np.ndarray | None) -> None:
        path, entry, tiles = self.finished.path(plan.entry), plan.entry, plan.tiles
        attributes = self.finished.wanted(entry) | {"mpp_source": plan.mpp_source, "stain_matrix": plan.stain_matrix}
        try:
            write_slide(path, tiles, features, plan.tumour_fraction, attributes=attributes)
        except UnwritableError:
            raise
        except UserError as error:
            self._fail(entry, str(error))
            return
        mpp, message = given_mpp(attributes | {"slide_mpp": tiles.slide_mpp}), "; ".join(tiles.remarks)
        share, rejected = tiles.tissue_share, tiles.rejected
        outcome = Outcome(entry, "written", path, len(tiles.coords), mpp, message, rejected, share)
        self.finished.note(outcome)
        self._finish(outcome)

    def _fail(self, entry: SlideEntry, message: str) -> None:
        if self.on_error == "stop":
            self._stop = self._stop or UserError(f"{message} (on_error=skip continues without it)")
        else:
            tqdm.write(f"skipped {entry.slide_id}: {message}", file=sys.stderr)
        outcome = Outcome(entry, "failed", self.finished.path(entry), message=message)
        self.finished.note(outcome)
        self._finish(outcome)

    def _finish(self, outcome: Outcome) -> None:
        self.outcomes[outcome.entry.slide_id] = outcome
        if self.cache is not None:
            self.cache.release(outcome.entry.slide_id)
        self._claims.release(outcome.entry.slide_id)
        self._claims.progressed()
        self._progress.slides.update()
