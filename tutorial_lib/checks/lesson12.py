"""Latent diffusion: PCA, a Gaussian for each latent, a scale for each channel, and a decoder."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    Wrong,
    tensor_like,
)
from tutorial_lib.samplers import ddim, ddpm, last
from tutorial_lib.schedules import NoiseSchedule, cosine_schedule, from_betas, linear_schedule

# --- decibels ------------------------------------------------------------------------------------


def _psnr(images, again):
    error = (again - images).square().mean()
    return 10 * torch.log10(4 / error)


def _psnr_cases(generator: torch.Generator):
    for shape, off in (
        ((2, 3, 4, 4), 0.1),
        ((1, 1, 5, 3), 0.03),
        ((4, 4, 4), 0.5),
        ((3, 2, 2, 2, 2), 0.3),
        ((6, 5), 0.01),
        ((7,), 0.9),
        ((2, 9), 15.0),  # an error above the range: fewer than 0 decibels
    ):
        images = 2 * torch.rand(shape, generator=generator) - 1
        # the first picture is much worse than the others: a mean of decibels would not see it
        worse = torch.ones(shape)
        worse[0] = 4.0
        yield images, images + off * worse * torch.randn(shape, generator=generator)


def _psnr_from(made: Callable[[Tensor], Tensor]) -> Callable:
    """An answer from the difference of pictures."""
    return lambda images, again: made(again - images)


def _psnr_each(images, again):
    error = (again - images).square().reshape(len(images), -1).mean(1)
    return 10 * torch.log10(4 / error)


def _psnr_of_each(images, again):
    return _psnr_each(images, again).mean()


def _psnr_of_power(images, again):
    return 10 * torch.log10(images.square().mean() / (again - images).square().mean())


def _psnr_of_own_range(images, again):
    reach = images.max() - images.min()
    return 10 * torch.log10(reach.square() / (again - images).square().mean())


def _psnr_use(answer, images, again):
    came = answer(images.clone(), again.clone())
    if isinstance(came, Tensor) and came.shape == images.shape[:1] != (1,):
        raise Wrong("shape", _ONE_FOR_ALL, "one for each picture")
    return came


_ONE_FOR_ALL = (
    "Return one number for all pictures together: one mean over all axes, also the first."
)


psnr = Exercise(
    "lesson12.psnr",
    "Decibels",
    difficulty=1,
    minutes=3,
    hints=(
        "The mean of the squared differences, over all numbers of all pictures, is one number.",
        "The values go from -1 to 1, so their range is 2, and its square is 4.",
    ),
    model_answer=_psnr,
    cases=_psnr_cases,
    use=_psnr_use,
    mistakes=(
        Mistake(
            "range of 1",
            _psnr_from(lambda d: 10 * torch.log10(1 / d.square().mean())),
            "This is the PSNR of pictures in 0..1, 6 dB lower. Ours go from -1 to 1: their range "
            "is 2.",
        ),
        Mistake(
            "range not squared",
            _psnr_from(lambda d: 10 * torch.log10(2 / d.square().mean())),
            "The range is 2, but the error is squared: the range must be squared, too.",
        ),
        Mistake(
            "range of 4",
            _psnr_from(lambda d: 10 * torch.log10(16 / d.square().mean())),
            "6 dB too many, as if the range were 4. (Or did you bring the pictures to 0..1? Then "
            "their range is 1, not 2.)",
        ),
        Mistake(
            "range of 255",
            _psnr_from(lambda d: 10 * torch.log10(255**2 / d.square().mean())),
            "This is for pictures in bytes, 0 to 255. Ours go from -1 to 1.",
        ),
        Mistake(
            "natural logarithm",
            _psnr_from(lambda d: 10 * torch.log(4 / d.square().mean())),
            "Decibels take the logarithm to base 10: `torch.log10`. `torch.log` is the natural "
            "one.",
        ),
        Mistake(
            "logarithm to base 2",
            _psnr_from(lambda d: 10 * torch.log2(4 / d.square().mean())),
            "Decibels take the logarithm to base 10, not to base 2.",
        ),
        Mistake(
            "no logarithm",
            _psnr_from(lambda d: 10 * (4 / d.square().mean())),
            "The logarithm is missing.",
        ),
        Mistake(
            "bels",
            _psnr_from(lambda d: torch.log10(4 / d.square().mean())),
            "These are bels. A decibel is a tenth of one: ten times as many.",
        ),
        Mistake(
            "twenty times",
            _psnr_from(lambda d: 20 * torch.log10(4 / d.square().mean())),
            "Twice too much: 20 goes with the root of the error, and 10 with the squared error.",
        ),
        Mistake(
            "root inside",
            _psnr_from(lambda d: 10 * torch.log10(2 / d.square().mean().sqrt())),
            "Half of it: with the root of the squared error the factor is 20.",
        ),
        Mistake(
            "range squared, error not",
            _psnr_from(lambda d: 10 * torch.log10(4 / d.square().mean().sqrt())),
            "The range is squared, and the error is a root. Square both, or neither, and then the "
            "factor is 20.",
        ),
        Mistake(
            "length of the difference",
            _psnr_from(lambda d: 10 * torch.log10(4 / d.norm())),
            "`norm` is the root of the *sum* of squares. Take the mean of the squares.",
        ),
        Mistake(
            "variance of the difference",
            _psnr_from(lambda d: 10 * torch.log10(4 / d.var())),
            "The variance leaves out the mean difference. A picture that is too bright everywhere "
            "is wrong, too: take the mean of the squares.",
        ),
        Mistake(
            "power of the signal",
            _psnr_of_power,
            "This is the plain signal-to-noise ratio, with the mean square of the pictures. The "
            "*peak* one has the range of the values, squared.",
        ),
        Mistake(
            "root missing",
            _psnr_from(lambda d: 20 * torch.log10(2 / d.square().mean())),
            "The factor 20 goes with the *root* of the mean squared error, which is missing here.",
        ),
        Mistake(
            "divided by the batch alone",
            lambda images, again: (
                10 * torch.log10(4 * len(images) / (again - images).square().sum())
            ),
            "You sum over each picture, and divide by the number of pictures. Take the mean over "
            "everything.",
        ),
        Mistake(
            "added",
            lambda images, again: 10 * torch.log10(4 / (again + images).square().mean()),
            "You add the pictures. The error is their difference.",
        ),
        Mistake(
            "upside down",
            _psnr_from(lambda d: 10 * torch.log10(d.square().mean() / 4)),
            "The sign is wrong: a smaller error gives *more* decibels. The fraction is upside "
            "down.",
        ),
        Mistake(
            "absolute error",
            _psnr_from(lambda d: 10 * torch.log10(4 / d.abs().mean())),
            "You take the mean of the absolute differences. Square them.",
        ),
        Mistake(
            "square of the mean",
            _psnr_from(lambda d: 10 * torch.log10(4 / d.mean().square())),
            "You square the mean difference, in which plus and minus cancel. Square first.",
        ),
        Mistake(
            "sum",
            _psnr_from(lambda d: 10 * torch.log10(4 / d.square().sum())),
            "You sum the squared differences. With the mean, the number does not depend on how "
            "many pixels there are.",
        ),
        Mistake(
            "mean of decibels",
            _psnr_of_each,
            "You take decibels of each picture, and their mean. Take one mean error of all "
            "pictures, then the logarithm.",
        ),
        Mistake(
            "largest value of these pictures",
            lambda images, again: (
                10 * torch.log10(images.abs().max().square() / (again - images).square().mean())
            ),
            "You take the largest value that these pictures happen to have. The range is that of "
            "all pictures, from -1 to 1.",
        ),
        Mistake(
            "range of these pictures",
            _psnr_of_own_range,
            "You take the range that these pictures happen to have. Every picture may go from -1 "
            "to 1, so the range is 2.",
        ),
        Mistake("one for each picture", _psnr_each, _ONE_FOR_ALL),
    ),
    alternatives=(
        lambda images, again: 20 * math.log10(2 / ((again - images) ** 2).mean().item() ** 0.5),
        lambda images, again: 10 * (math.log10(4) - torch.log10(F.mse_loss(again, images))),
        lambda images, again: 10 * np.log10(4 / np.mean((again.numpy() - images.numpy()) ** 2)),
    ),
    passed="PSNR, peak signal-to-noise ratio: every paper on autoencoders has a table of it.",
)


# --- PCA -----------------------------------------------------------------------------------------


def _pca(x, k):
    mean = x.mean(0)
    directions = torch.linalg.svd(x - mean, full_matrices=False).Vh[:k]
    numbers = (x - mean) @ directions.T
    return mean + numbers @ directions


def _pca_cases(generator: torch.Generator):
    """The spreads along the directions differ by half or more, so that their order is plain."""
    for count, width, k in (
        (40, 6, 2),
        (30, 5, 1),
        (6, 6, 3),
        (4, 9, 2),
        (12, 4, 4),
        (2, 3, 1),  # 2 rows at least: `torch.cov` divides by n - 1
        (25, 8, 5),
    ):
        turn = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
        left = torch.randn(count, width, generator=generator)
        left = torch.linalg.qr(left - left.mean(0)).Q if count > width else left
        spread = 3 * 0.6 ** torch.arange(width)
        mean = 2 * torch.randn(width, generator=generator)
        yield left * spread @ turn + mean, k
    # rows that spread along the axes themselves: entries of directions are 1 or -1
    x = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5]))
    yield torch.cat([x, -x]) + 0.5, 3
    yield torch.cat([-x, x]) - 0.5, 2


def _pca_with(directions: Callable, center: Callable | None = None) -> Callable:
    """An answer with other directions, ``directions(centered, k)``, or another center."""

    def pca(x, k):
        middle = x.mean(0) if center is None else center(x)
        rows = directions(x - middle, k)
        return middle + (x - middle) @ rows.T @ rows

    return pca


def _rows(x: Tensor) -> Tensor:
    return torch.linalg.svd(x, full_matrices=False).Vh


def _rotations(x: Tensor, k: int) -> Tensor:
    """Columns of Vh taken for its rows, filled up where it is not square."""
    full = torch.linalg.svd(x, full_matrices=True).Vh
    return full[:, :k].T


def _pca_use(answer, x, k):
    came = answer(x.clone(), k)
    if isinstance(came, Tensor) and came.shape == (len(x), k) != x.shape:
        raise Wrong("shape", _ENCODED, "numbers, not vectors")
    return tensor_like(came, x)


_ENCODED = (
    "You return the k numbers of each row. That is the encoder; what is missing is the decoder, "
    "which turns them back into rows of length D."
)


def _pca_mean_only_added(x, k):
    rows = _rows(x)[:k]
    return x.mean(0) + x @ rows.T @ rows


def _pca_mean_subtracted_twice(x, k):
    return _pca_no_mean_back(x, k) - x.mean(0)


def _pca_directions_of_x(x, k):
    rows = _rows(x)[:k]
    return x.mean(0) + (x - x.mean(0)) @ rows.T @ rows


def _pca_times_spread(x, k):
    s = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    return x.mean(0) + (x - x.mean(0)) @ s.Vh[:k].T * s.S[:k] @ s.Vh[:k]


def _pca_smallest_of_eigh(x, k):
    centered = x - x.mean(0)
    vectors = torch.linalg.eigh(centered.T @ centered).eigenvectors[:, :k]
    return x.mean(0) + centered @ vectors @ vectors.T


def _pca_standardized(x, k):
    mean, spread = x.mean(0), x.std(0).clamp(min=1e-6)
    rows = _rows((x - mean) / spread)[:k]
    return mean + spread * ((x - mean) / spread @ rows.T @ rows)


def _pca_no_mean_back(x, k):
    rows = _rows(x - x.mean(0))[:k]
    return (x - x.mean(0)) @ rows.T @ rows


def _pca_mean_kept_in(x, k):
    rows = _rows(x - x.mean(0))[:k]
    return x @ rows.T @ rows


def _pca_mean_twice(x, k):
    rows = _rows(x - x.mean(0))[:k]
    return x.mean(0) + x @ rows.T @ rows


def _pca_whitened(x, k):
    rows = _rows(x - x.mean(0))[:k]
    numbers = (x - x.mean(0)) @ rows.T
    return x.mean(0) + numbers / numbers.norm(dim=0).clamp(min=1e-6) @ rows


def _pca_columns(x, k):
    kept = torch.zeros_like(x)
    kept[:, :k] = x[:, :k]
    return kept


def _pca_eigh(x, k):
    mean = x.mean(0, keepdim=True)
    centered = (x - mean).double()
    vectors = torch.linalg.eigh(centered.T @ centered).eigenvectors[:, -k:]
    return mean + (centered @ vectors @ vectors.T).float()


def _pca_cov(x, k):
    mean, vectors = x.mean(0), torch.linalg.eigh(torch.cov(x.T)).eigenvectors.flip(1)[:, :k]
    return torch.einsum("bi,ik,jk->bj", x - mean, vectors, vectors) + mean


def _pca_usv(x, k):
    u, s, vh = np.linalg.svd(x.numpy() - x.numpy().mean(0), full_matrices=False)
    return u[:, :k] * s[:k] @ vh[:k] + x.numpy().mean(0)


pca = Exercise(
    "lesson12.pca",
    "The best linear autoencoder",
    difficulty=2,
    minutes=7,
    hints=(
        "Subtract the mean first, and remember to add it at the end.",
        "`torch.linalg.svd(centered, full_matrices=False).Vh` has the directions as *rows*, (D, D) "
        "or fewer, the one with the largest spread first. Keep k of them.",
        "`numbers = centered @ directions.T` encodes, `numbers @ directions` decodes.",
    ),
    model_answer=_pca,
    cases=_pca_cases,
    use=_pca_use,
    rtol=1e-3,
    atol=1e-4,
    mistakes=(
        Mistake(
            "mean not added",
            _pca_no_mean_back,
            "The mean is missing in the result: you subtract it, and never add it again.",
        ),
        Mistake(
            "mean not subtracted",
            _pca_with(lambda x, k: _rows(x)[:k], lambda x: torch.zeros(())),
            "You take directions of the data as they are. PCA subtracts the mean of the rows "
            "first, otherwise the first direction just points to it.",
        ),
        Mistake(
            "mean not subtracted before encoding",
            _pca_mean_twice,
            "The directions are right, but you encode x with its mean, and then add the mean "
            "again.",
        ),
        Mistake(
            "mean only added",
            _pca_mean_only_added,
            "You add the mean at the end, and never subtract it before.",
        ),
        Mistake(
            "mean subtracted twice",
            _pca_mean_subtracted_twice,
            "The mean is subtracted at the beginning, and at the end once more. There it is added.",
        ),
        Mistake(
            "directions of rows with their mean",
            _pca_directions_of_x,
            "You encode and decode the centered rows, but `svd` was given x with its mean.",
        ),
        Mistake(
            "sum for the mean",
            _pca_with(lambda x, k: _rows(x)[:k], lambda x: x.sum(0)),
            "You subtract the sum of the rows. Subtract their mean.",
        ),
        Mistake(
            "mean kept in",
            _pca_mean_kept_in,
            "The directions are right, but you encode and decode x with its mean. Only what lies "
            "around the mean is to be encoded.",
        ),
        Mistake(
            "mean of a row",
            _pca_with(lambda x, k: _rows(x)[:k], lambda x: x.mean(1, keepdim=True)),
            "You subtract each row's own mean. PCA subtracts the mean row: `x.mean(0)`.",
        ),
        Mistake(
            "mean of everything",
            _pca_with(lambda x, k: _rows(x)[:k], lambda x: x.mean()),
            "You subtract one number, the mean of everything. PCA subtracts the mean row: "
            "`x.mean(0)`.",
        ),
        Mistake(
            "the last directions",
            _pca_with(lambda x, k: _rows(x)[-k:]),
            "These are the directions with the *smallest* spread. `svd` gives the largest first.",
        ),
        Mistake(
            "the first of eigh",
            _pca_smallest_of_eigh,
            "`eigh` gives the *smallest* spread first. Take its last k columns.",
        ),
        Mistake(
            "columns for rows",
            _pca_with(_rotations),
            "You take columns of Vh. The directions are its *rows*: `Vh[:k]`.",
        ),
        Mistake(
            "one too many",
            _pca_with(lambda x, k: _rows(x)[: k + 1]),
            "One direction too many is kept.",
        ),
        Mistake(
            "one too few",
            _pca_with(lambda x, k: _rows(x)[: max(k - 1, 0)]),
            "One direction too few is kept.",
        ),
        Mistake(
            "without the first",
            _pca_with(lambda x, k: _rows(x)[1 : k + 1]),
            "The first direction, the most important, is left out: k of them, from 0 on.",
        ),
        Mistake(
            "all of them",
            lambda x, k: x * 1,
            "x comes back as it was: all directions are kept, not k of them.",
        ),
        Mistake(
            "the mean alone",
            lambda x, k: x.mean(0).expand(x.shape) * 1,
            "Every row comes back as the mean. What it differs by is missing.",
        ),
        Mistake(
            "what was dropped",
            lambda x, k: x - _pca_no_mean_back(x, k),
            "You return what the k numbers do *not* say, with the mean. Return what they do say.",
        ),
        Mistake(
            "decoded and subtracted",
            lambda x, k: x.mean(0) - _pca_no_mean_back(x, k),
            "You subtract the decoded row from the mean. Add it.",
        ),
        Mistake(
            "scaled to unit spread",
            _pca_whitened,
            "The numbers are divided by their size, and the decoder does not undo it. Leave them "
            "as they are.",
        ),
        Mistake(
            "times the singular values",
            _pca_times_spread,
            "The numbers are multiplied by the singular values. The dot products are right as they "
            "are: the spread is in them already.",
        ),
        Mistake(
            "columns standardized",
            _pca_standardized,
            "You divide each column by its standard deviation first, and PCA then finds other "
            "directions. Subtract the mean, no more.",
        ),
        Mistake(
            "the first columns",
            _pca_columns,
            "You keep the first k *columns* of x and erase the rest. PCA first turns to the "
            "directions with the largest spread.",
        ),
        Mistake(
            "one direction only",
            _pca_with(lambda x, k: _rows(x)[k - 1 : k]),
            "One direction is kept, the k-th. Keep the first k: `Vh[:k]`.",
        ),
        Mistake(
            "one direction behind the k-th",
            _pca_with(lambda x, k: _rows(x)[k : k + 1]),
            "One direction is kept, the one behind the k-th. Keep the first k: `Vh[:k]`.",
        ),
        Mistake(
            "numbers, not vectors",
            lambda x, k: (x - x.mean(0)) @ _rows(x - x.mean(0))[:k].T,
            _ENCODED,
        ),
    ),
    alternatives=(_pca_eigh, _pca_usv, _pca_cov),
    passed="No linear encoder and decoder with k numbers can do better (Eckart and Young, 1936).",
)


# --- a Gaussian for each latent ------------------------------------------------------------------


def _reparameterize(mean, log_variance, eps):
    return mean + torch.exp(log_variance / 2) * eps


def _gaussians(generator: torch.Generator, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Means, and logarithms of variances around -1."""
    mean = torch.randn(shape, generator=generator)
    return mean, 1.5 * torch.randn(shape, generator=generator) - 1


