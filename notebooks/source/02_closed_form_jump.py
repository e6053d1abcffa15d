# %% [markdown]
# # 2 · The closed-form jump
#
# Lesson 1 noised pictures with one formula and asked you to take it on trust. Now you earn it. You walk the thousand steps one
# by one, see why they fold into a single jump, check by experiment that nobody can tell the two apart, and then turn around and look back.
#
# **After this lesson you will be able to**
#
# - walk the chain, and say why $t$ steps are the same as one jump (and in which sense "the same"),
# - noise a batch in which every picture has a $t$ of its own, without the best-hidden bug of this trade,
# - test whether two samples come from one distribution, and say how small a difference the test would have seen,
# - get $x_0$ back from $x_t$ and the noise, and say how errors grow on the way,
# - derive where $x_{t-1}$ was, given $x_t$ and $x_0$: the posterior, which every sampler is built on.
#
# **You need** lesson 1 (betas, $\bar\alpha_t$, the two rates), and what a Gaussian is. **Time:** about <!-- minutes --> minutes, of which 45 are for
# the exercises.

# %%
import math
import time

import torch

import tutorial_lib
from tutorial_lib.checks import lesson02
from tutorial_lib.datasets import circles, glyphs
from tutorial_lib.explorers import ForwardExplorer
from tutorial_lib.forward import at_steps, diffuse, diffuse_stepwise, posterior, predict_x0
from tutorial_lib.plots import COLOURS, filmstrip, panels, show
from tutorial_lib.schedules import NoiseSchedule, linear_schedule, quadratic_schedule

BLUE, ORANGE, GREEN, PINK = COLOURS[:4]
GREY = "#666666"
schedule = linear_schedule(1000)
T = schedule.num_steps


def seeded(seed):
    """A source of random numbers that starts the same way every time."""
    return torch.Generator().manual_seed(seed)


digits = glyphs(8, size=28, seed=5).images  # (8, 1, 28, 28)
digit = digits[2:3]
print("tutorial_lib", tutorial_lib.__version__, "| torch", torch.__version__)

# %% [markdown]
# ## Step by step: the chain
#
# One noising, from lesson 1, was
#
# $$x_t = \sqrt{1-\beta_t}\;x_{t-1} + \sqrt{\beta_t}\;z_t, \qquad z_t \sim \mathcal N(0, I).$$
#
# ($\mathcal N(0, I)$: for every pixel its own standard normal number, independent of all others.) Each state depends
# only on the one before it: a **chain**. As a distribution one writes it
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
# The check cannot compare your pixels with its own, since the order of your draws is up to you. It looks at what every right walk has in common:
# how much of $x_0$ is left, how wide the noise is spread, whether neighbors share it, and so on. You will do such a comparison yourself below.
#
# The library's walk is `diffuse_stepwise`. It takes one $t$ for each sample.

# %%
steps = torch.tensor([0, 100, 250, 500, 750, 1000])
same_digit = digit.expand(len(steps), -1, -1, -1)
start = time.perf_counter()
walked = diffuse_stepwise(schedule, same_digit, steps, generator=seeded(0))
walking_seconds = time.perf_counter() - start
show(
    filmstrip([walked], labels=[f"t = {t}" for t in steps.tolist()]),
    alt="A digit 3 after 0, 100, 250, 500, 750 and 1000 steps: clean, grainy, hard to read, and from 500 on "
    "nothing but noise.",
)
print(f"walked {len(steps)} pictures in {1000 * walking_seconds:.0f} ms")

