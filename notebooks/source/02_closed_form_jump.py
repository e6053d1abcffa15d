# %% [markdown]
# # 2 · The closed-form jump
#
# <!-- opening -->
#
# Above, a digit drowns in noise. Below, it is back, from every step in one go: whoever knows the
# noise knows the picture. In this lesson you see why a thousand small steps fold into a single **jump**, check that nobody can
# tell the two apart, and then turn around.
#
# **After this lesson you will be able to**
#
# - walk the chain, and say why $t$ steps are the same as one jump (and in which sense "the same"),
# - noise a batch in which every picture has a $t$ of its own,
# - test whether two samples come from one distribution, and say what the test can see,
# - get $x_0$ back from $x_t$ and the noise, and say how errors grow on the way,
# - derive where $x_{t-1}$ was, given $x_t$ and $x_0$: the posterior, on which samplers are built.
#
# **You need** lesson 1 (betas, $\bar\alpha_t$, the two rates), and what a Gaussian is. **Time:** about <!-- minutes --> minutes.

# %%
import math
import time

import torch

from tutorial_lib.checks import lesson02
from tutorial_lib.datasets import circles, glyphs
from tutorial_lib.explorers import ForwardExplorer
from tutorial_lib.forward import at_steps, diffuse, diffuse_stepwise, posterior, predict_x0
from tutorial_lib.lab import seeded, start
from tutorial_lib.schedules import NoiseSchedule, linear_schedule, quadratic_schedule

device = start(2)

# %% tags=["plumbing"]
from tutorial_lib.plots import COLORS, GRAY, INK, filmstrip, panels, show

BLUE, ORANGE, GREEN = COLORS[:3]

# %%
schedule = linear_schedule(1000)
T = schedule.num_steps
digits = glyphs(8, size=28, seed=5).images  # (8, 1, 28, 28)
digit = digits[2:3]

# %% [markdown]
# ## Step by step: the chain
#
# One noising, from lesson 1, was
#
# $$x_t = \sqrt{1-\beta_t}\;x_{t-1} + \sqrt{\beta_t}\;z_t, \qquad z_t \sim \mathcal N(0, I).$$
#
# ($\mathcal N(0, I)$: for every pixel its own standard normal number, independent of all others.) Each state depends
# only on the one before it: that is what a **Markov chain** is. As a distribution one writes it
# $q(x_t \mid x_{t-1}) = \mathcal N\big(\sqrt{1-\beta_t}\,x_{t-1},\; \beta_t I\big)$ (Ho et al. 2020, eq. 2), where the second entry is a *variance*.
#
# ### Exercise 2.1: step by step
#
# *Difficulty 2 of 3, 8 minutes.*
#
# Write `my_chain(schedule, x0, t, generator)`, which walks from $x_0$ to $x_t$ and returns $x_t$, of the shape of `x0`.
#
# - `schedule.beta` has $T$ entries; $\beta_t$ is `schedule.beta[t - 1]`.
# - `x0` is a tensor of any shape, for example (B, C, H, W).
# - `t` is one whole number, at least 1, the same for all samples: take the steps $1, 2, \dots, t$.
# - Draw fresh noise at each step, with `torch.randn(x.shape, generator=generator)`. A `torch.Generator` is a source of random
#   numbers with a memory of its own: whoever hands you one with the same seed gets the same walk.


# %%
def my_chain(schedule, x0, t, generator):
    # BEGIN SOLUTION lesson02.chain
    ...
    # END SOLUTION


# %%
lesson02.chain.check(my_chain)

# %% [markdown]
# The check cannot compare pixels, since the order of your draws is up to you. It looks at what every right walk has in common:
# how much of $x_0$ is left, how wide the noise is spread, whether neighbors share it. The library's walk is `diffuse_stepwise`, with one $t$ for each sample.

# %%
steps = torch.tensor([0, 100, 250, 500, 750, 1000])
same_digit = digit.expand(len(steps), -1, -1, -1)
began = time.perf_counter()
walked = diffuse_stepwise(schedule, same_digit, steps, generator=seeded(0))
walking_seconds = time.perf_counter() - began
print(f"walked {len(steps)} pictures in {1000 * walking_seconds:.0f} ms")

# %% tags=["plumbing"]
show(
    filmstrip([walked], labels=[f"t = {t}" for t in steps.tolist()]),
    alt="A digit 3 after 0, 100, 250, 500, 750 and 1000 steps: clean, grainy, hard to read, and from 500 on "
    "nothing but noise.",
)

