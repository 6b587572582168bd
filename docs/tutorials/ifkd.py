# %% [markdown]
# # IFKD: masks from image labels
#
# IFKD (He et al. 2024) trains a segmentation network on labels of whole images, then a student on the fused maps of its layers; where
# validation finds the student better, it becomes the teacher. Drawn glands with exact masks are embedded. The masks evaluate, they never train.

# %%
import json
import subprocess
import sys
from pathlib import Path

from IPython.display import Image

OUT = "tutorial_runs/ifkd"


def kd_mil(arguments):
    """What `python -m kd_mil.ARGUMENTS` prints on a command line."""
    done = subprocess.run(
        [sys.executable, "-m", *f"kd_mil.{arguments}".split()], capture_output=True, text=True, check=True
    )
    print(done.stdout)


kd_mil(f"run experiment=ifkd_vgg method.teacher_epochs=8 trainer.max_epochs=20 trainer=cpu hydra.run.dir={OUT}")

# %%
metrics = json.loads(Path(OUT, "metrics.json").read_text())
for role in ("teacher", "student"):
    print(
        role, {name: round(metrics[f"test/{role}/{name}"], 3) for name in ("pixel_f1", "pixel_iou_pos", "image_auroc")}
    )

# %% [markdown]
# Image, truth, and the mask of each network:

# %%
Image(sorted(Path(OUT, "figures").glob("*overlays*.png"))[-1], width=700)

# %% [markdown]
# ## On your images, and on slides
#
# ```bash
# kd-mil run experiment=ifkd_vgg data=patch_masks data.root=images
# kd-mil segment ckpt=RUN images=new_images out=segments
# kd-mil chain slides=slides.csv 'classes=[normal,tumour]' out=chain
# ```
#
# The last line, which needs `pip install 'kd-mil[lite]'`, goes from slide labels to masks: WENO's student marks tiles, IFKD segments them.
