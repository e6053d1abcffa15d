"""Walks that draw sentences, noted on the way: the picture, and where each word is heard."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._typing import States
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.autoencoders import with_autoencoder
from tutorial_lib.checkpoints import Checkpoint
from tutorial_lib.datasets.vocabulary import Vocabulary, Words
from tutorial_lib.guidance import guide, labeled
from tutorial_lib.networks.attention import CrossAttention
from tutorial_lib.networks.text_unet import TextUNet
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced

MOST_SCALES, MOST_SEEDS, MOST_SHOWN = 6, 6, 20
DENSER = 1.7
"""How much denser the noted steps are at the noisy end; 1 is evenly."""
AT_ONCE = 64
"""Walks in one batch."""

Pictures = Float[Tensor, "seeds scales steps channels height width"]
Maps = Float[Tensor, "seeds scales steps words rows columns"]


class SentenceWalks(NamedTuple):
    """What was noted of the walks that draw one sentence.

    Attributes:
        pictures: (seeds, scales, steps, C, H, W) in [-1, 1], the clean picture that is predicted at
            each step; the last one is the finished picture.
        maps: (seeds, scales, steps, words, h, w) in [0, 1], how much each place takes of each word
            at the same steps, by the model that is told the sentence.
    """

    pictures: Pictures
    maps: Maps


class Drawer:
    """Draws sentences with a checkpoint by DDIM, and notes some steps of each walk.

    Args:
        checkpoint: a ``TextUNet`` with cross-attention. One that draws latents gets its autoencoder
            here, where it has none.
        scales: the guidance scales, rising, at least 0; at most 6.
        seeds: of the noise, which is the same for all sentences and scales; at most 6.
        steps: length of a walk, in 1..T.
        shown: how many of its steps are noted, see ``noted``; 2 to 20 and at most ``steps``.
        layer: the name of the cross-attention whose maps are noted, a mean over its heads.

    Attributes:
        timesteps: the steps that are noted, falling.

    Raises:
        TypeError, ValueError: an argument of another kind or out of range; a network that does not
            read words.
        CheckpointError: the autoencoder that belongs to the latents is missing.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        scales: Sequence[float],
        seeds: Sequence[int],
        steps: int,
        shown: int,
        layer: str,
    ) -> None:
        _validate.instance("checkpoint", checkpoint, Checkpoint)
        self.scales, self.seeds = check_scales(scales), check_seeds(seeds)
        self.network, self.vocabulary = _that_reads(checkpoint)
        schedule = checkpoint.schedule
        steps = _validate.whole_number("steps", steps, at_least=2, at_most=schedule.num_steps)
        most = min(MOST_SHOWN, steps)
        shown = _validate.whole_number("shown", shown, at_least=2, at_most=most)
        names = [n for n, m in self.network.named_modules() if isinstance(m, CrossAttention)]
        self.layer = _validate.one_of("layer", layer, names)
        if checkpoint.codec is None:
            checkpoint = with_autoencoder(checkpoint)
        self.checkpoint, self.schedule = checkpoint, schedule
        self._model = labeled(self.network, schedule, checkpoint.card["target"])
        self._strides = evenly_spaced(schedule.num_steps, steps)
        self._noted = noted(steps, shown)
        self.timesteps = [self._strides[i] for i in self._noted]

    def __call__(self, sentences: Sequence[str], *, name: str = "sentences") -> list[SentenceWalks]:
        """The walks of each sentence; ``name`` is what an error calls them.

        Raises:
            TypeError, ValueError: a word that is not in the vocabulary, or too many words.
        """
        words = self.vocabulary.encode(sentences, name=name)
        rows = words.repeat_interleave(len(self.seeds), 0)  # (B, L): by sentence, then by seed
        noise = torch.cat([self._noise(seed) for seed in self.seeds]).repeat(len(words), 1, 1, 1)
        parts = []
        for asked, x_T in zip(rows.split(AT_ONCE), noise.split(AT_ONCE), strict=True):
            walks = [self._walk(asked, x_T, scale) for scale in self.scales]
            parts.append([torch.stack(each, 1) for each in zip(*walks, strict=True)])
        pictures, maps = (torch.cat(each) for each in zip(*parts, strict=True))
        counts = (words != 0).sum(1).tolist()
        size = len(self.seeds)
        return [
            SentenceWalks(p, m[:, :, :, :count])
            for p, m, count in zip(pictures.split(size), maps.split(size), counts, strict=True)
        ]

    def _noise(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, *self.checkpoint.image_shape, generator=generator)

    @torch.no_grad()
    def _walk(self, words: Words, x_T: States, scale: float) -> tuple[Tensor, Tensor]:
        """Pictures (B, steps, C, H, W) and maps (B, steps, L, h, w) of B walks, on the CPU."""
        device = self.schedule.alpha_bar.device
        words, state, t = words.to(device), x_T.to(device), self._strides[0]
        model = guide(self._model, words, scale, self.network.no_condition)
        codec = self.checkpoint.codec
        if codec is None:
            model = clip_x0(model, self.schedule)
        pictures, maps = [], []
        for number, step in enumerate(ddim(model, self.schedule, state, self._strides)):
            if number in self._noted:
                x0 = step.x0_hat
                pictures.append((x0.clamp(-1, 1) if codec is None else codec.decode(x0)).cpu())
                steps = torch.full((len(words),), t, device=device)
                shares = self.network.attention_maps(state, steps, words)[self.layer].mean(1)
                maps.append(shares[..., 1:].permute(0, 3, 1, 2).float().cpu())  # (B, L, h, w)
            state, t = step.x_t, step.t
        return torch.stack(pictures, 1), torch.stack(maps, 1)