# %% [markdown]
# Readable at $t = 250$, lost to the eye at $t = 500$. (Lesson 0's digits lasted longer: its model has the cosine schedule. A step means nothing without its schedule.) It took a thousand steps, and training
# needs millions of such pictures. That must go faster.
#
# ## Why the chain folds
#
# Back to the glass of juice. To know what is in it *at the end*, you need not pour a thousand times: so
# much juice, so much water, mix, done. That is the jump, and it works because of one fact about Gaussians.
#
# **Two steps.** Put $x_{t-1}$ into $x_t$, and write $\alpha_t = 1-\beta_t$:
#
# $$x_t = \sqrt{\alpha_t\alpha_{t-1}}\;x_{t-2} \;+\; \underbrace{\sqrt{\alpha_t(1-\alpha_{t-1})}\;z_{t-1} + \sqrt{1-\alpha_t}\;z_t}_{\text{two noises}}.$$
#
# **The two noises are one.** The sum of two *independent Gaussians* is a Gaussian, and its variance is the sum of their variances:
#
# $$\alpha_t(1-\alpha_{t-1}) + (1-\alpha_t) = 1 - \alpha_t\alpha_{t-1}.$$
#
# So two steps are one step which keeps $\alpha_t\alpha_{t-1}$. That has the form of a single step again, so a third one folds in the same way, and a fourth, down to $x_0$:
#
# $$\boxed{\;x_t = \sqrt{\bar\alpha_t}\;x_0 + \sqrt{1-\bar\alpha_t}\;\epsilon, \qquad \bar\alpha_t = \alpha_1\alpha_2\cdots\alpha_t, \quad \epsilon\sim\mathcal N(0, I)\;}$$
#
# This is the **jump**, $q(x_t\mid x_0) = \mathcal N\big(\sqrt{\bar\alpha_t}\,x_0,\,(1-\bar\alpha_t) I\big)$ (Ho et al. 2020, eq. 4). Code calls it `q_sample` or `add_noise`.
#
# The box does not draw $x_t$ from a Gaussian with that mean. It draws a *standard* $\epsilon$, then scales and shifts it. This is
# the **reparameterization trick**: the randomness stands apart, so $x_t$ is an ordinary function of $x_0$, with a gradient, and the noise that went in is known. Lesson 3 has a network guess it.
#
# <details><summary><b>The same as a proof by induction</b></summary>
#
# For $t = 1$ the jump is the first step, since $\bar\alpha_1 = \alpha_1$. Suppose it holds for $t-1$, that is
# $x_{t-1} = \sqrt{\bar\alpha_{t-1}}\,x_0 + \sqrt{1-\bar\alpha_{t-1}}\,\epsilon'$ with $\epsilon'\sim\mathcal N(0, I)$. Then
#
# $$x_t = \sqrt{\alpha_t\bar\alpha_{t-1}}\;x_0 + \sqrt{\alpha_t(1-\bar\alpha_{t-1})}\;\epsilon' + \sqrt{1-\alpha_t}\;z_t .$$
#
# $\epsilon'$ is made of $z_1, \dots, z_{t-1}$, which are independent of $z_t$. So the last two terms are together Gaussian with mean 0 and variance
# $\alpha_t - \alpha_t\bar\alpha_{t-1} + 1 - \alpha_t = 1-\bar\alpha_t$, because $\alpha_t\bar\alpha_{t-1} = \bar\alpha_t$. That is the jump to $t$.
#
# Nothing was neglected: it holds for betas of any size, for every $t$, for any $x_0$.
#
# </details>
#
# Without any random number this can be checked exactly. A step turns mean $m$ and variance $v$ into $\sqrt{1-\beta_t}\,m$ and $(1-\beta_t)\,v + \beta_t$.
# Start with $m = 1$, $v = 0$ and follow both through all the steps:

# %%
# NBVAL_CHECK_OUTPUT
mean, variance, means, variances = 1.0, 0.0, [1.0], [0.0]
for beta in schedule.beta.tolist():
    mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
    means.append(mean)
    variances.append(variance)

off_mean = (torch.tensor(means, dtype=torch.float64) - schedule.signal_rate).abs().max()
off_variance = (torch.tensor(variances, dtype=torch.float64) - (1 - schedule.alpha_bar)).abs().max()
print(
    "chain and jump agree at all", len(means), "steps:", bool(max(off_mean, off_variance) < 1e-12)
)
assert max(off_mean, off_variance) < 1e-12

# %% [markdown]
# ### Question 2.A: why the chain folds
#
# *1 minute.*
#
# What makes it possible to replace $t$ steps by one jump?
#
# - a) All steps use the same noise.
# - b) The betas are small, so the error is small.
# - c) A sum of independent Gaussians is a Gaussian whose variance is the sum of theirs.
# - d) After many steps everything becomes Gaussian, by the central limit theorem.

# %%
# BEGIN SOLUTION
fold = "c"
# END SOLUTION

# %%
lesson02.fold.check(fold)

# %% [markdown]
# ## One $t$ for each picture
#
# In training, every picture of a batch gets a step of its own. So `t` is a tensor of shape (B,), and looking the rates up gives
# B numbers: `schedule.signal_rate[t]` has shape (B,). Now multiply them with pictures of shape (B, C, H, W). Here torch, like NumPy, **broadcasts**: it lines up
# the axes *from the right* and repeats what is missing.
#
# ```
#     x                   (B, C, H, W)
#     signal_rate[t]               (B)     meets the width, not the batch!
# ```
#
# If B differs from W, that is an error, and you are lucky. If they happen to be equal, **it runs**. Let us do it on purpose, with 32 discs
# of 32 × 32 and a $t$ which grows from 1 to 1000 along the batch:

# %%
x = circles(32, size=32, channels=1, seed=1).images  # (32, 1, 32, 32)
t = torch.linspace(1, 1000, 32).long()  # (32,)
wrong = schedule.signal_rate[t].float() * x  # no error
right = at_steps(schedule.signal_rate, t, x) * x  # the library's way

# %% tags=["plumbing"]
some = [0, 5, 10, 16, 21, 31]
show(
    filmstrip(
        [x[some], right[some], wrong[some]],
        labels=[f"t = {int(t[i])}" for i in some],
        rows=["x", "right", "wrong"],
    ),
    alt="Six discs in three rows. First row: as they are. Second row, right: each picture fades as a whole, the "
    "more the larger its t. Third row, wrong: every picture fades from left to right in the same way.",
)

