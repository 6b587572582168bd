"""Which slides of an output folder are done: by its ledger where that can tell, else by their files."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_mil.core.errors import UserError
from kd_mil.core.hashing import digest, stamp
from kd_mil.core.ledger import Entry, Ledger
from kd_mil.slides.extraction.earlier import given_mpp, has_same_truth, is_traceable, still_holds
from kd_mil.slides.extraction.outcome import Outcome, Status
from kd_mil.slides.extraction.planning import slide_attributes
from kd_mil.slides.extraction.store import UnwritableError, read_summary, slide_file
from kd_mil.slides.slide_content import slide_stamp
from kd_mil.slides.slide_list import SlideEntry, require_files
from kd_mil.slides.tiles.cutting import Cutting

REFRESH_SECONDS = 10.0
"""What others finished since is seen in their files."""


class Finished:
    """The state of the slides of an output folder, which several processes fill.

    The ledger (`out/.finished`) notes every slide with path, size and time of change of all files that decide it and of
    the one that was written. While these are the same, nothing is opened: a restart costs a few `stat` a slide.

    Args:
        out: the output folder.
        cutting: how slides are cut into tiles.
        attributes: those of all files of this extraction, beside the ones of `planning.slide_attributes`.
    """

    def __init__(self, out: Path, cutting: Cutting, attributes: Mapping[str, Any]) -> None:
        self.out, self.cutting, self.attributes = out, cutting, dict(attributes)
        self.untraceable = 0
        """Files of an earlier version, which do not say from which slide they were made."""
        self._ledger = Ledger(out / ".finished")
        self._refreshed = time.monotonic()
        self._common = digest([cutting.attributes() | self.attributes, cutting.mpp])
        self._of_slides: dict[str, dict[str, Any]] = {}

    def path(self, entry: SlideEntry) -> Path:
        """Where a slide's file is, or will be."""
        return slide_file(self.out, entry.slide_id, with_features=self.attributes["encoder"] is not None)

    def wanted(self, entry: SlideEntry) -> dict[str, Any]:
        """The attributes that its file shall have; the slide is looked into once.

        Raises:
            OSError: the slide or its annotation cannot be read.
        """
        if entry.slide_id not in self._of_slides:
            self._of_slides[entry.slide_id] = slide_attributes(entry, self.cutting) | self.attributes
        return self._of_slides[entry.slide_id]

    def holds(self, entry: SlideEntry) -> bool:
        """Whether its file holds its tiles and features, be it with another tumour; errors as in `still_holds`."""
        return self.path(entry).is_file() and still_holds(self.path(entry), entry, self.wanted(entry), self.cutting)

    def known(self, entry: SlideEntry) -> Outcome | None:
        """The outcome of a slide by the ledger alone; None where it is not done, or only its file can tell."""
        if time.monotonic() - self._refreshed > REFRESH_SECONDS:
            self.refresh()
        found = self._ledger.get(entry.slide_id)
        if found is None or found.get("status") == "failed" or found.get("key") != self._key(entry):
            return None
        return self._outcome(entry, found, "kept")

    def by_file(self, entry: SlideEntry) -> Outcome | None:
        """The outcome of a slide by its file; None where it is not done. The ledger is told.

        Raises:
            OtherSettingsError: it was made with other settings.
            UserError: it was made from another slide.
        """
        path = self.path(entry)
        if not self.holds(entry):
            return None
        stored = read_summary(path)
        if not has_same_truth(stored.attributes, self.wanted(entry)):
            return None
        outcome = Outcome(
            entry,
            "kept",
            path,
            tiles=stored.tiles,
            mpp=given_mpp(stored.attributes),
            message="; ".join(stored.attributes.get("doubts", ())),
            rejected=stored.attributes.get("rejected"),
            tissue=stored.attributes.get("tissue_share"),
        )
        if is_traceable(stored.attributes):
            self.note(outcome)
        else:
            self.untraceable += 1
        return outcome

    def note(self, outcome: Outcome) -> None:
        """Tell the ledger what became of a slide; what failed is tried again, and stands in the tables until then.

        Raises:
            UnwritableError: the folder cannot be written.
        """
        facts = {name: getattr(outcome, name) for name in ("status", "tiles", "mpp", "message", "rejected", "tissue")}
        key = None if outcome.status == "failed" else self._key(outcome.entry)
        try:
            self._ledger.add(outcome.entry.slide_id, facts | {"key": key})
        except OSError as error:
            raise UnwritableError(f"{self._ledger.folder} cannot be written ({error})") from error

    def refresh(self) -> bool:
        """Read what other processes noted; whether there was anything."""
        self._refreshed = time.monotonic()
        return self._ledger.refresh()

    def last(self, entry: SlideEntry) -> Outcome:
        """What the ledger says became of a slide that this process did not look at; `pending` where nothing."""
        found = self._ledger.get(entry.slide_id)
        if found is None:
            return Outcome(entry, "pending", self.path(entry))
        return self._outcome(entry, found, "failed" if found.get("status") == "failed" else "kept")

    def _outcome(self, entry: SlideEntry, found: Entry, status: Status) -> Outcome:
        facts = {name: found.get(name) for name in ("mpp", "rejected", "tissue")}
        tiles, message = found.get("tiles") or 0, found.get("message") or ""
        return Outcome(entry, status, self.path(entry), tiles, message=message, **facts)

    def _key(self, entry: SlideEntry) -> str | None:
        """What stands for all that decides a slide's file, and for the file itself; None where one is not there."""
        try:
            drawn = (entry.annotation_path, self.cutting.outlines_of(entry))
            require_files(entry)
            remote = entry.remote
            slide = slide_stamp(entry.path) if remote is None else [remote.url, remote.size, remote.version]
            files = [slide, stamp(self.path(entry)), *(path and stamp(path) for path in drawn)]
        except (OSError, UserError):
            return None
        return digest([self._common, self.cutting.override_of(entry), files])
