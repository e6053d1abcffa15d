"""Images in shards: the same whatever the division, resumed after any end, refused if mixed up."""

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from tests.sealed_forms import FORMS, in_form
from tutorial_lib import _files, _sealed, _shards, checkpoints, sampling
from tutorial_lib._random import Streams, normal_like
from tutorial_lib._shards import MANIFEST
from tutorial_lib.checkpoints import Checkpoint, load_checkpoint
from tutorial_lib.cli import program as cli
from tutorial_lib.guidance import guide, labeled
from tutorial_lib.networks.unet import TinyUNet
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import SAMPLERS, SampleStep, ddim, ddpm, evenly_spaced, last
from tutorial_lib.sampling import Recipe, draw, read_shards, write_shards
from tutorial_lib.schedules import linear_schedule
from tutorial_lib.training import TrainConfig, train

pytestmark = pytest.mark.plain_errors
QUICK = Recipe(steps=4, batch=4, precision="fp32")
WALKS = {
    "ddim": QUICK,
    "ddim, eta 1": Recipe(steps=4, batch=4, eta=1.0, precision="fp32"),
    "ddpm": Recipe(sampler="ddpm", batch=4, precision="fp32"),
    "ddpm, beta": Recipe(sampler="ddpm", steps=6, variance="beta", batch=4, precision="fp32"),
    "euler": Recipe(sampler="euler", steps=4, batch=4, precision="fp32"),
    "euler_ancestral": Recipe(sampler="euler_ancestral", steps=4, batch=4, precision="fp32"),
    "heun": Recipe(sampler="heun", steps=4, spacing="karras", batch=4, precision="fp32"),
    "dpm_solver": Recipe(sampler="dpm_solver", steps=4, batch=4, precision="fp32"),
}
ROUNDING = 2e-5
"""Largest difference between batches of different sizes in fp32, in [-1, 1]; 2.9e-6 measured."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: small discs, three steps, with classes."""
    out = tmp_path_factory.mktemp("trained") / "run"
    config = TrainConfig(
        size=8,
        widths=(8, 8),
        batch_size=8,
        steps=3,
        num_steps=12,
        conditional=True,
        device="cpu",
        progress=False,
        out=out,
    )
    train(config)
    return out


@pytest.fixture(scope="module")
def checkpoint(run: Path) -> Checkpoint:
    return load_checkpoint(run)


