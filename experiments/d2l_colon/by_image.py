"""AUROC and recall within each positive test image of a run: `python experiments/d2l_colon/by_image.py RUN`."""

import sys
from pathlib import Path

import pandas as pd
from sklearn.metrics import recall_score, roc_auc_score


def main(run: Path) -> None:
    """The teacher's word on single nuclei, an image a line."""
    rows = pd.read_parquet(run / "instances.parquet")
    for name, image in rows.groupby("bag_id", observed=True):
        truth, score = image["label"] > 0, image["teacher_score"]
        if truth.any() and not truth.all():
            recall = recall_score(truth, image["teacher_prob"] > 0.5)
            print(
                f"{name}: {truth.sum()} of {len(truth)}, AUROC {roc_auc_score(truth, score):.3f}, recall {recall:.3f}"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
