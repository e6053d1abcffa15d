# %% [markdown]
# # 3 · The epsilon loss
#
# A whole diffusion model is trained with one line: *guess the noise, get the mean squared error*. In this
# lesson you derive that line, write it, and find out how well any network can do, because for some data the
# best possible answer is known exactly.
#
# **After this lesson you will be able to**
#
# - derive the loss from the variational bound, and say what is dropped on the way,
# - write it by hand, without the mistakes that most first attempts contain,
# - say how low it can get at each $t$, and why never to zero,
# - turn a prediction of the noise into one of $x_0$, of the score or of $v$, and back,
# - judge advice on which $t$ to draw and how to weigh it, by measuring.
#
# **You need** lessons 1 and 2: the rates, the jump, the posterior. Of PyTorch: what a `Module` and an
# optimizer are. **Time:** about <!-- minutes --> minutes.

# %%
import copy

import torch
from torch import nn

import tutorial_lib
from tutorial_lib.checks import lesson03
from tutorial_lib.datasets import circles
from tutorial_lib.explorers import DenoiserExplorer, Playground
from tutorial_lib.forward import diffuse, posterior, predict_x0
from tutorial_lib.hardware import describe_device, pick_device
from tutorial_lib.losses import (
    ImportanceSteps,
    StratifiedSteps,
    UniformSteps,
    epsilon_loss,
    epsilon_losses,
    min_snr_weight,
    p2_weight,
)
from tutorial_lib.oracles import DatasetOracle, GaussianMixtureOracle
from tutorial_lib.plots import COLOURS, filmstrip, panels, show
from tutorial_lib.predictions import eps_from_v, eps_from_x0, velocity
from tutorial_lib.schedules import linear_schedule

BLUE, ORANGE, GREEN, PINK = COLOURS[:4]
GREY = "#666666"
torch.set_num_threads(1)  # for nets as small as these, a second thread costs more than it helps
device = pick_device()
schedule = linear_schedule(1000).to(device)
T = schedule.num_steps


def seeded(seed):
    """A source of random numbers that starts the same way every time."""
    return torch.Generator().manual_seed(seed)


print("tutorial_lib", tutorial_lib.__version__, "| torch", torch.__version__)
print(describe_device(device))

# %% [markdown]
# ## From a bound to one line
#
# We want a model $p_\theta$ ($\theta$: its parameters) that finds the data likely: $-\log p_\theta(x_0)$
# should be small. That number itself is out of reach, since it asks for an average over every path from
# noise to $x_0$. But there is an upper bound that we can calculate, the **variational bound**:
#
# $$-\log p_\theta(x_0) \;\le\; \underbrace{\mathrm{KL}\big(q(x_T\mid x_0)\,\|\,p(x_T)\big)}_{\text{holds no }\theta}
# + \sum_{t=2}^{T} \mathbb E\,\mathrm{KL}\big(q(x_{t-1}\mid x_t, x_0)\,\|\,p_\theta(x_{t-1}\mid x_t)\big)
# + \mathbb E\big[-\log p_\theta(x_0\mid x_1)\big].$$
#
# KL is the Kullback-Leibler divergence, which says how far one distribution is from another; $\mathbb E$ is the
# mean over all that is random, here the noise on the way from $x_0$ to $x_T$; and $p(x_T)$ is pure noise,
# $\mathcal N(0, I)$, where the way back begins. In words: **at each step back, the model should do what the posterior of lesson 2 would do, without having seen $x_0$.**
# From here it takes four moves.
#
# 1. Both distributions are Gaussian. Give the model's a fixed variance $\sigma_t^2$, and the KL is
#    $\frac{1}{2\sigma_t^2}\lVert \tilde\mu_t - \mu_\theta\rVert^2$ plus a constant: only the **means** must
#    agree.
# 2. Put $x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\epsilon)/\sqrt{\bar\alpha_t}$ into the posterior's mean. It
#    becomes
#    $\tilde\mu_t = \frac{1}{\sqrt{\alpha_t}}\big(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon\big)$:
#    all that the model does not know is $\epsilon$.
# 3. So let a network guess it, $\hat\epsilon = \epsilon_\theta(x_t, t)$, and build $\mu_\theta$ by the same
#    formula. The distance of the means is then a distance of noises:
#    $$w_t\,\lVert\epsilon - \hat\epsilon\rVert^2, \qquad w_t = \frac{\beta_t^2}{2\sigma_t^2\,\alpha_t\,(1-\bar\alpha_t)}.$$
# 4. **Drop** $w_t$, and average over $t$ instead of adding up:
#
# $$\boxed{\;L = \mathbb E_{\,t,\;x_0,\;\epsilon}\;\big[\text{mean of }(\epsilon - \epsilon_\theta(x_t, t))^2\big],
# \qquad x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon\;}$$
#
# with $t$ uniform on $1, \dots, T$ and $\epsilon$ standard normal (Ho et al. 2020, eq. 14). "Mean" is over
# the coordinates of $x_0$, so that 1 means the same for points and for pictures.
#
# <details><summary><b>The derivation, line by line</b></summary>
#
# **The bound.** Write $p_\theta(x_0)$ as an average over paths and move the logarithm inside (Jensen):
#
# $$-\log p_\theta(x_0) = -\log \mathbb E_q\!\left[\frac{p_\theta(x_{0:T})}{q(x_{1:T}\mid x_0)}\right]
# \le \mathbb E_q\!\left[-\log\frac{p(x_T)\prod_t p_\theta(x_{t-1}\mid x_t)}{\prod_t q(x_t\mid x_{t-1})}\right].$$
#
# **Turn the steps around.** For $t \ge 2$ Bayes' rule, with everything conditioned on $x_0$, gives
#
# $$q(x_t\mid x_{t-1}) = q(x_{t-1}\mid x_t, x_0)\,\frac{q(x_t\mid x_0)}{q(x_{t-1}\mid x_0)}.$$
#
# In the product over $t$ the fractions cancel one another and leave $q(x_T\mid x_0)/q(x_1\mid x_0)$. What
# stands there now is the bound above, one KL a step.
#
# **Two Gaussians.** With means $\tilde\mu$, $\mu_\theta$ and variances $\tilde\beta I$, $\sigma^2 I$ in $D$
# dimensions,
# $\mathrm{KL} = \frac{1}{2\sigma^2}\lVert\tilde\mu-\mu_\theta\rVert^2 + \frac D2\big(\tilde\beta/\sigma^2 - 1 - \log(\tilde\beta/\sigma^2)\big)$.
# The second part holds no $\theta$, and is 0 for $\sigma^2 = \tilde\beta$.
#
# **The mean.** The posterior's mean is
# $\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}x_0 + \frac{\sqrt{\alpha_t}(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}x_t$.
# With $x_0$ replaced, and $\bar\alpha_t = \alpha_t\bar\alpha_{t-1}$, the factor of $x_t$ is
#
# $$\frac{\beta_t + \alpha_t(1-\bar\alpha_{t-1})}{\sqrt{\alpha_t}\,(1-\bar\alpha_t)} = \frac{1-\bar\alpha_t}{\sqrt{\alpha_t}\,(1-\bar\alpha_t)}
# = \frac{1}{\sqrt{\alpha_t}},$$
#
# and that of $\epsilon$ is
# $-\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\cdot\frac{\sqrt{1-\bar\alpha_t}}{\sqrt{\bar\alpha_t}} = -\frac{\beta_t}{\sqrt{\alpha_t}\,\sqrt{1-\bar\alpha_t}}$.
# The difference of two such means is
# $\frac{\beta_t}{\sqrt{\alpha_t}\sqrt{1-\bar\alpha_t}}(\hat\epsilon-\epsilon)$; its square over
# $2\sigma_t^2$ is move 3.
#
# **The last step,** $-\log p_\theta(x_0\mid x_1)$, is
# $\frac{1}{2\sigma_1^2}\lVert x_0 - \mu_\theta\rVert^2$ plus a constant. As $\tilde\mu_1 = x_0$, it has the
# same form. (It needs $\sigma_1^2 > 0$; we take $\sigma_t^2 = \beta_t$.)
#
# </details>
#
# Trust, and measure: the cell compares both forms of the posterior's mean, and looks at the weight that was
# dropped, for $\sigma_t^2 = \beta_t$.

