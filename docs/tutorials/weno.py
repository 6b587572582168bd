# %% [markdown]
# # WENO: find the tumour tiles from slide labels
#
# Slides have one label each: "tumour somewhere", yes or no. A bag classifier, the teacher, learns these labels. Its attention becomes soft labels
# for single tiles. A tile classifier, the student, learns those. Both share one encoder (Qu et al., NeurIPS 2022).
#
# Bags of features are made up here, so that the truth is known: 3 of 20 instances of a positive bag are positive.

# %%
from functools import partial

import lightning as L
import matplotlib.pyplot as plt
import torch
from sklearn.metrics import roc_auc_score

import kd_mil

generator = torch.Generator().manual_seed(0)
direction = torch.randn(16, generator=generator)


def make_bag(positive):
    features = torch.randn(20, 16, generator=generator)
    truth = torch.zeros(20, dtype=torch.long)
    if positive:
        truth[:3] = 1
    return features + 0.8 * direction * truth[:, None], truth


made = [make_bag(number % 2) for number in range(120)]
bags = [(features, number % 2) for number, (features, _) in enumerate(made)]

# %% [markdown]
# ## Train
#
# Each part is a class; `partial` leaves what depends on the data to the method. Any Lightning trainer will do.


# %%
def train(**switches):
    L.seed_everything(0, verbose=False)
    method = kd_mil.WENO(
        instance_shape=(16,),
        num_classes=2,
        encoder=partial(kd_mil.FeatureProjector, out_features=32),
        aggregator=kd_mil.DSMIL,
        student_head=kd_mil.InstanceHead,
        hpm=kd_mil.HardPositiveMining("threshold", threshold=0.9, start_epoch=10),
        preprocess=kd_mil.Preprocess(standardise=True),
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
        **switches,
    )
    data = kd_mil.InMemoryBags(bags[:90], num_folds=5, loading=kd_mil.Loading(instances_per_step=64))
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    L.Trainer(max_epochs=20, accelerator="cpu", use_distributed_sampler=False, **quiet).fit(method, data)
    return method.eval()


weno = train()

# %% [markdown]
# ## Does a network know *where*?
#
# Positive bags that were never seen. The teacher is read in two ways: by its attention, and with each instance as a bag of one, which costs
# nothing and is what a student has to beat.

# %%
test = range(91, 120, 2)
truth = torch.cat([made[number][1] for number in test])


def read(method, role, reading=None):
    said = [method.predict(made[number][0], readings=True)[role] for number in test]
    return torch.cat([one.instance_scores if reading is None else one.readings()[reading] for one in said])


scores = {
    "teacher, attention": read(weno, "teacher", "attention"),
    "teacher, bag of one": read(weno, "teacher", "bag_of_one"),
    "student": read(weno, "student"),
}
for name, values in scores.items():
    print(f"{name:20} AUROC of single instances {roc_auc_score(truth, values):.3f}")

# %% [markdown]
# ## Better labels
#
# What limits a student is its labels. `pseudo_labels="transport"` asks the teacher for each instance as a bag of one, averages that with the
# student's own answer, and turns both into labels by optimal transport, with a share of positive instances that validation bags estimate:
# `experiment=weno_transport` on the command line, an extension that is not in the paper.

# %%
transport = train(pseudo_labels="transport", average=0.995)
scores["student of transport"] = read(transport, "student")
print(f"student of transport AUROC of single instances {roc_auc_score(truth, scores['student of transport']):.3f}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(11, 2.4))
for axis, (name, values) in zip(axes, scores.items()):
    axis.hist([values[truth == 0], values[truth == 1]], bins=20, label=["negative", "positive"], stacked=True)
    axis.set(title=name, xlabel="score of an instance")
axes[0].legend(frameon=False)
axes[0].set_ylabel("instances")
figure.tight_layout()

# %% [markdown]
# ## The same on slides
#
# On the command line all of this is one line, on procedural slides with exact truth, or on features of your own:
#
# ```bash
# kd-mil run experiment=weno_dsmil
# kd-mil run experiment=weno_dsmil data=feature_bags data.manifest=slides.csv
# ```
#
# Before you believe in a student, compare it with the best reading of its teacher alone: [questions](../faq.md).