# %% [markdown]
# Look how it drowns: still readable at $t = 250$, lost to the eye at $t = 500$. It took a loop of a thousand steps, and training
# needs millions of such pictures. That must go faster.
#
# ## Why the chain folds
#
# Back to the glass of juice. You pour out and fill up a thousand times. But if you only want to know what is in the glass *at the end*, you need not do it: so
# much juice, so much water, mix, done. That is the jump. It works because of one fact about Gaussians.
#
# **Two steps.** Put $x_{t-1}$ into $x_t$, and write $\alpha_t = 1-\beta_t$:
#
# $$x_t = \sqrt{\alpha_t}\,\Big(\sqrt{\alpha_{t-1}}\,x_{t-2} + \sqrt{1-\alpha_{t-1}}\,z_{t-1}\Big) + \sqrt{1-\alpha_t}\,z_t$$
#
# $$\phantom{x_t} = \sqrt{\alpha_t\alpha_{t-1}}\;x_{t-2} \;+\; \underbrace{\sqrt{\alpha_t(1-\alpha_{t-1})}\;z_{t-1} + \sqrt{1-\alpha_t}\;z_t}_{\text{two noises}}.$$
#
# **The two noises are one.** The sum of two *independent Gaussians* is a Gaussian, and its variance is the sum of their variances:
#
# $$\alpha_t(1-\alpha_{t-1}) + (1-\alpha_t) = 1 - \alpha_t\alpha_{t-1}.$$
#
# So two steps are one step which keeps $\alpha_t\alpha_{t-1}$. That has the form of a single step again, so a third one folds in the same way, and a fourth, down to $x_0$:
#
# $$\boxed{\;x_t = \sqrt{\bar\alpha_t}\;x_0 + \sqrt{1-\bar\alpha_t}\;\epsilon, \qquad \bar\alpha_t = \alpha_1\alpha_2\cdots\alpha_t, \quad \epsilon\sim\mathcal N(0, I)\;}$$
#
# This is the **jump**, $q(x_t\mid x_0) = \mathcal N\big(\sqrt{\bar\alpha_t}\,x_0,\,(1-\bar\alpha_t) I\big)$ (Ho et al. 2020, eq. 4).
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
# B numbers: `schedule.signal_rate[t]` has shape (B,). Now multiply them with pictures of shape (B, C, H, W). Here torch, as NumPy, **broadcasts**: it lines up
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
# Look at the last row: every picture fades from left to right, the first one too, whose $t$ is 1. No error, no warning, and a network trained on this learns
# something else than you think.
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
# - `eps` is the noise $\epsilon$, of the shape of `x0`. It is handed in: do not draw any of your own.
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

# %%
disc = circles(4, size=28, channels=1, seed=3).images[1:2]
pictures = [digit, digits[5:6], disc]
strips = []
for number, picture in enumerate(pictures):
    eps = torch.randn(picture.shape, generator=seeded(number))  # the same noise at every t
    strips.append(
        diffuse(schedule, picture.expand(6, -1, -1, -1), steps, eps.expand(6, -1, -1, -1))
    )
show(
    filmstrip(strips, labels=[f"t = {t}" for t in steps.tolist()]),
    alt="Two digits and a disc at t = 0, 100, 250, 500, 750 and 1000. They can be seen up to 250 and are lost in "
    "noise from 500 on.",
)

start = time.perf_counter()
for _ in range(20):
    diffuse(schedule, same_digit, steps, torch.randn(same_digit.shape, generator=seeded(0)))
jumping_seconds = (time.perf_counter() - start) / 20
print(
    f"jumped {len(steps)} pictures in {1000 * jumping_seconds:.2f} ms, walked them in {1000 * walking_seconds:.0f} ms"
)
assert jumping_seconds < walking_seconds / 10

# %% [markdown]
# Look at the column $t = 500$: to the eye all three are gone. But the signal rate there is still 0.28, so the picture is only well hidden; a measurement below finds it. And look at the
# times: the walk pays for every step, the jump costs the same for every $t$.
#
# So cheap, in fact, that your browser can jump sixty times a second. Drag $t$, and watch three things at once: the digits, the
# histogram of their pixels, and the two weights. At which $t$ can you no longer tell the histogram from the bell curve? At which $t$ can you no longer
# read the digits? It is not the same $t$. Then press *New noise*: what changes, and what does not?

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
# A derivation can hold a mistake, and so can code. So look at the histograms. We take one pixel of value 0.8 and let it walk 10,000 times to each of four steps,
# and jump there 10,000 times. By the formula the result is a Gaussian around $0.8\sqrt{\bar\alpha_t}$ with standard deviation $\sqrt{1-\bar\alpha_t}$.

