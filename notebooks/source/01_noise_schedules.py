# %% [markdown]
# # 1 · Noise schedules
#
# <!-- opening -->
#
# One disc, the same noise, three **noise schedules**: three answers to the question *how much noise comes at which
# step?* A schedule is one list of numbers, and a surprising amount depends on it. In this lesson you build two of
# these three, and find out what a schedule leaves behind when all should be noise.
#
# **After this lesson you will be able to**
#
# - build a schedule from its $\beta_t$, and say what $\alpha_t$, $\bar\alpha_t$, signal rate, noise rate and SNR are,
# - say how pure the "pure noise" $x_T$ really is, and measure what is left in it,
# - walk the same schedule in 512 steps instead of 1000, and say what must change,
# - translate between papers that count steps from 1 and libraries that count from 0.
#
# **You need** a little Python and PyTorch tensors, and what a variance is. **Time:** about <!-- minutes --> minutes.

# %%
import math

import numpy as np
import torch

from tutorial_lib.checks import lesson01
from tutorial_lib.datasets import circles, glyphs
from tutorial_lib.explorers import ScheduleExplorer
from tutorial_lib.lab import seeded, start
from tutorial_lib.schedules import (
    NoiseSchedule,
    cosine_schedule,  # for a look ahead; in lesson 7 you build it yourself
    linear_schedule,
    quadratic_schedule,
)

device = start(1)

# %% tags=["plumbing"]
from tutorial_lib.plots import COLORS, GRAY, INK, filmstrip, panels, show

BLUE, ORANGE, GREEN, PINK = COLORS[:4]

# %% [markdown]
# ## One noising
#
# Think of a glass of juice. You pour out a small share of it and fill the glass up with water. Then you do it
# again: pour out a share of *what is in the glass now*, and fill up. The glass is always full, and there is less and
# less juice in it. A noise schedule says how large a share you pour out each time.
#
# The juice is the picture, the water is noise. A picture $x_0$ is a tensor of numbers between $-1$ (black)
# and $1$ (white). At **step** $t$ it fades a little and gets a little noise:
#
# $$x_t = \sqrt{1-\beta_t}\;x_{t-1} + \sqrt{\beta_t}\;z_t, \qquad z_t \sim \mathcal N(0, 1) \text{ for each pixel, fresh at each step.}$$
#
# $\beta_t$ ("beta", between 0 and 1) is the share that is poured out at step $t$. After $T$ steps we stop; often, $T$ is 1000.
# **In this course the step $t$ says how often noise has been added**: $x_0$ is clean, $x_1$ has one noising,
# $x_T$ has all of them.
#
# Why the roots? What the glass keeps full is the **variance**. For independent numbers, variances add, and a factor
# in front enters squared:
#
# $$\mathrm{Var}(x_t) = (1-\beta_t)\,\mathrm{Var}(x_{t-1}) + \beta_t\cdot 1.$$
#
# If $x_{t-1}$ has variance 1, so has $x_t$; any other variance is pulled toward 1. So the network, later, sees inputs of about the
# same size at every step. The next cell follows the variance through 1000 steps for three rules, with the betas that you are about to write.

# %%
# NBVAL_CHECK_OUTPUT
betas = linear_schedule(1000).beta.tolist()
rules = {
    "with both roots": lambda var, beta: (1 - beta) * var + beta,
    "without fading: x + √β z": lambda var, beta: var + beta,
    "(1 - β) x + √β z": lambda var, beta: (1 - beta) ** 2 * var + beta,
}
variances = {}
for name, rule in rules.items():
    variances[name] = [1.0]
    for beta in betas:
        variances[name].append(rule(variances[name][-1], beta))
    print(f"{name:26} variance after 1000 steps: {variances[name][-1]:5.2f}")

assert abs(variances["with both roots"][-1] - 1) < 1e-12

# %% tags=["plumbing"]
figure, (plot,) = panels(1, width=6.8, height=2.9)
for values, color, dash in zip(
    variances.values(), (BLUE, ORANGE, GREEN), ("-", "--", "-."), strict=True
):
    plot.plot(values, color=color, ls=dash)
plot.text(620, 6.6, "without fading", color=ORANGE, ha="right")
plot.text(1010, 1.0, "both roots", color=BLUE, va="center")
plot.text(1010, 0.5, "a root missing", color=GREEN, va="center")
plot.set(xlabel="t", ylabel="variance of $x_t$", yscale="log", xlim=(0, 1230), ylim=(0.38, 14))
plot.set_xticks(range(0, 1001, 200))
plot.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
plot.minorticks_off()
show(
    figure,
    alt="Variance of x_t over 1000 steps. With both roots it stays at 1. Without fading it "
    "grows to 11. With the first root missing it sinks to 0.5.",
)