# %% [markdown]
# In the last row every picture fades from left to right, the first one too, whose $t$ is 1. No error, no warning.
#
# ### Exercise 2.2: one t per image
#
# *Difficulty 1 of 3, 6 minutes.*
#
# Write `my_at_steps(values, t, x)`:
#
# - `values` has shape (T + 1,), one number for each step 0..T (a signal rate, for instance);
# - `t` is int64 of shape (B,), a step for each sample;
# - `x` has shape (B, ...): pictures (B, C, H, W), points (B, 2), or anything else with the batch first.
#
# Return `values[t]` in a shape which, multiplied with `x`, scales **each sample by its own number**: (B, 1, 1, 1) for pictures, (B, 1) for points.
# An axis of length 1 is repeated as often as needed; `x.ndim` is the number of axes of `x`, and `y.reshape(a, b, c)` gives `y` another shape.


# %%
def my_at_steps(values, t, x):
    # BEGIN SOLUTION lesson02.at_steps
    ...
    # END SOLUTION


# %%
lesson02.at_steps.check(my_at_steps)

# %% [markdown]
# The library's `at_steps(values, t, x)` does the same, for pictures and for points:

# %%
# NBVAL_CHECK_OUTPUT
two_steps = torch.tensor([1, 1000])
for shape in [(2, 3, 32, 32), (2, 1, 28, 28), (2, 2)]:
    factors = at_steps(schedule.signal_rate, two_steps, torch.zeros(shape))
    print(
        shape, "is scaled by", tuple(factors.shape), [f"{float(f):.4f}" for f in factors.flatten()]
    )

# %% [markdown]
# ### Exercise 2.3: the jump
#
# *Difficulty 2 of 3, 6 minutes.*
#
# Write `my_jump(schedule, x0, t, eps)`:
#
# - `schedule.signal_rate` and `schedule.noise_rate` have shape (T + 1,) and are indexed by $t$;
# - `x0` is clean data of shape (B, ...), `t` is int64 of shape (B,), each entry in 1..T;
# - `eps` is the noise $\epsilon$, of the shape of `x0`. It is passed in: do not draw any of your own.
#
# Return $x_t$ by the formula in the box, of the shape of `x0`. The rates have to be shaped for `x0` first: use your answer to 2.2 or
# the library's `at_steps`, or write it out.


# %%
def my_jump(schedule, x0, t, eps):
    # BEGIN SOLUTION lesson02.jump
    ...
    # END SOLUTION


# %%
lesson02.jump.check(my_jump)

# %% [markdown]
# `diffuse` is the library's name for it. Three pictures at the same six steps as above, in one jump each:

# %% tags=["plumbing"]
disc = circles(4, size=28, channels=1, seed=3).images[1:2]
strips = []
for number, picture in enumerate([digit, digits[5:6], disc]):
    eps = torch.randn(picture.shape, generator=seeded(number))  # the same noise at every t
    strips.append(
        diffuse(schedule, picture.expand(6, -1, -1, -1), steps, eps.expand(6, -1, -1, -1))
    )
show(
    filmstrip(strips, labels=[f"t = {t}" for t in steps.tolist()]),
    alt="Two digits and a disc at t = 0, 100, 250, 500, 750 and 1000. They can be seen up to 250 and are lost in "
    "noise from 500 on.",
)

# %%
began = time.perf_counter()
for _ in range(20):
    diffuse(schedule, same_digit, steps, torch.randn(same_digit.shape, generator=seeded(0)))
jumping_seconds = (time.perf_counter() - began) / 20
print(
    f"jumped {len(steps)} pictures in {1000 * jumping_seconds:.2f} ms, walked them in {1000 * walking_seconds:.0f} ms"
)

# %% [markdown]
# The walk pays for every step, the jump costs the same for every $t$. Your browser can jump, too.
# Drag $t$: at which can you no longer tell the histogram from the bell curve? At which can you no longer
# read the digits? It is not the same $t$.

# %%
ForwardExplorer(digits, {"linear": schedule, "quadratic": quadratic_schedule(T)}, t=100)

# %% [markdown]
# ## Chain against jump, by experiment
#
# ### Question 2.B: walked or jumped?
#
# *1 minute.*
#
# You walk the chain to $t = 500$, and you jump there, from the same $x_0$, each time with fresh noise. What do you get?
#
# - a) The same picture twice.
# - b) Different pictures, drawn from the same distribution.
# - c) The same distribution only at the very end, at $t = T$.

# %%
# BEGIN SOLUTION
same_picture = "b"
# END SOLUTION

# %%
lesson02.same_picture.check(same_picture)

# %% [markdown]
# A derivation can hold a mistake, and so can code. So we take one pixel of value 0.8 and let it walk 10,000 times to each of four steps,
# and jump there 10,000 times.

# %%
COUNT, PIXEL = 10_000, 0.8
four_steps = [10, 100, 250, 1000]
t = torch.tensor(four_steps).repeat_interleave(COUNT)  # (40000,)
pixels = torch.full((len(t), 1), PIXEL)
by_chain = diffuse_stepwise(schedule, pixels, t, generator=seeded(1)).reshape(4, COUNT)
eps = torch.randn(pixels.shape, generator=seeded(2))
by_jump = diffuse(schedule, pixels, t, eps).reshape(4, COUNT)