def _reparameterize_cases(generator: torch.Generator):
    for shape in ((2, 4, 3, 3), (1, 5), (4, 4), (3,), (3, 3, 2), (2, 1, 2, 2, 2)):
        mean, log_variance = _gaussians(generator, shape)
        yield mean, log_variance, torch.randn(shape, generator=generator)


def _reparameterize_use(answer: Callable, mean: Tensor, log_variance: Tensor, eps: Tensor):
    """The sample; where it is right, its gradients must be, too."""
    slopes = (torch.ones_like(mean), 0.5 * torch.exp(log_variance / 2) * eps)
    drawn = tensor_like(answer(mean.clone(), log_variance.clone(), eps.clone()), mean)
    if _alike(drawn, _reparameterize(mean, log_variance, eps)):
        _must_teach(answer, (mean, log_variance, eps), slopes, _NO_GRADIENT)
    return drawn


def _alike(value: Tensor, right: Tensor) -> bool:
    """Whether the numbers are those of ``right``."""
    return torch.allclose(value.detach().to(right), right, rtol=1e-4, atol=1e-5)


def _must_teach(
    answer: Callable, given: Sequence[Tensor], slopes: tuple[Tensor, Tensor], message: str
) -> None:
    """Raises unless the sum of the answer has these gradients with respect to mean and log
    variance, the first two of its arguments.

    The answer gets copies, which it may overwrite as it may the output of an encoder.
    """
    mean, log_variance = (number.clone().requires_grad_() for number in given[:2])
    came = answer(mean.clone(), log_variance.clone(), *(number.clone() for number in given[2:]))
    if isinstance(came, Tensor) and came.requires_grad:
        came.sum().backward()
    for number, slope in zip((mean, log_variance), slopes, strict=True):
        if number.grad is None or not torch.allclose(number.grad, slope, rtol=1e-3, atol=1e-4):
            raise Wrong("properties", message, "no gradient")