# %% [markdown]
# With both roots the schedule is called **variance preserving**. Some papers take the orange rule (*variance exploding*) and
# shrink $x_t$ before the network sees it. With matching betas that is the same model in another notation.
#
# ## The betas
#
# The paper that made diffusion models famous (Ho et al. 2020) takes $T = 1000$ betas on a straight line from $\beta_1 = 0.0001$ to
# $\beta_T = 0.02$: tiny steps while there is detail to lose, larger ones when little is left.
#
# ### Exercise 1.1: betas on a straight line
#
# *Difficulty 1 of 3, 3 minutes.*
#
# Write `my_linear_betas(num_steps, beta_start, beta_end)`. It returns a tensor of shape (T,), with $T$ = `num_steps`, at least 2: the numbers
# $\beta_1, \dots, \beta_T$ at equal distances, the first one `beta_start`, the last one `beta_end`.
#
# `torch.linspace(first, last, how_many)` makes evenly spaced numbers, both ends included.


# %%
def my_linear_betas(num_steps, beta_start, beta_end):
    # BEGIN SOLUTION lesson01.linear_betas
    ...
    # END SOLUTION


# %%
lesson01.linear_betas.check(my_linear_betas)

# %% [markdown]
# The library's `linear_schedule(num_steps, beta_start, beta_end)` starts from the same betas. Note where they are kept:
# Python counts from 0, the steps count from 1, so $\beta_t$ is `schedule.beta[t - 1]`.

# %%
# NBVAL_CHECK_OUTPUT
schedule = linear_schedule(1000, beta_start=1e-4, beta_end=0.02)
for t in (1, 500, 1000):
    print(f"beta_{t} = {schedule.beta[t - 1]:.4f}")

# %% [markdown]
# ## What is left: alpha_bar
#
# One step keeps the share $\alpha_t = 1 - \beta_t$. Two steps keep a share of a share, $\alpha_1\alpha_2$. After $t$ steps, what is left of
# the juice, that is, of the picture's variance, is
#
# $$\bar\alpha_t = \alpha_1 \cdot \alpha_2 \cdots \alpha_t, \qquad \bar\alpha_0 = 1.$$
#
# Read it "alpha bar". The bar matters: $\alpha_t$ belongs to one step, $\bar\alpha_t$ to all steps so far. Mixing them up is
# easy, and the code still runs. Everything else follows from $\bar\alpha$; in the library a schedule *is* this one tensor.
#
# ### Exercise 1.2: how much signal is left
#
# *Difficulty 1 of 3, 5 minutes.*
#
# Write `my_alpha_bar(beta)`. In goes `beta` of shape (T,), the betas of the steps 1 to $T$. Out comes a tensor of
# shape (T + 1,), with $\bar\alpha_t$ at place $t$, so that entry 0 is $\bar\alpha_0 = 1$: clean data.
#
# `x.cumprod(0)` gives the running product of a tensor: `[a, a*b, a*b*c, ...]`. `torch.cat([x, y])` joins two tensors, and
# `torch.ones(1)` is a tensor with a single 1.


# %%
def my_alpha_bar(beta):
    # BEGIN SOLUTION lesson01.alpha_bar
    ...
    # END SOLUTION


# %%
lesson01.alpha_bar.check(my_alpha_bar)

# %% [markdown]
# Here is the result, with the library's schedule.

# %% tags=["plumbing"]
figure, (left, right) = panels(2, height=3)
left.plot(range(1, 1001), schedule.beta, color=ORANGE)
left.set(title=r"$\beta_t$: poured out at step $t$", xlabel="t", ylim=(0, 0.021))
right.plot(schedule.alpha_bar, color=BLUE)
half = int((schedule.alpha_bar < 0.5).nonzero()[0])
right.plot([half, half, 0], [0, 0.5, 0.5], color=GRAY, ls=":")
right.text(half + 20, 0.5, f"half of it is gone at t = {half}", color=INK)
right.set(
    title=r"$\bar\alpha_t$: what is left after $t$ steps",
    xlabel="t",
    ylim=(0, 1.03),
    xlim=(0, 1000),
)
show(
    figure,
    alt="Left: the betas rise on a straight line from 0.0001 to 0.02. Right: alpha bar falls "
    "from 1 in the shape of a bell's right half; it crosses one half at t = 260 and is near 0 from "
    "t = 700 on.",
)

# %%
# NBVAL_CHECK_OUTPUT
below_one_percent = int((schedule.alpha_bar < 0.01).nonzero()[0])
print(f"less than half from t = {half} on, less than 1 % from t = {below_one_percent} on")
print(f"at the end: alpha_bar_1000 = {schedule.alpha_bar[1000]:.3g}")
assert half == 260
assert below_one_percent < 700

# %% [markdown]
# Straight betas make a curved $\bar\alpha_t$: half of the variance is gone after 260 of the 1000
# steps, and the last three hundred steps work on less than 1 % of it. (Lesson 7 asks whether that is a good use of them.)
#
# ## Counting
#
# We count noisings, as the papers do: $t = 0$ is clean, $t = 1, \dots, T$ are noisy. So `alpha_bar` has $T + 1$ entries, and
# "the step before $t = 1$" is a step like all others. Many libraries store only the $T$ noisy ones and count from 0.
# The 0 then means something else:
#
# | | here and in the papers | libraries that count 0..T-1 (diffusers, the DDPM authors' code) |
# |---|---|---|
# | clean data | $t = 0$ | has no number; code puts 1 where the step before is below 0 |
# | one noising | $t = 1$ | timestep 0 |
# | nearly pure noise | $t = 1000$ | timestep 999 |
# | $\bar\alpha$ after 5 noisings | `alpha_bar[5]` | `alphas_cumprod[4]` |
# | $\beta$ of the fifth step | `beta[4]` | `betas[4]` |
#
# ### Question 1.A: counting from 1 here, from 0 elsewhere
#
# *1 minute.*
#
# A library that counts its steps 0 to 999 speaks of its timestep 249. Which of our steps $t$ is that?

