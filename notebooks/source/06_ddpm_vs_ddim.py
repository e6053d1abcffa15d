# %% [markdown]
# # 6 · DDPM against DDIM
#
# <!-- opening -->
#
# A trained network says which noise is in a picture. How do we get from there to a new picture, out of nothing but noise?
# There are two classic ways to walk back. **DDPM** takes a thousand small steps and rolls dice at each. **DDIM** needs no dice,
# and twenty long strides may do. You will build both and compare them.
#
# **After this lesson you will be able to**
#
# - derive ancestral sampling from the posterior of lesson 2, and write it,
# - write DDIM with its dial $\eta$, and say when $\eta = 1$ is DDPM and when it is not,
# - say why too few steps go wrong *even with a perfect denoiser*,
# - compare two samplers fairly, with a floor and several seeds,
# - morph one picture into another through noise, and find the noise behind a given picture.
#
# **You need** lessons 1 to 3 (rates, the posterior, oracles); your network of lesson 5 makes it nicer.
# **Time:** about <!-- minutes --> minutes.

# %%
import torch

from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.checks import lesson06
from tutorial_lib.forward import posterior, predict_x0
from tutorial_lib.lab import seeded, start, your_model
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced, last, respace
from tutorial_lib.schedules import linear_schedule

device = start(6)

# %% tags=["plumbing"]
import math
import time

from tutorial_lib.explorers import TrajectoryExplorer
from tutorial_lib.hardware import keep_freed_memory
from tutorial_lib.plots import COLORS, GRAY, INK, filmstrip, panels, show

keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: up to 1.6 times faster
torch.set_num_threads(1)  # small batches: sharing the work costs more than it saves


def own(exercise, mine):
    """Your function if its check passes, else the model answer: the lesson goes on either way."""
    chosen = mine if exercise.judge(mine).passed else exercise.model_answer
    return lambda *arguments: torch.as_tensor(chosen(*arguments))


def mean(values):
    return sum(values) / len(values)


# %% [markdown]
# ## Two villages in the fog
#
# We begin in a world so small that everything in it can be known exactly. The data are single numbers. One third of them
# live in a village around $-1$, two thirds in a village around $+1$. Each village is narrow: its standard deviation is 0.1.
# Nobody lives in between.
#
# Sampling is a walk down into this valley through fog. At each halt we ask a guide, the denoiser, where the houses are *on
# average*, as seen from here. Low down, she points at a village. High up, where either village is possible, she points **at the
# empty field between them**. The whole lesson follows from that.
#
# Our guide is the oracle of lesson 3, which makes no errors at all. Whatever goes wrong is the walk's fault, not hers.

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
# Lesson 2 ended with Bayes' rule. If we knew the clean $x_0$, then $x_{t-1}$, the state with one noising less, would be Gaussian:
#
# $$q(x_{t-1} \mid x_t, x_0) = \mathcal N\!\left(\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0
# + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t,\;\; \tilde\beta_t\right),
# \qquad \tilde\beta_t = \beta_t\,\frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}.$$
#
# Here $\tilde\beta_t$ is the *posterior variance*, `schedule.posterior_variance[t - 1]`. We do not know $x_0$, so **we put
# the guess `x0_hat` in its place**, draw $x_{t-1}$ from that Gaussian, and ask again from there. This is called **ancestral
# sampling**: noising is a *Markov chain*, in which each state depends only on the one before it, and we walk back from child to
# parent.
#
# Write $\hat x_0$ in terms of $\hat\epsilon$, and the mean becomes short:
#
# $$x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\left(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\hat\epsilon\right)
# + \sigma_t z, \qquad z \sim \mathcal N(0, I), \quad z = 0 \text{ at } t = 1.$$
#
# This is algorithm 2 of Ho et al. (2020). In words: take out *one noising's worth* of noise, undo the shrinking, add a little
# fresh noise. The last step adds none: nothing comes after it that could take it out again.
#
# <details><summary>The algebra, line by line</summary>
#
# Insert $\hat x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\hat\epsilon)/\sqrt{\bar\alpha_t}$. The factor of $\hat\epsilon$ comes from $\hat x_0$ alone:
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
# Ho et al. tried two values for $\sigma_t^2$: the posterior variance $\tilde\beta_t$, and $\beta_t$. We will compare them, so your step
# takes the variance as an argument.

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
# `schedule.alpha` and `schedule.beta` have T entries, for t = 1..T: step t is entry `t - 1`. `schedule.noise_rate`,
# $\sqrt{1-\bar\alpha_t}$, begins at t = 0: step t is entry `t`.


# %%
def ddpm_step(schedule, x_t, t, eps_hat, z, sigma_squared):
    # BEGIN SOLUTION lesson06.ddpm_step
    ...
    # END SOLUTION


# %%
lesson06.ddpm_step.check(ddpm_step)

# %% [markdown]
# A thousand of these steps are a sampler. Here it is, whole:

# %%
step = own(lesson06.ddpm_step, ddpm_step)
x, dice = torch.randn(4000, 1, generator=seeded(0)), seeded(1)
for t in range(T, 0, -1):
    eps_hat = guide(x, torch.full((len(x),), t))
    z = torch.randn(x.shape, generator=dice)
    x = step(schedule, x, t, eps_hat, z, schedule.posterior_variance[t - 1])

print(f"living in the right village: {(x > 0).float().mean():.3f} (2/3 would be exact)")
assert abs(float((x > 0).float().mean()) - 2 / 3) < 0.03
by_library = last(
    ddpm(guide, schedule, torch.randn(4000, 1, generator=seeded(0)), generator=seeded(1))
)
print(f"the library's ddpm, with the same dice: {(by_library > 0).float().mean():.3f}")