# %%
COUNT, PIXEL = 10_000, 0.8
four_steps = [10, 100, 250, 1000]
t = torch.tensor(four_steps).repeat_interleave(COUNT)  # (40000,)
pixels = torch.full((len(t), 1), PIXEL)
by_chain = diffuse_stepwise(schedule, pixels, t, generator=seeded(1)).reshape(4, COUNT)
by_jump = diffuse(schedule, pixels, t, torch.randn(pixels.shape, generator=seeded(2))).reshape(
    4, COUNT
)

figure, plots = panels(4, width=9, height=2.7)
for plot, step, walk, jump in zip(plots, four_steps, by_chain, by_jump, strict=True):
    signal, noise = float(schedule.signal_rate[step]), float(schedule.noise_rate[step])
    bins = torch.linspace(signal * PIXEL - 4 * noise, signal * PIXEL + 4 * noise, 41)
    plot.hist(walk, bins, density=True, color=BLUE, alpha=0.35)
    plot.hist(jump, bins, density=True, color=ORANGE, histtype="step")
    bell = torch.exp(-((bins - signal * PIXEL) ** 2) / (2 * noise**2)) / (noise * math.tau**0.5)
    plot.plot(bins, bell, color="black", lw=1, ls="--")
    plot.set(title=f"t = {step}", yticks=[])
plots[0].text(0.02, 0.97, "walked", color=BLUE, transform=plots[0].transAxes, va="top", fontsize=9)
plots[0].text(
    0.02, 0.86, "jumped", color=ORANGE, transform=plots[0].transAxes, va="top", fontsize=9
)
plots[0].text(
    0.02, 0.75, "formula", color="black", transform=plots[0].transAxes, va="top", fontsize=9
)
show(
    figure,
    alt="Histograms of a pixel at t = 10, 100, 250 and 1000, walked and jumped, and the bell curve "
    "of the formula. In all four the three lie on top of each other.",
)

print("   t   mean: walked  jumped  formula   standard deviation: walked  jumped  formula")
worst = 0.0
for step, walk, jump in zip(four_steps, by_chain, by_jump, strict=True):
    mean, spread = float(schedule.signal_rate[step]) * PIXEL, float(schedule.noise_rate[step])
    print(
        f"{step:4} {walk.mean():14.4f} {jump.mean():7.4f} {mean:8.4f} "
        f"{walk.std():27.4f} {jump.std():7.4f} {spread:8.4f}"
    )
    for sample in (walk, jump):
        off_mean = abs(float(sample.mean()) - mean) / (spread / COUNT**0.5)
        off_spread = abs(float(sample.std()) - spread) / (spread / (2 * COUNT) ** 0.5)
        worst = max(worst, off_mean, off_spread)
print(f"largest of these 16 deviations: {worst:.1f} standard errors")
assert worst < 4

# %% [markdown]
# Look for a difference between blue and orange: there is none but chance. A mean of 10,000 draws is off by about one *standard error* (its spread over 100), and the
# largest of 16 such deviations should be around two or three.
#
# That was one pixel. For whole pictures, with all their pixels at once, we need a **two-sample test**: two sets of pictures go in, and out comes whether they could be
# from one distribution. A simple one uses the *energy distance*: how much farther, on average, are pictures of different sets from each other than pictures of the same set?
#
# $$D = 2\,\overline{\lVert a - b\rVert} - \overline{\lVert a - a'\rVert} - \overline{\lVert b - b'\rVert}.$$
#
# (A bar is the mean over all pairs: of one picture from each set, or of two, $a$ and $a'$, from the same set.)
#
# $D$ alone says nothing: how large is large? So we make our own yardstick. If walked and jumped come from one distribution, it does not matter
# which of the two we call which. From each $x_0$ there is one walked and one jumped picture. For a random half of the $x_0$ we swap the two, calculate $D$ again, and do this 999 times. These are the values that chance alone gives. The **p-value**
# is the share of them that is at least as large as the real one: if it is tiny, the sets differ.
#
# And a test that never finds anything would pass too. So there are controls: jumps to a *slightly wrong* step, which the test ought to catch.