# %%
# BEGIN SOLUTION
counting = 250
# END SOLUTION

# %%
lesson01.counting.check(counting)

# %% [markdown]
# ## Rates, and the ratio of signal to noise
#
# Lesson 2 derives that all $t$ steps together do the same as one big step, which looks just like a small one:
#
# $$x_t = \underbrace{\sqrt{\bar\alpha_t}}_{\text{signal rate}}\;x_0 \;+\; \underbrace{\sqrt{1-\bar\alpha_t}}_{\text{noise rate}}\;\epsilon,
# \qquad \epsilon \sim \mathcal N(0, 1).$$
#
# Take it on trust for now. The two rates are **amplitudes**: what the picture and the noise $\epsilon$ ("epsilon") are multiplied
# by. Their *squares* are shares of variance, and these add up to 1, a full glass. So a point that
# moves along (signal rate, noise rate) runs along a quarter circle, from (1, 0) nearly to (0, 1).
#
# One more number is useful: the **signal-to-noise ratio**, one share over the other,
#
# $$\mathrm{SNR}_t = \frac{\bar\alpha_t}{1-\bar\alpha_t}.$$
#
# It is infinite at $t = 0$ and falls with every step. For data of variance 1, SNR = 1 means as much noise as picture.
#
# ### Exercise 1.3: signal rate, noise rate, SNR
#
# *Difficulty 1 of 3, 5 minutes.*
#
# Write `my_rates(alpha_bar)`. In goes `alpha_bar` of shape (T + 1,), with `alpha_bar[0] == 1`. Return three tensors of the same shape, in
# this order: signal rate, noise rate, SNR. (`x.sqrt()` is the root, entry by entry. Dividing by 0 is no error in
# torch: 1 / 0 gives `inf`, which is right for the SNR at $t = 0$.)


# %%
def my_rates(alpha_bar):
    # BEGIN SOLUTION lesson01.rates
    ...
    # END SOLUTION


# %%
lesson01.rates.check(my_rates)

# %% [markdown]
# The library's schedule has all three: `schedule.signal_rate`, `schedule.noise_rate`, `schedule.snr`, each indexed by $t$.

# %% tags=["plumbing"]
figure, (left, right) = panels(2, height=3)
left.plot(schedule.signal_rate, color=BLUE)
left.plot(schedule.noise_rate, color=ORANGE, ls="--")
left.text(375, 0.55, "signal rate", color=BLUE)
left.text(560, 0.85, "noise rate", color=ORANGE)
left.axvline(half, color=GRAY, ls=":")
left.text(half + 15, 0.05, "equal", color=INK)
left.set(title="The two rates", xlabel="t", ylim=(0, 1.05))
right.plot(range(1, 1001), schedule.snr[1:], color=GREEN)
right.axhline(1, color=GRAY, ls=":")
right.text(620, 1.5, "as much of each", color=INK)
right.set(title="SNR (logarithmic scale)", xlabel="t", yscale="log")
show(
    figure,
    alt="Left: the signal rate falls from 1 to nearly 0 while the noise rate rises from 0 to 1; "
    "they cross at t = 260. Right: the SNR falls from 10,000 to 0.00004; it passes 1 at t = 260.",
)

# %%
# NBVAL_CHECK_OUTPUT
assert torch.allclose(schedule.signal_rate**2 + schedule.noise_rate**2, torch.ones(1001).double())
for t in (1, half, 1000):
    print(f"SNR at t = {t}: {schedule.snr[t]:.2g}")

# %% [markdown]
# The SNR falls by more than eight powers of ten, and each power is a different job for the
# network. At SNR 10,000 it removes dust, at SNR 1 it repairs, at SNR 0.001 it has to guess what the picture might be.
#
# This is how it looks: one colored disc and one digit, made noisy by the formula above.


# %%
def noised(x0, schedule, steps, generator):
    """The picture x0 (C, H, W) at each of ``steps``, with the same noise: (S, C, H, W)."""
    eps = torch.randn(x0.shape, generator=generator)
    rates = [(float(schedule.signal_rate[t]), float(schedule.noise_rate[t])) for t in steps]
    return torch.stack([signal * x0 + noise * eps for signal, noise in rates])


# %% tags=["plumbing"]
disc = circles(3, size=32, seed=3).images[1]
digit = glyphs(4, size=32, seed=5).images[2].expand(3, -1, -1)  # gray as RGB
steps = [0, 50, 100, 200, 300, 400, 600, 800, 1000]
strips = [noised(picture, schedule, steps, seeded(0)) for picture in (disc, digit)]
show(
    filmstrip(strips, labels=[f"t = {t}" for t in steps]),
    alt="A colored disc and a digit at nine steps from 0 to 1000. Until t = 200 both are easy to see, at "
    "t = 400 one can still guess them, from t = 600 on there is only noise.",
)

