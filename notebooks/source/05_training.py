# %% [markdown]
# # 5 · Training
#
# <!-- opening -->
#
# You have a schedule, a loss and a network. What is left is a loop of four lines. Each row of the picture comes from the
# same noise, drawn by the same network a little later in its training. In an hour you will have trained this network
# yourself, and lessons 6 and 7 will use it.
#
# **After this lesson you will be able to**
#
# - write the training loop by hand, and recognize its classic mistakes by their loss curves,
# - say what warm-up, clipping and averaged weights do, and when they do nothing,
# - watch samples improve while a network trains, and read its loss by $t$,
# - keep the model that you trained.
#
# **You need** lessons 1 to 4: the jump, the epsilon loss, TinyUNet. **Time:** about <!-- minutes --> minutes.

# %%
import copy
import math

import torch
from torch import nn

from tutorial_lib.checks import lesson05
from tutorial_lib.datasets import circles
from tutorial_lib.forward import diffuse, predict_x0
from tutorial_lib.losses import epsilon_loss
from tutorial_lib.networks import TinyUNet
from tutorial_lib.schedules import linear_schedule
from tutorial_lib.training import TrainConfig, Trainer, lr_factor, new_network, update_ema
from tutorial_lib.lab import keep, seeded, start, your_model

device = start(5)

# %% tags=["plumbing"]
import statistics
import time

from torch.optim.swa_utils import AveragedModel

from tutorial_lib.explorers import DenoiserExplorer
from tutorial_lib.hardware import in_precision, keep_freed_memory, pick_precision
from tutorial_lib.losses import StratifiedSteps, epsilon_losses
from tutorial_lib.metrics import disc_quality  # preview: lesson 7 asks how good samples are
from tutorial_lib.plots import COLORS, GRAY, LivePlot, filmstrip, image_grid, panels, show
from tutorial_lib.predictions import as_eps_model, clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced, last  # preview: lesson 6 writes them
from tutorial_lib.training import ema_decay

BLUE, ORANGE, GREEN = COLORS[:3]
keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: up to 1.6 times faster
THREADS = torch.get_num_threads()
torch.set_num_threads(1)  # the first half works on pictures too small to share among cores


def smooth(values, window=15):
    """Mean over a sliding window, and the place of each mean."""
    values = torch.tensor(values).unfold(0, window, 1).mean(1)
    return range(window // 2, window // 2 + len(values)), values


# %% [markdown]
# ## The loop
#
# Our first pictures are small: colored discs of 16 x 16 pixels, so that an experiment takes seconds.

# %%
small = circles(2000, size=16)
schedule = linear_schedule(1000).to(device)
T = schedule.num_steps

show(
    image_grid(small.images[:20], columns=10),
    alt="Twenty small pictures, each one disc on black, in many colors, sizes and places",
)

# %% [markdown]
# Training is walking downhill in fog: you feel the slope under your feet, make a step, and feel again. The
# slope is the **gradient** of the loss, one number for each weight. PyTorch splits a step into three calls:
#
# - `loss.backward()` calculates the gradient and **adds** it to what each weight's `.grad` already holds;
# - `optimizer.step()` moves every weight by what it finds in `.grad`;
# - `optimizer.zero_grad()` wipes `.grad`, so that the next `backward()` starts afresh. By default it sets `.grad` to
#   `None` instead of filling it with zeros (`set_to_none=True`): that is faster, and a weight that gets no gradient is left alone.
#
# That `backward()` adds surprises everybody once. (It is useful where a batch is too large for the memory: two halves, two
# calls of `backward()`, one step.) See for yourself, with the loss $w^2$ at $w = 3$, whose slope is $2w = 6$:

# %%
# NBVAL_CHECK_OUTPUT
w = torch.tensor(3.0, requires_grad=True)
for call in (1, 2, 3):
    (w**2).backward()
    print(f"after call {call} of backward(): w.grad = {w.grad}")
assert w.grad == 18

# %% [markdown]
# ### Exercise 5.1: one training step
#
# *Difficulty 1 of 3, 6 minutes.*
#
# Write `train_step(network, optimizer, loss_of)`. `loss_of(network)` draws a **fresh batch at each call** and returns
# its loss, a tensor of shape `()` with a gradient; `optimizer` holds the weights of `network`. Make one step, and return the
# loss as a plain number: `loss.item()` gives it, without the graph that led to it.


# %%
def train_step(network, optimizer, loss_of):
    # BEGIN SOLUTION lesson05.train_step
    ...
    # END SOLUTION


# %%
lesson05.train_step.check(train_step)

# %% [markdown]
# Here is the whole program written out: data, loss, three calls, again and again. It has more arguments than a loop needs, because
# we will change one thing at a time further down: the learning rate at each step, a largest norm for the
# gradients, something to do after each step. With the defaults shown, none of this has any effect.


# %%
def small_network(seed):
    torch.manual_seed(seed)
    return TinyUNet(3, widths=(16, 32)).to(device)


def fit(
    steps,
    lr=lambda step: 3e-3,
    *,
    wipe=True,
    max_norm=math.inf,
    factor=lambda step: 1.0,
    after_step=lambda step, network: None,
    seed=0,
):
    """Trains a small network; returns it with its losses and gradient norms."""
    network, generator = small_network(seed), seeded(seed)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        betas=(0.9, 0.99),
        weight_decay=0.0,
        fused=True,  # moves all weights in one call, which saves a tenth of the time
    )
    losses, norms = [], []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr(step)
        index = torch.randint(len(small.images), (32,), generator=generator)
        x0 = small.images[index].to(device)
        loss = epsilon_loss(network, schedule, x0, generator=generator)
        if wipe:
            optimizer.zero_grad()
        (factor(step) * loss).backward()
        norms.append(float(nn.utils.clip_grad_norm_(network.parameters(), max_norm)))
        optimizer.step()
        after_step(step, network)
        losses.append(loss.item())
    return network, losses, norms