# %%
def two_sample_test(a, b, generator, swaps=999):
    """Energy distance of pictures a and b, (N, ...), paired by their x_0; its p-value."""
    both = torch.cat([a, b]).flatten(1)
    distances = torch.cdist(both, both).double()
    signs = torch.randint(0, 2, (swaps + 1, len(a)), generator=generator) * 2 - 1
    signs[0] = 1  # the real labels
    labels = torch.cat([signs, -signs], 1).double()
    # D is minus a sum over all distances: with +1 inside a set, with -1 between the two.
    energy = -((labels @ distances) * labels).sum(1) / len(a) ** 2
    return float(energy[0]), float((energy >= energy[0]).double().mean())


x0 = circles(800, size=12, channels=1, seed=7).images
at_250 = torch.full((len(x0),), 250)
walked = diffuse_stepwise(schedule, x0, at_250, generator=seeded(3))

print("walked to t = 250 (signal rate 0.724), against   energy distance   p-value")
p_values = {}
for step in (250, 255, 260, 270, 300):
    eps = torch.randn(x0.shape, generator=seeded(4))
    jumped = diffuse(schedule, x0, torch.full_like(at_250, step), eps)
    distance, p_values[step] = two_sample_test(walked, jumped, seeded(5))
    rate = float(schedule.signal_rate[step])
    print(f"a jump to t = {step} (signal rate {rate:.3f}) {distance:23.4f} {p_values[step]:9.3f}")
# And the most common mistake of all:
one_step = schedule.alpha[249].sqrt() * x0 + schedule.beta[249].sqrt() * eps
distance, p_values["alpha"] = two_sample_test(walked, one_step.float(), seeded(5))
print(f"alpha_t where alpha_bar_t belongs {distance:27.4f} {p_values['alpha']:9.3f}")
assert p_values[250] > 0.01
assert p_values[300] <= 0.005
assert p_values["alpha"] <= 0.005

# %% [markdown]
# Look at the first row: the jump to the right step passes. One swap of labels in five gives a distance as large ($p$ = 0.2). Now the controls. A jump that goes 5 steps too far passes
# as well; at 10 steps there is a first suspicion ($p$ = 0.03); from 20 steps on, that is a signal rate which is 5 % too small, none of the 999 swaps comes near. So this is what the
# experiment says: **chain and jump are the same, or differ by less than about 5 % in a rate.** The derivation says the rest. And the mistake that lesson 1 warned of, $\alpha_t$ for $\bar\alpha_t$, is caught at once.
#
# ## How Gaussian is $x_{1000}$?
#
# At the end of the chain there should be nothing but $\mathcal N(0, I)$. We jump 4000 discs to several steps and compare all their pixels, four million numbers, with the bell
# curve. Three measures, each with what *real* Gaussian noise of the same amount scores:
#
# - the **KS distance** (Kolmogorov and Smirnov): the largest gap between the share of pixels below some value and the share it should be;
# - the **excess kurtosis**, $\overline{x^4}/\overline{x^2}^2 - 3$ (for centered $x$), which is 0 for a Gaussian and tells of tails too heavy or too light;
# - the **correlation of neighbors**: in a picture, the pixel beside a bright one is likely to be bright. Independent noise has none of that.


# %%
def ks_distance(x):
    """The largest gap between the distribution of x and the standard normal one."""
    ordered = x.flatten().double().sort().values
    wanted = torch.special.ndtr(ordered)
    ranks = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    return float(torch.maximum(wanted - ranks[:-1], ranks[1:] - wanted).max())


