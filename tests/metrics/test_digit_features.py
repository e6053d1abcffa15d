"""The digit classifier: accurate on real handwriting, robust to noise, reproducible."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tutorial_lib import _sealed, datasets
from tutorial_lib.checkpoints import CheckpointError, shipped
from tutorial_lib.metrics import frechet_distance, real_floor
from tutorial_lib.metrics.digit_features import (
    CARD_ENTRY,
    FEATURES,
    FOLDER,
    DigitClassifier,
    load_digit_classifier,
    load_digit_reference,
)

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "datasets"
ROOTS = [Path(root) for root in (os.environ.get("TUTORIAL_DATA"), BESIDE) if root]
MNIST = next((root for root in ROOTS if datasets.is_here("mnist", root)), None)
real_mnist = pytest.mark.skipif(
    MNIST is None, reason="MNIST is not here; TUTORIAL_DATA names its folder"
)


@pytest.fixture(scope="module")
def judge() -> DigitClassifier:
    return load_digit_classifier()


@pytest.fixture(scope="module")
def glyphs() -> datasets.Dataset:
    return datasets.glyphs(500, seed=3)


def test_the_card_states_the_accuracy(judge: DigitClassifier):
    assert judge.card["metrics"]["test_accuracy"] >= 0.99
    assert judge.card["metrics"]["test_images"] == 10_000


@real_mnist
def test_its_accuracy_is_what_the_card_states(judge: DigitClassifier):
    data = datasets.load("mnist", split="test", root=MNIST)
    right = judge.probabilities(data.images).argmax(1) == data.labels
    assert float(right.float().mean()) == pytest.approx(
        judge.card["metrics"]["test_accuracy"], abs=3e-4
    )


@real_mnist
def test_the_reference_holds_the_features_of_real_images(judge: DigitClassifier):
    """Each is found among the features of the split that it comes from."""
    reference = load_digit_reference()
    for split, held, labels in (
        ("train", reference.train, reference.train_labels),
        ("test", reference.test, reference.test_labels),
    ):
        data = datasets.load("mnist", split=split, root=MNIST)
        ones = judge.features(data.images[data.labels == 1])
        # float16 keeps three digits, so an image is at most 0.02 from itself
        assert float(torch.cdist(held[labels == 1], ones).amin(1).max()) < 0.03


def test_it_recognizes_printed_digits(judge: DigitClassifier, glyphs: datasets.Dataset):
    right = judge.probabilities(glyphs.images).argmax(1) == glyphs.labels
    assert float(right.float().mean()) > 0.75  # chance is 0.1


def test_probabilities_are_probabilities(judge: DigitClassifier, glyphs: datasets.Dataset):
    probabilities = judge.probabilities(glyphs.images)
    assert probabilities.shape == (500, 10)
    assert probabilities.min() >= 0
    assert_close(probabilities.sum(1), torch.ones(500))


def test_shapes_and_independence_of_the_batch(judge: DigitClassifier, glyphs: datasets.Dataset):
    together = judge.features(glyphs.images[:7])
    assert together.shape == (7, FEATURES)
    assert together.dtype == torch.float32
    assert not together.requires_grad
    alone = torch.cat([judge.features(image[None]) for image in glyphs.images[:7]])
    assert_close(alone, together, rtol=1e-4, atol=1e-5)
    assert torch.equal(together, load_digit_classifier().features(glyphs.images[:7]))


def test_values_out_of_range_are_clamped(judge: DigitClassifier, glyphs: datasets.Dataset):
    images = glyphs.images[:4]
    too_strong = torch.where(images.abs() == 1, 1.7 * images, images)
    assert torch.equal(judge.features(too_strong), judge.features(images))


def test_the_reference_covers_both_splits():
    reference = load_digit_reference()
    for features, labels in (reference[:2], reference[2:]):
        assert features.shape == (5000, FEATURES)
        assert features.dtype == torch.float32
        assert labels.dtype == torch.int64
        # random images: each digit is about as frequent as in MNIST, 9 to 11.3 of 100
        assert all(400 < int(n) < 650 for n in labels.bincount(minlength=10))
    # normalized over training images that were shifted a little, these are not
    assert_close(reference.train.mean(0), torch.zeros(FEATURES), rtol=0, atol=0.3)
    assert_close(reference.train.var(0), torch.ones(FEATURES), rtol=0, atol=0.4)


def test_features_of_one_digit_are_close_together():
    """The nearest class mean, taken from training images, is the right one for test images."""
    train, train_labels, test, test_labels = load_digit_reference()
    means = torch.stack([train[train_labels == digit].mean(0) for digit in range(10)])
    right = torch.cdist(test, means).argmin(1) == test_labels
    assert float(right.float().mean()) > 0.98


def test_real_digits_are_near_real_ones_and_far_from_everything_else(
    judge: DigitClassifier, glyphs: datasets.Dataset
):
    reference = load_digit_reference()
    generator = torch.Generator().manual_seed(0)
    floor = real_floor(
        frechet_distance, reference.test, 500, 4500, repeats=3, generator=generator
    ).mean()
    noise = torch.randn(500, 1, 28, 28, generator=generator)
    one_digit = reference.train[reference.train_labels == 7][:450]
    for others in (judge.features(noise), judge.features(glyphs.images), one_digit):
        assert frechet_distance(others, reference.test) > 10 * float(floor)


def test_reference_and_classifier_are_small():
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sizes["digit_classifier.safetensors"] <= 300_000
    assert sizes["digit_reference.safetensors"] <= 1_500_000


def test_the_judge_is_not_a_checkpoint_of_a_denoiser():
    assert not [name for name in shipped() if "digit" in name]


# --- bad input


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 28, 28), r"images must have shape \(N, 1, 28, 28\).*\(2, 3, 28, 28\)"),
        (torch.zeros(28, 28), r"images must have shape"),
        (torch.zeros(0, 1, 28, 28), r"images must have shape"),
        (torch.full((1, 1, 28, 28), torch.nan), r"images must be finite"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.uint8), r"images must hold floating-point"),
        ([[0.0]], r"images must be a tensor"),
    ],
)
def test_wrong_images_are_named(judge: DigitClassifier, images: Tensor, message: str):
    for ask in (judge.features, judge.probabilities):
        with pytest.raises((TypeError, ValueError), match=message):
            ask(images)


def test_broken_files_are_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"cannot read .*nowhere\.safetensors"):
        load_digit_classifier(tmp_path / "nowhere.safetensors")
    for path in FOLDER.iterdir():
        shutil.copy(path, tmp_path)
    weights, reference = (tmp_path / f"digit_{n}.safetensors" for n in ("classifier", "reference"))
    content = reference.read_bytes()
    with pytest.raises(CheckpointError, match="for another network than DigitNet"):
        load_digit_classifier(reference)
    with pytest.raises(CheckpointError, match="must hold train, train_labels, test"):
        load_digit_reference(weights)
    reference.write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"digit_reference\.safetensors is truncated: \d+ of"):
        load_digit_reference(reference)
    reference.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(
        CheckpointError, match=r"digit_reference\.safetensors is corrupt: its check"
    ):
        load_digit_reference(reference)
    reference.with_suffix(".json").write_text(json.dumps({"file": {}}))
    with pytest.raises(
        CheckpointError, match=r"digit_reference\.json is not the card of digit_reference"
    ):
        load_digit_reference(reference)


def changed(folder: Path, name: str, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """A copy of a file that ships, with other tensors and with the checksums of those."""
    path = folder / f"{name}.safetensors"
    tensors, card, _ = _sealed.read_with_card(FOLDER / path.name, CARD_ENTRY)
    change(tensors)
    _sealed.write_with_card(path, tensors, card, CARD_ENTRY)
    return path


def test_other_weights_and_features_are_named_in_one_line(tmp_path: Path):
    path = changed(
        tmp_path, "digit_classifier", lambda t: t.update({k: v.half() for k, v in t.items()})
    )
    with pytest.raises(
        CheckpointError, match=r"dtype torch.float16, expected torch.float32"
    ) as half:
        load_digit_classifier(path)
    assert str(half.value).isprintable()
    for change in (
        lambda t: t.update(train=t["train"][:, :3]),
        lambda t: t.update(test=t["test"][:5]),
        lambda t: t.update(test_labels=t["test_labels"][:, None]),
    ):
        with pytest.raises(CheckpointError, match=r"must hold 64 features a label: t.* and "):
            load_digit_reference(changed(tmp_path, "digit_reference", change))
