"""Batches: which examples a step gets, and how they reach the device."""

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
