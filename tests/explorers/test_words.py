"""The words explorer's Python part; its script is compared with it in tests/browser."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.told import SENTENCES, invented, reader
from tutorial_lib.checkpoints import CheckpointError, load_checkpoint
from tutorial_lib.datasets import scenes
from tutorial_lib.datasets.scene_captions import VOCABULARY
from tutorial_lib.explorers import SentenceWalks, WordsExplorer
from tutorial_lib.explorers.shared import wire
from tutorial_lib.explorers.words import walks as _walks
from tutorial_lib.explorers.words import widget as _words
from tutorial_lib.guidance import guide, labeled
from tutorial_lib.metrics import judge_scenes
from tutorial_lib.samplers import ddim, evenly_spaced, last

LAYER = "levels.up.ask"
GIVEN = {"scales": (1.0, 2.0, 4.0), "seeds": (3, 5), "timesteps": (100, 75, 40, 5)}


@pytest.fixture(scope="module")
def checkpoint():
    return reader()


def explorer(**options) -> WordsExplorer:
    return WordsExplorer(options.pop("walks", invented()), **{**GIVEN, **options})


def drawn(checkpoint, sentences=SENTENCES, **options) -> WordsExplorer:
    few = {"scales": (1.0, 3.0), "seeds": (4, 7), "steps": 5, "shown": 3}
    return WordsExplorer.from_checkpoint(checkpoint, sentences, **{**few, **options})


def files(data: bytes, ends: list[int]) -> list[np.ndarray]:
    parts = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    found = []
    for part in parts:
        with Image.open(io.BytesIO(part)) as picture:
            found.append(np.asarray(picture))
    return found


def heard(made: WordsExplorer, content: dict) -> list[dict]:
    """What the explorer sends when a script asks it."""
    said: list[dict] = []
    made.send = lambda content, buffers=None: said.append(content)  # type: ignore
    made._on_message(made, content, [])
    return said


@pytest.mark.parametrize("steps", [2, 3, 9, 20, 50])
def test_noted_steps_are_of_the_walk_and_denser_at_its_noisy_end(steps: int):
    for shown in range(2, min(20, steps) + 1):
        found = _walks.noted(steps, shown)
        assert len(found) == shown
        assert (found[0], found[-1]) == (0, steps - 1)
        gaps = np.diff(found)
        assert (gaps >= 1).all()
        assert gaps[0] <= gaps[-1]


def test_pictures_and_maps_are_those_of_guided_ddim(checkpoint):
    """Against a walk by hand, sentence by sentence, with the maps of the network itself."""
    drawer = _walks.Drawer(
        checkpoint, scales=(1.0, 3.0), seeds=(4, 7), steps=5, shown=3, layer=LAYER
    )
    assert drawer.timesteps == [100, 80, 20]
    network, schedule = checkpoint.network, checkpoint.schedule
    for sentence, found in zip(SENTENCES, drawer(SENTENCES), strict=True):
        words = VOCABULARY.encode(sentence)
        count = len(sentence.split())
        assert found.pictures.shape == (2, 2, 3, 3, 16, 16)
        assert found.maps.shape == (2, 2, 3, count, 4, 4)
        for i, seed in enumerate((4, 7)):
            x_T = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
            for j, scale in enumerate((1.0, 3.0)):
                told = guide(labeled(network, schedule, "v"), words, scale, network.no_condition)
                walk = list(ddim(told, schedule, x_T, evenly_spaced(100, 5)))
                states = [x_T, *(step.x_t for step in walk)]
                for k, (number, t) in enumerate(((0, 100), (1, 80), (4, 20))):
                    expected = checkpoint.codec.decode(walk[number].x0_hat)[0]
                    assert (found.pictures[i, j, k] - expected).abs().max() < 1e-4
                    shares = network.attention_maps(states[number], torch.tensor([t]), words)
                    mean = shares[LAYER][0].mean(0)  # (4, 4, 13); the first word is none of theirs
                    gap = found.maps[i, j, k] - mean[..., 1 : count + 1].permute(2, 0, 1)
                    assert gap.abs().max() < 1e-5
                end = checkpoint.codec.decode(last(iter(walk)))[0]
                assert (found.pictures[i, j, -1] - end).abs().max() < 1e-4, "the finished picture"


def test_what_travels_is_what_was_drawn():
    walks = invented()
    made = explorer(walks=walks)
    assert made.sentences == list(SENTENCES)
    pictures, maps = files(made.pictures, made.picture_ends), files(made.maps, made.map_ends)
    longest = max(len(sentence.split()) for sentence in SENTENCES)
    peaks = torch.frombuffer(bytearray(made.peaks), dtype=torch.float32).view(-1, longest)
    assert len(pictures) == len(maps) == len(peaks) == 2 * 2 * 3
    number = 0
    for sentence in SENTENCES:
        count = len(sentence.split())
        for seed in range(2):
            for scale in range(3):
                own = walks[sentence]
                strip = torch.from_numpy(pictures[number].copy()).view(16, 4, 16, 3)
                got = strip.permute(1, 3, 0, 2) / 127.5 - 1
                assert (got - own.pictures[seed, scale]).abs().max() < 8 / 127.5
                levels = torch.from_numpy(maps[number].copy()).view(count, 5, 4, 5)
                shares = levels / wire.MAP_LEVELS * peaks[number, :count, None, None, None]
                expected = own.maps[seed, scale].permute(1, 2, 0, 3)
                assert (shares - expected).abs().max() <= 0.501 / wire.MAP_LEVELS
                assert not peaks[number, count:].any()
                number += 1


def test_the_verdict_is_the_judges_on_the_finished_picture():
    data = scenes(3, seed=5)
    captions = VOCABULARY.decode(data.words)
    right = data.images[:, None, None, None].expand(-1, 1, 2, 2, -1, -1, -1).clone()
    right[1, :, 1, -1] = data.images[0]  # a picture of something else
    right[2, :, :, 0] = data.images[0]  # before it was finished, which does not count
    walks = {
        caption: SentenceWalks(right[k], torch.rand(1, 2, 2, len(caption.split()), 4, 4))
        for k, caption in enumerate(captions)
    }
    made = WordsExplorer(walks, scales=(1, 2), seeds=(0,), timesteps=(9, 2))
    longest = max(len(caption.split()) for caption in captions)
    flags = torch.frombuffer(bytearray(made.right), dtype=torch.uint8).view(3, 2, longest)
    whole = torch.frombuffer(bytearray(made.whole), dtype=torch.uint8).view(3, 2)
    assert whole.tolist() == [[1, 1], [1, 0], [1, 1]]
    other = judge_scenes(data.images[:1], captions[1:2]).right[0]
    count = len(captions[1].split())
    assert flags[1, 1, :count].bool().tolist() == other[:count].tolist()
    assert not other.all()
    assert flags[0, 0, : len(captions[0].split())].all()
    made.chosen, made.scale_place = 1, 1
    assert f"Of its {count} words, {int(other[:count].sum())} hold" in repr(made)


def test_without_a_judge_any_words_and_pictures_will_do():
    walks = invented(("one two", "three"), size=9)
    with pytest.raises(ValueError, match="the sentences of walks must have words of the vocab"):
        explorer(walks=invented(("one two", "three")))
    made = explorer(walks=walks, judged=False)
    assert (made.right, made.whole) == (b"", b"")
    assert "hold" not in repr(made)


def test_it_begins_with_the_nearest_scale_the_last_step_and_the_first_color():
    made = explorer()
    assert (made.scale_place, made.place, made.word) == (1, 3, 2)
    assert not made.draws
    other = explorer(scale=9, word="square")
    assert (other.scale_place, other.word) == (2, 8)
    assert explorer(walks=invented(("a disc",))).word == 0


def test_a_typed_sentence_is_drawn_once_and_shown(checkpoint):
    made = drawn(checkpoint)
    assert made.draws
    said = heard(made, {"kind": wire.Ask.DRAW, "sentence": " A large  CYAN cross on black"})
    sentence = "a large cyan cross on black"
    assert said == [
        {"kind": wire.Tell.HEARD},
        {"kind": wire.Tell.DRAWN, "sentence": sentence},
    ]
    assert made.sentences == [*SENTENCES, sentence]
    assert made.chosen == 2
    assert len(made.picture_ends) == len(made.map_ends) == 3 * 4
    anew = drawn(checkpoint, [*SENTENCES, sentence])
    assert made.pictures == anew.pictures, "as if it had been there from the beginning"
    assert (made.maps, made.right) == (anew.maps, anew.right)
    made.chosen = 0
    made._draw = None if made._draw is None else _broken
    made.add(sentence)  # it is there, and only shown
    assert made.chosen == 2


def test_of_typed_sentences_the_last_are_kept():
    made = explorer(draw=lambda sentence: invented((sentence,))[sentence])
    shapes = ("disc", "square", "triangle", "ring", "cross")
    for shape in shapes:
        made.add(f"a {shape}")
    assert made.sentences == [*SENTENCES, *(f"a {shape}" for shape in shapes[1:])]
    assert len(made.picture_ends) == 2 * 3 * len(made.sentences)
    assert made.sentences[made.chosen] == "a cross"


def test_typed_sentences_make_room_and_the_given_ones_do_not(monkeypatch):
    made = explorer(draw=lambda sentence: invented((sentence,))[sentence])
    given = _words._size(made._packed)
    made.add("a disc")
    one = _words._size(made._packed) - given
    monkeypatch.setattr(_words.base, "MAX_BYTES", given + 2 * one - 1)
    made.add("a ring")
    assert made.sentences == [*SENTENCES, "a ring"]
    monkeypatch.setattr(_words.base, "MAX_BYTES", given + one // 2)
    with pytest.raises(ValueError, match="sentence must fit into"):
        made.add("a cross")
    assert made.sentences == [*SENTENCES, "a ring"]


def _broken(sentence: str) -> SentenceWalks:
    raise RuntimeError("no weights")


@pytest.fixture(scope="module")
def once(checkpoint):
    """An explorer that draws, for tests that leave it as it is."""
    return drawn(checkpoint, SENTENCES[1:], scales=(2.0,), seeds=(0,))


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("a large purple disk", "sentence must have words of the vocabulary, got 'purple'"),
        ("a reddish disc", "got 'reddish'; did you mean 'red'?"),
        ("a " * 13, "sentence must have at most 12 words, got 13"),
        ("red disc", "an object must begin with 'a'"),
        ("  ", "sentence must have a word, got none"),
        (None, "sentence must be a str"),
    ],
)
def test_a_sentence_that_cannot_be_drawn_is_refused_in_one_line(once, sentence, words):
    before = once.pictures
    said = heard(once, {"kind": wire.Ask.DRAW, "sentence": sentence})
    assert [content["kind"] for content in said] == [wire.Tell.HEARD, wire.Tell.REFUSED]
    assert words in said[1]["text"]
    assert "\n" not in said[1]["text"]
    assert once.pictures == before


def test_whatever_a_model_raises_is_told():
    made = explorer(draw=_broken)
    said = heard(made, {"kind": wire.Ask.DRAW, "sentence": "a red disc"})
    assert said[1] == {"kind": wire.Tell.FAILED, "text": "RuntimeError: no weights"}
    assert heard(made, {"kind": wire.Ask.HELLO}) == [{"kind": wire.Tell.HEARD}]
    assert heard(made, {"kind": wire.Ask.BYE}) == []
    with pytest.raises(ValueError, match="draw must be given to draw other sentences"):
        explorer().add("a red disc")
    other = explorer(draw=lambda sentence: invented((sentence,), steps=3)[sentence])
    said = heard(other, {"kind": wire.Ask.DRAW, "sentence": "a red disc"})
    assert "pictures of the walks of 'a red disc' must have shape (2, 3, 4, ...)" in said[1]["text"]


def changed(part: str, change) -> dict[str, SentenceWalks]:
    """Walks of which one part is changed, of the second sentence."""
    walks = invented()
    own = walks[SENTENCES[1]]
    return {**walks, SENTENCES[1]: own._replace(**{part: change(getattr(own, part))})}


def _nan(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, torch.nan)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"walks": 3}, TypeError, "walks must be a dict of SentenceWalks, got int 3"),
        ({"walks": {}}, ValueError, "sentences must be 1 to 12, got 0"),
        ({"walks": {3: 4}}, TypeError, "each sentence of walks must be a str"),
        ({"walks": {"a disc": 4}}, TypeError, r"walks\['a disc'\] must be SentenceWalks, got int"),
        ({"walks": {" ": 4}}, ValueError, "each sentence of walks must have a word"),
        ({"walks": invented(("a disc", "A disc"))}, ValueError, "sentences that differ"),
        ({"walks": invented(seeds=1)}, ValueError, r"must have shape \(2, 3, 4, ...\)"),
        ({"walks": invented(size=65)}, ValueError, "pictures of .* 1 to 64 wide and high"),
        ({"walks": invented(size=15)}, ValueError, "of 16 pixels or more to be judged"),
        ({"walks": changed("maps", lambda x: x[:, :, :, 1:])}, ValueError, "must be 6, one a word"),
        ({"walks": changed("maps", lambda x: x + 1)}, ValueError, r"must be in \[0, 1\], got"),
        ({"walks": changed("maps", lambda x: x[..., 1:])}, ValueError, "as large as the others"),
        ({"walks": changed("maps", _nan)}, ValueError, "maps of walks"),
        ({"walks": changed("pictures", lambda x: x[..., 0])}, ValueError, "six axes in all"),
        ({"walks": changed("pictures", lambda x: x.int())}, TypeError, "pictures of walks"),
        ({"walks": changed("pictures", lambda x: x[:, :, :, :2])}, ValueError, "1 or 3 channels"),
        ({"scales": (2.0, 1.0, 4.0)}, ValueError, "scales must rise"),
        ({"scales": (-1.0, 1.0, 4.0)}, ValueError, "each of scales must be"),
        ({"scales": 2.0}, TypeError, "scales must be a sequence of numbers"),
        ({"seeds": (3, 3)}, ValueError, "seeds must differ from each other"),
        ({"seeds": ()}, ValueError, "seeds must be 1 to 6 numbers, got 0"),
        ({"seeds": (1, -1)}, ValueError, "each of seeds must be at least 0"),
        ({"timesteps": (1, 2, 3, 4)}, ValueError, "timesteps must fall"),
        ({"timesteps": (1,)}, ValueError, "timesteps must fall, two or more"),
        ({"scale": -1}, ValueError, "scale must be"),
        ({"word": "rod"}, ValueError, "word must be one of .*; did you mean 'red'?"),
        ({"judged": "no"}, TypeError, "judged must be True or False"),
        ({"draw": 3}, TypeError, "draw must be a function"),
    ],
)
def test_invalid_arguments_are_named(options, error, words):
    with pytest.raises(error, match=words):
        explorer(**options)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sentences": ["a reed disc"]}, ValueError, "sentences must have words .* mean 'red'"),
        ({"sentences": ["disc"]}, ValueError, "an object must begin with 'a'"),
        ({"sentences": "a disc"}, TypeError, "sentences must be a sequence of str"),
        ({"sentences": ["a disc", "A  disc"]}, ValueError, "sentences must differ"),
        ({"sentences": []}, ValueError, "sentences must be 1 to 12, got 0"),
        ({"steps": 1}, ValueError, "steps must be at least 2"),
        ({"steps": 101}, ValueError, "steps must be at most 100"),
        ({"shown": 6}, ValueError, "shown must be at most 5"),
        ({"layer": "levels.up"}, ValueError, "layer must be one of levels.down.ask, .*mean"),
        ({"scales": (1.0, 1.0)}, ValueError, "scales must rise"),
    ],
)
def test_what_cannot_be_drawn(checkpoint, options, error, words):
    with pytest.raises(error, match=words):
        drawn(checkpoint, options.pop("sentences", SENTENCES), **options)


@pytest.mark.plain_errors
def test_a_checkpoint_must_read_words_and_have_its_autoencoder(checkpoint):
    with pytest.raises(TypeError, match="checkpoint must be a Checkpoint"):
        drawn("words")
    with pytest.raises(ValueError, match="checkpoint must be one that reads words, got mnist"):
        drawn(load_checkpoint("mnist"))
    with pytest.raises(ValueError, match="checkpoint must have cross-attention"):
        drawn(reader(cross_attention=False))
    with pytest.raises(CheckpointError, match="autoencoder"):
        drawn(dataclasses.replace(checkpoint, codec=None))


def test_too_much_data_is_refused():
    noise = {
        sentence: own._replace(pictures=torch.rand(2, 3, 4, 3, 64, 64) * 2 - 1)
        for sentence, own in invented([f"a {color} disc" for color in ("red", "blue")]).items()
    }
    made = explorer(walks=noise)
    assert len(made.pictures) < 500_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_words.base, "MAX_BYTES", 10_000)
        with pytest.raises(ValueError, match="give fewer sentences, scales, seeds or steps"):
            explorer(walks=noise)


def test_the_still_picture_says_what_it_shows():
    made = explorer()
    assert "2 sentences, each drawn at 3 guidance scales from 2 seeds" in repr(made)
    assert "where 'red' is heard" in repr(made)
    assert made._still().axes