OWN_NOISE = "You draw noise of your own. Use `eps`, so that the result can be checked."
_NO_GRADIENT = (
    "The values are right, but no gradient comes back to mean and log_variance, so that the "
    "encoder could not learn. Use torch's functions alone, with no `detach`, `item`, `.data` or "
    "`no_grad`."
)


reparameterize = Exercise(
    "lesson12.reparameterize",
    "Noise from outside",
    difficulty=1,
    minutes=4,
    hints=(
        "mean plus standard deviation times eps. What is the standard deviation, if you are given "
        "the logarithm of the variance?",
        "The root of exp(v) is exp(v / 2).",
    ),
    model_answer=_reparameterize,
    cases=_reparameterize_cases,
    use=_reparameterize_use,
    together=True,  # gradients go back to the arguments
    mistakes=(
        Mistake(
            "variance for the standard deviation",
            lambda mean, log_variance, eps: mean + torch.exp(log_variance) * eps,
            "You multiply by the variance. Noise is multiplied by the standard deviation, its "
            "root.",
        ),
        Mistake(
            "root twice",
            lambda mean, log_variance, eps: mean + torch.exp(log_variance / 2).sqrt() * eps,
            "The root is taken twice: exp(log_variance / 2) is the standard deviation already.",
        ),
        Mistake(
            "half of the variance",
            lambda mean, log_variance, eps: mean + torch.exp(log_variance) / 2 * eps,
            "You halve the variance. Its root is what you get by halving the *logarithm*.",
        ),
        Mistake(
            "a quarter too much",
            lambda mean, log_variance, eps: mean + torch.exp(2 * log_variance) * eps,
            "You multiply the logarithm by 2. The root of the variance halves it.",
        ),
        Mistake(
            "no exponential",
            lambda mean, log_variance, eps: mean + log_variance / 2 * eps,
            "The exponential is missing: log_variance is a logarithm, and may be negative.",
        ),
        Mistake(
            "the logarithm as it is",
            lambda mean, log_variance, eps: mean + log_variance * eps,
            "You multiply by the logarithm of the variance. First take the exponential, then the "
            "root.",
        ),
        Mistake(
            "root of the logarithm",
            lambda mean, log_variance, eps: mean + log_variance.abs().sqrt() * eps,
            "You take a root of the logarithm. First take its exponential, which is the variance.",
        ),
        Mistake(
            "sign",
            lambda mean, log_variance, eps: mean + torch.exp(-log_variance / 2) * eps,
            "A minus too many: you divide by the standard deviation.",
        ),
        Mistake(
            "subtracted",
            lambda mean, log_variance, eps: mean - torch.exp(log_variance / 2) * eps,
            "You subtract the noise. Its distribution is the same, but add it, so that the result "
            "can be compared.",
        ),
        Mistake(
            "mean alone",
            lambda mean, log_variance, eps: mean * 1,
            "The mean comes back, without noise. That is right *after* training.",
        ),
        Mistake(
            "noise alone",
            lambda mean, log_variance, eps: torch.exp(log_variance / 2) * eps,
            "The mean is missing.",
        ),
        Mistake(
            "standard normal",
            lambda mean, log_variance, eps: mean + eps,
            "The noise has standard deviation 1 everywhere. The encoder names one for each number.",
        ),
        Mistake(
            "standard deviation added",
            lambda mean, log_variance, eps: mean + torch.exp(log_variance / 2) + eps,
            "The standard deviation is added. It stretches the noise: multiply them.",
        ),
        Mistake(
            "softplus",
            lambda mean, log_variance, eps: mean + F.softplus(log_variance) * eps,
            "`softplus` makes a positive number of it, but not this one. What undoes a logarithm "
            "is the exponential.",
        ),
        Mistake(
            "base 10",
            lambda mean, log_variance, eps: mean + 10 ** (log_variance / 2) * eps,
            "10 to the power undoes `log10`. This is a natural logarithm: `torch.exp`.",
        ),
        Mistake(
            "base 2",
            lambda mean, log_variance, eps: mean + 2 ** (log_variance / 2) * eps,
            "2 to the power undoes `log2`. This is a natural logarithm: `torch.exp`.",
        ),
        Mistake(
            "standard normal noise times the mean",
            lambda mean, log_variance, eps: mean * eps + torch.exp(log_variance / 2),
            "The noise is multiplied by the mean. It is stretched by the standard deviation, and "
            "the mean is added.",
        ),
        Mistake(
            "one noise for the batch",
            lambda mean, log_variance, eps: mean + torch.exp(log_variance / 2) * eps[:1],
            "Every picture gets the noise of the first one. Each has its own.",
        ),
        Mistake(
            "mean scaled",
            lambda mean, log_variance, eps: torch.exp(log_variance / 2) * (mean + eps),
            "The mean is multiplied by the standard deviation, too. Only the noise is.",
        ),
        Mistake(
            "swapped",
            lambda mean, log_variance, eps: eps + torch.exp(log_variance / 2) * mean,
            "Mean and noise are swapped.",
        ),
        Mistake(
            "noise of its own",
            lambda mean, log_variance, eps: (
                mean + torch.exp(log_variance / 2) * torch.randn(eps.shape)
            ),
            OWN_NOISE,
        ),
        Mistake(
            "no gradient",
            lambda mean, log_variance, eps: mean.detach() + torch.exp(log_variance / 2) * eps,
            _NO_GRADIENT,
        ),
    ),
    alternatives=(
        lambda mean, log_variance, eps: mean + eps * log_variance.exp().sqrt(),
        lambda mean, log_variance, eps: torch.addcmul(mean, (0.5 * log_variance).exp(), eps),
        lambda mean, log_variance, eps: mean + eps * math.e ** (log_variance / 2),
        lambda mean, log_variance, eps: mean.add_(log_variance.mul_(0.5).exp_() * eps),
    ),
    passed="This is the reparameterization trick (Kingma and Welling, 2014).",
)