# %% tags=["plumbing"]
figure, plots = panels(4, width=9, height=2.7)
for plot, step, walk, jump in zip(plots, four_steps, by_chain, by_jump, strict=True):
    signal, noise = float(schedule.signal_rate[step]), float(schedule.noise_rate[step])
    bins = torch.linspace(signal * PIXEL - 4 * noise, signal * PIXEL + 4 * noise, 41)
    plot.hist(walk, bins, density=True, color=BLUE, alpha=0.35)
    plot.hist(jump, bins, density=True, color=ORANGE, histtype="step", lw=0.8)
    bell = torch.exp(-((bins - signal * PIXEL) ** 2) / (2 * noise**2)) / (noise * math.tau**0.5)
    plot.plot(bins, bell, color=INK, lw=2.2)
    plot.set(title=f"t = {step}", yticks=[])
for height, name, color in (
    (0.97, "walked", BLUE),
    (0.86, "jumped", ORANGE),
    (0.75, "formula", INK),
):
    place = {"transform": plots[0].transAxes, "va": "top", "fontsize": 9}
    plots[0].text(0.02, height, name, color=color, **place)
show(
    figure,
    alt="Histograms of a pixel at t = 10, 100, 250 and 1000, walked and jumped, and the bell curve "
    "of the formula. In all four the three lie on top of each other.",
)
deviations = []  # of means and spreads from the formula, in standard errors
for step, *samples in zip(four_steps, by_chain, by_jump, strict=True):
    mean, spread = float(schedule.signal_rate[step]) * PIXEL, float(schedule.noise_rate[step])
    for sample in samples:
        deviations.append(abs(float(sample.mean()) - mean) / (spread / COUNT**0.5))
        deviations.append(abs(float(sample.std()) - spread) / (spread / (2 * COUNT) ** 0.5))
print(f"largest of {len(deviations)} deviations: {max(deviations):.1f} standard errors")
assert max(deviations) < 4

# %% [markdown]
# There is no difference but chance: the largest of 16 deviations should be two or three standard errors.
#
# For whole pictures we need a **two-sample test**: could two sets of pictures be
# from one distribution? Ours uses the *energy distance* $D$: how much farther, on average, are pictures of different sets from each other than pictures of the same set?
#
# How large is large? If walked and jumped come from one distribution, it does not matter
# which we call which. So for a random half of the $x_0$ we swap the two pictures, calculate $D$ again, and do this 499 times: that is what chance alone gives. The **p-value**
# is the share that is at least as large as the real $D$. If it is tiny, the sets differ.
#
# A test that never finds anything would pass too. So there are controls: jumps to a *slightly wrong* step.


# %%
def two_sample_test(a, b, generator, swaps=499):
    """The p-value of the energy distance of pictures a and b, (N, ...), paired by their x_0."""
    both = torch.cat([a, b]).flatten(1)
    distances = torch.cdist(both, both)
    signs = torch.randint(0, 2, (swaps + 1, len(a)), generator=generator) * 2.0 - 1
    signs[0] = 1  # the real labels
    labels = torch.cat([signs, -signs], 1)
    # D is minus a sum over all distances: with +1 inside a set, with -1 between the two.
    energy = -((labels @ distances) * labels).sum(1) / len(a) ** 2
    return float((energy >= energy[0] - 1e-6).double().mean())


p_values = {}
for seed in range(5):
    x0 = circles(500, size=12, channels=1, seed=seed).images
    at_250 = torch.full((len(x0),), 250)
    walked = diffuse_stepwise(schedule, x0, at_250, generator=seeded(seed))
    eps = torch.randn(x0.shape, generator=seeded(100 + seed))
    sets = {f"a jump to t = {s}": diffuse(schedule, x0, torch.full_like(at_250, s), eps)
            for s in (250, 260, 275, 300)}  # fmt: skip
    # And a mistake that is easily made:
    sets["alpha_t for alpha_bar_t"] = (
        schedule.alpha[249].sqrt() * x0 + schedule.beta[249].sqrt() * eps
    )
    for name, jumped in sets.items():
        p = two_sample_test(walked, jumped.float(), seeded(200 + seed))
        p_values.setdefault(name, []).append(p)

print("walked to t = 250, against    p-values with five seeds")
for name, values in p_values.items():
    print(f"{name:26}", "  ".join(f"{p:.3f}" for p in values))
assert min(p_values["a jump to t = 250"]) > 0.01
assert max(p_values["a jump to t = 300"]) < 0.01
assert max(p_values["alpha_t for alpha_bar_t"]) < 0.01

# %% [markdown]
# The jump to the right step passes, and its p-values scatter between 0 and 1, as chance alone makes them. A jump 10 steps too far is missed by
# most of the seeds; at 25 steps, where the signal rate is 6.5 % too small, all five notice (p below 0.05). So the
# experiment says: **chain and jump are the same, or their rates differ by less than about 6.5 %.** The derivation says the rest.
#
# ## How Gaussian is $x_{1000}$?
#
# We jump 4000 discs to several steps and compare all their pixels, four million numbers, with the bell
# curve. Two measures, each beside what *real* Gaussian noise scores:
#
# - the **KS distance** (Kolmogorov and Smirnov): the largest gap between the share of pixels below some value and what it should be;
# - the **correlation of neighbors**: in a picture, the pixel beside a bright one is likely to be bright. In noise it is not.


# %%
def ks_distance(x):
    """The largest gap between the distribution of x and the standard normal one."""
    ordered = x.flatten().double().sort().values
    wanted = torch.special.ndtr(ordered)
    ranks = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    return float(torch.maximum(wanted - ranks[:-1], ranks[1:] - wanted).max())


