"""Synthetic H&E slides with known truth: real pyramidal TIFFs, ASAP annotations, truth masks and a slide list.

A positive slide holds easy tumour (dense nests) and hard tumour (single cells scattered in stroma), or hard tumour
alone; lymphoid aggregates and glands are the hard negatives. A slide is a function of (settings, seed, index).
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from uuid import uuid4
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import shapely
from PIL import Image
from skimage.draw import polygon2mask

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.slides.coverage import mask_coverage
from kd_mil.slides.over_slides import over_slides
from kd_mil.slides.synthetic.layout import Layout
from kd_mil.slides.synthetic.layout_drawing import Truth, draw_layout
from kd_mil.slides.synthetic.painting import Painter
from kd_mil.slides.synthetic.pyramid_tiff import write_pyramid

GENERATOR_VERSION = 1
"""Raised with every change of the pictures, so that older sets are not taken for current ones."""

TRUTH_DOWNSAMPLE = 4
"""Level-0 pixels per pixel of a truth mask."""

EASY, HARD = 1, 2
"""Values of a truth mask; 0 is no tumour."""

MIN_SIZE_UM = 768
MPP_RANGE = (0.1, 2.0)
SPLITS_OF_CASES = ("train", "val", "train", "test", "train")
TRUTHS: tuple[Truth, ...] = ("mixed", "negative", "negative", "hard", "mixed", "negative", "negative", "mixed")
"""Slides of a split in turn: half are positive, one in eight shows hard tumour alone."""


@dataclass(frozen=True)
class SyntheticSettings:
    """What decides the content of a set, beside the seed.

    Raises:
        UserError: a count below 1, a resolution that shows no nuclei, or slides too small for a tissue section.
    """

    slides: int = 80
    size: int = 1536
    """Width and height of level 0 in pixels."""
    mpp: float = 0.5
    """Micrometres per pixel of level 0; the levels above are twice as coarse each."""
    slides_per_case: int = 2
    quality: int = 85
    """JPEG quality, 1 to 95."""

    def __post_init__(self) -> None:
        for name in ("slides", "slides_per_case"):
            if getattr(self, name) < 1:
                raise UserError(f"synthetic slides: {name}={getattr(self, name)} must be at least 1")
        if not MPP_RANGE[0] <= self.mpp <= MPP_RANGE[1]:
            raise UserError(f"synthetic slides: mpp={self.mpp} must lie between {MPP_RANGE[0]} and {MPP_RANGE[1]} µm")
        if self.size * self.mpp < MIN_SIZE_UM:
            raise UserError(
                f"synthetic slides: size={self.size} px at mpp={self.mpp} is too small for a tissue section; "
                f"size x mpp must be at least {MIN_SIZE_UM} µm"
            )


@dataclass(frozen=True)
class SlidePlan:
    """Case, split and content of a slide; a function of its index, so that a larger set begins with the smaller one."""

    index: int
    case: int
    split: str
    truth: Truth

    @property
    def slide_id(self) -> str:
        return f"synthetic_{self.index:03d}"

    @property
    def label(self) -> str:
        return "negative" if self.truth == "negative" else "positive"


def plan_slides(settings: SyntheticSettings) -> list[SlidePlan]:
    """Deal the slides to cases and the cases to splits (3 : 1 : 1); every split sees the same mixture of slides."""
    plans: list[SlidePlan] = []
    seen = dict.fromkeys(SPLITS_OF_CASES, 0)
    for index in range(settings.slides):
        case = index // settings.slides_per_case
        split = SPLITS_OF_CASES[case % len(SPLITS_OF_CASES)]
        plans.append(SlidePlan(index, case, split, TRUTHS[seen[split] % len(TRUTHS)]))
        seen[split] += 1
    return plans


def build_synthetic_slides(out_dir: Path, settings: SyntheticSettings, seed: int, processes: int = 0) -> Path:
    """Build the set, or find it: a finished set of the same settings and seed is not touched.

    `processes` draw the slides; 0 = this one does.

    The folder `out_dir/synthetic_slides_<hash>` appears once it is complete. It holds `slides.csv` (columns
    `slide_path,slide_id,case_id,label,split,annotation_path,mpp`, paths relative to it), `slides/*.tif`,
    `annotations/*.xml` (negative slides have an empty one), `truth/*.png` and `settings.json`.

    Returns:
        Path of `slides.csv`.
    """
    content = asdict(settings) | {"seed": seed, "version": GENERATOR_VERSION}
    text = json.dumps(content, indent=1, sort_keys=True)
    folder = out_dir / f"synthetic_slides_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not folder.exists():
        unfinished = out_dir / f".{folder.name}.{uuid4().hex[:8]}.part"
        try:
            _build(unfinished, settings, seed, processes)
            (unfinished / "settings.json").write_text(text + "\n")
            _publish(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder / "slides.csv"


def _build(folder: Path, settings: SyntheticSettings, seed: int, processes: int) -> None:
    plans = plan_slides(settings)
    painter_of(seed, settings.mpp)  # once, for all processes that are forked from this one
    over_slides(partial(_write, folder, settings, seed), plans, "synthetic slides", processes)
    painter_of.cache_clear()
    slide_list = pd.DataFrame(
        {
            "slide_path": [f"slides/{plan.slide_id}.tif" for plan in plans],
            "slide_id": [plan.slide_id for plan in plans],
            "case_id": [f"case_{plan.case:03d}" for plan in plans],
            "label": [plan.label for plan in plans],
            "split": [plan.split for plan in plans],
            "annotation_path": [f"annotations/{plan.slide_id}.xml" for plan in plans],
            "mpp": settings.mpp,
        }
    )
    slide_list.to_csv(folder / "slides.csv", index=False)


@lru_cache(maxsize=1)
def painter_of(seed: int, mpp: float) -> Painter:
    """The painter of a set; a process draws its textures once."""
    return Painter(seed, mpp)


def _write(folder: Path, settings: SyntheticSettings, seed: int, plan: SlidePlan) -> None:
    write_slide(folder, plan, settings, seed, painter_of(seed, settings.mpp))


def _publish(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was faster, with the same bytes
            raise


def write_slide(folder: Path, plan: SlidePlan, settings: SyntheticSettings, seed: int, painter: Painter) -> Layout:
    """Write one slide with its annotation and truth mask into `folder`; memory is that of a strip of the slide."""
    rng = np.random.default_rng([seed, plan.index])
    layout = draw_layout(rng, settings.size, settings.mpp, plan.truth)
    size = (settings.size, settings.size)
    slide_path = folder / "slides" / f"{plan.slide_id}.tif"
    write_pyramid(slide_path, painter.strips(layout, rng), size, settings.mpp, quality=settings.quality)
    _write_asap_xml(folder / "annotations" / f"{plan.slide_id}.xml", layout)
    with atomic_path(folder / "truth" / f"{plan.slide_id}.png") as path:
        Image.fromarray(_truth_mask(layout)).save(path, "PNG")
    return layout


def _truth_mask(layout: Layout) -> np.ndarray:
    """(size / 4, size / 4) uint8; a pixel belongs to the region in which its centre lies."""
    side = -(-layout.size // TRUTH_DOWNSAMPLE)
    mask = np.zeros((side, side), np.uint8)
    for value, outlines in ((EASY, layout.easy), (HARD, layout.hard)):
        for outline in outlines:
            vertices = shapely.get_coordinates(outline)[:, ::-1] / TRUTH_DOWNSAMPLE - 0.5
            low = np.maximum(np.floor(vertices.min(axis=0)).astype(int), 0)
            high = np.minimum(np.ceil(vertices.max(axis=0)).astype(int) + 1, side)
            window = mask[low[0] : high[0], low[1] : high[1]]
            window[polygon2mask(window.shape, vertices - low)] = value
    return mask


def _write_asap_xml(path: Path, layout: Layout) -> None:
    """Tumour outlines as ASAP reads them: all in the group `Tumor`, named `easy 0`, ... and `hard 0`, ..."""
    root = ElementTree.Element("ASAP_Annotations")
    annotations = ElementTree.SubElement(root, "Annotations")
    for name, color, outlines in (("easy", "#c80000", layout.easy), ("hard", "#ff9600", layout.hard)):
        for number, outline in enumerate(outlines):
            attributes = {"Name": f"{name} {number}", "Type": "Polygon", "PartOfGroup": "Tumor", "Color": color}
            coordinates = ElementTree.SubElement(
                ElementTree.SubElement(annotations, "Annotation", attributes), "Coordinates"
            )
            for order, (x, y) in enumerate(shapely.get_coordinates(outline)[:-1]):
                ElementTree.SubElement(coordinates, "Coordinate", Order=str(order), X=f"{x:.2f}", Y=f"{y:.2f}")
    groups = ElementTree.SubElement(root, "AnnotationGroups")
    ElementTree.SubElement(groups, "Group", Name="Tumor", PartOfGroup="None", Color="#c80000")
    ElementTree.indent(root)
    with atomic_path(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def truth_fractions(truth_path: Path, coords: np.ndarray, tile_size_level0: int) -> np.ndarray:
    """Share of each tile that is easy and that is hard tumour, from the slide's truth mask.

    Args:
        truth_path: PNG written by `build_synthetic_slides`.
        coords: (N, 2) int (x, y) of the tiles' top-left corners in level-0 pixels.
        tile_size_level0: edge of a tile in level-0 pixels.

    Returns:
        (N, 2) float32 in [0, 1]: easy, hard.
    """
    mask = np.asarray(Image.open(truth_path))
    shares = [
        mask_coverage(mask == value, (0, 0), TRUTH_DOWNSAMPLE, coords, tile_size_level0) for value in (EASY, HARD)
    ]
    return np.stack(shares, axis=1)
