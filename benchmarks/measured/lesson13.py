"""Lesson 13: what the shipped model draws from words, and what it learns and forgets."""

import functools
import itertools
import statistics
from typing import Any

import torch
from torch import Tensor

from measured.claim import Claim, Numbers, mean_and_error, paired
from tutorial_lib import hardware
from tutorial_lib.autoencoders import with_autoencoder
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.datasets import Dataset, scenes
from tutorial_lib.datasets.scene_captions import (
    COLORS,
    GROUNDS,
    NEW_WORDS,
    PARTS,
    VOCABULARY,
    parse,
)
from tutorial_lib.datasets.scene_shapes import SHAPES
from tutorial_lib.forward import diffuse
from tutorial_lib.guidance import LabeledModel, guide, labeled
from tutorial_lib.losses import NoisySteps
from tutorial_lib.metrics import judge_scenes
from tutorial_lib.metrics.scenes import SceneVerdict
from tutorial_lib.networks.lora import add_lora, merge_lora
from tutorial_lib.networks.text_unet import TextUNet
from tutorial_lib.predictions import velocity
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import cosine_schedule

SCALES = (1.0, 2.0, 4.0, 7.5)
USUAL = 2.0
"""The guidance scale of everything that is not about guidance."""
PROMPTS_SEED = 1_000_100
"""Of the scenes whose captions are prompts; no training picture has such a seed."""
NEW = "orange"
"""The word that LoRA teaches."""
SAME = 4
"""Pictures of one prompt, from which the variety is measured, for each of four prompts."""


class Words:
    """The shipped model, its prompts, and how it draws."""

    def __init__(self, quick: bool) -> None:
        hardware.keep_freed_memory()
        self.seeds, self.count, self.strides = ([0, 1], 4, 2) if quick else ([*range(4)], 32, 20)
        self.lora_seeds, self.lora_steps = ([0, 1], 2) if quick else ([*range(4)], 250)
        checkpoint = with_autoencoder(load_checkpoint("words"))
        network, codec = checkpoint.network, checkpoint.codec
        assert isinstance(network, TextUNet)
        assert codec is not None, "the autoencoder was loaded"
        self.network, self.codec, self.schedule = network, codec, checkpoint.schedule
        self.target: str = checkpoint.card["target"]
        self.held_out: list[list[str]] = checkpoint.card["held_out"]
        self.latent_shape = checkpoint.image_shape
        self.model = labeled(network, self.schedule, self.target)
        self.walk = evenly_spaced(self.schedule.num_steps, self.strides)

    def noise(self, count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, *self.latent_shape, generator=generator)

    def seen(self, seed: int) -> Tensor:
        """Prompts without the combinations that were held out."""
        return scenes(self.count, seed=PROMPTS_SEED + seed, held_out=self.held_out).words

    def draw(
        self, words: Tensor, scale: float, seed: int, model: LabeledModel | None = None
    ) -> Tensor:
        parts = []
        noise = self.noise(len(words), seed)
        for some, start in zip(words.split(32), noise.split(32), strict=True):
            asked = guide(model or self.model, some, scale, self.network.no_condition)
            parts.append(last(ddim(asked, self.schedule, start, self.walk)))
        return self.codec.decode(torch.cat(parts))

    def about(self) -> Numbers:
        return {"seeds": self.seeds, "count": self.count, "strides": self.strides}


@functools.cache
def shipped(quick: bool) -> Words:
    return Words(quick)


def _right(verdict: SceneVerdict) -> float:
    return round(float(verdict.all_right.double().mean()), 5)


def _words_right(verdict: SceneVerdict, words: Tensor) -> float:
    return round(float(verdict.right[words != 0].double().mean()), 5)


def percent(values: list[float]) -> str:
    """The mean over seeds in percent, with its standard error."""
    return mean_and_error([100 * value for value in values])


def about(numbers: Numbers) -> str:
    """How many seeds and prompts: "(5 seeds of 64)"."""
    return f"({len(numbers['seeds'])} seeds of {numbers['count']:,})"


# --- what a mean of words says --------------------------------------------------------------------


