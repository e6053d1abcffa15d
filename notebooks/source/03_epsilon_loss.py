# %% [markdown]
# # 3 · The epsilon loss
#
# <!-- opening -->
#
# Nobody told the network where the data are, or which way leads to them. It learned these arrows from a single game: *guess the
# noise, get the mean squared error*. That one line trains every diffusion model. Here you write it, and find out how well
# **any** network could do, because for some data the best possible answer is known.
#
# **After this lesson you will be able to**
#
# - say where the loss comes from, write it, and say how low it can get,
# - turn a prediction of the noise into one of $x_0$, of the score or of $v$, and back,
# - judge advice on which $t$ to draw and how to weigh it, by measuring.
#
# **You need** lessons 1 and 2: the rates, the jump, the posterior. Of PyTorch: what a `Module` and an optimizer are.
# **Time:** about <!-- minutes --> minutes.

# %%
import torch
from torch import nn

from tutorial_lib.checks import lesson03
from tutorial_lib.forward import diffuse, posterior, predict_x0
from tutorial_lib.lab import seeded, start
from tutorial_lib.losses import epsilon_loss, epsilon_losses
from tutorial_lib.oracles import DatasetOracle, GaussianMixtureOracle
from tutorial_lib.schedules import linear_schedule

device = start(3)

# %% tags=["plumbing"]
import copy
import statistics

from matplotlib.colors import to_rgb

from tutorial_lib.datasets import circles
from tutorial_lib.explorers import DenoiserExplorer, Playground
from tutorial_lib.losses import ImportanceSteps, UniformSteps, min_snr_weight, p2_weight
from tutorial_lib.plots import COLORS, GRAY, INK, filmstrip, panels, show
from tutorial_lib.predictions import eps_from_v, eps_from_x0, velocity

BLUE, ORANGE, GREEN, PINK = COLORS[:4]
torch.set_num_threads(1)  # for nets as small as these, a second thread costs more than it helps

# %% [markdown]
# ## From a bound to one line
#
# We want a model $p_\theta$ that finds the data likely: $-\log p_\theta(x_0)$ should be small. That number is out of reach, an average over
# every path from noise to $x_0$. But it has an upper bound that we can calculate, the **variational bound**:
#
# $$-\log p_\theta(x_0) \;\le\; \underbrace{\mathrm{KL}\big(q(x_T\mid x_0)\,\|\,p(x_T)\big)}_{\text{has no }\theta}
# + \sum_{t=2}^{T} \mathbb E\,\mathrm{KL}\big(q(x_{t-1}\mid x_t, x_0)\,\|\,p_\theta(x_{t-1}\mid x_t)\big)
# + \mathbb E\big[-\log p_\theta(x_0\mid x_1)\big].$$
#
# KL, the Kullback-Leibler divergence, says how far one distribution is from another; $\mathbb E$ is the mean over the noise. In words:
# **at each step back, the model should do what the posterior of lesson 2 does, without having seen $x_0$.** Four moves remain.
#
# 1. Let the model's steps be Gaussian too, with a fixed variance $\sigma_t^2$. Then only the **means** have to agree: each KL is
#    $\lVert \tilde\mu_t - \mu_\theta\rVert^2 / 2\sigma_t^2$ plus a constant.
# 2. Solve the jump for $x_0$ and put it into the posterior's mean: all that the model doesn't know in it is the noise $\epsilon$.
# 3. So let a network guess the noise, $\hat\epsilon = \epsilon_\theta(x_t, t)$, and build $\mu_\theta$ by the same formula. Each KL becomes
#    $w_t\,\lVert\epsilon - \hat\epsilon\rVert^2$, with $w_t = \beta_t^2 / \big(2\sigma_t^2\,\alpha_t\,(1-\bar\alpha_t)\big)$.
# 4. **Drop** $w_t$, and average instead of adding up:
#
# $$\boxed{\;L = \mathbb E_{\,t,\;x_0,\;\epsilon}\;\big[\text{mean of }(\epsilon - \epsilon_\theta(x_t, t))^2\big],
# \qquad x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon\;}$$
#
# with $t$ uniform on $1, \dots, T$ and $\epsilon$ standard normal (Ho et al. 2020, eq. 14). The mean is over the coordinates of $x_0$.
#
# <details><summary><b>The derivation, line by line</b></summary>
#
# **The bound.** Write $p_\theta(x_0)$ as an average over paths and move the logarithm inside (Jensen's inequality):
#
# $$-\log p_\theta(x_0) = -\log \mathbb E_q\!\left[\frac{p_\theta(x_{0:T})}{q(x_{1:T}\mid x_0)}\right]
# \le \mathbb E_q\!\left[-\log\frac{p(x_T)\prod_t p_\theta(x_{t-1}\mid x_t)}{\prod_t q(x_t\mid x_{t-1})}\right].$$
#
# **Turn the steps around.** For $t \ge 2$, Bayes' rule with everything conditioned on $x_0$ gives
# $q(x_t\mid x_{t-1}) = q(x_{t-1}\mid x_t, x_0)\,q(x_t\mid x_0)/q(x_{t-1}\mid x_0)$. In the product over $t$ the fractions cancel one another
# and leave $q(x_T\mid x_0)/q(x_1\mid x_0)$. What is left is the bound above, one KL a step.
#
# **Two Gaussians.** With means $\tilde\mu$, $\mu_\theta$ and variances $\tilde\beta I$, $\sigma^2 I$ in $D$ dimensions,
# $\mathrm{KL} = \frac{1}{2\sigma^2}\lVert\tilde\mu-\mu_\theta\rVert^2 + \frac D2\big(\tilde\beta/\sigma^2 - 1 - \log(\tilde\beta/\sigma^2)\big)$.
# The second part has no $\theta$ in it, and is 0 for $\sigma^2 = \tilde\beta$.
#
# **The mean.** The posterior's mean is
# $\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}x_0 + \frac{\sqrt{\alpha_t}(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}x_t$.
# Put $x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\epsilon)/\sqrt{\bar\alpha_t}$ into it. With $\bar\alpha_t = \alpha_t\bar\alpha_{t-1}$, the factor of $x_t$ is
#
# $$\frac{\beta_t + \alpha_t(1-\bar\alpha_{t-1})}{\sqrt{\alpha_t}\,(1-\bar\alpha_t)} = \frac{1-\bar\alpha_t}{\sqrt{\alpha_t}\,(1-\bar\alpha_t)}
# = \frac{1}{\sqrt{\alpha_t}},$$
#
# and that of $\epsilon$ is $-\beta_t/(\sqrt{\alpha_t}\,\sqrt{1-\bar\alpha_t})$. So
# $\tilde\mu_t = \frac{1}{\sqrt{\alpha_t}}\big(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon\big)$, and two such means differ by
# $\frac{\beta_t}{\sqrt{\alpha_t}\sqrt{1-\bar\alpha_t}}(\hat\epsilon-\epsilon)$; its square over $2\sigma_t^2$ is move 3.
#
# **The last step,** $-\log p_\theta(x_0\mid x_1)$, is $\frac{1}{2\sigma_1^2}\lVert x_0 - \mu_\theta\rVert^2$ plus a constant. As $\tilde\mu_1 = x_0$,
# it has the same form. (It needs $\sigma_1^2 > 0$; we take $\sigma_t^2 = \beta_t$.)
#
# </details>
#
# Is the mean of move 2 right, and how large is the weight that was dropped, with $\sigma_t^2 = \beta_t$?