def excess_kurtosis(x):
    centered = (x - x.mean()).double()
    return float(centered.pow(4).mean() / centered.pow(2).mean() ** 2 - 3)


def neighbors(x):
    left, right = x[..., :-1].flatten(), x[..., 1:].flatten()
    return float(torch.corrcoef(torch.stack([left, right]))[0, 1])


discs = circles(4000, size=32, channels=1, seed=8).images
scores = {}
print("     t      mean   KS distance   excess kurtosis   correlation of neighbors")
for step in (100, 250, 500, 750, 1000, "noise"):
    x = torch.randn(discs.shape, generator=seeded(6))
    if step != "noise":
        x = diffuse(schedule, discs, torch.full((len(discs),), step), x)
    scores[step] = ks_distance(x), excess_kurtosis(x), neighbors(x)
    print(
        f"{step!s:>6} {x.mean():9.4f} {scores[step][0]:13.4f} {scores[step][1]:17.4f} {scores[step][2]:26.4f}"
    )

one_picture = torch.randn(200, 1024, generator=seeded(10))
by_chance = sum(ks_distance(x) for x in one_picture) / len(one_picture)
length = float(discs[0].norm())  # of x_0 as one long vector
knowing = 0.5 * (1 + math.erf(float(schedule.signal_rate[1000]) * length / 2 / 2**0.5))
print(f"KS distance of one picture of pure noise, 1024 pixels: {by_chance:.3f} by chance alone")
print(f"best guess 'x_1000 or pure noise?' by somebody who knows x_0: right in {knowing:.1%}")

assert scores[1000][0] < 0.01
assert scores[1000][0] > 2 * scores["noise"][0]
assert scores[1000][0] < by_chance / 5
assert abs(scores[1000][1]) < 0.02
assert scores[500][2] > 0.02  # at t = 500 the picture is still there

# %% [markdown]
# Look at the row $t = 1000$ and compare it with pure noise. Tails and neighbors: no difference. The KS distance is 0.002, small, and still three times what pure noise scores: with four million pixels one sees that
# $x_{1000}$ is *not quite* $\mathcal N(0, I)$. The mean gives it away: the pictures are mostly black ($-1$), and 0.6 % of that is left. In a *single* picture of 1024 pixels chance alone makes a distance ten times as
# large, so nobody sees it there. Even somebody who knows $x_0$ and looks for just this picture guesses right in only 54 % of cases, hardly better than by tossing a coin.
#
# The row $t = 500$ is worth a look too. Your eye found nothing there; the neighbors are still correlated, 0.036 against 0.000.
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
# The jump has three quantities in it: $x_0$, $\epsilon$ and $x_t$. Whoever knows two of them knows the third. A diffusion model sees $x_t$ and guesses the noise; the guess is called $\hat\epsilon$
# (`eps_hat`). Solve the jump for $x_0$, as you would with plain numbers, and the guess of the noise becomes a guess of the clean picture, $\hat x_0$ (`x0_hat`).
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
# With the *true* noise the way back is exact, from every $t$, even where you see nothing but noise. But a network's guess is never quite true. In the lower row
# `eps_hat` is the true noise plus a small error, 5 % of the noise's own strength:

# %%
on_the_way = torch.tensor([1, 100, 250, 500, 750, 1000])
eps = torch.randn(digit.shape, generator=seeded(0)).expand(6, -1, -1, -1)
error = 0.05 * torch.randn(eps.shape, generator=seeded(1))
x_t = diffuse(schedule, same_digit, on_the_way, eps)
exact = predict_x0(schedule, x_t, on_the_way, eps)
rough = predict_x0(schedule, x_t, on_the_way, eps + error)
show(
    filmstrip(
        [x_t, exact, rough],
        labels=[f"from t = {t}" for t in on_the_way.tolist()],
        rows=["x_t", "true noise", "5 % off"],
    ),
    alt="Upper row: a digit getting lost in noise. Middle row: x_0 predicted with the true noise, the clean digit "
    "every time. Lower row, with a noise that is 5 percent off: clean up to t = 250, a little grainy at 500, "
    "hard to read at 750, and nothing but noise at 1000.",
)
print(
    f"true noise, largest error of a pixel from t = 1000: {(exact - same_digit)[-1].abs().max():.1e}"
)
assert (exact - same_digit).abs().max() < 1e-3

