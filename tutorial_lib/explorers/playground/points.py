"""What the playground computes: point sets, a small network, its training, the walks back."""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib import _validate
from tutorial_lib._typing import EpsModel, States, Steps
from tutorial_lib.datasets import glyph_fields as _glyphs
from tutorial_lib.losses import StratifiedSteps, epsilon_loss
from tutorial_lib.networks.unet import timestep_embedding
from tutorial_lib.oracles import DatasetOracle
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced
from tutorial_lib.schedules import NoiseSchedule

SHAPES = (
    *("two moons", "ring", "spiral", "two blobs", "eight blobs", "checkerboard"),
    *("letter ε", "smiley"),
)
WALKS = {"DDPM, every step": 0, "DDIM, 50 steps": 50, "DDIM, 10 steps": 10, "DDIM, 5 steps": 5}
"""Walks from noise to data, and how many steps they take; 0 for all."""
MAX_FRAMES = 201  # states of a walk that are sent: of 500 particles 400 kB
_BATCH = 256
_LEARNING_RATE = 1e-2  # at the beginning; it falls to 0, as in lesson 5
_WAVES = 4  # sines of a coordinate: without them the network learns blurred shapes only


def shape_points(name: str, count: int, generator: torch.Generator | None = None) -> Tensor:
    """``count`` points of a ready shape, (count, 2) float32, in the middle of the plane.

    Raises:
        TypeError, ValueError: an unknown ``name``; ``count`` below 1.
    """
    _validate.one_of("name", name, SHAPES)
    _validate.whole_number("count", count, at_least=1)
    turn = 2 * math.pi * torch.rand(count, generator=generator)
    jitter = torch.randn(count, 2, generator=generator)
    which = torch.randint(0, 8, (count,), generator=generator)
    if name == "two moons":
        upper = which % 2 == 0
        moon = torch.stack([(turn / 2).cos(), (turn / 2).sin()], 1)
        lower = torch.tensor([1.0, 0.5]) - moon
        centered = torch.where(upper[:, None], moon, lower) - torch.tensor([0.5, 0.25])
        return 1.4 * centered + 0.07 * jitter
    if name == "ring":
        return 1.5 * torch.stack([turn.cos(), turn.sin()], 1) + 0.07 * jitter
    if name == "spiral":
        angle = 0.5 + 9.5 * (turn / (2 * math.pi)).sqrt()  # evenly along the line, nearly
        return 0.22 * angle[:, None] * torch.stack([angle.cos(), angle.sin()], 1) + 0.03 * jitter
    if name == "two blobs":
        side = torch.where(which < 2, -1.2, 1.2)  # a quarter of the points on the left
        return torch.stack([side, side / 2], 1) + 0.3 * jitter
    if name == "eight blobs":
        angle = which * (math.pi / 4)
        return 1.6 * torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * jitter
    if name == "checkerboard":
        row = which // 2  # 0..3, two squares of each row
        column = 2 * (which % 2) + row % 2
        inside = torch.rand(count, 2, generator=generator)
        return torch.stack([column, row], 1) + inside - 2
    return _ink({"letter ε": "ε", "smiley": "☺"}[name], count, generator)


def _ink(character: str, count: int, generator: torch.Generator | None) -> Tensor:
    """Points spread over the ink of a character, which is about 4 wide or high."""
    font = "DejaVuSans-Bold" if character.isalpha() else "DejaVuSans"
    gray = _glyphs.glyph(_glyphs.font_folder() / f"{font}.ttf", character)  # (side, side)
    pixel = torch.multinomial(gray.flatten(), count, replacement=True, generator=generator)
    side = gray.shape[1]
    x = pixel % side + torch.rand(count, generator=generator) - side / 2
    y = side / 2 - pixel // side - torch.rand(count, generator=generator)
    return torch.stack([x, y], 1) * (5.2 / side)


