"""Procedural slides of 1 µm per pixel for the record: `python experiments/resolution_procedural/slides.py OUT [N]`.

Prints the path of their `slides.csv`; N slides (default 160), half of them with tumour, 3 : 1 : 1 for training,
validation and test.
"""

import sys
from pathlib import Path

from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides

if __name__ == "__main__":
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 160
    print(build_synthetic_slides(Path(sys.argv[1]), SyntheticSettings(slides=count, size=1536, mpp=1.0), seed=0))