# %% [markdown]
# Does it learn? We noise eight new discs to $t = 300$, and look through the network's eyes while it trains: $\hat x_0$, the clean picture that
# it believes in (lesson 2's `predict_x0`).

# %%
unseen = circles(8, size=16, seed=1).images.to(device)
t_300 = torch.full((8,), 300, device=device)
noise = torch.randn(unseen.shape, generator=seeded(4)).to(device)
noised = diffuse(schedule, unseen, t_300, noise)
believed = {}


@torch.no_grad()
def look(step, network):
    if step + 1 in (1, 20, 50, 150):
        eps_hat = network(noised, t_300)
        believed[step + 1] = predict_x0(schedule, noised, t_300, eps_hat).clamp(-1, 1).cpu()


_, right, _ = fit(150, after_step=look)

# %% tags=["plumbing"]
show(
    filmstrip(
        [noised.clamp(-1, 1).cpu(), *believed.values(), unseen.cpu()],
        rows=["noised", *(f"step {step}" for step in believed), "the truth"],
    ),
    alt="Eight discs in six rows: noised to t = 300, what the network believes after 1, 20, 50 and 150 "
    "training steps, and the truth. After 1 step it is as noisy as the input, after 150 discs "
    "stand out with grainy edges.",
)

# %% [markdown]
# Look from top to bottom. After one step nothing has happened. By step 50 the noise around the discs thins out; by step 150 most of it is gone, and the colors settle.
# Nobody told the network what a disc is.
#
# Now the classic mistake, the same program without `zero_grad()`, for 100 steps:

# %%
_, piled_up, _ = fit(100, wipe=False)

# %% tags=["plumbing"]
figure, (plot,) = panels(1, width=6.4)
for losses, color, dash, name, where in (
    (right, BLUE, "-", "as it should be", (66, 0.52)),
    (piled_up, ORANGE, "--", "zero_grad() forgotten", (18, 2.2)),
):
    plot.plot(*smooth(losses), color=color, ls=dash)
    plot.text(*where, name, color=color)
plot.axhline(1, color=GRAY, ls=":", lw=1)
plot.text(1, 1.08, "always answering 0", color=GRAY, fontsize=8)
plot.set(xlabel="training step", ylabel="loss", ylim=(0, 3))
show(
    figure,
    alt="Two loss curves. That of the right loop falls from 1 to about a quarter in 150 steps. With "
    "zero_grad forgotten the loss falls at first, then climbs far above 1 within 100 steps.",
)
print(f"loss at the first step: {right[0]:.4f}")
print(
    f"mean loss of the last 50 steps: {statistics.mean(right[-50:]):.2f}, "
    f"with zero_grad() forgotten {statistics.mean(piled_up[-50:]):.2f}"
)
assert statistics.mean(right[-50:]) < 0.35
assert statistics.mean(piled_up[-50:]) > 1