class PointNet(nn.Module):
    """A small network for points in the plane: predicts eps_hat (B, 2) from x_t (B, 2) and t (B,).

    Its inputs are the coordinates, a few sines and cosines of them, and the embedding of t
    (``timestep_embedding``).

    Args:
        num_steps: T of the schedule.
        width: units of each of the two hidden layers.
        generator: draws the first weights; None means torch's default generator.
    """

    time: Tensor
    waves: Tensor

    def __init__(
        self, num_steps: int, *, width: int = 96, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        embedding = timestep_embedding(torch.arange(num_steps + 1), 32)
        self.register_buffer("time", embedding)  # (T + 1, 32)
        self.register_buffer("waves", math.pi / 4 * 2.0 ** torch.arange(_WAVES))  # (W,)
        entries = 2 + 4 * _WAVES + embedding.shape[1]
        last = _Linear(width, 2, generator)
        nn.init.zeros_(last.weight)  # the first answer is 0, whose loss is 1
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            _Linear(entries, width, generator),
            nn.SiLU(),
            _Linear(width, width, generator),
            nn.SiLU(),
            last,
        )

    def forward(self, x_t: States, t: Steps) -> States:
        """eps_hat (B, 2) for points ``x_t`` (B, 2) at steps ``t`` (B,)."""
        turns = (x_t[:, :, None] * self.waves).flatten(1)  # (B, 2W)
        seen = [x_t, turns.sin(), turns.cos(), self.time[t].to(x_t)]
        return self.layers(torch.cat(seen, 1))


class _Linear(nn.Module):
    """torch's ``nn.Linear`` with its first weights from a given generator."""

    def __init__(self, entries: int, width: int, generator: torch.Generator | None) -> None:
        super().__init__()
        bound = 1 / math.sqrt(entries)
        first = 2 * bound * torch.rand(width, entries + 1, generator=generator) - bound
        self.weight = nn.Parameter(first[:, :-1].float().contiguous())
        self.bias = nn.Parameter(first[:, -1].float().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def fit(
    model: nn.Module,
    schedule: NoiseSchedule,
    points: Tensor,
    share: Callable[[], float],
    generator: torch.Generator | None = None,
) -> Iterator[float]:
    """Trains ``model`` on ``points`` (N, 2) with the epsilon loss; yields the loss of each step.

    Args:
        share: how much of the training is over; it is called before each step, and training ends
            when it returns 1. The learning rate falls with it.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE, fused=True)
    steps = StratifiedSteps(schedule.num_steps)
    while (done := share()) < 1:
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * (1 - done)
        members = torch.randint(0, len(points), (_BATCH,), generator=generator)
        loss = epsilon_loss(model, schedule, points[members], generator=generator, sampler=steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


def floor(
    schedule: NoiseSchedule, points: Tensor, generator: torch.Generator | None = None
) -> float:
    """The loss of the exact oracle on ``points``, from 20,000 draws: no network reaches less."""
    oracle, steps = DatasetOracle(schedule, points), StratifiedSteps(schedule.num_steps)
    losses = []
    for _ in range(5):
        members = torch.randint(0, len(points), (4000,), generator=generator)
        x0 = points[members]
        losses.append(epsilon_loss(oracle, schedule, x0, generator=generator, sampler=steps))
    return float(torch.stack(losses).mean())


def frames(
    model: EpsModel,
    schedule: NoiseSchedule,
    x_T: States,
    walk: str,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[int, Tensor | None]]:
    """Walks from ``x_T`` (B, 2) to 0; yields each step reached, with the states to draw.

    Args:
        walk: one of ``WALKS``.

    Yields:
        (t, x_t), t falling from T to 0. Of walks with many steps some are not drawn: x_t is None.

    Raises:
        ValueError: an unknown ``walk``; a model that answers with NaN.
    """
    _validate.one_of("walk", walk, WALKS)
    count, T = WALKS[walk], schedule.num_steps
    if count:
        stream = ddim(model, schedule, x_T, evenly_spaced(T, min(count, T)))
    else:
        stream = ddpm(model, schedule, x_T, generator=generator)
    drawn = set(evenly_spaced(T, min(T, MAX_FRAMES - 1))) if not count else range(T + 1)
    yield T, x_T
    for step in stream:
        yield step.t, step.x_t if step.t in drawn else None


def share_near(x: Tensor, points: Tensor, radius: float) -> float:
    """The share of ``x`` (B, 2) with one of ``points`` (N, 2) within ``radius``."""
    nearest = torch.cdist(x.double(), points.double()).min(1).values
    return float((nearest <= radius).double().mean())
