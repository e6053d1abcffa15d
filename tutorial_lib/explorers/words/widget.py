"""The words explorer of lesson 13."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from tutorial_lib import _validate, plots
from tutorial_lib._validate import InvalidTypeError, InvalidValueError, UserError
from tutorial_lib.checkpoints import Checkpoint
from tutorial_lib.datasets.scene_captions import COLORS, VOCABULARY, parse
from tutorial_lib.explorers.shared import base, wire
from tutorial_lib.explorers.words.walks import (
    Drawer,
    SentenceWalks,
    check_scales,
    check_seeds,
    check_timesteps,
)
from tutorial_lib.images import to_bytes
from tutorial_lib.metrics import judge_scenes

SCALES = (1.0, 2.0, 4.0)
MOST_SENTENCES = 12
MOST_TYPED = 4
"""Of the sentences that are typed, so many are kept; then the oldest makes room."""
LARGEST = 64
SMALLEST_JUDGED = 16
QUALITY = 94
"""Of the JPEG files in which pictures travel."""
DARK, LIGHT = (10.0, 30.0, 90.0), (255.0, 234.0, 70.0)
"""The ends of the scripts' ``ramp``, for still pictures."""


class Packed(NamedTuple):
    """One sentence as the browser gets it, a row or a file for each walk, by seed, then by scale.

    Attributes:
        pictures: JPEG files, the pictures of a walk side by side.
        maps: PNG files of levels 0..``wire.MAP_LEVELS``, a row of maps for each word, a column for
            each step. The highest level is the largest share of the word in this walk.
        peaks: float32 (walks, words), these largest shares.
        right: bool (walks, words), which words hold in the finished picture; (walks, 0) if no judge
            has looked.
        whole: bool (walks,), whether all hold and there is no other object.
    """

    pictures: list[bytes]
    maps: list[bytes]
    peaks: Tensor
    right: Tensor
    whole: Tensor


def pack(sentence: str, walks: SentenceWalks, judged: bool) -> Packed:
    """The walks of a sentence in files, with the judge's verdict on what they end with."""
    pictures, maps = (part.flatten(0, 1) for part in walks)  # (walks, steps, ...)
    peaks = maps.amax((1, 3, 4)).clamp(min=1e-6)  # (walks, words)
    levels = (maps / peaks[:, None, :, None, None] * wire.MAP_LEVELS).round().to(torch.uint8)
    tables = levels.permute(0, 2, 3, 1, 4).flatten(3, 4).flatten(1, 2)  # (walks, words h, steps w)
    right, whole = torch.zeros(len(maps), 0).bool(), torch.zeros(0).bool()
    if judged:
        verdict = judge_scenes(pictures[:, -1], [sentence] * len(pictures))
        right, whole = verdict.right[:, : maps.shape[2]], verdict.all_right
    return Packed(
        [_jpeg(np.concatenate(list(to_bytes(strip)), axis=1)) for strip in pictures],
        [_png(table.numpy()) for table in tables],
        peaks,
        right,
        whole,
    )