# %% [markdown]
# Look along the lower row: the same small error in $\hat\epsilon$ does nothing at $t = 100$ and ruins everything at $t = 1000$. Why? Put $\epsilon + \text{error}$ in place of $\hat\epsilon$:
#
# $$\hat x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\,(\epsilon + \text{error})}{\sqrt{\bar\alpha_t}} = x_0 - \frac{\sqrt{1-\bar\alpha_t}}{\sqrt{\bar\alpha_t}}\cdot\text{error}.$$
#
# The error is multiplied by noise rate over signal rate, the root of 1/SNR.
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

# %%
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
plot.axhline(1, color=GREY, ls=":")
plot.text(1000, 1.2, "error stays as it is", color=GREY, ha="right")
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
# Look where the line crosses 1, at $t = 260$, where signal and noise are equal: before it errors shrink, after it they grow. Three consequences that you will meet again: nobody
# draws a picture by *one* big jump back from $t = 1000$; samplers clamp $\hat x_0$ to $[-1, 1]$; and a network that is to work at large $t$ may better predict something else than $\epsilon$ (lesson 3).
#
# ## The posterior: one step back, if you knew $x_0$
#
# Going back one step means: given $x_t$, where was $x_{t-1}$? In general only a trained network can say. But in training we *know* $x_0$, and then there is an exact answer, the **posterior**
# $q(x_{t-1}\mid x_t, x_0)$. Lesson 3 trains the network to imitate it, and lesson 6 samples with it.
#
# Think of two witnesses to where $x_{t-1}$ was. The first one knows $x_0$ and says: *I saw it start, so by the jump it was about here.* The second one knows $x_t$ and says: *I saw where it was one step later,
# so it was about there.* Both are unsure, one more than the other, and they saw independent things: in a chain the step to $x_t$ looks at $x_{t-1}$ only, not at $x_0$. Bayes' rule says how to combine them: **multiply**,
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
# Here are the two witnesses and their product. So that one sees something, the schedule has ten large steps along the same curve (lesson 1), and there is one pixel, with $x_0 = 1$ and $x_3 = -0.5$.

# %%
ten = NoiseSchedule(schedule.alpha_bar[::100])
STEP, X0, X_T = 3, 1.0, -0.5
mean, variance = (float(part) for part in posterior(
    ten, torch.tensor([[X0]]), torch.tensor([[X_T]]), torch.tensor([STEP])
))  # fmt: skip
before, alpha, beta = (
    float(ten.alpha_bar[STEP - 1]),
    float(ten.alpha[STEP - 1]),
    float(ten.beta[STEP - 1]),
)


def bell(x, center, variance):
    return torch.exp(-((x - center) ** 2) / (2 * variance)) / (math.tau * variance) ** 0.5


x = torch.linspace(-3, 3, 601, dtype=torch.float64)
prior = bell(x, before**0.5 * X0, 1 - before)
likelihood = bell(x, X_T / alpha**0.5, beta / alpha)
product = prior * likelihood
product = product / (product.sum() * 0.01)  # area 1
assert (product - bell(x, mean, variance)).abs().max() < 1e-6

