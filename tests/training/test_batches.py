"""Batches: which examples a step gets, and how they reach the device."""

import torch
from training_cases import CPU

from tutorial_lib.datasets import Dataset
from tutorial_lib.training import batches
from tutorial_lib.training.batches import Examples


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


def test_every_value_of_the_data_counts_in_the_fingerprint() -> None:
    """Every example, and the lowest bit of a value; 5,000 examples are read in two parts."""
    x, words = torch.rand(5000, 1, 2, 2), torch.randint(9, (5000, 3))
    whole = Examples.of((x, words)).fingerprint
    assert Examples.of((x.clone(), words.clone())).fingerprint == whole
    places = torch.Generator().manual_seed(0)
    for number in [0, 1, 4095, 4096, 4999, *torch.randint(5000, (50,), generator=places).tolist()]:
        other = x.clone()
        other.view(torch.int32)[number, 0, 1, 0] ^= 1
        found = Examples.of((other, words)).fingerprint
        assert found["crc32_of_all"] != whole["crc32_of_all"]
        retold = words.clone()
        retold[number, 2] += 1
        assert Examples.of((x, retold)).fingerprint["labels_crc32"] != whole["labels_crc32"]
    swapped = x[torch.arange(5000).roll(1)]
    assert Examples.of((swapped, words)).fingerprint["crc32_of_all"] != whole["crc32_of_all"]