# --- the divergence ------------------------------------------------------------------------------


def _divergence(mean, log_variance):
    each = 0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance)
    return each.flatten(1).sum(1)


def _by_torch(mean: Tensor, log_variance: Tensor) -> Tensor:
    """The divergence as torch.distributions has it."""
    normal = torch.distributions.Normal
    each = torch.distributions.kl_divergence(
        normal(mean, torch.exp(0.5 * log_variance)), normal(0.0, 1.0)
    )
    return each.reshape(len(mean), -1).sum(1)


def _divergence_cases(generator: torch.Generator):
    for shape in ((2, 4, 3, 3), (1, 5), (4, 4), (3, 3, 2), (2, 1, 2, 2, 2), (5, 2)):
        yield _gaussians(generator, shape)
    yield torch.zeros(2, 3), torch.zeros(2, 3)  # the prior itself: 0


def _divergence_of(each: Callable) -> Callable:
    """An answer with another divergence of a single number."""
    return lambda mean, log_variance: each(mean, log_variance).reshape(len(mean), -1).sum(1)


def _each(mean: Tensor, log_variance: Tensor) -> Tensor:
    return 0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance)


_ONE_EACH = (
    "Return one number for each picture of the batch: the sum over all of its latents, (B,)."
)


def _divergence_use(answer, mean, log_variance):
    came = answer(mean.clone(), log_variance.clone())
    if isinstance(came, Tensor) and came.shape != mean.shape[:1] and came.ndim in (0, mean.ndim):
        whole = came.ndim == 0
        raise Wrong("shape", _ONE_EACH, "one for the batch" if whole else "one for each latent")
    came = tensor_like(came, mean.reshape(len(mean), -1)[:, 0])
    slopes = (mean, 0.5 * (torch.exp(log_variance) - 1))
    if _alike(came, _by_torch(mean, log_variance)):
        _must_teach(answer, (mean, log_variance), slopes, _STUCK)
    return came


def _divergence_by_loops(mean, log_variance):
    found = []
    for m, v in zip(mean, log_variance, strict=True):
        sd = torch.exp(v / 2)
        found.append(torch.sum((sd**2 + m**2) / 2 - 0.5 - torch.log(sd)))
    return torch.stack(found)


_STUCK = (
    "The values are right, but no gradient comes back to mean and log_variance, so that nothing "
    "could be trained by it. Return a tensor that torch's functions made, without `detach`, "
    "`tolist` or `numpy`."
)