def neighbors(x):
    left, right = x[..., :-1].flatten(), x[..., 1:].flatten()
    return float(torch.corrcoef(torch.stack([left, right]))[0, 1])


discs = circles(4000, size=32, channels=1, seed=8).images
scores = {}
print("     t      mean   KS distance   correlation of neighbors")
for step in (100, 250, 500, 750, 1000, "noise"):
    x = torch.randn(discs.shape, generator=seeded(6))
    if step != "noise":
        x = diffuse(schedule, discs, torch.full((len(discs),), step), x)
    scores[step] = ks_distance(x), neighbors(x)
    print(f"{step!s:>6} {x.mean():9.4f} {scores[step][0]:13.4f} {scores[step][1]:20.4f}")

one_picture = torch.randn(200, 1024, generator=seeded(10))
by_chance = sum(ks_distance(x) for x in one_picture) / len(one_picture)
length = float(discs[0].norm())  # of x_0 as one long vector
knowing = 0.5 * (1 + math.erf(float(schedule.signal_rate[1000]) * length / 2 / 2**0.5))
print(f"KS distance of one picture of pure noise, 1024 pixels: {by_chance:.3f} by chance alone")
print(f"best guess 'x_1000 or pure noise?' by somebody who knows x_0: right in {knowing:.1%}")

assert scores[1000][0] < 0.01
assert scores[1000][0] > 2 * scores["noise"][0]
assert scores[1000][0] < by_chance / 5
assert scores[500][1] > 0.02  # at t = 500 the picture is still there

# %% [markdown]
# At $t = 1000$ the KS distance is small, and still three times what pure noise scores: with four million pixels one sees that
# $x_{1000}$ is *not quite* $\mathcal N(0, I)$. The mean gives it away: the pictures are mostly black ($-1$), and 0.6 % of that is left. In a *single* picture chance alone makes a distance ten times as
# large. Even somebody who knows $x_0$ and looks for just this picture guesses right in only 54 % of cases.
#
# Look at $t = 500$, too. Your eye found nothing there; the neighbors are still correlated.
#
# <details><summary><b>Where the 54 % come from</b></summary>
#
# The judge must choose between $\mathcal N(0, I)$ and $\mathcal N(\sqrt{\bar\alpha_T}\,x_0, (1-\bar\alpha_T) I)$; the two variances are practically equal. The best rule looks along the direction of $x_0$ only, where the
# two bell curves of width 1 have their centers $d = \sqrt{\bar\alpha_T}\,\lVert x_0\rVert$ apart, and puts the border in the middle. It is right with probability $\Phi(d/2)$, where $\Phi$ is the share of a standard
# normal distribution below a value. For a disc of $32\times 32$ pixels $\lVert x_0\rVert$ is about 31, so $d$ is about 0.2.
#
# </details>
#
# ## Back again: predicting $x_0$
#
# Of $x_0$, $\epsilon$ and $x_t$, whoever knows two knows the third. A diffusion model sees $x_t$ and guesses the noise; the guess is called $\hat\epsilon$
# (`eps_hat`). Solve the jump for $x_0$, and the guess of the noise becomes a guess of the clean picture, $\hat x_0$ (`x0_hat`).
#
# ### Exercise 2.4: $x_0$ back again
#
# *Difficulty 2 of 3, 5 minutes.*
#
# Write `my_predict_x0(schedule, x_t, t, eps_hat)`: `x_t` of shape (B, ...), `t` int64 of shape (B,), `eps_hat` of the shape of `x_t`. Return $\hat x_0$, of the same
# shape: the $x_0$ for which the jump with `eps_hat` leads to `x_t`.


# %%
def my_predict_x0(schedule, x_t, t, eps_hat):
    # BEGIN SOLUTION lesson02.predict_x0
    ...
    # END SOLUTION


# %%
lesson02.predict_x0.check(my_predict_x0)

# %% [markdown]
# With the *true* noise the way back is exact, from every $t$. But a network's guess is never quite true. In the lower row
# `eps_hat` has a small error, 5 % of the noise's own strength:

# %%
on_the_way = torch.tensor([1, 100, 250, 500, 750, 1000])
eps = torch.randn(digit.shape, generator=seeded(0)).expand(6, -1, -1, -1)
error = 0.05 * torch.randn(eps.shape, generator=seeded(1))
x_t = diffuse(schedule, same_digit, on_the_way, eps)
exact = predict_x0(schedule, x_t, on_the_way, eps)
rough = predict_x0(schedule, x_t, on_the_way, eps + error)
print(f"true noise, largest error of a pixel: {(exact - same_digit).abs().max():.0e}")
assert (exact - same_digit).abs().max() < 1e-3

# %% tags=["opening", "plumbing"]
show(
    filmstrip(
        [x_t, exact, rough],
        labels=[f"t = {t}" for t in on_the_way.tolist()],
        rows=["x_t", "true noise", "5 % off"],
    ),
    alt="Upper row: a digit getting lost in noise. Middle row: x_0 predicted with the true noise, the clean digit "
    "every time. Lower row, with a noise that is 5 percent off: clean up to t = 250, a little grainy at 500, "
    "hard to read at 750, and nothing but noise at 1000.",
)

# %% [markdown]
# The same small error in $\hat\epsilon$ does nothing at $t = 100$ and ruins everything at $t = 1000$. Why? Put $\epsilon + \text{error}$ in place of $\hat\epsilon$ into your formula:
# the error comes out multiplied by noise rate over signal rate, the root of 1/SNR.
#
# ### Question 2.C: a small error at a late step
#
# *2 minutes.*
#
# At $t = 1000$ of the linear schedule, `eps_hat` is wrong by 0.01 in one pixel. By how much is `x0_hat` wrong there (give a positive number)? You may
# use `schedule`, and give an expression.