@functools.cache
def binding(quick: bool) -> Numbers:
    """How far apart sentences with their two colors swapped are, as a mean of the words' vectors
    and as the vectors that the text encoder makes of them."""
    world = shipped(quick)
    found: dict[str, Any] = {"seeds": world.seeds, "count": world.count, "mean": [], "encoder": []}
    table = world.network.text.word.weight.detach().double()
    for seed in world.seeds:
        said = scenes(4 * world.count, seed=PROMPTS_SEED + seed)
        part = parse(said.words)
        both = (part.relation >= 0) & (part.color[:, 0] != part.color[:, 1])
        words = said.words[both][: world.count]
        swapped = swapped_colors(words)
        means = [table[w].mul((w != 0)[:, :, None]).sum(1) for w in (words, swapped)]
        away = (means[0] - means[1]).norm(dim=1) / means[0].norm(dim=1)
        found["mean"].append(float(f"{float(away.mean()):.3g}"))
        with torch.no_grad():
            one, two = (world.network.text(w)[0] for w in (words, swapped))
        far = (one - two).flatten(1).norm(dim=1) / one.flatten(1).norm(dim=1)
        found["encoder"].append(round(float(far.mean()), 5))
    return found


def swapped_colors(words: Tensor) -> Tensor:
    """The sentences with their two colors exchanged."""
    part = parse(words).part
    first, second = (part == 3).long().argmax(1), (part == 7).long().argmax(1)  # see PARTS
    rows, out = torch.arange(len(words)), words.clone()
    out[rows, first], out[rows, second] = words[rows, second], words[rows, first]
    return out


def _binding_verdict(numbers: Numbers) -> str:
    return "no: colors swapped, the same mean" if max(numbers["mean"]) < 1e-6 else "it differs"


def _binding_number(numbers: Numbers) -> str:
    most = max(numbers["mean"])
    return (
        f"two colors swapped: the mean of the vectors moves by {f'{most:.0e}' if most else '0'} of "
        f"its length, the encoder's vectors by {mean_and_error(numbers['encoder'])} "
        f"{about(numbers)}"
    )


# --- where a word is heard ------------------------------------------------------------------------


@functools.cache
def maps(quick: bool) -> Numbers:
    """Noised real scenes of two colors: is the map of a color word on the way up stronger in its
    own object than in the other one? At t = 500; a place belongs to the object whose center is
    nearer, if it is within that object's radius."""
    world = shipped(quick)
    found: dict[str, Any] = {**world.about(), "color": [], "shape": [], "size": []}
    for seed in world.seeds:
        data = scenes(6 * world.count, seed=PROMPTS_SEED + seed, held_out=world.held_out)
        said = parse(data.words)
        different = torch.stack([said.color, said.shape, said.size]).diff(dim=2)[:, :, 0] != 0
        chosen = (said.relation >= 0) & different.all(0)
        data = Dataset(
            data.images[chosen][: world.count],
            data.words[chosen][: world.count],
            vocabulary=VOCABULARY,
        )
        for kind, hits in _pointing(world, data, seed).items():
            found[kind].append(round(hits, 5))
    return found


def _pointing(world: Words, data: Dataset, seed: int) -> dict[str, float]:
    """The share of words, by kind, whose map is stronger in their own object."""
    words = data.words
    assert words is not None, "scenes have captions"
    x0 = world.codec.encode(data.images)
    t = torch.full((len(x0),), 500)
    x_t = diffuse(world.schedule, x0, t, world.noise(len(x0), seed))
    shares = world.network.attention_maps(x_t, t, words)["levels.up.ask"].mean(1)
    objects = _inside(data, shares.shape[1])  # (2, N, H, W)
    part = parse(words).part
    hits: dict[str, list[float]] = {"size": [], "color": [], "shape": []}
    for kind, places in (("size", (2, 6)), ("color", (3, 7)), ("shape", (4, 8))):  # see PARTS
        for own, place in enumerate(places):
            at = (part == place).long().argmax(1) + 1  # behind the word before the sentence
            heard = shares[torch.arange(len(shares)), :, :, at]
            here, there = (
                (heard * objects[i]).sum((1, 2)) / objects[i].sum((1, 2)) for i in (own, 1 - own)
            )
            hits[kind] += (here > there).double().tolist()
    return {kind: statistics.mean(values) for kind, values in hits.items()}


def _inside(data: Dataset, side: int) -> Tensor:
    """Which places of a map are in the first and in the second object of the captions, by the
    judge's finding of them; float (2, N, side, side)."""
    words = data.words
    assert words is not None, "scenes have captions"
    verdict, said = judge_scenes(data.images, words), parse(words)
    found = verdict.found
    grid = (torch.arange(side) + 0.5) / side
    masks = []
    for own in (0, 1):
        same = (found.color[:, :2] == said.color[:, own, None]).long().argmax(1)[:, None]
        x, y, radius = (
            column.gather(1, same)[:, :, None] for column in (found.x, found.y, found.radius)
        )
        away = (grid[None, None] - x).square() + (grid[None, :, None] - y).square()
        masks.append((away <= radius.clamp(min=1 / side).square()).double())
    return torch.stack(masks)


