# %% [markdown]
# # 10 · Flow matching
#
# <!-- opening -->
#
# Draw a point of noise, draw a point of data, and join them by a straight line. That is the whole noising process behind Stable
# Diffusion 3 and Flux: no schedule, no square roots. You will find out what a network learns from such lines, and that you have
# known this model since lesson 3. Then you will straighten its roads, until **one step** leads from noise to data.
#
# **After this lesson you will be able to**
#
# - write the loss of flow matching, and say exactly what it learns,
# - turn a diffusion model into a flow and back, without any training,
# - walk along a flow, and measure how straight it is,
# - straighten it by reflow, until one step is enough,
# - say what rectified flow, logit-normal times, shift and distillation mean, and which promises hold.
#
# **You need** lesson 3 (the loss, oracles) and lesson 9 (Euler's method). **Time:** about <!-- minutes --> minutes.

# %%
import torch

from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.checks import lesson10
from tutorial_lib.flows import denoiser_from_flow, euler, flow_from_denoiser, straightness, times_of
from tutorial_lib.guidance import condition, labeled
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import ddim, evenly_spaced, last

from tutorial_lib.lab import seeded, start

device = start(10)

# %% tags=["plumbing"]
import copy
import math
import time as clocks

from torch import nn

from tutorial_lib.explorers import FlowExplorer
from tutorial_lib.hardware import keep_freed_memory
from tutorial_lib.plots import COLORS, GRAY, INK, filmstrip, panels, show

keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: up to 1.6 times faster


def own(exercise, mine):
    """Your function if its check passes, else the model answer: the lesson goes on either way."""
    return mine if exercise.judge(mine).passed else exercise.model_answer


class PointFlow(nn.Module):
    """A small network for points of the plane: the velocity at x (B, 2) and time (B,)."""

    def __init__(self, width=128):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(9, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()),
            *(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)),
        )

    def forward(self, x, time):
        waves = torch.outer(time, torch.tensor([0.5, 1.0, 2.0]) * math.pi)
        return self.layers(torch.cat([x, time[:, None], waves.sin(), waves.cos()], dim=1))


# %% [markdown]
# ## Straight lines
#
# Take clean data $x_0$ and noise $\epsilon$, and a **time** $\tau$ that runs from 0 to 1. The point at time $\tau$ is
#
# $$x_\tau = (1-\tau)\,x_0 + \tau\,\epsilon, \qquad \frac{dx_\tau}{d\tau} = \epsilon - x_0 .$$
#
# At $\tau = 0$ there is data, at $\tau = 1$ noise, just as with our steps $t$. In between, the point moves at a constant
# **velocity**, $\epsilon - x_0$. To draw a sample one goes the other way, from 1 down to 0.
#
# Beware: **many papers run time the other way**. There 0 is noise, 1 is data, and the velocity is $x_0 - \epsilon$. Nothing else
# changes. But mix code of both kinds, and it draws nonsense.

