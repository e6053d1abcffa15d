"""What a run can train on: points, latents, images; without conditions, with labels or words."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from training_cases import CPU, FP32, bits, tiny

from tests.draws import seeded
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.datasets import Dataset, scenes
from tutorial_lib.guidance import guide, labeled
from tutorial_lib.networks import TextUNet, TinyUNet
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.training import Trainer, new_network, resume, train


class Points(nn.Module):
    """A small perceptron for points (B, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 32), nn.Linear(32, 2)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        told = torch.cat([x_t, t[:, None].to(x_t) / 1000], dim=1)  # (B, 3)
        return self.outer(torch.tanh(self.inner(told)))


class ReadsWords(nn.Module):
    """A network for points that is told sentences (B, 3) of words 0..9; 0 is the empty word."""

    no_condition = torch.zeros(3, dtype=torch.int64)

    def __init__(self) -> None:
        super().__init__()
        self.word, self.place = nn.Embedding(10, 16), nn.Parameter(torch.randn(3, 16))
        self.inner, self.outer = nn.Linear(19, 32), nn.Linear(32, 2)
        self.seen: list[Tensor] = []

    def forward(self, x_t: Tensor, t: Tensor, words: Tensor) -> Tensor:
        self.seen.append(words)
        sentence = (self.word(words) * self.place).sum(1)  # (B, 3, 16) -> (B, 16)
        told = torch.cat([x_t, t[:, None].to(x_t) / 1000, sentence], dim=1)
        return self.outer(torch.tanh(self.inner(told)))


@pytest.fixture
def sentences() -> tuple[Tensor, Tensor]:
    """Points, each at a place that its three words name."""
    words = torch.randint(1, 10, (256, 3), generator=seeded())
    return (words[:, :2].float() - 5) / 3, words


def test_points_are_trained_on(tmp_path: Path) -> None:
    """Two clusters; samples lie at one or the other."""
    sides = torch.randint(0, 2, (512,), generator=seeded()) * 2.0 - 1
    points = sides[:, None] * torch.tensor([2.0, -1.0])
    before = points.clone()
    config = tiny(tmp_path / "run", steps=600, batch_size=64, lr=1e-2, optimizer="adamw")
    run = train(config, data=points, model=Points())
    assert torch.equal(points, before), "the caller's data stay as they are"
    assert sum(run.losses[-50:]) < 0.5 * sum(run.losses[:50])
    x_T = torch.randn(200, 2, generator=seeded())
    with torch.no_grad():
        drawn = last(ddim(run.model, run.schedule, x_T, evenly_spaced(1000, 50)))
    away = (drawn[:, None] - torch.tensor([[2.0, -1.0], [-2.0, 1.0]])).norm(dim=2).min(1).values
    assert (away < 0.5).double().mean() > 0.9
    found = load_checkpoint(run.path, network=Points())
    assert found.image_shape == (2,)
    assert all(
        torch.equal(a, b) for a, b in zip(bits(found.network), bits(run.ema_network), strict=True)
    )


def test_latents_become_pictures_by_a_decoder(tmp_path: Path) -> None:
    """Latents of four channels and no bounds; a decoder makes gray pictures twice as large."""
    latents = 5 * torch.randn(32, 4, 8, 8, generator=seeded())
    asked: list[Tensor] = []

    def decode(x: Tensor) -> Tensor:
        asked.append(x)
        return torch.tanh(nn.functional.interpolate(x[:, :1], scale_factor=2))

    config = tiny(tmp_path / "run", sample_every=2, steps=4)
    run = train(config, data=latents, decode=decode)
    assert isinstance(run.network, TinyUNet)
    assert run.network.config["in_channels"] == 4
    assert [tuple(x.shape) for x in asked] == [(64, 4, 8, 8)] * 2
    assert max(float(x.abs().max()) for x in asked) > 1, "latents are not clipped to [-1, 1]"
    with Image.open(tmp_path / "run" / "samples" / "step-00000004.png") as picture:
        assert picture.size == (8 * 18 - 2, 8 * 18 - 2)
    assert load_checkpoint(run.path).image_shape == (4, 8, 8)
    again = train(tiny(tmp_path / "again", steps=4), data=latents)
    assert again.losses == run.losses, "pictures change nothing"