# %% [markdown]
# Look at the dashed curve: no error message, a promising start, and then it leaves the ground. The sum of all old gradients is like
# a ball that nobody can stop: it rolls on in the direction that was right fifty steps ago. A network that answers 0 to everything has a loss of about 1. So a loss that
# **stays above 1** means that something is broken. (A single step may lie a little above, as the very first one does here.)
#
# ## The learning rate
#
# How far should a step go? AdamW keeps two running means for each weight, of its gradients $g$ and of their squares:
#
# $$m \leftarrow \beta_1 m + (1-\beta_1)\,g, \qquad v \leftarrow \beta_2 v + (1-\beta_2)\,g^2,$$
#
# both from 0. Since they start from 0 they are too small at first, so after $n$ steps they are corrected, and then the weight moves:
#
# $$\hat m = \frac{m}{1-\beta_1^n}, \qquad \hat v = \frac{v}{1-\beta_2^n}, \qquad
# w \leftarrow w - \mathrm{lr}\,\frac{\hat m}{\sqrt{\hat v}} .$$
#
# (A tiny number in the denominator prevents division by 0; and the W in AdamW stands for weight decay, a pull towards 0, which we
# leave out.) The fraction has no unit any more: a weight whose gradients are a thousand times smaller moves just as far.
#
# ### Question 5.A: Adam's first step
#
# *Difficulty 2 of 3, 3 minutes.*
#
# The very first step, lr = 0.01, $\beta_1 = 0.9$, $\beta_2 = 0.999$. One weight has the gradient $g = 0.0003$. How far does it move (without the sign)?

# %%
# BEGIN SOLUTION
first_move = 0.01
# END SOLUTION

# %%
lesson05.first_step.check(first_move)

# %% [markdown]
# So Adam's very first step is *full length*, in a direction that one batch has suggested. A **warm-up** lets the rate grow from
# (nearly) 0 over the first steps, until the means know something. At the other end a **decay** brings the rate down to 0: close
# to the valley's floor long steps only jump from side to side.
#
# With $f$ the share of the run that is over *in the middle of a step*, $f = (\text{step} + 0.5)/\text{steps}$, the library's rule is
#
# $$\mathrm{lr} = \text{peak}\,\cdot\,\underbrace{\min(1,\; f/\text{warmup})}_{\text{rise}}\,\cdot\,\underbrace{(1 - f)}_{\text{fall}},$$
#
# where `warmup` is a share of the run too, for example 0.1.
#
# ### Exercise 5.2: warm-up and decay
#
# *Difficulty 1 of 3, 6 minutes.*
#
# Write `lr_at(step, steps, warmup, peak)`: the learning rate of step `step` in 0..steps - 1 by the rule above, a number. `warmup` is in $[0, 1]$; 0 means no
# warm-up, so the rise is 1 at once.


# %%
def lr_at(step, steps, warmup, peak):
    # BEGIN SOLUTION lesson05.lr_at
    ...
    # END SOLUTION


# %%
lesson05.lr_at.check(lr_at)

# %% [markdown]
# Does it matter? We take ten times the earlier rate, 0.03, once from the first step on and once with a warm-up over the first 20 % of
# the run. The library's `lr_factor` is your rule without the peak.

# %%
STEPS = 150
PEAK = 0.03


def constant(step):
    return PEAK


def warmed_up(step):
    return PEAK * lr_factor((step + 0.5) / STEPS, warmup=0.2, decay="constant")


at_once = fit(STEPS, constant)
gently = fit(STEPS, warmed_up)

# %% tags=["plumbing"]
figure, plots = panels(2)
every = torch.arange(STEPS)
for decay, color, dash, where in (
    ("constant", ORANGE, "-", (60, 0.92)),
    ("linear", BLUE, "--", (66, 0.6)),
    ("cosine", GREEN, "-.", (86, 0.15)),
):
    rates = [lr_factor((step + 0.5) / STEPS, 0.2, decay) for step in range(STEPS)]
    plots[0].plot(every, rates, color=color, ls=dash)
    plots[0].text(*where, decay, color=color)
plots[0].set(xlabel="training step", ylabel="lr / peak", title="Warm-up 0.2 and three decays")
for (_, losses, _), color, dash, name, where in (
    (at_once, ORANGE, "-", "at once", (60, 1.05)),
    (gently, BLUE, "--", "after a warm-up", (84, 0.6)),
):
    plots[1].plot(*smooth(losses), color=color, ls=dash)
    plots[1].text(*where, name, color=color)
plots[1].set(xlabel="training step", ylabel="loss", ylim=(0, 1.6), title="Rate 0.03")
show(
    figure,
    alt="Left: three learning-rate curves that rise over the first fifth; one stays, one falls "
    "in a line, one as a cosine. Right: the loss with rate 0.03 at once stays at 1; "
    "with warm-up it falls to about 0.3.",
)
for name, (_, losses, norms) in (("at once", at_once), ("with warm-up", gently)):
    print(
        f"{name:>12}, last 50 steps: mean loss {statistics.mean(losses[-50:]):.2f}, "
        f"median norm of the gradient {statistics.median(norms[-50:]):.2f}"
    )