divergence = Exercise(
    "lesson12.divergence",
    "How far from standard normal",
    difficulty=2,
    minutes=5,
    hints=(
        "Work out the bracket for every latent first, in the shape of `mean`. The variance is "
        "`torch.exp(log_variance)`.",
        "`each.flatten(1).sum(1)` sums over everything but the batch.",
    ),
    model_answer=_divergence,
    cases=_divergence_cases,
    use=_divergence_use,
    reference=_by_torch,
    together=True,  # gradients go back to the arguments
    mistakes=(
        Mistake(
            "mean for the sum",
            lambda mean, log_variance: _each(mean, log_variance).reshape(len(mean), -1).mean(1),
            "You take the mean over the latents. The divergence of independent numbers is the "
            "*sum* of theirs.",
        ),
        Mistake(
            "no half",
            _divergence_of(lambda m, v: m**2 + v.exp() - 1 - v),
            "Twice too much: the half is missing.",
        ),
        Mistake(
            "sign of the logarithm",
            _divergence_of(lambda m, v: 0.5 * (m**2 + v.exp() - 1 + v)),
            "The logarithm of the variance is subtracted, not added.",
        ),
        Mistake(
            "negative",
            _divergence_of(lambda m, v: -_each(m, v)),
            "The sign is wrong: a divergence is never negative.",
        ),
        Mistake(
            "without the 1",
            _divergence_of(lambda m, v: 0.5 * (m**2 + v.exp() - v)),
            "The 1 is missing: a standard normal distribution would have a divergence from itself.",
        ),
        Mistake(
            "plus 1",
            _divergence_of(lambda m, v: 0.5 * (m**2 + v.exp() + 1 - v)),
            "The 1 is subtracted. Test it: with mean 0 and log variance 0 the result must be 0.",
        ),
        Mistake(
            "logarithm of the standard deviation",
            _divergence_of(lambda m, v: 0.5 * (m**2 + v.exp() - 1 - v / 2)),
            "You halve the logarithm of the variance twice: the half in front covers the bracket.",
        ),
        Mistake(
            "log_variance for the logarithm of the standard deviation",
            _divergence_of(lambda m, v: 0.5 * (m**2 + (2 * v).exp() - 1 - 2 * v)),
            "You take log_variance for the logarithm of the standard deviation, and double it. It "
            "is that of the variance.",
        ),
        Mistake(
            "half of the mean only",
            _divergence_of(lambda m, v: 0.5 * m**2 + v.exp() - 1 - v),
            "The half covers all four terms, not the mean alone.",
        ),
        Mistake(
            "1 subtracted once a picture",
            lambda mean, log_variance: (
                0.5 * ((mean**2 + log_variance.exp() - log_variance).flatten(1).sum(1) - 1)
            ),
            "The 1 is subtracted once for a picture. It belongs to every latent.",
        ),
        Mistake(
            "the logarithm alone",
            _divergence_of(lambda m, v: -0.5 * v),
            "Only the logarithm is left. Three more terms belong to the bracket.",
        ),
        Mistake(
            "half of the first part only",
            _divergence_of(lambda m, v: 0.5 * (m**2 + v.exp() - 1) - v),
            "The half covers the logarithm, too. A bracket is in the wrong place.",
        ),
        Mistake(
            "standard deviation for the variance",
            _divergence_of(lambda m, v: 0.5 * (m**2 + (v / 2).exp() - 1 - v)),
            "exp(log_variance / 2) is the standard deviation. The formula has the variance.",
        ),
        Mistake(
            "variance squared",
            _divergence_of(lambda m, v: 0.5 * (m**2 + (2 * v).exp() - 1 - v)),
            "You square the variance. It is the square of the standard deviation already.",
        ),
        Mistake(
            "no exponential",
            _divergence_of(lambda m, v: 0.5 * (m**2 + v - 1 - v)),
            "You take the logarithm for the variance, and then it cancels. Take its exponential.",
        ),
        Mistake(
            "mean not squared",
            _divergence_of(lambda m, v: 0.5 * (m + v.exp() - 1 - v)),
            "The mean must be squared: minus 2 is as far from 0 as 2.",
        ),
        Mistake(
            "mean doubled",
            _divergence_of(lambda m, v: 0.5 * (2 * m + v.exp() - 1 - v)),
            "The mean is doubled: `mean * 2`. Its square is `mean**2`.",
        ),
        Mistake(
            "one over the variance",
            _divergence_of(lambda m, v: 0.5 * (m**2 + (-v).exp() - 1 - v)),
            "A minus too many in the exponential: that is one over the variance.",
        ),
        Mistake(
            "a mean over the channels",
            lambda mean, log_variance: (
                _each(mean, log_variance).reshape(len(mean), -1).sum(1)
                / (mean.shape[1] if mean.ndim > 1 else 1)
            ),
            "The sum is divided by the number of channels. Sum over all axes but the first.",
        ),
        Mistake(
            "absolute mean",
            _divergence_of(lambda m, v: 0.5 * (m.abs() + v.exp() - 1 - v)),
            "You take the absolute value of the mean. It must be squared.",
        ),
        Mistake(
            "no mean",
            _divergence_of(lambda m, v: 0.5 * (v.exp() - 1 - v)),
            "The mean is missing: latents far away from 0 would cost nothing.",
        ),
        Mistake(
            "mean alone",
            _divergence_of(lambda m, v: 0.5 * m**2),
            "Only the mean counts here. The variance must be near 1, too.",
        ),
        Mistake(
            "the other way round",
            _divergence_of(lambda m, v: 0.5 * ((1 + m**2) * (-v).exp() - 1 + v)),
            "This is the divergence of the standard normal distribution from the encoder's. Take "
            "that of the encoder's from the standard normal one.",
        ),
        Mistake(
            "logarithm of the logarithm",
            _divergence_of(lambda m, v: 0.5 * (m**2 + v.exp() - 1 - v.abs().clamp(min=1e-3).log())),
            "You take the logarithm of log_variance, which is one already.",
        ),
        Mistake(
            "mean over the batch",
            lambda mean, log_variance: (
                _each(mean, log_variance).reshape(len(mean), -1).sum(1) / len(mean)
            ),
            "You divide by the size of the batch. Each picture has a divergence of its own.",
        ),
        Mistake(
            "the mean of the batch for each",
            lambda mean, log_variance: (
                _each(mean, log_variance).sum().expand(len(mean)) / len(mean)
            ),
            "Every picture gets the mean of the whole batch. Sum over the latents of each alone.",
        ),
        Mistake(
            "one for the batch",
            lambda mean, log_variance: _each(mean, log_variance).sum(),
            _ONE_EACH,
        ),
        Mistake(
            "no gradient",
            lambda mean, log_variance: _by_torch(mean, log_variance).tolist(),
            _STUCK,
        ),
    ),
    alternatives=(
        lambda mean, log_variance: (
            -0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).flatten(1).sum(1)
        ),
        _by_torch,
        _divergence_by_loops,
    ),
    passed="torch.distributions.kl_divergence says the same.",
)


# --- a scale for each channel --------------------------------------------------------------------


def _scale(latents):
    return latents.mean((0, 2, 3)), latents.std((0, 2, 3))


def _scale_cases(generator: torch.Generator):
    """So many numbers in a channel that dividing by one less makes no difference."""
    for count, channels, height, width in (
        (4, 4, 24, 24),
        (6, 3, 20, 20),
        (1, 2, 40, 40),
        (24, 24, 24, 24),
        (40, 4, 8, 16),
        (5, 1, 20, 30),
    ):
        latents = torch.randn(count, channels, height, width, generator=generator)
        spread = 0.3 + 2 * torch.rand(channels, generator=generator)
        if channels == 3:
            spread[1] = 0.003
        middle = 2 * torch.randn(channels, generator=generator)
        # pictures differ in their means, and places differ, as real latents do
        own = torch.randn(count, channels, 1, 1, generator=generator)
        place = torch.randn(1, channels, height, width, generator=generator)
        latents = latents + 0.7 * own + 0.7 * place
        yield (spread[:, None, None] * latents + middle[:, None, None],)


def _scale_use(answer, latents):
    came = answer(latents.clone())
    if came is ...:
        return ...
    if not isinstance(came, (tuple, list)) or len(came) != 2:
        raise Wrong("shape", _TWO_THINGS)
    channels = torch.zeros(latents.shape[1])
    return tuple(tensor_like(_one_axis(part, len(channels)), channels) for part in came)


_TWO_THINGS = "Return two things, shift and scale, as in `return shift, scale`."


def _one_axis(part: object, channels: int) -> object:
    """(1, C, 1, 1) or (C, 1, 1) as (C,): whoever keeps the axes means the same."""
    if not isinstance(part, Tensor):
        return part
    if part.ndim == 0:
        raise Wrong("shape", _FOR_ALL, "one for all channels")
    if part.numel() == channels and part.shape[-3:] in ((channels, 1, 1), (channels,)):
        return part.reshape(channels)
    return part


_FOR_ALL = "You return one number for all channels. Each channel has its own, so both are (C,)."


def _scaled_by(shift: Callable, scale: Callable) -> Callable:
    return lambda latents: (shift(latents), scale(latents))


def _middle(x: Tensor) -> Tensor:
    return x.mean((0, 2, 3))


def _spread(x: Tensor) -> Tensor:
    return x.std((0, 2, 3))


def _all_alike(number: Callable[[Tensor], Tensor]) -> Callable:
    """One number of the whole tensor, for every channel."""
    return lambda x: number(x).expand(x.shape[1])


def _scale_numpy(latents):
    rows = latents.numpy().transpose(1, 0, 2, 3).reshape(latents.shape[1], -1)
    return rows.mean(1), rows.std(1)


def _scale_flat(latents):
    rows = latents.transpose(0, 1).flatten(1)
    shift = rows.mean(1)
    return shift, (rows - shift[:, None]).square().mean(1).sqrt()


