# %% [markdown]
# # 6 · DDPM against DDIM
#
# The network of lesson 5 says which noise is in a picture. How do we get from there to a picture out of
# nothing? There are two classic ways to walk back: **DDPM**, a thousand small steps with a roll of the
# dice at each, and **DDIM**, which may take long strides and needs no dice.
#
# **After this lesson you will be able to**
#
# - derive ancestral sampling from the posterior of lesson 2 and write it by hand,
# - write DDIM with its dial $\eta$, and say when $\eta = 1$ is DDPM and when it is not,
# - say why too few steps go wrong *even with a perfect denoiser*,
# - compare samplers fairly: quality against steps and seconds, with a floor and several seeds,
# - walk from one picture to another through noise, and find the noise behind a given picture.
#
# **You need** lessons 1 to 3 (rates, the posterior, oracles) and know from lessons 4 and 5 that a
# network can be trained to say `eps_hat`. **Time:** <!-- minutes --> minutes.

# %%
import math
import time

import torch

import tutorial_lib
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.checks import lesson06
from tutorial_lib.explorers import TrajectoryExplorer
from tutorial_lib.forward import posterior, predict_x0
from tutorial_lib.hardware import keep_freed_memory, pick_device
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.plots import COLOURS, filmstrip, panels, show
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced, last, respace
from tutorial_lib.schedules import linear_schedule

keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: up to 1.6 times faster
torch.set_num_threads(1)  # small batches: sharing the work costs more than it saves


def seeded(seed):
    """A source of random numbers that starts the same way every time."""
    return torch.Generator().manual_seed(seed)


print("tutorial_lib", tutorial_lib.__version__, "| torch", torch.__version__)

# %% [markdown]
# ## Two villages in the fog
#
# We begin in a world so small that everything in it can be known exactly. The data are single numbers.
# One third of them lie in a village around $-1$, two thirds in a village around $+1$, and each village
# is narrow: standard deviation 0.1. Nobody lives in between.
#
# Sampling is a walk down into that valley through fog. At the top, $t = 1000$, the fog is so thick that
# every place looks alike. At each halt a guide, the denoiser, tells us where the houses are *on
# average*, as seen from here. Low down she points at a door. High up, where either village is possible,
# she points **at the empty field between them**. Keep that in mind: the whole lesson follows from it.
#
# The guide here is the oracle of lesson 3, which makes no error at all. What goes wrong with her is
# the walk's fault.

# %%
schedule = linear_schedule()  # T = 1000
T = schedule.num_steps
MEANS = torch.tensor([[-1.0], [1.0]])  # (2, 1): two villages on a line
STD = 0.1
guide = GaussianMixtureOracle(
    schedule, MEANS, variances=torch.full((2,), STD**2), weights=torch.tensor([1.0, 2.0])
)


def seen_from(x, t):
    """x0_hat: where the guide sees the houses, on average, from the places x at step t."""
    places = torch.as_tensor(x).reshape(-1, 1)
    steps = torch.full((len(places),), t)
    return predict_x0(schedule, places, steps, guide(places, steps)).flatten()


for t in (1000, 500, 100):
    at = ", ".join(f"{x0_hat:+.2f}" for x0_hat in seen_from([-0.5, 0.0, 0.5], t))
    print(f"t = {t:4d}: from -0.5, 0 and 0.5 the guide points at {at}")

# %% [markdown]
# ## Ancestral sampling
#
# Lesson 2 ended with Bayes' rule: had we known the clean $x_0$, the state one noising younger would be
# Gaussian,
#
# $$q(x_{t-1} \mid x_t, x_0) = \mathcal N\!\left(\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0
# + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t,\;\; \tilde\beta_t\right),
# \qquad \tilde\beta_t = \beta_t\,\frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t},$$
#
# where $\tilde\beta_t$ is the *posterior variance*, `schedule.posterior_variance[t - 1]`. We do not know
# $x_0$. **Ancestral sampling puts the guess `x0_hat` in its place**, draws $x_{t-1}$ from that Gaussian,
# and asks again from there. ("Ancestral": each state is drawn given its parent in a chain,
# $x_T$ first, then $x_{T-1}$ given $x_T$, and so on.)
#
# Insert $\hat x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\hat\epsilon)/\sqrt{\bar\alpha_t}$ into the mean, and it
# becomes short:
#
# $$x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\left(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\hat\epsilon\right)
# + \sigma_t z, \qquad z \sim \mathcal N(0, I), \quad z = 0 \text{ at } t = 1.$$
#
# This is algorithm 2 of Ho et al. (2020). Read it aloud: take out *one noising's worth* of noise, grow the
# image back by the root that this noising shrank it with, add a little fresh noise.
#
# <details><summary>The algebra, line by line</summary>
#
# The factor of $\hat\epsilon$ comes from $\hat x_0$ alone:
#
# $$-\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\cdot\frac{\sqrt{1-\bar\alpha_t}}{\sqrt{\bar\alpha_t}}
# = -\frac{\beta_t}{\sqrt{\alpha_t}\sqrt{1-\bar\alpha_t}},\qquad\text{since }\bar\alpha_t=\alpha_t\bar\alpha_{t-1}.$$
#
# The factor of $x_t$ has two parts,
#
# $$\frac{\beta_t}{\sqrt{\alpha_t}\,(1-\bar\alpha_t)} + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}
# = \frac{\beta_t + \alpha_t - \bar\alpha_t}{\sqrt{\alpha_t}\,(1-\bar\alpha_t)} = \frac{1}{\sqrt{\alpha_t}},
# \qquad\text{since }\beta_t + \alpha_t = 1.$$
#
# </details>
#
# **Why no noise at the last step?** The step from $t = 1$ leads to clean data. Noise added there would
# never be taken out again: you would see it as grain in the picture.
#
# **Which $\sigma_t^2$?** Ho et al. tried two: $\sigma_t^2 = \tilde\beta_t$ and $\sigma_t^2 = \beta_t$. Both are
# right about something, as we will see. So the step you write takes it as an argument.

# %% [markdown]
# ### Exercise 6.1: one ancestral step
#
# *Difficulty 2 of 3, 8 minutes.*
#
# Write `ddpm_step(schedule, x_t, t, eps_hat, z, sigma_squared)`, the step from `t` to `t - 1`:
#
# - `x_t`, `eps_hat` and `z` are tensors of one shape, (B, ...); `z` is standard normal noise,
# - `t` is a Python int in 1..T, the same for the whole batch,
# - `sigma_squared` is the variance of the noise to add, a tensor that holds one number, shape (),
# - it returns $x_{t-1}$, a tensor of the shape of `x_t`. At `t` = 1 it adds no noise, whatever
#   `sigma_squared` is.
#
# Remember from lesson 1: `schedule.alpha` and `schedule.beta` have T entries, for t = 1..T, so step t is
# entry `t - 1`. `schedule.noise_rate`, $\sqrt{1-\bar\alpha_t}$, begins at t = 0, so step t is entry `t`.


