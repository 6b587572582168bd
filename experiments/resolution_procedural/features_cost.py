"""What a slide costs a model of lite0 features.

python experiments/resolution_procedural/features_cost.py RUN SLIDES.csv

From the file on, as `cost_of` has it for models of tiles: tissue, reading, encoding, bag classifier and student.
Writes RUN/features_cost.json with seconds, bytes and GMAC of a slide, the mean of four.
"""

import sys
from functools import partial
from pathlib import Path

import torch

import kd_mil
from kd_mil.core.run_files import write_json
from kd_mil.evaluation.end_to_end import end_to_end
from kd_mil.models.encoders.lite0 import Lite0
from kd_mil.prediction.inputs import SlideInput
from kd_mil.slides.slide_list import list_slides
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings

SLIDES = 4


def predicted(slide: SlideInput, encoder: Lite0, model: object) -> object:
    """What a model of features says of a slide."""
    features = [encoder(pixels.float() / 255) for pixels in slide.open().batches]
    return model.predict(torch.cat(features))


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    run, slides = Path(sys.argv[1]), sys.argv[2]
    model, encoder = kd_mil.load(run), Lite0((3, 64, 64)).eval()
    cutting = Cutting(TilingSettings(mpp=1.0, tile_size=64))
    items = [
        partial(predicted, SlideInput(entry, cutting, picture_side=64), encoder, model)
        for entry in list_slides(slides)[:SLIDES]
    ]
    with torch.inference_mode():
        write_json(run / "features_cost.json", end_to_end(items))


if __name__ == "__main__":
    main()