def images_in(folder: Path) -> Tensor:
    return torch.cat([shard.images for shard in read_shards(folder)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def as_earlier_versions_wrote(folder: Path, left_out: tuple[str, ...] = ()) -> None:
    """Makes of samples what earlier versions wrote: no checksum in samples.json, no recipe in the
    shards."""
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["sha256"]
    for name in left_out:
        del manifest[name]
        manifest["decides"].remove(name)
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format": 2}))
    for path in folder.glob("shard-*.safetensors"):
        tensors, facts = _sealed.read(path)
        del facts["recipe"]
        _sealed.write(path, tensors, facts)


# --- the noise ------------------------------------------------------------------------------------


def test_a_stream_is_numpys_philox_with_the_key_of_seed_and_number():
    drawn = Streams(7, [3, 0]).normal((2, 4), torch.float64)
    for row, number in zip(drawn, (3, 0), strict=True):
        bits = np.random.Philox(key=np.array([7, number], np.uint64))
        expected = np.random.Generator(bits).standard_normal(4)
        assert_close(row, torch.from_numpy(expected), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_depends_on_seed_and_number_alone(dtype: torch.dtype):
    x = torch.empty(6, 3, 5, dtype=dtype)
    together = Streams(1, range(6))
    first, second = normal_like(x, together), normal_like(x, together)
    assert first.dtype == dtype
    for number in range(6):
        alone = Streams(1, [number])
        assert torch.equal(normal_like(x[:1], alone)[0], first[number])
        assert torch.equal(normal_like(x[:1], alone)[0], second[number])
    everything = torch.cat([first, second, normal_like(x, Streams(2, range(6)))]).flatten(1)
    assert len(everything.unique(dim=0)) == 18


def test_noise_is_standard_normal():
    noise = normal_like(torch.empty(2000, 50), Streams(0, range(2000))).double()
    error = 1 / np.sqrt(noise.numel())
    assert abs(float(noise.mean())) < 4 * error
    assert abs(float(noise.var()) - 1) < 4 * np.sqrt(2) * error
    between = torch.corrcoef(noise)  # of images
    off = between[~torch.eye(2000, dtype=torch.bool)]
    assert abs(float(off.std()) - 1 / np.sqrt(49)) < 1e-3


def test_seeds_that_torch_takes_for_the_same_are_different_here():
    """Torch's generator on the CPU sees the lowest 32 bits of a seed only."""
    far = [torch.randn(4, generator=torch.Generator().manual_seed(s)) for s in (1, 1 + 2**32)]
    assert torch.equal(*far)
    ours = [Streams(s, [0]).normal((1, 4), torch.float32) for s in (1, 1 + 2**32)]
    assert not torch.equal(*ours)


def test_streams_refuse_another_batch():
    with pytest.raises(ValueError, match="batch must have 2 members, got 3"):
        Streams(0, [0, 1]).normal((3, 4), torch.float32)


# --- the same images ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WALKS)
def test_image_i_is_the_same_in_any_batch(checkpoint: Checkpoint, name: str):
    recipe = WALKS[name]
    together = draw(checkpoint, recipe, range(8))
    assert together.shape == (8, 3, 8, 8)
    assert together.abs().max() <= 1
    for numbers in ([0], [5], [7, 2], [1, 2, 3, 4, 5, 6]):
        apart = draw(checkpoint, recipe, numbers)
        assert_close(apart, together[numbers], rtol=0, atol=ROUNDING)
    # the same size of batch: not even rounding differs, whoever the neighbors are
    assert torch.equal(draw(checkpoint, recipe, [9, 3, 8, 1, 7, 70, 71, 6])[1], together[3])


@pytest.mark.parametrize("name", WALKS)
def test_shards_are_the_same_bits_however_they_come_about(
    checkpoint: Checkpoint, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    recipe = WALKS[name]
    write_shards(checkpoint, recipe, tmp_path / "whole", 21, shard=8)
    whole = contents(tmp_path / "whole")
    assert sorted(whole) == [MANIFEST, *(f"shard-0000{i}.safetensors" for i in range(3))]
    # in two goes, the first one smaller
    assert write_shards(checkpoint, recipe, tmp_path / "grown", 11, shard=8).drawn == 11
    done = write_shards(checkpoint, recipe, tmp_path / "grown", 21, shard=8)
    assert (done.drawn, done.shards, done.found) == (13, 2, 1)
    assert contents(tmp_path / "grown") == whole
    # by three processes
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in (2, 0, 1):
        monkeypatch.setenv("RANK", str(rank))
        assert write_shards(checkpoint, recipe, tmp_path / "shared", 21, shard=8).shards == 1
    assert contents(tmp_path / "shared") == whole


def test_shards_hold_what_a_picture_would_and_the_classes(checkpoint: Checkpoint, tmp_path: Path):
    write_shards(checkpoint, QUICK, tmp_path / "s", 10, shard=6)
    drawn = draw(checkpoint, QUICK, range(10))
    shards = list(read_shards(tmp_path / "s"))
    assert [(shard.first, len(shard.images)) for shard in shards] == [(0, 6), (6, 4)]
    assert_close(torch.cat([s.images for s in shards]), drawn, rtol=0, atol=1 / 255 + ROUNDING)
    labels = torch.cat([s.labels for s in shards if s.labels is not None])
    assert labels.tolist() == [i % 6 for i in range(10)]
    write_shards(checkpoint, Recipe(steps=2, label="none"), tmp_path / "n", 2)
    assert next(read_shards(tmp_path / "n")).labels is None


def test_another_batch_differs_by_rounding(checkpoint: Checkpoint, tmp_path: Path):
    for batch in (1, 3, 8):
        recipe = Recipe(steps=4, batch=batch, precision="fp32")
        write_shards(checkpoint, recipe, tmp_path / str(batch), 12, shard=8)
    one = images_in(tmp_path / "1")
    for batch in ("3", "8"):
        difference = (images_in(tmp_path / batch) - one).abs()
        assert difference.max() <= 2 / 255 + 1e-6  # one level of 255 where rounding tips over
        assert (difference > 0).float().mean() < 0.001


MEASURED = """
import resource, sys, tempfile, torch
from pathlib import Path
from tutorial_lib import _files, sampling
from tutorial_lib.checkpoints import Checkpoint
from tutorial_lib.schedules import linear_schedule

kept, leak = [], sys.argv[1]

def keeping(work):
    return lambda *words: kept.append(result := work(*words)) or result

if leak == "batches":
    sampling.draw = keeping(sampling.draw)
elif leak == "files":  # a byte a number, the least that somebody could keep
    write = _files.write_whole
    _files.write_whole = lambda path, content: kept.append(content) or write(path, content)

def peak():
    if sys.platform == "linux":  # getrusage would count the process that has started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

card = {"weights": {"sha256": "none"}, "dataset": {"image_shape": [3, 32, 32], "class_names": []}}
network, schedule = torch.nn.Identity(), linear_schedule(10)
model = lambda x_t, t: torch.zeros_like(x_t)
checkpoint = Checkpoint(Path("none"), card, network, model, schedule)
recipe, peaks = sampling.Recipe(steps=1, batch=64, precision="fp32"), []
torch.set_num_threads(1)
for count in (2048, 16384):
    with tempfile.TemporaryDirectory() as folder:
        sampling.write_shards(checkpoint, recipe, folder, count, shard=256)
        for shard in sampling.read_shards(folder):
            if leak == "shards":
                kept.append(shard)
    peaks.append(peak())
print(*peaks)
"""
"""The most memory that a process has held after 2048 images and after 16384 more, in MiB."""
ROOM = 16
"""What the two may differ by, in MiB; 14336 images more are 42 MiB as bytes, 168 as float32."""


def growth_of_memory(leak: str) -> float:
    words = [sys.executable, "-c", MEASURED, leak]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    first, second = map(float, done.stdout.split())
    return second - first


def test_eight_times_the_images_take_no_more_memory():
    assert growth_of_memory("none") < ROOM


@pytest.mark.parametrize("leak", ["batches", "files", "shards"])
def test_a_leak_of_images_would_be_seen(leak: str):
    """The measurement of the test above, with somebody who keeps what goes by."""
    assert growth_of_memory(leak) > 2 * ROOM


# --- guidance and conditions ----------------------------------------------------------------------


def by_hand(checkpoint: Checkpoint, recipe: Recipe, condition: Tensor, no_condition: Tensor | int):
    """Images 0, 1, ... drawn with guidance as lesson 8 does it, from the same noise."""
    schedule = checkpoint.schedule
    both = labeled(checkpoint.network, schedule, checkpoint.card["target"])
    model = clip_x0(guide(both, condition, recipe.guidance, no_condition), schedule)
    streams = Streams(recipe.seed, range(len(condition)))
    x_T = normal_like(torch.empty(len(condition), *checkpoint.image_shape), streams)
    if recipe.sampler == "ddpm":
        steps = ddpm(model, schedule, x_T, variance=recipe.variance, generator=streams)
    else:
        timesteps = evenly_spaced(schedule.num_steps, 4)
        steps = ddim(model, schedule, x_T, timesteps, eta=recipe.eta, generator=streams)
    return last(steps).clamp(-1, 1)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", ["ddim", "ddim, eta 1", "ddpm"])
def test_guided_images_are_those_drawn_by_hand(checkpoint: Checkpoint, name: str, scale: float):
    recipe = dataclasses.replace(WALKS[name], guidance=scale)
    assert torch.equal(
        draw(checkpoint, recipe, range(8)),  # classes take turns: six, then the first two again
        by_hand(checkpoint, recipe, torch.arange(8) % 6, 6),
    )
    one = dataclasses.replace(recipe, label="blue")
    blue = checkpoint.class_names.index("blue")
    expected = by_hand(checkpoint, one, torch.full((5,), blue), 6)
    assert torch.equal(draw(checkpoint, one, range(5)), expected)


def test_scale_1_is_the_plain_walk_and_0_that_without_a_class(checkpoint: Checkpoint):
    told = dataclasses.replace(QUICK, label="red")
    plain = draw(checkpoint, told, range(4))
    assert torch.equal(draw(checkpoint, dataclasses.replace(told, guidance=1), range(4)), plain)
    nothing = draw(checkpoint, dataclasses.replace(told, guidance=0), range(4))
    without = draw(checkpoint, dataclasses.replace(QUICK, label="none"), range(4))
    assert_close(nothing, without, rtol=0, atol=ROUNDING)
    pushed = draw(checkpoint, dataclasses.replace(told, guidance=40.0), range(4))
    assert (pushed - plain).abs().max() > 0.01


@pytest.mark.parametrize(("scale", "rows"), [(0.0, 3), (1.0, 3), (0.5, 6), (2.0, 6)])
def test_guidance_is_one_call_a_step(checkpoint: Checkpoint, scale: float, rows: int):
    sizes = []
    hook = checkpoint.network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    draw(checkpoint, dataclasses.replace(QUICK, guidance=scale), range(3))
    hook.remove()
    assert sizes == [rows] * 4


def test_shards_of_another_guidance_are_refused(checkpoint: Checkpoint, tmp_path: Path):
    folder, guided = tmp_path / "s", dataclasses.replace(QUICK, guidance=3.0)
    write_shards(checkpoint, guided, folder, 4, shard=4)
    assert_close(images_in(folder), draw(checkpoint, guided, range(4)), rtol=0, atol=1 / 255)
    assert json.loads((folder / MANIFEST).read_text())["guidance"] == 3
    assert write_shards(checkpoint, guided, folder, 8, shard=4).found == 1
    with pytest.raises(ValueError, match=r"^guidance: .* begun with 3.0, now it is 1.0"):
        write_shards(checkpoint, QUICK, folder, 8, shard=4)


def test_shards_of_another_spacing_are_refused(checkpoint: Checkpoint, tmp_path: Path):
    write_shards(checkpoint, dataclasses.replace(QUICK, spacing="karras"), tmp_path, 4, shard=4)
    with pytest.raises(ValueError, match=r"^spacing: .* begun with karras, now it is even"):
        write_shards(checkpoint, QUICK, tmp_path, 8, shard=4)


def test_a_manifest_without_guidance_means_none(checkpoint: Checkpoint, tmp_path: Path):
    write_shards(checkpoint, QUICK, tmp_path, 4, shard=4)
    as_earlier_versions_wrote(tmp_path, left_out=("guidance", "condition", "spacing"))
    with pytest.warns(UserWarning, match="of an earlier version"):
        assert write_shards(checkpoint, QUICK, tmp_path, 4, shard=4).found == 1
    with (
        pytest.warns(UserWarning, match=r"samples.json is of an earlier version"),
        pytest.raises(ValueError, match=r"^guidance: .* begun with 1.0, now it is 2.0"),
    ):
        write_shards(checkpoint, dataclasses.replace(QUICK, guidance=2.0), tmp_path, 4, shard=4)


def test_guidance_needs_something_to_insist_on(
    run: Path, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    message = r"guidance must be 1, got 3: no class is asked for; choose one with label"
    recipe = Recipe(guidance=3.0, label="none")
    with pytest.raises(ValueError, match=message):
        draw(checkpoint, recipe, [0])
    with pytest.raises(ValueError, match=message):
        write_shards(checkpoint, recipe, tmp_path / "s", 1)
    words = ["sample", str(run), "--guidance", "3", "--label", "none", "--shards"]
    assert cli.main([*words, str(tmp_path / "s")]) == 1
    assert re.fullmatch(rf"error: {message}\n", capsys.readouterr().err)
    assert not (tmp_path / "s").exists()
    plain = Checkpoint(
        tmp_path / "plain.safetensors",
        checkpoint.card,
        TinyUNet(3, (8, 8)),
        checkpoint.model,
        checkpoint.schedule,
    )
    with pytest.raises(ValueError, match=r"got 3: plain\.safetensors was trained without classes"):
        draw(plain, Recipe(guidance=3.0), [0])


def test_the_command_line_draws_guided_images(run: Path, checkpoint: Checkpoint, tmp_path: Path):
    words = ["sample", str(run), "--guidance", "3", "--label", "green", "--steps", "4"]
    words += ["--precision", "fp32", "--device", "cpu", "--count", "6"]
    out, tensors = tmp_path / "g.png", tmp_path / "g.safetensors"
    assert cli.main([*words, "--out", str(out), "--tensors", str(tensors)]) == 0
    green = checkpoint.class_names.index("green")
    recipe = dataclasses.replace(QUICK, guidance=3.0, label="green")
    expected = by_hand(checkpoint, recipe, torch.full((6,), green), 6)
    assert torch.equal(safetensors.torch.load_file(tensors)["images"], expected)
    number = [str(green) if word == "green" else word for word in words]
    assert cli.main([*number, "--no-progress", "--shards", str(tmp_path / "s")]) == 0
    assert_close(images_in(tmp_path / "s"), expected, rtol=0, atol=1 / 255 + ROUNDING)


class Reader(torch.nn.Module):
    """A network that is told three words: they set the brightness of each channel."""

    no_condition = torch.zeros(3, dtype=torch.int64)

    def forward(self, x_t: Tensor, t: Tensor, words: Tensor | None = None) -> Tensor:
        words = self.no_condition.expand(len(x_t), 3) if words is None else words
        return torch.tanh(x_t) - 0.1 * words[:, :, None, None]


@pytest.fixture
def reader() -> Checkpoint:
    card = {
        "weights": {"sha256": "0" * 64},
        "dataset": {"name": "words", "image_shape": [3, 8, 8], "class_names": []},
        "target": "eps",
    }
    network, schedule = Reader(), linear_schedule(12, 0.01, 0.4)
    return Checkpoint(Path("reader.safetensors"), card, network, network, schedule)


SENTENCES = torch.arange(30).reshape(10, 3) % 7


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_words_are_a_condition_like_labels(reader: Checkpoint, scale: float):
    recipe = dataclasses.replace(QUICK, guidance=scale)
    drawn = draw(reader, recipe, range(10), SENTENCES)
    assert torch.equal(drawn, by_hand(reader, recipe, SENTENCES, Reader.no_condition))
    apart = draw(reader, recipe, [7, 2], SENTENCES[[7, 2]])
    assert_close(apart, drawn[[7, 2]], rtol=0, atol=ROUNDING)


def test_labels_may_be_given_as_a_condition(checkpoint: Checkpoint):
    labels = torch.tensor([3, 3, 0, 5])
    together = draw(checkpoint, QUICK, range(4), labels)
    for number, label in enumerate(labels.tolist()):
        alone = draw(checkpoint, dataclasses.replace(QUICK, label=str(label)), [number])
        assert_close(alone[0], together[number], rtol=0, atol=ROUNDING)


def test_shards_of_words_are_resumed_and_refused_for_other_words(
    reader: Checkpoint, tmp_path: Path
):
    recipe, folder = dataclasses.replace(QUICK, guidance=2.0), tmp_path / "s"
    assert write_shards(reader, recipe, folder, 6, condition=SENTENCES[:6], shard=4).shards == 2
    done = write_shards(reader, recipe, folder, 10, condition=SENTENCES, shard=4)
    assert (done.found, done.shards) == (1, 2)
    shards = list(read_shards(folder))
    assert torch.equal(torch.cat([s.labels for s in shards if s.labels is not None]), SENTENCES)
    expected = draw(reader, recipe, range(10), SENTENCES)
    assert_close(images_in(folder), expected, rtol=0, atol=1 / 255 + ROUNDING)
    before = contents(folder)
    for other in (SENTENCES.flip(0), SENTENCES[:, :1].squeeze(1)):
        with pytest.raises(ValueError, match=r"^condition: the samples in .* were begun with"):
            write_shards(reader, recipe, folder, 10, condition=other, shard=4)
    with pytest.raises(ValueError, match=r"^guidance must be 1, got 2: no class is asked for"):
        write_shards(reader, recipe, folder, 10, shard=4)
    with pytest.raises(ValueError, match=r"^count must be at least 10, .* got 9; for fewer"):
        write_shards(reader, recipe, folder, 9, condition=SENTENCES[:9], shard=4)
    assert contents(folder) == before
    write_shards(reader, QUICK, tmp_path / "plain", 6, condition=SENTENCES[:6], shard=4)
    with pytest.raises(ValueError, match=r"^condition: the samples in .* now it is None"):
        write_shards(reader, QUICK, tmp_path / "plain", 6, shard=4)


WRONG_CONDITIONS: list[tuple[Any, Recipe, str]] = [
    (SENTENCES.float(), QUICK, "condition must be an int64 tensor, got torch.float32"),
    ([[1, 2, 3]], QUICK, "condition must be an int64 tensor, got list"),
    (SENTENCES[:3], QUICK, r"condition must have shape \(10,\) or \(10, L\).*; got \(3, 3\)"),
    (SENTENCES[None], QUICK, r"condition must have shape .*; got \(1, 10, 3\)"),
    (SENTENCES, Recipe(label="red"), "condition and label must not both be given, got .*'red'"),
]


@pytest.mark.parametrize(("condition", "recipe", "message"), WRONG_CONDITIONS)
def test_wrong_conditions_are_named(
    reader: Checkpoint, tmp_path: Path, condition: Any, recipe: Recipe, message: str
):
    with pytest.raises((ValueError, TypeError), match=message):
        draw(reader, recipe, range(10), condition)
    with pytest.raises((ValueError, TypeError), match=message):
        write_shards(reader, recipe, tmp_path / "s", 10, condition=condition)
    assert not (tmp_path / "s").exists()


# --- a new sampler --------------------------------------------------------------------------------


def toy(model, schedule, x_T, timesteps, *, generator=None):
    """A sampler that asks once and believes the answer."""
    t = next(iter(timesteps))
    with torch.no_grad():
        eps_hat = model(x_T, torch.full((len(x_T),), t))
    x0_hat = (x_T - schedule.noise_rate[t] * eps_hat) / schedule.signal_rate[t]
    yield SampleStep(0, x0_hat.to(x_T), eps_hat, x0_hat)


def test_a_new_sampler_is_one_function_and_one_entry(
    run: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ValueError, match=r"sampler must be one of ddim, .*; got 'toy'"):
        Recipe(sampler="toy")
    monkeypatch.setitem(SAMPLERS, "toy", toy)
    drawn = draw(checkpoint, Recipe(sampler="toy", precision="fp32"), range(6))
    x_T = normal_like(torch.empty(6, 3, 8, 8), Streams(0, range(6)))
    clipped = clip_x0(checkpoint.conditioned(torch.arange(6)), checkpoint.schedule)
    (expected,) = toy(clipped, checkpoint.schedule, x_T, [checkpoint.schedule.num_steps])
    assert torch.equal(drawn, expected.x_t.clamp(-1, 1))
    assert not torch.equal(drawn, draw(checkpoint, Recipe(precision="fp32"), range(6)))
    # from the command line, into a picture and into shards, whose manifest leaves out what the
    # sampler does not read
    words = ["sample", str(run), "--sampler", "toy", "--count", "6", "--precision", "fp32"]
    words += ["--device", "cpu"]
    picture = ["--out", str(tmp_path / "g.png"), "--tensors", str(tmp_path / "g.safetensors")]
    assert cli.main([*words, *picture]) == 0
    assert torch.equal(safetensors.torch.load_file(tmp_path / "g.safetensors")["images"], drawn)
    assert cli.main([*words, "--no-progress", "--shards", str(tmp_path / "s")]) == 0
    assert_close(images_in(tmp_path / "s"), drawn, rtol=0, atol=1 / 255 + ROUNDING)
    manifest = json.loads((tmp_path / "s" / MANIFEST).read_text())
    assert manifest["sampler"] == "toy"
    assert manifest["steps"] == 12  # T, since it is below 50
    assert not {"eta", "variance"} & manifest.keys()


# --- resumed --------------------------------------------------------------------------------------

PROGRAM = """
import sys
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.sampling import Recipe, write_shards
recipe = Recipe(steps=4, batch=4, precision="fp32")
print("go", flush=True)
write_shards(load_checkpoint(sys.argv[1]), recipe, sys.argv[2], 64, shard=4)
"""


def test_a_run_that_is_killed_goes_on_to_the_same_bits(
    run: Path, checkpoint: Checkpoint, tmp_path: Path
):
    write_shards(checkpoint, QUICK, tmp_path / "whole", 64, shard=4)
    begun = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(run), str(tmp_path / "killed")], stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "shard-00002.safetensors").exists():
        assert begun.poll() is None or begun.returncode == 0
        assert time.monotonic() < deadline
        time.sleep(0.001)
    begun.send_signal(signal.SIGKILL)
    begun.communicate(timeout=60)
    done = write_shards(checkpoint, QUICK, tmp_path / "killed", 64, shard=4)
    assert done.found >= 3
    kept = contents(tmp_path / "killed")
    assert {k: v for k, v in kept.items() if ".tmp" not in k} == contents(tmp_path / "whole")


DAMAGES = ("empty", "cut", "flipped", "longer", "dtype", "shape", "another", "not ours", "a state")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_shard_is_noticed_and_drawn_anew(
    checkpoint: Checkpoint, tmp_path: Path, how: str
):
    folder = tmp_path / "s"
    write_shards(checkpoint, QUICK, folder, 12, shard=4)
    before = contents(folder)
    path = folder / "shard-00001.safetensors"
    content = path.read_bytes()
    damage(path, how, content)
    with pytest.raises(ValueError, match=r"shard-00001.safetensors is damaged; draw it with"):
        list(read_shards(folder))
    with pytest.warns(UserWarning, match=r"shard-00001.safetensors is damaged and is drawn again"):
        done = write_shards(checkpoint, QUICK, folder, 12, shard=4)
    assert (done.drawn, done.found) == (4, 2)
    assert contents(folder) == before


@pytest.mark.parametrize("form", FORMS)
def test_shards_of_earlier_versions_are_read(checkpoint: Checkpoint, tmp_path: Path, form: str):
    write_shards(checkpoint, QUICK, tmp_path, 8, shard=4)
    expected = list(read_shards(tmp_path))
    for path in tmp_path.glob("shard-*.safetensors"):
        path.write_bytes(in_form(form, path.read_bytes()))
    for found, shard in zip(read_shards(tmp_path), expected, strict=True):
        assert found.first == shard.first
        assert torch.equal(found.images, shard.images)
    assert write_shards(checkpoint, QUICK, tmp_path, 8, shard=4).drawn == 0


def test_damage_anywhere_in_a_shard_is_noticed(checkpoint: Checkpoint, tmp_path: Path):
    """Header, numbers, checksum: each byte with one bit flipped, and each length it is cut to."""
    write_shards(checkpoint, QUICK, tmp_path, 2, shard=2)
    path = tmp_path / "shard-00000.safetensors"
    content = path.read_bytes()
    assert _shards.look(path, range(2)).state == "whole"
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*range(header), *range(header, len(content), 29), len(content) - 1]
    for place in places:
        flipped = content[place] ^ (1 << place % 8)
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        assert _shards.look(path, range(2)) == ("damaged", {}, None), f"byte {place}"
        path.write_bytes(content[:place])
        assert _shards.look(path, range(2)) == ("damaged", {}, None), f"cut to {place}"


def test_a_shard_that_is_missing_or_incomplete_is_drawn_without_a_warning(
    checkpoint: Checkpoint, tmp_path: Path
):
    write_shards(checkpoint, QUICK, tmp_path / "whole", 8, shard=4)
    folder = tmp_path / "s"
    write_shards(checkpoint, QUICK, folder, 6, shard=4)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["sha256"]
    (folder / MANIFEST).write_bytes(_shards.sealed_manifest({**manifest, "count": 8}))
    with pytest.raises(ValueError, match=r"shard-00001.safetensors is incomplete; draw it with"):
        list(read_shards(folder))
    (folder / "shard-00000.safetensors").unlink()
    with pytest.raises(ValueError, match=r"shard-00000.safetensors is missing; draw it with"):
        list(read_shards(folder))
    assert write_shards(checkpoint, QUICK, folder, 8, shard=4).drawn == 8
    assert contents(folder) == contents(tmp_path / "whole")


def damage(path: Path, how: str, content: bytes) -> None:
    if how == "another":
        path.write_bytes((path.parent / "shard-00000.safetensors").read_bytes())
    elif how == "not ours":
        path.write_bytes(safetensors.torch.save({"weights": torch.zeros(3)}))
    elif how == "a state":  # sealed, but not a shard
        _sealed.write(path, {"weights": torch.zeros(3)}, {"format": 1, "step": 4})
    else:
        damaged = {
            "empty": b"",
            "cut": content[:-5],
            "flipped": content[:-1] + bytes([content[-1] ^ 1]),
            "longer": content + b"0",
            "dtype": content.replace(b'"U8"', b'"I8"'),  # of the same bytes
            "shape": content.replace(b"[4,3,8,8]", b"[4,8,3,8]"),
        }
        assert damaged[how] != content
        path.write_bytes(damaged[how])


REFUSED = {
    "seed": Recipe(steps=4, batch=4, precision="fp32", seed=1),
    "steps": Recipe(steps=5, batch=4, precision="fp32"),
    "sampler": Recipe(steps=4, batch=4, precision="fp32", sampler="ddpm"),
    "eta": Recipe(steps=4, batch=4, precision="fp32", eta=0.5),
    "clip": Recipe(steps=4, batch=4, precision="fp32", clip=False),
    "label": Recipe(steps=4, batch=4, precision="fp32", label="red"),
    "precision": Recipe(steps=4, batch=4, precision="bf16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_samples_of_another_recipe_are_refused(checkpoint: Checkpoint, tmp_path: Path, name: str):
    folder = tmp_path / "s"
    write_shards(checkpoint, QUICK, folder, 4, shard=4)
    before = contents(folder)
    with pytest.raises(
        ValueError, match=f"^{name}: the samples in .* were begun with .*, now it is"
    ):
        write_shards(checkpoint, REFUSED[name], folder, 8, shard=4)
    assert contents(folder) == before


def test_what_decides_nothing_may_change(checkpoint: Checkpoint, tmp_path: Path):
    write_shards(checkpoint, QUICK, tmp_path / "s", 4, shard=4)
    other = Recipe(steps=4, batch=2, precision="fp32", variance="beta")  # ddim reads no variance
    assert write_shards(checkpoint, other, tmp_path / "s", 8, shard=4).drawn == 4


def test_another_checkpoint_shard_or_count_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, run: Path
):
    folder = tmp_path / "s"
    write_shards(checkpoint, QUICK, folder, 8, shard=4)
    with pytest.raises(ValueError, match=r"^shard: .* begun with 4, now it is 2"):
        write_shards(checkpoint, QUICK, folder, 8, shard=2)
    with pytest.raises(ValueError, match=r"^count must be at least 8, .* got 7; for fewer remove"):
        write_shards(checkpoint, QUICK, folder, 7, shard=4)
    with torch.no_grad():
        next(checkpoint.network.parameters()).mul_(1.01)
    card = checkpoint.card
    path = checkpoints.save_checkpoint(
        tmp_path / "other",
        checkpoint.network,
        checkpoint.schedule,
        target=card["target"],
        card={"dataset": card["dataset"]},
    )
    with torch.no_grad():
        next(checkpoint.network.parameters()).div_(1.01)
    with pytest.raises(ValueError, match=r"^checkpoint: the samples in .* were begun with"):
        write_shards(load_checkpoint(path), QUICK, folder, 8, shard=4)


def test_a_folder_of_something_else_is_left_alone(checkpoint: Checkpoint, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="shards must be a new or an empty folder"):
        write_shards(checkpoint, QUICK, tmp_path, 4)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}
    with pytest.raises(ValueError, match=r"must hold samples, got .* without samples.json"):
        next(read_shards(tmp_path))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 2, "count": "4", "shard": 1}']
)
def test_a_damaged_manifest_is_named(checkpoint: Checkpoint, tmp_path: Path, text: str):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ValueError, match=r"samples.json is damaged"):
        write_shards(checkpoint, QUICK, tmp_path, 4)
    (tmp_path / MANIFEST).write_text(json.dumps({"format": 1, "count": 4}))
    with pytest.raises(ValueError, match="has format 1, this library reads 2 and 3"):
        write_shards(checkpoint, QUICK, tmp_path, 4)