# %%
# NBVAL_CHECK_OUTPUT
schedule = linear_schedule(1000).to(device)
T = schedule.num_steps
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
# Dropping $w_t$ is no formality: in the bound the first step counts 49 times as much as the last.
#
# ## A world that we know
#
# Our data are points in the plane, eight round clusters on a ring. The network gets the two coordinates of $x_t$ and, so that it knows
# $t$, the two rates. (Lesson 4 has a better way.)

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


# %% tags=["plumbing"]
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
# At $t = 40$ you still see the clusters, at $t = 120$ only the ring, at $t = 250$ a round cloud.
#
# ### Exercise 3.1: the epsilon loss
#
# *Difficulty 2 of 3, 12 minutes.*
#
# Write `my_epsilon_loss(model, schedule, x0, generator)`. It takes
#
# - `model`, called as `model(x_t, t)`, which answers with the noise it sees: `eps_hat`, of the shape of `x_t`;
# - `schedule`, with its `num_steps` (that is $T$);
# - `x0`, clean data of shape (B, ...): points (B, 2), pictures (B, C, H, W), or anything else with the batch first;
# - `generator`, a `torch.Generator` that all random numbers are drawn from,
#
# and returns **one number**, a tensor of shape `()` through which the model can learn. `torch.randint(low, high, shape, generator=generator)` draws
# whole numbers from `low` to `high - 1`; `torch.randn(shape, generator=generator)` draws standard normal ones; `diffuse(schedule, x0, t, eps)` is
# the jump, with `t` int64 of shape (B,).


# %%
def my_epsilon_loss(model, schedule, x0, generator):
    # BEGIN SOLUTION lesson03.epsilon_loss
    ...
    # END SOLUTION


# %%
lesson03.epsilon_loss.check(my_epsilon_loss)

# %% [markdown]
# This is all of training: draw data, take the loss, make a step downhill, repeat. `fit` also keeps copies of the network on the way.


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
middle, end = float(losses[400:800].mean()), float(losses[1600:].mean())
print(
    f"first loss {losses[0]:.2f}, mean of steps 400 to 800: {middle:.3f}, of 1600 to 2000: {end:.3f}"
)
assert losses[0] > 0.8
assert abs(end - middle) < 0.02