figure, (plot,) = panels(1, width=6.8, height=3)
plot.plot(x, prior, color=BLUE, ls="--")
plot.plot(x, likelihood, color=ORANGE, ls="-.")
plot.fill_between(x, product, color=GREEN, alpha=0.35, lw=0)
plot.plot(x, bell(x, mean, variance), color=GREEN)
plot.text(1.35, 0.5, "knows $x_0 = 1$", color=BLUE)
plot.text(-1.2, 0.5, "knows $x_3 = -0.5$", color=ORANGE, ha="right")
plot.text(mean + 0.1, float(product.max()) + 0.01, "both: the posterior", color=GREEN)
plot.set(xlabel="$x_2$", yticks=[], ylim=(0, float(product.max()) * 1.12))
show(
    figure,
    alt="Three bell curves over x_2: the prior centered near 0.8, the likelihood, wider, centered near "
    "-0.6, and between them, nearer to the prior, the narrower posterior.",
)
print(
    f"prior: {before**0.5 * X0:.2f}, variance {1 - before:.2f} | likelihood: {X_T / alpha**0.5:.2f}, variance "
    f"{beta / alpha:.2f} | posterior: {mean:.2f}, variance {variance:.2f}"
)

# %% [markdown]
# Look at the green curve: it lies between the two, nearer to the more certain witness, and it is narrower than either. Two witnesses together know more.
#
# Does it hold in reality? We let a million pixels with $x_0 = 1$ really jump to $t = 2$ and take one real step to $t = 3$. We then look only at those which arrived near $-0.5$, and ask: where had
# *these* been at $t = 2$? No formula for the posterior goes into this.

# %%
generator = seeded(9)
million = torch.full((1_000_000, 1), X0)
x_2 = diffuse(
    ten, million, torch.full((len(million),), 2), torch.randn(million.shape, generator=generator)
)
x_3 = alpha**0.5 * x_2 + beta**0.5 * torch.randn(x_2.shape, generator=generator)
arrived = x_2[(x_3 - X_T).abs() < 0.02]
mean_error = float(arrived.std()) / len(arrived) ** 0.5
print(f"{len(arrived):,} of a million arrived within 0.02 of {X_T}")
print(
    f"where they came from: mean {arrived.mean():.4f} (formula {mean:.4f}), "
    f"variance {arrived.var():.4f} (formula {variance:.4f})"
)
assert abs(float(arrived.mean()) - mean) < 4 * mean_error
assert abs(float(arrived.var()) / variance - 1) < 4 * (2 / len(arrived)) ** 0.5

# %% [markdown]
# One more look, at the thousand-step schedule: how much does each witness count there?

# %%
t = torch.arange(1, T + 1)
weight_x0 = schedule.alpha_bar[t - 1].sqrt() * schedule.beta / (1 - schedule.alpha_bar[t])
weight_x_t = schedule.alpha.sqrt() * (1 - schedule.alpha_bar[t - 1]) / (1 - schedule.alpha_bar[t])
figure, (left, right) = panels(2, height=2.9)
left.plot(t, weight_x_t, color=ORANGE, ls="--")
left.plot(t, weight_x0, color=BLUE)
left.text(980, 0.9, "weight of $x_t$", color=ORANGE, ha="right", va="top")
left.text(980, 0.08, "weight of $x_0$", color=BLUE, ha="right")
left.set(xlabel="t (logarithmic)", xscale="log", title="The posterior's mean")
right.plot(t, schedule.posterior_variance / schedule.beta, color=GREEN)
right.set(
    xlabel="t (logarithmic)", xscale="log", ylim=(0, 1.05), title="Its variance, as a share of β_t"
)
show(
    figure,
    alt="Left: the weight of x_t rises from 0 to nearly 1 within the first 50 steps, that of x_0 falls from 1 to "
    "nearly 0. Right: the posterior variance as a share of beta rises from 0 at t = 1 to 0.9 at t = 20 and "
    "then to 1.",
)
ratio = schedule.posterior_variance / schedule.beta
print(
    f"share of beta: t = 1: {ratio[0]:.2f}, t = 2: {ratio[1]:.2f}, t = 20: {ratio[19]:.2f}, t = 1000: {ratio[-1]:.4f}"
)
assert ratio[0] == 0