# %%
def ddpm_step(schedule, x_t, t, eps_hat, z, sigma_squared):
    # BEGIN SOLUTION lesson06.ddpm_step
    ...
    # END SOLUTION


# %%
lesson06.ddpm_step.check(ddpm_step)

# %% [markdown]
# What it gives: a thousand of these steps are a sampler. The library's, `samplers.ddpm`, is a
# generator: it yields every halt of the walk, and `last` runs it to its end.

# %%
x_T = torch.randn(4000, 1, generator=seeded(0))
arrived = last(ddpm(guide, schedule, x_T, generator=seeded(1)))
print(f"living in the right village: {(arrived > 0).float().mean():.3f} (2/3 would be exact)")
assert abs(float((arrived > 0).float().mean()) - 2 / 3) < 0.03

# the posterior of lesson 2, with x0_hat for x_0, is the same Gaussian
x_t, t = x_T[:5], torch.full((5,), 700)
eps_hat = guide(x_t, t)
mean, variance = posterior(schedule, predict_x0(schedule, x_t, t, eps_hat), x_t, t)
short = (x_t - schedule.beta[699] / schedule.noise_rate[700] * eps_hat) / schedule.alpha[699].sqrt()
print(f"short form against posterior mean: max difference {(mean - short).abs().max():.0e}")
assert torch.allclose(mean, short.float(), atol=1e-5)

# %% [markdown]
# ## Beta or the posterior variance?
#
# Both are exact, for different data. What $x_{t-1}$ does not know given $x_t$ has two sources: the
# Gaussian above, of variance $\tilde\beta_t$, and our not knowing $x_0$. If the data is **one single
# point**, $x_0$ is known and $\tilde\beta_t$ is all there is. If the data is **itself standard normal**, the
# two sources add up to exactly $\beta_t$. Real data lies in between, so the two choices are a lower and an
# upper limit.
#
# <details><summary>Why exactly beta for standard normal data</summary>
#
# For $x_0 \sim \mathcal N(0, 1)$ every $x_t$ is standard normal too. The two have the covariance
# $\mathbb E[x_0 x_t] = \sqrt{\bar\alpha_t}$, and of two standard normal numbers with covariance $\rho$ one leaves the other the
# variance $1 - \rho^2$ (knowing $x_t$, the best guess is $\rho x_t$, and $\mathbb E(x_0 - \rho x_t)^2 = 1 - 2\rho^2 + \rho^2$). So
# $\mathrm{Var}(x_0 \mid x_t) = 1 - \bar\alpha_t$.
# The posterior mean weighs $x_0$ with $\sqrt{\bar\alpha_{t-1}}\,\beta_t/(1-\bar\alpha_t)$, so not knowing it adds
#
# $$\frac{\bar\alpha_{t-1}\beta_t^2}{(1-\bar\alpha_t)^2}\,(1-\bar\alpha_t) = \frac{\bar\alpha_{t-1}\beta_t^2}{1-\bar\alpha_t},
# \qquad \tilde\beta_t + \frac{\bar\alpha_{t-1}\beta_t^2}{1-\bar\alpha_t}
# = \beta_t\,\frac{1 - \bar\alpha_{t-1} + \bar\alpha_{t-1}\beta_t}{1-\bar\alpha_t}
# = \beta_t\,\frac{1-\bar\alpha_{t-1}\alpha_t}{1-\bar\alpha_t} = \beta_t.$$
#
# </details>
#
# How far apart are the limits? Their ratio is $(1-\bar\alpha_{t-1})/(1-\bar\alpha_t)$: close to 1 where one step
# changes little. With a thousand steps that is nearly everywhere. With few steps it is not.
#
# To take few steps, we **shorten the schedule**: of the 1000 noisings keep, say, every hundredth state.
# What is left is a chain of 10 large noisings, with an alpha_bar of its own, and `samplers.respace` gives
# us that schedule and the same guide seen through it. First we need to say which states to keep.

# %% [markdown]
# ### Exercise 6.2: ten stops on the way down
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `timesteps(num_steps, count)`: the places that a walk of `count` equal strides visits on its way from
# `num_steps` down to 0. It returns a list (or tensor) of whole numbers that **starts at `num_steps`, ends
# at 0**, and falls by the same stride each time. You may rely on `count` dividing `num_steps`.
#
# For example, `timesteps(1000, 4)` is `[1000, 750, 500, 250, 0]`.


# %%
def timesteps(num_steps, count):
    # BEGIN SOLUTION lesson06.timesteps
    ...
    # END SOLUTION


# %%
lesson06.timesteps.check(timesteps)

# %% [markdown]
# The library's is called `evenly_spaced`; it also rounds where `count` does not divide T. Here is what it
# gives us: the ratio of the two variances, for many steps and for few.

# %%
for count in (1000, 100, 10):
    _, shorter = respace(guide, schedule, evenly_spaced(T, count))
    ratio = shorter.posterior_variance / shorter.beta
    print(
        f"{count:4d} steps: posterior variance / beta is {ratio.median():.3f} at the middle step, "
        f"above 0.95 at {(ratio > 0.95).double().mean():.0%} of the steps"
    )

# %% [markdown]
# So "it does not matter" can only be true of many steps. We measure it below.
#
# ## Too few steps, with a perfect denoiser
#
# One often hears: with few steps ancestral sampling breaks, *because the reverse step is no longer
# Gaussian*. Let us look at that step. In our world Bayes' rule can be worked out on a fine grid: for a
# walker at $x_t$ the true density of a place $x_s$ is
#
# $$q(x_s \mid x_t) \;\propto\; q(x_s)\; q(x_t \mid x_s), \qquad
# q(x_t \mid x_s) = \mathcal N\!\left(\sqrt{\bar\alpha_t/\bar\alpha_s}\;x_s,\; 1 - \bar\alpha_t/\bar\alpha_s\right).$$
#
# (The steps from $s$ to $t$ fold into one jump as in lesson 2: its $\bar\alpha$ is the product of the alphas
# from $s + 1$ to $t$, and that is $\bar\alpha_t/\bar\alpha_s$. And $q(x_s)$ is the density of all walkers at step $s$:
# two villages, shrunk and blurred.) The figure shows it for a walker at $t = 600$, $x_t = -0.1$, beside the Gaussian that ancestral sampling
# draws from.


# %%
def true_step(x_t, t, s, grid):
    """The exact density of x_s given x_t, on a grid of places."""
    ratio = schedule.alpha_bar[t] / schedule.alpha_bar[s]
    log_prior = guide.log_density(grid[:, None], torch.full((len(grid),), s))
    log_density = log_prior - (x_t - ratio.sqrt() * grid) ** 2 / (2 * (1 - ratio))
    density = (log_density - log_density.max()).exp()
    return density / (density.sum() * (grid[1] - grid[0]))