def _maps_verdict(numbers: Numbers) -> str:
    hits = {kind: statistics.mean(numbers[kind]) for kind in ("color", "shape", "size")}
    good = [kind for kind, share in hits.items() if share > 0.9]
    if len(good) == len(hits):
        return "yes"
    return f"yes for {' and '.join(good)} words, else less" if good else "more often than not"


def _maps_number(numbers: Numbers) -> str:
    shares = ", ".join(f"{kind} {percent(numbers[kind])}" for kind in ("color", "shape", "size"))
    return f"heard more in the own object than in the other: {shares} % {about(numbers)}"


# --- what is decided when -------------------------------------------------------------------------

SWITCHES = (950, 850, 700, 550, 400, 250)
"""Steps at which a word is changed; the noise is 13, 4.2, 2, 1.2, 0.7 and 0.4 times the signal."""
_PLACES = {"ground": -1, "relation": 4, "color": 2, "shape": 3}
_OTHERS = {
    "ground": list(GROUNDS),
    "color": [color for color in COLORS if color not in NEW_WORDS],
    "shape": [shape for shape in SHAPES if shape not in NEW_WORDS],
    "relation": ["left", "right", "left", "above", "below", "above"],  # each before its opposite
}


def changed(sentence: str, kind: str) -> str:
    """A sentence about two objects and the ground with one word replaced by another of its kind,
    or its relation by the opposite one."""
    words, others = sentence.split(), _OTHERS[kind]
    after = others[others.index(words[_PLACES[kind]]) + 1 :] + others
    words[_PLACES[kind]] = next(word for word in after if word not in words)
    return " ".join(words)


@functools.cache
def decided(quick: bool) -> Numbers:
    """Real scenes noised to a step and drawn from there, told a caption with one word changed: how
    often that word comes true, by its kind and the step."""
    world = shipped(quick)
    found: dict[str, Any] = {**world.about(), "steps": list(SWITCHES)}
    found |= {kind: [] for kind in _PLACES}
    for seed in world.seeds:
        data = scenes(8 * world.count, seed=PROMPTS_SEED + seed, held_out=world.held_out)
        said = parse(data.words)
        full = (said.relation >= 0) & (said.ground >= 0)
        x0 = world.codec.encode(data.images[full][: world.count])
        captions = VOCABULARY.decode(data.words[full][: world.count])
        for kind in _PLACES:
            told = VOCABULARY.encode([changed(sentence, kind) for sentence in captions])
            found[kind].append([_follows(world, x0, told, kind, t, seed) for t in SWITCHES])
    return found


def _follows(world: Words, x0: Tensor, told: Tensor, kind: str, start: int, seed: int) -> float:
    """The share of pictures that show the changed word, drawn on from step ``start``."""
    t = torch.full((len(x0),), start)
    x_t = diffuse(world.schedule, x0, t, world.noise(len(x0), 70 + seed))
    rest = [start, *(step for step in world.walk if step < start)]
    asked = guide(world.model, told, USUAL, world.network.no_condition)
    pictures = world.codec.decode(last(ddim(asked, world.schedule, x_t, rest)))
    right = judge_scenes(pictures, told).right[parse(told).part == PARTS.index(kind)]
    return round(float(right.double().mean()), 5)


def _half(shares: list[float], steps: list[int]) -> float:
    """The noise, in times the signal, at which half as many follow as at the first step; between
    two steps by the straight line through them."""
    schedule = cosine_schedule(1000)
    noise = [float(schedule.noise_rate[t] / schedule.signal_rate[t]) for t in steps]
    half = shares[0] / 2
    for i in range(1, len(shares)):
        if shares[i] <= half:
            part = (shares[i - 1] - half) / max(shares[i - 1] - shares[i], 1e-9)
            return noise[i - 1] + part * (noise[i] - noise[i - 1])
    return noise[-1]


def _halves(numbers: Numbers) -> dict[str, list[float]]:
    """For each kind of word that noise, of each seed; the kind that is settled first comes first.
    Where few follow even the first time, it is not far from there."""
    found = {
        kind: [_half(shares, numbers["steps"]) for shares in numbers[kind]] for kind in _PLACES
    }
    return dict(sorted(found.items(), key=lambda item: -statistics.mean(item[1])))