class Drops(nn.Module):
    """A network for latents with dropout, which draws from the global random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Conv2d(4, 4, 1), nn.Dropout(0.5)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.drop(self.layer(x_t))


def test_a_decoder_that_draws_random_numbers_changes_nothing(tmp_path: Path) -> None:
    latents = torch.randn(32, 4, 8, 8, generator=seeded())
    drawn: list[Tensor] = []

    def decode(x: Tensor) -> Tensor:
        drawn.append(torch.randn(len(x), 1, 8, 8))
        return torch.tanh(x[:, :1] + drawn[-1])

    def network() -> Drops:
        torch.manual_seed(1)
        return Drops()

    plain = train(tiny(tmp_path / "plain"), data=latents, model=network())
    config = tiny(tmp_path / "drawn", sample_every=1)
    run = train(config, data=latents, model=network(), decode=decode)
    assert run.losses == plain.losses, "dropout draws the same numbers"
    assert len(drawn) == 4
    assert all(torch.equal(noise, drawn[0]) for noise in drawn), "each picture from the same noise"


class Labeled(nn.Module):
    """A network that is told labels 1..3; 0 means "no label"."""

    no_condition = torch.tensor(0)

    def __init__(self) -> None:
        super().__init__()
        self.label = nn.Embedding(4, 3)
        self.seen: list[Tensor] = []

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        self.seen.append(labels)
        return x_t + self.label(labels)[:, :, None, None]


def test_any_label_may_mean_no_condition(tmp_path: Path) -> None:
    """Training hides labels behind it; grids show the labels of the data, and only those."""
    images = torch.rand(30, 3, 8, 8, generator=seeded()) * 2 - 1
    labels = torch.arange(30) % 3 + 1
    config = tiny(tmp_path / "run", conditional=True, label_drop=1.0, sample_every=4)
    run = train(config, data=(images, labels), model=Labeled())
    assert isinstance(run.network, Labeled)
    assert isinstance(run.ema_network, Labeled)
    asked_first, *trained = run.network.seen
    assert asked_first.tolist() == [1, 3, 0], "the check before the first step"
    assert torch.cat(trained).eq(0).all()
    assert run.ema_network.seen[-1].tolist() == [1 + number % 3 for number in range(64)]


def test_images_and_labels_as_tensors_are_the_data_set(tmp_path: Path, discs: Dataset) -> None:
    runs = [
        train(tiny(tmp_path / name, conditional=True), data=data)
        for name, data in (("set", discs), ("pair", (discs.images, discs.labels)))
    ]
    assert runs[0].losses == runs[1].losses
    assert all(
        torch.equal(a, b) for a, b in zip(bits(runs[0].network), bits(runs[1].network), strict=True)
    )


def test_words_are_dropped_as_whole_sentences(sentences: tuple[Tensor, Tensor]) -> None:
    points, words = sentences
    network = ReadsWords()
    config = tiny(None, conditional=True, label_drop=0.25, batch_size=256)
    trainer = Trainer(config, network, (points, words), CPU, FP32)
    network.seen.clear()
    for _ in range(8):
        trainer.step()
    told = torch.cat(network.seen)
    nothing = (told == 0).all(1)
    assert torch.equal(nothing, (told == 0).any(1)), "a sentence is hidden whole or not at all"
    assert abs(nothing.double().mean().item() - 0.25) < 0.05  # 2048 draws: 5 standard errors
    assert len({tuple(row) for row in told[~nothing].tolist()}) > 200


def test_a_network_that_reads_words_is_trained_guided_saved_and_resumed(
    tmp_path: Path, sentences: tuple[Tensor, Tensor]
) -> None:
    points, words = sentences
    settings = {"conditional": True, "label_drop": 0.2, "batch_size": 64, "optimizer": "adamw"}

    def network() -> ReadsWords:
        torch.manual_seed(1)
        return ReadsWords()

    whole = train(
        tiny(tmp_path / "whole", steps=60, decay="constant", warmup=0.0, **settings),
        data=sentences,
        model=network(),
    )
    train(
        tiny(tmp_path / "parts", steps=25, decay="constant", warmup=0.0, **settings),
        data=sentences,
        model=network(),
    )
    parts = resume(tmp_path / "parts", data=sentences, model=network(), steps=60)
    assert parts.losses == whole.losses
    assert all(
        torch.equal(a, b) for a, b in zip(bits(parts.network), bits(whole.network), strict=True)
    )
    found = load_checkpoint(whole.path, network=network())
    asked, x, t = words[:4], torch.randn(4, 2, generator=seeded()), torch.tensor([900, 500, 9, 1])
    nothing = ReadsWords.no_condition.expand(4, 3)
    with torch.no_grad():
        told, untold = found.conditioned(asked)(x, t), found.conditioned(nothing)(x, t)
        model = labeled(found.network, found.schedule, found.card["target"])
        guided = guide(model, asked, 3.0, ReadsWords.no_condition)(x, t)
    torch.testing.assert_close(guided, untold + 3 * (told - untold))
    assert not torch.allclose(told, untold), "the words matter"
    other = words.clone()
    other[200, 2] = other[200, 2] % 9 + 1
    with pytest.raises(ValueError, match=r"data must be .*: labels_crc32 was \d+, is \d+"):
        resume(tmp_path / "parts", data=(points, other), model=network(), steps=70)


def test_captions_are_trained_on_guided_saved_and_resumed(tmp_path: Path) -> None:
    """A data set with captions builds the network that reads them."""
    data = scenes(40, size=8)
    settings = {"text": True, "text_width": 16, "label_drop": 0.2, "patch": 1, "weight": "v"}
    settings |= {"step_sampler": "noisy", "decay": "constant", "warmup": 0.0, "sample_every": 3}
    whole = train(tiny(tmp_path / "whole", steps=6, **settings), data=data)
    assert isinstance(whole.network, TextUNet)
    assert whole.config.conditional
    train(tiny(tmp_path / "parts", steps=2, **settings), data=data)
    parts = resume(tmp_path / "parts", data=data, steps=6)
    assert parts.losses == whole.losses
    found = load_checkpoint(whole.path)
    assert found.vocabulary == data.vocabulary
    words = data.words[:4]
    x, t = torch.randn(4, 3, 8, 8, generator=seeded()), torch.tensor([900, 500, 9, 1])
    nothing = whole.network.no_condition
    with torch.no_grad():
        told = found.conditioned(words)(x, t)
        untold = found.conditioned(nothing.expand(4, -1))(x, t)
        model = labeled(found.network, found.schedule, found.card["target"])
        guided = guide(model, words, 3.0, nothing)(x, t)
        assert torch.equal(found.model(x, t), untold), "nothing said is the empty sentence"
    torch.testing.assert_close(guided, untold + 3 * (told - untold), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(told, untold), "the words matter"
    with pytest.raises(ValueError, match=r"data must be .*: vocabulary was .*, is None"):
        resume(
            tmp_path / "parts", data=(data.images, data.words), model=TextUNet(3, 26, 12, (8, 16))
        )


@pytest.mark.plain_errors
def test_a_network_of_captions_is_asked_for_as_text(tmp_path: Path) -> None:
    labels = Dataset(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64), ("a",))
    for data, settings, message in (
        (labels, {"text": True}, "text needs a data set with captions, such as scenes"),
        (scenes(2, size=8), {"conditional": True}, "conditional needs labels; for captions ask f"),
    ):
        with pytest.raises(ValueError, match=message):
            train(tiny(tmp_path / "run", **settings), data=data)
    assert not (tmp_path / "run").exists()


X, Y = torch.zeros(6, 4, 8, 8), torch.arange(6)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("data", "settings", "error", "message"),
    [
        ([1.0], {}, TypeError, "data must be a Dataset, a tensor"),
        (X.double(), {}, TypeError, "data must be float32, got torch.float64"),
        (X[:0], {}, ValueError, r"data must have shape \(N, ...\), N >= 1; got \(0, 4, 8, 8\)"),
        (X / 0, {}, ValueError, "data must be finite"),
        ((X, Y.float()), {}, TypeError, "condition in data must be an int64 tensor, got torch.fl"),
        ((X, Y[:5]), {}, ValueError, r"condition in data must have shape \(6,\) or \(6, L\)"),
        ((X, -Y), {}, ValueError, "condition in data must be 0 or more"),
        (X, {"conditional": True}, ValueError, "conditional needs data with conditions"),
        ((X, X.long()[:, 0, 0]), {"conditional": True}, ValueError, "model must be given for cond"),
        (X[:, :, 0, 0], {}, ValueError, r"model must be given for data that are not \(N, C, H, W"),
        (X, {"sample_every": 1}, ValueError, "sample_every needs decode, .*6, 4, 8, 8"),
    ],
)
def test_wrong_data_are_named_before_anything_is_written(
    tmp_path: Path, data, settings: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(tiny(tmp_path / "run", **settings), data=data)
    assert not (tmp_path / "run").exists()


@pytest.mark.plain_errors
def test_a_network_must_say_which_row_means_no_condition(
    sentences: tuple[Tensor, Tensor],
) -> None:
    network, config = ReadsWords(), tiny(None, conditional=True)
    for row, error, message in (
        (None, ValueError, r"model must have no_condition, .* of shape \(3,\)"),
        (torch.zeros(3), TypeError, "no_condition of model must be an int64 tensor"),
        (torch.tensor(0), ValueError, r"no_condition of model must have shape \(3,\); got \(\)"),
    ):
        network.no_condition = row  # type: ignore[assignment]
        with pytest.raises(error, match=message):
            Trainer(config, network, sentences, CPU, FP32)


def test_a_network_is_built_for_the_channels_and_labels_of_the_data() -> None:
    built = new_network(tiny(None, conditional=True), (X, 2 * Y))
    assert built.config["in_channels"] == 4
    assert built.config["num_classes"] == 11