def gaussian_step(x_t, t, s, grid):
    """The Gaussian that ancestral sampling draws x_s from (posterior variance)."""
    model, pair = respace(guide, schedule, [t, s, 0])  # a chain in which s is step 1 and t step 2
    place, step = torch.tensor([[x_t]], dtype=torch.float64), torch.tensor([2])
    x0_hat = predict_x0(pair, place, step, model(place, step))
    mean, variance = posterior(pair, x0_hat, place, step)
    return (-((grid - mean) ** 2) / (2 * variance)).exp().flatten() / (
        2 * math.pi * variance
    ).sqrt()


grid = torch.linspace(-2, 2, 2001, dtype=torch.float64)
figure, axes = panels(3, width=9, height=2.8)
gaps = []
for axis, s in zip(axes, (590, 400, 100), strict=True):
    true, gaussian = true_step(-0.1, 600, s, grid), gaussian_step(-0.1, 600, s, grid).flatten()
    gaps.append(float((true - gaussian).abs().sum() * (grid[1] - grid[0])) / 2)
    axis.fill_between(grid, true, color=COLOURS[0], alpha=0.35, label="where $x_s$ really is")
    axis.plot(grid, gaussian, color=COLOURS[1], linewidth=2, label="the Gaussian we draw from")
    axis.set(title=f"from t = 600 to {s}", xlabel="$x_s$", yticks=[])
    middle = float((true * grid).sum() / true.sum())
    axis.set_xlim(*((middle - 0.6, middle + 0.6) if s == 590 else (-1.8, 1.8)))
axes[0].legend(loc="upper left", fontsize=8, frameon=False)
axes[0].set_ylim(0, float(axes[0].get_ylim()[1]) * 1.35)
print("probability in a wrong place:", ", ".join(f"{gap:.0%}" for gap in gaps))
assert gaps[0] < 0.01 < gaps[1] < 0.1 < 0.5 < gaps[2]
show(
    figure,
    alt="Three panels. For a stride of 10 steps the true density and the Gaussian coincide. For a "
    "stride of 200 the true density is wider and lopsided. For a stride of 500 it has two separate "
    "humps and the Gaussian stands in the gap between them.",
)

# %% [markdown]
# Look at the right panel: after a long stride the walker must be in one of two places, and the Gaussian
# puts him **into the field between**, where nobody lives. Its mean is exactly right: halfway, where the
# guide points. It is the *shape* that cannot be right. Over a short stride, on the left, the true density
# is a Gaussian for all we can see; that is what the thousand small steps are for.

# %% [markdown]
# ### Question 6.A: a perfect denoiser and five steps
#
# *2 minutes.*
#
# Five ancestral steps with the exact oracle give bad samples. Where does the error come from?
#
# - a) The denoiser's small errors pile up over the steps.
# - b) Rounding errors in the oracle.
# - c) Over a long stride the true step is no Gaussian, and we draw from one.
# - d) $x_T$ still holds a trace of $x_0$ that we ignore.

# %%
# BEGIN SOLUTION
where_is_the_error = "c"
# STUB
# where_is_the_error = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson06.long_strides.check(where_is_the_error)

# %% [markdown]
# ## DDIM: keep the noise you have
#
# Song, Meng and Ermon (2021) noticed something about training: the loss of lesson 3 uses only the
# **jump**, $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$, one step at a time. It never looks at how
# $x_t$ and $x_{t-1}$ hang together. So a trained network fits *every* process that has the right jump, and we
# may choose one that is easy to walk back.
#
# Suppose we know $x_0$ and the noise $\epsilon$ in $x_t$, and want $x_s$ for an earlier step $s < t$. It must be
# $\sqrt{\bar\alpha_s}\,x_0$ plus Gaussian noise of variance $1 - \bar\alpha_s$. That noise may be the **old** noise
# $\epsilon$, or **fresh** noise $z$, or some of both: independent variances add up, so for any $\sigma$
#
# $$x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s-\sigma^2}\;\hat\epsilon + \sigma z$$
#
# has the right amount. With $\hat x_0$ and $\hat\epsilon$ from the model this is the **DDIM step**. The dial for
# $\sigma$ is called $\eta$ (eta), from 0 to 1:
#
# $$\sigma = \eta\,\sqrt{\frac{1-\bar\alpha_s}{1-\bar\alpha_t}\left(1-\frac{\bar\alpha_t}{\bar\alpha_s}\right)}.$$
#
# At $\eta = 0$ there are no dice at all: where you end is decided by where you start. And nothing in the
# formula asks $s$ to be $t - 1$. The last step, to $s = 0$, gives $\hat x_0$ itself, as both noises have
# weight 0 there.

# %% [markdown]
# ### Exercise 6.3: one DDIM step
#
# *Difficulty 2 of 3, 10 minutes.*
#
# Write `ddim_step(schedule, x_t, t, s, eps_hat, eta, z)`, the step from `t` to `s`:
#
# - `x_t`, `eps_hat` and `z` are tensors of one shape, (B, ...); `z` is standard normal noise,
# - `t` and `s` are Python ints with T >= `t` > `s` >= 0,
# - `eta` is a number in 0..1,
# - it returns $x_s$, a tensor of the shape of `x_t`.
#
# `schedule.alpha_bar` has T + 1 entries: step t is entry `t`. First solve the jump for $\hat x_0$.


# %%
def ddim_step(schedule, x_t, t, s, eps_hat, eta, z):
    # BEGIN SOLUTION lesson06.ddim_step
    ...
    # END SOLUTION


# %%
lesson06.ddim_step.check(ddim_step)

# %% [markdown]
# What it gives: two ways down from the same starting points. The grey shade is the density of all data at
# each step, the fog closing in from right to left.

# %%
start = torch.linspace(-1.6, 1.6, 9)[:, None]  # nine places at t = 1000
every_step = list(range(T, -1, -1))
walks = {
    "DDPM, 1000 steps": ddpm(guide, schedule, start, generator=seeded(5)),
    "DDIM, 1000 steps": ddim(guide, schedule, start, every_step),
    "DDIM, 20 steps": ddim(guide, schedule, start, evenly_spaced(T, 20)),
}
places = torch.linspace(-3.5, 3.5, 261)
ages = torch.arange(10, T + 1, 10)
fog = torch.stack(
    [guide.log_density(places[:, None], torch.full((261,), int(t))).exp() for t in ages], 1
)
FOLLOWED = 5  # the one drawn in orange
ends = {}
figure, axes = panels(3, width=9, height=3.2, share_y=True)
for axis, (name, walk) in zip(axes, walks.items(), strict=True):
    path = [(T, start)] + [(step.t, step.x_t) for step in walk]
    ends[name] = path[-1][1]
    axis.pcolormesh(ages, places, fog.sqrt(), cmap="Greys", vmin=0, vmax=1.6, rasterized=True)
    lines = torch.cat([x for _, x in path], 1).T  # (halts, 9)
    marker = "." if len(path) < 50 else None
    halts = [t for t, _ in path]
    axis.plot(halts, lines, color=COLOURS[0], linewidth=0.7, alpha=0.7, marker=marker, ms=4)
    axis.plot(halts, lines[:, FOLLOWED], color=COLOURS[1], linewidth=1.8, marker=marker, ms=5)
    axis.set(title=name, xlabel="t", xlim=(T, 0))