def noted(steps: int, shown: int) -> list[int]:
    """Which of the steps 0..steps - 1 of a walk are noted: so many, rising, the first and the last
    among them, and most at the noisy end, where layout and colors are decided."""
    found = [0]
    for k in range(1, shown):
        place = round((steps - 1) * (k / (shown - 1)) ** DENSER)
        found.append(max(place, found[-1] + 1))
    return found


def _that_reads(checkpoint: Checkpoint) -> tuple[TextUNet, Vocabulary]:
    """The network of a checkpoint and its words; ValueError unless it has cross-attention."""
    network, vocabulary = checkpoint.network, checkpoint.vocabulary
    if not isinstance(network, TextUNet) or vocabulary is None:
        name = checkpoint.path.stem
        raise InvalidValueError(f"checkpoint must be one that reads words, got {name}")
    if not network.config["cross_attention"]:
        raise InvalidValueError("checkpoint must have cross-attention, got one that has none")
    return network, vocabulary


def check_scales(scales: object) -> list[float]:
    """``scales`` as floats, if they rise from 0 or more."""
    found = [
        _validate.number("each of scales", scale, low=0.0, high=float("inf"))
        for scale in _listed("scales", scales, MOST_SCALES)
    ]
    if found != sorted(set(found)):
        raise InvalidValueError(f"scales must rise, got {found}")
    return found


def check_seeds(seeds: object) -> list[int]:
    """``seeds`` as ints, if they differ."""
    found = [_validate.seed("each of seeds", s) for s in _listed("seeds", seeds, MOST_SEEDS)]
    if len(set(found)) < len(found):
        raise InvalidValueError(f"seeds must differ from each other, got {found}")
    return found


def check_timesteps(timesteps: object) -> list[int]:
    """``timesteps`` as ints, if they fall and there are two of them or more."""
    found = [
        _validate.whole_number("each of timesteps", t, at_least=0)
        for t in _listed("timesteps", timesteps, MOST_SHOWN)
    ]
    if len(found) < 2 or found != sorted(set(found), reverse=True):
        raise InvalidValueError(f"timesteps must fall, two or more of them; got {found}")
    return found


def _listed(name: str, value: object, most: int) -> list:
    """``value`` as a list, if it is a sequence of 1 to ``most`` entries."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _validate.InvalidTypeError(
            f"{name} must be a sequence of numbers, got {_validate.describe(value)}"
        )
    if not 1 <= len(value) <= most:
        raise InvalidValueError(f"{name} must be 1 to {most} numbers, got {len(value)}")
    return list(value)
