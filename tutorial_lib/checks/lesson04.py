"""Lesson 4: the step as numbers, and the pieces of a U-Net."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    Property,
    Wrong,
    tensor_like,
)
from tutorial_lib.networks import unet

# The embedding


def _timestep_embedding(t, dim):
    half = dim // 2
    i = torch.arange(half, device=t.device)
    frequency = 10000.0 ** (-i / half)  # (dim/2,), from 1 down
    angle = t[:, None] * frequency  # (B, 1) times (dim/2,) is (B, dim/2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _embedding_cases(generator: torch.Generator):
    for batch, dim in ((4, 8), (1, 6), (8, 8), (3, 16), (5, 4)):
        t = torch.randint(1, 1001, (batch,), generator=generator)
        t[0] = 1000 if batch > 1 else 37
        t[1:2] = 1
        yield t, dim


def _embedding_with(frequency=None, angle=None, join=None):
    """The embedding with something changed."""

    def timestep_embedding(t, dim):
        half = dim // 2
        i = torch.arange(half)
        w = 10000.0 ** (-i / half) if frequency is None else frequency(i, half)
        turned = t[:, None] * w if angle is None else angle(t, w)
        parts = turned.sin(), turned.cos()
        return torch.cat(parts, 1) if join is None else join(*parts)

    return timestep_embedding


def _interleaved(sine: Tensor, cosine: Tensor) -> Tensor:
    return torch.stack([sine, cosine], 2).flatten(1)


_MADE_ON_THE_CPU = (
    "This works on the CPU only: on a GPU, t lies there and your frequencies do not. Make new "
    "tensors where t is: `torch.arange(..., device=t.device)`."
)
_TAKEN_TO_THE_CPU = (
    "You take the steps to the CPU (`.cpu()`, `.numpy()`, `.tolist()`). On a GPU they must stay "
    "where they are: calculate with `t` itself, and make new tensors with `device=t.device`."
)


def _stays_on_the_device(embed) -> bool:
    """Whether steps on another device give an embedding there.

    The "meta" device is on every machine, and like a GPU it does not mix with the CPU. Nothing can
    be copied from it. Answers that look at single values cannot run on it: they say nothing here.
    """
    try:
        given = embed(torch.zeros(3, dtype=torch.int64, device="meta"), 8)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        text = str(error)
        if "expected device" in text or "same device" in text:
            raise Wrong("shape", _MADE_ON_THE_CPU, "made on the CPU") from None
        if "copy out of meta" in text or "convert" in text or "numpy" in text.lower():
            raise Wrong("shape", _TAKEN_TO_THE_CPU, "taken to the CPU") from None
        return True
    if isinstance(given, Tensor) and given.device.type != "meta":
        raise Wrong("shape", _TAKEN_TO_THE_CPU, "taken to the CPU")
    return True


def _on_the_cpu(t, dim):
    half = dim // 2
    frequency = torch.exp(-math.log(10000.0) * torch.arange(half) / half)
    angle = t[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _entry_by_entry(t, dim):
    out = torch.empty(len(t), dim, device=t.device)
    for i in range(dim // 2):
        angle = t / 10000 ** (i / (dim // 2))
        out[:, i], out[:, dim // 2 + i] = torch.sin(angle), torch.cos(angle)
    return out


def _moved_afterwards(t, dim):
    i = torch.arange(dim // 2).to(t.device)
    return torch.hstack(
        [f(t.reshape(-1, 1) / 10000 ** (2 * i / dim)) for f in (torch.sin, torch.cos)]
    )


def _with_numpy(t, dim):
    frequency = np.exp(-np.log(10000) * np.arange(dim // 2) / (dim // 2))
    angle = np.outer(t.numpy(), frequency)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def _with_one_sine(t, dim):
    steps = torch.arange(dim // 2, dtype=torch.float64, device=t.device)
    angle = torch.outer(t.double(), torch.exp(steps * (-2 * math.log(10000.0) / dim)))
    return torch.cat([angle, angle + math.pi / 2], dim=-1).sin()


timestep_embedding = Exercise(
    "lesson04.timestep_embedding",
    "The sinusoidal embedding",
    difficulty=2,
    minutes=8,
    hints=(
        "First the frequencies, one for each i in 0..dim/2 - 1, then the angles t w_i of shape "
        "(B, dim/2), then sine and cosine of them.",
        "`t[:, None] * frequency` is a table: a row for each step, a column for each frequency.",
        "The frequencies are `10000.0 ** (-i / half)` with `half = dim // 2` and "
        "`i = torch.arange(half, device=t.device)`; join with `torch.cat([...], dim=1)`.",
    ),
    model_answer=_timestep_embedding,
    cases=_embedding_cases,
    atol=1e-3,  # float32 angles up to 1000 are right to 6e-5 of a radian
    seconds=30.0,  # the first use of the "meta" device imports much of torch
    mistakes=(
        Mistake(
            "sign of the exponent",
            _embedding_with(lambda i, half: 10000.0 ** (i / half)),
            "Your frequencies grow: the sign of the exponent is wrong. They fall from 1 to nearly "
            "1/10000.",
        ),
        Mistake(
            "base e",
            _embedding_with(lambda i, half: torch.exp(-i / half)),
            "Your frequencies fall from 1 to 1/e only: with `exp`, the exponent needs a factor "
            "log(10000).",
        ),
        Mistake(
            "base 1000",
            _embedding_with(lambda i, half: 1000.0 ** (-i / half)),
            "The base is 1000 here, and 10000 in the formula.",
        ),
        Mistake(
            "degrees",
            _embedding_with(angle=lambda t, w: torch.deg2rad(t[:, None] * w)),
            "You turn the angle from degrees into radians; t w_i is in radians as it is.",
        ),
        Mistake(
            "2 pi in the angle",
            _embedding_with(angle=lambda t, w: 2 * math.pi * t[:, None] * w),
            "Your angles hold a factor of 2 pi that the formula does not have.",
        ),
        Mistake(
            "half - 1",
            _embedding_with(lambda i, half: 10000.0 ** (-i / (half - 1))),
            "You divide i by dim/2 - 1. That variant exists (the code of the DDPM authors), but "
            "the formula here divides by dim/2. Mixing them up silently spoils loaded weights.",
        ),
        Mistake(
            "dim for half",
            _embedding_with(lambda i, half: 10000.0 ** (-i / (2 * half))),
            "You divide i by dim. There are only dim/2 frequencies, so they would stop at 1/100.",
        ),
        Mistake(
            "counted from 1",
            _embedding_with(lambda i, half: 10000.0 ** (-(i + 1) / half)),
            "Your i runs from 1; it begins at 0, so that the first frequency is 1.",
        ),
        Mistake(
            "evenly spaced",
            _embedding_with(lambda i, half: 1 / (1 + i).float()),
            "Your frequencies are 1, 1/2, 1/3, ... They should fall geometrically, each the same "
            "multiple of the one before.",
        ),
        Mistake(
            "whole-number frequencies",
            _embedding_with(lambda i, half: (10000.0 ** (-i / half)).long()),
            "Your frequencies were rounded to whole numbers, so all but the first are 0. Keep them "
            "floating-point, also where t is int64.",
        ),
        Mistake(
            "t divided by 1000",
            _embedding_with(angle=lambda t, w: t[:, None] / 1000 * w),
            "You divide t by 1000 first, so no circle turns by more than one radian. Take t as it "
            "is.",
        ),
        Mistake(
            "interleaved",
            _embedding_with(join=_interleaved),
            "All numbers are there, but sines and cosines alternate. Here all sines come first, "
            "then all cosines.",
        ),
        Mistake(
            "cosines first",
            _embedding_with(join=lambda sine, cosine: torch.cat([cosine, sine], 1)),
            "The two halves have changed places: sines first. (Some libraries have it your way.)",
        ),
        Mistake(
            "sines only",
            _embedding_with(join=lambda sine, cosine: sine),
            "This has the sines only, so only half of dim. Put the cosines behind them.",
        ),
        Mistake(
            "one below the other",
            _embedding_with(join=lambda sine, cosine: torch.cat([sine, cosine], 0)),
            "You join along the batch: twice as many rows. The cosines go to the right: dim=1.",
        ),
        Mistake(
            "made on the CPU",
            _on_the_cpu,
            _MADE_ON_THE_CPU,
        ),
        Mistake("taken to the CPU", _with_numpy, _TAKEN_TO_THE_CPU),
        Mistake(
            "whole-number exponent",
            _embedding_with(lambda i, half: 10000.0 ** (-i // half)),
            "`//` rounds the exponent to whole numbers, so all frequencies but the first are "
            "1/10000. Divide by `/`.",
        ),
        Mistake(
            "step counted from 0",
            lambda t, dim: _timestep_embedding(t - 1, dim),
            "This is the embedding of t - 1. Steps count noisings here: take t as it is.",
        ),
        Mistake(
            "other frequencies for the cosines",
            lambda t, dim: torch.cat(
                [
                    (t[:, None] * 10000.0 ** (-torch.arange(0, dim, 2) / dim)).sin(),
                    (t[:, None] * 10000.0 ** (-torch.arange(1, dim, 2) / dim)).cos(),
                ],
                1,
            ),
            "The sines are right; your cosines have frequencies of their own, between those of the "
            "sines. Sine and cosine of the *same* angle are the tip of a hand.",
        ),
        Mistake(
            "2 i over dim/2",
            _embedding_with(lambda i, half: 10000.0 ** (-2 * i / half)),
            "Your exponent is twice too large: in 2 i / dim the 2 has already made dim/2 of dim.",
        ),
        Mistake(
            "sines twice",
            _embedding_with(join=lambda sine, cosine: torch.cat([sine, sine], 1)),
            "Both halves hold the sines. The second half is cosines: together they are the tip of "
            "a hand.",
        ),
        Mistake(
            "added up",
            _embedding_with(join=lambda sine, cosine: sine + cosine),
            "You add sines and cosines up. Put them side by side, dim numbers in all: "
            "`torch.cat([...], dim=1)`.",
        ),
    ),
    properties=(
        Property(
            "Steps on a GPU must give an embedding on that GPU: make new tensors with "
            "`device=t.device`.",
            _stays_on_the_device,
        ),
    ),
    alternatives=(
        unet.timestep_embedding,
        _entry_by_entry,
        _moved_afterwards,
        _with_one_sine,
    ),
    passed="It also stays on the device of t.",
    why="`i / half` is floating-point although i holds whole numbers, and so is the angle.",
)


# Scale and shift


def _scale_and_shift(h, time):
    scale, shift = time[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1) each
    return h * (1 + scale) + shift


def _time_cases(generator: torch.Generator):
    for shape in ((2, 3, 8, 8), (1, 2, 3, 5), (4, 4, 4, 4), (3, 6, 2, 6)):
        batch, channels = shape[:2]
        h = 0.3 + torch.randn(shape, generator=generator)
        yield h, torch.randn(batch, 2 * channels, generator=generator)


def _wide(numbers: Tensor) -> Tensor:
    return numbers[:, :, None, None]


def _halves(time: Tensor) -> tuple[Tensor, Tensor]:
    scale, shift = time.chunk(2, dim=1)
    return _wide(scale), _wide(shift)


def _changed(combine):
    """Scale and shift joined to h by ``combine``."""
    return lambda h, time: combine(h, *_halves(time))


def _wrong_axis(h, time):
    scale, shift = time.chunk(2, dim=1)
    return h * (1 + scale) + shift


def _cut_along_the_batch(h, time):
    scale, shift = time[:, :, None, None].chunk(2, dim=0)
    return h * (1 + scale) + shift


def _from_the_right(h, time):
    scale, shift = (part[:, None, None, :] for part in time.chunk(2, dim=1))
    return h * (1 + scale) + shift


def _shift_in_place(h, time):
    channels = h.shape[1]
    h *= time[:, :channels].reshape(*h.shape[:2], 1, 1) + 1
    h += time[:, channels:].reshape(*h.shape[:2], 1, 1)
    return h


def _image_by_image(h, time):
    out = np.empty(h.shape)
    count = h.shape[1]
    for b in range(len(h)):
        for c in range(count):
            out[b, c] = h[b, c].numpy() * (1 + float(time[b, c])) + float(time[b, c + count])
    return out


scale_and_shift = Exercise(
    "lesson04.scale_and_shift",
    "Tell a feature map the time",
    difficulty=1,
    minutes=4,
    hints=(
        "Two steps: cut `time` into halves along its axis 1, and give each half two more axes of "
        "length 1 so that it meets the channels and not the columns.",
        "`time[:, :, None, None]` has shape (B, 2C, 1, 1); `.chunk(2, dim=1)` cuts it in two.",
    ),
    model_answer=_scale_and_shift,
    cases=_time_cases,
    mistakes=(
        Mistake(
            "no axes added",
            _wrong_axis,
            "A (B, C) tensor meets the *last* axes of (B, C, H, W): rows and columns, not samples "
            "and channels. Give it two more axes: (B, C, 1, 1).",
        ),
        Mistake(
            "columns for channels",
            _from_the_right,
            "Your numbers vary along the width. There should be one pair for each channel: "
            "(B, C, 1, 1), the new axes last.",
        ),
        Mistake(
            "cut along the batch",
            _cut_along_the_batch,
            "You cut `time` along the batch. Scales and shifts are the two halves of its channels: "
            "axis 1.",
        ),
        Mistake(
            "1 added to the product",
            _changed(lambda h, scale, shift: 1 + scale * h + shift),
            "You add the 1 to scale * h. It belongs to the scale, before h is multiplied.",
        ),
        Mistake(
            "unchanged",
            lambda h, time: h.clone(),
            "You return h as it came. The scales and the shifts in `time` must reach it.",
        ),
        Mistake(
            "scale without 1 +",
            _changed(lambda h, scale, shift: h * scale + shift),
            "You multiply by the scale itself. Multiply by 1 + scale, so that a scale of 0 changes "
            "nothing.",
        ),
        Mistake(
            "halves swapped",
            _changed(lambda h, scale, shift: h * (1 + shift) + scale),
            "The halves have changed places: scales first, then shifts.",
        ),
        Mistake(
            "shift scaled too",
            _changed(lambda h, scale, shift: (h + shift) * (1 + scale)),
            "You shift first and then scale, so the shift is scaled too. Scale first.",
        ),
        Mistake(
            "shift only",
            _changed(lambda h, scale, shift: h + shift),
            "The scale is missing: only the shift reaches h.",
        ),
        Mistake(
            "scale only",
            _changed(lambda h, scale, shift: h * (1 + scale)),
            "The shift is missing: only the scale reaches h.",
        ),
        Mistake(
            "shift subtracted",
            _changed(lambda h, scale, shift: h * (1 + scale) - shift),
            "You subtract the shift. Add it.",
        ),
        Mistake(
            "every other one",
            lambda h, time: h * (1 + _wide(time[:, ::2])) + _wide(time[:, 1::2]),
            "You alternate scales and shifts. The first C numbers are scales, the last C shifts.",
        ),
        Mistake(
            "not cut in two",
            lambda h, time: h + _wide(time),
            "`time` holds 2C numbers per sample, h has C channels: cut it into scales and shifts.",
        ),
        Mistake(
            "first sample for all",
            lambda h, time: _scale_and_shift(h, time[:1]),
            "Every image gets the numbers of the first one. Each has its own step.",
        ),
        Mistake(
            "exp of the scale",
            _changed(lambda h, scale, shift: h * scale.exp() + shift),
            "You multiply by exp(scale). That is another way to make 0 change nothing; here it is "
            "1 + scale.",
        ),
        Mistake(
            "1 minus scale",
            _changed(lambda h, scale, shift: h * (1 - scale) + shift),
            "You multiply by 1 - scale. It is 1 + scale.",
        ),
    ),
    alternatives=(
        _shift_in_place,
        _image_by_image,
        _changed(lambda h, scale, shift: torch.addcmul(shift.double(), h.double(), 1 + scale)),
        lambda h, time: (
            torch.einsum("bchw,bc->bchw", h, 1 + time[:, : h.shape[1]])
            + time[:, h.shape[1] :, None, None]
        ),
    ),
)


# Skips


def _merge_skip(h, skip):
    h = F.interpolate(h, size=skip.shape[2:])
    return torch.cat([h, skip], dim=1)


def _skip_cases(generator: torch.Generator):
    shapes = (
        ((2, 3, 4, 4), (2, 3, 8, 8)),
        ((1, 4, 4, 3), (1, 2, 7, 6)),
        ((3, 2, 2, 3), (3, 2, 4, 5)),
        ((2, 2, 4, 4), (2, 2, 8, 8)),
    )
    for coarse, fine in shapes:
        yield torch.randn(coarse, generator=generator), torch.randn(fine, generator=generator)


def _joined(join):
    """The two, at the finer resolution, put together by ``join``."""
    return lambda h, skip: join(F.interpolate(h, size=skip.shape[2:]), skip)


def _tiled(h, skip):
    rows, columns = skip.shape[2:]
    return torch.cat([h.repeat(1, 1, 2, 2)[:, :, :rows, :columns], skip], dim=1)


def _doubled_and_cut(h, skip):
    rows, columns = skip.shape[2:]
    h = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return torch.cat((h[:, :, :rows, :columns], skip), 1)


def _skip_by_index(h, skip):
    rows, columns = (torch.arange(n) // 2 for n in skip.shape[2:])
    large = h.numpy()[:, :, rows.numpy()][..., columns.numpy()]
    return np.concatenate([large, skip.numpy()], axis=1)


def _skip_filled_in(h, skip):
    channels = h.shape[1]
    out = torch.empty(len(h), channels + skip.shape[1], *skip.shape[2:], dtype=torch.float64)
    out[:, :channels] = nn.Upsample(skip.shape[2:])(h)
    out[:, channels:] = skip
    return out


def _rows_for_columns(h, skip):
    rows, columns = skip.shape[2:]
    return torch.cat([F.interpolate(h, size=(columns, rows)), skip], 1)


merge_skip = Exercise(
    "lesson04.merge_skip",
    "Join the skip",
    difficulty=1,
    minutes=4,
    hints=(
        "First make `h` as large as `skip`, then put them together along the axis of the channels.",
        "`F.interpolate(h, size=...)` takes the wanted (H, W); the last two entries of "
        "`skip.shape` are just that. In (B, C, H, W), which number is the axis of channels?",
    ),
    model_answer=_merge_skip,
    cases=_skip_cases,
    mistakes=(
        Mistake(
            "joined along the batch",
            _joined(lambda h, skip: torch.cat([h, skip], dim=0)),
            "You join along axis 0, the batch. Channels are axis 1.",
        ),
        Mistake(
            "joined along the height",
            _joined(lambda h, skip: torch.cat([h, skip], dim=2)),
            "You join along axis 2: one image above the other. Channels are axis 1.",
        ),
        Mistake(
            "joined along the width",
            _joined(lambda h, skip: torch.cat([h, skip], dim=-1)),
            "You join along the last axis: images side by side. Channels are axis 1.",
        ),
        Mistake(
            "added",
            _joined(lambda h, skip: h + skip),
            "You add the two. That is a shortcut; here they lie side by side: `torch.cat`.",
        ),
        Mistake(
            "tiled",
            _tiled,
            "`repeat` puts copies of the whole picture side by side. To enlarge it, each pixel is "
            "repeated: `F.interpolate`.",
        ),
        Mistake(
            "skip first",
            _joined(lambda h, skip: torch.cat([skip, h], dim=1)),
            "The other way around: first h, then the skip.",
        ),
        Mistake(
            "always doubled",
            lambda h, skip: torch.cat([F.interpolate(h, scale_factor=2), skip], dim=1),
            "You double h, which fails where H or W is odd: 4 rows become 8, and the skip has 7. "
            "Ask for the skip's size: `size=skip.shape[2:]`.",
        ),
        Mistake(
            "bilinear",
            lambda h, skip: torch.cat(
                [F.interpolate(h, size=skip.shape[2:], mode="bilinear"), skip], dim=1
            ),
            "You interpolate linearly. Use the nearest neighbor: each value is repeated.",
        ),
        Mistake(
            "skip made small",
            lambda h, skip: torch.cat([h, F.interpolate(skip, size=h.shape[2:])], dim=1),
            "You shrink the skip to the size of h, and lose the detail that it is there to save. "
            "Enlarge h.",
        ),
        Mistake(
            "not enlarged",
            lambda h, skip: torch.cat([h, skip], dim=1),
            "h is still smaller than the skip, so they do not fit side by side. Enlarge it first.",
        ),
        Mistake(
            "skip forgotten",
            lambda h, skip: F.interpolate(h, size=skip.shape[2:]),
            "This is the enlarged h alone: the skip is missing.",
        ),
        Mistake(
            "height and width swapped",
            _rows_for_columns,
            "You enlarge h, but not to the height and width of the skip. Are they swapped, or is "
            "one used for both? A shape is (B, C, H, W): `size=skip.shape[2:]`.",
        ),
        Mistake(
            "bicubic",
            lambda h, skip: torch.cat(
                [F.interpolate(h, size=skip.shape[2:], mode="bicubic"), skip], dim=1
            ),
            "You interpolate with cubic curves. Use the nearest neighbor: each value is repeated.",
        ),
        Mistake(
            "nearest-exact",
            lambda h, skip: torch.cat(
                [F.interpolate(h, size=skip.shape[2:], mode="nearest-exact"), skip], dim=1
            ),
            "`nearest-exact` takes other neighbors where the sizes do not divide. Here the default "
            "of `F.interpolate` is meant, `nearest`.",
        ),
        Mistake(
            "joined and averaged",
            _joined(lambda h, skip: torch.cat([h, skip], dim=1).mean(1, keepdim=True)),
            "You average over the joined channels. Keep them all: C1 + C2.",
        ),
    ),
    alternatives=(_doubled_and_cut, _skip_by_index, _skip_filled_in),
)


# Patches


def _to_patches(x, patch):
    height, width = x.shape[2:]
    x = F.pad(x, (0, -width % patch, 0, -height % patch))
    return F.pixel_unshuffle(x, patch)


def _patch_cases(generator: torch.Generator):
    for shape, patch in (
        ((2, 3, 8, 8), 2),
        ((1, 1, 7, 10), 4),
        ((2, 2, 9, 6), 3),
        ((3, 1, 5, 5), 2),
        ((1, 3, 6, 4), 2),
        ((2, 2, 3, 5), 1),
        ((1, 2, 8, 6), 4),
        ((2, 3, 4, 7), 5),
    ):
        yield torch.randn(shape, generator=generator), patch


def _padded(x: Tensor, patch: int) -> Tensor:
    return F.pad(x, (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))


def _cut(rearrange):
    """A padded picture cut by ``rearrange(x, patch)``."""
    return lambda x, patch: rearrange(_padded(x, patch), patch)


def _place_first(x: Tensor, patch: int) -> Tensor:
    batch, channels = x.shape[:2]
    cut = F.pixel_unshuffle(x, patch)
    grouped = cut.reshape(batch, channels, patch**2, *cut.shape[2:])
    return grouped.transpose(1, 2).flatten(1, 2)


def _columns_before_rows(x: Tensor, patch: int) -> Tensor:
    return F.pixel_unshuffle(x.mT, patch).mT


def _only_reshaped(x: Tensor, patch: int) -> Tensor:
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels * patch**2, height // patch, width // patch)


def _with_sides(sides: Callable, mode: str = "constant") -> Callable:
    """Patches of a picture padded by ``sides(rows, columns)``, with what is missing of both."""

    def wrong(x: Tensor, patch: int) -> Tensor:
        pad = sides(-x.shape[2] % patch, -x.shape[3] % patch)
        return F.pixel_unshuffle(F.pad(x, pad, mode), patch)

    return wrong


def _always_padded(x, patch):
    height, width = x.shape[2:]
    x = F.pad(x, (0, patch - width % patch, 0, patch - height % patch))
    return F.pixel_unshuffle(x, patch)


def _patches_by_axes(x, patch):
    batch, channels, height, width = x.shape
    rows, columns = math.ceil(height / patch), math.ceil(width / patch)
    full = x.new_zeros(batch, channels, rows * patch, columns * patch)
    full[:, :, :height, :width] = x
    cut = full.view(batch, channels, rows, patch, columns, patch)
    return cut.permute(0, 1, 3, 5, 2, 4).reshape(batch, -1, rows, columns)


def _patches_by_loop(x, patch):
    x = np.pad(x.numpy(), ((0, 0), (0, 0), (0, -x.shape[2] % patch), (0, -x.shape[3] % patch)))
    planes = [
        x[:, c, i::patch, j::patch]
        for c in range(x.shape[1])
        for i in range(patch)
        for j in range(patch)
    ]
    return np.stack(planes, axis=1)


def _patches_by_unfold(x, patch):
    x = F.pad(x, (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))
    columns = F.unfold(x, patch, stride=patch)
    return columns.unflatten(2, (x.shape[2] // patch, x.shape[3] // patch)).double()


to_patches = Exercise(
    "lesson04.to_patches",
    "A picture as patches",
    difficulty=2,
    minutes=6,
    hints=(
        "Two lines: pad, then `F.pixel_unshuffle`. How many rows are missing to the next multiple "
        "of `patch`? Nothing where it is one already.",
        "`-height % patch` is the number of missing rows: -7 % 4 is 1, -8 % 4 is 0.",
        "`F.pad(x, (left, right, top, bottom))` begins with the last axis, the width.",
    ),
    model_answer=_to_patches,
    cases=_patch_cases,
    mistakes=(
        Mistake(
            "not padded",
            lambda x, patch: F.pixel_unshuffle(x, patch),
            "This fails where `patch` does not divide the height or the width: pad first.",
        ),
        Mistake(
            "padded where nothing is missing",
            _always_padded,
            "Where `patch` divides the side already, you add a whole patch of zeros: patch - 0 is "
            "patch. `-height % patch` is 0 there.",
        ),
        Mistake(
            "padding swapped",
            _with_sides(lambda rows, columns: (0, rows, 0, columns)),
            "Below you pad as many rows as *columns* are missing. `F.pad` begins with the last "
            "axis, (left, right, top, bottom), and each side lacks a number of its own.",
        ),
        Mistake(
            "height's padding for both",
            _with_sides(lambda rows, columns: (0, rows, 0, rows)),
            "On the right you pad as many columns as *rows* are missing. The width has a number of "
            "its own: `-width % patch`.",
        ),
        Mistake(
            "padded on all sides",
            _with_sides(
                lambda rows, columns: (
                    columns // 2,
                    columns - columns // 2,
                    rows // 2,
                    rows - rows // 2,
                )
            ),
            "You spread the zeros over both sides. They all go to the right and below.",
        ),
        Mistake(
            "stretched",
            lambda x, patch: F.pixel_unshuffle(
                F.interpolate(x, size=[math.ceil(side / patch) * patch for side in x.shape[2:]]),
                patch,
            ),
            "You stretch the picture to a size that fits. Keep its pixels where they are, and add "
            "zeros on the right and below.",
        ),
        Mistake(
            "edge repeated",
            _with_sides(lambda rows, columns: (0, columns, 0, rows), mode="replicate"),
            "You repeat the last row and column. Pad with zeros, which is what `F.pad` does by "
            "default.",
        ),
        Mistake(
            "width only",
            _with_sides(lambda rows, columns: (0, columns)),
            "You pad on the right only. Rows may be missing as well: `F.pad(x, (left, right, top, "
            "bottom))`.",
        ),
        Mistake(
            "height only",
            _with_sides(lambda rows, columns: (0, 0, 0, rows)),
            "You pad below only. Columns may be missing as well: `F.pad(x, (left, right, top, "
            "bottom))`.",
        ),
        Mistake(
            "padded left and above",
            _with_sides(lambda rows, columns: (columns, 0, rows, 0)),
            "The zeros go to the right and below; yours are left and above.",
        ),
        Mistake(
            "cut off",
            lambda x, patch: F.pixel_unshuffle(
                x[:, :, : x.shape[2] // patch * patch, : x.shape[3] // patch * patch], patch
            ),
            "You cut off what does not fill a patch, so those pixels are lost. Pad instead.",
        ),
        Mistake(
            "place before channel",
            _cut(_place_first),
            "All numbers are there, in another order of channels: the p^2 places of the first "
            "color come first, then those of the second.",
        ),
        Mistake(
            "columns before rows",
            _cut(_columns_before_rows),
            "Inside each patch you go down the columns; go along the rows, as one reads.",
        ),
        Mistake(
            "only reshaped",
            _cut(_only_reshaped),
            "`reshape` keeps the numbers in their order, so it does not cut patches: it breaks "
            "rows. Use `F.pixel_unshuffle`.",
        ),
        Mistake(
            "mean of each patch",
            _cut(lambda x, patch: F.avg_pool2d(x, patch)),
            "You average over each patch, and the detail is gone. Its pixels become channels.",
        ),
        Mistake(
            "one pixel of each patch",
            _cut(lambda x, patch: x[:, :, ::patch, ::patch]),
            "You keep one pixel of each patch. All of them become channels.",
        ),
        Mistake(
            "remainder padded",
            lambda x, patch: F.pixel_unshuffle(
                F.pad(x, (0, x.shape[3] % patch, 0, x.shape[2] % patch)), patch
            ),
            "You add the remainder, `height % patch`. What is missing to the next multiple is "
            "`-height % patch`: for 7 rows and patches of 4, it is 1.",
        ),
        Mistake(
            "padded with black",
            lambda x, patch: F.pixel_unshuffle(
                F.pad(x, (0, -x.shape[3] % patch, 0, -x.shape[2] % patch), value=-1.0), patch
            ),
            "You pad with -1, black. Pad with zeros, which is what `F.pad` does by default.",
        ),
    ),
    alternatives=(_patches_by_axes, _patches_by_loop, _patches_by_unfold),
)


# What a pixel sees


class _Net(nn.Module):
    """A few convolutions with weights of their own; no parameter asks for a gradient."""

    def __init__(self, generator: torch.Generator, channels: int, kernels, strides) -> None:
        super().__init__()
        self.kernels, self.strides = kernels, strides
        self.weights = [
            torch.randn(channels, channels, kernel, kernel, generator=generator)
            for kernel in kernels
        ]

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        for weight, stride in zip(self.weights, self.strides, strict=True):
            x = F.conv2d(x.to(weight), 3 * weight / weight[0].numel() ** 0.5, stride=stride,
                         padding=weight.shape[-1] // 2)  # fmt: skip
            x = x + 0.3 * torch.tanh(x)
        return F.interpolate(x, size=size)

    def __repr__(self) -> str:
        return f"a net with kernels {self.kernels}, strides {self.strides}"


def _sees(net, x, row, column):
    x = x.clone().requires_grad_()
    out = net(x)
    (gradient,) = torch.autograd.grad(out[:, :, row, column].sum(), x)
    return gradient.abs().sum(dim=(0, 1))


def _map_of(answer, net, x, row, column):
    """The map as one picture of a batch, so that no row of it is taken for a sample."""
    height, width = x.shape[2:]
    like = torch.zeros(height, width)
    return tensor_like(answer(net, x, row, column), like)[None]


def _sees_cases(generator: torch.Generator):
    for channels, side, kernels, strides, row, column in (
        (2, (12, 12), (3, 3), (1, 1), 4, 7),
        (1, (9, 11), (3,), (1,), 2, 8),
        (3, (12, 16), (3, 3, 3), (1, 2, 1), 6, 3),
        (2, (8, 8), (5,), (1,), 0, 5),
    ):
        net = _Net(generator, channels, kernels, strides)
        yield net, torch.randn(1, channels, *side, generator=generator), row, column


def _gradient_of(number, reduce=None):
    """The gradient of ``number(out, row, column)``, made a map by ``reduce``."""

    def sees(net, x, row, column):
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(number(net(x), row, column), x)
        return gradient.abs().sum((0, 1)) if reduce is None else reduce(gradient)

    return sees


def _here(out: Tensor, row: int, column: int) -> Tensor:
    return out[:, :, row, column].sum()


def _times_input(net, x, row, column):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_here(net(x), row, column), x)
    return (gradient * x.detach()).abs().sum((0, 1))


def _by_backward(net, x, row, column):
    x = x.double().detach()
    x.requires_grad = True
    net(x)[0, :, row, column].sum().backward()
    assert x.grad is not None
    return np.abs(x.grad[0].numpy()).sum(axis=0)


def _by_jacobian(net, x, row, column):
    def pixel(image):
        return net(image)[0, :, row, column].sum()

    jacobian = torch.autograd.functional.jacobian(pixel, x)
    return jacobian.abs().sum(1)[0]  # type: ignore[union-attr]


def _with_a_mask(net, x, row, column):
    x.requires_grad_(True)
    out = net(x)
    mask = torch.zeros_like(out)
    mask[:, :, row, column] = 1
    out.backward(mask)
    return x.grad.norm(p=1, dim=(0, 1))


def _tuple_kept(net, x, row, column):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(_here(net(x), row, column), x).abs().sum((0, 1))  # type: ignore[attr-defined]


def _gradient_of_the_old_x(net, x, row, column):
    out = net(x.clone().requires_grad_())
    return torch.autograd.grad(_here(out, row, column), x)[0].abs().sum((0, 1))


sees = Exercise(
    "lesson04.sees",
    "What a pixel sees",
    difficulty=3,
    minutes=12,
    hints=(
        "Autograd can answer this. Make the input ask for its gradient, run the net, pick one "
        "output pixel, and go backward from there.",
        "`x = x.clone().requires_grad_()`, then `out = net(x)`. Going backward needs one number: "
        "the sum over the channels of `out` at that pixel.",
        "`(gradient,) = torch.autograd.grad(number, x)` has the shape of x. Take absolute values "
        "first, then sum over the batch and the channels.",
    ),
    model_answer=_sees,
    cases=_sees_cases,
    use=_map_of,
    reference=lambda *case: _sees(*case)[None],
    together=True,  # answers transform the network, which no stand-in survives
    mistakes=(
        Mistake(
            "the whole output",
            _gradient_of(lambda out, row, column: out.sum()),
            "You go backward from the sum of *all* output pixels. Pick the one at (row, column).",
        ),
        Mistake(
            "no gradient asked for",
            lambda net, x, row, column: torch.autograd.grad(_here(net(x), row, column), x)[0],
            "Autograd was not watching: x must ask for its gradient *before* the net runs. Begin "
            "with `x = x.clone().requires_grad_()`.",
        ),
        Mistake(
            "row and column swapped",
            _gradient_of(lambda out, row, column: out[:, :, column, row].sum()),
            "Row and column have changed places: tensors are (B, C, H, W), the row comes first.",
        ),
        Mistake(
            "first output channel only",
            _gradient_of(lambda out, row, column: out[0, 0, row, column]),
            "You start from the first output channel. Sum over all channels of that pixel.",
        ),
        Mistake(
            "no absolute value",
            _gradient_of(_here, lambda g: g.sum((0, 1))),
            "Your map has both signs: take the absolute value before you sum over channels, or "
            "influences cancel.",
        ),
        Mistake(
            "absolute value too late",
            _gradient_of(_here, lambda g: g.sum((0, 1)).abs()),
            "You sum over channels first, so that influences of opposite sign cancel. Absolute "
            "values first.",
        ),
        Mistake(
            "squared",
            _gradient_of(_here, lambda g: g.square().sum((0, 1))),
            "You square the gradient; take its absolute value.",
        ),
        Mistake(
            "mean over channels",
            _gradient_of(_here, lambda g: g.abs().mean((0, 1))),
            "You average over channels, of the input or of the output. Sum over both.",
        ),
        Mistake(
            "first input channel only",
            _gradient_of(_here, lambda g: g[0, 0].abs()),
            "You look at the first channel of the input only. Sum over all of them.",
        ),
        Mistake(
            "not summed",
            _gradient_of(_here, lambda g: g.abs()),
            "This is the gradient in the shape of x. Sum over batch and channels: a map (H, W).",
        ),
        Mistake(
            "yes or no",
            _gradient_of(_here, lambda g: (g.abs().sum((0, 1)) > 0).float()),
            "Your map says whether a pixel matters, not how much. Return the sums themselves.",
        ),
        Mistake(
            "the input itself",
            lambda net, x, row, column: x.abs().sum((0, 1)),
            "This is the picture that went in, not the gradient with respect to it.",
        ),
        Mistake(
            "the output itself",
            lambda net, x, row, column: net(x).abs().sum((0, 1)),
            "This is the net's output. Ask how the answer *changes* with x: its gradient.",
        ),
        Mistake(
            "strongest channel",
            _gradient_of(_here, lambda gradient: gradient.abs().amax((0, 1))),
            "You keep the strongest channel of the input only. Sum over the channels.",
        ),
        Mistake(
            "output made positive",
            _gradient_of(lambda out, row, column: out[:, :, row, column].abs().sum()),
            "You take the absolute value of the output. Take that of the gradient, and sum the "
            "output as it is.",
        ),
        Mistake(
            "absolute value for each output channel",
            lambda net, x, row, column: (
                torch.autograd.functional.jacobian(lambda image: net(image)[0, :, row, column], x)
                .abs()  # type: ignore[union-attr]
                .sum((0, 1, 2))
            ),
            "You take the absolute value for each output channel by itself. Sum the output over "
            "its channels first: one number, one gradient.",
        ),
        Mistake(
            "row and column counted from 1",
            _gradient_of(lambda out, row, column: out[:, :, row - 1, column - 1].sum()),
            "You look at the pixel one row above and one column to the left: `row` and `column` "
            "count from 0, as Python does.",
        ),
        Mistake(
            "gradient times input",
            _times_input,
            "You multiply the gradient by the picture. That is another measure: here a black pixel "
            "counts as much as a white one.",
        ),
        Mistake(
            "relative to the strongest",
            _gradient_of(_here, lambda g: g.abs().sum((0, 1)) / g.abs().sum((0, 1)).max()),
            "You divide by the largest value. Return the sums themselves.",
        ),
        Mistake(
            "many numbers",
            _gradient_of(lambda out, row, column: out[0, :, row, column]),
            "Going backward needs one number, and a pixel has several channels: sum over them "
            "first.",
        ),
        Mistake(
            "tuple not unpacked",
            _tuple_kept,
            "`torch.autograd.grad` returns a tuple with one gradient: take it out, `(gradient,) = "
            "...` or `...[0]`.",
        ),
        Mistake(
            "gradient of the old x",
            _gradient_of_the_old_x,
            "You run the net on the copy that asks for gradients, and then ask for the gradient of "
            "the old x. Keep the copy under one name.",
        ),
    ),
    alternatives=(_by_backward, _by_jacobian, _with_a_mask),
    passed="You can now look into any network that autograd can follow.",
)

field_by_hand = Number(
    "lesson04.field_by_hand",
    "A receptive field by hand",
    difficulty=2,
    minutes=3,
    hints=(
        "Go from the output back. One entry sees 3 x 3 entries of the layer below. How far apart "
        "are neighbors there, counted in pixels of the input?",
        "3 pixels after the first layer, 5 after the second. Neighbors are 2 pixels apart from "
        "there on, so the third layer adds 2 more on each side.",
    ),
    value=9,
    rtol=0.0,
    atol=0.01,
    mistakes=(
        Mistake(
            "stride ignored",
            7,
            "7 is right for three layers without stride. After a stride of 2 neighbors are 2 "
            "pixels apart, so the third layer reaches farther.",
        ),
        Mistake(
            "stride too early",
            11,
            "The stride does not widen the layer that strides, only what comes after it.",
        ),
        Mistake(
            "multiplied",
            27,
            "Fields do not multiply: each layer *adds* (its width - 1) times the distance of "
            "neighbors.",
        ),
        Mistake("area", 81, "81 is the number of pixels it sees. How wide is that square?"),
        Mistake(
            "two layers",
            5,
            "5 is what the second layer sees. There is a third one.",
        ),
        Mistake("one layer", 3, "3 is what a single layer sees. There are three."),
    ),
    why="3 after the first layer, 3 + 2 = 5 after the second, 5 + 2 * 2 = 9 after the third.",
)

blind = Choice(
    "lesson04.blind",
    "Who needs to be told the time?",
    difficulty=2,
    minutes=2,
    hints=(
        "Could you guess t by looking at x_t? What would you measure?",
        "From 256 pixels of black ground you can estimate how strong the noise is. From how many "
        "numbers would you have to do it in the plane?",
    ),
    right="b",
    options={
        "a": "In a picture hundreds of pixels show how strong the noise is, so t can be read off "
        "x_t nearly exactly. Being told adds little.",
        "b": "Right: two numbers say next to nothing about the strength of the noise in them, "
        "hundreds of pixels say it nearly exactly.",
        "c": "That would need pictures in which noise of different strength looks alike. Compare "
        "how much two numbers, and 256, tell about a standard deviation.",
        "d": "x_t holds some information about t, but how much depends on how many numbers it has.",
    },
)