axes[0].set_ylabel("$x_t$")
show(
    figure,
    alt="Nine walks from t = 1000 on the left to t = 0 on the right, in three panels; one of them is "
    "drawn in orange. DDPM: jagged paths that cross each other. DDIM with 1000 steps: smooth paths that never cross and part "
    "between the villages. DDIM with 20 steps: nearly the same paths, as chains of straight lines.",
)
closeness = (ends["DDIM, 1000 steps"] - ends["DDIM, 20 steps"]).abs().median()
print(f"DDIM in 1000 and in 20 steps end {closeness:.2f} apart (median of nine)")
assert closeness < 0.15

# %% [markdown]
# Follow the orange walker, who starts at the same place in all three panels. In the middle, with $\eta = 0$, the paths
# are smooth, never cross, and each starting point has one end. On the left the dice roll the same starting points
# about, and they end anywhere.
#
# Smooth paths are why long strides work: on a straight road it does not matter how often you look at the
# map. On the right, 20 strides follow nearly the same paths.
#
# ## Is eta = 1 the same as DDPM?
#
# "With $\eta = 1$ DDIM is DDPM" is said everywhere. For $s = t - 1$ the formula for $\sigma^2$ at $\eta = 1$ *is* the
# posterior variance $\tilde\beta_t$: compare it with the formula under *Ancestral sampling*.
#
# <details><summary>And the mean is the posterior mean</summary>
#
# With $\eta = 1$, what is left for the old noise is
#
# $$1-\bar\alpha_s-\sigma^2 = (1-\bar\alpha_s)\left[1 - \frac{1-\bar\alpha_t/\bar\alpha_s}{1-\bar\alpha_t}\right]
# = \frac{\bar\alpha_t}{\bar\alpha_s}\,\frac{(1-\bar\alpha_s)^2}{1-\bar\alpha_t}.$$
#
# Its root times $\hat\epsilon = (x_t - \sqrt{\bar\alpha_t}\,\hat x_0)/\sqrt{1-\bar\alpha_t}$ gives $x_t$ the factor
# $\sqrt{\bar\alpha_t/\bar\alpha_s}\,(1-\bar\alpha_s)/(1-\bar\alpha_t)$: for $s = t-1$ that is
# $\sqrt{\alpha_t}(1-\bar\alpha_{t-1})/(1-\bar\alpha_t)$, as in the posterior. The factor of $\hat x_0$ follows the same way.
#
# </details>
#
# Now noise for noise: the same $x_T$ and the same stream of random numbers through both, in float64.

# %%
x_T = torch.randn(4000, 1, generator=seeded(0), dtype=torch.float64)
few = evenly_spaced(T, 50)
short_guide, short_schedule = respace(guide, schedule, few)
ends = {
    "ddim 1000": last(ddim(guide, schedule, x_T, every_step, eta=1.0, generator=seeded(1))),
    "ddpm posterior": last(ddpm(guide, schedule, x_T, generator=seeded(1))),
    "ddpm beta": last(ddpm(guide, schedule, x_T, variance="beta", generator=seeded(1))),
    "ddim 50": last(ddim(guide, schedule, x_T, few, eta=1.0, generator=seeded(1))),
    "ddpm shortened": last(ddpm(short_guide, short_schedule, x_T, generator=seeded(1))),
}


def spread(x):
    """How wide the villages are in a sample, where 1 is right: rms distance from their centers."""
    return float((x.abs() - 1).square().mean().sqrt()) / STD


def gaps_between(one, other):
    """How far apart the 4000 walkers end, largest and median."""
    gap = (ends[one] - ends[other]).abs()
    return float(gap.max()), float(gap.median())


same = gaps_between("ddim 1000", "ddpm posterior")
same_short = gaps_between("ddim 50", "ddpm shortened")
not_beta = gaps_between("ddim 1000", "ddpm beta")
for name, (largest, median) in (
    ("eta = 1, 1000 steps, and DDPM, posterior variance:", same),
    ("eta = 1, 50 steps, and DDPM, shortened schedule:", same_short),
    ("eta = 1, 1000 steps, and DDPM, beta:", not_beta),
):
    print(f"{name:50s} largest gap {largest:.0e}, median {median:.0e}")
widths = spread(ends["ddim 50"]), spread(ends["ddpm posterior"])
print(f"width of the villages (1 is right): {widths[0]:.2f} in 50 steps, {widths[1]:.2f} in 1000")
assert same[0] < 1e-9
assert same_short[0] < 1e-9
assert not_beta[1] > 1e-3
assert widths[0] < 0.8 < 0.92 < widths[1]

# %% [markdown]
# With every step and the posterior variance it is DDPM, to the last digits of float64. With
# $\sigma^2 = \beta$ it is not: the same dice lead elsewhere, and now and then into the other village. And with skipped steps it is DDPM *of the shorter chain*, which is another
# sampler than DDPM in 1000 steps: here it makes the villages about 30 % too narrow.

# %% [markdown]
# ### Question 6.B: fifty steps with eta = 1
#
# *2 minutes.*
#
# You run DDIM with $\eta = 1$ over 50 of the 1000 steps. What is it?
#
# - a) Exactly DDPM with its 1000 steps, 20 times faster.
# - b) Ancestral sampling, with posterior variance, of a chain of 50 large noisings.
# - c) DDPM with $\sigma^2 = \beta$.
# - d) A walk without dice.

# %%
# BEGIN SOLUTION
fifty_with_eta_one = "b"
# STUB
# fifty_with_eta_one = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson06.eta_one.check(fifty_with_eta_one)

# %% [markdown]
# ## Steps against quality
#
# Now the comparison. To say how far samples are from true data we need a distance, and to read it we need
# its **floor**: the distance between two sets of *true* data, which is not zero, as both are random draws.
# Nothing can be told apart below the floor. (Lesson 7 is about such distances. Here one line is enough: in
# one dimension, sort both sets and take the mean distance between partners, the *Wasserstein distance*.)
#
# A second gauge looks at details: the width of the villages, where 1 is right. A third counts the **lost**:
# walkers who end more than four standard deviations from both villages.
#
# Four seeds, 4000 walkers each, new noise and new true data for each seed.

# %%
SEEDS, WALKERS = range(4), 4000
COUNTS = (5, 10, 20, 50, 100, 1000)


def distance(x, y):
    """Wasserstein distance between two samples of the same size, (N, 1) each."""
    return float((x.flatten().sort().values - y.flatten().sort().values).abs().mean())


def lost(x):
    return float(((x.abs() - 1).abs() > 4 * STD).double().mean())


