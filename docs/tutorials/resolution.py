# %% [markdown]
# # Resolution distillation: a sixteenth of the pixels
#
# A teacher is trained at high magnification; a student of the same kind learns, from pairs of images without labels, to answer and to see
# (its last feature map) as the teacher does, at low magnification (DiPalma et al. 2021).

# %%
import json
import subprocess
import sys
from pathlib import Path

from IPython.display import Image

OUT = "tutorial_runs/resolution"


def kd_mil(arguments):
    """What `python -m kd_mil.ARGUMENTS` prints on a command line."""
    done = subprocess.run(
        [sys.executable, "-m", *f"kd_mil.{arguments}".split()], capture_output=True, text=True, check=True
    )
    print(done.stdout)


kd_mil(f"run experiment=resolution_kd phase_epochs=12 select=last trainer=cpu hydra.run.dir={OUT}/kd")
kd_mil(f"run experiment=resolution_baseline phase_epochs=12 select=last trainer=cpu hydra.run.dir={OUT}/baseline")

# %% [markdown]
# ## What the student can do
#
# The baseline is the same network at the same low resolution, trained on labels. Here all images have labels, and twelve epochs of them do
# more than the teacher's answers; distillation pays where unlabelled pairs are many (`experiment=resolution_kd_ad`; the record of CIFAR-10).

# %%
for name, role in (("kd", "teacher"), ("kd", "student"), ("baseline", "model")):
    metrics = json.loads(Path(OUT, name, "metrics.json").read_text())
    found = {
        key: value for key, value in metrics.items() if key.startswith(f"test/{role}/image_a") and value is not None
    }
    print(name, {key.removeprefix("test/"): round(value, 3) for key, value in found.items()})

# %% [markdown]
# Images at both resolutions, and the answers of teacher and student:

# %%
Image(sorted(Path(OUT, "kd", "figures").glob("pairs*.png"))[-1], width=700)

# %% [markdown]
# `kd-mil frontier 'runs=runs/resolution_*/*' within=2` draws accuracy against cost over many runs, and names the cheapest network that is good enough.