# %% [markdown]
# ### Exercise 10.1: a point on the line
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_line(x0, time, eps)`. It returns **two things**, $x_\tau$ and the velocity:
#
# - `x0` and `eps` are tensors of one shape, (B, ...), of any number of axes,
# - `time` is (B,): each sample has a time of its own, in [0, 1].


# %%
def my_line(x0, time, eps):
    # BEGIN SOLUTION lesson10.line
    ...
    # END SOLUTION


# %%
lesson10.line.check(my_line)

# %% [markdown]
# What it gives: the world of lesson 9, eight clusters on a ring, and 150 lines. Each joins a point of noise to a point of data, drawn
# **independently**: nothing says that they should lie close together. So the lines cross.

# %%
line = own(lesson10.line, my_line)
angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
ring = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)  # (8, 2), the centers
SPREAD = 0.05**0.5


def draw_data(count, generator):
    """Points of the ring, (count, 2)."""
    cluster = torch.randint(8, (count,), generator=generator)
    return (ring[cluster] + SPREAD * torch.randn(count, 2, generator=generator)).float()


def draw_noise(count, generator):
    return torch.randn(count, 2, generator=generator)


def random_batch(count, generator):
    """Data, noise and times, drawn independently of each other."""
    time = torch.rand(count, generator=generator)
    return draw_data(count, generator), time, draw_noise(count, generator)


x0, time, eps = random_batch(100_000, seeded(0))
x, velocity = line(x0, time, eps)
speed = velocity.norm(dim=1).mean()
print(f"100,000 lines; the mean speed is {speed:.2f}")

# %% [markdown]
# ## What a network learns
#
# A network is asked for the velocity at a point $x$ and a time $\tau$. But many lines pass through that point, each with another
# velocity. Trained with squared error, it answers with their **mean** (lesson 3). So the model that it learns is
#
# $$v^*(x, \tau) = \mathbb E\big[\epsilon - x_0 \,\big|\, x_\tau = x\big].$$
#
# We can compute it. A line that begins in $x_0$ and passes through $x$ at time $\tau$ has only one possible noise,
# $\epsilon = (x - (1-\tau)x_0)/\tau$. Insert this, and its velocity is $(x - x_0)/\tau$: from $x_0$ to $x$, in the time $\tau$. The
# mean over all such lines is
#
# $$v^*(x, \tau) = \frac{x - \hat x_0}{\tau}, \qquad \hat x_0 = \mathbb E[x_0 \mid x_\tau = x].$$
#
# And how much does each line count? As much as its noise is probable. For finite data $x_1, \dots, x_N$, all equally likely, this gives
# weights that sum to 1:
#
# $$w_i \;\propto\; \exp\Big(-\frac{|x - (1-\tau)\,x_i|^2}{2\,\tau^2}\Big), \qquad \hat x_0 = \sum_i w_i\,x_i .$$

# %% [markdown]
# ### Exercise 10.2: the mean of all lines
#
# *Difficulty 3 of 3, 8 minutes.*
#
# Write `my_mean_velocity(x, time, data)`, the exact velocity where the data are finitely many points:
#
# - `x` is (B, D), `time` is (B,) in (0, 1], `data` is (N, D),
# - it returns $v^*$, (B, D).
#
# `x[:, None] - data` is (B, N, D), all differences. `logits.softmax(1)` turns logarithms of weights (B, N) into weights that sum to
# 1, and does not overflow where $\tau$ is small.


# %%
def my_mean_velocity(x, time, data):
    # BEGIN SOLUTION lesson10.mean_velocity
    ...
    # END SOLUTION


# %%
lesson10.mean_velocity.check(my_mean_velocity)

# %% [markdown]
# What it gives: one point, and the lines that pass through it. We also find the mean by brute force: of two million random lines, take
# those that pass within 0.1 of the point.

# %%
mean_velocity = own(lesson10.mean_velocity, my_mean_velocity)
spot = torch.tensor([[0.7, 0.25]])
half = torch.full((1,), 0.5)
points = draw_data(20_000, seeded(1))
exact_mean = mean_velocity(spot, half, points)[0]

many, dice = 2_000_000, seeded(2)
x0, eps = draw_data(many, dice), draw_noise(many, dice)
x, velocity = line(x0, torch.full((many,), 0.5), eps)
near = (x - spot).norm(dim=1) < 0.1
passing = velocity[near]
error = passing.std(0) / len(passing) ** 0.5
print(f"{len(passing)} lines pass; the mean of their velocities:")
found = [f"{v:+.3f} ± {e:.3f}" for v, e in zip(passing.mean(0), error, strict=True)]
print("by brute force  ", found)
print("by your formula ", [f"{v:+.3f}" for v in exact_mean])
assert (passing.mean(0) - exact_mean).abs().max() < 0.12

# %% tags=["plumbing"]
figure, axes = panels(2, width=9, height=4)
for axis in axes:
    axis.scatter(*ring.T, s=500, color=GRAY, alpha=0.25, linewidths=0)
    axis.set(xlim=(-3.1, 3.1), ylim=(-3.1, 3.1), aspect="equal")
    axis.set_axis_off()
few0, few1 = draw_data(150, seeded(3)), draw_noise(150, seeded(4))
for a, b in zip(few0, few1, strict=True):
    axes[0].plot(*torch.stack([a, b]).T, color=COLORS[0], linewidth=0.8, alpha=0.7)
axes[0].set_title("150 random lines", color=INK)
for a, b in list(zip(x0[near], eps[near], strict=True))[:60]:
    axes[1].plot(*torch.stack([a, b]).T, color=COLORS[0], linewidth=0.8, alpha=0.7)
axes[1].annotate(
    "",
    xy=tuple((spot[0] - 0.8 * exact_mean).tolist()),
    xytext=tuple(spot[0].tolist()),
    arrowprops={"arrowstyle": "-|>", "color": COLORS[1], "linewidth": 2.5},
)
axes[1].scatter(*spot.T, s=40, color=COLORS[1], zorder=3)
axes[1].set_title("60 lines through one point, and their mean", color=INK)
show(
    figure,
    alt="Left: 150 straight lines between a cloud of noise in the middle and eight clusters on a "
    "ring; they cross everywhere. Right: 60 lines that pass through one point right of the middle at "
    "half time. They come from several clusters, most from the two on the right, and one thick arrow, "
    "their mean, points between these two.",
)

# %% [markdown]
# (The arrow shows $-v^*$, the way that a sample takes, toward the data.) Now follow these means from noise down to data, and you walk
# along a **flow**. Two things about it are remarkable:
#
# - **Its roads never meet.** At each point and time there is one mean, so there is one way to go.
# - **It still carries noise to data.** Draw a small box. What the random lines carry in and out of it in each moment depends only on their mean
#   velocity there. So the flow and the lines have the same density at every time $\tau$, and at $\tau = 0$ this is the data.
#
# It is a bargain: we train on lines that anybody can draw, and get a flow that nobody had to compute.
#
# ## The loss
#
# Here is the training in full. Draw $x_0$, $\epsilon$ and $\tau$. Ask the network at $x_\tau$. Take the squared error against the
# velocity of *this one* line:
#
# $$L = \mathbb E\,\big\| v(x_\tau, \tau) - (\epsilon - x_0)\big\|^2 .$$
#
# It is called **conditional flow matching** (Lipman and others, 2023), because the target is the velocity given one pair. At about the same time
# it was found as *rectified flow* (Liu and others) and as *stochastic interpolants* (Albergo and Vanden-Eijnden).

# %% [markdown]
# ### Exercise 10.3: the loss of flow matching
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_flow_loss(model, x0, time, eps)`. It returns one number, the mean of the squared errors over all entries:
#
# - `model(x, time)` answers with the velocity, in the shape of `x`; `time` is (B,), as it comes,
# - `x0` and `eps` are (B, ...).