def sampled(name, x_T, count, generator):
    steps = evenly_spaced(T, count)
    if name == "DDIM":
        return last(ddim(guide, schedule, x_T, steps))
    variance = "posterior" if "posterior" in name else "beta"
    shorter = respace(guide, schedule, steps)
    return last(ddpm(*shorter, x_T, variance=variance, generator=generator))


truth = [guide.sample(WALKERS, seeded(100 + seed)).float() for seed in SEEDS]
others = [guide.sample(WALKERS, seeded(200 + seed)).float() for seed in SEEDS]
floor = [distance(x, y) for x, y in zip(truth, others, strict=True)]
x_T = torch.cat([torch.randn(WALKERS, 1, generator=seeded(seed)) for seed in SEEDS])

NAMES = ("DDIM", "DDPM, posterior", "DDPM, beta")
results = {name: {} for name in NAMES}
for name in NAMES:
    for count in COUNTS:
        groups = sampled(name, x_T, count, seeded(300)).split(WALKERS)
        results[name][count] = (
            [distance(x, y) for x, y in zip(groups, truth, strict=True)],
            [spread(x) for x in groups],
            [lost(x) for x in groups],
        )


def mean(values):
    return sum(values) / len(values)


print(f"true data: distance {mean(floor):.3f} ({min(floor):.3f} to {max(floor):.3f}), ", end="")
print(
    f"width {mean([spread(x) for x in others]):.2f}, lost {mean([lost(x) for x in others]):.2%}\n"
)
print("steps " + "".join(f"{name:^34}" for name in NAMES))
print("      " + "  distance (range)     width   lost " * len(NAMES))
for count in COUNTS:
    row = f"{count:5d} "
    for name in NAMES:
        far, wide, gone = results[name][count]
        row += f"  {mean(far):.3f} ({min(far):.3f}-{max(far):.3f})  "
        row += f"{mean(wide):5.2f} {mean(gone):7.2%} "
    print(row)

# %%
figure, (left, right) = panels(2, width=9, height=3.6)
left.axhspan(min(floor), max(floor), color="#888888", alpha=0.3)
left.text(5, min(floor) * 1.1, "true data against true data", fontsize=8)
right.axhspan(0.98, 1.02, color="#888888", alpha=0.3)
for axis, which, title in (
    (left, 0, "distance from true data (lower is better)"),
    (right, 1, "width of the villages (1 is right)"),
):
    for k, name in enumerate(NAMES):
        values = torch.tensor([results[name][count][which] for count in COUNTS])  # (counts, seeds)
        middle = values.mean(1)
        reach = torch.stack([middle - values.amin(1), values.amax(1) - middle])
        beside = [count * (0.93, 1, 1.07)[k] for count in COUNTS]  # so that no bar hides another
        look = {"color": COLOURS[k], "ls": ("-", "--", "-.")[k], "marker": "os^"[k], "ms": 4}
        axis.errorbar(beside, middle, reach, label=name, elinewidth=1, **look)
    axis.set(title=title, xlabel="steps", xscale="log")
    axis.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axis.minorticks_off()
left.set_yscale("log")
left.legend(frameon=False, fontsize=9)
right.set_ylim(0.5, 2)
show(
    figure,
    alt="Means of four seeds, bars from the lowest to the highest. Left: distance against number of "
    "steps, falling for all three samplers from 0.2 at 5 steps "
    "to the band of the floor at 50 to 100 steps. Right: width of the villages. All are too wide "
    "below 20 steps; then DDPM with the posterior variance is too narrow, DDIM a little less so, "
    "DDPM with beta slightly too wide, and all three approach 1 at 1000 steps.",
)

# %% [markdown]
# Look at the left first (a point is the mean of the four seeds, its bar reaches from the lowest to the highest). With five steps all three are bad, **with a perfect guide**: more than a fifth of
# the walkers are lost in the field, where none belong. From 100 steps on all three lie in the floor's band,
# and this distance cannot tell them apart any more. DDIM draws from no Gaussian, and still fails in five
# steps: it goes straight where the path bends.
#
# On the right is a detail that the distance hardly sees. From 20 to 100 steps ancestral sampling with the posterior
# variance makes the villages too narrow, by up to a third, and with beta they come out nearly right. At 1000 steps
# the two differ by a few hundredths: *that* is how far "it does not matter" is true.

# %%
post, beta = results["DDPM, posterior"], results["DDPM, beta"]
# few steps: the choice of sigma^2 matters; 1000 steps: it hardly does
gap = {count: mean(beta[count][1]) - mean(post[count][1]) for count in COUNTS}
print("difference of the widths, beta less posterior:", {k: round(v, 2) for k, v in gap.items()})
assert gap[50] > 0.25
assert gap[1000] < 0.08
# five steps with a perfect denoiser: many are lost, and none with 1000
assert all(min(results[name][5][2]) > 0.15 for name in NAMES)
assert all(max(results[name][1000][2]) < 0.002 for name in NAMES)
# 50 steps of DDIM against 1000 of DDPM: near the floor, and in it
print(f"DDIM in 50 steps {mean(results['DDIM'][50][0]):.3f}, ", end="")
print(
    f"DDPM in 1000 {mean(post[1000][0]):.3f}, floor {mean(floor):.3f} ({min(floor):.3f} to {max(floor):.3f})"
)
assert mean(results["DDIM"][50][0]) < 0.06
assert mean(post[1000][0]) < max(floor)

# %% [markdown]
# ## The same noise through both, with a network
#
# Now with digits. The network that comes with the course was trained as in lesson 5, with the cosine schedule that lesson 7
# explains; a sampler takes whatever schedule the network was trained with. We let four noises
# go through both samplers: twice through DDPM, with different dice on the way, and through DDIM with few
# and many steps. On the way `clip_x0` keeps the guess in $[-1, 1]$, where pictures live.

# %%
device = pick_device()  # a GPU where there is one
checkpoint = load_checkpoint("mnist", device=device)
trained_for = checkpoint.schedule
network = checkpoint.model
clipped = clip_x0(network, trained_for)
print(f"on {device}; {trained_for}")


def noise_of(seed, count=1):
    return torch.randn(count, *checkpoint.image_shape, generator=seeded(seed)).to(device)


def timed(steps):
    """Where the walk ends, and its seconds: the median step times their number.

    So what else the machine does meanwhile hardly counts.
    """
    times = [time.perf_counter()]
    for step in steps:
        pictures = step.x_t.cpu()  # to the CPU: a GPU is only done when its result arrives
        times.append(time.perf_counter())
    return pictures, float(torch.tensor(times, dtype=torch.float64).diff().median()) * len(
        times[1:]
    )


