"""All loaders of a cohort serve the same features, and epochs are extrapolated from what was measured."""

import pytest
import torch

from benchmarks import cohort
from benchmarks.machine import Clock


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder, size = tmp_path_factory.mktemp("cohort"), cohort.QUICK._replace(files=9)
    cohort.write_cohort(folder, size)
    _, data = cohort.opened(folder, size)
    return data, cohort.bag_loaders(data, folder, size), cohort.instance_loaders(data, size)


def test_every_loader_serves_the_same_bags(served):
    data, loaders, _ = served
    ours = [batch.instances for batch in loaders["ours"]][: cohort.QUICK.batches]
    for name in ("h5py", "as CLAM: .pt, single precision"):
        for one, other in zip(ours, loaders[name], strict=True):
            assert torch.equal(one.float(), other.squeeze(0).float())
    for one, (features, mask) in zip(ours, loaders["as torchmil: .npy, padded"], strict=True):
        assert torch.equal(one, features[0])
        assert mask.all()
    assert len(data.splits.train) == cohort.QUICK.slides - 2 * cohort.HELD_OUT


def test_both_serve_the_same_steps(served):
    _, _, loaders = served
    ours = [batch.instances for batch in loaders["ours"]]
    theirs = list(loaders["h5py"])
    assert len(theirs) > 1
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=False))


def test_slides_are_links_and_the_parts_share_no_file(served):
    data, *_ = served
    paths = data.bags.instances.paths
    nodes = {
        name: {paths[bag].stat().st_ino for bag in getattr(data.splits, name)} for name in ("train", "val", "test")
    }
    assert sum(map(len, nodes.values())) == len(set().union(*nodes.values())) == 9


def test_an_epoch_is_its_first_batch_and_the_mean_of_the_others():
    rounds = {"h5py": [[Clock(9, 9), Clock(1, 2), Clock(3, 2)]], "ours": [[Clock(5, 5), Clock(3, 4), Clock(3, 4)]]}
    h5py, ours = cohort.rows_of("bag", rounds, 11)
    assert (h5py["ms"], h5py["first_ms"], h5py["epoch_s"]) == (2000, 9000, 29)
    assert (ours["over_h5py"], ours["cpu_over_h5py"], ours["epoch_s"]) == (1.5, 2, 35)
    assert cohort.goal(ours)["reached"]