# %% [markdown]
# Look at $t = 300$: the SNR is below 1, and you still see what it is. A picture's neighboring pixels
# are alike, the noise's are not, and the eye averages.
#
# ### Exercise 1.4: several schedules at once
#
# *Difficulty 1 of 3, 4 minutes.*
#
# To compare schedules it is handy to have many in one tensor, one a row. Write `my_alpha_bars(beta)`: in goes `beta` of shape (S, T),
# $S$ schedules of $T$ betas each; out comes $\bar\alpha$ of shape (S, T + 1), each row as in exercise 1.2, with a 1 in front.
#
# Now there are two axes, and torch has to be told which one you mean: `x.cumprod(dim=...)` and `torch.cat([x, y], dim=...)`,
# where `dim=0` runs down the rows and `dim=1` along a row. `torch.ones(S, 1)` is a column of ones; $S$ is `len(beta)`.


# %%
def my_alpha_bars(beta):
    # BEGIN SOLUTION lesson01.alpha_bars
    ...
    # END SOLUTION


# %%
lesson01.alpha_bars.check(my_alpha_bars)

# %% [markdown]
# For instance, what does the end of the betas do? Four linear schedules, each with a last beta twice
# as large as the one before:

# %%
ends = [0.005, 0.01, 0.02, 0.04]
rows = torch.stack([linear_schedule(1000, 1e-4, end).alpha_bar for end in ends])  # (4, 1001)
print("alpha_bar at T:", ", ".join(f"{float(end):.2g}" for end in rows[:, -1]))

# %% tags=["plumbing"]
figure, (left, right) = panels(2, height=3.1)
for row, end, color, dash in zip(
    rows, ends, (GREEN, ORANGE, BLUE, PINK), (":", "--", "-", "-."), strict=True
):
    left.plot(row, color=color, ls=dash)
    right.plot(row, color=color, ls=dash)
    right.text(1015, row[-1], rf"$\beta_T$ = {end}", color=color, va="center")
left.set(title=r"$\bar\alpha_t$", xlabel="t")
right.set(title="the same, logarithmic", xlabel="t", yscale="log", xlim=(0, 1280))
right.set_xticks(range(0, 1001, 200))
show(
    figure,
    alt="alpha bar for four linear schedules. The larger the last beta, the earlier the curve "
    "falls. On the logarithmic scale they end at 0.08, 0.006, 0.00004 and 0.000000001.",
)

# %% [markdown]
# Each doubling roughly *squares* what is left at the end. With a last beta of 0.01, $x_T$ still
# holds 0.6 % of the variance, about 160 times as much as with 0.02.
#
# ## Another shape: quadratic
#
# If the straight line destroys too fast, start more slowly. Draw the straight line between the *roots* of the two ends, and square it:
# $\sqrt{\beta_t}$ runs evenly from $\sqrt{\beta_1}$ to $\sqrt{\beta_T}$. The betas then lie on a parabola.
#
# You meet this **quadratic** schedule under three names: "quad" in the code of the DDPM and DDIM papers,
# "scaled_linear" in diffusers, and "linear", of all things, in the code that Stable Diffusion came from. Stable Diffusion 1, 2 and XL use
# it, from 0.00085 to 0.012.
#
# ### Exercise 1.5: betas on a parabola
#
# *Difficulty 2 of 3, 4 minutes.*
#
# Write `my_quadratic_betas(num_steps, beta_start, beta_end)`, which returns $\beta_1, \dots, \beta_T$ as a tensor of shape (T,), with $T$ = `num_steps`. The first
# is `beta_start`, the last `beta_end` (both are plain Python numbers, so a root is `beta_start**0.5`).


# %%
def my_quadratic_betas(num_steps, beta_start, beta_end):
    # BEGIN SOLUTION lesson01.quadratic_betas
    ...
    # END SOLUTION


# %%
lesson01.quadratic_betas.check(my_quadratic_betas)

# %% [markdown]
# Three schedules side by side: linear, quadratic and, as a preview of lesson 7, the cosine schedule, which is drawn as a curve of
# $\bar\alpha_t$ right away, without asking for betas first.

# %%
# NBVAL_CHECK_OUTPUT
schedules = {
    "linear": linear_schedule(1000),
    "quadratic": quadratic_schedule(1000),
    "cosine": cosine_schedule(1000),
}
print("schedule    half gone at t   alpha_bar_T   signal rate at T")
for name, other in schedules.items():
    half_gone = int((other.alpha_bar < 0.5).nonzero()[0])
    end, rate = float(other.alpha_bar[-1]), float(other.signal_rate[-1])
    print(f"{name:10} {half_gone:15} {end:13.2e} {rate:18.5f}")

# %% tags=["plumbing"]
styles = {"linear": (BLUE, "-"), "quadratic": (ORANGE, "--"), "cosine": (GREEN, "-.")}
figure, (left, right) = panels(2, height=3.1)
for name, other in schedules.items():
    color, dash = styles[name]
    left.plot(range(1, 1001), other.beta, color=color, ls=dash, label=name)
    right.plot(other.alpha_bar, color=color, ls=dash)