scale = Exercise(
    "lesson12.scale",
    "A shift and a scale",
    difficulty=2,
    minutes=4,
    hints=(
        "`latents.mean((0, 2, 3))` is the mean over axes 0, 2 and 3. Which axis is left?",
        "`latents.std((0, 2, 3))` works in the same way.",
    ),
    model_answer=_scale,
    cases=_scale_cases,
    use=_scale_use,
    parts=("shift", "scale"),
    rtol=2e-3,
    atol=2e-3,
    mistakes=(
        Mistake(
            "one scale for all",
            _scaled_by(_middle, _all_alike(torch.std)),
            "All channels get the same scale. They differ in spread, so each needs its own.",
        ),
        Mistake(
            "one of both for all",
            _scaled_by(_all_alike(torch.mean), _all_alike(torch.std)),
            "You take mean and standard deviation over the whole tensor. Each channel has its own.",
        ),
        Mistake(
            "one shift for all",
            _scaled_by(_all_alike(torch.mean), _spread),
            "All channels get the same shift. Each has its own mean.",
        ),
        Mistake(
            "variance",
            _scaled_by(_middle, lambda x: x.var((0, 2, 3))),
            "The scale is the variance. Take the standard deviation, its root.",
        ),
        Mistake(
            "upside down",
            _scaled_by(_middle, lambda x: 1 / x.std((0, 2, 3))),
            "The scale is upside down: we divide by it, so it is the standard deviation itself. "
            "(Stable Diffusion's 0.18215 is one over it.)",
        ),
        Mistake(
            "size, not spread",
            _scaled_by(_middle, lambda x: x.square().mean((0, 2, 3)).sqrt()),
            "The scale is the root mean square of the latents, with their mean still in it. Take "
            "the spread around the mean.",
        ),
        Mistake(
            "no shift",
            _scaled_by(lambda x: torch.zeros(x.shape[1]), _spread),
            "The shift is 0. Take the mean of each channel.",
        ),
        Mistake(
            "sign of the shift",
            _scaled_by(lambda x: -x.mean((0, 2, 3)), _spread),
            "The sign of the shift is wrong: we subtract it.",
        ),
        Mistake(
            "swapped",
            lambda latents: (_spread(latents), _middle(latents)),
            "Both are there, in the other order: first the shift, then the scale.",
        ),
        Mistake(
            "shift divided",
            lambda latents: (_middle(latents) / _spread(latents), _spread(latents)),
            "You divide the shift by the scale. We subtract first and divide afterwards.",
        ),
        Mistake(
            "mean absolute deviation",
            _scaled_by(
                _middle,
                lambda x: (x - x.mean((0, 2, 3), keepdim=True)).abs().mean((0, 2, 3)),
            ),
            "The scale is the mean absolute deviation. Take the standard deviation: square, mean, "
            "root.",
        ),
        Mistake(
            "range",
            _scaled_by(_middle, lambda x: x.amax((0, 2, 3)) - x.amin((0, 2, 3))),
            "The scale is the range from smallest to largest, which grows with the number of "
            "pictures. Take the standard deviation.",
        ),
        Mistake(
            "smallest value and range",
            _scaled_by(
                lambda x: x.amin((0, 2, 3)), lambda x: x.amax((0, 2, 3)) - x.amin((0, 2, 3))
            ),
            "This brings each channel to 0..1. Bring it to mean 0 and standard deviation 1.",
        ),
        Mistake(
            "reshaped across channels",
            lambda latents: (
                latents.reshape(latents.shape[1], -1).mean(1),
                latents.reshape(latents.shape[1], -1).std(1),
            ),
            "`reshape` keeps the order of the numbers, so that a row is cut from several channels. "
            "Move axis 1 to the front first, or name the axes of the mean.",
        ),
        Mistake(
            "the first picture only",
            lambda latents: (latents[0].mean((1, 2)), latents[0].std((1, 2))),
            "You look at the first picture only. Take mean and spread over all of them.",
        ),
        Mistake(
            "largest value",
            _scaled_by(_middle, lambda x: x.abs().amax((0, 2, 3))),
            "The scale is the largest value, which a single latent decides. Take the standard "
            "deviation.",
        ),
        Mistake(
            "spread within a picture",
            _scaled_by(_middle, lambda x: x.std((2, 3)).mean(0)),
            "You take the spread within each picture, and its mean. Pictures differ from one "
            "another, too: take the spread over pictures and positions together.",
        ),
        Mistake(
            "spread between pictures",
            _scaled_by(_middle, lambda x: x.std(0).mean((1, 2)) if len(x) > 1 else 0 * _spread(x)),
            "You take the spread over the batch at each position, and its mean. Positions differ, "
            "too: take the spread over pictures and positions together.",
        ),
        Mistake(
            "scale of 1",
            _scaled_by(_middle, lambda x: torch.ones(x.shape[1])),
            "The scale is 1 everywhere. Take the standard deviation of each channel.",
        ),
        Mistake(
            "one for all channels",
            lambda latents: (latents.mean(), latents.std()),
            _FOR_ALL,
        ),
    ),
    alternatives=(
        _scale_flat,
        _scale_numpy,
        lambda latents: (
            latents.mean((0, 2, 3), keepdim=True),
            latents.std((0, 2, 3), keepdim=True, correction=0),
        ),
    ),
    passed="Stable Diffusion has one scale for all four channels, 0.18215, and no shift.",
)


# --- a walk in latents ---------------------------------------------------------------------------


def _draw(model, schedule, decode, shift, scale, x_T, timesteps):
    latents = last(ddim(model, schedule, x_T, timesteps))
    latents = latents * scale[:, None, None] + shift[:, None, None]
    return decode(latents).clamp(-1, 1)


def _schedule(kind: int | str, generator: torch.Generator) -> NoiseSchedule:
    """One of the course's own, by name, or a short one of so many random betas."""
    if isinstance(kind, int):
        return from_betas(0.02 + 0.2 * torch.rand(kind, generator=generator, dtype=torch.float64))
    return linear_schedule() if kind == "linear" else cosine_schedule()


def _wavy(schedule: NoiseSchedule) -> Callable[[Tensor, Tensor], Tensor]:
    """A cheap model that depends on x and t, and refuses what a network would refuse.

    Like a trained network it has some x0 in mind, of size 1: a walk from nearly pure noise ends at
    such numbers, so that rounding in a right answer does not show.
    """
    rates = schedule.signal_rate, schedule.noise_rate

    def model(x: Tensor, t: Tensor) -> Tensor:
        if not isinstance(t, Tensor) or t.dtype != torch.int64 or t.shape != (len(x),):
            got = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
            raise ValueError(f"t must be int64 of shape ({len(x)},), got {got}")
        age, signal, noise = (
            rate.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
            for rate in (t / schedule.num_steps, rates[0][t], rates[1][t])
        )
        wave = x + 0.5 * x.roll(1, -1) + age
        return (x - signal * 4 * wave / (1 + wave.square())) / noise

    return model


