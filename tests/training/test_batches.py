"""Batches: which examples a step gets, and how they reach the device."""

import pytest
import torch
from training_cases import CPU

from tutorial_lib.datasets import Dataset
from tutorial_lib.training import batches


def test_shuffled_brings_every_number_equally_often() -> None:
    order = batches.Shuffled(10, torch.Generator().manual_seed(0))
    taken = torch.cat([order.take(count) for count in (3, 4, 7, 25, 1)])  # 40 = 4 rounds
    assert taken.bincount().tolist() == [4] * 10
    rounds = taken.view(4, 10)
    assert all(len(part.unique()) == 10 for part in rounds)
    assert not torch.equal(rounds[0], rounds[1])


def test_images_kept_in_memory_are_the_same_images(discs: Dataset) -> None:
    index = torch.tensor([3, 60, 3])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for kept_on in {device, CPU}:
        store = batches.DataStore(discs.images, discs.labels, device, kept_on)
        for numbers in (index, index.to(device)):
            x0, labels = store.pick(numbers)
            assert x0.device.type == device.type
            assert torch.equal(x0.cpu(), discs.images[index])
            assert labels is not None
            assert torch.equal(labels.cpu(), discs.labels[index])
            assert x0.is_contiguous(memory_format=torch.channels_last)
    plain = batches.DataStore(discs.images, None, device, CPU, torch.contiguous_format)
    assert plain.pick(index)[0].is_contiguous()


@pytest.mark.parametrize("counts", [(3, 25, 1), (1,), (64, 64), (7,) * 9])
def test_shuffled_is_one_order_after_another(counts: tuple[int, ...]) -> None:
    """However many are taken at once."""
    order = batches.Shuffled(10, torch.Generator().manual_seed(0))
    taken = torch.cat([order.take(count) for count in counts])
    again = torch.Generator().manual_seed(0)
    rounds = [torch.randperm(10, generator=again) for _ in range(len(taken) // 10 + 1)]
    assert torch.equal(taken, torch.cat(rounds)[: len(taken)])
    assert torch.equal(order.rest, torch.cat(rounds)[len(taken) :][: len(order.rest)])


@pytest.mark.plain_errors
def test_batches_that_cannot_be_are_refused() -> None:
    examples = batches.Examples.of(torch.zeros(4, 2))
    batches.check_batch_size(4 * 2**16, examples, CPU)
    with pytest.raises(ValueError, match=r"^batch_size must be at most 262144, got 262145: each"):
        batches.check_batch_size(4 * 2**16 + 1, examples, CPU)
    with pytest.raises(ValueError, match=r"^batch_size must fit in memory, got 1000000000000: a"):
        batches.check_batch_size(10**12, examples, CPU)
