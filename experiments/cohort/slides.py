"""Two cohorts of procedural slides: `python experiments/cohort/slides.py FOLDER`; own.csv, external.csv, labels.csv.

Two slides a case, both of one label. The external cohort has other slides, stronger compression and two sites.
"""

import sys
from pathlib import Path

import pandas as pd

from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides

COLUMNS = ["slide_path", "slide_id", "case_id", "label", "mpp", "annotation_path"]


def cohort(folder: Path, name: str, slides: int, seed: int, quality: int) -> pd.DataFrame:
    """Build the slides and list them, with the case of each."""
    table = build_synthetic_slides(folder, SyntheticSettings(slides, size=768, mpp=1.0, quality=quality), seed)
    listed = pd.read_csv(table)
    for column in ("slide_path", "annotation_path"):
        listed[column] = [str((table.parent / path).absolute()) for path in listed[column]]
    listed["slide_id"] = [f"{name}_{slide_id}" for slide_id in listed.slide_id]
    listed["case_id"] = name + "_" + listed.label + "_" + (listed.groupby("label").cumcount() // 2).astype(str)
    return listed


def main() -> None:
    """Write the three tables."""
    folder = Path(sys.argv[1])
    cohort(folder, "own", 40, seed=0, quality=85)[COLUMNS].to_csv(folder / "own.csv", index=False)
    external = cohort(folder, "external", 24, seed=1, quality=50)
    external["site"] = ["north" if int(case.rpartition("_")[2]) % 2 == 0 else "south" for case in external.case_id]
    external[["slide_path", "slide_id", "mpp"]].to_csv(folder / "external.csv", index=False)
    external[["slide_id", "case_id", "label", "site"]].to_csv(folder / "labels.csv", index=False)


if __name__ == "__main__":
    main()
