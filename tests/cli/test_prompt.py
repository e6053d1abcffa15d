"""Pictures from words, by the command line: an autoencoder, a model of its latents, prompts."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.runs import QUICK, assert_one_line, drawn, everything_in
from tests.damage import edit_card
from tutorial_lib.autoencoders import load_autoencoder, save_autoencoder
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.cli import program as cli
from tutorial_lib.datasets import scenes
from tutorial_lib.latents import Codec
from tutorial_lib.networks import Autoencoder, TextUNet

pytestmark = [pytest.mark.plain_errors, pytest.mark.usefixtures("empty_folder")]
PROMPT = "a large yellow square below a small green disc"
SCENES = [*QUICK, "--dataset", "scenes", "--size", "16", "--num-steps", "20", "--patch", "1"]


def autoencoder(folder: Path, seed: int, **settings: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Autoencoder(widths=(8, 8), **settings)
    codec = Codec.fitted(network, scenes(50, size=16).images[:, : network.config["in_channels"]])
    return save_autoencoder(folder / f"ae{seed}", codec, card={"seed": seed})


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two autoencoders, and runs that learned from words: latents of the first, and pixels."""
    folder = tmp_path_factory.mktemp("made")
    places = {"one": autoencoder(folder, 1), "two": autoencoder(folder, 2)}
    places["gray"] = autoencoder(folder, 3, in_channels=1)
    latent, pixels = folder / "latent", folder / "pixels"
    words = ["train", *SCENES, "--text", "--text-width", "16", "--text-layers", "1"]
    words += ["--step-sampler", "noisy", "--weight", "v"]
    assert cli.main([*words, "--latent", str(places["one"]), "--out", str(latent)]) == 0
    assert cli.main([*words, "--out", str(pixels)]) == 0
    return {**places, "latent": latent, "pixels": pixels}


def test_the_card_says_all_that_drawing_needs(made: dict[str, Path]) -> None:
    found = load_checkpoint(made["latent"])
    assert isinstance(found.network, TextUNet)
    assert found.network.config["text_width"] == 16
    assert found.vocabulary == scenes(1).vocabulary
    assert found.image_shape == (4, 4, 4)
    assert found.picture_shape == (3, 16, 16)
    assert found.card["dataset"]["latents"] == {
        "autoencoder": "ae1",
        "sha256": load_autoencoder(made["one"]).checksum,
        "image_shape": [3, 16, 16],
    }
    # the command on the card makes the same weights again
    words = found.card["command"].split()
    assert {"--text", "--latent"} <= set(words)
    assert cli.main([*words[3 : words.index("--out")], "--out", "again"]) == 0
    again = load_checkpoint("again").card
    assert again["weights"]["sha256"] == found.card["weights"]["sha256"]


@pytest.mark.parametrize("run", ["latent", "pixels"])
@pytest.mark.parametrize("scale", ["1", "3"])
def test_a_prompt_becomes_a_picture(made: dict[str, Path], run: str, scale: str) -> None:
    words = ["--steps", "4", "--count", "3", "--guidance", scale]
    images = drawn(made[run], *words, "--prompt", PROMPT)
    assert images.shape == (3, 3, 16, 16)
    assert images.abs().max() <= 1
    with Image.open("samples.png") as picture:
        assert picture.size == (2 * 18 - 2, 2 * 18 - 2)
    assert torch.equal(drawn(made[run], *words, "--prompt", f" {PROMPT.upper()}  "), images)
    other = drawn(made[run], *words, "--prompt", "a small red ring on white")
    assert not torch.equal(other, images), "the words matter"
    if scale == "1":
        assert not torch.equal(drawn(made[run], *words), images), "and so does saying nothing"


def test_the_autoencoder_is_found_wherever_it_is(made: dict[str, Path], tmp_path: Path) -> None:
    words = ["--steps", "3", "--count", "2", "--prompt", PROMPT]
    images = drawn(made["latent"], *words)
    moved = shutil.copytree(made["one"].parent, tmp_path / "moved")
    assert torch.equal(drawn(made["latent"], *words, "--autoencoder", str(moved / "ae1")), images)


