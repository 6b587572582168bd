"""What the viewer may show: the slides of given folders, by number, and nothing else."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import shapely
from PIL import Image

from kd_mil.core.checks import check_id
from kd_mil.core.errors import UserError
from kd_mil.core.tables import read_results
from kd_mil.prediction.folder import Predictions
from kd_mil.prediction.panels import Panel, panel_path, read_panel
from kd_mil.slides.annotations.annotations import read_annotation
from kd_mil.slides.formats.deep_zoom import DeepZoom
from kd_mil.slides.formats.reader import Slide, open_slide
from kd_mil.slides.overlays.slide_picture import tumour_area
from kd_mil.slides.slide_list import SlideEntry, list_slides

MOST_OPEN = 32
"""Slides kept open, and panels kept in memory."""


class Run:
    """A folder of `kd_mil.predict` or of `kd_mil.segment`: names, and the panel of each.

    Raises:
        UserError: neither, or no slide has a panel.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        table = self.folder / "segments.csv"
        if not (self.folder / "slides.csv").is_file() and table.is_file():
            listed = read_results(table, "name")["name"].tolist()
        else:
            listed = Predictions(self.folder).slides.index.tolist()
        for name in listed:
            check_id(name, str(self.folder))
        self.names = [name for name in listed if panel_path(self.folder, name).is_file()]
        if not self.names:
            raise UserError(f"{self.folder}: no slide has a panel to show: run kd_mil.predict into the folder again")
        self._panels = Kept(lambda name: read_panel(panel_path(self.folder, name)))

    def panel(self, name: str) -> Panel | None:
        """What is shown of a slide; None where the folder does not have it."""
        return self._panels(name) if name in self.names else None


class Background(NamedTuple):
    """What lies below the layers."""

    zoom: DeepZoom
    pixel: float
    """Side of its finest pixels in level-0 pixels."""
    origin: tuple[float, float]
    """(x, y) of its corner in level-0 pixels."""
    slide: Slide | None
    """None where the thumbnail of the panel is all there is."""
    fault: str = ""
    """Why, where the slide is at hand and cannot be read."""


class Slides:
    """The slides behind the panels, opened when they are looked at; without `source` there are none.

    Raises:
        UserError: as `list_slides`.
    """

    def __init__(self, source: str | None) -> None:
        self.entries: dict[str, SlideEntry] = {}
        if source is not None:
            self.entries = {entry.slide_id: entry for entry in list_slides(source)}
        self._open = Kept(self._background)

    def background(self, panel: Panel) -> Background:
        """The slide of a panel, or its thumbnail where the slide is not there or cannot be read."""
        return self._open(panel.name, panel)

    def _background(self, name: str, panel: Panel) -> Background:
        entry = self.entries.get(name)
        fault = ""
        if entry is not None:
            try:
                slide = open_slide(entry.path, entry.mpp, mpp_setting=None, default_mpp=panel.mpp or 1.0)
                return Background(DeepZoom(slide), 1.0, (0, 0), slide)  # type: ignore[arg-type]
            except UserError as error:
                fault = str(error)
        return Background(DeepZoom(Image.fromarray(panel.thumbnail)), panel.downsample, panel.origin, None, fault)

    def annotation(self, name: str) -> shapely.Geometry | None:
        """The tumour that the list of slides says was annotated, in level-0 pixels; None where it names no file.

        Raises:
            UserError: the file cannot be read.
        """
        entry = self.entries.get(name)
        if entry is None or entry.annotation_path is None:
            return None
        slide = open_slide(entry.path, entry.mpp, mpp_setting=None, default_mpp=1.0)
        try:
            return tumour_area(read_annotation(entry.annotation_path, slide))
        finally:
            slide.close()


class Kept:
    """The last results of a function by its first argument, for several threads.

    Args:
        make: makes what is not there; no two threads make the same, and who wants another does not wait.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._found: OrderedDict[Hashable, Future] = OrderedDict()

    def __call__(self, key: Hashable, *more: Any) -> Any:
        """The result for a key; what could not be made is tried again."""
        with self._lock:
            mine = key not in self._found
            result = self._found.setdefault(key, Future())
            self._found.move_to_end(key)
            while len(self._found) > MOST_OPEN:
                self._found.popitem(last=False)
        if mine:
            try:
                result.set_result(self._make(key, *more))
            except BaseException as error:
                with self._lock:
                    self._found.pop(key, None)
                result.set_exception(error)
        return result.result()