# %% [markdown]
# The loss begins near 1, which is what always answering 0 gets: the noise has variance 1. It drops to a quarter, and then it hardly
# moves. Is the network finished? Is it bad? How low could the loss get?
#
# ## The best possible answer
#
# A weather forecaster who says "70 % rain" on days of which 7 in 10 turn out wet is perfect, and still often wrong. Her score has a **floor** that comes
# from the weather, not from her. Denoising is like that: many pairs $(x_0, \epsilon)$ give the same $x_t$, so nobody can know *the* noise
# in it. The best guess is their mean, $\epsilon^*(x_t, t) = \mathbb E[\epsilon \mid x_t]$, and every network's loss at step $t$ splits in two:
#
# $$\underbrace{\mathbb E\,(\epsilon - \hat\epsilon)^2}_{\text{loss}}
# \;=\; \underbrace{\mathbb E\,(\epsilon - \epsilon^*)^2}_{\text{floor: the variance of }\epsilon\text{ given }x_t}
# \;+\; \underbrace{\mathbb E\,(\epsilon^* - \hat\epsilon)^2}_{\text{excess: the network's own error}}$$
#
# <details><summary><b>Why the loss splits, and the best guess on the ring</b></summary>
#
# Write $\epsilon - \hat\epsilon = (\epsilon - \epsilon^*) + (\epsilon^* - \hat\epsilon)$ and square. The mixed term is
# $2\,\mathbb E\big[(\epsilon - \epsilon^*)(\epsilon^* - \hat\epsilon)\big]$. Average it first over all $\epsilon$ that belong to one $x_t$: the
# second bracket depends on $x_t$ only and stays as it is, the first averages to $\mathbb E[\epsilon\mid x_t] - \epsilon^* = 0$. So the mixed
# term is 0, and the minimum over all functions of $x_t$ is reached at $\hat\epsilon = \epsilon^*$.
#
# After $t$ noisings a Gaussian cluster with mean $m_k$ and variance $v$ is a Gaussian with mean $\sqrt{\bar\alpha_t}\,m_k$ and variance
# $\bar\alpha_t v + 1 - \bar\alpha_t$, so $x_t$ tells how likely each cluster is (Bayes' rule). Within a cluster, $\epsilon$ and $x_t$ are jointly
# Gaussian, coordinate by coordinate, and then $\mathbb E[\epsilon\mid x_t] = \frac{\mathrm{Cov}(\epsilon, x_t)}{\mathrm{Var}(x_t)}\,(x_t - \mathbb E\,x_t)$
# with covariance $\sqrt{1-\bar\alpha_t}$. Together:
#
# $$\epsilon^*(x_t, t) = \sqrt{1-\bar\alpha_t}\;\sum_k p(k\mid x_t)\;\frac{x_t - \sqrt{\bar\alpha_t}\,m_k}{\bar\alpha_t v + 1-\bar\alpha_t}.$$
#
# </details>
#
# For our ring $\epsilon^*$ has a formula. The library has it as `GaussianMixtureOracle`, an **oracle**: called like a network,
# `oracle(x_t, t)`, untrained and exact.
#
# ### Exercise 3.2: the loss at each step
#
# *Difficulty 1 of 3, 5 minutes.*
#
# One number for all $t$ hides too much. Write `loss_by_step(model, schedule, x0, steps, eps)`: `steps` is a list of S step numbers, such as
# `[1, 10, 100]`. For each of them, noise **all** of `x0` (B, ...) to that step with the noise `eps` that is passed in (the same for every
# step), ask the model, and take the mean of the squared errors over samples and coordinates. Return a tensor of shape (S,).
#
# `torch.full((len(x0),), step)` makes the `t` of shape (B,) that `diffuse` and the model want; `torch.stack(list_of_numbers)` makes one
# tensor of S of them.


# %%
def loss_by_step(model, schedule, x0, steps, eps):
    # BEGIN SOLUTION lesson03.loss_by_step
    ...
    # END SOLUTION


# %%
lesson03.loss_by_step.check(loss_by_step)

# %% [markdown]
# The next cell does the same, with the **standard error** of each mean: the standard deviation of the samples over $\sqrt B$.

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
print("largest standard error of the floor:", f"{float(floor_error.max()):.3f}")
print(f"floor at t = 1: {floor[0]:.2f}, at t = 1000: {floor[-1]:.5f}")
assert (final > floor - 4 * floor_error).all()
assert floor[0] > 0.95
assert floor[-1] < 1e-3

# %% tags=["plumbing"]
figure, (plot,) = panels(1, width=6, height=2.9)
plot.axhline(1, color=GRAY, ls=":")
plot.text(1000, 1.03, "always answering 0", color=GRAY, ha="right")
plot.plot(STEPS, early, color=ORANGE, ls="--")
plot.plot(STEPS, final, color=BLUE)
plot.plot(STEPS, floor, color=INK, lw=2.5)
plot.fill_between(STEPS, floor - 2 * floor_error, floor + 2 * floor_error, color=INK, alpha=0.25)
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

# %% [markdown]
# **No network can get below the thick line.** The blue one has reached it beyond $t = 100$; to the left it still has something to learn: for $t$ below about 8 it is even worse than always answering 0.
# The floor tells a story about the data:
#
# - At $t = 1$ it is near 1: the noise has standard deviation 0.01, the clusters 0.2. The loss is *largest where $x_t$ looks cleanest*.
# - At large $t$ it goes to 0. Nearly all of $x_t$ is noise, so $x_t$ *is* the answer.
# - In between it halts while the clusters melt into one ring: then one more thing cannot be known, which cluster a point came from.
#
# ### Question 3.A: the floor under one Gaussian
#
# *Difficulty 2 of 3, 3 minutes.*
#
# Let $x_0$ be a single standard normal number, and $\bar\alpha_t = 0.36$. Then the best guess is $\epsilon^* = \sqrt{1 - \bar\alpha_t}\;x_t$. How large is
# the floor $\mathbb E(\epsilon - \epsilon^*)^2$? (A help: $\epsilon^*$ and what is left of $\epsilon$ are uncorrelated, so their variances add up to 1, that
# of $\epsilon$.)

# %%
# BEGIN SOLUTION
floor_of_a_gaussian = 0.36
# END SOLUTION

# %%
lesson03.floor_of_a_gaussian.check(floor_of_a_gaussian)