# %% [markdown]
# ## Beta or the posterior variance?
#
# Standing at $x_t$, what do we not know about $x_{t-1}$? Two things: the roll of the dice, of variance $\tilde\beta_t$, and where
# $x_0$ is. If the data is **one single point**, we know $x_0$, and $\tilde\beta_t$ is exact. If the data is **standard normal**,
# the two together make exactly $\beta_t$. The posterior variance is a lower limit: $x_{t-1}$ never varies less.
#
# People call $\beta_t$ the upper limit. It is one *on average* over all walkers, if the data's variance is at most 1. At a
# single place it is not: where the guide hesitates between two villages, the true variance can be several times larger. Let us
# look at strides of 50 steps.
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
# For other data of variance at most 1 the best *linear* guess of $x_0$ misses by at most $1 - \bar\alpha_t$ on average, and the
# best guess of all by no more. This is the average limit. (Ho et al., section 3.2, state it for the entropy.)
#
# </details>


# %%
def true_variance(t, s, places):
    """The exact variance of x_s given x_t at each place, and the two usual choices."""
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    beta = 1 - abar_t / abar_s  # of the whole stride, as if it were one noising
    dice = beta * (1 - abar_s) / (1 - abar_t)  # the posterior variance
    # How unsure the guide is: where she turns quickly as we move, she hesitates (Tweedie's formula).
    turning = torch.gradient(seen_from(places, t), spacing=float(places[1] - places[0]))[0]
    unsure = (1 - abar_t) / abar_t.sqrt() * turning  # the variance of x_0 given x_t
    return dice + abar_s * (beta / (1 - abar_t)) ** 2 * unsure, dice, beta


places = torch.linspace(-2.0, 2.0, 801, dtype=torch.float64)
variance, dice, beta = true_variance(100, 50, places)
living = guide.log_density(places[:, None], torch.full((801,), 100)).exp()
on_average = float((living * variance).sum() / living.sum())
print("from t = 100 to 50, as multiples of beta:")
print(
    f"  posterior variance {dice / beta:.2f}, on average over all walkers {on_average / beta:.2f}"
)
print(f"  at x = -1 {variance[200] / beta:.2f}, at x = 0 {variance[400] / beta:.1f}")
assert dice / beta < on_average / beta < 1 < 5 < variance[400] / beta

