"""How certain and complete the student of `run.sh` is: `python experiments/d2l_colon/certainty.py ROOT`."""

import sys
from pathlib import Path

import pandas as pd
from sklearn.metrics import precision_score, recall_score, roc_auc_score


def main(root: Path) -> None:
    """Share of probabilities below .01 or above .99, precision and recall at 0.5, areas within positive bags."""
    for path in sorted(root.glob("d2l/*/instances.parquet")):
        rows = pd.read_parquet(path)
        truth, probs = rows["label"] > 0, rows["student_prob"]
        certain = ((probs < 0.01) | (probs > 0.99)).mean()
        within = truth.groupby(rows["bag_id"], observed=True).transform("any")
        areas = [roc_auc_score(truth[within], rows.loc[within, f"{role}_score"]) for role in ("teacher", "student")]
        print(
            f"fold {path.parent.name}: certain {certain:.3f}, precision {precision_score(truth, probs > 0.5):.3f}, "
            f"recall {recall_score(truth, probs > 0.5):.3f}, "
            f"AUROC within positive bags: teacher {areas[0]:.3f}, student {areas[1]:.3f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