left.set(title=r"$\beta_t$", xlabel="t", ylim=(0, 0.03))
left.legend(frameon=False, loc="upper left", labelcolor="linecolor", handlelength=2.5)
right.set(title=r"$\bar\alpha_t$", xlabel="t")
show(
    figure,
    alt="Left: betas on a straight line, on a parabola below it, and those of the cosine "
    "schedule, which shoot up at the end. Right: alpha bar falls first for linear, then for quadratic, "
    "then for cosine, which falls almost evenly.",
)

# %% tags=["opening", "plumbing"]
steps = [0, 100, 200, 300, 400, 500, 600, 800, 1000]
show(
    filmstrip(
        [noised(disc, other, steps, seeded(0)) for other in schedules.values()],
        labels=[f"t = {t}" for t in steps],
        rows=list(schedules),
    ),
    alt="The same disc with the same noise at nine steps under three schedules. At t = 600 it is gone under the "
    "linear one, a hint under the quadratic one and still visible under the cosine one.",
)

# %% [markdown]
# Look down the column $t = 600$: same picture, same noise, same step, three different tasks. So "step 600" means nothing without its
# schedule; the SNR does.
#
# Now try it yourself. Drag $t$ (or press the arrow keys), then:
#
# 1. Stay at $t = 600$ and change the schedule. Watch the SNR in the line below the controls.
# 2. Go back to *linear* and pull $T$ down to 100. How much signal is left at the end, $\bar\alpha_T$? Repair it with the *last β*.
# 3. Double the last β at $T = 1000$. Where does SNR = 1 move to?

# %%
ScheduleExplorer(disc, t=600)

# %% [markdown]
# ## How pure is $x_T$?
#
# "After 1000 steps only pure noise is left" is a sentence that tutorials like. Let us see.
#
# ### Question 1.B: how pure is $x_T$?
#
# *2 minutes.*
#
# How much of $x_0$ is still in $x_{1000}$ of the linear schedule? Give the number that $x_0$ is multiplied by in the formula for $x_t$
# above, as a fraction (not in percent). `schedule` is the linear one with $T = 1000$; you may give an expression.

# %%
# BEGIN SOLUTION
left_over = float(schedule.signal_rate[1000])
# END SOLUTION

# %%
lesson01.left_over.check(left_over)

# %% [markdown]
# A little over half a percent. Does anybody notice? In *one* pixel certainly not: the noise is 157 times as strong. But noise
# averages out, and the picture does not. The next cell takes one digit to $t = 1000$ again and again, each time with fresh noise, and
# shows the mean of all these "pure noises", with the contrast turned up so that the noise always looks equally strong.

# %%
small_digit = glyphs(4, size=28, seed=5).images[2]
signal, noise = float(schedule.signal_rate[1000]), float(schedule.noise_rate[1000])
counts = [1, 100, 10_000, 100_000]
generator = seeded(1)
total, drawn, means = 0, 0, []
for batch in [1, 99, 9_900, *[10_000] * 9]:
    eps = torch.randn(batch, *small_digit.shape, generator=generator)
    total = total + (signal * small_digit + noise * eps).sum(0)
    drawn += batch
    if drawn in counts:
        means.append(total / drawn)

# %% tags=["plumbing"]
alike = [
    float(torch.corrcoef(torch.stack([mean.flatten(), small_digit.flatten()]))[0, 1])
    for mean in means
]
contrasted = [mean * count**0.5 / 4 for mean, count in zip(means, counts, strict=True)]
show(
    filmstrip(
        [torch.stack([*contrasted, small_digit])],
        labels=[*(f"mean of {count:,}" for count in counts), "x_0"],
    ),
    alt="Means of 1, 100, 10,000 and 100,000 copies of x_1000 of the same digit: the first two are noise, the third has "
    "a hint of the digit, in the fourth it is plain. On the right the digit itself.",
)
print("correlation with x_0:", ", ".join(f"{value:.2f}" for value in alike))
assert abs(alike[0]) < 0.12
assert alike[-1] > 0.6

# %% [markdown]
# The digit was there all along, too faint for one look. Who could collect a hundred thousand looks? A **large picture** does: one
# property of it, its brightness, is the mean of all its pixels. So let somebody guess from $x_{1000}$ whether $x_0$ was a white
# picture or a black one, simply by the sign of the mean.


# %%
def guessed_right(schedule, side, count, generator):
    """How often the sign of x_T's mean tells a white picture from a black one, 3 channels."""
    signal, noise = float(schedule.signal_rate[-1]), float(schedule.noise_rate[-1])
    right = 0
    for i in range(count):
        brightness = 1 if i % 2 else -1
        x_T = signal * brightness + noise * torch.randn(3, side, side, generator=generator)
        right += bool(x_T.mean() * brightness > 0)
    return right / count


def expected(schedule, side):
    """The same by theory: the mean of n pixels has standard deviation noise rate / sqrt(n)."""
    z = float(schedule.signal_rate[-1] / schedule.noise_rate[-1]) * (3 * side**2) ** 0.5
    return 0.5 * (1 + math.erf(z / 2**0.5))