# %% tags=["plumbing"]
ages = list(range(60, 501, 4))
ratios = torch.stack(
    [true_variance(t, t - 50, places)[0] / true_variance(t, t - 50, places)[2] for t in ages], 1
)
reach = ratios.log2().clamp(-2, 2) / 2  # -1 is a quarter of beta or less, +1 four times or more
colors = torch.empty(*reach.shape, 4)
for sign, color in ((-1, COLORS[0]), (1, COLORS[1])):
    here = reach * sign > 0
    rgb = torch.tensor([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    colors[here] = torch.cat(
        [rgb.expand(int(here.sum()), 3), reach[here].abs()[:, None].float()], 1
    )

figure, (left, right) = panels(2, width=9, height=3.4)
left.imshow(
    colors.numpy(),
    origin="lower",
    aspect="auto",
    extent=(ages[0], ages[-1], -2, 2),
    interpolation="bilinear",
)
left.plot([100, 100], [-2, 2], color=INK, lw=1, ls=":")
left.set(title="true variance of a stride of 50 steps", xlabel="t", ylabel="$x_t$", xlim=(500, 60))
for height, text, color in ((-0.4, "above β", COLORS[1]), (1.6, "below β", COLORS[0])):
    left.text(430, height, text, color=color, va="center", weight="bold", fontsize=9)
right.fill_between(places, 6 * living / living.max(), color=GRAY, alpha=0.35, lw=0)
right.plot(places, variance / beta, color=COLORS[1], lw=2)
right.axhline(1, color=INK, lw=1, ls="--")
right.axhline(float(dice / beta), color=COLORS[0], lw=1, ls="--")
right.text(-1.95, 1.12, "β", color=INK)
right.text(
    1.98,
    -0.15,
    "posterior variance",
    color=COLORS[0],
    ha="right",
    va="top",
    fontsize=8.5,
)
right.text(1.0, 3.0, "where walkers are", color=INK, ha="center", fontsize=8.5)
right.set(title="at t = 100, as multiples of β", xlabel="$x_t$", ylim=(-0.75, 6.6), xlim=(-2, 2))
show(
    figure,
    alt="Left: a map over t and place. Below beta, in blue, along both villages at small t; above beta, in "
    "orange, on the field between the villages, as a ridge that becomes narrow and strong towards t = 60. "
    "Right, at t = 100: the true variance is close to the posterior variance in both villages and rises "
    "to six times beta in a narrow peak between them, where hardly any walkers are.",
)

# %% [markdown]
# The orange ridge is hesitation. At $t = 100$, halfway between the villages, the true variance is 5.6 times $\beta$. Hardly
# anybody stands there, so the average stays below $\beta$.
#
# How much does the choice matter? The ratio $\tilde\beta_t/\beta_t = (1-\bar\alpha_{t-1})/(1-\bar\alpha_t)$ is close to 1 where one step changes
# little, which is nearly everywhere with a thousand steps, but not with few.
#
# To take few steps, we **shorten the schedule**: of the 1000 noisings keep, say, every hundredth state. What is left is a chain
# of 10 large noisings. First we need to say which states to keep.

# %% [markdown]
# ### Exercise 6.2: ten stops on the way down
#
# *Difficulty 1 of 3, 3 minutes.*
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
# The library's is called `evenly_spaced`. `respace` takes such a list and gives the shortened schedule, and the same guide seen
# through it. The ratio of the two variances:

# %%
for count in (1000, 100, 10):
    _, shorter = respace(guide, schedule, evenly_spaced(T, count))
    ratio = shorter.posterior_variance / shorter.beta
    print(
        f"{count:4d} steps: posterior variance / beta is {ratio.median():.3f} at the middle step, "
        f"above 0.95 at {(ratio > 0.95).double().mean():.0%} of the steps"
    )

# %% [markdown]
# ## Too few steps, with a perfect denoiser
#
# One often hears: with few steps ancestral sampling breaks, *because the reverse step is no longer Gaussian*. Let us look at
# that step. By Bayes' rule the true density of $x_s$, for a walker at $x_t$, is
#
# $$q(x_s \mid x_t) \;\propto\; q(x_s)\; q(x_t \mid x_s), \qquad
# q(x_t \mid x_s) = \mathcal N\!\left(\sqrt{\bar\alpha_t/\bar\alpha_s}\;x_s,\; 1 - \bar\alpha_t/\bar\alpha_s\right),$$
#
# and in our small world we can compute it on a fine grid. (The noisings from $s$ to $t$ fold into one jump, as in lesson 2.)
# The figure shows it for a walker at $t = 600$, $x_t = -0.1$, beside the Gaussian that ancestral sampling draws from.


# %%
def true_step(x_t, t, s, grid):
    """The exact density of x_s given x_t, on a grid of places."""
    ratio = schedule.alpha_bar[t] / schedule.alpha_bar[s]
    log_prior = guide.log_density(grid[:, None], torch.full((len(grid),), s))
    log_density = log_prior - (x_t - ratio.sqrt() * grid) ** 2 / (2 * (1 - ratio))
    density = (log_density - log_density.max()).exp()
    return density / (density.sum() * (grid[1] - grid[0]))


# %% tags=["plumbing"]
def gaussian_step(x_t, t, s, grid):
    """The Gaussian that ancestral sampling draws x_s from (posterior variance)."""
    model, pair = respace(guide, schedule, [t, s, 0])  # a chain in which s is step 1 and t step 2
    place, step = torch.tensor([[x_t]], dtype=torch.float64), torch.tensor([2])
    x0_hat = predict_x0(pair, place, step, model(place, step))
    middle, variance = posterior(pair, x0_hat, place, step)
    density = (-((grid - middle) ** 2) / (2 * variance)).exp() / (2 * math.pi * variance).sqrt()
    return density.flatten()


grid = torch.linspace(-2, 2, 2001, dtype=torch.float64)
figure, axes = panels(3, width=9, height=2.8)
gaps = []
for axis, s in zip(axes, (590, 400, 100), strict=True):
    true, gaussian = true_step(-0.1, 600, s, grid), gaussian_step(-0.1, 600, s, grid)
    gaps.append(float((true - gaussian).abs().sum() * (grid[1] - grid[0])) / 2)
    axis.fill_between(grid, true, color=COLORS[0], alpha=0.45, lw=0, label="where $x_s$ really is")
    axis.plot(grid, gaussian, color=COLORS[1], linewidth=2, label="the Gaussian we draw from")
    axis.set(title=f"from t = 600 to {s}", xlabel="$x_s$", yticks=[])
    middle = float((true * grid).sum() / true.sum())
    axis.set_xlim(*((middle - 0.6, middle + 0.6) if s == 590 else (-1.8, 1.8)))
axes[0].legend(loc="upper left", fontsize=8, frameon=False, labelcolor=INK)
axes[0].set_ylim(0, float(axes[0].get_ylim()[1]) * 1.35)
print("probability in a wrong place:", ", ".join(f"{gap:.0%}" for gap in gaps))
assert gaps[0] < 0.01 < gaps[1] < 0.1 < 0.5 < gaps[2]
show(
    figure,
    alt="Three panels. For a stride of 10 steps the true density and the Gaussian coincide. For a "
    "stride of 200 the true density is wider and lopsided. For a stride of 500 it has two separate "
    "humps, and the Gaussian stands in the gap between them.",
)

# %% [markdown]
# Look at the right panel. After a long stride the walker must be in one of two places, and the Gaussian puts the walker **in the
# field between them**. Its mean is exactly right. It is the *shape* that cannot be right. Over a short stride, on the left, the
# true density is a Gaussian for all we can see. That is what the thousand small steps are for.

# %% [markdown]
# ### Question 6.A: a perfect denoiser and five steps
#
# *1 minute.*
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
# Song, Meng and Ermon (2021) noticed something about training. The loss of lesson 3 uses only the **jump**,
# $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$, one step at a time. It never sees how $x_t$ and $x_{t-1}$ are
# correlated. So a trained network fits *every* process that has the right jumps, and we may choose one that is easy to walk back.
#
# Suppose we know $x_0$ and the noise $\epsilon$ in $x_t$, and want $x_s$ for an earlier step $s < t$. It must be
# $\sqrt{\bar\alpha_s}\,x_0$ plus Gaussian noise of variance $1 - \bar\alpha_s$. That noise may be the **old** noise, or **fresh** noise
# $z$, or some of both, since independent variances add up. With the model's guesses for $x_0$ and $\epsilon$, this is the **DDIM step**:
#
# $$x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s-\sigma^2}\;\hat\epsilon + \sigma z,
# \qquad \sigma = \eta\,\sqrt{\frac{1-\bar\alpha_s}{1-\bar\alpha_t}\left(1-\frac{\bar\alpha_t}{\bar\alpha_s}\right)}.$$
#
# The dial $\eta$ (eta) goes from 0 to 1. At $\eta = 0$ there are no dice at all: where you start decides where you end. And nothing
# in the formula asks $s$ to be $t - 1$. The last step, to $s = 0$, gives $\hat x_0$ itself.

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
# Two ways down from the same nine starting points. The gray shade is the density of all data at each step, the fog that
# thins out from left to right.

# %%
beginnings = torch.linspace(-1.6, 1.6, 9)[:, None]  # nine places at t = 1000
every_step = list(range(T, -1, -1))
walks = {
    "DDPM, 1000 steps": ddpm(guide, schedule, beginnings, generator=seeded(5)),
    "DDIM, 1000 steps": ddim(guide, schedule, beginnings, every_step),
    "DDIM, 20 steps": ddim(guide, schedule, beginnings, evenly_spaced(T, 20)),
}
paths = {
    name: [(T, beginnings)] + [(step.t, step.x_t) for step in walk] for name, walk in walks.items()
}
ends = {name: path[-1][1] for name, path in paths.items()}
closeness = (ends["DDIM, 1000 steps"] - ends["DDIM, 20 steps"]).abs().median()
print(f"DDIM in 1000 and in 20 steps end {closeness:.2f} apart (median of nine)")
assert closeness < 0.15

# %% tags=["plumbing", "opening"]
places = torch.linspace(-3.2, 3.2, 321)
ages = torch.arange(4, T + 1, 4)
fog = torch.stack(
    [guide.log_density(places[:, None], torch.full((321,), int(t))).exp() for t in ages], 1
)
grays = [(*[int(GRAY[1:3], 16) / 255] * 3, 0.24 * k) for k in (1, 2, 3)]
FOLLOWED = 5  # the one drawn in orange
figure, axes = panels(3, width=9, height=3.4, share_y=True)
for axis, (name, path) in zip(axes, paths.items(), strict=True):
    axis.contourf(
        ages,
        places,
        fog.sqrt(),
        levels=[0.5, 1, 1.5],
        colors=grays,
        extend="max",
        antialiased=False,
    )  # few grays: a small file
    lines = torch.cat([x for _, x in path], 1).T  # (halts, 9)
    halts = [t for t, _ in path]
    marker = "." if len(path) < 50 else None
    axis.plot(halts, lines, color=COLORS[0], linewidth=1, marker=marker, ms=4)
    axis.plot(halts, lines[:, FOLLOWED], color=COLORS[1], linewidth=2, marker=marker, ms=5)
    axis.set(title=name, xlabel="t", xlim=(T, 0), ylim=(-3.2, 3.2), xticks=range(0, 1000, 200))
axes[0].set_ylabel("$x_t$")
show(
    figure,
    alt="Nine walks from noise at t = 1000 on the left to data at t = 0 on the right, in three panels; one walk is "
    "orange. DDPM: jagged paths that cross each other. DDIM with 1000 steps: smooth paths that never cross and part "
    "between two villages. DDIM with 20 steps: nearly the same paths, as chains of straight lines.",
)

# %% [markdown]
# Follow the orange walker, who starts at the same place in all three panels. On the left, dice shake the walkers about, and
# they may end anywhere. In the middle, with $\eta = 0$, the paths are smooth and never cross. On the right, 20 strides follow
# nearly the same paths: on a straight road it does not matter how often you look at the map.
#
# ## DDIM is Euler's method
#
# Divide $x_t$ by the signal rate and call the result $y$. Let $\varsigma = \sqrt{1-\bar\alpha}/\sqrt{\bar\alpha}$ be the noise that is in $y$
# (others call it $\sigma$). Then $y = \hat x_0 + \varsigma\,\hat\epsilon$, and the DDIM step with $\eta = 0$ shrinks to
#
# $$y_s = y_t + (\varsigma_s - \varsigma_t)\,\hat\epsilon.$$
#
# A change of $\varsigma$, times a slope. So sampling solves an **ordinary differential equation** (ODE), $dy/d\varsigma = \hat\epsilon$, the
# *probability-flow ODE*. DDIM does it by the oldest method there is, **Euler's method**: look up the slope, go straight, look
# again. Its error is of first order: twice the steps, half the error. Is that so?

# %%
signal, sigma = schedule.signal_rate, schedule.noise_rate / schedule.signal_rate


def by_euler(model, x_T, steps):
    """Euler's method on dy/dsigma = eps_hat."""
    y = x_T / signal[steps[0]]
    for t, s in zip(steps[:-1], steps[1:], strict=True):
        eps_hat = model(signal[t] * y, torch.full((len(y),), t))
        y = y + (sigma[s] - sigma[t]) * eps_hat
    return signal[steps[-1]] * y


x_T = torch.randn(1000, 1, generator=seeded(0), dtype=torch.float64)
same = (
    (
        by_euler(guide, x_T, evenly_spaced(T, 50))
        - last(ddim(guide, schedule, x_T, evenly_spaced(T, 50)))
    )
    .abs()
    .max()
)
print(f"Euler's method and DDIM differ by {same:.0e} at most")
assert same < 1e-9
exact = last(ddim(guide, schedule, x_T, every_step))
misses = {
    n: float((by_euler(guide, x_T, evenly_spaced(T, n)) - exact).abs().mean())
    for n in (25, 50, 100)
}
print(
    "mean distance from the walk in 1000 steps:", {n: round(miss, 4) for n, miss in misses.items()}
)

# %% [markdown]
# Nearly: from 25 to 50 to 100 steps the error falls by factors of 1.7 and 2.1. Heun's method and DPM-Solver++ (`samplers.heun`, `samplers.dpm_solver`) solve the same ODE with errors of second
# order.
#
# ## Is eta = 1 the same as DDPM?
#
# "With $\eta = 1$ DDIM is DDPM", people say. Put $s = t - 1$ into $\sigma^2$ at $\eta = 1$, and you get the posterior variance
# $\tilde\beta_t$. The mean agrees as well:
#
# <details><summary>The mean is the posterior mean</summary>
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
# So let us send the same $x_T$ and the same dice through both, in float64.

# %%
x_T = torch.randn(4000, 1, generator=seeded(0), dtype=torch.float64)
few = evenly_spaced(T, 50)
shorter = respace(guide, schedule, few)  # the guide and the schedule of a chain of 50 noisings
ends = {
    "eta = 1, 1000 steps": last(
        ddim(guide, schedule, x_T, every_step, eta=1.0, generator=seeded(1))
    ),
    "DDPM, posterior variance": last(ddpm(guide, schedule, x_T, generator=seeded(1))),
    "DDPM, beta": last(ddpm(guide, schedule, x_T, variance="beta", generator=seeded(1))),
    "eta = 1, 50 steps": last(ddim(guide, schedule, x_T, few, eta=1.0, generator=seeded(1))),
    "DDPM of 50 noisings": last(ddpm(*shorter, x_T, generator=seeded(1))),
}


# %% tags=["plumbing"]
def spread(x):
    """How wide the villages are in a sample, where 1 is right: rms distance from their centers."""
    return float((x.abs() - 1).square().mean().sqrt()) / STD


largest = {}
for one, other in (
    ("eta = 1, 1000 steps", "DDPM, posterior variance"),
    ("eta = 1, 50 steps", "DDPM of 50 noisings"),
    ("eta = 1, 1000 steps", "DDPM, beta"),
):
    gap = (ends[one] - ends[other]).abs()
    largest[one, other] = float(gap.max())
    print(f"{one:20s} against {other:25s} largest gap {gap.max():.0e}, median {gap.median():.0e}")
widths = spread(ends["eta = 1, 50 steps"]), spread(ends["DDPM, posterior variance"])
print(f"width of the villages (1 is right): {widths[0]:.2f} in 50 steps, {widths[1]:.2f} in 1000")
assert [gap < 1e-9 for gap in largest.values()] == [True, True, False]
assert widths[0] < 0.8 < 0.92 < widths[1]

# %% [markdown]
# With every step and the posterior variance it is DDPM, to the last digits of float64. With $\sigma^2 = \beta$ it is not. And with
# skipped steps?

# %% [markdown]
# ### Question 6.B: fifty steps with eta = 1
#
# *1 minute.*
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
# How far are samples from true data? We need a distance and its **floor**: the distance between two sets of *true* data. It is
# not zero, since both are random draws, and below it nothing can be told apart. In one dimension it is easy: sort both sets, and
# take the mean distance between partners (the *Wasserstein distance*). A second gauge is the **width** of the villages, where 1 is
# right. Four seeds, 4000 walkers each:

# %%
SEEDS, WALKERS = range(4), 4000
COUNTS = (5, 10, 20, 50, 100, 1000)


def distance(x, y):
    """Wasserstein distance between two samples of the same size, (N, 1) each."""
    return float((x.flatten().sort().values - y.flatten().sort().values).abs().mean())


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
far, wide = {}, {}
for name in NAMES:
    for count in COUNTS:
        groups = sampled(name, x_T, count, seeded(300)).split(WALKERS)
        far[name, count] = [distance(x, y) for x, y in zip(groups, truth, strict=True)]
        wide[name, count] = [spread(x) for x in groups]

# %% tags=["plumbing"]
figure, (left, right) = panels(2, width=9, height=3.6)
left.axhspan(min(floor), max(floor), color=GRAY, alpha=0.3, lw=0)
left.text(5, min(floor) * 1.1, "true data against true data", fontsize=8, color=INK)
right.axhline(1, color=GRAY, lw=1)
for axis, values, title in (
    (left, far, "distance from true data (lower is better)"),
    (right, wide, "width of the villages (1 is right)"),
):
    for k, name in enumerate(NAMES):
        runs = torch.tensor([values[name, count] for count in COUNTS])  # (counts, seeds)
        error = runs.std(1) / len(SEEDS) ** 0.5
        beside = [count * (0.93, 1, 1.07)[k] for count in COUNTS]  # so that no bar hides another
        look = {"color": COLORS[k], "ls": ("-", "--", "-.")[k], "marker": "os^"[k], "ms": 4}
        axis.errorbar(beside, runs.mean(1), error, label=name, elinewidth=1.2, **look)
    axis.set(title=title, xlabel="steps", xscale="log")
    axis.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axis.minorticks_off()
left.set_yscale("log")
left.legend(frameon=False, fontsize=9, labelcolor=INK)
right.set_ylim(0.5, 2)
show(
    figure,
    alt="Means of four seeds with their standard errors. Left: distance against number of steps, falling for all three "
    "samplers from 0.2 at 5 steps to the band of the floor at about 100 steps. Right: width of the villages. "
    "All are too wide below 20 steps; then DDPM with the posterior variance is too narrow, DDIM a little less so, "
    "DDPM with beta within a tenth of 1, and all three approach 1 at 1000 steps.",
)
for count in (5, 50, 1000):
    row = ", ".join(f"{name} {mean(wide[name, count]):.2f}" for name in NAMES)
    print(f"widths in {count:4d} steps: {row}")
assert mean(wide["DDPM, beta", 50]) - mean(wide["DDPM, posterior", 50]) > 0.25
assert mean(wide["DDPM, beta", 1000]) - mean(wide["DDPM, posterior", 1000]) < 0.08
assert (
    mean(far["DDPM, posterior", 1000])
    < max(floor)
    < 0.1
    < min(mean(far[name, 5]) for name in NAMES)
)

# %% [markdown]
# On the left: with five steps all three are bad, **with a perfect guide**. DDIM draws from no Gaussian and fails too: it goes
# straight where the path bends. From 100 steps on all three are at the floor.
#
# On the right is a detail that the distance hardly sees. At 20 to 100 steps the posterior variance makes the villages too narrow, by up
# to two fifths, while with $\beta$ they come out nearly right. At 1000 steps the two differ by a few hundredths.
#
# ## Your model: DDPM in 1000 steps against DDIM in 50
#
# Now with pictures. If you trained a model in lesson 5, this is **yours**; otherwise it is the one that ships, which draws
# digits. Sixteen noises go through both samplers. `clip_x0` keeps the guess $\hat x_0$ in $[-1, 1]$, where pictures live.

# %%
checkpoint = your_model(device)
clipped = clip_x0(checkpoint.model, checkpoint.schedule)
few = evenly_spaced(checkpoint.schedule.num_steps, 50)


def noise_of(seed, count, shape=checkpoint.image_shape):
    return torch.randn(count, *shape, generator=seeded(seed)).to(device)


def timed(walk):
    """Where the walk ends, on the CPU, and its seconds."""
    begin = time.perf_counter()
    return last(walk).cpu(), time.perf_counter() - begin


noises = noise_of(0, 16)
again = torch.cat([noises, noises[:4]])  # the first four twice: with other dice
pictures, slow = timed(ddpm(clipped, checkpoint.schedule, again, generator=seeded(1)))
ancestral, other_dice = pictures.split([16, 4])
deterministic, fast = timed(ddim(clipped, checkpoint.schedule, noises, few))
fast *= len(again) / len(noises)  # for as many pictures
print(
    f"{len(again)} pictures on {device}: DDPM in 1000 steps {slow:.1f} s, DDIM in 50 {fast:.2f} s"
)

# %% tags=["plumbing"]
rows = {}
for name, first in (("A to H", 0), ("I to P", 8)):
    rows[f"DDPM 1000, {name}"] = ancestral[first : first + 8]
    rows[f"DDIM 50, {name}"] = deterministic[first : first + 8]
show(
    filmstrip(list(rows.values()), rows=list(rows)),
    alt="Four rows of eight pictures: DDPM in 1000 steps and below it DDIM in 50 steps from the same noises, twice. "
    "Above each other stand different pictures.",
)

# %% [markdown]
# DDIM asks the network a twentieth as often: that is the difference in time. But what decides which picture you get?

# %%
columns = {
    "DDPM 1000, some dice": ancestral[:4],
    "DDPM 1000, other dice": other_dice,
    "DDIM 50": deterministic[:4],
}
for count in (10, 5):
    steps = evenly_spaced(checkpoint.schedule.num_steps, count)
    columns[f"DDIM {count}"] = last(ddim(clipped, checkpoint.schedule, noises[:4], steps)).cpu()


def difference(one, other):
    """Root mean square difference of the pixels, which go from -1 to 1."""
    return float((columns[one] - columns[other]).square().mean().sqrt())


print(
    f"other dice: pixels differ by {difference('DDPM 1000, some dice', 'DDPM 1000, other dice'):.2f}"
)
print(f"DDIM in 10 steps in place of 50: by {difference('DDIM 10', 'DDIM 50'):.2f}")
show(
    filmstrip(list(columns.values()), labels=["noise " + c for c in "ABCD"], rows=list(columns)),
    alt="Five rows of four pictures, a column for each starting noise. The two DDPM rows show different pictures in the "
    "same column. The three DDIM rows, with 50, 10 and 5 steps, show the same picture, with small differences.",
)

# %% [markdown]
# Look down the columns. DDPM makes different pictures out of the same noise: the dice decide, too. DDIM makes
# much the same picture in 5 steps as in 50. For DDIM the noise *is* the picture, in another form.
#
# Now follow two noises down, halt by halt: press *Play*, or drag $t$. Watch $\hat x_0$, what the network believes at each halt.
# (DDPM takes 200 steps here, to save you the waiting.)
#
# 1. Which walk changes its mind, and until when?
# 2. Take 50 DDIM steps instead of 5. Do you get a different picture?
# 3. Then turn $\eta$ to 1. What happens now?

# %%
TrajectoryExplorer(
    clipped, checkpoint.schedule, noises[:2], steps=(5, 10, 50), etas=(0.0, 1.0), ddpm_steps=200
)

# %% [markdown]
# Both begin with the same blur, the mean of many pictures. Coarse things are settled first, fine things last. Without dice the guess
# mostly sharpens. With dice it can still become another picture.
#
# **Are DDIM's pictures as good?** Sixteen pictures cannot say. With 1,000 digits each, no label asked
# for, a distance of lesson 7's kind does not tell DDIM in 50 steps from DDPM in 1000; one larger by a third would probably have shown.
# Which is better depends on the network: measure it.

# %% [markdown]
# ## Between two noises
#
# If a noise is a picture in another form, what lies between two noises? The straight line $(1 - w)\,a + w\,b$ seems obvious, and
# leads astray. A noise of $D$ independent standard normal numbers nearly always has a length close to $\sqrt{D}$: all noises that the network has
# ever seen lie close to a **sphere**. For digits $D = 28 \cdot 28 = 784$, and the radius is 28.

# %% [markdown]
# ### Question 6.C: how long is half of both?
#
# *2 minutes.*
#
# Two independent noises $a$ and $b$, 784 numbers each. How long is their midpoint $(a + b)/2$, typically?
# (The length of a vector is the root of the sum of its squares.)

# %%
# BEGIN SOLUTION
length_of_midpoint = (784 / 2) ** 0.5
# STUB
# length_of_midpoint = ...  # a number
# END SOLUTION

# %%
lesson06.midpoint_length.check(length_of_midpoint)

# %% [markdown]
# So we walk **along the sphere**. This is *spherical linear interpolation*, or slerp. With $\theta$ the angle between $a$ and $b$, each
# seen as one long vector,
#
# $$\cos\theta = \frac{\langle a, b\rangle}{\lVert a\rVert\,\lVert b\rVert}, \qquad
# \mathrm{slerp}(a, b, w) = \frac{\sin((1-w)\,\theta)}{\sin\theta}\,a + \frac{\sin(w\,\theta)}{\sin\theta}\,b,$$
#
# where $\langle a, b\rangle$ is the sum of the products of their entries.

# %% [markdown]
# ### Exercise 6.4: along the sphere
#
# *Difficulty 1 of 3, 5 minutes.*
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
# A walk from one digit to another, by the model that ships. Below it are the midpoints of eight pairs of noises, on the sphere and on the
# straight line.

# %%
digits = load_checkpoint("mnist", device=device)
network = digits.model
clipped_digits = clip_x0(network, digits.schedule)
between = own(lesson06.slerp, slerp)
steps = evenly_spaced(digits.schedule.num_steps, 25)


def drawn(noise):
    return last(ddim(clipped_digits, digits.schedule, noise, steps)).cpu()


WEIGHTS = torch.linspace(0, 1, 9).tolist()
pair = noise_of(0, 2, digits.image_shape).cpu()
walk = drawn(torch.stack([between(*pair, w) for w in WEIGHTS]).to(device))

a, b = noise_of(6, 16, digits.image_shape).cpu().split(8)
middles = {
    "on the sphere": torch.stack([between(*pair, 0.5) for pair in zip(a, b, strict=True)]),
    "straight line": (a + b) / 2,
}
pictures = {name: drawn(middle.to(device)) for name, middle in middles.items()}
for name, middle in middles.items():
    ink = float((pictures[name].mean() + 1) / 2)
    print(
        f"midpoints {name}: length {middle.flatten(1).norm(dim=1).mean():.1f}, mean brightness {ink:.3f}"
    )
assert pictures["straight line"].mean() < pictures["on the sphere"].mean()

# %% tags=["plumbing"]
show(
    filmstrip([walk], labels=[f"w = {w:.3g}" for w in WEIGHTS], rows=["from A to B"]),
    alt="Nine pictures in a row: the digit of noise A on the left turns step by step into the digit "
    "of noise B on the right.",
)
show(
    filmstrip(list(pictures.values()), rows=list(pictures)),
    alt="Two rows of eight pictures. Below each picture of a midpoint on the sphere is the one of the "
    "straight line: alike, but drawn with thinner or fewer strokes.",
)

# %% [markdown]
# On the straight line the noise is too weak, and the pictures come out with **less ink**: thinner and fewer strokes. (Not every
# picture halfway is a digit, on either way.)
#
# ## Back into the noise
#
# DDIM with $\eta = 0$ has no dice, so we can walk it **the other way**, from a picture up to the noise behind it. This is called
# *inversion*, and it is one way to edit existing pictures. To go **up** from $s$ to $t$, swap the roles of $s$ and $t$ in the
# rates:
#
# $$\hat x_0 = \frac{x_s - \sqrt{1-\bar\alpha_s}\,\hat\epsilon}{\sqrt{\bar\alpha_s}}, \qquad
# x_t = \sqrt{\bar\alpha_t}\,\hat x_0 + \sqrt{1-\bar\alpha_t}\,\hat\epsilon.$$
#
# One thing is missing. On the way down we asked at $(x_t, t)$, and $x_t$ is what we are looking for. So we ask with the
# state we have and the step we go to: $\hat\epsilon = \mathrm{model}(x_s, t)$. The shorter the stride, the closer $x_s$ is to
# $x_t$, and the smaller the error.

# %% [markdown]
# ### Exercise 6.5: back into the noise
#
# *Difficulty 3 of 3, 12 minutes. The one to be proud of.*
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
# First in the two villages: up with `count` steps, and down again with the same steps. How far from home do we end?


# %%
def to_noise(model, schedule, x_0, timesteps):
    """The noise behind x_0, wherever x_0 is."""
    with torch.no_grad():
        up = own(lesson06.invert, invert)
        return up(lambda x, t: model(x, t.to(x.device)), schedule, x_0, timesteps).to(x_0)


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
# Twice the steps, half the error: first order again. And with the network? We take eight digits that DDPM draws, for which we
# know no DDIM noise. (Without `clip_x0` this time: what was clipped cannot be undone.) Papers often ask at $(x_s, s)$ instead, so we
# try both. Their first question would be at step 0, for which no network was trained, and we put it at 1.

# %%
shortened = respace(clipped_digits, digits.schedule, evenly_spaced(digits.schedule.num_steps, 100))
found = last(ddpm(*shortened, noise_of(0, 8, digits.image_shape), generator=seeded(1)))


def asked_at_s(model, timesteps):
    """The model, asked at the step that one comes from, though the question names the one above."""
    below = dict(zip(timesteps[:-1], timesteps[1:], strict=True))
    return lambda x, t: model(x, torch.full_like(t, max(below[int(t[0])], 1)))


round_trips, behind, error = {}, {}, {}
for count in (10, 50, 200):
    steps = evenly_spaced(digits.schedule.num_steps, count)
    for at, model in (("t", network), ("s", asked_at_s(network, steps))):
        behind[count, at] = to_noise(model, digits.schedule, found, steps)
        round_trips[count, at] = last(ddim(network, digits.schedule, behind[count, at], steps))
        error[count, at] = float((round_trips[count, at] - found).square().mean().sqrt())
    asked = ", ".join(f"asked at {at} by {error[count, at]:.3f}" for at in "ts")
    print(f"{count:3d} steps up and down: pixels differ, {asked}")
assert error[200, "t"] < error[50, "t"] < error[10, "t"] < error[10, "s"]
assert error[200, "s"] < error[200, "t"] / 2

# %% tags=["plumbing"]
rows = {
    "the picture": found,
    "back, 10 steps": round_trips[10, "t"],
    "its error × 3": 3 * (round_trips[10, "t"] - found),
    "200 steps: error × 3": 3 * (round_trips[200, "t"] - found),
    "asked at s: error × 3": 3 * (round_trips[200, "s"] - found),
}
show(
    filmstrip(list(rows.values()), labels=list("ABCDEFGH"), rows=list(rows)),
    alt="Five rows of eight pictures: digits; the same digits back from the round trip in 10 steps; "
    "the differences, enlarged, with traces along the strokes; the differences for 200 steps, "
    "which are fainter; those of 200 steps with the questions asked at s, hardly to be seen.",
)

# %% [markdown]
# When the network is asked at $t$, its error falls slowly, far from half for twice the steps. Asked at $s$ it is worse in 10 steps, and
# nearly three times smaller in 200. A likely reason: $x_s$ has less noise in it than the network expects at $t$, and a network has
# only learned what to say where training took it.
#
# Now you can walk between pictures that you were **given**: invert both, go along the sphere, come down again.

# %%
steps = evenly_spaced(digits.schedule.num_steps, 50)
one, other = behind[200, "s"][[0, 3]].cpu()
way = torch.stack([between(one, other, w) for w in torch.linspace(0, 1, 7).tolist()])
walk = last(ddim(network, digits.schedule, way.to(found), steps))
lengths = [float(x.norm()) for x in behind[200, "s"]]
print("lengths of the noises found (28 is typical):", " ".join(f"{x:.1f}" for x in lengths))
assert max(lengths) < 24

# %% tags=["plumbing"]
show(
    filmstrip([walk], labels=["picture A", "", "", "", "", "", "picture D"], rows=["walk"]),
    alt="Seven pictures: a given digit on the left turns step by step into another given digit.",
)

# %% [markdown]
# But see the lengths: the noises that inversion finds are *shorter* than typical draws from $\mathcal N(0, I)$. Unlike the weak random
# noise above, each is made for its picture, so no ink is missing.

# %% [markdown]
# ## Key terms
#
# | what people say | what it means |
# |---|---|
# | ancestral sampling, DDPM sampling | draw each state given the noisier one before it, with fresh noise at each step |
# | Markov chain | a sequence in which each state depends only on the one before it |
# | posterior variance, "fixed small" | $\tilde\beta_t$, the variance of $x_{t-1}$ given $x_t$ *and* $x_0$ |
# | "fixed large" | $\sigma_t^2 = \beta_t$ |
# | respacing | keeping some of the steps, as a shorter schedule of larger noisings |
# | DDIM | steps between any $t$ and $s < t$ that keep the old noise; deterministic at $\eta = 0$ |
# | eta | the share of the possible fresh noise: 0 none, 1 as much as ancestral sampling |
# | probability-flow ODE | the differential equation that DDIM's walks solve, $dy/d\varsigma = \hat\epsilon$ |
# | Euler's method | follow the slope straight for a stride, then look again; error of first order |
# | NFE, "number of function evaluations" | how often the network is asked; what sampling costs |
# | slerp | interpolation along the sphere on which noises lie |
# | inversion | DDIM walked upwards: the noise behind a given picture |
#
# ## Claims, measured
#
# <!-- claims -->
#
# <details><summary>Further reading</summary>
#
# - Ho, Jain, Abbeel: *Denoising Diffusion Probabilistic Models*, 2020, arXiv 2006.11239. Algorithm 2 is exercise 6.1; section 3.2
#   has the two variances.
# - Song, Meng, Ermon: *Denoising Diffusion Implicit Models*, 2021, arXiv 2010.02502. Equations 12 and 16 are exercise 6.3;
#   equation 14 is the ODE.
# - Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: *Score-Based Generative Modeling through Stochastic Differential Equations*,
#   2021, arXiv 2011.13456. Both samplers as one equation, with dice and without.
# - Karras, Aittala, Aila, Laine: *Elucidating the Design Space of Diffusion-Based Generative Models*, 2022, arXiv 2206.00364. The
#   ODE in $y$ and $\varsigma$, and better methods for it.
# - Nichol, Dhariwal: *Improved Denoising Diffusion Probabilistic Models*, 2021, arXiv 2102.09672. Learned variances, and
#   respacing, for fewer steps.
# - Bao, Li, Zhu, Zhang: *Analytic-DPM*, 2022, arXiv 2201.06503. The best single variance for each step, in closed form.
# - Xiao, Kreis, Vahdat: *Tackling the Generative Learning Trilemma with Denoising Diffusion GANs*, 2022, arXiv 2112.07804. Long
#   strides with several humps, learned.
#
# </details>

# %% [markdown]
# ## What you can do now
#
# An hour ago you had a network that names noise. Now you can make it a generator in ten lines, with dice or without. You can say
# what is lost when somebody promises fewer steps, and measure it. And you can walk through the space of noises, in both
# directions.
#
# <!-- navigation -->