assert statistics.mean(at_once[1][-50:]) > statistics.mean(gently[1][-50:]) - 0.05

# %% [markdown]
# Look at the right: the same rate that learns well after a warm-up kills the network when it comes at once. It sits at loss 1, as if it always answered 0, its gradients are four times smaller, and in these 150 steps it does not get up
# again. This is one seed. A warm-up is no guarantee: with other seeds it sometimes fails too (the table at the end counts). And at a gentle rate, 0.003, we did well without.
#
# ## A seat belt for gradients
#
# Once in a while a batch brings a gradient far larger than the others: a broken picture, a rare weight, a bad draw. **Clipping by the global norm** looks at *all*
# gradients together as one long arrow, and shortens the arrow if it is longer than `max_norm`, without turning it:
#
# $$\lVert g\rVert = \sqrt{\textstyle\sum g_i^2}\ \text{ over all numbers of all tensors}, \qquad
# g \leftarrow g \cdot \min\!\big(1,\; \text{max\_norm}/\lVert g\rVert\big).$$
#
# ### Exercise 5.3: clipping by the global norm
#
# *Difficulty 2 of 3, 6 minutes.*
#
# Write `clip_gradients(gradients, max_norm)`: `gradients` is a list of tensors of any shapes, `max_norm` a number above 0. Return a list of tensors of the same shapes, clipped. Gradients
# that are all zero come back as zeros.


# %%
def clip_gradients(gradients, max_norm):
    # BEGIN SOLUTION lesson05.clip_gradients
    ...
    # END SOLUTION


# %%
lesson05.clip_gradients.check(clip_gradients)

# %% [markdown]
# PyTorch's `nn.utils.clip_grad_norm_` does this in place, and returns the norm that it found; `fit` calls it at each step. A crash test: at step 40 the loss counts a thousandfold,
# for one step only.


# %%
def crash(step):
    return 1000.0 if step == 40 else 1.0


_, unbelted, norms = fit(120, factor=crash)
_, belted, _ = fit(120, factor=crash, max_norm=1.0)

# %% tags=["plumbing"]
figure, plots = panels(2)
plots[0].plot(norms, color=GRAY, lw=1)
plots[0].axhline(1, color=BLUE, ls="--", lw=1)
plots[0].text(124, 2, "max_norm = 1", color=BLUE, ha="right")
plots[0].set(yscale="log", xlabel="training step", ylabel="norm of all gradients")
for losses, color, dash, name, where in (
    (unbelted, ORANGE, "-", "not clipped", (74, 0.64)),
    (belted, BLUE, "--", "clipped at 1", (58, 0.2)),
):
    plots[1].plot(*smooth(losses), color=color, ls=dash)
    plots[1].text(*where, name, color=color)
plots[1].set(xlabel="training step", ylabel="loss", ylim=(0, 1.1))
show(
    figure,
    alt="Left: gradient norms well below 1, with one spike of several hundred at step 40, after which they stay above 1 for a while. "
    "Right: at the spike the loss without clipping jumps up, then crawls; with clipping it falls on.",
)
ordinary = norms[:40]
print(
    f"norms before the crash: median {statistics.median(ordinary):.2f}, largest {max(ordinary):.2f}; "
    f"in the crash {norms[40]:.0f}"
)
print(
    f"mean loss of the last 50 steps: {statistics.mean(unbelted[-50:]):.3f} without clipping, "
    f"{statistics.mean(belted[-50:]):.3f} with"
)
assert statistics.mean(belted[-50:]) < 0.75 * statistics.mean(unbelted[-50:])