# %%
# BEGIN SOLUTION
error_growth = 0.01 * float(schedule.noise_rate[1000] / schedule.signal_rate[1000])
# END SOLUTION

# %%
lesson02.error_growth.check(error_growth)

# %% [markdown]
# Pixels run from $-1$ to $1$, so that is off the scale. The same for all $t$, measured and by the formula:

# %% tags=["plumbing"]
some_steps = torch.tensor(
    [1, 3, 10, 30, 60, 100, 150, 200, 260, 350, 450, 550, 650, 750, 850, 950, 1000]
)
pictures = digits[:1].expand(len(some_steps), -1, -1, -1)
eps = torch.randn(pictures.shape, generator=seeded(2))
error = 0.05 * torch.randn(pictures.shape, generator=seeded(3))
back = predict_x0(schedule, diffuse(schedule, pictures, some_steps, eps), some_steps, eps + error)
grown = (back - pictures).flatten(1).std(1) / error.flatten(1).std(1)
factor = schedule.noise_rate / schedule.signal_rate
assert torch.allclose(grown.double(), factor[some_steps], rtol=0.01)

figure, (plot,) = panels(1, width=6.4, height=2.9)
plot.plot(range(1, 1001), factor[1:], color=BLUE)
plot.plot(some_steps, grown, "o", color=ORANGE, ms=4)
plot.axhline(1, color=GRAY, ls=":")
plot.text(1000, 0.5, "error stays as it is", color=INK, ha="right")
plot.text(10, 12, "noise rate / signal rate (line)", color=BLUE)
plot.text(10, 33, "measured (dots)", color=ORANGE)
plot.set(xlabel="t", ylabel="error grows by", yscale="log")
show(
    figure,
    alt="The factor by which an error in eps_hat grows in x0_hat, on a logarithmic scale: from 0.01 at t = 1 "
    "through 1 at t = 260 to 157 at t = 1000. Measured dots lie on the line of the formula.",
)
print(
    f"factor at t = 1: {factor[1]:.2f}, at t = 260: {factor[260]:.2f}, at t = 1000: {factor[1000]:.0f}"
)

# %% [markdown]
# Before $t = 260$, where signal and noise are equal, errors shrink; after it they grow. That is why nobody
# draws a picture by *one* big jump back from $t = 1000$, and why a network for large $t$ may do better to predict something other than $\epsilon$ (lesson 3).
#
# It is also why samplers **clamp** $\hat x_0$ to $[-1, 1]$ at every step: no pixel lies outside, so what does is error, and clamping can only bring it
# nearer to the truth. (Do not confuse this with the *final* clamp of lesson 0, before a picture is shown. That one changes no step.) What does it do here?

# %%
print("  t   error of x0_hat   clamped")
for t, guess, truth in zip(on_the_way.tolist(), rough, same_digit, strict=True):
    plain, clamped = ((x - truth).square().mean().sqrt() for x in (guess, guess.clamp(-1, 1)))
    print(f"{t:4} {plain:13.3f} {clamped:12.3f}")
    assert clamped <= plain

# %% [markdown]
# At late steps clamping keeps the error in bounds. It brings no digit back: that takes more steps.
#
# ## The posterior: one step back, if you knew $x_0$
#
# Given $x_t$, where was $x_{t-1}$? In general only a trained network can say. But in training we *know* $x_0$, and then there is an exact answer, the **posterior**
# $q(x_{t-1}\mid x_t, x_0)$. Lesson 6 samples with it.
#
# Think of two witnesses to where $x_{t-1}$ was. The first one knows $x_0$ and says: *I saw it start, so by the jump it was about here.* The second one knows $x_t$ and says: *I saw where it was one step later,
# so it was about there.* Each is unsure, and they saw independent things: in a Markov chain the step to $x_t$ looks at $x_{t-1}$ only, not at $x_0$. Bayes' rule says how to combine them: **multiply**,
#
# $$q(x_{t-1}\mid x_t, x_0) \;\propto\; \underbrace{q(x_{t-1}\mid x_0)}_{\text{prior: the jump to } t-1}\;\cdot\;\underbrace{q(x_t\mid x_{t-1})}_{\text{likelihood: one step}}.$$
#
# As functions of $x_{t-1}$ both are bell curves:
#
# | witness | center | variance |
# |---|---|---|
# | prior (knows $x_0$) | $m_0 = \sqrt{\bar\alpha_{t-1}}\;x_0$ | $v_0 = 1-\bar\alpha_{t-1}$ |
# | likelihood (knows $x_t$) | $m_1 = x_t/\sqrt{\alpha_t}$ | $v_1 = \beta_t/\alpha_t$ |
#
# (The second row is the step $x_t = \sqrt{\alpha_t}\,x_{t-1} + \sqrt{\beta_t}\,z$ solved for $x_{t-1}$.) The product of two bell curves is a bell curve. Its *precision*, one over the variance, is the sum of theirs, and its center is
# the mean of theirs, weighted by precision:
#
# $$\frac1v = \frac1{v_0} + \frac1{v_1}, \qquad m = v\,\Big(\frac{m_0}{v_0} + \frac{m_1}{v_1}\Big).$$
#
# <details><summary><b>Why precisions add</b></summary>
#
# A bell curve is $\exp\big(-\tfrac{1}{2v}(x - m)^2\big)$ up to a factor. In a product the exponents add up:
#
# $$\frac{(x-m_0)^2}{v_0} + \frac{(x-m_1)^2}{v_1} = x^2\Big(\frac1{v_0}+\frac1{v_1}\Big) - 2x\Big(\frac{m_0}{v_0}+\frac{m_1}{v_1}\Big) + \dots$$
#
# The dots do not depend on $x$. Compare with $\frac{(x-m)^2}{v} = \frac{x^2}{v} - \frac{2xm}{v} + \dots$: the factor of $x^2$ gives $\frac1v$, the factor of $x$ gives $\frac mv$.
#
# </details>
#
# ### Exercise 2.5: one step back, if you knew $x_0$
#
# *Difficulty 3 of 3, 15 minutes. The one to be proud of.*
#
# Write `my_posterior(schedule, x0, x_t, t)`, which returns `mean, variance`:
#
# - `x0` and `x_t` have shape (B, ...), `t` is int64 of shape (B,), each entry in 1..T;
# - `mean` has the shape of `x0`; `variance` is one number a sample, of shape (B,) or (B, 1, ...);
# - `schedule.alpha_bar[t]` is $\bar\alpha_t$ (T + 1 entries, from $t = 0$), `schedule.beta[t - 1]` is $\beta_t$ and `schedule.alpha[t - 1]` is $\alpha_t$ (T entries each).
#
# Mind $t = 1$. There $v_0 = 1 - \bar\alpha_0 = 0$: the first witness is *certain*, and $1/v_0$ is a division by zero. So multiply everything out on paper first until nothing is divided by $v_0$. A help:
# $v = \frac{v_0 v_1}{v_0 + v_1}$ and $m = \frac{v_1 m_0 + v_0 m_1}{v_0 + v_1}$, and with $\alpha_t\bar\alpha_{t-1} = \bar\alpha_t$ the sum in the denominator becomes something short.