def _decided_verdict(numbers: Numbers) -> str:
    """The kinds in their order; those whose noises are not told apart stand together."""
    halves = list(_halves(numbers).items())
    groups = [[halves[0][0]]]
    for (_, earlier), (kind, later) in itertools.pairwise(halves):
        if paired(earlier, later).told_apart:
            groups.append([kind])
        else:
            groups[-1].append(kind)
    if len(groups) == 1:
        return "their order is not told apart"
    order = ", then ".join(" and ".join(group) for group in groups)
    return f"{'yes' if groups[-1] == ['shape'] else 'in part'}: {order}"


def _decided_number(numbers: Numbers) -> str:
    halves = ", ".join(
        f"{kind} {mean_and_error(noise)}" for kind, noise in _halves(numbers).items()
    )
    return f"half the changes are ignored from noise / signal {halves} {about(numbers)}"


# --- guidance -------------------------------------------------------------------------------------


@functools.cache
def guidance(quick: bool) -> Numbers:
    """Every word right and variety, by guidance scale."""
    world = shipped(quick)
    found: dict[str, Any] = world.about()
    for scale in SCALES:
        row: dict[str, list[float]] = {"right": [], "words": [], "variety": []}
        for seed in world.seeds:
            words = world.seen(seed)
            verdict = judge_scenes(world.draw(words, scale, seed), words)
            row["right"].append(_right(verdict))
            row["words"].append(_words_right(verdict, words))
            same = words[:4].repeat_interleave(SAME, 0)
            row["variety"].append(round(_variety(world.draw(same, scale, 50 + seed)), 5))
        found[f"{scale:g}"] = row
    return found


def _variety(pictures: Tensor) -> float:
    """The root mean square difference of two pictures of one prompt, over pairs."""
    groups = pictures.flatten(1).unflatten(0, (-1, SAME))
    spread = groups.double().var(1, correction=1).mean()  # half the mean squared difference
    return float((2 * spread).sqrt())


def _guidance_verdict(numbers: Numbers) -> str:
    means = {name: statistics.mean(numbers[name]["right"]) for name in map("{:g}".format, SCALES)}
    best = max(means, key=lambda name: means[name])
    if best == "7.5":
        return "here, too, it is the best of these"
    worse = paired(numbers["7.5"]["right"], numbers[best]["right"])
    return f"no, {best} is better here" if worse.told_apart else f"not told apart from {best}"


def _guidance_number(numbers: Numbers) -> str:
    names = [f"{scale:g}" for scale in SCALES]
    right = "/".join(percent(numbers[n]["right"]) for n in names)
    variety = "/".join(f"{statistics.mean(numbers[n]['variety']):.2f}" for n in names)
    return f"at {'/'.join(names)}: every word right {right} %, variety {variety} {about(numbers)}"


# --- composing ------------------------------------------------------------------------------------


@functools.cache
def composes(quick: bool) -> Numbers:
    """Prompts with an object of a combination that was held out, against the others."""
    world = shipped(quick)
    found: dict[str, Any] = world.about()
    row: dict[str, list[float]] = {"right": [], "words": []}
    for seed in world.seeds:
        words = scenes(world.count, seed=PROMPTS_SEED + seed, only=world.held_out).words
        verdict = judge_scenes(world.draw(words, USUAL, seed), words)
        row["right"].append(_right(verdict))
        row["words"].append(_words_right(verdict, words))
    seen = guidance(quick)[f"{USUAL:g}"]  # the same noise and scale
    found["seen"] = {name: seen[name] for name in row}
    found["held out"] = row
    return found


def _composes_verdict(numbers: Numbers) -> str:
    less = paired(numbers["held out"]["right"], numbers["seen"]["right"])
    if not less.told_apart:
        return "held out not told apart from seen"
    return "partly: less often than what it has seen" if less.mean < 0 else "yes"


def _composes_number(numbers: Numbers) -> str:
    less = paired(numbers["held out"]["right"], numbers["seen"]["right"])
    return (
        f"every word right, seen {percent(numbers['seen']['right'])} %, held out "
        f"{percent(numbers['held out']['right'])} %, difference {100 * less.mean:+.1f} ± "
        f"{100 * less.error:.1f} points {about(numbers)}"
    )


# --- LoRA -----------------------------------------------------------------------------------------


def with_new(world: Words) -> dict[str, Any]:
    """The arguments of ``scenes`` that have an object with the new word, and no other new one."""
    others = [[other] for other in NEW_WORDS if other != NEW]
    return {"only": [[NEW]], "new_words": True, "held_out": [*world.held_out, *others]}