# %% [markdown]
# Look at the solid curve. First it **jumps**. The spike enters $m$ with a share of 0.1 and $v$ with a share of 0.01 (`fit` has $\beta_2 = 0.99$), so
# $m = 0.1 \cdot 1000$ and $\sqrt v = \sqrt{0.01 \cdot 1000^2}$ ordinary gradients: both 100, and their fraction is 1. That is a full step. The next one goes nine tenths as far in
# the same direction, the one after that 0.81, and so on: ten steps' worth, all the way that one bad batch has pointed out.
#
# Then it **crawls**. The 10,000 ordinary squares in $v$ fade by 1 % a step, which takes $\ln(10{,}000)/\ln(1/0.99) \approx 900$ steps, and as long as they are
# there, Adam divides by their root. A run that jumps and then crawls is what a spike looks like in the wild.
#
# With the belt on, nothing happens. Most of the time the belt does nothing at all, which is how a belt should be.
#
# ## An average of the weights
#
# At a constant rate the weights never come to rest; each batch pushes them about. The pushes are random, so they cancel in a mean. Hence one keeps a second set of weights, the
# **exponential moving average** (EMA) of the first, and draws samples with that. It takes no part in training. After each step, with $w$ the weights and a decay $d$ near 1:
#
# $$\bar w \leftarrow d\,\bar w + (1-d)\,w .$$
#
# <details><summary><b>What it averages over</b></summary>
#
# Insert the rule into itself: $\bar w_n = (1-d)\sum_{k=0}^{n-1} d^k\, w_{n-k} + d^n\,\bar w_0$. The weights of $k$ steps ago count $(1-d)\,d^k$: their mean age is
# $d/(1-d)$, so $d = 0.98$ looks back over about 50 steps, $d = 0.999$ over about 1000. The shares sum to $1 - d^n$; the rest, $d^n$, belongs to where the average began.
#
# </details>
#
# Two things go wrong again and again. **Where it starts**: from a *copy* of the weights, not from zeros. Since even a copy of the random first weights is worth forgetting soon, the library lowers $d$ in the beginning, to
# $\min(d, (1 + n)/(10 + n))$ at step $n$. **What it averages**: the *parameters*, which are learned. *Buffers*, the tensors that a network carries along without learning them (a table of rates, a counter), are copied as they are.
#
# ### Question 5.B: an average that starts from zero
#
# *Difficulty 2 of 3, 3 minutes.*
#
# Somebody starts an average from zeros, with $d = 0.999$. Suppose the weights hold still at $w$. What share of $w$ has the average reached after 2000 updates? (A number between 0 and 1, to three digits.)

# %%
# BEGIN SOLUTION
share = 1 - 0.999**2000
# END SOLUTION

# %%
lesson05.ema_from_zero.check(share)

# %% [markdown]
# ### Exercise 5.4: the moving average
#
# *Difficulty 2 of 3, 10 minutes.*
#
# Write `ema_update(averaged, network, decay)`: two networks of the same kind. Change `averaged` in place: each of its parameters becomes `decay` times itself plus `1 - decay` times that of `network`, each of its buffers a
# copy of that of `network`. `network` stays as it is, and the two share no memory. Nothing needs to be returned. `.parameters()` and `.buffers()` walk through a network in a fixed order, `mul_`, `add_` and `copy_`
# change a tensor in place, and all of it must happen under `with torch.no_grad():`, since it is no part of the loss.


# %%
def ema_update(averaged, network, decay):
    # BEGIN SOLUTION lesson05.ema_update
    ...
    # STUB
    # ...
    # END SOLUTION


# %%
lesson05.ema_update.check(ema_update)

# %% [markdown]
# What is it worth? We train at a constant rate, average with $d = 0.98$ on the way (PyTorch's `AveragedModel` is the copy, the library's `update_ema` your function), and judge both on the same 128 new pictures with the same noise. Beside
# them, the same training with a rate that falls to 0.

# %%
new = circles(128, size=16, seed=1).images.to(device)
test_t = torch.randint(1, T + 1, (128,), generator=seeded(2)).to(device)
test_eps = torch.randn(new.shape, generator=seeded(3)).to(device)


@torch.no_grad()
def test_loss(network):
    return float(epsilon_losses(network, schedule, new, test_t, test_eps).mean())


def fit_and_average(decay, steps=300):
    """Losses on new pictures, every 20 steps, of the weights and of their average."""
    raw, averaged = [], []
    ema = AveragedModel(small_network(0))

    def after_step(step, network):
        update_ema(ema, network, ema_decay(step, 0.98))
        if step % 20 == 19:
            raw.append(test_loss(network))
            averaged.append(test_loss(ema.module))

    def rate(step):
        return 0.01 * lr_factor((step + 0.5) / steps, warmup=0.1, decay=decay)

    fit(steps, rate, max_norm=1.0, after_step=after_step)
    return raw, averaged


steady, steady_averaged = fit_and_average("constant")
falling, falling_averaged = fit_and_average("linear")

# %% tags=["plumbing"]
figure, (plot,) = panels(1, width=6.8, height=3.2)
at = range(20, 301, 20)
for losses, color, dash, name, side in (
    (steady, ORANGE, "-", "constant rate", "top"),
    (falling, GREEN, "-.", "rate falls to 0", "bottom"),
    (steady_averaged, BLUE, "--", "constant rate,\naveraged weights", "top"),
):
    plot.plot(at, losses, color=color, ls=dash)
    plot.text(304, losses[-1], name, color=color, va=side, fontsize=9)