# %% [markdown]
# The general rule for standard normal data is simple enough to test the oracle with:

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
# The training loss went flat at about 0.245, where the mean floor is about 0.233. What does that tell you?
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
# With an oracle we can look at the **excess** alone, how far the network is from the exact answer:

# %%
COUNT = 16_000
test_x0 = draw_data(COUNT, seeded(5))
test_t = (torch.arange(COUNT) % T + 1).to(device)  # every t from 1 to 1000 among them
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
print(f"mean floor {mean_floor:.4f} +- {float(floor_each.std()) / COUNT**0.5:.4f} (standard error)")
print(
    f"excess at step 200: {excess_at[200]:.4f}, at 2000: {excess_at[2000]:.4f}, "
    f"{excess_at[200] / excess_at[2000]:.1f} times less"
)
assert excess_at[200] > 3 * excess_at[2000]

# %% tags=["plumbing"]
running = losses.unfold(0, 50, 1).mean(1)  # mean over 50 steps
figure, (left, right) = panels(2, width=6.8, height=2.3)
left.plot(range(25, 25 + len(running)), running, color=BLUE)
left.axhline(mean_floor, color=INK)
left.text(1950, mean_floor - 0.1, "floor", ha="right")
left.text(300, 0.33, "loss", color=BLUE)
left.set(ylim=(0, 1.1), xlabel="training step", title="The loss looks flat")
right.plot(excess_at.keys(), excess_at.values(), color=BLUE, marker="o", ms=4)
right.set(yscale="log", xlabel="training step", title="The excess above the floor does not")
show(
    figure,
    alt="Left: the training loss falls to just above the line of the floor and looks flat. "
    "Right: the excess, on a logarithmic scale, goes on falling, from 0.04 at step 200 to 0.01 at the end.",
)

# %% [markdown]
# Left: what everybody looks at. Right: what happened meanwhile. So **a flat loss does not mean that training is over**, where most of the loss
# is floor. (How much is, depends on the data. In lesson 4's pictures of discs the floor is far lower, and the loss says more.)
#
# Where does the network err? Thin arrows are its $\hat\epsilon$, thick lines the exact answer. Drag $t$ slowly to the left: *where* do the two
# differ most? (*Model − oracle* shows that alone.)

# %%
DenoiserExplorer(net, schedule, draw_data(300, seeded(12)), oracle=oracle, t=40)

# %% [markdown]
# The errors are largest **where no points are**: in the hole of the ring and far outside. The loss counts only where training points come.
#
# ## A perfect memory
#
# The best answer is also known for any **finite set** $x_1, \dots, x_N$, such as your training set. Think of a line-up: a witness saw
# somebody through frosted glass ($x_t$), and $N$ suspects stand in a row. Through this glass, suspect $i$ is seen around
# $\sqrt{\bar\alpha_t}\,x_i$, with variance $1-\bar\alpha_t$ in each coordinate. If all are equally likely beforehand, Bayes' rule gives
#
# $$p(i\mid x_t) \propto \exp\!\left(-\frac{\lVert x_t - \sqrt{\bar\alpha_t}\,x_i\rVert^2}{2\,(1-\bar\alpha_t)}\right),
# \qquad \hat x_0 = \mathbb E[x_0\mid x_t] = \sum_i p(i\mid x_t)\;x_i.$$
#
# The shares must add up to 1: exponentials divided by their sum are a **softmax** over the members $i$, and the exponents are its **logits**.
#
# ### Exercise 3.3: the perfect memory
#
# *Difficulty 3 of 3, 15 minutes. The one to be proud of: in three lines you beat every network, on its own training set.*
#
# Write `posterior_mean(schedule, data, x_t, t)` for points: `data` (N, D) is the set, `x_t` (B, D) are noisy points, and `t` (B,) int64 in 1..T
# are their steps. Return $\hat x_0$, of shape (B, D).
#
# - `a[:, None, :] - b` with `a` (B, D) and `b` (N, D) gives all differences, (B, N, D). A number for each sample joins in
#   when it has shape (B, 1, 1): `schedule.signal_rate[t][:, None, None]`. Where it meets a table (B, N), (B, 1) is enough.
# - `logits.softmax(1)` with logits (B, N) makes each row sum to 1, and does not overflow or underflow.
# - The schedule is float64, data are often float32. Sums mix them; before a matrix product `@`, bring both to one type with `.double()`.


# %%
def posterior_mean(schedule, data, x_t, t):
    # BEGIN SOLUTION lesson03.posterior_mean
    ...
    # END SOLUTION


# %%
lesson03.posterior_mean.check(posterior_mean)

# %% [markdown]
# The library's `DatasetOracle` does this for data of any shape. Let it remember 24 pictures of colored discs, noise one of them, and ask.

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
print("share of the right picture:", " ".join(f"{float(s):.2f}" for s in share))
assert share[picture_steps.index(600)] > 0.99
assert share[-1] < 0.9

# %% tags=["plumbing"]
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

# %% [markdown]
# Where you see only snow, the memory still names the right picture: 3072 numbers, each a weak clue. That is a warning. **The lowest training loss of all belongs to a model that has memorized the training set**, and such a model can only
# draw its members. On the ring we can measure it, with a memory of 64 points:

# %%
album_of_points = draw_data(64, seeded(9))
memory = DatasetOracle(schedule, album_of_points)


def from_the_album(count, generator):
    return album_of_points[torch.randint(64, (count,), generator=generator).to(device)]