def taught(world: Words, seed: int) -> LabeledModel:
    """The model after a LoRA of rank 2 on 200 scenes with a new word, as the lesson trains it."""
    data = scenes(200, seed=300 + seed, **with_new(world))
    latents, generator = world.codec.encode(data.images), torch.Generator().manual_seed(seed)
    network = add_lora(world.network, rank=2, generator=generator).train()
    small = [p for p in network.parameters() if p.requires_grad]
    optimizer, noisy = torch.optim.AdamW(small, lr=5e-3), NoisySteps(world.schedule.num_steps)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, world.lora_steps)
    for _ in range(world.lora_steps):
        chosen = torch.randint(len(latents), (8,), generator=generator)
        t, _ = noisy.draw(8, generator=generator)
        x0 = latents[chosen]
        eps = torch.randn(x0.shape, generator=generator)
        v_hat = network(diffuse(world.schedule, x0, t, eps), t, data.words[chosen])
        loss = (v_hat - velocity(world.schedule, x0, t, eps)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return labeled(merge_lora(network).eval(), world.schedule, world.target)


@functools.cache
def learned(quick: bool) -> Numbers:
    """What LoRA teaches of a new color, and what becomes of old prompts."""
    world = shipped(quick)
    found: dict[str, Any] = {
        "seeds": world.lora_seeds,
        "count": world.count,
        "steps": world.lora_steps,
        **{name: [] for name in ("before", "after", "old before", "old after", "old words")},
    }
    for seed in world.lora_seeds:
        model = taught(world, seed)
        asked = scenes(world.count, seed=PROMPTS_SEED + 50 + seed, **with_new(world)).words
        own, old = asked == VOCABULARY.number(NEW), world.seen(seed)
        for when, told in (("before", world.model), ("after", model)):
            verdict = judge_scenes(world.draw(asked, USUAL, seed, told), asked)
            found[when].append(round(float(verdict.right[own].double().mean()), 5))
        verdict = judge_scenes(world.draw(old, USUAL, seed, model), old)
        before = guidance(quick)[f"{USUAL:g}"]  # the same noise
        found["old before"].append(before["right"][seed])
        found["old after"].append(_right(verdict))
        found["old words"].append(round(_words_right(verdict, old) - before["words"][seed], 5))
    return found


def _lora_verdict(numbers: Numbers) -> str:
    after = statistics.mean(numbers["after"])
    if after > 0.8:
        return "yes, a color"
    return "a color, most of the time" if after > 0.5 else "a color, not often"


def _lora_number(numbers: Numbers) -> str:
    return (
        f"{NEW} where asked for: before {100 * statistics.mean(numbers['before']):.0f} %, after "
        f"{numbers['steps']} steps {percent(numbers['after'])} % {about(numbers)}"
    )


def _forgets_verdict(numbers: Numbers) -> str:
    loss = paired(numbers["old after"], numbers["old before"])
    if not loss.told_apart:
        return "not told apart"
    return "it forgets" if loss.mean < 0 else "no loss here, rather a gain"


def _forgets_number(numbers: Numbers) -> str:
    loss = paired(numbers["old after"], numbers["old before"])
    words = paired(numbers["old words"], [0.0] * len(numbers["old words"]))
    return (
        f"old prompts with every word right: {percent(numbers['old before'])} %, after "
        f"{100 * loss.mean:+.1f} ± {100 * loss.error:.1f} points, single words "
        f"{100 * words.mean:+.1f} ± {100 * words.error:.1f}, same noise {about(numbers)}"
    )


CLAIMS = [
    Claim(
        "binding",
        "The mean of a sentence's word vectors says what it says",
        binding,
        _binding_verdict,
        _binding_number,
    ),
    Claim(
        "attention_maps",
        "An attention map shows where a word's object is",
        maps,
        _maps_verdict,
        _maps_number,
    ),
    Claim(
        "decided_when",
        "The noisy steps decide layout and color",
        decided,
        _decided_verdict,
        _decided_number,
    ),
    Claim(
        "words_guidance",
        "Prompts need guidance 7.5",
        guidance,
        _guidance_verdict,
        _guidance_number,
    ),
    Claim(
        "composes",
        "A text-to-image model composes what it never saw together",
        composes,
        _composes_verdict,
        _composes_number,
    ),
    Claim(
        "lora_teaches",
        "LoRA teaches a new word from 200 pictures in a minute",
        learned,
        _lora_verdict,
        _lora_number,
    ),
    Claim(
        "lora_forgets",
        "LoRA forgets nothing, since the weights are frozen",
        learned,
        _forgets_verdict,
        _forgets_number,
    ),
]