plot.set(
    xlabel="training step",
    ylabel="loss on new pictures",
    yscale="log",
    xlim=(10, 390),
    ylim=(0.05, 0.75),
)
plot.set_xticks([50, 100, 150, 200, 250, 300])
plot.set_yticks([0.1, 0.2, 0.4], ["0.1", "0.2", "0.4"])
plot.minorticks_off()
show(
    figure,
    alt="Loss on new pictures over 300 steps. At a constant rate the raw weights give an uneven curve; "
    "their average gives a smooth one that is lowest from about step 170 on. The falling rate ends "
    "where the raw weights end.",
)
print("loss on new pictures at the end:")
for name, raw, averaged in (
    ("constant rate", steady, steady_averaged),
    ("falling rate", falling, falling_averaged),
):
    print(
        f"{name:>14}: {raw[-1]:.3f}, averaged {averaged[-1]:.3f} ({averaged[-1] / raw[-1] - 1:+.0%})"
    )
assert steady_averaged[-1] < steady[-1]
assert abs(falling_averaged[-1] / falling[-1] - 1) < 0.08

# %% [markdown]
# Look at the last third: the average is smooth, and lower than the weights that it is made of, at no cost in training. In the first steps it lags behind. The falling rate also quiets the pushes, and averaging on top of
# it gains nothing here. It even costs a little (second line), because the average still holds older, worse weights. This is one seed; the table at the end has five. The library does both, with a short average ($d = 0.95$); with a constant rate, as in most papers, take 0.999 or more for long runs.
#
# ## Watch it learn
#
# Now the real thing: 24 x 24 pictures, 500 steps. The library's `Trainer` is your loop with all the parts of this lesson: warm-up, decay, clipping, averaged weights. Its defaults are a little more daring than `fit`: the network predicts
# $v$ with min-SNR weights, $t$ is stratified (lesson 3), and the optimizer is Muon, which treats a weight as the matrix that it is. So do not compare its losses, which are weighted, with those above.
#
# `LivePlot` draws the loss and the latest samples. A sample takes the averaged weights and walks from noise to a picture in 20 steps (how, is the topic of lesson 6). It always starts from the
# same noise. *Run this cell and watch.*

# %% tags=["plumbing"]
torch.set_num_threads(THREADS)


@torch.no_grad()
def draw(network, config, schedule, noise):
    """Pictures from ``noise``, in 20 steps of DDIM (lesson 6)."""
    model = clip_x0(as_eps_model(network, schedule, config.target), schedule)
    model = in_precision(model, device, pick_precision("auto", device))
    walk = evenly_spaced(schedule.num_steps, 20)
    return last(ddim(model, schedule, noise.to(device), walk)).clamp(-1, 1).cpu()


# %%
LOOK_AT = (50, 100, 150, 250, 350, 500)
data = circles(4096, size=24)
config = TrainConfig(size=24, steps=500)
noise = torch.randn(64, 3, 24, 24, generator=seeded(8))
torch.manual_seed(config.seed)
trainer = Trainer(config, new_network(config, data), data, device, pick_precision("auto", device))

kept, samples, losses = {}, {}, []
began = time.perf_counter()
with LivePlot(steps=config.steps) as live:
    while trainer.fraction_done() < 1:
        losses.append(trainer.step())  # wipe, backward, clip, step, average
        trainer.update_lr()
        step, pictures = trainer.steps_done, None
        if step in LOOK_AT:
            kept[step] = copy.deepcopy(trainer.ema.module).eval()
            pictures = samples[step] = draw(kept[step], config, trainer.schedule, noise)
        live.update(step, losses[-1], None if pictures is None else pictures[:16])
seconds = time.perf_counter() - began
print(f"{config.steps * config.batch_size / seconds:.0f} images a second, drawing included")

# %% tags=["plumbing", "opening"]
show(
    filmstrip([some[:9] for some in samples.values()], rows=[f"step {step}" for step in samples]),
    alt="Six rows of nine samples, drawn after 50, 100, 150, 250, 350 and 500 training steps: from "
    "colored haze over ragged patches to smooth discs",
)
discs = {step: float(disc_quality(some).is_disc.float().mean()) for step, some in samples.items()}
for step, share in discs.items():
    print(f"step {step:>3}: {share:4.0%} of 64 samples are one clean disc")
assert discs[50] == 0
assert discs[500] > 0.1

