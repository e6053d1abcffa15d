"""The guidance explorer's Python part; its script is compared with torch in tests/browser."""

import math

import pytest
import torch

from tutorial_lib import schedules
from tutorial_lib.explorers import GuidanceExplorer
from tutorial_lib.explorers.guidance import widget as _guidance
from tutorial_lib.guidance import LabeledMixture, guide
from tutorial_lib.metrics.digit_features import load_digit_classifier, load_digit_reference
from tutorial_lib.samplers import ddim, evenly_spaced, last

LABELS = torch.tensor([0, 0, 0, 2, 2, 1])
SAMPLES = {s: torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(int(s))) * 2 - 1
           for s in (0.0, 1.0, 3.0)}  # fmt: skip


class Stub:
    """A judge that reads the class off the first pixel, and sees the first two pixels."""

    def probabilities(self, images):
        reads = (images[:, 0, 0, 0] > 0).long()
        return torch.nn.functional.one_hot(reads, 4).float()

    def features(self, images):
        return images[:, 0, 0, :2]


def floats(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.float32)


def test_spread_is_the_mean_over_all_pairs_of_a_class():
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    spread = _guidance.spread_by_class(features, LABELS, [0, 1, 2])
    pairs = [(0, 1), (0, 2), (1, 2)]
    first = sum(math.dist(features[i].tolist(), features[j].tolist()) for i, j in pairs) / 3
    third = math.dist(features[3].tolist(), features[4].tolist())
    assert abs(spread[0] - first) < 1e-6
    assert spread[1].isnan()  # one sample has no other
    assert abs(spread[2] - third) < 1e-6
    assert abs(spread[3] - (first + third) / 2) < 1e-6


def test_accuracy_by_class_and_of_all():
    reads = torch.tensor([0, 1, 0, 2, 2, 0])
    accuracy = _guidance.accuracy_by_class(reads, LABELS, [0, 1, 2])
    assert torch.allclose(accuracy, torch.tensor([2 / 3, 0, 1, 4 / 6], dtype=torch.float64))


def test_all_are_measured_and_some_of_each_class_shown():
    explorer = GuidanceExplorer(SAMPLES, LABELS, judge=Stub(), per_class=2, scale=2.6)
    assert explorer.owners == [0, 0, 1, 2, 2]
    assert explorer.counts == [3, 1, 2, 6]
    assert explorer.place == 2
    shown = [0, 1, 5, 3, 4]
    grays = torch.frombuffer(bytearray(explorer.images), dtype=torch.uint8)
    expected = torch.stack([(SAMPLES[s][shown] + 1) * 127.5 for s in (0.0, 1.0, 3.0)])
    assert (grays.reshape(expected.shape) - expected).abs().max() <= 0.5001
    reads = torch.stack([(SAMPLES[s][shown, 0, 0, 0] > 0).byte() for s in (0.0, 1.0, 3.0)])
    got = torch.frombuffer(bytearray(explorer.reads), dtype=torch.uint8).reshape(3, 5)
    assert torch.equal(got, reads)
    right = (SAMPLES[3.0][:, 0, 0, 0] > 0).long() == LABELS
    assert abs(floats(explorer.accuracy).reshape(3, 4)[2, 3] - right.float().mean()) < 1e-6
    assert f"{right.float().mean():.0%} are read as ordered" in repr(explorer)


def test_scales_are_sorted():
    explorer = GuidanceExplorer(dict(reversed(SAMPLES.items())), LABELS)
    assert explorer.scales == [0.0, 1.0, 3.0]
    other = GuidanceExplorer(SAMPLES, LABELS)
    assert explorer.images == other.images
    assert (explorer.accuracy, explorer.spread, explorer.reads) == (b"", b"", b"")


def test_the_judge_of_the_course_and_its_reference():
    samples = {s: torch.rand(20, 1, 28, 28) * 2 - 1 for s in (0, 1)}
    labels = torch.arange(10).repeat_interleave(2)
    reference = load_digit_reference()
    explorer = GuidanceExplorer(samples, labels, judge=load_digit_classifier(), reference=reference)
    real = floats(explorer.real)
    sevens = reference.test[reference.test_labels == 7]
    expected = torch.cdist(sevens.double(), sevens.double()).sum() / len(sevens) / (len(sevens) - 1)
    assert abs(real[7] - expected) < 1e-4
    assert abs(real[10] - real[:10].mean()) < 1e-5


def test_one_sample_of_a_class_has_no_spread():
    samples = {s: images[[0, 3, 5]] for s, images in SAMPLES.items()}
    explorer = GuidanceExplorer(samples, LABELS[[0, 3, 5]], judge=Stub())
    assert floats(explorer.spread).isnan().all()
    assert "read as ordered." in repr(explorer)


def test_it_draws_what_guided_ddim_draws():
    schedule = schedules.cosine_schedule(100)
    world = LabeledMixture(
        schedule, torch.tensor([[-1.0] * 64, [1.0] * 64]).reshape(2, 1, 8, 8),
        torch.tensor([0.1, 0.1]), torch.ones(2), torch.arange(2),
    )  # fmt: skip
    labels = torch.tensor([0, 1, 0, 1])
    noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    explorer = GuidanceExplorer.from_model(
        world, schedule, noise, labels, num_classes=2, scales=(1.0, 2.0), steps=5, per_class=1
    )
    walk = evenly_spaced(100, 5)
    drawn = last(ddim(guide(world, labels, 2.0, 2), schedule, noise, walk))[:2]
    grays = torch.frombuffer(bytearray(explorer.images), dtype=torch.uint8).reshape(2, 2, 1, 8, 8)
    assert ((drawn.clamp(-1, 1) + 1) * 127.5 - grays[1]).abs().max() <= 0.5001


def test_a_still_picture_stands_for_it():
    bundle, _ = GuidanceExplorer(SAMPLES, LABELS)._repr_mimebundle_()
    assert 1_000 < len(bundle["image/png"]) < 200_000


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"samples": torch.zeros(2)}, TypeError, "samples must be a dict"),
        ({"samples": {1.0: SAMPLES[1.0]}}, ValueError, "at least two scales, got 1"),
        ({"samples": {**SAMPLES, -1.0: SAMPLES[1.0]}}, ValueError, "a scale of samples must"),
        ({"samples": {**SAMPLES, 9: torch.zeros(5, 1, 8, 8)}}, ValueError, "same shape"),
        ({"samples": {**SAMPLES, 9: torch.zeros(6, 1, 8, 80)}}, ValueError, r"samples\[9\]"),
        ({"labels": LABELS.float()}, TypeError, "labels must be an int64 tensor"),
        ({"labels": LABELS[:3]}, ValueError, r"labels must have shape \(6,\)"),
        ({"labels": LABELS - 1}, ValueError, "labels must be in 0..255, got -1"),
        ({"per_class": 0}, ValueError, "per_class must"),
        ({"scale": -1}, ValueError, "scale must"),
        ({"class_names": ["a"]}, ValueError, "class_names must name classes 0..2"),
        ({"reference": load_digit_reference()}, ValueError, "reference needs a judge"),
    ],
)
def test_what_is_invalid(change, error, words):
    arguments = {"samples": SAMPLES, "labels": LABELS, **change}
    with pytest.raises(error, match=words):
        GuidanceExplorer(arguments.pop("samples"), arguments.pop("labels"), **arguments)


def test_too_many_images_are_refused():
    many = {s: torch.zeros(200, 3, 32, 32) for s in (0, 1, 2)}
    with pytest.raises(ValueError, match="smaller per_class"):
        GuidanceExplorer(many, torch.arange(200) % 10, per_class=20)
