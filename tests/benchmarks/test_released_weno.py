"""The released script gets our bags, as its own data set would serve them; a stand-in plays the checkout."""

import torch

from benchmarks import released_weno
from benchmarks.machine import Clock
from benchmarks.released_loop import DATA, NETWORKS, SCRIPT, loops_of
from benchmarks.training_loop import Setting
from kd_mil.data.loading import Loading

TRAINING = """
import utliz
from models.alexnet import marked
class Optimizer:
    def __init__(self, encoder, teacher, student, of_encoder, of_teacher, of_student, bags, instances, *tests, **kept):
        self.bags, self.instances, self.kept, self.seen = bags, instances, kept, []
    def optimize_teacher(self, epoch):
        self.seen.append(list(tqdm(self.bags, desc="")))
    def optimize_student(self, epoch):
        self.seen.append(list(tqdm(self.instances, desc="")))
        utliz.cal_TPR_TNR_FPR_FNR()
"""
MODELS = """
import torch
marked = True
alexnet_CIFAR10_Encoder = teacher_Attention_head = student_head = lambda: torch.nn.Linear(2, 2)
"""
DATASET = """
import torch
class CIFAR_WholeSlide_challenge(torch.utils.data.Dataset):
    def __len__(self):
        return len(self.idx_all_slides) if self.return_bag else self.idx_all_slides.numel()
    def __getitem__(self, index):
        images = self.idx_all_slides[index] if self.return_bag else self.idx_all_slides.flatten()[index]
        labels = self.label_all_slides[index, 0] if self.return_bag else self.label_all_slides.flatten()[index]
        return self.ds_data[images], [self.ds_label[images], labels], index
"""


def checkout_in(folder):
    for name, text in ((SCRIPT, TRAINING), (NETWORKS, MODELS), (DATA, DATASET)):
        path = folder / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return str(folder)


def test_both_train_on_the_same_bags_and_instances(tmp_path):
    data = released_weno.PatternBags(Setting("", (), (3, 4, 4), bags=6, bag_length=10), Loading())
    data.setup()
    bags, chosen = data.bags, data.splits.train
    with loops_of(checkout_in(tmp_path)) as make:
        loop = make(bags, chosen, 16)
        for phase, work in loop.turns(0).items():
            work()
            assert phase in ("teacher", "student")
    whole, single = loop._loop.seen
    assert sorted(int(index) for _, _, index in whole) == list(range(6))
    for images, (labels, label), index in whole:
        own = chosen[index].item() * 10
        assert torch.equal(images[0], bags.instances[own : own + 10])
        assert labels[0].tolist() == bags.instance_labels[own : own + 10].tolist()
        assert label == bags.labels[chosen[index]]
    assert [len(images) for images, *_ in single] == [16, 16, 16, 12]
    for images, (labels, of_bag), index in single:
        places = bags.instances_of(chosen)[index]
        assert torch.equal(images, bags.instances[places])
        assert labels.tolist() == bags.instance_labels[places].tolist()
        assert torch.equal(of_bag, bags.labels[bags.bag_of_instance[places]])


def test_without_a_checkout_ours_runs_alone():
    with loops_of(None) as make:
        assert make is None
    timer = released_weno.ReleasedTimer(None)
    timer.loop = {"teacher": [Clock(2, 4)], "student": [Clock(1, 2)]}
    timer.auroc = [0.9]
    row = released_weno.phase_row("teacher", 100, timer)
    assert row["instances_per_s"] == 50
    assert released_weno.goals(row) == []
    assert released_weno.both_row(timer)["seconds_to_target"] == 3
    assert "released_auroc" not in released_weno.both_row(timer)


def test_speeds_and_seconds_to_the_target_are_those_of_the_same_rounds():
    timer = released_weno.ReleasedTimer(None)
    timer.loop = {"teacher": [Clock(1, 1), Clock(2, 2)], "student": [Clock(1, 1), Clock(2, 2)]}
    timer.other = {"teacher": [Clock(1, 1), Clock(2, 2)], "student": [Clock(2, 1), Clock(4, 2)]}
    timer.auroc, timer.released_auroc = [0.5, 0.86], [0.5, 0.84]
    student = released_weno.phase_row("student", 60, timer)
    assert (student["speedup"], student["cpu_speedup"]) == (2, 1)
    assert student["released_per_s"] == 20
    [goal] = released_weno.goals(student)
    assert goal["reached"]
    both = released_weno.both_row(timer)
    assert (both["seconds_to_target"], both["released_seconds_to_target"]) == (6, None)