# %% [markdown]
# Look down a column: haze, then patches of color, then something round and dented, then a disc. **What is coarse comes first**, in training as on the walk of a sample: place and size, then color, then the edge.
# Not every column is one picture getting better. Each row is drawn by another network, and a disc may change its color or its place, or nearly vanish, from one to the next.
#
# A program judges the share of clean discs (`disc_quality`; lesson 7 asks how one can trust such a judge). Does the loss tell the same?

# %% tags=["plumbing"]
running_at, running = smooth([float(loss) for loss in losses], window=25)
figure, plots = panels(2)
plots[0].plot(running_at, running, color=BLUE)
plots[0].set(yscale="log", xlabel="training step", ylabel="loss (weighted)")
error = [100 * math.sqrt(max(share * (1 - share), 1 / 64) / 64) for share in discs.values()]
plots[1].errorbar(
    list(discs), [100 * share for share in discs.values()], error, fmt="o-", color=ORANGE, capsize=3
)
plots[1].set(xlabel="training step", ylabel="clean discs (%)", ylim=(-6, 106))
show(
    figure,
    alt="Left: the loss on a logarithmic axis; it falls steeply for 150 steps, then slowly, and goes on falling "
    "to the end. Right: the share of clean discs is 0 up to step 250 and then climbs to the end.",
)
early, late = (float(torch.stack(losses[a:b]).mean()) for a, b in ((100, 150), (450, 500)))
print(f"loss at the start {losses[0]:.2f}, around step 125 {early:.4f}, around step 475 {late:.4f}")
print(f"from step 125 to 475 it falls by a factor of {early / late:.1f}")

# %% [markdown]
# On an ordinary axis the loss would seem to be done at step 150, before the first clean disc. On a logarithmic axis it tells quite well what happens: it falls by another factor of four while the discs come. What it does not tell is how good is good enough: no loss
# says "now they are discs". Look at samples. And to see *where* the loss still falls, take it apart by $t$.
#
# ### Exercise 5.5: the loss by step, in bins
#
# *Difficulty 2 of 3, 8 minutes.*
#
# Write `loss_by_bin(t, losses, num_steps, bins)`: `t` (N,) int64, each in 1..num_steps, and `losses` (N,), the loss of each sample. Cut 1..num_steps into `bins` equally wide bins (`bins` divides `num_steps`): the first holds
# $t = 1, \dots, w$, the second $w + 1, \dots, 2w$, the last one ends with `num_steps`. Return the mean loss in each, shape (bins,). No bin will be empty.


# %%
def loss_by_bin(t, losses, num_steps, bins):
    # BEGIN SOLUTION lesson05.loss_by_bin
    ...
    # END SOLUTION


# %%
lesson05.loss_by_bin.check(loss_by_bin)

# %% [markdown]
# Three of the networks that we kept, on 1024 new pictures: the plain epsilon loss in 20 bins.

# %% tags=["plumbing"]
fresh = circles(1024, size=24, seed=1).images.to(device)
t, _ = StratifiedSteps(config.num_steps).draw(len(fresh), generator=seeded(9))
eps = torch.randn(fresh.shape, generator=seeded(10)).to(device)


@torch.no_grad()
def losses_of_network(network):
    model = as_eps_model(network, trainer.schedule, config.target)
    model = in_precision(model, device, pick_precision("auto", device))
    parts = [
        epsilon_losses(
            model, trainer.schedule, fresh[i : i + 64], t[i : i + 64].to(device), eps[i : i + 64]
        )
        for i in range(0, len(fresh), 64)
    ]
    return torch.cat(parts).cpu()


