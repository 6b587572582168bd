"""Pictures and outlines of slides that were finished without, as in a folder of an earlier version."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tqdm import tqdm

from kd_mil.core.errors import UserError, one_line
from kd_mil.slides.extraction.claims import Claims
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.outcome import Outcome
from kd_mil.slides.extraction.store import read_slide
from kd_mil.slides.tiles.tiling import rejected_tiles


def draw_missing(extraction: Extraction) -> None:
    """Draw what `qc/` and `contours/` lack of the finished slides of an extraction that has run.

    Where nothing is missing, two listings of folders are all. The stored tiles are drawn over the tissue as it is found
    now. A slide that cannot be drawn is counted in a warning; slides in hand of other processes are left to them.
    """
    if extraction.pictures is None:
        return
    done = [one for one in extraction.outcomes.values() if one.status == "kept"]
    lacking = extraction.pictures.lacking([one.entry.slide_id for one in done])
    missing = [one for one in done if one.entry.slide_id in lacking]
    if not missing:
        return
    faults = []
    with Claims(extraction.out / ".claims") as claims, ThreadPoolExecutor(max(1, extraction.num_workers)) as threads:
        mine = [one for one in missing if claims.take(one.entry.slide_id)]
        drawings = [(one, threads.submit(_drawn, extraction, one)) for one in mine]
        for one, drawing in tqdm(drawings, desc="pictures", unit="slide", disable=None, leave=False):
            try:
                extraction.outcomes[one.entry.slide_id] = drawing.result()
            except Exception as error:  # whatever it is, the features are there
                faults.append(f"{one.entry.slide_id}: {one_line(error)}")
            claims.release(one.entry.slide_id)
    if faults:
        warnings.warn(f"{len(faults)} slides finished earlier could not be drawn, first {faults[0]}", stacklevel=2)


def _drawn(extraction: Extraction, outcome: Outcome) -> Outcome:
    """Draw one slide; its outcome with what an earlier version did not count."""
    assert extraction.pictures is not None
    entry, cutting, cache = outcome.entry, extraction.cutting, extraction.cache
    tiles = read_slide(outcome.path, with_features=False).tiles
    if entry.remote is not None and cache is not None:
        if not cache.admits(entry):
            raise UserError("no room in the cache beside others; the same command draws it")
        entry = replace(entry, path=cache.fetch(entry), remote=None)
    slide = cutting.open(entry)
    try:
        tissue = cutting.tissue_of(slide, entry)
        if tiles.rejected is None:
            count = len(rejected_tiles(slide, tissue, tiles, cutting.tiling))
            tiles = replace(tiles, rejected=count, tissue_share=round(float(tissue.mask.mean()), 6))
        extraction.pictures.write(slide, entry, tissue, tiles, cutting.tiling, keep=True)
    finally:
        slide.close()
        if cache is not None:
            cache.release(entry.slide_id)
    counted = replace(outcome, rejected=tiles.rejected, tissue=tiles.tissue_share)
    if extraction.finished.known(outcome.entry) is not None:
        extraction.finished.note(counted)
    return counted