# %%
# NBVAL_CHECK_OUTPUT
t = torch.arange(1, T + 1, device=device)
x0 = torch.randn(T, 2, generator=seeded(0)).to(device)
eps = torch.randn(T, 2, generator=seeded(1)).to(device)
x_t = diffuse(schedule, x0, t, eps)

mean, _ = posterior(schedule, x0, x_t, t)
eps_factor = schedule.beta / schedule.noise_rate[1:]
same_mean = (x_t - eps_factor[:, None] * eps) / schedule.alpha.sqrt()[:, None]
difference = float((mean - same_mean).abs().max())
assert difference < 1e-5

dropped_weight = schedule.beta / (2 * schedule.alpha * (1 - schedule.alpha_bar[1:]))  # w_t
print("the two forms of the mean agree:", difference < 1e-5)
print(
    f"w_1 = {dropped_weight[0]:.2f}, w_1000 = {dropped_weight[-1]:.3f}: "
    f"{dropped_weight[0] / dropped_weight[-1]:.0f} to 1"
)

# %% [markdown]
# So dropping $w_t$ is no formality: in the bound the first step counts 49 times as much as the last one, in
# the simple loss they count the same. At the end of the lesson we put weights back in and see what they do.
#
# ## A world that we know
#
# Our data are points in the plane: eight round clusters on a ring. That is small enough to train on in
# seconds and, as you will see, to know everything about. The network is small too. It gets the two
# coordinates of $x_t$ and, so that it knows $t$, the signal rate and the noise rate (a better way to tell a
# network the time is a topic of lesson 4).

# %%
CLUSTERS, SPREAD = 8, 0.2
angle = torch.arange(CLUSTERS) * 2 * torch.pi / CLUSTERS
ring = 1.4 * torch.stack([angle.cos(), angle.sin()], 1)  # (8, 2)
oracle = GaussianMixtureOracle(
    schedule,
    means=ring.to(device),
    variances=torch.full((CLUSTERS,), SPREAD**2, device=device),
    weights=torch.ones(CLUSTERS, device=device),
)


def draw_data(count, generator):
    """Clean points (count, 2)."""
    return oracle.sample(count, generator).float()


class SmallNet(nn.Module):
    """Says eps_hat (B, 2) for points x_t (B, 2) at steps t (B,)."""

    def __init__(self, width=64):
        super().__init__()
        rates = torch.stack([schedule.signal_rate, schedule.noise_rate], 1)
        self.register_buffer("rates", rates.float())  # (T + 1, 2)
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x_t, t):
        return self.layers(torch.cat([x_t, self.rates[t]], 1))


points = draw_data(400, seeded(2))
noise = torch.randn(points.shape, generator=seeded(3)).to(device)
figure, plots = panels(5, width=7.6, height=1.8, share_x=True, share_y=True)
for plot, step in zip(plots, (0, 40, 120, 250, 1000), strict=True):
    x_t = diffuse(schedule, points, torch.full((len(points),), step, device=device), noise).cpu()
    plot.scatter(*x_t.T, s=3, color=BLUE, linewidths=0)
    plot.set_title(f"t = {step}", fontsize=10)
    plot.set(aspect="equal", xlim=(-3, 3), ylim=(-3, 3), xticks=(-2, 0, 2), yticks=(-2, 0, 2))
show(
    figure,
    alt="Five clouds of points. t = 0: eight separate clusters on a ring. t = 40: eight "
    "blurred clusters that touch. t = 120: a ring without clusters. t = 250 and 1000: round clouds.",
)

# %% [markdown]
# Look at what is forgotten when: at $t = 40$ you still see the clusters, at $t = 120$ only the ring, at
# $t = 250$ a round cloud. Remember these steps.
#
# ### Exercise 3.1: the epsilon loss
#
# *Difficulty 2 of 3, 12 minutes.*
#
# Write `my_epsilon_loss(model, schedule, x0, generator)`. It takes
#
# - `model`, called as `model(x_t, t)`, which answers with the noise it sees: `eps_hat`, the shape of `x_t`;
# - `schedule` with its `num_steps` (that is $T$) and all that lesson 1 gave it;
# - `x0`, clean data of shape (B, ...): points (B, 2) or pictures (B, C, H, W);
# - `generator`, a `torch.Generator` that all random numbers are to be drawn from,
#
# and returns **one number**, the loss, as a tensor of shape `()` that carries a gradient. Three calls that
# you need: `torch.randint(low, high, shape, generator=generator)` draws whole numbers from `low` to
# `high - 1`; `torch.randn(shape, generator=generator)` draws standard normal ones;
# `diffuse(schedule, x0, t, eps)` is the jump of lesson 2, with `t` int64 of shape (B,). (The check runs on
# the CPU, so do not worry about devices.)


# %%
def my_epsilon_loss(model, schedule, x0, generator):
    # BEGIN SOLUTION lesson03.epsilon_loss
    ...
    # END SOLUTION


# %%
lesson03.epsilon_loss.check(my_epsilon_loss)

# %% [markdown]
# This is all of training: draw data, take the loss, make a step downhill, repeat. `fit` does that, with the
# library's `epsilon_loss`, and keeps copies of the network on the way.


# %%
def fit(net, loss_of, *, steps, seed, keep_at=()):
    """Trains ``net`` on ``loss_of(x0, generator)``; the losses, and copies of it at ``keep_at``."""
    generator = seeded(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3, fused=True)
    losses, kept = [], {}
    for step in range(steps):
        if step in keep_at:
            kept[step] = copy.deepcopy(net)
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)  # down to 0 in the end
        loss = loss_of(draw_data(256, generator), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).cpu(), kept | {steps: copy.deepcopy(net)}


def new_net(seed):
    torch.manual_seed(seed)
    return SmallNet().to(device)


net = new_net(seed=0)
losses, kept = fit(
    net,
    lambda x0, generator: epsilon_loss(net, schedule, x0, generator=generator),
    steps=2000,
    seed=0,
    keep_at=(0, 20, 50, 100, 200, 300, 500, 700, 1000, 1400),
)
running = losses.unfold(0, 50, 1).mean(1)  # mean over 50 steps

figure, (plot,) = panels(1, width=5.6, height=2.2)
plot.plot(range(0, 2000, 10), losses[::10], color="#aaccee", lw=0.8)
plot.plot(range(25, 25 + len(running)), running, color=BLUE)
plot.set(xlabel="training step", ylabel="loss", ylim=(0, 1.1))
show(
    figure,
    alt="The training loss: it falls from 1 to about 0.25 within 200 steps and then stays "
    "there, jumping up and down, until step 2000.",
)
middle, end = float(losses[400:800].mean()), float(losses[1600:].mean())
print(
    f"first loss {losses[0]:.2f}, mean of steps 400 to 800: {middle:.3f}, of 1600 to 2000: {end:.3f}"
)
assert losses[0] > 0.8
assert abs(end - middle) < 0.02