BINS, WIDTH = 20, config.num_steps // 20
middle = [WIDTH * (k + 0.5) for k in range(BINS)]
by_bin = {}
for step in (50, 150, 500):
    of_each = losses_of_network(kept[step])
    by_bin[step] = [float(of_each[(t - 1) // WIDTH == k].mean()) for k in range(BINS)]

figure, (plot,) = panels(1, width=6.8, height=3.2)
for (step, means), color, dash in zip(
    by_bin.items(), (GRAY, ORANGE, BLUE), (":", "--", "-"), strict=True
):
    plot.plot(middle, means, color=color, ls=dash, label=f"after {step} steps")
plot.legend(frameon=False)
plot.set(yscale="log", xlabel="t", ylabel="epsilon loss")
show(
    figure,
    alt="Epsilon loss against t on a logarithmic axis, after 50, 150 and 500 steps. All three fall "
    "with t; the later ones lie lower everywhere.",
)
falls = [by_bin[150][k] / by_bin[500][k] for k in range(BINS)]
print(f"first bin (t up to {WIDTH}): {by_bin[500][0]:.3f}, last bin: {by_bin[500][-1]:.5f}")
print(
    f"from step 150 to 500 the loss falls by a factor of {falls[0]:.1f} in the first bin, "
    f"{statistics.median(falls):.1f} in the median bin, {falls[-1]:.1f} in the last"
)
assert by_bin[500][0] > 20 * by_bin[500][-1]

# %% [markdown]
# Look at the height: the curve spans orders of magnitude, so a mean over all $t$ shows its left end and little else. (The left end is high for a good reason: at small $t$ there is hardly any noise to be seen, and the floor of lesson 3 is high.) Between the dashed and the solid curve the middle falls to less than half,
# and there, between frayed patches and discs, the shapes are decided. At the right end hardly anything happens any more: seeing noise in almost pure noise was learned in the first 150 steps.
#
# Now look at what stands behind each point of the solid curve. Drag $t$ from right to left: when does the disc appear in $\hat x_0$, when its color, when its edge? And what does the error look like on the way?

# %%
trained = as_eps_model(kept[500], trainer.schedule, config.target)
DenoiserExplorer(trained, trainer.schedule, fresh[:3])

# %% [markdown]
# At $t = 1000$ it is a blur, the mean of all discs that the network knows. By $t = 450$ the disc stands where it belongs, in nearly the right color; what is left of the error lies within it and along its edge, where the shape is decided. At $t = 1$ the error is the noise itself: there is hardly any to be seen, and the network says hardly anything.
#
# ## Keep it
#
# This network is yours. `keep` writes its averaged weights into `runs/lesson05`, where lessons 6 and 7 look for it; `your_model` is what they will call. It finds the model again, even
# after this notebook is closed. Sixteen samples of what it found:

# %%
keep(trainer, data)
mine = your_model(device)
again = draw(mine.network, config, mine.schedule, noise)
print(f"steps it was trained for: {mine.card['steps']}")
assert float((again - samples[500]).abs().max()) < 1e-3

show(
    image_grid(again[9:25], columns=8),
    alt="Sixteen samples of the network that was kept, most of them one clean colored disc",
)

# %% [markdown]
# In lesson 6 it draws sixteen discs twice from the same noise: by DDPM in 1000 steps, and by DDIM in 50. If you have the time, give it more than 500 steps first. What it takes to train for hours
# (16-bit numbers, files that survive a power cut, several GPUs) is in [lesson 5b](05b_training_for_real.ipynb), which you can skip: lessons 6 to 8 do not need it.
#
# ## What you have learned
#
# - A training step is `zero_grad`, `backward`, `step`. A loss that stays above 1 means that something is broken.
# - Adam's first steps have full length, whatever the gradient. A warm-up helps with fast rates, a decay quiets the end.
# - Clipping by the global norm is a seat belt: it does nothing on most days.
# - The average of the weights is better than the weights at a constant rate, and gains nothing when the rate falls to 0.
# - Read the loss on a log axis, take it apart by $t$, and look at samples.
#
# ### Key terms
#
# | what people say | what it means |
# |---|---|
# | step, iteration | one batch, one move of the weights |
# | epoch | as many steps as it takes to see every picture once |
# | `set_to_none` | `zero_grad` drops the gradients instead of filling them with zeros |
# | warm-up | the learning rate grows over the first steps |
# | gradient clipping | all gradients together are shortened to a largest norm |
# | EMA | exponential moving average, here of the weights; samples are drawn with it |
#
# ### Claims, measured
#
# <!-- claims -->
#
# ### Further reading
#
# - D. P. Kingma, J. Ba, *Adam: A Method for Stochastic Optimization*, 2014, arXiv:1412.6980
# - I. Loshchilov, F. Hutter, *Decoupled Weight Decay Regularization* (AdamW), 2017, arXiv:1711.05101
# - P. Goyal et al., *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour* (warm-up), 2017, arXiv:1706.02677
# - R. Pascanu, T. Mikolov, Y. Bengio, *On the difficulty of training recurrent neural networks* (clipping), 2012, arXiv:1211.5063
# - J. Ho, A. Jain, P. Abbeel, *Denoising Diffusion Probabilistic Models*, 2020, arXiv:2006.11239 (appendix B: EMA 0.9999)
# - T. Karras et al., *Analyzing and Improving the Training Dynamics of Diffusion Models* (EMA in depth), 2023, arXiv:2312.02696
#
# ## What you can do now
#
# An hour ago you had a network of random numbers. Now you can train it, say from a loss curve what went wrong, and choose a learning rate, a
# belt and an average for a project of your own. You can tell whether a network is learning what you care about.
#
# And you have a model that is your own. Lesson 6 puts it to work.
#
# <!-- navigation -->
