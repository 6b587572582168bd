# %% [markdown]
# # Distill-to-Label: a teacher on bags, a student on its answers
#
# Distill-to-Label (Thiagarajan et al. 2019) first trains a bag classifier with virtual adversarial training: answers must stay equal when instances
# are changed a little or some are left out. Then it trains a new network on this classifier's answers for single instances. The digits of
# scikit-learn are embedded: a bag of handwritten digits is positive if it holds a 9.

# %%
import json
import subprocess
import sys
from pathlib import Path

from IPython.display import Image

OUT = "tutorial_runs/d2l"


def kd_mil(arguments):
    """What `python -m kd_mil.ARGUMENTS` prints on a command line."""
    done = subprocess.run(
        [sys.executable, "-m", *f"kd_mil.{arguments}".split()], capture_output=True, text=True, check=True
    )
    print(done.stdout)


kd_mil(
    f"run experiment=d2l data.max_train_bags=60 method.teacher_epochs=6 method.student_epochs=4 trainer=cpu hydra.run.dir={OUT}"
)

# %% [markdown]
# ## What the run left
#
# The table above is `metrics.json`. `instance_auroc` says how well single digits are told apart by networks that have seen labels of bags only.

# %%
metrics = json.loads(Path(OUT, "metrics.json").read_text())
for role in ("teacher", "student"):
    print(
        role,
        {name: round(metrics[f"test/{role}/{name}"], 3) for name in ("bag_auroc", "instance_auroc", "instance_f1")},
    )

# %%
Image(sorted(Path(OUT, "figures").glob("roc*.png"))[0], width=600)

# %% [markdown]
# ## Further
#
# The paper's colon nuclei, when you have the images: `kd-mil run -m experiment=d2l_colon data.fold=0,1,2,3,4`. A student that is told that instances of negative
# bags are negative, which needs labels of bags alone, is above its teacher on features of these nuclei: `method.kd.negative_bags=zero`.