# %%
def my_flow_loss(model, x0, time, eps):
    # BEGIN SOLUTION lesson10.flow_loss
    ...
    # END SOLUTION


# %%
lesson10.flow_loss.check(my_flow_loss)

# %% [markdown]
# What it gives: a flow for our ring, trained on the spot. The network is small, three layers of 128, and sees 512 new lines in each of 2,000
# steps.

# %%
flow_loss = own(lesson10.flow_loss, my_flow_loss)


def fit(network, loss_of, steps=2000):
    """Adam, with a learning rate that falls to 0. `loss_of()` draws a batch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
        losses.append(loss.item())
    return sum(losses[-200:]) / 200


torch.manual_seed(0)  # the weights at the start
network, dice = PointFlow(), seeded(5)
clock = clocks.perf_counter()
loss = fit(network, lambda: flow_loss(network, *random_batch(512, dice)))
print(f"{clocks.perf_counter() - clock:.0f} s; the loss of the last 200 steps is {loss:.2f}")

x0, time, eps = random_batch(2000, seeded(6))
time = 0.1 + 0.9 * time  # nearer to the data, 20,000 points are too few to stand for the ring
x, velocity = line(x0, time, eps)
with torch.no_grad():
    best = mean_velocity(x, time, points)
    from_exact = (network(x, time) - best).square().mean()
    spread_of_lines = (velocity - best).square().mean()
print(f"squared error: spread of the lines {spread_of_lines:.2f}, the network {from_exact:.3f}")
assert from_exact < 0.1 * spread_of_lines

# %% [markdown]
# The loss stays large, near the spread of the lines about their mean: no network can know which line it was. What counts is
# the distance from the mean velocity, and that is small.

# %% [markdown]
# ## You know this model
#
# Look at the formula of $v^*$ once more: all that it takes is $\hat x_0$, and every denoiser of this course has one. Only the scaling
# differs. We noised with $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$. **Divide by the sum of the two
# factors**, the signal rate $a$ and the noise rate $b$: they become shares that sum to 1, and $x_t$ lies on the straight line:
#
# $$x_\tau = \frac{x_t}{a + b}, \qquad \tau = \frac{b}{a + b}, \qquad v = \hat\epsilon - \hat x_0 .$$
#
# The last formula is the mean of $\epsilon - x_0$, taken apart. So **each denoiser is a flow, and each flow is a denoiser**. They are one model in two
# currencies (Gao and others, 2024).

# %% [markdown]
# ### Exercise 10.4: from denoiser to flow
#
# *Difficulty 2 of 3, 6 minutes.*
#
# Write `my_flow(denoiser, schedule, x, t)`, the velocity at `x`, a point *on the straight line*:
#
# - `x` is (B, ...), `t` is a Python int, 1 to T: the time is that of step `t`,
# - `denoiser(x_t, steps)` answers with $\hat\epsilon$; `steps` is int64 (B,), as in `torch.full((len(x),), t)`. It knows $x_t$, not $x_\tau$,
# - it returns the velocity, (B, ...).
#
# `schedule.signal_rate[t]` and `schedule.noise_rate[t]` are $a$ and $b$.


# %%
def my_flow(denoiser, schedule, x, t):
    # BEGIN SOLUTION lesson10.to_flow
    ...
    # END SOLUTION


# %%
lesson10.to_flow.check(my_flow)

# %% [markdown]
# What it gives: the oracle of lesson 3, turned into a flow and back; and then the digits model that ships with the course, which has never heard
# of flows. We walk along it by Euler's method in $\tau$, and compare with DDIM.

# %%
to_flow = own(lesson10.to_flow, my_flow)
checkpoint = load_checkpoint("mnist", device=device)
cosine = checkpoint.schedule
oracle = GaussianMixtureOracle(cosine, ring, torch.full((8,), 0.05), torch.ones(8))
x = torch.randn(500, 2, generator=seeded(7), dtype=torch.float64)
flow = flow_from_denoiser(oracle, cosine)  # the library's
worst = 0.0
for t in (1, 10, 100, 500, 900, 999):
    steps = torch.full((500,), t)
    mine = to_flow(oracle, cosine, x, t)
    there = flow(x, times_of(cosine)[t].repeat(500))
    back = denoiser_from_flow(flow, cosine)(x, steps) - oracle(x, steps)
    worst = max(worst, float((mine - there).abs().max()), float(back.abs().max()))
print(f"the oracle, there and back: wrong by {worst:.0e} at most")
assert worst < 1e-8

model = labeled(checkpoint.network, cosine, checkpoint.card["target"])
digits = condition(model, torch.arange(10, device=device))
noise = torch.randn(10, 1, 28, 28, generator=seeded(4)).to(device)
steps = evenly_spaced(1000, 20)
times = times_of(cosine)[steps]
by_ddim = last(ddim(digits, cosine, noise, steps))
start_x = noise / (cosine.signal_rate[-1] + cosine.noise_rate[-1]).to(noise)
*_, end = euler(flow_from_denoiser(digits, cosine), start_x, times)
print(f"the digits of both walks differ by {float((end.x - by_ddim).abs().max()):.0e} at most")
assert (end.x - by_ddim).abs().max() < 0.05
print("steps", steps[::5], "have the times", [round(float(s), 3) for s in times[::5]])

# %% tags=["plumbing"]
show(
    filmstrip(
        [by_ddim.cpu(), end.x.cpu()],
        labels=[f"“{digit}”" for digit in range(10)],
        rows=["DDIM, 20 steps", "Euler, 20 steps"],
    ),
    alt="Two rows of the ten digits, the same pictures in both: above drawn by DDIM, below by Euler's "
    "method along the flow that the same network is.",
)

# %% [markdown]
# **DDIM is Euler's method on the flow**, too. Lesson 9 had the same walk in $y$ and $\sigma$; here it is in $x_\tau$ and $\tau$. So what differs between diffusion
# and flow matching is not the model. It is how much each noise level counts in training: which times are drawn, and with which weight.

# %% [markdown]
# ### Question 10.A: the other weight
#
# *2 minutes.*
#
# From $x_\tau = (1-\tau)x_0 + \tau\epsilon$ follows $v = (\epsilon - x_\tau)/(1-\tau)$. At the time $\tau = 0.9$ a network's $\hat\epsilon$ is wrong by a
# little. By what factor is its squared error larger in the loss of $v$ than in that of $\epsilon$?

# %%
# BEGIN SOLUTION
weight_of_eps = 100
# STUB
# weight_of_eps = ...  # a number
# END SOLUTION

# %%
lesson10.weight.check(weight_of_eps)

# %% [markdown]
# ## Few steps
#
# Euler's method from noise to data is a loop of one line. At time $\tau$ ask for the velocity, and go on to the next time $\tau'$, which is
# smaller:
#
# $$x_{\tau'} = x_\tau + (\tau' - \tau)\,v(x_\tau, \tau).$$

# %% [markdown]
# ### Exercise 10.5: walk along a flow
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_walk(model, x, times)`. It returns the state at the last time:
#
# - `model(x, time)` is the velocity, with `time` a tensor (B,) of the dtype of `x`, as `x.new_full((len(x),), 0.5)`,
# - `x` is (B, ...), the state at `times[0]`,
# - `times` is a list that falls, as `[1.0, 0.5, 0.0]`; its strides may differ, and it need not begin at 1 or end at 0.


# %%
def my_walk(model, x, times):
    # BEGIN SOLUTION lesson10.walk
    ...
    # END SOLUTION


# %%
lesson10.walk.check(my_walk)

# %% [markdown]
# What it gives: your network's flow, followed in 1, 2, 4, 8 and 64 steps from the same noise. A point counts as *on a cluster* if it is within
# three standard deviations of a center; of the data, 99 % are.

# %%
walk_along = own(lesson10.walk, my_walk)
start_noise = draw_noise(2000, seeded(8))


def evenly(count):
    """Times from 1 to 0 in equal strides."""
    return [1 - k / count for k in range(count + 1)]


def on_a_cluster(x):
    """The share of points that lie on one of the eight clusters."""
    return float((torch.cdist(x.double(), ring).amin(1) < 3 * SPREAD).double().mean())


def few_steps(flow, counts=(1, 2, 4, 8, 64)):
    """Prints for each number of steps how far the ends are from the exact ones, and the share."""
    with torch.no_grad():
        ends = {n: walk_along(flow, start_noise, evenly(n)) for n in counts}
        exact = walk_along(flow, start_noise, evenly(256))
    for n, end in ends.items():
        off = (end - exact).norm(dim=1).mean()
        print(f"{n:3d} steps: off by {off:.3f}, on a cluster {on_a_cluster(end):6.1%}")
    return ends


before = few_steps(network)
print(f"straightness {straightness(network, start_noise, evenly(64)):.3f}")

# %% [markdown]
# With 64 steps the walk arrives. With one step nobody does. Each **line** was straight, but the **flow** is their mean, and it
# bends.
#
# How much? A road is straight if its velocity is the same all the way: that of the chord from end to end. So take the squared distance
# between the two, averaged over the road, and relative to the chord's own square. This number is the **straightness**, 0 for straight roads
# (Liu and others have it, without dividing). On straight roads one step of Euler's method is exact. Ours are far from straight.
#
# "Straight paths need fewer steps", one reads. But DDIM walks along the same roads, and only its list of times differs. By the exact oracle of our ring, ten even
# strides in $\tau$ are off by 0.082; ten even steps of DDIM by 0.121 with the linear schedule, and by 0.073 with the cosine schedule (5 seeds, errors
# of 0.001 at most). So straight *lines* alone gain little.

# %% [markdown]
# ### Question 10.B: one perfect step
#
# *2 minutes.*
#
# Take the *exact* velocity $v^*$, and go from $\tau = 1$ to $\tau = 0$ in a single step of Euler's method. Where do the samples land?
#
# - a) on the data: the velocity is exact,
# - b) all on one point, the mean of all data,
# - c) each on the cluster that lies nearest to its noise,
# - d) where they began.

# %%
# BEGIN SOLUTION
one_step = "b"
# STUB
# one_step = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson10.one_step.check(one_step)

# %% [markdown]
# ## Reflow: straighten the roads
#
# Why do the roads bend? Because the lines were drawn between points that have nothing to do with each other. They cross, and the mean of crossing lines
# changes on the way.
#
# But now we own a flow, and it makes better pairs: start at noise, walk down, and you get the data point that belongs to *this* noise.
# These roads do not cross. So **join the two ends by a straight line, and train again**, on these lines. That is **reflow** (Liu and others,
# 2023). Much less is left to average, so the new flow is much straighter. It draws the same distribution, and the same point from the same noise.

# %% [markdown]
# ### Exercise 10.6: the loss of reflow
#
# *Difficulty 2 of 3, 6 minutes.*
#
# Write `my_reflow_loss(student, teacher, noise, time, times)`, one number:
#
# - walk from `noise` (B, ...) along the flow `teacher` down `times`, a falling list, by Euler's method; this needs no gradients
#   (`with torch.no_grad():`),
# - then take the loss of flow matching for `student`, on the straight lines between what the teacher drew and *its own* noise, at `time` (B,).
#
# You may call your functions from above, or the library's `euler`, which yields steps with a state `.x`.


# %%
def my_reflow_loss(student, teacher, noise, time, times):
    # BEGIN SOLUTION lesson10.reflow_loss
    ...
    # END SOLUTION


# %%
lesson10.reflow_loss.check(my_reflow_loss)

# %% [markdown]
# What it gives: the same network, trained again. A walk for each batch would cost 50 evaluations a step, so, as everybody does, we make 20,000 pairs once and
# draw from them. (`straight_loss` is your loss with the teacher's walk looked up.) Then the table from above, for the new flow.

# %%
reflow_loss = own(lesson10.reflow_loss, my_reflow_loss)
dice = seeded(9)
all_noise = draw_noise(20_000, dice)
with torch.no_grad():
    all_drawn = walk_along(network, all_noise, evenly(50))

straightened = copy.deepcopy(network)
first = reflow_loss(
    straightened, network, all_noise[:512], torch.rand(512, generator=dice), evenly(50)
)


def straight_loss():
    rows = torch.randint(len(all_noise), (512,), generator=dice)
    time = torch.rand(512, generator=dice)
    return flow_loss(straightened, all_drawn[rows], time, all_noise[rows])


loss = fit(straightened, straight_loss)
print(f"the loss falls from {first:.2f} to {loss:.4f}: hardly anything is left to average\n")
after = few_steps(straightened)
bends = [straightness(flow, start_noise, evenly(64)) for flow in (network, straightened)]
print(f"straightness {bends[0]:.3f} before, {bends[1]:.4f} after")
assert on_a_cluster(before[1]) < 0.05 < 0.8 < on_a_cluster(after[1])
assert bends[1] < 0.05 * bends[0]

# %% tags=["plumbing", "opening"]
spiral = torch.arange(40)
angle, radius = 2.4 * spiral, 0.3 + 0.05 * spiral
begin = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def roads(flow):
    """Where each of the points passes, (51, 40, 2)."""
    return torch.stack([begin, *(step.x for step in euler(flow, begin, evenly(50)))])


partners = draw_data(40, seeded(10))
three = {
    "random lines": torch.stack([begin, partners]),
    "their flow": roads(network),
    "after reflow": roads(straightened),
}
figure, axes = panels(3, width=9, height=3.4)
for axis, color, (title, places) in zip(axes, COLORS, three.items(), strict=False):
    axis.scatter(*ring.T, s=480, color=GRAY, alpha=0.25, linewidths=0)
    axis.plot(places[..., 0], places[..., 1], color=color, linewidth=1.1, alpha=0.8)
    axis.scatter(*begin.T, s=7, color=INK, zorder=3, linewidths=0)
    axis.scatter(*places[-1].T, s=16, color=color, zorder=3, linewidths=0)
    axis.set(xlim=(-2.75, 2.75), ylim=(-2.75, 2.75), aspect="equal")
    axis.set_axis_off()
    axis.set_title(title, color=INK)
show(
    figure,
    alt="Three panels: forty points of noise in the middle and eight clusters on a ring. Random lines "
    "between them cross everywhere. The roads of their flow run a little toward the middle first, then "
    "bend outward to the clusters. After reflow the roads are straight and lead to the same ends.",
)

# %% [markdown]
# One step, and nine of ten points are on a cluster; before, none was. The roads in the middle panel show why it was so hard: they first run toward the
# mean of all data, as everything does at $\tau = 1$, and make up their minds late.
#
# Now play with all three. Drag the time, and switch between straight lines, learned paths and reflowed paths. How many steps does each of them need until its
# ends lie on the clusters?

# %%
FlowExplorer(oracle)

# %% [markdown]
# What reflow does **not** do:
#
# - It adds no quality. The pairs come from the first flow, and its errors come with them. Often some are added.
# - It costs a second training, and a walk for each pair.
# - It does not make the flow *optimal*. The shortest way to move noise to data is called **optimal transport**. The two are often mixed up, since each single
#   line is the shortest way between its two ends. But the flow decides which noise goes to which data, and it does not look for the shortest
#   total. It comes close; the table of claims says how close.

# %% [markdown]
# ### Question 10.C: a second look
#
# *1 minute.*
#
# Your first flow draws 4 % of its points between the clusters, even in a thousand steps. You reflow it until its roads are straight, with perfect
# training each time. The share of such points in one step is then
#
# - a) 0 %, since straight roads lead to the data,
# - b) 4 %,
# - c) 1 %, since each reflow halves it,
# - d) 100 %, since one step always leads to the mean.

# %%
# BEGIN SOLUTION
reflowed_twice = "b"
# STUB
# reflowed_twice = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson10.twice.check(reflowed_twice)

# %% [markdown]
# ## Which times?
#
# We have drawn $\tau$ evenly from [0, 1]. Near $\tau = 1$ the answer is nearly the mean of all data, near $\tau = 0$ nearly nothing is left to
# say. What is hard lies between. So Stable Diffusion 3 draws times with a **logit-normal** density, which prefers the middle: take a
# standard normal number $z$, and squeeze it into (0, 1),
#
# $$\tau = \frac{1}{1 + e^{-z}} .$$
#
# ### Question 10.D: in the middle
#
# *2 minutes.*
#
# What share of logit-normal times lies between 0.25 and 0.75? (Evenly drawn, it would be 0.5.) Two decimals are enough; you may draw many and count.

# %%
# BEGIN SOLUTION
share_in_the_middle = float((torch.randn(100_000).sigmoid() - 0.5).abs().lt(0.25).float().mean())
# STUB
# share_in_the_middle = ...  # a number
# END SOLUTION

# %%
lesson10.middle.check(share_in_the_middle)

# %% [markdown]
# Does it help? On our ring, yes: with logit-normal times 96.2 % of the points are on a cluster, with even times 95.2 % (a difference of 1.02 ± 0.11
# percentage points; 5 networks each, paired by their seeds).
#
# Times may be bent *while sampling*, too. With a **shift** $k$, the time $\tau$ becomes $k\tau/(1 + (k-1)\tau)$. With $k > 1$ more of the steps lie near the noise. Large
# pictures need this: they have many pixels that say the same, so noise hides less of them. (In other people's code the list of times of such a walk is often called a *schedule*.)
#
# ## With the course's trainer
#
# The trainer of lesson 5 learns flows, too. In a terminal:
#
# ```sh
# python -m tutorial_lib train --target velocity --weight velocity --step-sampler uniform_time --out runs/flow
# python -m tutorial_lib sample runs/flow --sampler dpm_solver --spacing edm --steps 10 --out flow.png
# ```
#
# With `--target velocity` the network sees $x_\tau$ and answers with the velocity, `--weight velocity` makes it the loss of exercise 10.3, and
# `--step-sampler uniform_time` or `logit_normal` draws the times. The rest is as before, since the result is a denoiser like any other: all samplers take it, and
# guidance works.
#
# Is it better? The digits drawn by the course, as in lesson 7; the same network, first weights, 400 training steps and 14 CPU seconds for each recipe. Fréchet
# distance (real images of this kind: 0.17), mean of 4 seeds with its standard error:
#
# | target | what counts how much | DDIM, 20 steps | DDIM, 5 steps |
# |---|---|---|---|
# | eps | each t the same | 8.18 ± 0.41 | 12.73 ± 0.57 |
# | v | min-SNR | 6.12 ± 0.07 | 8.25 ± 0.13 |
# | velocity | min-SNR | 5.33 ± 0.13 | 7.07 ± 0.24 |
# | velocity | flow matching, even times | 6.15 ± 0.20 | 8.57 ± 0.25 |
# | velocity | flow matching, logit-normal times | 4.63 ± 0.16 | 6.41 ± 0.10 |
#
# (`python benchmarks/flows.py`) **Plain flow matching beats the eps loss** (20 steps: −2.03 ± 0.40, paired). It is **not told apart from v** with
# min-SNR (+0.03 ± 0.25). Logit-normal times help once more (−1.52 ± 0.08). So in these short runs, what counts is how much each noise level counts, not the
# name of the method. (A caution: the first three rows spread their t evenly over each batch, while flow matching's times are drawn one by one. One network, early in its training.)
#
# ## Where it leads
#
# Reflow is one way to a generator of few steps. Others begin with the same roads:
#
# - **Distillation.** A student learns to do in one stride what its teacher does in two; then it becomes the teacher, and so on (progressive
#   distillation, Salimans and Ho 2022).
# - **Consistency models** (Song and others, 2023) learn the *end* of the road. All points of one road must get the same answer,
#   and the answer at time 0 is the point itself.
# - **MeanFlow** (Geng and others, 2025) learns the *mean velocity of a whole stretch* of road, from one time to another. A stride with
#   this mean is exact, however much the road bends.
#
# All of them pay in training for what they save in sampling. Those that learn from a teacher also learn its errors.
#
# Here is one experiment with the digits that ship with the course, the simplest kind of distillation. The teacher walks from 4,096 noises to digits. A student of 4, 2 or 1 steps learns
# the **chords** of these walks, from each of its stops to the next, by the loss of flow matching. At a stop each state has one chord only, so nothing is left to average.
# Fréchet distance of 1,000 digits, 3 seeds of noise:
#
# | steps | teacher, DDIM | student | training, CPU seconds |
# |---|---|---|---|
# | 4 | 1.53 ± 0.04 | 0.94 ± 0.04 | 52 |
# | 2 | 8.83 ± 0.06 | 1.59 ± 0.06 | 71 |
# | 1 | 90.1 ± 0.1 | 4.24 ± 0.09 | 142 |
#
# (`python benchmarks/student.py`; real digits 0.30 ± 0.06) In one step the teacher draws mush; of the student's digits, 96 % are read as ordered. All three students took five
# minutes together, the teacher's walks included. But compare: the teacher with 50 steps has 0.60, and DPM-Solver++ with **five** evaluations 0.72 (lesson 9), without any training. At four steps a good solver is hard to
# beat. At one or two only a student will do.
#
# ## Recap
#
# - Straight lines, $x_\tau = (1-\tau)x_0 + \tau\epsilon$. A network learns their **mean velocity**, $(x - \hat x_0)/\tau$, which is also
#   $\hat\epsilon - \hat x_0$.
# - **A flow and a denoiser are one model.** Training differs in which noise levels count how much.
# - Straight lines do not make straight roads. **Reflow** does: train again on the pairs that the flow has joined. Then one step can do.
# - Reflow adds no quality, and no flow here is optimal transport.
#
# ## Key terms
#
# | what people say | what it means |
# |---|---|
# | flow matching, CFM | the loss of exercise 10.3; C for conditional: the target is that of one pair |
# | rectified flow | the same straight lines; often with reflow in mind |
# | stochastic interpolant | a general path between noise and data; ours is the linear one |
# | vector field, velocity | $v(x, \tau)$ |
# | reflow, 2-rectified flow | trained again on its own pairs, once |
# | logit-normal times | $\tau$ is the sigmoid of a normal number; SD3 and Flux train so |
# | shift | bends the times of a walk toward noise |
# | optimal transport | the pairing of least squared length. Not what a flow gives. |
# | `FlowMatchEulerDiscreteScheduler` | exercise 10.5, in diffusers |
# | NFE 1, one-step generator | a sample for a single question to the network |
#
# ## Claims, measured
#
# <!-- claims -->
#
# <details><summary>Further reading</summary>
#
# - Lipman and others: *Flow Matching for Generative Modeling*, 2023, arXiv 2210.02747. With 0 for noise.
# - Liu, Gong, Liu: *Flow Straight and Fast*, 2023, arXiv 2209.03003. Rectified flow, reflow, straightness.
# - Albergo, Vanden-Eijnden: *Building Normalizing Flows with Stochastic Interpolants*, 2023, arXiv 2209.15571.
# - Gao and others: *Diffusion Meets Flow Matching*, 2024, diffusionflow.github.io. The two currencies.
# - Esser and others: *Scaling Rectified Flow Transformers for High-Resolution Image Synthesis*, 2024, arXiv 2403.03206. Stable Diffusion 3: which
#   times, and the shift.
# - Song and others: *Consistency Models*, 2023, arXiv 2303.01469.
# - Geng and others: *Mean Flows for One-step Generative Modeling*, 2025, arXiv 2505.13447.
# - Salimans, Ho: *Progressive Distillation for Fast Sampling of Diffusion Models*, 2022, arXiv 2202.00512.
# - Lavenant, Santambrogio: *The Flow Map of the Fokker–Planck Equation Does Not Provide Optimal Transport*, 2022.
#
# </details>
#
# ## What you can do now
#
# An hour ago flow matching was another kind of model. Now you know that you had it all along: you can train one in four lines, turn any
# denoiser into one and back, and compute what a perfect one would say. You can measure how straight a flow is, straighten it, and draw in one
# step. And you know which of the promises made for it hold.
#
# <!-- navigation -->
