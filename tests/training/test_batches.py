"""Batches: which examples a step gets, and how they reach the device."""

import pytest
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