# %% [markdown]
# The loss begins near 1, which is what *any* model gets that always answers 0: the noise has variance 1. It
# drops to a quarter, and then hardly moves for 1800 steps. Is the network finished? Is it bad? From this
# curve alone nobody can say. Nearly every newcomer stumbles here, so let us find out what the best possible
# curve would be.
#
# ## The best possible answer
#
# A weather forecaster who says "70 % rain" every time it rains in 7 of 10 cases is perfect, and is still
# often wrong. Her score has a **floor** that comes from the weather and not from her. Denoising is like
# that. Shown $x_t$, nobody can know *the* noise in it, because many pairs $(x_0, \epsilon)$ give the same
# $x_t$. The best guess is the mean of all the noises that could be in there, weighed by how likely they
# are:
#
# $$\epsilon^*(x_t, t) = \mathbb E[\epsilon \mid x_t],$$
#
# and for every network the loss at step $t$ splits into two parts (the block says why):
#
# $$\underbrace{\mathbb E\,(\epsilon - \hat\epsilon)^2}_{\text{loss}}
# \;=\; \underbrace{\mathbb E\,(\epsilon - \epsilon^*)^2}_{\text{floor: the variance of }\epsilon\text{ given }x_t}
# \;+\; \underbrace{\mathbb E\,(\epsilon^* - \hat\epsilon)^2}_{\text{excess: the network's own error}}$$
#
# <details><summary><b>Why the loss splits</b></summary>
#
# Write $\epsilon - \hat\epsilon = (\epsilon - \epsilon^*) + (\epsilon^* - \hat\epsilon)$ and square. The
# mixed term is $2\,\mathbb E\big[(\epsilon - \epsilon^*)(\epsilon^* - \hat\epsilon)\big]$. Average it first
# over all $\epsilon$ that belong to one $x_t$: the second bracket depends on $x_t$ only and stays as it is,
# the first one averages to $\mathbb E[\epsilon\mid x_t] - \epsilon^* = 0$. So the mixed term is 0, and the
# minimum over all functions of $x_t$ is reached at $\hat\epsilon = \epsilon^*$.
#
# </details>
#
# For our ring $\epsilon^*$ has a formula. After $t$ noisings a Gaussian cluster with mean $m_k$ and
# variance $v$ is a Gaussian with mean $\sqrt{\bar\alpha_t}\,m_k$ and variance
# $\bar\alpha_t v + 1 - \bar\alpha_t$, so $x_t$ tells how likely each cluster is (Bayes' rule), and within a
# cluster the best guess is linear:
#
# $$\epsilon^*(x_t, t) = \sqrt{1-\bar\alpha_t}\;\sum_k p(k\mid x_t)\;\frac{x_t - \sqrt{\bar\alpha_t}\,m_k}{\bar\alpha_t v + 1-\bar\alpha_t}.$$
#
# <details><summary><b>Why linear within a cluster</b></summary>
#
# Given the cluster, $\epsilon$ and $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$ are
# jointly Gaussian, coordinate by coordinate. For such a pair
# $\mathbb E[\epsilon\mid x_t] = \frac{\mathrm{Cov}(\epsilon, x_t)}{\mathrm{Var}(x_t)}\,(x_t - \mathbb E\,x_t)$,
# with covariance $\sqrt{1-\bar\alpha_t}$ and variance $\bar\alpha_t v + 1 - \bar\alpha_t$.
#
# </details>
#
# In the library it is `GaussianMixtureOracle`, an **oracle**: called like a network, `oracle(x_t, t)`,
# untrained and exact. It is the `oracle` that we drew the data from.
#
# ### Exercise 3.2: the loss at each step
#
# *Difficulty 1 of 3, 5 minutes.*
#
# One number for all $t$ hides too much. Write `loss_by_step(model, schedule, x0, steps, eps)`: `steps` is a
# list of S step numbers, for example `[1, 10, 100]`. For each of them noise **all** of `x0` (B, ...) to
# that step with the noise `eps` that is handed in (the same for every step), ask the model, and take the
# mean of the squared errors over samples and coordinates. Return these S numbers as a tensor of shape (S,).
#
# `torch.full((len(x0),), step)` makes the `t` of shape (B,) that `diffuse` and the model want;
# `torch.stack(list_of_numbers)` makes one tensor of S of them.


# %%
def loss_by_step(model, schedule, x0, steps, eps):
    # BEGIN SOLUTION lesson03.loss_by_step
    ...
    # END SOLUTION


# %%
lesson03.loss_by_step.check(loss_by_step)

# %% [markdown]
# The next cell does the same with the library's `epsilon_losses`, one number a *sample*, so that it can say
# how sure each mean is: its **standard error** is the standard deviation of the samples over $\sqrt B$.

# %%
STEPS = [1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 70, 95, 125, 160, 200, 250, 300, 360, 430, 500, 600, 700,
         800, 900, 1000]  # fmt: skip


@torch.no_grad()
def by_step(model, draw=draw_data, count=6000, seed=4):
    """Loss and its standard error at each of STEPS, fresh data and noise at each."""
    generator, means, errors = seeded(seed), [], []
    for step in STEPS:
        x0 = draw(count, generator)
        t = torch.full((count,), step, device=device)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        each = epsilon_losses(model, schedule, x0, t, noise)
        means.append(each.mean().cpu())
        errors.append(each.std().cpu() / count**0.5)
    return torch.stack(means), torch.stack(errors)


floor, floor_error = by_step(oracle)
early, _ = by_step(kept[100])
final, _ = by_step(net)

figure, (plot,) = panels(1, width=6, height=2.9)
plot.axhline(1, color=GREY, ls=":")
plot.text(1000, 1.03, "always answering 0", color=GREY, ha="right")
plot.plot(STEPS, early, color=ORANGE, ls="--")
plot.plot(STEPS, final, color=BLUE)
plot.plot(STEPS, floor, color="black", lw=2.5)
plot.fill_between(
    STEPS, floor - 2 * floor_error, floor + 2 * floor_error, color="black", alpha=0.25
)
plot.annotate("network, 100 steps", (95, early[STEPS.index(95)]), (110, 0.88), color=ORANGE)
plot.annotate(
    "network, 2000 steps",
    (50, final[STEPS.index(50)]),
    (4, 0.5),
    color=BLUE,
    arrowprops={"arrowstyle": "-", "color": BLUE},
)
plot.text(270, 0.3, "floor (exact answer)", ha="right")
plot.set(xlabel="t (logarithmic)", ylabel="mean squared error", xscale="log", ylim=(0, 1.25))
show(
    figure,
    alt="Loss against t. The floor starts at 1, sinks to 0.6 at t = 70, halts there until "
    "t = 200 and falls to 0 at t = 1000. The trained network runs above it by up to 0.1 for t below "
    "100 and lies on it beyond. After 100 training steps the distance is larger.",
)

print("largest standard error of the floor:", f"{float(floor_error.max()):.3f}")
print(f"floor at t = 1: {floor[0]:.2f}, at t = 1000: {floor[-1]:.5f}")
assert (final > floor - 4 * floor_error).all()
assert floor[0] > 0.95
assert floor[-1] < 1e-3

# %% [markdown]
# Look at the black line first: **no network can get below it** (the gray band is two standard errors wide
# each way). The blue network has reached it beyond $t = 100$. Below it has still something to learn, and at
# the very left it is even worse than always saying 0. The floor tells a story about the data:
#
# - At $t = 1$ it is 1. The noise has standard deviation 0.01, the clusters are 0.2 wide, and from $x_t$ you
#   cannot say how much of a point's place is noise. The loss is *largest where $x_t$ looks cleanest*.
# - At large $t$ it goes to 0. Nearly all of $x_t$ is noise, so $x_t$ *is* the answer. (Which teaches the
#   network nothing about the data.)
# - In between it falls, halts where the clusters melt into one ring (between $t = 40$ and $t = 250$ above),
#   and falls again: while they melt, which cluster a point came from is one more thing that cannot be
#   known.
#
# ### Question 3.A: the floor under one Gaussian
#
# *Difficulty 2 of 3, 3 minutes.*
#
# For the simplest data you can calculate the floor in your head. Let $x_0$ be a single standard normal
# number (variance 1), and $\bar\alpha_t = 0.36$. The formula above, with one cluster, $m = 0$ and $v = 1$,
# gives $\epsilon^* = \sqrt{1 - \bar\alpha_t}\;x_t$. How large is the floor
# $\mathbb E(\epsilon - \epsilon^*)^2$?
#
# A help: $\epsilon^*$ and what is left of $\epsilon$ are uncorrelated, so their variances add up to that of
# $\epsilon$, which is 1.

# %%
# BEGIN SOLUTION
floor_of_a_gaussian = 0.36
# END SOLUTION

# %%
lesson03.floor_of_a_gaussian.check(floor_of_a_gaussian)

# %% [markdown]
# The general rule for standard normal data is simple enough to test the oracle with: the measured floor
# should follow it at every $t$ to within its standard error.

# %%
one_gaussian = GaussianMixtureOracle(
    schedule,
    torch.zeros(1, 1, device=device),
    torch.ones(1, device=device),
    torch.ones(1, device=device),
)
measured, error = by_step(one_gaussian, lambda n, g: torch.randn(n, 1, generator=g).to(device))
off = ((measured - schedule.alpha_bar[STEPS].cpu()) / error).abs()
print(f"measured floor against the rule: at most {float(off.max()):.1f} standard errors apart")
assert off.max() < 4