noises = noise_of(0, 8)
twice = torch.cat([noises[:4], noises[:4]])  # four noises, each of them twice
digits, seconds = {}, {}
pictures, seconds["DDPM 1000"] = timed(ddpm(clipped, trained_for, twice, generator=seeded(1)))
digits["DDPM 1000, some dice"], digits["DDPM 1000, other dice"] = pictures.split(4)
for count in (5, 10, 50):
    walk = ddim(clipped, trained_for, twice, evenly_spaced(trained_for.num_steps, count))
    pictures, seconds[f"DDIM {count}"] = timed(walk)
    digits[f"DDIM {count}"], again = pictures.split(4)
    assert torch.allclose(digits[f"DDIM {count}"], again, atol=1e-3)  # no dice: the same twice

show(
    filmstrip(list(digits.values()), labels=["noise " + c for c in "ABCD"], rows=list(digits)),
    alt="Five rows of four handwritten digits, a column for each starting noise. The two DDPM rows "
    "show different digits in the same column. The three DDIM rows, with 5, 10 and 50 steps, show "
    "the same digit in each column, with small differences.",
)


# %%
def difference(one, other):
    """Root mean square difference of the pixels, in grey levels from -1 to 1."""
    return float((digits[one] - digits[other]).square().mean().sqrt())


by_dice = difference("DDPM 1000, some dice", "DDPM 1000, other dice")
print(f"DDPM, same noise, other dice: pixels differ by {by_dice:.2f}")
for count in (5, 10):
    print(f"DDIM, {count:2d} against 50 steps: {difference(f'DDIM {count}', 'DDIM 50'):.2f}")
ratio = seconds["DDPM 1000"] / seconds["DDIM 50"]
print(f"8 digits on {device}: DDPM in 1000 steps {seconds['DDPM 1000']:.1f} s, ", end="")
print(f"DDIM in 50 {seconds['DDIM 50']:.2f} s: {ratio:.0f} times faster")
assert difference("DDIM 10", "DDIM 50") < difference("DDIM 5", "DDIM 50") < by_dice / 2

# %% [markdown]
# Look down the columns: DDPM makes different digits out of the same noise, as the dice decide as much as the
# start does. DDIM makes the same digit in 5 steps and in 50: the noise *is* the digit, in another form.
#
# The time is what the network takes, and 50 steps ask it a twentieth as often as 1000.
#
# Now follow noises A and B down, halt by halt: press *Play*, or drag $t$. Watch $\hat x_0$, what the network
# believes at each halt. (DDPM takes 200 steps here, on a shortened schedule, to save you the waiting.)
#
# 1. Which of the two walks changes its mind, and until when?
# 2. Take 50 DDIM steps in place of 5. Another digit?
# 3. Then turn $\eta$ to 1. Another digit now, and does the curve of DDIM still fall as early?

# %%
TrajectoryExplorer(
    clipped, trained_for, noises[:2], steps=(5, 10, 50), etas=(0.0, 1.0), ddpm_steps=200
)

# %% [markdown]
# Both begin with the same blur, the mean of many digits. Without dice the guess hardly does more than sharpen, in 5
# steps and in 50 to the same digit. With dice it can still become another digit on the way, and the guess comes
# near its end later: the curve says so for $\eta = 1$ as for DDPM.
#
# **And are the digits as good?** That needs a distance between sets of pictures, the Fréchet distance of lesson 7. Here is a
# preview of what it says, too slow to run in a lesson: 128 digits for each of three seeds, from the same noises,
# against 5000 real ones; lower is better.
#
# | sampler | 10 steps | 20 steps | 50 steps | 1000 steps |
# |---|---|---|---|---|
# | DDIM | 5.6 (4.7 to 6.2) | 4.7 (3.9 to 5.1) | 4.1 (3.5 to 4.4) | |
# | DDPM, posterior variance | | 3.3 (3.0 to 3.6) | 3.9 (3.7 to 4.1) | 4.5 (3.7 to 5.1) |
# | DDPM, beta | | 4.5 (4.4 to 4.6) | 4.3 (4.1 to 4.5) | |
#
# Mean and range over seeds 0, 1, 2; the floor, real digits against real digits, is 2.0 (1.6 to 2.6).
# Measured by `python benchmarks/ddpm_vs_ddim.py` on 2 CPU cores (AMD EPYC, AVX-512), no GPU, in bf16.
#
# So for this network DDIM in 50 steps *is* as good as DDPM in 1000. And there is a surprise: ancestral sampling in 20
# steps, with the posterior variance, does better than in 1000. The villages warn us about such a result: there the
# few steps were worse, with a perfect guide. A network has errors of its own (even the best row is above the floor), and a
# sampler that draws too narrowly may hide some of them. Which sampler is best depends on the network, and must be
# measured.

# %% [markdown]
# ## Between two noises
#
# If a noise is a digit in another form, what lies between two noises? The straight line
# $(1 - w)\,a + w\,b$ seems obvious, and leads astray. A noise of $D$ independent standard normal numbers has length
# $\sqrt{D}$, nearly always: in many dimensions all the noises that the network ever saw lie close to a
# **sphere**. For MNIST $D = 28 \cdot 28 = 784$ and the radius is $\sqrt{784} = 28$.

# %% [markdown]
# ### Question 6.C: how long is half of both?
#
# *3 minutes.*
#
# Two independent noises $a$ and $b$, 784 numbers each. How long is their midpoint $(a + b)/2$, typically?
# (The length of a vector is the root of the sum of its squares. Each number of the midpoint is half of
# a sum of two independent standard normal numbers.)

# %%
# BEGIN SOLUTION
length_of_midpoint = math.sqrt(784 / 2)
# STUB
# length_of_midpoint = ...  # a number
# END SOLUTION

# %%
lesson06.midpoint_length.check(length_of_midpoint)

# %% [markdown]
# So we walk **along the sphere**: *spherical linear interpolation*, or slerp. With $\theta$ the angle between
# $a$ and $b$, each seen as one long vector,
#
# $$\cos\theta = \frac{\langle a, b\rangle}{\lVert a\rVert\,\lVert b\rVert}, \qquad
# \mathrm{slerp}(a, b, w) = \frac{\sin((1-w)\,\theta)}{\sin\theta}\,a + \frac{\sin(w\,\theta)}{\sin\theta}\,b,$$
#
# where $\langle a, b\rangle$ is the sum of the products of their entries. At $w = 0$ this is $a$, at $w = 1$
# it is $b$, and in between the length stays (for $a$ and $b$ of one length) what it was.

# %% [markdown]
# ### Exercise 6.4: along the sphere
#
# *Difficulty 1 of 3, 6 minutes.*
#
# Write `slerp(a, b, w)`: `a` and `b` are two noises of one shape (any number of axes, no batch), never
# parallel; `w` is a number in 0..1. It returns a tensor of their shape. Angles are in radians, as torch's
# `acos` and `sin` have them.


# %%
def slerp(a, b, w):
    # BEGIN SOLUTION lesson06.slerp
    ...
    # END SOLUTION


# %%
lesson06.slerp.check(slerp)

# %% [markdown]
# What it gives: a walk from one digit to another. (The next cell has its own version, for all `w` at once.)
# Below it are the midpoints of seven pairs of noises, on the sphere and on the straight line.