known_x_t = diffuse(schedule, from_the_album(COUNT, seeded(11)), test_t, test_noise)
mean_known = float((memory(known_x_t, test_t) - test_noise).square().mean())
mean_new = float((memory(test_x_t, test_t) - test_noise).square().mean())
print(
    f"mean over all t: on its own points {mean_known:.3f}, floor {mean_floor:.3f}, "
    f"on new points {mean_new:.3f}"
)
assert mean_known < mean_floor < mean_new

# %% tags=["plumbing"]
on_known, _ = by_step(memory, from_the_album)
on_new, _ = by_step(memory, draw_data)
assert (on_known[:8] < floor[:8]).all()
assert (on_new > floor - 4 * floor_error).all()
figure, (plot,) = panels(1, width=5.8, height=2.6)
plot.plot(STEPS, on_new, color=ORANGE, ls="--")
plot.plot(STEPS, floor, color=INK, lw=2.5)
plot.plot(STEPS, on_known, color=GREEN, ls="-.")
plot.text(9, 12, "memory, on new points", color=ORANGE)
plot.text(1.1, 1.6, "floor of the ring")
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

# %% [markdown]
# A training loss *below the floor* would be no success but memorizing: on new points, at small $t$, the memory is far worse than always answering 0. Real
# networks memorize too, with few pictures and long training. Watch the loss on held-out data.
#
# ## One thing, four names
#
# Papers let networks predict the noise, the clean data, the **score**, or a thing called $v$. Think of one amount of money in four currencies: if
# you know $x_t$ and $t$, the exchange rates are fixed.
#
# | what | from $\hat\epsilon$ | meaning |
# |---|---|---|
# | $\hat x_0$ | $(x_t - \sqrt{1-\bar\alpha_t}\,\hat\epsilon)\,/\,\sqrt{\bar\alpha_t}$ | the jump solved for $x_0$ (lesson 2) |
# | score $\nabla_{x_t}\log q(x_t)$ | $-\hat\epsilon\,/\,\sqrt{1-\bar\alpha_t}$ | which way the density rises fastest |
# | $\hat v$ | $(\hat\epsilon - \sqrt{1-\bar\alpha_t}\,x_t)\,/\,\sqrt{\bar\alpha_t}$ | $v = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1-\bar\alpha_t}\,x_0$ |
#
# **The score.** Given $x_0$, the density of $x_t$ is a Gaussian around $\sqrt{\bar\alpha_t}\,x_0$. The gradient of its logarithm is
# $-(x_t - \sqrt{\bar\alpha_t}\,x_0)/(1-\bar\alpha_t) = -\epsilon/\sqrt{1-\bar\alpha_t}$. Averaged over all $x_0$ that could be behind $x_t$, the left side becomes the
# score of all data and $\epsilon$ becomes $\epsilon^*$. In words: **noise leads away from the data, the score leads back.**
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
# *Difficulty 1 of 3, 2 minutes.*
#
# Write `score_from_eps(schedule, eps_hat, t)`: `eps_hat` (B, ...), `t` (B,) in 1..T; return the score, in the shape of `eps_hat`. As in lesson 2,
# `schedule.noise_rate[t]` of shape (B,) needs further axes: `.reshape(-1, *[1] * (eps_hat.ndim - 1))` makes it (B, 1, ...) for any number of them.


# %%
def score_from_eps(schedule, eps_hat, t):
    # BEGIN SOLUTION lesson03.score_from_eps
    ...
    # END SOLUTION


# %%
lesson03.score_from_eps.check(score_from_eps)

# %% [markdown]
# Is it true? The oracle knows $\log q(x_t)$, and PyTorch can differentiate it:


# %%
def score_of(model, x_t, t):
    return -model(x_t, t) / schedule.noise_rate[t].to(x_t)[:, None]


x = test_x_t[:2000].to(schedule.alpha_bar.dtype, copy=True).requires_grad_()
(gradient,) = torch.autograd.grad(oracle.log_density(x, test_t[:2000]).sum(), x)
score = score_of(oracle, x.detach(), test_t[:2000])
relative = float((gradient - score).norm() / gradient.norm())
print("score from eps against the gradient of the log density agree:", relative < 1e-4)
assert relative < 1e-4

# %% tags=["opening", "plumbing"]
axis, fine = torch.linspace(-2.3, 2.3, 12), torch.linspace(-2.6, 2.6, 160)
grid, pixels = (torch.cartesian_prod(a, a).to(device) for a in (axis, fine))
figure, plots = panels(3, width=7.6, height=2.8, share_x=True, share_y=True)
for plot, step in zip(plots, (600, 120, 40), strict=True):
    t = torch.full((len(pixels),), step, device=device)
    density = oracle.log_density(pixels, t).exp().reshape(160, 160).T.cpu()
    levels = torch.linspace(0.06, 1.0, 9)
    glow = [(*to_rgb(BLUE), 0.8 * float(level)) for level in levels[1:]]  # on white and on dark
    plot.contourf(fine, fine, density / density.max(), levels=levels, colors=glow)
    with torch.no_grad():
        arrow = nn.functional.normalize(score_of(net, grid, t[: len(grid)]), dim=1)
    plot.quiver(*grid.cpu().T, *arrow.cpu().T, color=ORANGE, scale=17, width=0.008)
    plot.set_title(f"t = {step}", fontsize=11)
    plot.set(xticks=[], yticks=[], aspect="equal")
    plot.spines[:].set_visible(False)