# %% [markdown]
# ### Question 3.B: the flat curve
#
# *1 minute.*
#
# Back to the training curve, which went flat at about 0.245, where the mean floor is about 0.233. What does
# it tell you?
#
# - a) The network has learned what it can: stop training.
# - b) The learning rate is too high, or the loss would go on falling.
# - c) Little. Nearly all of it is the floor; what is left to learn does not show on this scale.
# - d) The network is too small: a larger one would bring the loss to 0.

# %%
# BEGIN SOLUTION
flat_curve = "c"
# END SOLUTION

# %%
lesson03.flat_curve.check(flat_curve)

# %% [markdown]
# With an oracle at hand we can look at the **excess** alone: how far the network is from the exact answer,
# at points $x_t$ with every $t$ from 1 to 1000 among them. There is no noise in the target any more, so
# this is a sharp measure.

# %%
COUNT = 16_000
test_x0 = draw_data(COUNT, seeded(5))
test_t = (torch.arange(COUNT) % T + 1).to(device)
test_noise = torch.randn(COUNT, 2, generator=seeded(6)).to(device)
test_x_t = diffuse(schedule, test_x0, test_t, test_noise)
exact = oracle(test_x_t, test_t)
floor_each = (exact - test_noise).square().mean(1)
mean_floor = float(floor_each.mean())


@torch.no_grad()
def excess(model):
    """(eps* - eps_hat)^2 at each test point, (COUNT,)."""
    return (model(test_x_t, test_t) - exact).square().mean(1)


excess_at = {step: float(excess(model).mean()) for step, model in kept.items()}

figure, (left, right) = panels(2, width=6.8, height=2.3)
left.plot(range(25, 25 + len(running)), running, color=BLUE)
left.axhline(mean_floor, color="black")
left.text(1950, mean_floor - 0.1, "floor", ha="right")
left.text(300, 0.33, "loss", color=BLUE)
left.set(ylim=(0, 1.1), xlabel="training step", title="The loss looks flat")
right.plot(excess_at.keys(), excess_at.values(), color=BLUE, marker="o", ms=4)
right.set(yscale="log", xlabel="training step", title="The excess above the floor does not")
show(
    figure,
    alt="Left: the training loss falls to just above the line of the floor and looks flat. "
    "Right: the excess, on a logarithmic scale, keeps falling through all 2000 steps.",
)

with torch.no_grad():
    whole = float((net(test_x_t, test_t) - test_noise).square().mean())
print(f"mean floor {mean_floor:.4f} +- {float(floor_each.std()) / COUNT**0.5:.4f} (standard error)")
print(
    f"loss {whole:.4f} = floor {mean_floor:.4f} + excess {excess_at[2000]:.4f} "
    f"+ mixed term {whole - mean_floor - excess_at[2000]:+.4f}"
)
print(
    f"excess at step 200: {excess_at[200]:.4f}, at 2000: {excess_at[2000]:.4f}, "
    f"{excess_at[200] / excess_at[2000]:.1f} times less"
)
assert abs(whole - mean_floor - excess_at[2000]) < 0.006
assert excess_at[200] > 3 * excess_at[2000]

# %% [markdown]
# Left: what everybody looks at. Right: what happened meanwhile. For pictures no oracle is at hand, so
# remember it as a rule: **a flat loss does not mean that training is over.** Compare losses at the same $t$
# with each other, and judge by what the model draws.
#
# Where does it err? Below, the thin arrows are the network's $\hat\epsilon$ at each place, the thick lines
# below them the exact answer. Drag $t$ slowly from right to left, and watch three things: how long do the
# two agree, what becomes of the blue squares in the middle (the guesses $\hat\epsilon$, beside the true
# $\epsilon$), and, at the very left, where do the arrows differ most? (*Model − oracle* shows that alone.)

# %%
DenoiserExplorer(net, schedule, draw_data(300, seeded(12)), oracle=oracle, t=40)

# %% [markdown]
# They agree down to about $t = 250$. The squares begin on top of the true noises and shrink to a small heap in
# the middle: the less there is to be known, the shorter the best guess. And the errors are largest **where no
# points are**, in the hole of the ring and far outside. There the network was never corrected, since the loss
# only counts where training points come.
#
# ## A perfect memory
#
# There is a second kind of data for which the best answer is known: any **finite set**, $x_1, \dots, x_N$.
# Your training set, for example! Think of a line-up. A witness saw somebody through frosted glass ($x_t$),
# and $N$ suspects stand in a row. Seen through the same glass, suspect $i$ would be found around
# $\sqrt{\bar\alpha_t}\,x_i$ with variance $1-\bar\alpha_t$ in each coordinate. So, by Bayes' rule, if
# beforehand all are equally likely,
#
# $$p(i\mid x_t) = \frac{q(x_t\mid x_i)}{\sum_j q(x_t\mid x_j)}, \qquad
# q(x_t\mid x_i) \propto \exp\!\left(-\frac{\lVert x_t - \sqrt{\bar\alpha_t}\,x_i\rVert^2}{2\,(1-\bar\alpha_t)}\right).$$
#
# Exponentials divided by their sum: that is a **softmax** over the members $i$, and what stands in the
# exponent are its **logits**. The best guess of the clean data is the mean of the suspects, each with his
# share:
#
# $$\hat x_0 = \mathbb E[x_0\mid x_t] = \sum_i p(i\mid x_t)\;x_i.$$
#
# ### Exercise 3.3: the perfect memory
#
# *Difficulty 3 of 3, 15 minutes. The one to be proud of: in three lines you beat every network, on its own
# training set.*
#
# Write `posterior_mean(schedule, data, x_t, t)` for points: `data` (N, D) is the set, `x_t` (B, D) are
# noisy points, and `t` (B,) int64 in 1..T are their steps. Return $\hat x_0$, of shape (B, D).
#
# Three things that help:
#
# - `a[:, None, :] - b` with `a` (B, D) and `b` (N, D) gives all differences at once, (B, N, D). A number
#   for each sample joins in when it has shape (B, 1, 1): `schedule.signal_rate[t][:, None, None]`.
#   Where it meets a table (B, N), (B, 1) is enough: `[:, None]`.
# - `logits.softmax(1)` with logits (B, N) makes each row sum to 1, and does not overflow or underflow.
# - The schedule is float64, data are often float32. Sums mix them by themselves; before a matrix product
#   `@`, bring both to one type with `.double()`.


# %%
def posterior_mean(schedule, data, x_t, t):
    # BEGIN SOLUTION lesson03.posterior_mean
    ...
    # END SOLUTION


# %%
lesson03.posterior_mean.check(posterior_mean)

# %% [markdown]
# The library's `DatasetOracle` does this for data of any shape. Let it remember 24 pictures of colored
# discs (pictures are points, in 3072 dimensions), noise one of the 24, and ask it what the clean one looked
# like.

# %%
album = circles(24, size=32, seed=7).images.to(device)
memory = DatasetOracle(schedule, album)
picture_steps = [50, 200, 400, 600, 700, 800, 900, 950, 1000]
t = torch.tensor(picture_steps, device=device)
one = album[3].expand(len(t), -1, -1, -1)
noise = torch.randn(one.shape, generator=seeded(8)).to(device)
noisy = diffuse(schedule, one, t, noise)
remembered = memory.posterior_mean(noisy, t)
share = memory.weights(noisy, t)[:, 3]

show(
    filmstrip(
        [noisy.cpu(), remembered.cpu()],
        labels=[f"t = {step}" for step in picture_steps],
        rows=["x_t", "x0_hat"],
    ),
    alt="Upper row: a colored disc that drowns in noise from left to right. Lower row: what the "
    "perfect memory says: the very same disc, sharp, up to t = 600, where the upper row is "
    "plain snow; from t = 700 on a mixture of several pictures, at last of all 24.",
)
print("share of the right picture:", " ".join(f"{float(s):.2f}" for s in share))
assert share[picture_steps.index(600)] > 0.99
assert share[-1] < 0.9