# %%
WEIGHTS = torch.linspace(0, 1, 9)


def between(a, b, weights):
    """slerp for several weights, (len(weights), ...)."""
    angle = torch.acos((a * b).sum() / (a.norm() * b.norm()))
    w = weights.to(a.device).reshape(-1, *[1] * a.ndim)
    return (torch.sin((1 - w) * angle) * a + torch.sin(w * angle) * b) / torch.sin(angle)


few_steps = evenly_spaced(trained_for.num_steps, 25)
way = between(noises[0], noises[1], WEIGHTS)
show(
    filmstrip(
        [last(ddim(clipped, trained_for, way, few_steps))],
        labels=[f"w = {w:.3g}" for w in WEIGHTS.tolist()],
        rows=["from A to B"],
    ),
    alt="Nine digits in a row: the digit of noise A on the left turns step by step into the digit "
    "of noise B on the right.",
)

straight = (noises[:-1] + noises[1:]) / 2
sphere = torch.cat(
    [between(a, b, torch.tensor([0.5])) for a, b in zip(noises[:-1], noises[1:], strict=True)]
)
middles = {}
for name, middle in (("on the sphere", sphere), ("straight line", straight)):
    middles[name] = last(ddim(clipped, trained_for, middle, few_steps))
    length = float(middle.flatten(1).norm(dim=1).mean())
    ink = float((middles[name].mean() + 1) / 2)
    print(f"midpoints {name}: length {length:.1f}, ink {ink:.3f} (mean brightness, 0 to 1)")
show(
    filmstrip(list(middles.values()), rows=list(middles)),
    alt="Two rows of seven digits. Below each digit of a midpoint on the sphere is the one of the "
    "straight line: alike, but drawn with thinner or fewer strokes.",
)
assert abs(float(sphere.flatten(1).norm(dim=1).mean()) - 28) < 1
assert abs(float(straight.flatten(1).norm(dim=1).mean()) - math.sqrt(784 / 2)) < 1
assert middles["straight line"].mean() < middles["on the sphere"].mean()

# %% [markdown]
# Compare the two rows below each other. On the straight line the noise is too weak, as the question said, and
# the digits come out with **less ink**: thinner strokes, simpler shapes. They are digits all the same: this
# small network takes it better than one often reads. The mean of more noises is weaker still; try
# `noises.mean(0, keepdim=True)`.

# %% [markdown]
# ## Back into the noise
#
# DDIM with $\eta = 0$ has no dice, so it can be walked **the other way**: from a picture up to the noise that
# it comes from. That is called *inversion*, and it is how existing pictures get edited with diffusion models.
#
# The step down from $t$ to $s$ was
#
# $$\hat x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\,\hat\epsilon}{\sqrt{\bar\alpha_t}}, \qquad
# x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s}\,\hat\epsilon, \qquad \hat\epsilon = \mathrm{model}(x_t, t).$$
#
# Going **up** from $s$ to $t$, swap the roles of $s$ and $t$ in the two rates:
#
# $$\hat x_0 = \frac{x_s - \sqrt{1-\bar\alpha_s}\,\hat\epsilon}{\sqrt{\bar\alpha_s}}, \qquad
# x_t = \sqrt{\bar\alpha_t}\,\hat x_0 + \sqrt{1-\bar\alpha_t}\,\hat\epsilon.$$
#
# One thing is missing: the $\hat\epsilon$ of the step down was asked at $(x_t, t)$, and $x_t$ is what we are
# looking for. So we ask with the state we have and the step we go to:
# $\hat\epsilon = \mathrm{model}(x_s, t)$. The shorter the stride, the closer $x_s$ is to $x_t$, and the smaller the
# mistake.

# %% [markdown]
# ### Exercise 6.5: back into the noise
#
# *Difficulty 3 of 3, 15 minutes. The one to be proud of.*
#
# Write `invert(model, schedule, x_0, timesteps)`:
#
# - `model(x, t)` returns eps_hat for x of shape (B, ...) and `t`, an **int64 tensor of shape (B,)**,
# - `x_0` is a batch of clean data, (B, ...),
# - `timesteps` is the list for the walk **down**, for example `[1000, 750, 500, 250, 0]`; you walk it from its
#   end to its beginning,
# - it returns the state at `timesteps[0]`, of the shape of `x_0`.
#
# In each step up from s to t ask `model` once, with the state at s and the step t.


# %%
def invert(model, schedule, x_0, timesteps):
    # BEGIN SOLUTION lesson06.invert
    ...
    # END SOLUTION


# %%
lesson06.invert.check(invert)

# %% [markdown]
# What it gives: first in the world of the two villages, where we can ask how exact it is. Up with `count`
# steps, down again with the same steps: how far from home do we end?


# %%
def to_noise(model, schedule, x_0, timesteps):
    """DDIM inversion, the version that this lesson goes on with."""
    signal, noise = schedule.signal_rate.tolist(), schedule.noise_rate.tolist()
    upwards = list(timesteps)[::-1]
    x = x_0
    with torch.no_grad():
        for s, t in zip(upwards[:-1], upwards[1:], strict=True):
            eps_hat = model(x, torch.full((len(x),), t, device=x.device))
            x = signal[t] * (x - noise[s] * eps_hat) / signal[s] + noise[t] * eps_hat
    return x


homes = guide.sample(500, seeded(7))
STRIDES = (25, 50, 100, 200, 400)
errors = []
for count in STRIDES:
    steps = evenly_spaced(T, count)
    back = last(ddim(guide, schedule, to_noise(guide, schedule, homes, steps), steps))
    errors.append(float((back - homes).abs().median()))
    print(f"{count:4d} steps: {errors[-1]:.4f} from home (median)")
slope = math.log(errors[-1] / errors[-3]) / math.log(STRIDES[-1] / STRIDES[-3])
print(f"slope from {STRIDES[-3]} to {STRIDES[-1]} steps on logarithmic axes: {slope:.2f}")
assert -1.15 < slope < -0.85

# %% [markdown]
# Twice the steps, half the error: the slope is close to $-1$. Only going *up* is inexact; the way down from the
# noise that we found is the ordinary sampler.
#
# And with the network? We take the digits that **DDPM** drew above: pictures for which we know no DDIM
# noise. (Without `clip_x0` this time: what was clipped cannot be undone.)

# %%
found = digits["DDPM 1000, some dice"].to(device)
round_trips, found_noise = {}, {}
for count in (10, 50, 200):
    steps = evenly_spaced(trained_for.num_steps, count)
    found_noise[count] = to_noise(network, trained_for, found, steps)
    round_trips[count] = last(ddim(network, trained_for, found_noise[count], steps))
error = {k: float((x - found).square().mean().sqrt()) for k, x in round_trips.items()}
print("pixels after the round trip differ by", {k: round(e, 3) for k, e in error.items()})
assert error[200] < error[50] < error[10]