show(
    figure,
    alt="Three squares with arrows over a blue glow, the density of the noised data. t = 600: one "
    "round glow, and all arrows lead to its middle. t = 120: a glowing ring, and arrows lead to it "
    "from inside and outside. t = 40: eight glowing dots, and arrows lead to the nearest.",
)

# %%
with torch.no_grad():
    agreement = nn.functional.cosine_similarity(net(test_x_t, test_t), exact, dim=1)
print(
    "cosine of the angle between the network's answer and the exact one, median:",
    f"{float(agreement.median()):.3f}",
)
assert agreement.median() > 0.98

# %% [markdown]
# These arrows are the *network's* (directions only); the glow is the density. Follow them while $t$ sinks, and you walk from noise to
# data; lesson 6 does just that.
#
# **Why the noise?** "It is the residual, as in a ResNet": $x_t$ is carried past the network, which only says what to take away. That is true
# *at small $t$*, where even a network that answers 0 is nearly right about $x_0$. At large $t$ it has to copy its whole input, and
# its small errors become large ones in $x_0$. **$v$ is a compromise.** The rates are the cosine and the sine of an angle $\varphi$, so
# $x_t = \cos\varphi\;x_0 + \sin\varphi\;\epsilon$ and $v = \cos\varphi\;\epsilon - \sin\varphi\;x_0$ are the pair $(x_0, \epsilon)$, turned. Turn it back, and
# you have both, without a division by a small number.
#
# ### Exercise 3.5: the target v
#
# *Difficulty 1 of 3, 2 minutes.*
#
# Write `v_target(schedule, x0, t, eps)`, what a network that predicts $v$ is trained on: $\sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1-\bar\alpha_t}\,x_0$. `x0` and
# `eps` have shape (B, ...), `t` (B,); return the shape of `x0`.


# %%
def v_target(schedule, x0, t, eps):
    # BEGIN SOLUTION lesson03.v_target
    ...
    # END SOLUTION


# %%
lesson03.v_target.check(v_target)

# %% [markdown]
# Full circle: from $\hat\epsilon$ to $\hat x_0$ and $\hat v$, and back.

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
# So the four are equivalent **as functions**. But a loss is an average of *errors*, and errors are exchanged at the same rates.
#
# ### Question 3.C: the same mistake, counted in x_0
#
# *Difficulty 2 of 3, 2 minutes.*
#
# A network predicts $x_0$ and is trained on the plain mean squared error of $x_0$. Turn its answers into noise. How much does a
# squared error in $\epsilon$ at step $t$ count in its loss? ($\mathrm{SNR} = \bar\alpha_t/(1-\bar\alpha_t)$, as in lesson 1.)
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
# We train the same small network on squared errors of $\epsilon$, of $x_0$ and of $v$, and measure each one's excess in **both** currencies.

# %%
TARGETS = {
    "eps": (lambda x0, t, eps: eps, lambda net: net),
    "x_0": (lambda x0, t, eps: x0, lambda net: eps_from_x0(net, schedule)),
    "v": (lambda x0, t, eps: velocity(schedule, x0, t, eps), lambda net: eps_from_v(net, schedule)),
}


def train_on(target_of, seed, steps=500):
    net = new_net(seed)

    def loss_of(x0, generator):
        t, _ = UniformSteps(T).draw(len(x0), generator=generator, device=device)
        eps = torch.randn(x0.shape, generator=generator).to(device)
        answer = net(diffuse(schedule, x0, t, eps), t)
        return (answer - target_of(x0, t, eps)).square().mean()

    fit(net, loss_of, steps=steps, seed=seed)
    return net


in_eps = {
    name: torch.stack([excess(as_eps(train_on(target_of, seed))) for seed in (0, 1, 2)]).cpu()
    for name, (target_of, as_eps) in TARGETS.items()
}  # a name -> (3 seeds, COUNT)
in_x0 = {name: error / schedule.snr[test_t].cpu() for name, error in in_eps.items()}
for name in TARGETS:
    a, b = (table[name].mean(1) for table in (in_eps, in_x0))
    print(
        f"trained on {name:>3}: excess in eps {a.min():.4f} to {a.max():.4f}, "
        f"in x_0 {b.min():.4f} to {b.max():.4f} (3 seeds)"
    )
assert in_eps["eps"].mean() < 0.5 * in_eps["x_0"].mean()
assert in_x0["x_0"].mean() < 0.1 * in_x0["eps"].mean()

# %% tags=["plumbing"]
edges = torch.tensor([0, 2, 5, 10, 20, 40, 80, 150, 250, 400, 600, 800, 1000])
middle = ((edges[:-1] + 1) * edges[1:].double()).sqrt()
figure, plots = panels(2, width=6.8, height=2.5)
for plot, table, unit in zip(plots, (in_eps, in_x0), ("eps", "x_0"), strict=True):
    for name, color, dash in (("eps", BLUE, "-"), ("x_0", ORANGE, "--"), ("v", GREEN, "-.")):
        bins = torch.bucketize(test_t.cpu(), edges) - 1
        by_bin = torch.stack([table[name][:, bins == i].mean(1) for i in range(len(edges) - 1)])
        plot.plot(middle, by_bin.mean(1), color=color, ls=dash, label=f"trained on {name}")
        plot.fill_between(middle, by_bin.amin(1), by_bin.amax(1), color=color, alpha=0.2, lw=0)
    plot.set(
        xscale="log", yscale="log", xlabel="t (logarithmic)", title=f"Excess, counted in {unit}"
    )
