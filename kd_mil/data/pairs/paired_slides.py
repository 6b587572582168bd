"""PairedSlides: tissue sections cut whole from slides, at the teacher's and the student's resolution."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from kd_mil.core.checks import above
from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean
from kd_mil.data.pairs.pair_data import PairedImages
from kd_mil.data.pairs.stack import ImageSource
from kd_mil.slides.formats.reader import Slide, open_slide
from kd_mil.slides.slide_list import SlideEntry, list_slides, with_labels
from kd_mil.slides.tiles.tissue import TissueMask, TissueSettings, find_tissue

Box = tuple[int, int, int, int]


class Section(NamedTuple):
    """A piece of tissue of a slide."""

    slide: SlideEntry
    number: int
    """Among the sections of the slide."""
    box: Box
    scale: float
    """Level-0 pixels for one pixel at downsample 1."""


class PairedSlides(PairedImages):
    """Every tissue section of every slide as one image with its slide's label (Sec. 4.2).

    Slides of a case stay together. Downsample 1 is `mpp`; every size is made from level 0 in one step.

    Args:
        slides: folder, pattern or CSV of slides (`slide_path`, `label`, `case_id`, `split`).
        tissue: how tissue is found.
        labels: CSV `slide_id,label` where the slides come without.
        classes: names in the order of their index; None = sorted by name.
        mpp: µm per pixel at downsample 1; 1.0 is 10x.
        margin_um: widens the box around a section.
        min_side_um: sections with a shorter side are left out.
        max_megapixels: largest section at level 0 that may be read.
        **pairs: arguments of `PairedImages`.
    """

    def __init__(
        self,
        slides: str | None,
        tissue: TissueSettings,
        labels: str | None = None,
        classes: Sequence[str] | None = None,
        mpp: float = 1.0,
        margin_um: float = 32.0,
        min_side_um: float = 200.0,
        max_megapixels: float = 500.0,
        **pairs: Any,
    ) -> None:
        super().__init__(**pairs)
        above("data.mpp", mpp)
        self.slides, self.labels, self.mpp, self.tissue = slides, labels, mpp, tissue
        self.classes = None if classes is None else list(classes)
        self.margin_um, self.min_side_um, self.max_megapixels = margin_um, min_side_um, max_megapixels

    def read(self) -> ImageSource:
        if self.slides is None:
            raise UserError("data.slides is not set: point it to a folder of slides or a CSV slide_path,label")
        entries = list_slides(self.slides)
        entries = entries if self.labels is None else with_labels(entries, self.labels)
        names = self.classes or sorted({entry.label for entry in entries if entry.label is not None})
        sections = self._sections(entries)
        owners = [section.slide for section in sections]
        return ImageSource(
            ids=[f"{section.slide.slide_id}-{section.number}" for section in sections],
            labels=torch.tensor([_label(entry, names) for entry in owners]),
            class_names=tuple(names),
            open=SectionReader(sections),
            cases=[entry.case_id for entry in owners],
            parts=[entry.split or ("" if entry.label else "auxiliary") for entry in owners],
            scales=[section.scale for section in sections],
        )

    def _sections(self, entries: Sequence[SlideEntry]) -> list[Section]:
        """The tissue sections of all slides; UserError where there are none."""
        sections = []
        for entry in tqdm(entries, desc="tissue", unit="slide", disable=None, leave=False):
            slide = open_slide(entry.path, entry.mpp, mpp_setting=None)
            scale = self.mpp / slide.mpp
            sections += [Section(entry, number, box, scale) for number, box in enumerate(self._boxes(slide))]
            slide.close()
        if not sections:
            raise UserError(
                f"{self.slides}: no tissue section has sides of {self.min_side_um:g} µm: lower data.min_side_um, or "
                "look for tissue otherwise (tissue=)"
            )
        return sections

    def _boxes(self, slide: Slide) -> list[Box]:
        if slide.mpp > self.mpp * 1.01 * self.downsamples["teacher"]:
            raise UserError(
                f"slide {slide.name!r} has {slide.mpp:g} µm per pixel, coarser than the teacher's "
                f"{self.mpp * self.downsamples['teacher']:g}: raise data.mpp or data.teacher_downsample"
            )
        boxes = tissue_boxes(find_tissue(slide, self.tissue), slide, self.margin_um, self.min_side_um)
        for _, _, width, height in boxes:
            if width * height > self.max_megapixels * 1e6:
                raise UserError(
                    f"slide {slide.name!r} has a tissue section of {width} x {height} pixels at level 0: "
                    f"raise data.max_megapixels={self.max_megapixels:g}"
                )
        return boxes


def tissue_boxes(found: TissueMask, slide: Slide, margin_um: float, min_side_um: float) -> list[Box]:
    """Bounding boxes (x, y, width, height) in level-0 pixels of the tissue sections, clipped to the slide."""
    sections, _ = ndimage.label(found.mask)
    left, top, full_width, full_height = slide.bounds
    margin, least = margin_um / slide.mpp, min_side_um / slide.mpp
    boxes = []
    for rows, columns in ndimage.find_objects(sections):
        sides = [(span.stop - span.start) * found.downsample for span in (rows, columns)]
        if min(sides) < least:
            continue
        x0, x1 = (found.origin[0] + edge * found.downsample for edge in (columns.start, columns.stop))
        y0, y1 = (found.origin[1] + edge * found.downsample for edge in (rows.start, rows.stop))
        x0, y0 = max(left, int(x0 - margin)), max(top, int(y0 - margin))
        x1, y1 = min(left + full_width, round(x1 + margin)), min(top + full_height, round(y1 + margin))
        boxes.append((x0, y0, x1 - x0, y1 - y0))
    return boxes


class SectionReader:
    """Opens sections by their position; travels to worker processes, each of which keeps one slide open."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self.sections = list(sections)
        self._slide: Slide | None = None

    def __call__(self, index: int) -> Image.Image:
        """The pixels of a section at level 0."""
        entry, (x, y, width, height) = self.sections[index].slide, self.sections[index].box
        if self._slide is None or self._slide.path != entry.path:
            if self._slide is not None:
                self._slide.close()
            self._slide = open_slide(entry.path, entry.mpp, mpp_setting=None)
        return Image.fromarray(np.asarray(self._slide.read(x, y, (width, height), self._slide.mpp)))


def _label(entry: SlideEntry, names: Sequence[str]) -> int:
    if entry.label is None:
        return -1
    if entry.label not in names:
        raise UserError(f"slide {entry.slide_id!r} has the label {entry.label!r}; {did_you_mean(entry.label, names)}")
    return list(names).index(entry.label)