print("side   guessed right   by theory")
for side, count in {32: 2000, 64: 1000, 128: 400, 256: 200}.items():
    share, theory = guessed_right(schedule, side, count, seeded(side)), expected(schedule, side)
    error = (theory * (1 - theory) / count) ** 0.5
    print(f"{side:4} {share:8.1%} ± {error:4.1%} {theory:11.1%}   ({count} pictures)")
    assert abs(share - theory) < 4 * error + 1 / count

# %% [markdown]
# Guessing blindly gives 50 %. In a picture of 32 × 32 the leftover helps a little; at 256 × 256 it gives
# the brightness away practically every time. **So $x_T$ is nearly pure noise, and how nearly depends on who is looking.**
#
# Why care? In training the network sees $x_T$ with its faint brightness, and can learn to rely on it. In sampling we give it real noise, whose
# mean is nearly 0, which stands for a picture of medium brightness. Lin et al. (2024) blame this for the medium brightness of
# Stable Diffusion's pictures (versions 1 and 2): asked for a black background, it drew a gray one. That schedule leaves ten times as much as ours:

# %%
# NBVAL_CHECK_OUTPUT
stable_diffusion = quadratic_schedule(1000, beta_start=0.00085, beta_end=0.012)
print(f"signal rate at T, Stable Diffusion's schedule: {stable_diffusion.signal_rate[-1]:.4f}")
print(f"                         the linear schedule: {schedule.signal_rate[-1]:.4f}")
print(f"                         the cosine schedule: {schedules['cosine'].signal_rate[-1]:.5f}")
assert abs(float(stable_diffusion.signal_rate[-1]) - 0.068265) < 1e-5  # Lin et al. 2024, table 1

# %% [markdown]
# ## Fewer steps: what must change with $T$
#
# Suppose you want $T = 512$. It is tempting to change that one number and leave the betas as they are, from 0.0001 to 0.02.
#
# ### Question 1.C: half the steps, the same betas
#
# *2 minutes.*
#
# Somebody calls `linear_schedule(512)`: 512 betas on a straight line with the old ends. What is the signal rate at its last
# step, $t = 512$? You may give an expression.

# %%
# BEGIN SOLUTION
too_short = float(linear_schedule(512).signal_rate[-1])
# END SOLUTION

# %%
lesson01.too_short.check(too_short)

# %% [markdown]
# Half as many spoonfuls of the same size take less juice out of the glass. With half as many steps, **each has to do the work of two**.
#
# The rule of thumb is: multiply the betas by $1000/T$. The exact way is to follow the curve. Think of $\bar\alpha$ as a road from clean
# to noisy, and of the steps as stations. A schedule with $S$ steps has its stations at the places
# $0,\ \tfrac{T}{S},\ \tfrac{2T}{S},\ \dots,\ T$ of the old road. Where such a place lies between two old steps, we interpolate linearly, and we do it with $\log\bar\alpha$, because
# for logarithms a product of shares becomes a sum: going half of a step then means keeping the root of its $\alpha$. From the new $\bar\alpha$ the new betas follow:
#
# $$\beta_i = 1 - \frac{\bar\alpha_i}{\bar\alpha_{i-1}} = 1 - \exp\big(\log\bar\alpha_i - \log\bar\alpha_{i-1}\big).$$
#
# ### Exercise 1.6: the same curve in 512 steps
#
# *Difficulty 3 of 3, 14 minutes.*
#
# Write `my_rescaled(alpha_bar, num_steps)`. In go `alpha_bar` of shape (T + 1,), float64, a schedule with any number of steps $T$, and the number of steps
# that you want, $S$ = `num_steps` (fewer or more than $T$). Return the $S$ betas of the schedule that follows the same curve, shape (S,).
#
# You may want
#
# - `np.interp(where, places, values)`: the values at `where`, interpolated linearly between the `values` at `places` (three
#   one-dimensional tensors or arrays; it returns a NumPy array, which `torch.from_numpy(...)` turns into a tensor),
# - `torch.linspace(first, last, how_many)` and `torch.arange(n)`, which is `[0, 1, ..., n - 1]`,
# - `x.log()`, `x.exp()`, and `x.diff()`, the differences of neighbors, one entry shorter than `x`.


# %%
def my_rescaled(alpha_bar, num_steps):
    # BEGIN SOLUTION lesson01.rescaled
    ...
    # END SOLUTION


# %%
lesson01.rescaled.check(my_rescaled)

# %% [markdown]
# How good is the rule of thumb? Where $T/S$ is a whole number, following the curve is easy: take every $(T/S)$-th entry of
# `alpha_bar`. (`NoiseSchedule` makes a schedule from its $\bar\alpha$.)