# %%
def my_posterior(schedule, x0, x_t, t):
    # BEGIN SOLUTION lesson02.posterior
    ...
    # END SOLUTION


# %%
lesson02.posterior.check(my_posterior)

# %% [markdown]
# <details><summary><b>The algebra, to compare with yours</b></summary>
#
# The sum of the two variances is
#
# $$v_0 + v_1 = 1 - \bar\alpha_{t-1} + \frac{\beta_t}{\alpha_t} = \frac{\alpha_t - \bar\alpha_t + 1 - \alpha_t}{\alpha_t} = \frac{1-\bar\alpha_t}{\alpha_t}.$$
#
# So $v = \frac{v_0v_1}{v_0+v_1}$ and $m = \frac{v_1m_0 + v_0m_1}{v_0+v_1}$ become
#
# $$\tilde\beta_t = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t, \qquad
# \tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0 + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t,$$
#
# which are equations 6 and 7 of Ho et al. (2020). At $t = 1$ the variance is 0 and the mean is $x_0$.
#
# </details>
#
# Here are the two witnesses and their product, for one pixel with $x_0 = 1$ and $x_3 = -0.5$. To make the effect visible, the schedule has ten large steps along the same curve (lesson 1).
# And does it hold in reality? We let a million such pixels really jump to $t = 2$, take one real step to $t = 3$, and keep those that arrived near $-0.5$. Where had
# *they* been at $t = 2$? No formula for the posterior goes into this.

# %%
ten = NoiseSchedule(schedule.alpha_bar[::100])
STEP, X0, X_T = 3, 1.0, -0.5
one = torch.tensor([[X0]]), torch.tensor([[X_T]]), torch.tensor([STEP])
mean, variance = (float(part) for part in posterior(ten, *one))
alpha, beta = float(ten.alpha[STEP - 1]), float(ten.beta[STEP - 1])

generator = seeded(9)
million = torch.full((1_000_000, 1), X0)
eps = torch.randn(million.shape, generator=generator)
x_2 = diffuse(ten, million, torch.full((len(million),), STEP - 1), eps)
x_3 = alpha**0.5 * x_2 + beta**0.5 * torch.randn(x_2.shape, generator=generator)
arrived = x_2[(x_3 - X_T).abs() < 0.02]
mean_error = float(arrived.std()) / len(arrived) ** 0.5
print(f"{len(arrived):,} of a million arrived within 0.02 of {X_T}")
print(f"mean: {arrived.mean():.3f} ± {mean_error:.3f} (formula {mean:.3f})")
print(
    f"variance: {arrived.var():.3f} ± {variance * (2 / len(arrived)) ** 0.5:.3f} (formula {variance:.3f})"
)
assert abs(float(arrived.mean()) - mean) < 4 * mean_error
assert abs(float(arrived.var()) / variance - 1) < 4 * (2 / len(arrived)) ** 0.5


# %% tags=["plumbing"]
def bell(x, center, variance):
    return torch.exp(-((x - center) ** 2) / (2 * variance)) / (math.tau * variance) ** 0.5


x = torch.linspace(-3, 3, 601, dtype=torch.float64)
before = float(ten.alpha_bar[STEP - 1])
prior = bell(x, before**0.5 * X0, 1 - before)
likelihood = bell(x, X_T / alpha**0.5, beta / alpha)
product = prior * likelihood
product = product / (product.sum() * 0.01)  # area 1
assert (product - bell(x, mean, variance)).abs().max() < 1e-6