# %% [markdown]
# Look at how fast the curves settle: but for the first dozens of steps, $x_{t-1}$ is nearly $x_t$, and knowing $x_0$ makes the step hardly more certain. Keep the right picture in mind: in lesson 6 you
# choose between $\beta_t$ and the posterior variance, and this curve says when it matters.
#
# ## Recap
#
# - A sum of independent Gaussians is Gaussian, so $t$ steps fold into one jump: $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$. It is exact, in distribution.
# - Rates looked up for a batch must be shaped (B, 1, 1, 1). Where B equals the width, nothing warns you.
# - "The same distribution" can be tested: moments, a two-sample distance with a yardstick made by swapping labels, and controls that say what the test can see.
# - $\hat x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\hat\epsilon)/\sqrt{\bar\alpha_t}$. An error in $\hat\epsilon$ comes out noise rate / signal rate times as large.
# - Given $x_0$ and $x_t$, $x_{t-1}$ is Gaussian: two beliefs, multiplied.
#
# ## Key terms
#
# | what people say | what it means |
# |---|---|
# | forward process, diffusion process | the chain that adds noise; nothing in it is learned |
# | Markov chain | each state depends on the one before it only |
# | closed form, jump, $q(x_t\mid x_0)$, `q_sample`, `add_noise` | $x_t$ from $x_0$ in one formula |
# | broadcasting | how shapes are matched, from the right, before numbers are multiplied |
# | equal in distribution | the same histogram over many draws, not the same draw |
# | two-sample test, p-value | could two samples come from one distribution; how often chance alone gives a distance as large |
# | `x0_hat`, predicted $x_0$, `pred_original_sample` | the clean picture that a guess of the noise implies |
# | prior, likelihood, posterior | what is believed before a look, what the look says, both together |
# | posterior variance, $\tilde\beta_t$ | the variance of $x_{t-1}$ given $x_t$ and $x_0$ |
#
# ## Claims, measured
#
# All by the cells above, with the seeds that stand in them; on the CPU.
#
# | claim | verdict | numbers |
# |---|---|---|
# | "One jump equals $t$ steps of the chain." | yes, in distribution | means and variances agree to $10^{-12}$ at all $t$ (no random numbers, float64); over 10,000 walks and jumps, 16 means and deviations within 2.9 standard errors; two-sample test at $t = 250$: $p$ = 0.20, and $p$ = 0.001 for a jump 20 steps too far. |
# | "$x_T$ is Gaussian noise." | nearly | KS distance 0.0022 over 4 million pixels, pure noise 0.0007; mean $-0.005$, where pure noise has $-0.001$; in one picture of 1024 pixels chance alone makes 0.026. |
# | "With the noise you have the picture." | yes, and the error grows | true noise: $x_0$ back to $2\cdot10^{-5}$ from $t = 1000$ (float32). An error in $\hat\epsilon$ grows by 0.01 at $t = 1$, 1.00 at $t = 260$, 157 at $t = 1000$. |
# | "Given $x_0$, the step back is a Gaussian with known mean and variance." | yes | 7054 real pixels that arrived near $-0.5$: mean 0.320 (formula 0.317), variance 0.221 (formula 0.225), both within the error of so many draws. |
#
# ## Further reading
#
# - Sohl-Dickstein, Weiss, Maheswaranathan, Ganguli: *Deep Unsupervised Learning using Nonequilibrium Thermodynamics*, 2015, arXiv 1503.03585. Where the chain comes from.
# - Ho, Jain, Abbeel: *Denoising Diffusion Probabilistic Models*, 2020, arXiv 2006.11239. Equations 2, 4, 6, 7 and 15 are this lesson.
# - Song, Meng, Ermon: *Denoising Diffusion Implicit Models*, 2021, arXiv 2010.02502. Other chains with the same jump.
# - Luo: *Understanding Diffusion Models: A Unified Perspective*, 2022, arXiv 2208.11970. The same derivations at a slow pace.
# - Gretton, Borgwardt, Rasch, Schölkopf, Smola: *A Kernel Two-Sample Test*, 2012, Journal of Machine Learning Research 13. Testing whether two samples differ.
#
# <!-- navigation -->
