"""The teacher's memory: ranges, the bank, and what survives a checkpoint."""

import torch

from kd_mil.methods.base.attention_memory import AttentionMemory


def recorded(memory, scores, bags, ids):
    memory.record_range(torch.tensor(scores), torch.tensor(bags))
    memory.record_scores(torch.tensor(scores), torch.tensor(ids))


def test_one_range_over_the_training_set():
    memory = AttentionMemory("training_set")
    memory.record_range(torch.tensor([0.5, -2.0]), torch.tensor([0, 0]))
    memory.record_range(torch.tensor([3.0]), torch.tensor([1]))
    memory.finalize()
    low, high = memory.range_of(torch.tensor([1]))
    assert (low.item(), high.item()) == (-2.0, 3.0)


def test_each_phase_starts_afresh():
    """A range is that of the last phase, not of the whole run: the teacher moves."""
    memory = AttentionMemory()
    memory.record_range(torch.tensor([-100.0, 100.0]), torch.tensor([0, 0]))
    memory.finalize()
    memory.record_range(torch.tensor([1.0, 2.0]), torch.tensor([0, 0]))
    assert memory.high.item() == 100.0, "the student must not see a half-filled phase"
    memory.finalize()
    memory.finalize()
    assert (memory.low.item(), memory.high.item()) == (1.0, 2.0)


def test_one_range_per_bag_keeps_bags_it_did_not_see():
    memory = AttentionMemory("bag")
    memory.allocate(num_bags=3, num_instances=0)
    memory.record_range(torch.tensor([1.0, 5.0, 2.0]), torch.tensor([0, 0, 2]))
    memory.finalize()
    assert memory.low.tolist() == [1.0, 0.0, 2.0]
    assert memory.high.tolist() == [5.0, 1.0, 2.0]


def test_bank_remembers_instances_that_a_later_phase_skips():
    memory = AttentionMemory(keep_scores=True)
    memory.allocate(num_bags=2, num_instances=4)
    recorded(memory, [0.1, 0.2, 0.3], [0, 0, 1], [3, 0, 1])
    memory.finalize()
    recorded(memory, [0.9], [0], [0])
    memory.finalize()
    torch.testing.assert_close(memory.scores, torch.tensor([0.9, 0.3, torch.inf, 0.1]))


def test_state_dict_brings_its_own_sizes():
    """Prediction loads a trained memory without knowing the training set."""
    trained = AttentionMemory("bag", keep_scores=True)
    trained.allocate(num_bags=2, num_instances=3)
    recorded(trained, [1.0, 2.0, 3.0], [0, 0, 1], [0, 1, 2])
    trained.finalize()
    fresh = AttentionMemory("bag", keep_scores=True)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.scores, trained.scores)
    assert torch.equal(fresh.high, trained.high)