def test_wrong_arguments_are_named(checkpoint: Checkpoint, tmp_path: Path):
    with pytest.raises(ValueError, match="count must be at least 1"):
        write_shards(checkpoint, QUICK, tmp_path / "s", 0)
    with pytest.raises(ValueError, match="steps must be at most 12, the checkpoint's T; got 13"):
        write_shards(checkpoint, Recipe(steps=13), tmp_path / "s", 1)
    with pytest.raises(ValueError, match="label must be one of red"):
        draw(checkpoint, Recipe(label="pink"), [0])
    with pytest.raises(ValueError, match="numbers must hold at least one"):
        draw(checkpoint, QUICK, [])
    with pytest.raises(ValueError, match="label must be one of red"):
        write_shards(checkpoint, Recipe(label="pink"), tmp_path / "s", 1)
    assert not (tmp_path / "s").exists()


WRONG: list[tuple[str, object, str]] = [
    ("precision", "fp8", "precision must be one of auto, fp32, bf16, fp16; got 'fp8'"),
    ("precision", 16, "precision must be one of .* got 16"),
    ("sampler", None, "sampler must be one of .* got None"),
    ("variance", 1.0, "variance must be one of .* got 1.0"),
    ("label", 7, "label must be a str, got int 7"),
    ("clip", "no", "clip must be True or False, got str 'no'"),
    ("steps", 4.0, "steps must be an int, got float 4.0"),
    ("batch", "8", "batch must be an int, got str '8'"),
    ("seed", None, "seed must be an int, got NoneType None"),
    ("eta", "0", "eta must be a number, got str '0'"),
    ("guidance", "3", "guidance must be a number, got str '3'"),
    ("guidance", -0.5, "guidance must be finite and at least 0, got -0.5"),
    ("guidance", float("nan"), "guidance must be finite and at least 0, got nan"),
    ("guidance", float("inf"), "guidance must be finite and at least 0, got inf"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_wrong_fields_of_a_recipe_are_named(name: str, value: Any, message: str):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        Recipe(**{name: value})


def test_numbers_of_numpy_are_numbers(checkpoint: Checkpoint, tmp_path: Path):
    recipe = Recipe(steps=np.int64(4), batch=4, seed=np.uint8(0), eta=np.float32(0))  # pyright: ignore[reportArgumentType]
    write_shards(checkpoint, recipe, tmp_path / "s", 4)
    assert write_shards(checkpoint, Recipe(steps=4), tmp_path / "s", 4).found == 1


def test_a_class_may_be_given_by_its_number(checkpoint: Checkpoint, tmp_path: Path):
    names = checkpoint.class_names
    for number, name in enumerate(names):
        assert sampling.labels_of(checkpoint, Recipe(label=str(number)), [5, 7]) is not None
        write_shards(checkpoint, Recipe(steps=1, label=name), tmp_path / name, 1)
        again = Recipe(steps=1, label=str(number))
        assert write_shards(checkpoint, again, tmp_path / name, 1).found == 1


def test_a_shard_that_cannot_be_written_is_named_and_those_before_it_stay(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = _files.write_whole

    def full(path: Path, content: bytes) -> None:
        if path.name == "shard-00001.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(_files, "write_whole", full)
    message = r"cannot write .*shard-00001.safetensors: No space left on device; resume"
    with pytest.raises(OSError, match=message):
        write_shards(checkpoint, QUICK, tmp_path / "s", 12, shard=4)
    monkeypatch.undo()
    done = write_shards(checkpoint, QUICK, tmp_path / "s", 12, shard=4)
    assert (done.found, done.drawn) == (1, 8)


# --- what shards say about themselves ------------------------------------------------------------


OTHERS = [*REFUSED, "checkpoint", "shard"]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("manifest", ["deleted", "there"])
def test_shards_of_other_samples_are_refused_by_name(
    checkpoint: Checkpoint, tmp_path: Path, name: str, manifest: str
):
    """A shard of other samples is copied into a folder, or samples.json is deleted and the folder
    resumed with another recipe."""
    folder, other = tmp_path / "s", tmp_path / "other"
    shard = 2 if name == "shard" else 4
    strange = checkpoint
    if name == "checkpoint":
        card = {**checkpoint.card, "weights": {"sha256": "f" * 64}}
        strange = dataclasses.replace(checkpoint, card=card)
    write_shards(checkpoint, QUICK, folder, 8, shard=4)
    write_shards(strange, REFUSED.get(name, QUICK), other, 4, shard=shard)
    if manifest == "deleted":
        (folder / MANIFEST).unlink()
    else:
        shutil.copy(folder / MANIFEST, other / MANIFEST)
        with pytest.raises(ValueError, match=rf"{'incomplete' if shard == 2 else name}"):
            list(read_shards(other))
    (folder / "shard-00001.safetensors").unlink()
    shutil.copy(other / "shard-00000.safetensors", folder)
    before = contents(folder)
    with pytest.raises(ValueError, match=rf"^{name}: .*shard-00000.safetensors was drawn with"):
        write_shards(checkpoint, QUICK, folder, 8, shard=4)
    assert contents(folder) == before


def test_shards_of_other_words_are_refused_without_samples_json(reader: Checkpoint, tmp_path: Path):
    write_shards(reader, QUICK, tmp_path, 10, condition=SENTENCES, shard=4)
    (tmp_path / MANIFEST).unlink()
    before = contents(tmp_path)
    for other in ((SENTENCES + 1) % 7, None):
        with pytest.raises(ValueError, match=r"^condition: .*shard-.* for other labels or"):
            write_shards(reader, QUICK, tmp_path, 10, condition=other, shard=4)
        assert contents(tmp_path) == before


def test_samples_json_is_written_again_from_the_same_command(
    checkpoint: Checkpoint, tmp_path: Path
):
    write_shards(checkpoint, QUICK, tmp_path, 8, shard=4)
    before = contents(tmp_path)
    (tmp_path / MANIFEST).unlink()
    assert write_shards(checkpoint, QUICK, tmp_path, 8, shard=4).found == 2
    assert contents(tmp_path) == before


def test_of_two_recipes_that_begin_a_folder_at_once_one_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The other one writes samples.json just before this one does."""
    real = _files.write_new

    def too_late(path: Path, content: bytes) -> bool:
        monkeypatch.setattr(_files, "write_new", real)
        write_shards(checkpoint, REFUSED["seed"], tmp_path / "s", 4, shard=4)
        return real(path, content)

    monkeypatch.setattr(_files, "write_new", too_late)
    with pytest.raises(ValueError, match=r"^seed: .* were begun with 1, now it is 0"):
        write_shards(checkpoint, QUICK, tmp_path / "s", 4, shard=4)
    assert [shard.first for shard in read_shards(tmp_path / "s")] == [0]


def test_a_flipped_bit_of_samples_json_is_noticed(checkpoint: Checkpoint, tmp_path: Path):
    write_shards(checkpoint, QUICK, tmp_path, 4, shard=4)
    path = tmp_path / MANIFEST
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = content[place] ^ (1 << place % 8)
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        with pytest.raises(ValueError, match=MANIFEST):
            _shards.read_manifest(tmp_path)


def test_samples_of_earlier_versions_load_with_a_word(checkpoint: Checkpoint, tmp_path: Path):
    write_shards(checkpoint, QUICK, tmp_path, 8, shard=4)
    expected = images_in(tmp_path)
    as_earlier_versions_wrote(tmp_path)
    for read in (
        lambda: images_in(tmp_path),
        lambda: write_shards(checkpoint, QUICK, tmp_path, 8, shard=4) and images_in(tmp_path),
    ):
        with warnings.catch_warnings(record=True) as words:
            warnings.simplefilter("always")
            assert torch.equal(read(), expected)
        first, second = [str(word.message) for word in words][:2]
        assert re.search(r"samples.json is of an earlier version and cannot be verified", first)
        assert re.search(r"2 shards in .* do not say which seed and checkpoint they are of", second)


# --- how many -------------------------------------------------------------------------------------


def test_a_count_that_was_too_large_can_be_taken_back(checkpoint: Checkpoint, tmp_path: Path):
    """Down to what has been drawn; for less, the message says which files to remove."""
    condition = torch.arange(40) % 6
    write_shards(checkpoint, QUICK, tmp_path / "whole", 9, condition=condition[:9], shard=4)
    folder = tmp_path / "s"
    write_shards(checkpoint, QUICK, folder, 40, condition=condition, shard=4)
    for place in range(3, 10):
        (folder / f"shard-{place:05d}.safetensors").unlink()
    message = (
        r"^count must be at least 12, the images that are in .*, got 9; for fewer remove "
        r"shard-00002.safetensors$"
    )
    with pytest.raises(ValueError, match=message):
        write_shards(checkpoint, QUICK, folder, 9, condition=condition[:9], shard=4)
    (folder / "shard-00002.safetensors").unlink()
    done = write_shards(checkpoint, QUICK, folder, 9, condition=condition[:9], shard=4)
    assert (done.found, done.drawn) == (2, 1)
    assert contents(folder) == contents(tmp_path / "whole")


def test_memory_does_not_depend_on_the_count(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class EnoughError(Exception):
        pass

    def stop(*_: object) -> None:
        raise EnoughError

    monkeypatch.setattr(sampling, "_check_disk", lambda *_: None)
    monkeypatch.setattr(sampling, "_write_shard", stop)
    tracemalloc.start()
    try:
        with pytest.raises(EnoughError):
            write_shards(checkpoint, QUICK, tmp_path / "s", 10**18)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_the_shares_of_all_processes_are_all_images(processes: int):
    for count in (1, 3, 4, 5, 16, 17, 10**18 + 1):
        shares = [_shards.share_of(count, 4, rank, processes) for rank in range(processes)]
        assert sum(shares) == count
    places = [numbers for _, numbers in _shards.places(Path(), 17, 4)]
    shares = [sum(map(len, places[rank::processes])) for rank in range(processes)]
    assert shares == [_shards.share_of(17, 4, rank, processes) for rank in range(processes)]


TOO_LARGE: list[tuple[dict[str, Any], str]] = [
    ({"count": 10**18}, r"count must fit on the disk, got 1000000000000000000: .* of images"),
    ({"count": 10**5000}, r"count must be at most 18446744073709551616, got about 10\^"),
    ({"recipe": Recipe(steps=4, batch=10**7)}, "batch must be at most 1024, got 10000000: more"),
]


@pytest.mark.parametrize(("given", "message"), TOO_LARGE)
def test_what_cannot_work_is_refused_before_anything_is_written(
    checkpoint: Checkpoint, tmp_path: Path, given: dict[str, Any], message: str
):
    arguments = {"recipe": QUICK, "count": 4, **given}
    with pytest.raises(ValueError, match=f"^{message}"):
        write_shards(checkpoint, folder=tmp_path / "s", **arguments)
    assert not (tmp_path / "s").exists()


WRONG_NUMBERS: list[tuple[Any, str]] = [
    ([-1], "each of numbers must be at least 0, got -1"),
    ([0, 2**64], "each of numbers must be at most 18446744073709551615"),
    (range(2**64 - 1, 2**64 + 1), "each of numbers must be at most"),
    (range(10**13), r"numbers must fit in memory, got 10000000000000: a batch of so many images"),
    ([0.5], "each of numbers must be an int, got float 0.5"),
    (None, "numbers must be a sequence of ints, got NoneType None"),
    ("012", "numbers must be a sequence of ints, got str '012'"),
]


@pytest.mark.parametrize(("numbers", "message"), WRONG_NUMBERS)
def test_wrong_numbers_of_images_are_named(checkpoint: Checkpoint, numbers: Any, message: str):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        draw(checkpoint, QUICK, numbers)


@pytest.mark.parametrize("recipe", [None, "x", {}])
def test_what_is_no_recipe_is_named(checkpoint: Checkpoint, tmp_path: Path, recipe: Any):
    for work in (
        lambda: draw(checkpoint, recipe, [0]),
        lambda: write_shards(checkpoint, recipe, tmp_path / "s", 1),
    ):
        with pytest.raises(TypeError, match=r"^recipe must be a Recipe, got"):
            work()


# --- the command line -----------------------------------------------------------------------------


def test_the_command_writes_shards_and_goes_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["sample", str(run), "--steps", "4", "--batch", "8", "--device", "cpu", "--no-progress"]
    words += ["--shards", str(tmp_path / "s")]
    assert cli.main([*words, "--count", "20"]) == 0
    assert "20 images in" in capsys.readouterr().out
    assert cli.main([*words, "--count", "1030"]) == 0
    assert "written: 2 shards" in capsys.readouterr().out
    assert cli.main([*words, "--count", "1030"]) == 0
    assert "written: 0 shards in" in (said := capsys.readouterr().out)
    assert "2 were there already" in said
    assert len(images_in(tmp_path / "s")) == 1030
    assert cli.main([*words, "--count", "1030", "--seed", "4"]) == 1
    assert "error: seed: the samples in" in capsys.readouterr().err
    # an image of a shard is that of a grid
    grid = ["sample", str(run), "--steps", "4", "--count", "9", "--device", "cpu"]
    grid += ["--out", str(tmp_path / "g.png"), "--tensors", str(tmp_path / "g.safetensors")]
    assert cli.main(grid) == 0
    drawn = safetensors.torch.load_file(tmp_path / "g.safetensors")["images"]
    assert_close(images_in(tmp_path / "s")[:9], drawn, rtol=0, atol=1.5 / 255 + 0.1)


def test_many_images_go_to_shards_unasked(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    words = ["sample", str(run), "--steps", "1", "--batch", "1024", "--no-progress"]
    assert cli.main([*words, "--count", "4097"]) == 0
    assert os.listdir() == ["samples"]
    assert len(images_in(Path("samples"))) == 4097


def test_several_processes_need_a_folder(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["sample", str(run)]) == 1
    assert "shards must name a folder" in capsys.readouterr().err


UNCLEAR = {
    "--shards a --tensors b.safetensors": "tensors and shards must not both be given",
    "--shards a --out b.png": "out and shards must not both be given",
    "--shards a --columns 4": "columns needs a PNG, but 64 images go to shards in a; give out",
    "--count 4097 --enlarge 2": "enlarge needs a PNG, but 4097 images go to shards in samples;",
}


@pytest.mark.parametrize("words", UNCLEAR)
def test_nothing_asked_for_is_ignored(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", *words.split()]) == 2
    assert capsys.readouterr().err.startswith(f"error: {UNCLEAR[words]}")
    assert not os.listdir()


def test_many_images_go_to_a_picture_that_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    words = ["sample", str(run), "--steps", "1", "--batch", "1024", "--no-progress"]
    assert cli.main([*words, "--count", "4097", "--columns", "64", "--out", "many.png"]) == 0
    assert os.listdir() == ["many.png"]
    with Image.open("many.png") as file:
        assert file.size[1] > 64 * 8  # 65 rows of 8 pixels, but for what lies between


def test_a_left_over_world_size_takes_no_images_away(
    run: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Rank 0 of a WORLD_SIZE that nobody has started would leave out shards, and say nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "3")
    write_shards(checkpoint, QUICK, tmp_path / "s", 12, shard=4)
    assert len(images_in(tmp_path / "s")) == 12
    assert cli.main(["sample", str(run), "--count", "4", "--steps", "1"]) == 0
    assert (tmp_path / "samples.png").exists()


@pytest.mark.parametrize("words", ["--label blu", "--label 6", "--steps 13"])
def test_what_cannot_be_drawn_leaves_no_folder(
    run: Path, tmp_path: Path, words: str, capsys: pytest.CaptureFixture[str]
):
    """A folder begun with a mistake would refuse the corrected command as another recipe."""
    folder = tmp_path / "s"
    ask = ["sample", str(run), "--device", "cpu", "--count", "4", "--shards", str(folder)]
    assert cli.main([*ask, "--no-progress", *words.split()]) == 1
    assert re.match(r"error: (label must be one of|steps must be at most)", capsys.readouterr().err)
    assert not folder.exists()
    assert cli.main([*ask, "--no-progress", "--label", "blue", "--steps", "2"]) == 0


@pytest.mark.long("torchrun starts processes that load torch")
def test_torchrun_shares_the_shards_out(run: Path, checkpoint: Checkpoint, tmp_path: Path):
    words = ["sample", str(run), "--count", "3000", "--steps", "1", "--batch", "256"]
    words += ["--device", "cpu", "--precision", "fp32", "--shards", str(tmp_path / "two")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    two = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "-m", "tutorial_lib", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert two.returncode == 0, two.stderr
    assert sorted(line for line in two.stdout.splitlines() if "written" in line) == [
        f"written: 1 shards in {tmp_path / 'two'}",
        f"written: 2 shards in {tmp_path / 'two'}",
    ]
    recipe = Recipe(steps=1, batch=256, precision="fp32")
    write_shards(checkpoint, recipe, tmp_path / "one", 3000)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_ctrl_c_says_how_to_go_on(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    seen = []

    def stop(*args: object) -> Tensor:
        seen.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "draw", stop)
    words = ["sample", str(run), "--count", "9", "--no-progress", "--shards", str(tmp_path / "s")]
    assert cli.main(words) == 130
    assert "are complete; the same command resumes" in capsys.readouterr().err
    assert len(seen) == 1


def test_global_random_state_is_left_alone(checkpoint: Checkpoint, tmp_path: Path):
    state = torch.get_rng_state()
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3).tolist()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    write_shards(checkpoint, WALKS["ddpm"], tmp_path / "s", 4, shard=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.random(3).tolist() == expected  # noqa: NPY002