mistake = {count: 3 * (x - found) for count, x in round_trips.items()}
rows = {
    "the picture": found,
    "back, 10 steps": round_trips[10],
    "its error × 3": mistake[10],
    "200 steps: error × 3": mistake[200],
}
show(
    filmstrip(list(rows.values()), labels=list("ABCD"), rows=list(rows)),
    alt="Four rows of four pictures: digits; the same digits back from the round trip in 10 steps; "
    "the differences, enlarged, with traces along the strokes; the differences for 200 steps, "
    "which are fainter.",
)

# %% [markdown]
# Put the two together, and you can walk between pictures that you were **given**: invert both, go along the
# sphere, come down again.

# %%
steps = evenly_spaced(trained_for.num_steps, 50)
from_picture, to_picture = found_noise[200][0], found_noise[200][3]
way = between(from_picture, to_picture, torch.linspace(0, 1, 7))
walk_between = last(ddim(network, trained_for, way, steps))
show(
    filmstrip([walk_between], labels=["picture A", "", "", "", "", "", "picture D"], rows=["walk"]),
    alt="Seven pictures: a given digit on the left turns step by step into another given digit.",
)
lengths = [float(x.norm()) for x in found_noise[200]]
print("lengths of the noises found (28 is typical):", " ".join(f"{x:.1f}" for x in lengths))
ground = found < -0.99
spreads = float(found_noise[200][ground].std()), float(found_noise[200][~ground].std())
print(f"their standard deviation: {spreads[0]:.2f} on black ground, {spreads[1]:.2f} elsewhere")
assert max(lengths) < 24
assert spreads[0] < spreads[1]

# %% [markdown]
# Each picture on the way is drawn by nobody, and looks like handwriting. But see the lengths: the noises that inversion
# finds are *shorter* than those that the network was trained with, and most of what is missing is missing where the
# picture is black and perfectly even. Such a noise leads back to its picture; a typical draw from $\mathcal N(0, I)$
# it is not.

# %% [markdown]
# ## Recap
#
# - **Ancestral sampling** draws $x_{t-1}$ from the posterior of lesson 2 with `x0_hat` in place of $x_0$, and adds no noise
#   at the last step.
# - Its $\sigma^2$ lies between the posterior variance (right for data that is one point) and $\beta$ (right for standard
#   normal data). With many small steps the two are nearly one.
# - **Too few steps fail with a perfect denoiser too**: over a long stride the true step has several humps, and we draw
#   from a Gaussian.
# - **DDIM** keeps the noise it has. $\eta = 0$ needs no dice, its paths are smooth and can be walked in long strides, in
#   both directions. $\eta = 1$ is ancestral sampling of the chain of the steps you take.
# - A comparison of samplers needs a **floor** and several seeds; without them 0.039 against 0.023 means nothing.
#
# ## Key terms
#
# | what people say | what it means |
# |---|---|
# | ancestral sampling, DDPM sampling | draw each state given the noisier one before it, with fresh noise at each step |
# | posterior variance, "fixed small" | $\tilde\beta_t$, the variance of $x_{t-1}$ given $x_t$ *and* $x_0$ |
# | "fixed large" | $\sigma_t^2 = \beta_t$ |
# | respacing | keeping some of the steps, as a shorter schedule of larger noisings |
# | DDIM | steps between any $t$ and $s < t$ that keep the old noise; deterministic at $\eta = 0$ |
# | eta | the share of the possible fresh noise: 0 none, 1 as much as ancestral sampling |
# | NFE, "number of function evaluations" | how often the network is asked; what sampling costs |
# | slerp | interpolation along the sphere on which noises lie |
# | inversion | DDIM walked upwards: the noise behind a given picture |
#
# ## Claims, measured
#
# By the cells above with the seeds that stand in them, on 2 CPU cores (AMD EPYC, AVX-512), no GPU; digits as said there.
#
# | claim | verdict | numbers |
# |---|---|---|
# | "$\eta = 1$ recovers DDPM." | exactly, with every step and the posterior variance | largest difference noise for noise among 4000 walks: below $10^{-12}$. With $\sigma^2 = \beta$: median 0.004, up to the other village. With 50 of 1000 steps it is DDPM of the shortened chain (below $10^{-12}$), whose villages have 0.69 of their width. |
# | "$\sigma^2 = \beta$ or the posterior variance, no matter." | true at 1000 steps, not at few | widths of the villages: 1.00 and 0.96 at 1000 steps; 1.04 and 0.70 at 50 |
# | "Too few steps break ancestral sampling because the reverse step is no longer Gaussian." | yes, and there is no network in it | exact denoiser: in 5 steps 27 % of the walkers are lost (posterior variance), in 1000 under 0.1 %. One stride from 600 to 100 puts 71 % of the probability in a wrong place, to 590 under 1 %. DDIM, which draws from nothing, loses 23 % in 5 steps. |
# | "DDIM in 50 steps is as good as DDPM in 1000, 20 times faster." | on these digits yes; with a perfect guide nearly | Fréchet distance of digits: 4.1 (3.5 to 4.4) against 4.5 (3.7 to 5.1), floor 2.0, three seeds. Villages: distance 0.039 (0.023 to 0.048) against 0.023 (0.006 to 0.042), floor 0.018 (0.006 to 0.034), four seeds. The network is asked 20 times less often. |
# | "Interpolate noises along the sphere, never straight." | the straight line costs ink, little else, on this model | midpoints of 7 pairs: lengths 28 and 20, ink 0.143 and 0.111 |
# | "DDIM can be inverted." | up to an error that falls with the stride | villages: median error 0.025 at 50 steps, 0.0037 at 400; four digits: pixels off by 0.15 (rms) after 10 steps there and back, 0.08 after 200; the noises found have lengths of 15 to 17, not 28 |
#
# ## Further reading
#
# - Ho, Jain, Abbeel: *Denoising Diffusion Probabilistic Models*, 2020, arXiv 2006.11239. Algorithm 2 is exercise 6.1; section 3.2
#   has the two variances.
# - Song, Meng, Ermon: *Denoising Diffusion Implicit Models*, 2021, arXiv 2010.02502. Equations 12 and 16 are exercise 6.3.
# - Nichol, Dhariwal: *Improved Denoising Diffusion Probabilistic Models*, 2021, arXiv 2102.09672. Learned variances, and
#   respacing, for fewer steps.
# - Bao, Li, Zhu, Zhang: *Analytic-DPM*, 2022, arXiv 2201.06503. The best variance between the two limits, in closed form.
# - Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: *Score-Based Generative Modeling through Stochastic Differential Equations*,
#   2021, arXiv 2011.13456. Both samplers as one equation, with dice and without.
# - Xiao, Kreis, Vahdat: *Tackling the Generative Learning Trilemma with Denoising Diffusion GANs*, 2022, arXiv 2112.07804. Long
#   strides with several humps, learned.
#
# <!-- navigation -->