plots[0].legend(frameon=False, fontsize=9)
show(
    figure,
    alt="Two plots of excess against t, bands from the lowest to the highest of three seeds. "
    "Counted in eps, the network trained on x_0 is worst at small t. Counted in x_0 the network "
    "trained on eps is worst at large t, by orders of magnitude. The network trained on v is not "
    "far from the better of the two at either end.",
)

# %% [markdown]
# Each network is good where *its own* currency is dear, and careless elsewhere. At $t = T$ an error in $\epsilon$ becomes one 157 times as large in
# $x_0$. So "predicting $\epsilon$ is equivalent to predicting $x_0$" is only half the truth. Which currency is right? It is the same
# question as: **which weight should each $t$ have?**
#
# ## Which t, and how much does it count?
#
# We multiply each sample's squared error by some $w(t)$. Two proposals:
#
# - **P2** (Choi et al. 2022): $1/(1 + \mathrm{SNR})$. The last details are hardly seen, so nearly clean pictures count less. ("It favors the middle
#   steps", people say. The weight only grows with $t$; but at large $t$ the floor is 0 and little is left to learn.)
# - **min-SNR** (Hang et al. 2023): $\min(\mathrm{SNR}, \gamma)/\mathrm{SNR}$ with $\gamma = 5$. In the currency $x_0$ that is $\min(\mathrm{SNR}, \gamma)$: as the
#   epsilon loss, but no step's weight in $x_0$ grows above $\gamma$.
#
# ### Exercise 3.6: the min-SNR weight
#
# *Difficulty 1 of 3, 2 minutes.*
#
# Write `my_min_snr_weight(schedule, t, gamma)`: the weight for the **epsilon** loss, $\min(\mathrm{SNR}_t, \gamma)/\mathrm{SNR}_t$, for steps `t` (B,) in
# 1..T. Return shape (B,). `schedule.snr[t]` is $\mathrm{SNR}_t$; `x.clamp(max=gamma)` is the smaller of `x` and `gamma`, entry by entry.


# %%
def my_min_snr_weight(schedule, t, gamma):
    # BEGIN SOLUTION lesson03.min_snr_weight
    ...
    # END SOLUTION


# %%
lesson03.min_snr_weight.check(my_min_snr_weight)

# %% [markdown]
# A weight changes *what* is minimized. How $t$ is drawn changes only how *noisy* the loss is, if we correct for it. **Importance sampling** (Nichol &
# Dhariwal 2021) draws $t$ with probability $p_t \propto \sqrt{\mathbb E[L_t^2]}$, from the last ten losses seen at each $t$, and divides each loss by
# $T p_t$: steps with large losses come often and count less each time, so the mean stays the same. (Until every $t$ has its ten losses, here about
# 100 training steps, it draws uniformly.)
#
# **Does any of it help?** Tutorials say that importance sampling speeds training up by 20 to 40 %, and that P2 and min-SNR improve quality. We train with each
# recipe from the same four seeds, and measure the excess by two yardsticks: in the plain loss; and in the bound, in nats, that is, with the weights that
# move 4 dropped.


# %%
def bound_weight(schedule, t):
    """The weight of step t in the variational bound, w_t, with sigma_t^2 = beta_t."""
    return dropped_weight.to(t.device)[t - 1]


RECIPES = {  # which t to draw, and how to weigh
    "plain": (UniformSteps, None),
    "plain, importance": (ImportanceSteps, None),
    "min-SNR": (UniformSteps, min_snr_weight),
    "P2": (UniformSteps, p2_weight),
    "bound": (UniformSteps, bound_weight),
    "bound, importance": (ImportanceSteps, bound_weight),
}
SEEDS = (0, 1, 2, 3)


def train_by(recipe, seed, steps=600):
    Sampler, weight = RECIPES[recipe]
    net, sampler = new_net(seed), Sampler(T)
    fit(net, lambda x0, generator: epsilon_loss(
        net, schedule, x0, generator=generator, sampler=sampler, weight=weight
    ), steps=steps, seed=seed)  # fmt: skip
    return excess(net).cpu()


results = {recipe: torch.stack([train_by(recipe, seed) for seed in SEEDS]) for recipe in RECIPES}
in_nats = (2 * T * bound_weight(schedule, test_t)).cpu()  # 2 coordinates, T steps
plain_loss = {recipe: 1000 * error.mean(1) for recipe, error in results.items()}  # (4 seeds,)
bound = {recipe: (error * in_nats).mean(1) for recipe, error in results.items()}

# %% [markdown]
# We take **paired differences**: what a seed does to both nets cancels. Their mean is *told apart* from 0 if it exceeds 3.18 standard
# errors (95 %, Student's t, four seeds).


# %%
def compared(first, second):
    """The mean difference of two recipes over the seeds, its standard error, and a verdict."""
    difference = [float(a - b) for a, b in zip(first, second, strict=True)]
    mean, error = statistics.mean(difference), statistics.stdev(difference) / len(difference) ** 0.5
    verdict = "told apart" if abs(mean) > 3.18 * error else "not told apart"
    return f"{mean:+6.2f} +- {error:.2f}  {verdict}"


print(f"excess in the plain loss x 1000: plain {plain_loss['plain'].mean():.2f}")
for recipe in list(RECIPES)[1:]:
    print(f"{recipe:>20} - plain: {compared(plain_loss[recipe], plain_loss['plain'])}")