def test_shards_remember_the_prompt(
    made: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", str(made["latent"]), "--steps", "3", "--count", "4", "--shards", "s"]
    assert cli.main([*words, "--prompt", PROMPT, "--no-progress"]) == 0
    manifest = json.loads(Path("s/samples.json").read_text())
    assert manifest["prompt"] == PROMPT
    assert manifest["image_shape"] == [3, 16, 16]
    capsys.readouterr()
    assert cli.main([*words, "--prompt", f" {PROMPT.upper()} ", "--no-progress"]) == 0
    assert "0 shards in s, 1 were there already" in capsys.readouterr().out
    assert cli.main([*words, "--prompt", "a red disc", "--no-progress"]) == 1
    assert_one_line(capsys, f"prompt: the samples in s were begun with {PROMPT}, now it is a red d")
    assert cli.main([*words, "--no-progress"]) == 1
    assert_one_line(capsys, "prompt: the samples in s were begun with")


def test_a_run_of_latents_resumes_to_the_same_bits_where_its_autoencoder_moved(
    made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*SCENES, "--text", "--decay", "constant", "--warmup", "0"]
    settings = [word for word in settings if word not in ("--steps", "3")]
    latent = ["--latent", str(made["one"])]
    assert cli.main(["train", *settings, *latent, "--steps", "5", "--out", "whole"]) == 0
    assert cli.main(["train", *settings, *latent, "--steps", "2", "--out", "parts"]) == 0
    moved = shutil.copytree(made["one"].parent, tmp_path / "moved") / "ae1"
    again = ["train", "--resume", "--out", "parts", "--steps", "5"]
    capsys.readouterr()
    assert cli.main([*again, "--latent", str(made["two"])]) == 1
    assert_one_line(capsys, "data must be the same as in the run to resume: autoencoder was")
    assert cli.main([*again, "--latent", "None"]) == 1
    assert_one_line(capsys, "data must be the same as in the run to resume: autoencoder was")
    assert cli.main([*again, "--latent", str(moved)]) == 0
    whole, parts = (load_checkpoint(name).card["weights"]["sha256"] for name in ("whole", "parts"))
    assert whole == parts


def test_grids_of_a_run_are_decoded(made: dict[str, Path]) -> None:
    words = ["train", *SCENES, "--text", "--latent", str(made["one"]), "--sample-every", "3"]
    assert cli.main([*words, "--out", "run"]) == 0
    with Image.open("run/samples/step-00000003.png") as picture:
        assert picture.size == (8 * 18 - 2, 8 * 18 - 2)


def test_latents_need_no_words(made: dict[str, Path]) -> None:
    words = ["train", *SCENES[:-2], "--latent", str(made["one"]), "--dataset", "circles"]
    words.remove("scenes")
    words.remove("--dataset")
    assert cli.main([*words, "--out", "run"]) == 0
    assert drawn(Path("run"), "--steps", "3", "--count", "2").shape == (2, 3, 16, 16)


USAGE = {
    "sample {latent} --prompt|": "prompt must hold a word, got none",
    "sample {latent} --prompt|  ": "prompt must hold a word, got none",
    "sample {latent} --label 3 --prompt|a disc": "label and prompt must not both be given",
    "train --text-layers -1": "text_layers must be at least 0, got -1",
    "train --text-width 0": "text_width must be at least 1, got 0",
    "train --latent|": "latent must be a file or a name",
}
FAILURES = {
    "sample {latent} --prompt|a smaal red disc": "prompt must have words .*'smaal'; did you mean",
    "sample {latent} --prompt|a purple disc": "prompt must have words of the vocab.* got 'purple'",
    f"sample {{latent}} --prompt|{'a red ' * 7}": "prompt must have at most 12 words, got 14",
    "sample {trained} --prompt|a red disc": (
        "prompt: step-00000003.safetensors was trained without text; it draws classes, ask with la"
    ),
    "sample {latent} --label 3": "was trained without classes; it reads words, ask with prompt",
    "sample {latent} --guidance 3": "guidance must be 1, got 3: nothing is asked for; say it with",
    "sample {latent} --autoencoder {two} --prompt|a disc": (
        "autoencoder must be ae1 with the checksum [0-9a-f]{12}, .*/ae2.safetensors has [0-9a-f]"
    ),
    "sample {latent} --autoencoder nowhere --prompt|a disc": "no autoencoder at nowhere; those",
    "sample {trained} --autoencoder {one}": "autoencoder: step-00000003.safetensors draws pictures",
    "sample {orphan} --prompt|a disc": (
        "draws latents of the autoencoder ae1 with the checksum [0-9a-f]{12}, which was not found"
    ),
    "train --dataset circles --size 8 --text": "text needs a data set with captions, such as",
    "train --dataset scenes --size 8 --conditional": "conditional needs labels; for captions ask",
    "train --dataset circles --latent nowhere": "no autoencoder at nowhere; those that ship",
    "train --dataset circles --latent {cut}": "ae1.safetensors is truncated",
    "train --dataset circles --size 18 --latent {one}": (
        "size of images must be a multiple of 4 for the autoencoder, got 18 x 18"
    ),
    "train --dataset circles --size 16 --latent {gray}": (
        r"images must have the shape \(1, height, width\) each, got \(3, 16, 16\)"
    ),
}


@pytest.mark.parametrize("words", [*USAGE, *FAILURES])
def test_what_is_wrong_is_said_in_one_line(
    words: str,
    made: dict[str, Path],
    trained: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What stands behind a bar is one word, with its spaces."""
    scratch = tmp_path_factory.mktemp("scratch")
    places = {**made, "trained": trained, "cut": scratch / "ae1.safetensors"}
    for file in (made["one"], made["one"].with_suffix(".json")):
        shutil.copy(file, scratch / file.name)
    places["cut"].write_bytes(places["cut"].read_bytes()[:-9])
    places["orphan"] = shutil.copytree(made["latent"], scratch / "orphan")
    before, _, last = words.partition("|")
    asked = [word.format(**places) for word in before.split()]
    if "|" in words:
        asked[-1] += f"={last}"
    if words.startswith("sample {orphan}"):
        hide = edit_card(lambda card: card["config"].update(latent="gone"))
        hide(places["orphan"] / "step-00000003.safetensors")
    untouched = everything_in(made["latent"].parent)
    capsys.readouterr()
    assert cli.main(asked) == (2 if words in USAGE else 1)
    assert_one_line(capsys, (USAGE | FAILURES)[words])
    assert not os.listdir()
    assert everything_in(made["latent"].parent) == untouched