def _jpeg(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, 1 or 3) as a file; no color is stored more coarsely than another."""
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(
        file, "JPEG", quality=QUALITY, subsampling=0, optimize=True
    )
    return file.getvalue()


def _png(levels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", optimize=True)
    return file.getvalue()


class WordsExplorer(base.Explorer, folder="words"):
    """Pick or type a sentence, watch its picture come, and see where each word is heard.

    A slider goes through the steps of a walk, from noise to picture. At each step there is the
    clean picture that the model predicts, and for each word a map: how much each place takes of it
    by cross-attention. Point at a word, or choose it, to see its map over the picture. A judge says
    of the finished picture which words hold. ``WordsExplorer.from_checkpoint`` draws the walks
    first; then a sentence can be typed, too, as long as a kernel runs.

    Args:
        walks: what was noted of the walks of each sentence, at most 12; sentences have one word for
            each map, and pictures are at most 64 pixels wide and high, maps as well.
        scales: the guidance scales of the walks, rising, at least 0.
        seeds: the seeds of their noise.
        timesteps: the steps at which the pictures are predicted, falling.
        scale: the scale to begin with; the nearest of ``scales`` is taken.
        word: a word of the first sentence, to begin with; by default its first color.
        judged: whether ``judge_scenes`` looks at finished pictures. Then sentences are those of the
            grammar in ``datasets.scene_captions``, and pictures are square, in color, of 16 pixels
            or more.
        draw: gives the walks of a sentence that is typed, in the shape of the others; None offers
            no field to type in.

    Raises:
        TypeError, ValueError: invalid arguments, or more data than a saved notebook should carry.
    """

    pictures = traitlets.Bytes().tag(sync=True)
    picture_ends = traitlets.List(traitlets.Int()).tag(sync=True)
    maps = traitlets.Bytes().tag(sync=True)
    map_ends = traitlets.List(traitlets.Int()).tag(sync=True)
    peaks = traitlets.Bytes().tag(sync=True)
    right = traitlets.Bytes().tag(sync=True)
    whole = traitlets.Bytes().tag(sync=True)
    sentences = traitlets.List(traitlets.Unicode()).tag(sync=True)
    scales = traitlets.List(traitlets.Float()).tag(sync=True)
    seeds = traitlets.List(traitlets.Int()).tag(sync=True)
    timesteps = traitlets.List(traitlets.Int()).tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    map_shape = traitlets.List(traitlets.Int()).tag(sync=True)
    draws = traitlets.Bool(False).tag(sync=True)
    chosen = traitlets.Int(0, min=0).tag(sync=True)
    scale_place = traitlets.Int(0, min=0).tag(sync=True)
    seed_place = traitlets.Int(0, min=0).tag(sync=True)
    place = traitlets.Int(0, min=0).tag(sync=True)
    word = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        walks: Mapping[str, SentenceWalks],
        *,
        scales: Sequence[float],
        seeds: Sequence[int],
        timesteps: Sequence[int],
        scale: float = 2.0,
        word: str | None = None,
        judged: bool = True,
        draw: Callable[[str], SentenceWalks] | None = None,
    ) -> None:
        scales, seeds = check_scales(scales), check_seeds(seeds)
        timesteps = check_timesteps(timesteps)
        self._lengths = (len(seeds), len(scales), len(timesteps))
        self._judged = _validate.boolean("judged", judged)
        scale = _validate.number("scale", scale, low=0.0, high=float("inf"))
        if draw is not None:
            _validate.function("draw", draw)
        self._draw = draw
        self._walks = self._checked(walks)
        self._typed: list[str] = []
        self._packed = {
            sentence: pack(sentence, own, judged) for sentence, own in self._walks.items()
        }
        first = next(iter(self._walks))
        pictures, maps = self._walks[first]
        super().__init__(
            **self._state(),
            scales=scales,
            seeds=seeds,
            timesteps=timesteps,
            shape=list(pictures.shape[-3:]),
            map_shape=list(maps.shape[-2:]),
            draws=draw is not None,
            scale_place=min(range(len(scales)), key=lambda k: abs(scales[k] - scale)),
            place=len(timesteps) - 1,
            word=_place_of(word, first.split()),
        )
        self.on_msg(self._on_message)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        sentences: Sequence[str],
        *,
        scales: Sequence[float] = SCALES,
        seeds: Sequence[int] = (0, 1),
        steps: int = 20,
        shown: int = 9,
        layer: str = "levels.up.ask",
        **options: Any,
    ) -> "WordsExplorer":
        """Draws sentences with DDIM at each scale, from the same noise, and explores the walks.

        Args:
            checkpoint: a ``TextUNet`` with cross-attention; see ``with_autoencoder``, which is
                called here where it was not.
            sentences: at most 12, of the words that the checkpoint knows.
            scales: the guidance scales, rising, at least 0; at most 6.
            seeds: of the noise, at most 6.
            steps: length of a walk, 2 to T.
            shown: how many of its steps are shown, 2 to 20 and at most ``steps``.
            layer: the name of the cross-attention whose maps are shown, a mean over its heads.
            options: ``scale``, ``word`` and ``judged``, as for ``WordsExplorer``.

        Raises:
            TypeError, ValueError: invalid arguments, a network that does not read words, a word
                that is not in its vocabulary, a sentence that is too long.
            CheckpointError: the autoencoder of the checkpoint is missing.
        """
        drawer = Drawer(
            checkpoint, scales=scales, seeds=seeds, steps=steps, shown=shown, layer=layer
        )
        found = [plain(each) for each in _validate.names("sentences", sentences)]
        sentences = list(_validate.names("sentences", found))
        _check_count(len(sentences))
        if options.get("judged", True):
            _check_grammar("sentences", sentences)
        drawn = dict(zip(sentences, drawer(sentences), strict=True))
        return cls(
            drawn,
            scales=scales,
            seeds=seeds,
            timesteps=drawer.timesteps,
            draw=lambda sentence: drawer([sentence], name="sentence")[0],
            **options,
        )

    def add(self, sentence: str) -> None:
        """Draws a sentence, adds it to the others, and shows it; one that is there is shown only.

        Of the sentences that were added, the last four are kept, or fewer where there is no room.

        Raises:
            TypeError, ValueError: an unknown word, too many words, no sentence of the grammar; an
                explorer that was made without ``draw``, or that is full.
        """
        if self._draw is None:
            raise InvalidValueError("draw must be given to draw other sentences, got None")
        sentence = plain(_validate.text("sentence", sentence))
        if not sentence:
            raise InvalidValueError("sentence must have a word, got none")
        if sentence not in self._walks:
            if self._judged:
                _check_grammar("sentence", [sentence])
            walks = self._draw(sentence)
            self._check_walks(f"the walks of {sentence!r}", sentence, walks, self._walks)
            packed = {**self._packed, sentence: pack(sentence, walks, self._judged)}
            typed = [*self._typed, sentence]
            while len(typed) > 1 and (len(typed) > MOST_TYPED or _size(packed) > base.MAX_BYTES):
                del packed[typed.pop(0)]
            if _size(packed) > base.MAX_BYTES:
                raise InvalidValueError(
                    f"sentence must fit into {base.MAX_BYTES:,} bytes together with those that are "
                    f"there, got {_size(packed):,}: give {self._advice()}"
                )
            self._walks = {each: self._walks.get(each, walks) for each in packed}
            self._packed, self._typed = packed, typed
        with self.hold_sync():  # the browser gets all of it in one message
            for name, value in self._state().items():
                setattr(self, name, value)
            self.chosen = list(self._walks).index(sentence)

    def _state(self) -> dict[str, Any]:
        """The traits that depend on which sentences there are."""
        packed = list(self._packed.values())
        longest = max(one.peaks.shape[1] for one in packed)
        pictures = [file for one in packed for file in one.pictures]
        maps = [file for one in packed for file in one.maps]
        peaks = [F.pad(one.peaks, (0, longest - one.peaks.shape[1])) for one in packed]
        state: dict[str, Any] = {
            "sentences": list(self._packed),
            "pictures": b"".join(pictures),
            "picture_ends": np.cumsum([len(file) for file in pictures]).tolist(),
            "maps": b"".join(maps),
            "map_ends": np.cumsum([len(file) for file in maps]).tolist(),
            "peaks": base.float_bytes(torch.cat(peaks)),
        }
        if self._judged:
            right = [F.pad(one.right, (0, longest - one.right.shape[1])) for one in packed]
            state["right"] = _flags(torch.cat(right))
            state["whole"] = _flags(torch.cat([one.whole for one in packed]))
        return state

    def _checked(self, walks: object) -> dict[str, SentenceWalks]:
        """``walks`` by their sentences, written plainly; an error if one does not fit."""
        if not isinstance(walks, Mapping):
            raise InvalidTypeError(
                f"walks must be a dict of SentenceWalks, got {_validate.describe(walks)}"
            )
        _check_count(len(walks))
        found: dict[str, SentenceWalks] = {}
        for sentence, own in walks.items():
            words = plain(_validate.text("each sentence of walks", sentence))
            if not words:
                raise InvalidValueError("each sentence of walks must have a word, got none")
            self._check_walks(f"walks[{words!r:.60}]", words, own, found)
            found[words] = own
        if len(found) < len(walks):
            raise InvalidValueError("walks must be of sentences that differ, got one twice")
        if self._judged:
            _check_grammar("the sentences of walks", list(found))
        return found

    def _check_walks(
        self, name: str, sentence: str, walks: object, others: Mapping[str, SentenceWalks]
    ) -> None:
        """Raises unless ``walks`` fit the sentence, the scales, seeds and steps, and the others."""
        if not isinstance(walks, SentenceWalks):
            raise InvalidTypeError(f"{name} must be SentenceWalks, got {_validate.describe(walks)}")
        for part, tensor in zip(walks._fields, walks, strict=True):
            _validate.batch(f"{part} of {name}", tensor)
            if tensor.ndim != 6 or tensor.shape[:3] != self._lengths:
                expected = ", ".join(map(str, self._lengths))
                raise InvalidValueError(
                    f"{part} of {name} must have shape ({expected}, ...), for seeds, scales and "
                    f"timesteps, six axes in all; got {tuple(tensor.shape)}"
                )
            if not tensor.numel() or max(tensor.shape[4:]) > LARGEST:
                raise InvalidValueError(
                    f"{part} of {name} must be 1 to {LARGEST} wide and high, got "
                    f"{tensor.shape[5]} x {tensor.shape[4]}"
                )
        pictures, maps = walks
        channels, height, width = pictures.shape[3:]
        if channels not in (1, 3):
            raise InvalidValueError(f"pictures of {name} must have 1 or 3 channels, got {channels}")
        if self._judged and (channels != 3 or height != width or height < SMALLEST_JUDGED):
            raise InvalidValueError(
                f"pictures of {name} must be square, in color, of {SMALLEST_JUDGED} pixels or more "
                f"to be judged, got {tuple(pictures.shape[3:])}; or give judged=False"
            )
        count = len(sentence.split())
        if maps.shape[3] != count:
            raise InvalidValueError(
                f"maps of {name} must be {count}, one a word; got {maps.shape[3]}"
            )
        if maps.min() < 0 or maps.max() > 1 + 1e-4:
            worst = maps.min() if maps.min() < 0 else maps.max()
            raise InvalidValueError(f"maps of {name} must be in [0, 1], got {float(worst):g}")
        for other in others.values():
            for part, mine, theirs in (
                ("pictures", pictures.shape[3:], other.pictures.shape[3:]),
                ("maps", maps.shape[4:], other.maps.shape[4:]),
            ):
                if mine != theirs:
                    raise InvalidValueError(
                        f"{part} of {name} must be as large as the others, {tuple(theirs)}; "
                        f"got {tuple(mine)}"
                    )

    def _on_message(self, _widget: object, content: dict, _buffers: object) -> None:
        """Answers a script, which asks whether a kernel is there, or for a sentence."""
        kind = content.get("kind")
        if kind == wire.Ask.BYE:
            return
        self.send({"kind": wire.Tell.HEARD})
        if kind != wire.Ask.DRAW:
            return
        sentence = content.get("sentence")
        try:
            self.add(sentence)  # type: ignore[arg-type]  # add refuses what is no text
        except UserError as error:
            self.send({"kind": wire.Tell.REFUSED, "text": str(error)})
        except Exception as error:  # shown beside the field, whatever a model raises
            text = f"{type(error).__name__}: {error}"
            self.send({"kind": wire.Tell.FAILED, "text": text})
        else:
            self.send({"kind": wire.Tell.DRAWN, "sentence": plain(str(sentence))})

    def _advice(self) -> str:
        return "fewer sentences, scales, seeds or steps"

    def _shown(self) -> tuple[str, SentenceWalks, int, int, int]:
        """The sentence and its walks, and the places of seed, scale and word."""
        sentence = list(self._walks)[min(self.chosen, len(self._walks) - 1)]
        seeds, scales, _ = self._lengths
        word = min(self.word, len(sentence.split()) - 1)
        places = (min(self.seed_place, seeds - 1), min(self.scale_place, scales - 1), word)
        return sentence, self._walks[sentence], *places

    def _summary(self) -> str:
        sentence, _, seed, scale, word = self._shown()
        seeds, scales, steps = self._lengths
        text = (
            f"{_counted(len(self._walks), 'sentence')}, each drawn at "
            f"{_counted(scales, 'guidance scale')} from {_counted(seeds, 'seed')}; shown is "
            f"{sentence!r} at scale {self.scales[scale]:g} from noise to picture, in {steps} "
            f"steps, and where {sentence.split()[word]!r} is heard."
        )
        if not self._judged:
            return text
        right = self._packed[sentence].right[seed * scales + scale]
        return f"{text} Of its {len(right)} words, {int(right.sum())} hold in the finished picture."

    def _still(self) -> Figure:
        sentence, walks, seed, scale, word = self._shown()
        pictures, maps = walks.pictures[seed, scale], walks.maps[seed, scale, :, word]
        pictures = pictures.expand(-1, 3, -1, -1).float()
        share = maps[:, None].float() / maps.max().clamp(min=1e-6)
        share = F.interpolate(share, size=pictures.shape[2:], mode="bilinear")
        dark, light = (torch.tensor(end)[:, None, None] / 127.5 - 1 for end in (DARK, LIGHT))
        return plots.filmstrip(
            [pictures, dark + share * (light - dark)],
            labels=[f"t = {t}" for t in self.timesteps],
            rows=["picture", repr(sentence.split()[word])],
        )


def plain(sentence: str) -> str:
    """A sentence in lower case, with single spaces."""
    return " ".join(sentence.lower().split())


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _size(packed: Mapping[str, Packed]) -> int:
    """Bytes of all files."""
    return sum(len(file) for one in packed.values() for file in (*one.pictures, *one.maps))


def _flags(values: Tensor) -> bytes:
    return values.to(torch.uint8).numpy().tobytes()


def _check_count(count: int) -> None:
    if not 1 <= count <= MOST_SENTENCES:
        raise InvalidValueError(f"sentences must be 1 to {MOST_SENTENCES}, got {count}")


def _check_grammar(name: str, sentences: list[str]) -> None:
    """Raises unless the judge of scenes can read all ``sentences``."""
    parse(VOCABULARY.encode(sentences, name=name))


def _place_of(word: str | None, words: list[str]) -> int:
    """Where ``word`` stands, or the first color."""
    if word is not None:
        return words.index(_validate.one_of("word", word, dict.fromkeys(words)))
    return next((place for place, each in enumerate(words) if each in COLORS), 0)