# %% [markdown]
# Look at the lower row. Where you see only snow, the memory still names the right picture, sharp and
# without doubt: 3072 pixels, each of them a weak clue. Only beyond $t = 600$ it begins to hesitate, and
# answers with a mixture of pictures.
#
# That is a warning. **The lowest training loss of all belongs to a model that has memorized the training
# set** and could only ever draw its members. On the ring we can measure it. We give a memory 64 points to
# learn by heart, and take its loss on these 64 and on new points from the same ring.

# %%
album_of_points = draw_data(64, seeded(9))
memory = DatasetOracle(schedule, album_of_points)


def from_the_album(count, generator):
    return album_of_points[torch.randint(64, (count,), generator=generator).to(device)]


on_known, _ = by_step(memory, from_the_album)
on_new, _ = by_step(memory, draw_data)

figure, (plot,) = panels(1, width=5.8, height=2.6)
plot.plot(STEPS, on_new, color=ORANGE, ls="--")
plot.plot(STEPS, floor, color="black", lw=2.5)
plot.plot(STEPS, on_known, color=GREEN, ls="-.")
plot.text(9, 12, "memory, on new points", color=ORANGE)
plot.text(1.1, 1.6, "floor of the ring", color="black")
plot.text(3.5, 0.035, "memory, on its 64 points", color=GREEN)
plot.set(
    xlabel="t (logarithmic)",
    ylabel="loss (logarithmic)",
    xscale="log",
    yscale="log",
    ylim=(1e-3, 1e3),
)
show(
    figure,
    alt="Loss against t on logarithmic axes. On its own points the memory is far below the "
    "floor at small t; on new points it is far above it. At large t all three curves meet.",
)

known_x_t = diffuse(schedule, from_the_album(COUNT, seeded(11)), test_t, test_noise)
mean_known = float((memory(known_x_t, test_t) - test_noise).square().mean())
mean_new = float((memory(test_x_t, test_t) - test_noise).square().mean())
print(
    f"mean over all t: on its own points {mean_known:.3f}, floor {mean_floor:.3f}, "
    f"on new points {mean_new:.3f}"
)
print(f"at t = 1: {on_known[0]:.3f}, {floor[0]:.3f}, {on_new[0]:.0f}")
assert mean_known < mean_floor < mean_new
assert (on_known[:8] < floor[:8]).all()
assert (on_new > floor - 4 * floor_error).all()
assert on_new[0] > 10

# %% [markdown]
# Green below black: on what it knows the memory beats even the oracle of the ring, since knowing the set is
# knowing more. Orange above black: on new points it is worse, and at small $t$ worse than saying 0. So a
# training loss *below the floor* would be no success, it would be memorizing. What keeps real networks from
# it is that they cannot store everything and prefer smooth answers; with few pictures and long training
# they do memorize. Always look at the loss on held-out data too.
#
# ## One thing, four names
#
# Papers let networks predict the noise, the clean data, the **score**, or a thing called $v$. Think of one
# amount of money in four currencies. If you know $x_t$ and $t$, the rates of exchange are fixed, and any
# one of the four gives you the other three:
#
# | what | from $\hat\epsilon$ | meaning |
# |---|---|---|
# | $\hat x_0$ | $(x_t - \sqrt{1-\bar\alpha_t}\,\hat\epsilon)\,/\,\sqrt{\bar\alpha_t}$ | the jump solved for $x_0$ (lesson 2) |
# | score $\nabla_{x_t}\log q(x_t)$ | $-\hat\epsilon\,/\,\sqrt{1-\bar\alpha_t}$ | which way the density rises fastest |
# | $\hat v$ | $(\hat\epsilon - \sqrt{1-\bar\alpha_t}\,x_t)\,/\,\sqrt{\bar\alpha_t}$ | $v = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1-\bar\alpha_t}\,x_0$ |
#
# **The score.** Given $x_0$, the density of $x_t$ is a Gaussian around $\sqrt{\bar\alpha_t}\,x_0$ with
# variance $1 - \bar\alpha_t$. The gradient of its logarithm is
# $-(x_t - \sqrt{\bar\alpha_t}\,x_0)/(1-\bar\alpha_t)$, and the bracket is
# $\sqrt{1-\bar\alpha_t}\,\epsilon$. So it is $-\epsilon/\sqrt{1-\bar\alpha_t}$. Averaging over all $x_0$
# that could be behind $x_t$ turns the left side into the score of the whole data and $\epsilon$ into
# $\epsilon^*$. In words: **noise leads away from the data, the score leads back.**
#
# <details><summary><b>Why averaging gives the score of all data</b></summary>
#
# $q(x_t) = \mathbb E_{x_0}\,q(x_t\mid x_0)$, therefore
#
# $$\nabla\log q(x_t) = \frac{\mathbb E_{x_0}\nabla q(x_t\mid x_0)}{q(x_t)}
# = \mathbb E_{x_0}\!\left[\frac{q(x_t\mid x_0)}{q(x_t)}\,\nabla\log q(x_t\mid x_0)\right]
# = \mathbb E\big[\nabla\log q(x_t\mid x_0)\,\big|\,x_t\big],$$
#
# by Bayes' rule in the last step (Vincent 2011).
#
# </details>
#
# ### Exercise 3.4: from noise to score
#
# *Difficulty 1 of 3, 3 minutes.*
#
# Write `score_from_eps(schedule, eps_hat, t)`: `eps_hat` (B, ...), `t` (B,) in 1..T; return the score, in
# the shape of `eps_hat`. As in lesson 2, a rate `schedule.noise_rate[t]` of shape (B,) must be reshaped to
# (B, 1, ...) before it meets points or pictures: `.reshape(-1, *[1] * (eps_hat.ndim - 1))` does it for
# both.


# %%
def score_from_eps(schedule, eps_hat, t):
    # BEGIN SOLUTION lesson03.score_from_eps
    ...
    # END SOLUTION


# %%
lesson03.score_from_eps.check(score_from_eps)

# %% [markdown]
# Is it true? The oracle knows $\log q(x_t)$, and PyTorch can differentiate it. The two share no line of the
# formula above.


# %%
def score_of(model, x_t, t):
    return -model(x_t, t) / schedule.noise_rate[t].to(x_t)[:, None]


x = test_x_t[:2000].to(schedule.alpha_bar.dtype, copy=True).requires_grad_()
(gradient,) = torch.autograd.grad(oracle.log_density(x, test_t[:2000]).sum(), x)
score = score_of(oracle, x.detach(), test_t[:2000])
relative = float((gradient - score).norm() / gradient.norm())
print("score from eps against the gradient of the log density agree:", relative < 1e-4)
assert relative < 1e-4