# %%
print("steps   end of alpha_bar: same betas | betas x 1000/T | along the curve")
for count in (1000, 500, 250, 100, 50, 25):
    same = float(linear_schedule(count).alpha_bar[-1])
    scaled = float(linear_schedule(count, 1e-4 * 1000 / count, 0.02 * 1000 / count).alpha_bar[-1])
    exact = float(NoiseSchedule(schedule.alpha_bar[:: 1000 // count]).alpha_bar[-1])
    print(f"{count:5} {same:30.1e} {scaled:16.1e} {exact:17.1e}")
    assert abs(exact - 4.04e-5) < 1e-7

try:
    linear_schedule(20, 1e-4 * 50, 0.02 * 50)
except ValueError as error:
    print(f"{20:5} the rule of thumb breaks: {error}")

# %% tags=["plumbing"]
figure, (plot,) = panels(1, width=6.8, height=3.1)
place = torch.linspace(0, 1, 1001)
plot.plot(place, schedule.alpha_bar, color=BLUE, lw=5, alpha=0.35)
twenty = NoiseSchedule(schedule.alpha_bar[::50])
plot.plot(torch.linspace(0, 1, 21), twenty.alpha_bar, "o", color=BLUE, ms=4)
for count, dash in ((512, "--"), (100, "-.")):
    short = linear_schedule(count)
    plot.plot(torch.linspace(0, 1, count + 1), short.alpha_bar, color=ORANGE, ls=dash)
    plot.text(1.02, float(short.alpha_bar[-1]) + 0.03, f"{count} steps, same betas", color=ORANGE)
plot.text(0.02, 0.08, "1000 steps (band),\n20 along the\nsame curve (dots)", color=BLUE, fontsize=9)
plot.set(xlabel="share of the way, t / T", ylabel=r"$\bar\alpha$", xlim=(0, 1.42))
plot.set_xticks([0, 0.25, 0.5, 0.75, 1])
show(
    figure,
    alt="alpha bar over the share of the way. Twenty dots lie exactly on the curve of the "
    "thousand steps. With 512 steps and the same betas the curve ends at 0.006, with 100 steps at 0.36: "
    "far too much is left.",
)

# %% [markdown]
# With 100 steps and unchanged betas more than a third of the picture's variance survives, while 20 steps *along
# the curve* end where the thousand do. The rule of thumb holds roughly down to a few hundred steps (at 100 only half as much is left as should be), drifts away below, and breaks at 20.
#
# ## Then why so many steps?
#
# If 20 steps go the same way, what are a thousand for? For **coming back**. A diffusion model
# walks backward, from $x_t$ to $x_{t-1}$, and ancestral samplers such as DDPM (lesson 6) draw each backward step from a *Gaussian*. Is the true backward
# distribution a Gaussian? Given a noisy $x_t$, what could $x_{t-1}$ have been?
#
# We can calculate that for a picture of one pixel which is either black or white (near $-1$ or near $1$, with a spread of 0.1), by Bayes' rule:
# how common $x_{t-1}$ is, times how well one noising leads from it to $x_t$.
#
# The cell draws it, next to the Gaussian with the same mean and variance, for one step out of 10 and for one out of 1000, along the same curve.
# How different they are is measured by the *total variation distance*: 0 for
# equal curves, 1 for curves that do not overlap.

# %% tags=["plumbing"]
SPREAD = 0.1
z = torch.linspace(-8, 8, 401, dtype=torch.float64)


def common(x, alpha_bar):
    """How common x is after noising down to ``alpha_bar``: two Gaussians, black and white."""
    signal, variance = alpha_bar**0.5, alpha_bar * SPREAD**2 + 1 - alpha_bar
    bumps = [torch.exp(-((x - signal * tone) ** 2) / (2 * variance)) for tone in (-1, 1)]
    return sum(bumps) / 2


def backward(schedule, t, x_t):
    """Places x_{t-1}, their true probabilities and those of the Gaussian, each (len(x_t), 401)."""
    beta = float(schedule.beta[t - 1])
    places = x_t[:, None] / (1 - beta) ** 0.5 + (beta / (1 - beta)) ** 0.5 * z
    true = common(places, float(schedule.alpha_bar[t - 1])) * torch.exp(-(z**2) / 2)
    true = true / true.sum(1, keepdim=True)
    mean = (true * places).sum(1, keepdim=True)
    variance = (true * (places - mean) ** 2).sum(1, keepdim=True)
    gauss = torch.exp(-((places - mean) ** 2) / (2 * variance))
    return places, true, gauss / gauss.sum(1, keepdim=True)


def difference(schedule, t):
    """Total variation distance to the Gaussian at step t, averaged over x_t."""
    x_t = torch.linspace(-3, 3, 31, dtype=torch.float64)
    _, true, gauss = backward(schedule, t, x_t)
    weight = common(x_t, float(schedule.alpha_bar[t]))
    return float(((true - gauss).abs().sum(1) / 2 * weight).sum() / weight.sum())


counts = [5, 10, 20, 50, 100, 200, 500, 1000]
worst = {}
for count in counts:
    walked = NoiseSchedule(schedule.alpha_bar[:: 1000 // count])
    worst[count] = max((difference(walked, t), t) for t in range(1, count + 1))

figure, plots = panels(3, width=9, height=3)
for plot, count in zip(plots, (10, 1000), strict=False):
    walked, (_, t) = NoiseSchedule(schedule.alpha_bar[:: 1000 // count]), worst[count]
    places, true, gauss = (part[0] for part in backward(walked, t, torch.tensor([0.1]).double()))
    plot.fill_between(places, true / true.max(), color=BLUE, alpha=0.3, lw=0)
    plot.plot(places, gauss / true.max(), color=ORANGE, ls="--")
    reach = 4.2 * float((gauss * (places - (gauss * places).sum()) ** 2).sum()) ** 0.5
    middle = float((gauss * places).sum())
    plot.set(
        title=f"{count} steps: back from t = {t}",
        xlabel="$x_{t-1}$, given $x_t = 0.1$",
        yticks=[],
        xlim=(middle - reach, middle + reach),
    )
plots[0].text(0.03, 0.95, "true", color=BLUE, transform=plots[0].transAxes, va="top")
plots[0].text(0.03, 0.85, "Gaussian", color=ORANGE, transform=plots[0].transAxes, va="top")
plots[2].plot(counts, [worst[count][0] for count in counts], "o-", color=GREEN, ms=4)
plots[2].set(title="difference, worst step", xlabel="number of steps", xscale="log", yscale="log")
show(
    figure,
    alt="Left: with 10 steps the true backward distribution has two humps, which the Gaussian with one hump "
    "misses. Middle: with 1000 steps the two coincide. Right: the difference falls from 0.45 at 5 "
    "steps to 0.0001 at 1000, nearly a straight line on logarithmic scales.",
)

for count in (10, 100, 1000):
    print(f"{count:5} steps: worst difference {worst[count][0]:.5f}, at t = {worst[count][1]}")
assert worst[10][0] > 0.1
assert worst[1000][0] < 2e-4

# %% [markdown]
# With 10 steps the way back leads to black *or* to white, two humps, and no Gaussian has two humps. (Its best try puts much of
# its weight on a gray that hardly ever occurs.) With 1000 steps the Gaussian fits even at the worst step: mind the scale of the axis, a small step sees only a
# short piece of the road, and a short piece looks straight.
#
# ### Question 1.D: why so many steps?
#
# *1 minute.*
#
# Why do people take many small steps, and not 10 with larger betas?
#
# - a) Ten steps cannot reach pure noise.
# - b) The way back is nearly Gaussian only for small steps.
# - c) With large betas the many steps could no longer be written as one big step.
# - d) The network would need another number of inputs.

# %%
# BEGIN SOLUTION
why_thousand = "b"
# END SOLUTION

# %%
lesson01.why_thousand.check(why_thousand)

# %% [markdown]
# Many, then; but why 1000? Nothing singles that number out. Ho et al. chose it to match the number of network passes
# in the work they compared with, and it stuck. Lesson 6 shows a way back that draws no random numbers and gets by
# with 50 stations on the same road.
#
# ## Claims, measured
#
# <!-- claims -->
#
# <details><summary><b>Key terms</b></summary>
#
# | what people say | what it means |
# |---|---|
# | noise schedule | how much noise there is at each step; here, the tensor `alpha_bar` |
# | beta_t | the variance that step $t$ adds; the share that is lost at this step |
# | alpha_t | $1-\beta_t$, what step $t$ alone keeps |
# | alpha_bar_t (alphas_cumprod) | what is left of the signal's variance after all $t$ steps |
# | signal rate, noise rate | $\sqrt{\bar\alpha_t}$ and $\sqrt{1-\bar\alpha_t}$, what $x_0$ and $\epsilon$ are multiplied by |
# | SNR, log-SNR | $\bar\alpha_t/(1-\bar\alpha_t)$ and its logarithm |
# | variance preserving | the squared rates add up to 1, so variance 1 stays 1 |
# | linear, quadratic (scaled linear) | the betas, or their roots, lie on a straight line |
# | terminal SNR | the SNR at $t = T$; "zero terminal SNR" means that $x_T$ is pure noise |
#
# </details>
#
# <details><summary><b>Further reading</b></summary>
#
# - Ho, Jain, Abbeel: *Denoising Diffusion Probabilistic Models*, 2020, arXiv 2006.11239. Section 4 has the linear schedule.
# - Nichol, Dhariwal: *Improved Denoising Diffusion Probabilistic Models*, 2021, arXiv 2102.09672. The cosine schedule, and why.
# - Kingma, Salimans, Poole, Ho: *Variational Diffusion Models*, 2021, arXiv 2107.00630. The schedule seen as an SNR.
# - Chen: *On the Importance of Noise Scheduling for Diffusion Models*, 2023, arXiv 2301.10972. Larger pictures need noisier schedules.
# - Lin, Liu, Li, Yang: *Common Diffusion Noise Schedules and Sample Steps are Flawed*, 2024, arXiv 2305.08891. What the leftover in $x_T$ does.
# - Xiao, Kreis, Vahdat: *Tackling the Generative Learning Trilemma with Denoising Diffusion GANs*, 2022, arXiv 2112.07804. Large steps back with two humps and more.
#
# </details>
#
# ## What you can do now
#
# - Build a schedule, read its $\bar\alpha_t$, and say from the SNR how hard a step is.
# - Say how pure $x_T$ is, and who will notice.
# - Change the number of steps without changing the schedule, and say what many steps are good for.
#
# <!-- navigation -->