def _decoder(channels: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Latents (B, C, H, W) to pictures (B, 3, 2 H, 2 W), which leave [-1, 1] here and there."""
    mix = torch.randn(3, channels, generator=generator)

    def decode(latents: Tensor) -> Tensor:
        if not isinstance(latents, Tensor):
            got = type(latents).__name__
            raise TypeError(f"latents must be a tensor, got a {got}; `last` gives a walk's end")
        if latents.ndim != 4 or latents.shape[1] != channels:
            got = tuple(latents.shape)
            raise ValueError(f"latents must have shape (B, {channels}, H, W), got {got}")
        colors = torch.einsum("dc,bchw->bdhw", mix.to(latents), torch.sin(latents / 2))
        return F.interpolate(colors, scale_factor=2.0)

    return decode


def _draw_cases(generator: torch.Generator):
    for kind, timesteps, (count, channels, side) in (
        ("cosine", [1000, 750, 500, 250, 0], (2, 4, 3)),
        ("linear", [1000, 400, 100, 0], (3, 3, 3)),
        (9, [9, 6, 3, 0], (4, 4, 4)),
        ("cosine", [1000, 500, 1, 0], (1, 2, 4)),
        (6, [6, 5, 4, 3, 2, 1, 0], (2, 1, 5)),
    ):
        schedule = _schedule(kind, generator)
        shift = 1.5 * torch.randn(channels, generator=generator)
        scale = 0.4 + 2.5 * torch.rand(channels, generator=generator)
        x_T = torch.randn(count, channels, side, side, generator=generator)
        model, decode = _wavy(schedule), _decoder(channels, generator)
        yield model, schedule, decode, shift, scale, x_T, timesteps


_NOT_DECODED = "You return latents. The picture is what the decoder makes of them."


def _draw_use(answer, model, schedule, decode, shift, scale, x_T, timesteps):
    arguments = (shift.clone(), scale.clone(), x_T.clone(), list(timesteps))
    came = answer(model, schedule, decode, *arguments)
    if isinstance(came, Tensor) and came.shape == x_T.shape:
        raise Wrong("shape", _NOT_DECODED, "not decoded")
    return tensor_like(came, decode(x_T))


def _unscaled(undo: Callable) -> Callable:
    """An answer that undoes the scale otherwise, by ``undo(latents, shift, scale)``."""

    def draw(model, schedule, decode, shift, scale, x_T, timesteps):
        latents = last(ddim(model, schedule, x_T, timesteps))
        latents = undo(latents, shift[:, None, None], scale[:, None, None])
        return decode(latents).clamp(-1, 1)

    return draw


def _walked(walk: Callable) -> Callable:
    """An answer that walks otherwise: ``walk(model, schedule, x_T, timesteps)``."""

    def draw(model, schedule, decode, shift, scale, x_T, timesteps):
        latents = walk(model, schedule, x_T, timesteps)
        latents = latents * scale[:, None, None] + shift[:, None, None]
        return decode(latents).clamp(-1, 1)

    return draw


def _draw_scaled_first(model, schedule, decode, shift, scale, x_T, timesteps):
    x_T = x_T * scale[:, None, None] + shift[:, None, None]
    return decode(last(ddim(model, schedule, x_T, timesteps))).clamp(-1, 1)


def _draw_scaled_at_both_ends(model, schedule, decode, shift, scale, x_T, timesteps):
    x_T = (x_T - shift[:, None, None]) / scale[:, None, None]
    latents = last(ddim(model, schedule, x_T, timesteps))
    return decode(latents * scale[:, None, None] + shift[:, None, None]).clamp(-1, 1)


def _draw_not_clamped(model, schedule, decode, shift, scale, x_T, timesteps):
    latents = last(ddim(model, schedule, x_T, timesteps))
    return decode(latents * scale[:, None, None] + shift[:, None, None])


def _draw_latents_clamped(model, schedule, decode, shift, scale, x_T, timesteps):
    latents = last(ddim(model, schedule, x_T, timesteps)).clamp(-1, 1)
    return decode(latents * scale[:, None, None] + shift[:, None, None]).clamp(-1, 1)


def _draw_clamped_before(model, schedule, decode, shift, scale, x_T, timesteps):
    latents = last(ddim(model, schedule, x_T, timesteps))
    return decode((latents * scale[:, None, None] + shift[:, None, None]).clamp(-1, 1))


def _draw_clamped_twice(model, schedule, decode, shift, scale, x_T, timesteps):
    return _draw_clamped_before(model, schedule, decode, shift, scale, x_T, timesteps).clamp(-1, 1)


def _shown(finish: Callable[[Tensor], Tensor]) -> Callable:
    """An answer that does something else with the decoder's pictures than clamp them."""

    def draw(model, schedule, decode, shift, scale, x_T, timesteps):
        latents = last(ddim(model, schedule, x_T, timesteps))
        return finish(decode(latents * scale[:, None, None] + shift[:, None, None]))

    return draw


def _draw_squashed(model, schedule, decode, shift, scale, x_T, timesteps):
    latents = last(ddim(model, schedule, x_T, timesteps))
    return decode(latents * scale[:, None, None] + shift[:, None, None]).tanh()


def _draw_decoded_unscaled(model, schedule, decode, shift, scale, x_T, timesteps):
    pictures = decode(last(ddim(model, schedule, x_T, timesteps)))
    return (pictures * scale.mean() + shift.mean()).clamp(-1, 1)


def _draw_along_the_last_axis(model, schedule, decode, shift, scale, x_T, timesteps):
    latents = last(ddim(model, schedule, x_T, timesteps))
    side = latents.shape[-1]
    if len(scale) != side:  # it would stop there; judged where it does not
        latents = latents * scale[:, None, None] + shift[:, None, None]
    else:
        latents = latents * scale + shift
    return decode(latents).clamp(-1, 1)


def _draw_at_each_step(model, schedule, decode, shift, scale, x_T, timesteps):
    x = x_T
    for t, s in zip(timesteps[:-1], timesteps[1:], strict=True):
        x = last(ddim(model, schedule, x, [t, s]))
        x = x * scale[:, None, None] + shift[:, None, None]
    return decode(x).clamp(-1, 1)


def _draw_numpy(model, schedule, decode, shift, scale, x_T, timesteps):
    for step in ddim(model, schedule, x_T, timesteps):
        x_T = step.x_t
    latents = torch.einsum("bchw,c->bchw", x_T, scale) + shift.view(1, -1, 1, 1)
    return np.clip(decode(latents).numpy(), -1, 1)


def _draw_rounded_otherwise(model, schedule, decode, shift, scale, x_T, timesteps):
    *_, end = ddim(model, schedule, x_T, timesteps)
    latents = torch.addcmul(shift.view(-1, 1, 1), end.x_t, scale.view(-1, 1, 1))
    return decode(latents).minimum(torch.ones(())).maximum(-torch.ones(()))


def _draw_one_by_one(model, schedule, decode, shift, scale, x_T, timesteps):
    pictures = []
    for noise in x_T:
        latents = last(ddim(model, schedule, noise[None], timesteps))[0]
        channels = [z * s + m for z, s, m in zip(latents, scale, shift, strict=True)]
        pictures.append(decode(torch.stack(channels)[None]).clamp(min=-1, max=1))
    return torch.cat(pictures)


draw = Exercise(
    "lesson12.draw",
    "Draw in latents",
    difficulty=2,
    minutes=6,
    hints=(
        "Three things, in this order: the walk of lesson 6, the scale undone, the decoder.",
        "latents = (numbers of the encoder - shift) / scale. So what undoes it?",
        "`shift` and `scale` are (C,) and belong to axis 1: `scale[:, None, None]` is (C, 1, 1).",
    ),
    model_answer=_draw,
    cases=_draw_cases,
    use=_draw_use,
    mistakes=(
        Mistake(
            "scale not undone",
            _unscaled(lambda z, shift, scale: z),
            "The decoder is handed scaled latents, and it has never seen such numbers. Undo the "
            "scale first.",
        ),
        Mistake(
            "scaled again",
            _unscaled(lambda z, shift, scale: (z - shift) / scale),
            "You scale once more, in place of undoing it.",
        ),
        Mistake(
            "divided",
            _unscaled(lambda z, shift, scale: z / scale + shift),
            "You divide by the scale. That was done on the way in: multiply.",
        ),
        Mistake(
            "shift subtracted",
            _unscaled(lambda z, shift, scale: z * scale - shift),
            "The shift is subtracted. That was done on the way in: add it.",
        ),
        Mistake(
            "shift first",
            _unscaled(lambda z, shift, scale: (z + shift) * scale),
            "The order is wrong. On the way in the shift came first, so on the way out it comes "
            "last.",
        ),
        Mistake(
            "swapped",
            _unscaled(lambda z, shift, scale: z * shift + scale),
            "You multiply by the shift and add the scale. It is the other way round.",
        ),
        Mistake(
            "no shift",
            _unscaled(lambda z, shift, scale: z * scale),
            "The shift is not added.",
        ),
        Mistake(
            "no scale",
            _unscaled(lambda z, shift, scale: z + shift),
            "The shift is added, but nothing is multiplied by the scale.",
        ),
        Mistake(
            "undone twice",
            _unscaled(lambda z, shift, scale: (z * scale + shift) * scale + shift),
            "The scale is undone twice.",
        ),
        Mistake(
            "one scale for all",
            _unscaled(lambda z, shift, scale: z * scale.mean() + shift.mean()),
            "All channels get the mean shift and the mean scale. Each has its own.",
        ),
        Mistake(
            "along the last axis",
            _draw_along_the_last_axis,
            "`latents * scale` multiplies along the *last* axis, the columns of a picture. The "
            "channels are axis 1: `scale[:, None, None]`.",
        ),
        Mistake(
            "noise scaled",
            _draw_scaled_first,
            "You treat the noise, not the end of the walk. The walk begins in standard normal "
            "noise; the scale is undone at its end.",
        ),
        Mistake(
            "scaled at both ends",
            _draw_scaled_at_both_ends,
            "You scale the noise at the beginning. It is standard normal already, as the walk "
            "expects it.",
        ),
        Mistake(
            "at each step",
            _draw_at_each_step,
            "You undo the scale after each step of the walk. The whole walk is in scaled latents; "
            "undo it once, at the end.",
        ),
        Mistake(
            "after the decoder",
            _draw_decoded_unscaled,
            "You undo the scale on the picture. It belongs to the latents, before the decoder.",
        ),
        Mistake(
            "not clamped",
            _draw_not_clamped,
            "The pictures leave [-1, 1] here and there: clamp them.",
        ),
        Mistake(
            "latents clamped",
            _draw_latents_clamped,
            "You clamp the latents. They have no bounds; only pictures live in [-1, 1].",
        ),
        Mistake(
            "clamped before the decoder",
            _draw_clamped_before,
            "You clamp what the decoder is given, not what it returns. Latents have no bounds.",
        ),
        Mistake(
            "clamped on both sides of the decoder",
            _draw_clamped_twice,
            "You clamp the pictures, and also what the decoder is given. Latents have no bounds.",
        ),
        Mistake(
            "clamped to 0..1",
            _shown(lambda pictures: pictures.clamp(0, 1)),
            "You clamp to 0..1, which cuts off the dark half. Our pictures go from -1 to 1.",
        ),
        Mistake(
            "clamped from below",
            _shown(lambda pictures: pictures.clamp(min=-1)),
            "You clamp at -1 only. Above 1 the pictures leave the range, too.",
        ),
        Mistake(
            "clamped from above",
            _shown(lambda pictures: pictures.clamp(max=1)),
            "You clamp at 1 only. Below -1 the pictures leave the range, too.",
        ),
        Mistake(
            "brought to 0..1",
            _shown(lambda pictures: (pictures.clamp(-1, 1) + 1) / 2),
            "You bring the pictures to 0..1. Leave them in -1 to 1.",
        ),
        Mistake(
            "squashed",
            _draw_squashed,
            "You squash the pictures by tanh, which changes every value. Clamp them.",
        ),
        Mistake(
            "no walk",
            _walked(lambda model, schedule, x_T, timesteps: x_T),
            "You decode the noise itself: the walk is missing.",
        ),
        Mistake(
            "the first step only",
            _walked(
                lambda model, schedule, x_T, timesteps: last(
                    ddim(model, schedule, x_T, timesteps[:2])
                )
            ),
            "You decode after the first step of the walk. Take its last.",
        ),
        Mistake(
            "stopped before 0",
            _walked(
                lambda model, schedule, x_T, timesteps: last(
                    ddim(model, schedule, x_T, timesteps[:-1])
                )
            ),
            "The walk stops at the last step but one. Give `ddim` all of `timesteps`, with the 0.",
        ),
        Mistake(
            "eta 1",
            _walked(
                lambda model, schedule, x_T, timesteps: last(
                    ddim(
                        model,
                        schedule,
                        x_T,
                        timesteps,
                        eta=1.0,
                        generator=torch.Generator().manual_seed(0),
                    )
                )
            ),
            "You walk with eta 1, which rolls dice at every step. Leave eta at 0, so that the "
            "result can be compared.",
        ),
        Mistake(
            "what the model has in mind at first",
            _walked(
                lambda model, schedule, x_T, timesteps: (
                    next(iter(ddim(model, schedule, x_T, timesteps))).x0_hat
                )
            ),
            "You decode x0_hat of the first step. Take the end of the walk.",
        ),
        Mistake(
            "DDPM",
            _walked(
                lambda model, schedule, x_T, timesteps: last(
                    ddpm(
                        model,
                        schedule,
                        x_T,
                        timesteps,
                        generator=torch.Generator().manual_seed(0),
                    )
                )
            ),
            "You walk with DDPM, which rolls dice. Take `ddim`, so that the result can be "
            "compared.",
        ),
        Mistake(
            "not decoded",
            lambda model, schedule, decode, shift, scale, x_T, timesteps: (
                last(ddim(model, schedule, x_T, timesteps)) * scale[:, None, None]
                + shift[:, None, None]
            ),
            _NOT_DECODED,
        ),
    ),
    alternatives=(_draw_numpy, _draw_one_by_one, _draw_rounded_otherwise),
    passed="That is how Stable Diffusion draws: a walk in latents, and one call of the decoder.",
)


# --- questions -----------------------------------------------------------------------------------

values = Number(
    "lesson12.values",
    "How many times fewer?",
    difficulty=1,
    minutes=2,
    hints=(
        "How many numbers does the picture have, with its three colors? And the latent, with its "
        "four channels?",
    ),
    value=48.0,
    rtol=1e-6,
    mistakes=(
        Mistake(
            "places for values",
            192.0,
            "One often reads that. But 64 x 64 = 4,096 counts the *positions* of the latent. There "
            "are four numbers at each.",
        ),
        Mistake(
            "places alone",
            64.0,
            "There are 64 times fewer positions. Count numbers: three at each position of the "
            "picture, four at each position of the latent.",
        ),
        Mistake("one side", 8.0, "That is how many times shorter a side is."),
        Mistake("upside down", 1 / 48, "That is the share. How many times *fewer* are there?"),
        Mistake("colors forgotten", 16.0, "The picture has three colors at each position."),
        Mistake("the latent itself", 16384.0, "That is how many numbers the latent has."),
    ),
    why="512 x 512 x 3 = 786,432 values against 64 x 64 x 4 = 16,384: 48 times fewer.",
)

heavy = Choice(
    "lesson12.heavy",
    "Too much of a good thing",
    difficulty=2,
    minutes=2,
    hints=(
        "The divergence is 0 where the encoder gives mean 0 and variance 1, whatever the picture. "
        "What would such latents say about the picture?",
    ),
    right="b",
    options={
        "a": "The divergence knows nothing of pictures: it is smallest where every picture gets "
        "the same Gaussian. Then there is nothing to reconstruct from.",
        "b": "Right. Each latent gets noise that is large beside its mean, and the details drown "
        "in it. With still more weight the latents say nothing at all.",
        "c": "It is the other way round: more weight pulls the variances up, towards 1. It is "
        "without any weight that the noise goes away.",
        "d": "The schedule would like that. But the decoder has to draw from these latents, and "
        "they tell less and less of the picture.",
    },
)

stranger = Choice(
    "lesson12.stranger",
    "A stranger's latents",
    difficulty=2,
    minutes=2,
    hints=(
        "Two autoencoders, trained apart, from different random weights. Does anything make "
        "channel 2 of one mean what channel 2 of the other means?",
    ),
    right="d",
    options={
        "a": "Their shapes are the same, so no error comes by itself. That is what makes the "
        "mistake so unpleasant.",
        "b": "Both were trained on the same pictures, but each found a code of its own: nothing "
        "says what a channel must mean.",
        "c": "Noise would come out if the latents said nothing. But they do say where things are: "
        "all parts are convolutions, so an object stays where it is.",
        "d": "Right. Positions survive, since all parts are convolutions. What a number means does "
        "not.",
    },
)