axis = torch.linspace(-2.4, 2.4, 8)
grid = torch.cartesian_prod(axis, axis).to(device)
figure, plots = panels(3, width=6.8, height=2.75, share_x=True, share_y=True)
for plot, step in zip(plots, (40, 120, 600), strict=True):
    t = torch.full((len(grid),), step, device=device)
    arrow = nn.functional.normalize(score_of(oracle, grid, t), dim=1)
    plot.scatter(*ring.T * float(schedule.signal_rate[step]), color=ORANGE, s=18, linewidths=0)
    plot.quiver(*grid.cpu().T, *arrow.cpu().T, color=BLUE, scale=13, width=0.009)
    plot.set_title(f"t = {step}", fontsize=10)
    plot.set(aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
show(
    figure,
    alt="The direction of the score as arrows on a grid, with the middles of the clusters as "
    "dots. t = 40: arrows lead to the nearest of eight dots. t = 120: to the ring of dots. t = 600: "
    "to the middle.",
)
with torch.no_grad():
    agreement = nn.functional.cosine_similarity(net(test_x_t, test_t), exact, dim=1)
print(
    "cosine of the angle between the network's answer and the exact one, median:",
    f"{float(agreement.median()):.3f}",
)
assert agreement.median() > 0.98

# %% [markdown]
# Look at where the arrows lead (they show the direction only; the dots are the clusters' middles): at
# $t = 600$ to the middle, at $t = 120$ to the ring, at $t = 40$ to the nearest cluster. Follow them while
# $t$ sinks, and you walk from noise to data; lesson 6 does just that. The network has learned these arrows
# from nothing but guessing noise.
#
# **And $v$?** At $t = T$ a network that predicts $x_0$ must work hardest, one that predicts noise has
# nothing to do; at $t = 1$ it is the other way round. $v$ is a compromise. Since
# $\bar\alpha_t + (1-\bar\alpha_t) = 1$, the two rates are the cosine and the sine of an angle, and
#
# $$x_t = \cos\varphi\;x_0 + \sin\varphi\;\epsilon, \qquad v = \cos\varphi\;\epsilon - \sin\varphi\;x_0$$
#
# is the pair $(x_0, \epsilon)$ turned by that angle. Turn it back and you have both:
# $x_0 = \cos\varphi\,x_t - \sin\varphi\,v$ and $\epsilon = \sin\varphi\,x_t + \cos\varphi\,v$, without a
# division by a small number at any $t$.
#
# ### Exercise 3.5: the target v
#
# *Difficulty 1 of 3, 3 minutes.*
#
# Write `v_target(schedule, x0, t, eps)`, what a network that predicts $v$ is trained on:
# $\sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1-\bar\alpha_t}\,x_0$. `x0` and `eps` have shape (B, ...), `t`
# (B,); return the shape of `x0`. The rates want the same reshaping as before.


# %%
def v_target(schedule, x0, t, eps):
    # BEGIN SOLUTION lesson03.v_target
    ...
    # END SOLUTION


# %%
lesson03.v_target.check(v_target)

# %% [markdown]
# All around and home again: the oracle's answer is turned into $\hat x_0$ and into $\hat v$, and these back
# into noise by the library's wrappers `eps_from_x0` and `eps_from_v`, which make an eps model of a model
# that predicts something else.

# %%
# NBVAL_CHECK_OUTPUT
x, t = test_x_t.to(schedule.alpha_bar.dtype), test_t
eps_hat = oracle(x, t)
x0_hat = predict_x0(schedule, x, t, eps_hat)
v_hat = velocity(schedule, x0_hat, t, eps_hat)
by_way_of_x0 = eps_from_x0(lambda x_t, t: x0_hat, schedule)(x, t)
by_way_of_v = eps_from_v(lambda x_t, t: v_hat, schedule)(x, t)
error = max(float((back - eps_hat).abs().max()) for back in (by_way_of_x0, by_way_of_v))
print("the same noise comes back by way of x_0 and by way of v:", error < 1e-4)
assert error < 1e-4

# %% [markdown]
# So the four are equivalent **as functions**. But a loss is an average of *errors*, and errors are
# exchanged at the same rates.
#
# ### Question 3.C: the same mistake, counted in x_0
#
# *Difficulty 2 of 3, 2 minutes.*
#
# A network predicts $x_0$ and is trained on the plain mean squared error of $x_0$. Turn its answers into
# noise and compare with the epsilon loss. How much does a squared error in $\epsilon$ at step $t$ count in
# the $x_0$ loss? ($\mathrm{SNR} = \bar\alpha_t/(1-\bar\alpha_t)$, as in lesson 1.)
#
# - a) The same at every $t$: the two are equivalent.
# - b) SNR times as much.
# - c) 1/SNR times as much.
# - d) $1/\sqrt{\mathrm{SNR}}$ times as much.

# %%
# BEGIN SOLUTION
currency = "c"
# END SOLUTION

# %%
lesson03.currency.check(currency)

# %% [markdown]
# Two measurements. First the rule itself, on the trained network: squared error in $x_0$ over squared error
# in $\epsilon$. Then the consequence: we train the same small network, from the same seeds, on plain
# squared errors of $\epsilon$, of $x_0$ and of $v$, and measure the excess of each in **both** currencies.

# %%
with torch.no_grad():
    eps_error = net(x.float(), t).to(x) - eps_hat
    x0_error = predict_x0(schedule, x, t, net(x.float(), t).to(x)) - x0_hat
ratio = x0_error.square().sum(1) / eps_error.square().sum(1)
worst = float((ratio * schedule.snr[t] - 1).abs().max())
print(f"ratio of squared errors times SNR: 1 to within {worst:.0e}")
assert worst < 1e-2

TARGETS = {
    "eps": (lambda x0, t, eps: eps, lambda net: net),
    "x_0": (lambda x0, t, eps: x0, lambda net: eps_from_x0(net, schedule)),
    "v": (lambda x0, t, eps: velocity(schedule, x0, t, eps), lambda net: eps_from_v(net, schedule)),
}


def train_on(target_of, seed, steps=600):
    net = new_net(seed)

    def loss_of(x0, generator):
        t, _ = UniformSteps(T).draw(len(x0), generator=generator, device=device)
        eps = torch.randn(x0.shape, generator=generator).to(device)
        answer = net(diffuse(schedule, x0, t, eps), t)
        return (answer - target_of(x0, t, eps)).square().mean()

    fit(net, loss_of, steps=steps, seed=seed)
    return net


in_eps = {
    name: torch.stack([excess(as_eps(train_on(target_of, seed))) for seed in (0, 1)]).cpu()
    for name, (target_of, as_eps) in TARGETS.items()
}  # a name -> (2 seeds, COUNT)
in_x0 = {name: error / schedule.snr[test_t].cpu() for name, error in in_eps.items()}
for name in TARGETS:
    a, b = ((table[name].mean(1)) for table in (in_eps, in_x0))
    print(
        f"trained on {name:>3}: excess in eps {a[0]:.4f} and {a[1]:.4f}, "
        f"in x_0 {b[0]:.4f} and {b[1]:.4f}"
    )
assert in_eps["eps"].mean() < 0.5 * in_eps["x_0"].mean()
assert in_x0["x_0"].mean() < 0.1 * in_x0["eps"].mean()

# %%
edges = torch.tensor([0, 2, 5, 10, 20, 40, 80, 150, 250, 400, 600, 800, 1000])
middle = ((edges[:-1] + 1) * edges[1:].double()).sqrt()
figure, plots = panels(2, width=6.8, height=2.5)
for plot, table, unit in zip(plots, (in_eps, in_x0), ("eps", "x_0"), strict=True):
    for name, color, dash in (("eps", BLUE, "-"), ("x_0", ORANGE, "--"), ("v", GREEN, "-.")):
        error = table[name].mean(0)
        bins = torch.bucketize(test_t.cpu(), edges) - 1
        curve = torch.stack([error[bins == i].mean() for i in range(len(edges) - 1)])
        plot.plot(middle, curve, color=color, ls=dash, label=f"trained on {name}")
    plot.set(
        xscale="log", yscale="log", xlabel="t (logarithmic)", title=f"Excess, counted in {unit}"
    )
plots[0].legend(frameon=False, fontsize=9)
show(
    figure,
    alt="Two plots of excess against t. Counted in eps, the network trained on x_0 is worst "
    "at small t and best at large t. Counted in x_0 the network trained on eps is worst at large t "
    "by orders of magnitude. The network trained on v is good at both ends and a little worse "
    "than the others in the middle.",
)

# %% [markdown]
# Look at the ends of the curves. Each network is good where *its own* currency is dear, and careless
# elsewhere: trained on $x_0$ it is poor at small $t$, trained on $\epsilon$ it is poor at large $t$ (by a
# thousand times and more, in $x_0$), where an error in $\epsilon$ is multiplied by up to 157 to become one
# in $x_0$. So "predicting $\epsilon$ is equivalent to predicting $x_0$" is half of the truth. Which
# currency is the right one? That depends on what you want from the samples, and it is the same question as:
# **which weight should each $t$ have?**
#
# ## Which t, and how much does it count?
#
# ### Weights
#
# Since all currencies differ by a weight only, we stay with the epsilon loss and multiply each sample's
# squared error by some $w(t)$. Two proposals:
#
# - **P2** (Choi et al. 2022): $1/(1 + \mathrm{SNR})$. Nearly clean pictures teach little that one can see,
#   so they count less.
# - **min-SNR** (Hang et al. 2023): $\min(\mathrm{SNR}, \gamma)/\mathrm{SNR}$ with $\gamma = 5$. In the
#   currency $x_0$ that is $\min(\mathrm{SNR}, \gamma)$: count as the epsilon loss does, but let no step's
#   weight in $x_0$ grow above $\gamma$.
#
# ### Exercise 3.6: the min-SNR weight
#
# *Difficulty 1 of 3, 3 minutes.*
#
# Write `my_min_snr_weight(schedule, t, gamma)`: the weight for the **epsilon** loss,
# $\min(\mathrm{SNR}_t, \gamma)/\mathrm{SNR}_t$, for steps `t` (B,) in 1..T. Return shape (B,).
# `schedule.snr[t]` is $\mathrm{SNR}_t$, and `x.clamp(max=gamma)` is the smaller of `x` and `gamma`, entry by
# entry.


# %%
def my_min_snr_weight(schedule, t, gamma):
    # BEGIN SOLUTION lesson03.min_snr_weight
    ...
    # END SOLUTION


# %%
lesson03.min_snr_weight.check(my_min_snr_weight)

# %% [markdown]
# Here are the weights side by side, with the one that move 4 dropped. Only the *shape* of such a curve
# matters for training with Adam, not its height, so each is divided by its mean.


# %%
def bound_weight(schedule, t):
    """The weight of step t in the variational bound, w_t, with sigma_t^2 = beta_t."""
    return dropped_weight.to(t.device)[t - 1]


every_t = torch.arange(1, T + 1, device=device)
shapes = {
    "plain": (torch.ones(T), GREY, ":", (2, 1.25)),
    "P2": (p2_weight(schedule, every_t).cpu(), PINK, "-", (26, 0.003)),
    "min-SNR": (min_snr_weight(schedule, every_t).cpu(), BLUE, "--", (9, 0.04)),
    "bound": (bound_weight(schedule, every_t).cpu(), ORANGE, "-.", (4, 40)),
}
figure, (plot,) = panels(1, width=5.8, height=2.6)
for name, (weight, color, dash, where) in shapes.items():
    plot.plot(every_t.cpu(), weight / weight.mean(), color=color, ls=dash)
    plot.text(*where, name, color=color)
plot.set(xscale="log", yscale="log", xlabel="t (logarithmic)", ylabel="weight / its mean")
show(
    figure,
    alt="Four weights against t on logarithmic axes. Plain is flat. P2 and min-SNR rise "
    "from very little at t = 1 to a flat top at large t. The bound does the opposite: it falls "
    "from 50 at t = 1 to about 1 beyond t = 100.",
)

# %% [markdown]
# The proposals and the bound pull in **opposite** directions: P2 and min-SNR take weight from small $t$,
# the bound gives it there.
#
# ### Which t to draw
#
# A weight changes *what* is minimized. How $t$ is drawn changes only how *noisy* the loss is, if we take
# care to correct for it:
#
# - **Stratified**: cut 1..T into as many equal pieces as the batch has samples and draw one $t$ in each.
#   The mean stays the same, and no batch can consist of small $t$ only.
# - **Importance sampling** (Nichol & Dhariwal 2021): draw $t$ with probability
#   $p_t \propto \sqrt{\mathbb E[L_t^2]}$, from the last ten losses seen at each $t$, and divide each loss
#   by $T p_t$. Steps with large losses come often and count little each time; again the mean stays the
#   same.
#
# How much calmer does the loss become? We take it 300 times from the trained network.


# %%
def spread_of_the_loss(sampler, weight=None, warm_up=0):
    """Standard deviation of the loss over its mean, from 300 batches of 256."""
    generator = seeded(10)
    with torch.no_grad():
        values = [
            epsilon_loss(
                net,
                schedule,
                draw_data(256, generator),
                generator=generator,
                sampler=sampler,
                weight=weight,
            )
            for _ in range(warm_up + 300)
        ][warm_up:]
    values = torch.stack(values).double().cpu()
    return float(values.std() / values.mean()), float(values.mean())


print("                plain loss   bound")
spreads = {}
for name, Sampler, warm_up in (
    ("uniform", UniformSteps, 0),
    ("stratified", StratifiedSteps, 0),
    ("importance", ImportanceSteps, 200),
):
    simple, mean_simple = spread_of_the_loss(Sampler(T), None, warm_up)
    bound, mean_bound = spread_of_the_loss(Sampler(T), bound_weight, warm_up)
    spreads[name] = simple, bound
    print(
        f"{name:>12}     {simple:6.1%}     {bound:6.1%}    means {mean_simple:.3f}, {mean_bound:.4f}"
    )
assert spreads["stratified"][0] < 0.85 * spreads["uniform"][0]
assert spreads["importance"][1] < 0.75 * spreads["uniform"][1]

# %% [markdown]
# The means agree, as they must. Stratified draws calm the loss at no cost, importance sampling calms it
# too, and most of all for the bound, whose terms differ most in size. That is the case it was invented for.
#
# ### Does any of it help?
#
# Literature says: importance sampling speeds training up (20 to 40 %, tutorials add), and P2 and min-SNR
# improve quality. We train the small network with each recipe, 600 steps, three seeds, and measure the
# distance from the exact answer by **three yardsticks**: the excess in the plain epsilon loss; the excess
# in the bound, in nats (by how much the model's guarantee for $-\log p(x_0)$ is worse than the best one);
# and the plain excess at $t > 200$ alone, the noisy steps that P2 and min-SNR care for. Two recipes
# minimize the bound itself.

# %%
RECIPES = {  # which t to draw, and how to weigh
    "plain, uniform t": (UniformSteps, None),
    "plain, stratified t": (StratifiedSteps, None),
    "plain, importance": (ImportanceSteps, None),
    "min-SNR": (UniformSteps, min_snr_weight),
    "P2": (UniformSteps, p2_weight),
    "bound, uniform t": (UniformSteps, bound_weight),
    "bound, importance": (ImportanceSteps, bound_weight),
}
SEEDS = (0, 1, 2)


def train_by(recipe, seed, steps=600):
    Sampler, weight = RECIPES[recipe]
    net, sampler = new_net(seed), Sampler(T)
    fit(net, lambda x0, generator: epsilon_loss(
        net, schedule, x0, generator=generator, sampler=sampler, weight=weight
    ), steps=steps, seed=seed)  # fmt: skip
    return excess(net).cpu()


results = {recipe: torch.stack([train_by(recipe, seed) for seed in SEEDS]) for recipe in RECIPES}
YARDSTICKS = {  # what a squared error at each test point counts
    "plain loss x 1000": 1000 * torch.ones(COUNT),
    "bound, nats": (2 * T * bound_weight(schedule, test_t)).cpu(),  # 2 coordinates, T steps
    "t > 200, x 1000": 1000 * (test_t.cpu() > 200) * T / (T - 200),
}
scores = {  # yardstick -> recipe -> (3 seeds,)
    yardstick: {recipe: (error * counts).mean(1) for recipe, error in results.items()}
    for yardstick, counts in YARDSTICKS.items()
}
print("excess, mean of three seeds (lowest to highest)")
print(f"{'':20}" + "".join(f"{yardstick:>24}" for yardstick in YARDSTICKS))
for recipe in RECIPES:
    columns = [
        f"{score[recipe].mean():.2f} ({score[recipe].min():.2f} to {score[recipe].max():.2f})"
        for score in scores.values()
    ]
    print(f"{recipe:>20}" + "".join(f"{column:>24}" for column in columns))

nats = {recipe: float(score.mean()) for recipe, score in scores["bound, nats"].items()}
counts = YARDSTICKS["bound, nats"]
shorter = torch.stack([train_by("bound, importance", seed, steps=480) for seed in SEEDS])
nats["a fifth fewer steps"] = float((shorter * counts).mean())
print(f"\nbound, importance, 480 steps in place of 600: {nats['a fifth fewer steps']:.2f} nats")
times = {recipe: float((score / scores["plain loss x 1000"]["plain, uniform t"]).mean())
         for recipe, score in scores["plain loss x 1000"].items()}  # fmt: skip
assert 0.9 < times["plain, stratified t"] < 1.1
assert times["plain, importance"] > 1
assert times["min-SNR"] > 1.1
assert times["P2"] > 1.5
assert nats["bound, importance"] < nats["bound, uniform t"]
assert nats["plain, uniform t"] < nats["bound, uniform t"]

# %%
figure, plots = panels(3, width=7.6, height=2.6, share_y=True)
rows = list(reversed(list(RECIPES)[1:]))
for plot, (yardstick, score) in zip(plots, scores.items(), strict=True):
    plot.axvline(1, color=GREY, ls=":")
    for row, recipe in enumerate(rows):
        ratio = score[recipe] / score["plain, uniform t"]
        plot.plot(ratio, [row] * len(SEEDS), "o", color=BLUE, ms=6, alpha=0.7)
    plot.set_title(f"by {yardstick.replace(' x 1000', '').rstrip(',')}", fontsize=10)
    plot.set_xscale("log")
    plot.set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
    plot.minorticks_off()
    plot.set(yticks=range(len(rows)), yticklabels=rows, xlim=(0.4, 5))
figure.supxlabel("excess, relative to plain, uniform t (left of 1 is better)", fontsize=10)
show(
    figure,
    alt="Dots for six recipes and three seeds, relative to plain uniform training, by three "
    "yardsticks. Stratified lies at 1. P2 is worst by the plain loss and by the bound, at 2 to 3. "
    "min-SNR is left of 1 only at t > 200, for two of three seeds. The table holds the numbers.",
)

# %% [markdown]
# Every dot is one seed, divided by plain uniform training from the same seed. Look first at how far the
# dots of one row scatter: differences smaller than that mean nothing.
#
# - **Stratified** $t$ costs nothing, calms the loss, and ends where plain training ends.
# - **Importance sampling of the plain loss** does not help here, it harms a little. A likely reason: large
#   losses sit at small $t$, where nearly all of the loss is floor. It listens most where there is least to
#   learn.
# - **Importance sampling of the bound**, the use it was proposed for, does help: the excess is lower in
#   every seed. But see what else the second column says: *plain* training does better than both even by the
#   bound's own yardstick. Ho et al. dropped $w_t$, and it was no loss.
# - **P2 and min-SNR** make it worse by the plain loss and by the bound. At the noisy steps, which they are
#   for, min-SNR wins for two seeds of three, P2 for one. Both were proposed for how *pictures* look, and
#   nothing here measures that.
#
# A weight moves a network's error from some steps to others. Whether that is better depends on what you
# count, so say what you count.
#
# ## Play
#
# All of this lesson in one place, and a look ahead: draw points with the mouse (or move the cursor by its
# sliders and press *Add points*), press *Train*, and watch 500 particles walk from noise back to your data.
# How a walk is made is the topic of lesson 6; here it shows what a good guess of the noise is worth.

# %%
playground = Playground(schedule)
playground

# %% [markdown]
# Three things to try:
#
# 1. Choose the *smiley*, train for 2 seconds, then for 10. The loss falls by a hair; now count the
#    particles that end astray.
# 2. Tick *exact oracle*. Walked by DDPM, its particles end on the crosses themselves, those of the network
#    near them: a perfect memory beside a network too small for one. Then walk by DDIM in 5 steps. Every
#    guess is still exact, and yet more than half of the particles miss: so the walk matters too.
# 3. Clear, and draw two islands, one with many points and one with few. Does the network keep their shares?
#    *New noise* tells chance from habit.
#
# Afterwards `playground.model` is your network: a denoiser like any other, to be put wherever this lesson
# puts one, and `playground.points` is what you drew.
#
# ## Recap
#
# - The bound compares each step back with the posterior. Gaussians, the jump and one dropped weight make of
#   it: *guess the noise, mean squared error*.
# - One $t$ and one noise for each sample; the noise that goes in is the noise that is asked for; $t$ from 1
#   to $T$.
# - Loss = floor + excess. The floor is the variance of the noise given $x_t$: near 1 at small $t$, near 0
#   at large $t$, never 0 in the mean. A flat loss says little.
# - For a finite set the best answer is a softmax over its members: a perfect memory, below the floor on
#   what it knows and far above it on what it does not.
# - Noise, $x_0$, score and $v$ are one thing in four currencies. As losses they differ, by a weight at each
#   $t$.
#
# ## Key terms
#
# | what people say | what it means |
# |---|---|
# | simple loss, L_simple, eps loss | mean of (eps - eps_hat)^2 with t uniform; every step counts the same |
# | variational bound, VLB, ELBO | an upper bound of -log p(x_0) that can be calculated (the ELBO is minus it) |
# | denoiser, eps model | anything that, shown x_t and t, says which noise is in it |
# | oracle, optimal denoiser | the denoiser that says E[eps given x_t]; nobody has a lower loss |
# | floor, irreducible loss | the loss of the oracle |
# | score | gradient of log q(x_t) with respect to x_t: -eps / noise_rate on average |
# | v, velocity | signal_rate eps - noise_rate x_0 |
# | SNR | signal-to-noise ratio, alpha_bar / (1 - alpha_bar) |
# | memorizing | answering with members of the training set |
#
# ## Claims, measured
#
# All numbers: this notebook, the ring of eight clusters, linear schedule with $T = 1000$, 2 CPU cores (AMD
# EPYC, AVX-512), no GPU.
#
# | claim | verdict | numbers |
# |---|---|---|
# | "Predicting eps is equivalent to predicting x_0." | as functions yes, as losses no | the same noise comes back to within 0.0001; squared errors differ by exactly 1/SNR at each t; trained on eps the excess is 0.018 in eps and 0.7 to 1.2 in x_0, trained on x_0 it is 0.13 and 0.003 (600 steps, seeds 0 and 1) |
# | "Importance sampling of t speeds convergence up by 20 to 40 %." | for the bound, less than that; for the plain loss, no | the excess of the bound is 0.80 nats against 0.91 with uniform t after 600 steps, lower in each of seeds 0 to 2, and 0.97 after 480 steps: a fifth fewer steps do not suffice. For the plain loss it is 0.021 against 0.017. The loss itself is 7 times calmer for the bound (6.9 % against 48 %) |
# | "P2 weighting improves quality." | not seen here | the excess is 0.043 against 0.017 by the plain loss, 1.56 against 0.58 nats by the bound, 0.0034 against 0.0023 at t > 200 (600 steps, mean of seeds 0 to 2); the looks of pictures are not measured here |
# | "The loss must go to zero." | no | mean floor 0.233, standard error 0.004, from 16,000 points; the network ends at 0.245, of which 0.010 is excess (2000 steps, seed 0) |
#
# ## Further reading
#
# - Jonathan Ho, Ajay Jain, Pieter Abbeel, *Denoising Diffusion Probabilistic Models*, 2020,
#   arXiv:2006.11239. Section 3.4 has the one line.
# - Jascha Sohl-Dickstein, Eric Weiss, Niru Maheswaranathan, Surya Ganguli, *Deep Unsupervised Learning
#   using Nonequilibrium Thermodynamics*, 2015, arXiv:1503.03585. Where the bound comes from.
# - Pascal Vincent, *A Connection Between Score Matching and Denoising Autoencoders*, Neural Computation
#   23(7), 2011. Why noise is score.
# - Alex Nichol, Prafulla Dhariwal, *Improved Denoising Diffusion Probabilistic Models*, 2021,
#   arXiv:2102.09672. Importance sampling of $t$.
# - Diederik Kingma, Tim Salimans, Ben Poole, Jonathan Ho, *Variational Diffusion Models*, 2021,
#   arXiv:2107.00630. Stratified $t$, and the loss in terms of the SNR.
# - Tim Salimans, Jonathan Ho, *Progressive Distillation for Fast Sampling of Diffusion Models*, 2022,
#   arXiv:2202.00512. Where $v$ comes from.
# - Jooyoung Choi and others, *Perception Prioritized Training of Diffusion Models*, 2022, arXiv:2204.00227.
#   P2.
# - Tiankai Hang and others, *Efficient Diffusion Training via Min-SNR Weighting Strategy*, 2023,
#   arXiv:2303.09556.
# - Nicholas Carlini and others, *Extracting Training Data from Diffusion Models*, 2023, arXiv:2301.13188.
#   Memorizing, for real.
#
# <!-- navigation -->