print(f"excess in the bound, nats: bound {bound['bound'].mean():.2f}")
for recipe in ("bound, importance", "plain"):
    print(f"{recipe:>20} - bound: {compared(bound[recipe], bound['bound'])}")
assert plain_loss["P2"].mean() > 1.5 * plain_loss["plain"].mean()
assert bound["bound, importance"].mean() < bound["bound"].mean()

# %% tags=["plumbing"]
figure, plots = panels(2, width=7.2, height=2.5, share_y=True)
rows = list(reversed(list(RECIPES)[1:]))
for plot, table, name in zip(plots, (plain_loss, bound), ("plain loss", "bound"), strict=True):
    plot.axvline(1, color=GRAY, ls=":")
    for row, recipe in enumerate(rows):
        ratio = table[recipe] / table["plain"]
        plot.plot(ratio, [row] * len(SEEDS), "o", color=BLUE, ms=6, alpha=0.7)
    plot.set_title(f"by the {name}", fontsize=10)
    plot.set_xscale("log")
    plot.set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
    plot.minorticks_off()
    plot.set(yticks=range(len(rows)), yticklabels=rows, xlim=(0.4, 5))
figure.supxlabel("excess, relative to plain (left of 1 is better)", fontsize=10)
show(
    figure,
    alt="Dots for five recipes and four seeds, relative to plain uniform training, by two "
    "yardsticks. P2 is worst by both. The printed numbers hold the differences and their errors.",
)

# %% [markdown]
# Four seeds and short runs leave some of this open. `python benchmarks/claims.py lesson03` repeats it with 12 seeds and 1000 steps:
#
# <!-- claims -->
#
# - **Importance sampling** helps with the loss that it was proposed for, the bound: 20 % fewer steps get further, 40 % fewer do not get as
#   far. With the plain loss it harms: by 3 % with 12 seeds and 1000 steps, by more in your shorter runs. A likely reason: there, large losses sit at small $t$, where nearly all of the loss is floor.
# - **Dropping $w_t$** was no loss: with uniform $t$, plain training does better *even by the bound*. Only importance sampling turns that around.
# - **P2 and min-SNR** take weight from small $t$. On these points both losses get worse, P2's far more. The table says what becomes of the *samples*.
#   Both were proposed for pictures, which are not measured here.
#
# A weight moves error from some steps to others. Whether that is better depends on what you count, so say what you count.
#
# ## Play
#
# Draw points with the mouse (or move the cursor by its sliders and press *Add points*), press *Train*, and watch 500 particles walk from noise to
# your data, as lesson 6 will explain.

# %%
playground = Playground(schedule)
playground

# %% [markdown]
# <details><summary><b>Three things to try</b></summary>
#
# 1. Choose the *smiley*, train for 2 seconds, then for 10. The loss falls by a hair; count the particles that end astray.
# 2. Tick *exact oracle*. Walked by DDPM, its particles end on the crosses themselves. Then walk by DDIM in 5 steps: every guess is still exact, and
#    yet particles miss. So the walk matters too.
# 3. Clear, and draw two islands, one with many points and one with few. Does the network keep their shares? *New noise* shows what was only chance.
#
# </details>
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
# <details><summary><b>Further reading</b></summary>
#
# - Jonathan Ho, Ajay Jain, Pieter Abbeel, *Denoising Diffusion Probabilistic Models*, 2020, arXiv:2006.11239. Section 3.4 has the one line.
# - Jascha Sohl-Dickstein, Eric Weiss, Niru Maheswaranathan, Surya Ganguli, *Deep Unsupervised Learning using Nonequilibrium Thermodynamics*, 2015,
#   arXiv:1503.03585. Where the bound comes from.
# - Pascal Vincent, *A Connection Between Score Matching and Denoising Autoencoders*, Neural Computation 23(7), 2011. Why noise is score.
# - Alex Nichol, Prafulla Dhariwal, *Improved Denoising Diffusion Probabilistic Models*, 2021, arXiv:2102.09672. Importance sampling of $t$.
# - Diederik Kingma, Tim Salimans, Ben Poole, Jonathan Ho, *Variational Diffusion Models*, 2021, arXiv:2107.00630. The loss in terms of the SNR, and
#   stratified $t$: one in each of B equal parts of 1..T, which calms the loss at no cost (`StratifiedSteps`; lesson 4 trains with it).
# - Tim Salimans, Jonathan Ho, *Progressive Distillation for Fast Sampling of Diffusion Models*, 2022, arXiv:2202.00512. Where $v$ comes from.
# - Jooyoung Choi and others, *Perception Prioritized Training of Diffusion Models*, 2022, arXiv:2204.00227. P2.
# - Tiankai Hang and others, *Efficient Diffusion Training via Min-SNR Weighting Strategy*, 2023, arXiv:2303.09556.
# - Nicholas Carlini and others, *Extracting Training Data from Diffusion Models*, 2023, arXiv:2301.13188. Memorizing, for real.
#
# </details>
#
# ## What you can do now
#
# - You can write the loss that trains diffusion models, and say what was dropped on the way to it.
# - Shown a loss curve, you ask for the floor before you judge it, and you know when a low loss is bad news.
# - You change $\epsilon$, $x_0$, score and $v$ into one another, and know that their losses are *not* the same.
# - You test advice with several seeds, paired, and say whether a difference can be told apart from chance.
#
# <!-- navigation -->