figure, (plot,) = panels(1, width=6.8, height=3)
plot.plot(x, prior, color=BLUE, ls="--")
plot.plot(x, likelihood, color=ORANGE, ls="-.")
plot.hist(arrived.flatten(), 60, density=True, color=GREEN, alpha=0.35)
plot.plot(x, bell(x, mean, variance), color=GREEN)
plot.text(1.35, 0.5, "knows $x_0 = 1$", color=BLUE)
plot.text(-1.2, 0.5, "knows $x_3 = -0.5$", color=ORANGE, ha="right")
plot.text(
    mean + 0.55,
    float(product.max()) - 0.06,
    "both: the posterior\n(bars: real pixels)",
    color=GREEN,
)
plot.set(xlabel="$x_2$", yticks=[], xlim=(-3, 3), ylim=(0, float(product.max()) * 1.15))
show(
    figure,
    alt="Three bell curves over x_2: the prior centered near 0.8, the likelihood, wider, centered near "
    "-0.6, and between them, nearer to the prior, the narrower posterior, filled by the histogram of real pixels.",
)

# %% [markdown]
# The posterior lies between the two, nearer to the more certain witness, and it is narrower than either. Two witnesses together know more.
#
# One more look, at the thousand-step schedule: how much does each witness count there?

# %% tags=["plumbing"]
t = torch.arange(1, T + 1)
weight_x0 = schedule.alpha_bar[t - 1].sqrt() * schedule.beta / (1 - schedule.alpha_bar[t])
weight_x_t = schedule.alpha.sqrt() * (1 - schedule.alpha_bar[t - 1]) / (1 - schedule.alpha_bar[t])
ratio = schedule.posterior_variance / schedule.beta
figure, (left, right) = panels(2, height=2.9)
left.plot(t, weight_x_t, color=ORANGE, ls="--")
left.plot(t, weight_x0, color=BLUE)
left.text(980, 0.9, "weight of $x_t$", color=ORANGE, ha="right", va="top")
left.text(980, 0.08, "weight of $x_0$", color=BLUE, ha="right")
left.set(xlabel="t (logarithmic)", xscale="log", title="The posterior's mean")
right.plot(t, ratio, color=GREEN)
right.set(xlabel="t (logarithmic)", xscale="log", ylim=(0, 1.05))
right.set_title(r"Its variance, as a share of $\beta_t$")
show(
    figure,
    alt="Left: the weight of x_t rises from 0 to nearly 1 within the first 50 steps, that of x_0 falls from 1 to "
    "nearly 0. Right: the posterior variance as a share of beta rises from 0 at t = 1 to 0.9 at t = 20 and "
    "then to 1.",
)
print("share of beta:", ", ".join(f"t = {s}: {ratio[s - 1]:.3f}" for s in (1, 2, 20, 1000)))
assert ratio[0] == 0

# %% [markdown]
# Except in the first few dozen steps, $x_{t-1}$ is nearly $x_t$, and knowing $x_0$ makes the step hardly more certain. Keep the right picture in mind: in lesson 6 you
# choose between $\beta_t$ and the posterior variance, and this curve says when it matters.
#
# ## Claims, measured
#
# <!-- claims -->
#
# <details><summary><b>Key terms</b></summary>
#
# | what people say | what it means |
# |---|---|
# | forward process, diffusion process | the chain that adds noise; nothing in it is learned |
# | Markov chain | each state depends on the one before it only |
# | closed form, jump, $q(x_t\mid x_0)$, `q_sample`, `add_noise` | $x_t$ from $x_0$ in one formula |
# | reparameterization trick | draw standard noise first, then scale and shift it |
# | broadcasting | how shapes are matched, from the right, before numbers are multiplied |
# | equal in distribution | the same histogram over many draws, not the same draw |
# | two-sample test, p-value | could two samples come from one distribution; how often chance alone gives a distance as large |
# | `x0_hat`, predicted $x_0$, `pred_original_sample` | the clean picture that a guess of the noise implies |
# | prior, likelihood, posterior | what is believed before a look, what the look says, both together |
# | posterior variance, $\tilde\beta_t$ | the variance of $x_{t-1}$ given $x_t$ and $x_0$ |
#
# </details>
#
# <details><summary><b>Further reading</b></summary>
#
# - Sohl-Dickstein, Weiss, Maheswaranathan, Ganguli: *Deep Unsupervised Learning using Nonequilibrium Thermodynamics*, 2015, arXiv 1503.03585. Where the chain comes from.
# - Ho, Jain, Abbeel: *Denoising Diffusion Probabilistic Models*, 2020, arXiv 2006.11239. Equations 2, 4, 6, 7 and 15 are this lesson.
# - Song, Meng, Ermon: *Denoising Diffusion Implicit Models*, 2021, arXiv 2010.02502. Other chains with the same jump.
# - Luo: *Understanding Diffusion Models: A Unified Perspective*, 2022, arXiv 2208.11970. The same derivations at a slow pace.
# - Gretton, Borgwardt, Rasch, Schölkopf, Smola: *A Kernel Two-Sample Test*, 2012, Journal of Machine Learning Research 13. Testing whether two samples differ.
#
# </details>
#
# ## What you can do now
#
# - Noise any batch to any steps in one line, and prove that this equals the walk.
# - Turn a guess of the noise into a guess of the picture, and say how much to trust it.
# - Say where $x_{t-1}$ was, given $x_0$ and $x_t$. Lesson 3 puts a network in the place of $x_0$.
#
# <!-- navigation -->
