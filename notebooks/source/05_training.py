# %% [markdown]
# # 5 · Training for real
#
# You have a schedule, a loss and a network. What is left is a loop of four lines, and everything that
# keeps these four lines from going wrong when a run takes hours: a learning rate that starts gently, a seat
# belt for gradients, an average of the weights, numbers of half the size, and files that survive.
#
# **After this lesson you will be able to**
#
# - write the training loop by hand, and recognize its classic mistakes by their loss curves,
# - say what warm-up, clipping and averaged weights do, and when they do nothing,
# - train in bf16 and in fp16, and write a step with loss scaling that survives an overflow,
# - train with the library, watch the samples improve while it runs, and read the loss by $t$,
# - save a model so that others can load it without trusting you, and go on with a run that was stopped.
#
# **You need** lessons 1 to 4: the jump, the epsilon loss, TinyUNet. **Time:** about <!-- minutes --> minutes, of which the
# computer works one or two.

# %%
import _thread
import copy
import dataclasses
import json
import math
import pickle
import statistics
import tempfile
import threading
import time
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import tutorial_lib
from tutorial_lib.checkpoints import as_eps_model, load_checkpoint, save_checkpoint
from tutorial_lib.checks import lesson05
from tutorial_lib.datasets import circles
from tutorial_lib.explorers import DenoiserExplorer
from tutorial_lib.hardware import (
    describe_device,
    in_precision,
    keep_freed_memory,
    pick_device,
    pick_precision,
)
from tutorial_lib.losses import StratifiedSteps, epsilon_loss, epsilon_losses
from tutorial_lib.metrics import disc_quality  # preview: lesson 7 asks how good samples are
from tutorial_lib.plots import LivePlot, filmstrip, image_grid, panels, show
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced, last  # preview: lesson 6 writes them
from tutorial_lib.schedules import linear_schedule
from tutorial_lib.training import (
    RunFolder,
    TrainConfig,
    Trainer,
    ema_decay,
    lr_factor,
    new_network,
    resume,
    train,
    update_ema,
)
from tutorial_lib.networks.unet import TinyUNet

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: up to 1.6 times faster
device = pick_device()
folder = tempfile.TemporaryDirectory()  # everything that this lesson writes; gone afterwards
runs = Path(folder.name)
THREADS = torch.get_num_threads()
torch.set_num_threads(1)  # the first half works on pictures too small to share among cores


def seeded(seed):
    """A source of random numbers that starts the same way every time."""
    return torch.Generator().manual_seed(seed)


def smooth(values, window=15):
    """Mean over a sliding window, and the place of each mean."""
    values = torch.tensor(values).unfold(0, window, 1).mean(1)
    return range(window // 2, window // 2 + len(values)), values


print("tutorial_lib", tutorial_lib.__version__, "| torch", torch.__version__)
print(describe_device(device))

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
# slope is the **gradient** of the loss, one number for each weight. PyTorch splits a step into three calls, and their
# order matters:
#
# - `loss.backward()` calculates the gradient and **adds** it to what each weight's `.grad` already holds;
# - `optimizer.step()` moves every weight by what it finds in `.grad`;
# - `optimizer.zero_grad()` wipes `.grad`, so that the next `backward()` starts afresh.
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
# Here is the whole program written out: data, loss, three calls, again and again. It is as long as the loop of many a real
# project, because it lets us change one thing at a time further down: the learning rate at each step, a largest norm for the
# gradients, something to do after each step. With the values that stand there, all that does nothing.


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
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
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


start = time.perf_counter()
_, right, _ = fit(150)
seconds = time.perf_counter() - start
_, piled_up, _ = fit(150, wipe=False)

figure, (plot,) = panels(1, width=6.4)
for losses, color, dash, name, where in (
    (right, BLUE, "-", "as it should be", (30, 0.25)),
    (piled_up, ORANGE, "--", "zero_grad() forgotten", (18, 2.2)),
):
    plot.plot(*smooth(losses), color=color, ls=dash)
    plot.text(*where, name, color=color)
plot.axhline(1, color=GREY, ls=":", lw=1)
plot.text(1, 1.04, "always answering 0", color=GREY, fontsize=8)
plot.set(xlabel="training step", ylabel="loss", ylim=(0, 3))
show(
    figure,
    alt="Two loss curves over 150 steps. The right loop falls from 1 to about a quarter. With "
    "zero_grad forgotten the loss falls at first, then climbs above 1 and keeps climbing.",
)
print(f"{150 / seconds:.0f} steps a second")
print(
    f"mean loss of the last 50 steps: {statistics.mean(right[-50:]):.2f}, "
    f"with zero_grad() forgotten {statistics.mean(piled_up[-50:]):.2f}"
)
assert statistics.mean(right[-50:]) < 0.35
assert statistics.mean(piled_up[-50:]) > 1

# %% [markdown]
# Look at the dashed curve: no error message, a promising start, and then it leaves the ground. The sum of all old gradients is like
# a ball that nobody can stop: it rolls on in the direction that was right fifty steps ago. A loss **above 1** is always a
# sign of a broken loop, since a network that answers 0 to everything gets 1.
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
# (There is a tiny number below the fraction, so that nobody divides by 0; and the W in AdamW stands for weight decay, a pull towards 0, which we
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
# So Adam strides out *fully* at the first step, in a direction that one batch has suggested. A **warm-up** lets the rate grow from
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
# Does it matter? We ask for ten times the rate from above, 0.03, once from the first step on and once with a warm-up over the first 20 % of
# the run. The library's `lr_factor` is your rule without the peak.

# %%
STEPS = 150
PEAK = 0.03


def constant(step):
    return PEAK


def warmed_up(step):
    return PEAK * lr_factor((step + 0.5) / STEPS, warmup=0.2, decay="constant")


at_once, gently = [], []
for seed in (0, 1):
    at_once.append(fit(STEPS, constant, seed=seed)[1])
    gently.append(fit(STEPS, warmed_up, seed=seed)[1])

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
for curves, color, dash, name, where in (
    (at_once, ORANGE, "-", "0.03 at once", (60, 1.05)),
    (gently, BLUE, "--", "0.03 after a warm-up", (66, 0.58)),
):
    for losses in curves:
        plots[1].plot(*smooth(losses), color=color, ls=dash)
    plots[1].text(*where, name, color=color)
plots[1].set(xlabel="training step", ylabel="loss", ylim=(0, 1.6), title="Two seeds each")
show(
    figure,
    alt="Left: three learning-rate curves that rise over the first fifth; one stays, one falls "
    "in a line, one as a cosine. Right: the loss with rate 0.03 at once stays at 1 for both seeds; "
    "with warm-up it falls to about 0.25.",
)
ends = [statistics.mean(losses[-50:]) for losses in (*at_once, *gently)]
print(
    "mean loss of the last 50 steps, two seeds: at once "
    f"{ends[0]:.2f} and {ends[1]:.2f}, with warm-up {ends[2]:.2f} and {ends[3]:.2f}"
)
assert min(ends[:2]) > 0.9
assert max(ends[2:]) < 0.5

# %% [markdown]
# Look at the right: the same rate that learns well after a warm-up kills the network when it comes at once. It sits at loss 1, answers 0, and never gets up
# again: a few wild steps have driven its weights to where hardly any gradient comes through. (At a gentle rate, 0.003, we did without warm-up. It is insurance for fast rates.)
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
# PyTorch's `nn.utils.clip_grad_norm_` does this in place, and returns the norm that it found; `fit` calls it at each step. A crash test: at step 60 the loss counts a thousandfold,
# for one step only.


# %%
def crash(step):
    return 1000.0 if step == 60 else 1.0


_, unbelted, norms = fit(200, factor=crash)
_, belted, _ = fit(200, factor=crash, max_norm=1.0)

figure, plots = panels(2)
plots[0].plot(norms, color=GREY, lw=1)
plots[0].axhline(1, color=BLUE, ls="--", lw=1)
plots[0].text(205, 3, "max_norm = 1", color=BLUE, ha="right")
plots[0].set(yscale="log", xlabel="training step", ylabel="norm of all gradients")
for losses, color, dash, name, where in (
    (unbelted, ORANGE, "-", "not clipped", (120, 0.62)),
    (belted, BLUE, "--", "clipped at 1", (130, 0.12)),
):
    plots[1].plot(*smooth(losses), color=color, ls=dash)
    plots[1].text(*where, name, color=color)
plots[1].set(xlabel="training step", ylabel="loss", ylim=(0, 1.1))
show(
    figure,
    alt="Left: gradient norms below or near 1, with one spike of several hundred at step 60. "
    "Right: at the spike the loss without clipping jumps up, then crawls; with clipping it falls on.",
)
ordinary = norms[:60]
print(
    f"norms before the crash: median {statistics.median(ordinary):.2f}, largest {max(ordinary):.2f}; "
    f"in the crash {norms[60]:.0f}"
)
print(
    f"mean loss of the last 50 steps: {statistics.mean(unbelted[-50:]):.3f} without clipping, "
    f"{statistics.mean(belted[-50:]):.3f} with"
)
assert statistics.mean(belted[-50:]) < 0.75 * statistics.mean(unbelted[-50:])

# %% [markdown]
# Look at what happens *after* step 60 without clipping: the loss jumps up, and 140 steps later it is back where it was before the crash, no better. Adam has squared the huge gradient into its $v$, with a share of $1 - \beta_2 = 0.01$, and divides by the root of $v$: the
# $0.01 \cdot 1000^2 = 10{,}000$ ordinary squares need $\ln(10{,}000)/\ln(1/0.99) \approx 900$ steps to fade. A run that jumps at a spike and crawls afterwards is what this looks like in the wild. Most of the time the belt does nothing at
# all, which is how a belt should be.
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
# *Difficulty 2 of 3, 8 minutes.*
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
    """Losses on new pictures, every 20 steps, of the weights and of their average; the average."""
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
    return raw, averaged, ema.module


steady, steady_averaged, trained = fit_and_average("constant")
falling, falling_averaged, _ = fit_and_average("linear")

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
assert steady_averaged[-1] < 0.95 * steady[-1]
assert abs(falling_averaged[-1] / falling[-1] - 1) < 0.08

# %% [markdown]
# Look at the last third: the average is smooth, and lower than the weights that it is made of, at no cost in training. In the first steps it lags behind. The falling rate also quiets the pushes, and averaging gains nothing on top of
# it here (second line). The library does both, with a short average ($d = 0.95$); with a constant rate, as in most papers, take 0.999 or more for long runs.
#
# ## Half the bits
#
# The weights are numbers of 32 bits, **fp32**. Numbers of 16 bits need half the memory and can be multiplied faster where the hardware knows how. There are two ways to spend 16 bits:

# %%
# NBVAL_CHECK_OUTPUT
print("       exponent  digits  smallest normal  smallest at all  largest")
for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
    about = torch.finfo(dtype)
    bits = about.bits - 1 + round(math.log2(about.eps))  # what sign and fraction leave
    tiniest = about.smallest_normal * about.eps
    print(
        f"{name}   {bits} bits    {-math.log10(about.eps):.1f}      {about.smallest_normal:.1e}"
        f"          {tiniest:.1e}          {about.max:.1e}"
    )

# %% [markdown]
# **bf16** keeps the range of fp32 and gives up digits: fewer than three. **fp16** has one more digit, and a narrow range: nothing above 65504, and everything below $3\cdot10^{-8}$ becomes 0.
#
# Two or three digits are enough for a product in a large sum. They are not enough for *weights*, which grow by many tiny steps:

# %%
# NBVAL_CHECK_OUTPUT
for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
    weight = torch.ones((), dtype=dtype)
    for _ in range(1000):
        weight += torch.tensor(0.0001, dtype=dtype)
    print(f"{name}: 1 + 1000 times 0.0001 = {float(weight):.3f}")

# %% [markdown]
# In both 16-bit formats the small steps vanish, all thousand of them. Hence **mixed precision**: weights, optimizer and average stay in fp32; inside `torch.autocast` the convolutions and matrix products, and their gradients on the way back, are done in 16 bits.
#
# ### What gets lost on the way back
#
# A loss is a mean over many numbers, batch x channels x pixels, so the gradient that starts the way back is divided by that many. Here that is 32 x 3 x 16 x 16 = 24,576. In a big run it is thousands of times more: a batch of 2048 pictures of 64 x 64 makes 25 million.
# Do such small gradients survive? We take the network from above and one batch, multiply the loss by some factor, do the backward pass in 16 bits, divide the gradients by the factor, and compare with fp32. A factor of $2^{-10}$ stands for a mean over 1024 times as many numbers.

# %%
cpu_schedule = linear_schedule(1000)
cpu_network = copy.deepcopy(trained).cpu()


def in_format(network, dtype):
    """``network`` with its convolutions and products in ``dtype``."""

    def model(x_t, t):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            answer = network(x_t, t)
        return answer.float()

    return model


def gradients(dtype, factor=1.0):
    """All gradients of one batch, of the loss times ``factor``, divided by ``factor``."""
    cpu_network.zero_grad()
    model = in_format(cpu_network, dtype)
    loss = epsilon_loss(model, cpu_schedule, small.images[:32], generator=seeded(5))
    (loss * factor).backward()
    return torch.cat([p.grad.flatten() for p in cpu_network.parameters()]) / factor


exact = gradients(torch.float32)
factors = [2.0**power for power in range(-20, 29, 4)]
error = {
    name: [float((gradients(dtype, factor) - exact).norm() / exact.norm()) for factor in factors]
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16))
}
fp16_error = dict(zip(factors, error["fp16"], strict=True))
overflow = next(f for f in factors if not math.isfinite(fp16_error[f]))

figure, (plot,) = panels(1, width=7.2, height=3.4)
for name, color, dash in (("bf16", GREEN, "-."), ("fp16", BLUE, "-")):
    plot.plot(factors, error[name], color=color, ls=dash, marker="o", ms=4)
plot.axvspan(overflow, factors[-1] * 4, color=ORANGE, alpha=0.2, lw=0)
plot.text(overflow * 1.5, 0.15, "fp16:\ninfinity", color=ORANGE)
plot.text(2**-20, 0.5, "fp16: gradients\nbecome 0", color=BLUE, va="center")
plot.text(2.0**2, 0.042, "bf16", color=GREEN)
plot.text(2.0**2, 0.0068, "fp16", color=BLUE)
plot.axvline(1, color=GREY, ls=":", lw=1)
plot.text(1.2, 0.0027, "our loss", color=GREY, fontsize=9)
plot.set(
    xscale="log",
    yscale="log",
    xlabel="factor on the loss",
    ylabel="relative error of the gradient",
    ylim=(0.002, 2),
)
plot.set_xscale("log", base=2)
plot.set_yticks([0.01, 0.1, 1], ["1 %", "10 %", "100 %"])
show(
    figure,
    alt="Relative error of the gradient against the factor on the loss. bf16 is flat at about "
    "8 percent. fp16 is flat at about 2 percent from our loss on to the right, rises to 100 percent "
    "for small factors, and is infinite for the largest.",
)
print(
    "relative error  "
    + "  ".join(f"2^{math.log2(f):+.0f}" for f in (2**-12, 2**-8, 2**-4, 1, 2**8))
)
for name in error:
    row = [error[name][factors.index(f)] for f in (2.0**-12, 2.0**-8, 2.0**-4, 1.0, 2.0**8)]
    print(f"{name:>14}  " + "  ".join(f"{value:4.0%}" for value in row))
print(f"fp16 overflows at 2^{math.log2(overflow):.0f}")
assert fp16_error[1.0] < 1.5 * fp16_error[2.0**8]
assert fp16_error[2.0**-12] > 0.5
assert max(error["bf16"]) < 2 * min(error["bf16"])

# %% [markdown]
# Look at the blue curve: fp16 has a window. To the left of it the gradients underflow to 0 and the network learns nothing; to the right they overflow to infinity. **Our loss stands just inside its left edge**: at our size hardly anything is lost, which is why you can train a small model in fp16, feel safe, and fail with
# a big one. Half the gradient is gone with a mean over 256 times as many numbers. bf16 knows no window: its error is larger, because it has fewer digits, and the same at every factor. (Such errors are random, and cancel over many steps.)
#
# ### Question 5.C: no scaling for bf16
#
# *Difficulty 1 of 3, 1 minute.* Why does bf16 train without any factor on the loss, where fp16 needs one in big runs?
#
# - a) bf16 has more digits.
# - b) bf16 has as many exponent bits as fp32, so small gradients stay above 0.
# - c) In bf16 autocast scales the loss by itself.
# - d) In bf16 the gradients are kept in fp32.

# %%
# BEGIN SOLUTION
why = "b"
# END SOLUTION

# %%
lesson05.why_bf16.check(why)

# %% [markdown]
# ### A step that survives
#
# GPUs older than about 2020 multiply fp16 fast, and know no bf16. There one trains with **loss scaling**: multiply the loss by a large `scale` (65536, say), so that the gradients lie inside the window; divide them by it, in fp32, before anything looks at them. Which scale is right
# changes during training, so it is found by trial: if any gradient comes out infinite or NaN, the scale was too large. Then **skip the step**, halve the scale, and go on with the next batch.
#
# ### Exercise 5.5: a training step with loss scaling
#
# *Difficulty 3 of 3, 15 minutes. This one is worth being proud of.*
#
# Write `scaled_step(network, optimizer, loss_of, scale, max_norm)`, with `network`, `optimizer` and `loss_of` as in 5.1 (all parameters get a gradient). It
#
# 1. wipes old gradients, and calculates those of the loss times `scale`,
# 2. divides every gradient by `scale`,
# 3. clips the true gradients to the global norm `max_norm` (`torch.nn.utils.clip_grad_norm_(parameters, max_norm)` does it in place, and returns the norm it found; the norm is infinite or NaN if any gradient is),
# 4. makes the step, but only if all gradients were finite,
# 5. returns the scale for the next step: `scale` as it was, or `scale / 2` where the step was skipped.


# %%
def scaled_step(network, optimizer, loss_of, scale, max_norm):
    # BEGIN SOLUTION lesson05.scaled_step
    ...
    # END SOLUTION


# %%
lesson05.scaled_step.check(scaled_step)

# %% [markdown]
# PyTorch's own is `torch.amp.GradScaler`. It also doubles the scale after 2000 good steps in a row, so that the scale follows what the network needs. The next cell trains in fp16 from a scale that is far too large; watch it find its way.

# %%
cpu_network = copy.deepcopy(trained).cpu()
optimizer = torch.optim.AdamW(cpu_network.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
model, generator = in_format(cpu_network, torch.float16), seeded(6)
scales = []
for _ in range(16):
    index = torch.randint(len(small.images), (32,), generator=generator)
    loss = epsilon_loss(model, cpu_schedule, small.images[index], generator=generator)
    optimizer.zero_grad()
    scaler.scale(loss).backward()  # backward from loss * scale
    scaler.unscale_(optimizer)  # divide the gradients by scale
    nn.utils.clip_grad_norm_(cpu_network.parameters(), 1.0)
    scaler.step(optimizer)  # skipped where a gradient is not finite
    scaler.update()  # the scale of the next step
    scales.append(int(math.log2(scaler.get_scale())))
print("scale after each step, as a power of 2:", *scales)
assert scales[-1] == scales[-4] < 29
assert all(p.isfinite().all() for p in cpu_network.parameters())

# %% [markdown]
# A handful of steps are lost, and none did harm. This library does the same by itself where it trains in fp16.
#
# ### Is it faster?
#
# That depends on the hardware alone. `pick_precision("auto", device)` takes bf16 where the machine multiplies it natively, fp16 with a scaler on older GPUs, and fp32 elsewhere, which is always right. We measure the library's training step on 32 x 32 pictures in both formats, in turns, so that whatever else the machine is doing hits both.

# %%
torch.set_num_threads(THREADS)
data = circles(4096)  # 32 x 32
formats = {name: pick_precision(name, device) for name in ("fp32", "bf16")}
trainers, seconds, losses_of = {}, {"fp32": [], "bf16": []}, {"fp32": [], "bf16": []}
for name, precision in formats.items():
    config = TrainConfig(steps=42, precision=name)
    torch.manual_seed(0)
    trainers[name] = Trainer(config, new_network(config, data), data, device, precision)
    trainers[name].step().item()  # the first call sets things up
    trainers[name].update_lr()
for _ in range(4):
    for name, trainer in trainers.items():
        start = time.perf_counter()
        for _ in range(10):
            losses_of[name].append(trainer.step())
            trainer.update_lr()
        losses_of[name][-1].item()  # wait for the device
        seconds[name].append(time.perf_counter() - start)
throughput = {name: 10 * 32 / statistics.median(times) for name, times in seconds.items()}
end = {name: float(torch.stack(losses[-20:]).mean()) for name, losses in losses_of.items()}
print(f"auto takes {pick_precision('auto', device).name}: {pick_precision('auto', device).reason}")
for name in formats:
    print(f"{name}: {throughput[name]:6.0f} images a second, loss after 40 steps {end[name]:.3f}")
print(f"bf16 is {throughput['bf16'] / throughput['fp32']:.2f} times as fast here")
assert abs(end["bf16"] / end["fp32"] - 1) < 0.05

# %% [markdown]
# The losses agree within a few percent, and the seconds are your machine's business: on the one that made this lesson (2 CPU cores, AMD EPYC, AVX-512 BF16) bf16 is faster; on a CPU without such units it is *slower*, since it is emulated.
#
# ## The library's loop
#
# `train(TrainConfig(...))` does all of the above, and takes care of files. Everything that decides a run stands in its config, and the same config gives the same numbers on the same machine. A short run on the small pictures:

# %%
config = TrainConfig(
    dataset="circles", size=16, widths=(16, 32), steps=120, log_every=40, progress=False,
    out=Path(tempfile.mkdtemp(dir=runs)),
)  # fmt: skip
run = train(config)

print("the same from a terminal:", dataclasses.replace(config, out=None).command(), "\n")
for path in sorted(path for path in run.path.rglob("*") if path.is_file()):
    print(f"{path.stat().st_size:>9,} bytes  {path.relative_to(run.path)}")
for values in RunFolder(run.path).read_metrics():
    print(f"step {values['step']:>3}: loss {values['loss']:.4f}, lr {values['lr']:.5f}")
assert run.losses[-1] < run.losses[0]

# %% [markdown]
# Its defaults are a little more daring than the loop above. The network predicts $v$ with min-SNR weights, and $t$ is stratified (all from lesson 3); the optimizer is Muon, which treats a weight as the matrix that it is (`optimizers.py` says how; `optimizer="adamw"` gives you AdamW). So do not
# compare these losses with those above: they are weighted.
#
# ### What a checkpoint holds
#
# Two files. The `.safetensors` holds the averaged weights and $\bar\alpha$, as plain numbers. The `.json` beside it is the **card**: which network, trained to say what, on which data, for how long, by which command, and a checksum of the weights.

# %%
card = json.loads(run.checkpoint.with_suffix(".json").read_text())
for key in ("network", "target", "schedule", "steps", "precision"):
    print(f"{key:>10}: {json.dumps(card[key])}")

loaded = load_checkpoint(run.path)  # the newest in the folder
x_t, t = torch.randn(4, 3, 16, 16, generator=seeded(7)), torch.tensor([1, 300, 700, 1000])
with torch.no_grad():
    same = torch.equal(loaded.model(x_t, t), run.model(x_t.to(device), t.to(device)).cpu())
print("the loaded model answers as the trained one, bit for bit:", same)
assert same or device.type != "cpu"

# %% [markdown]
# Why not `torch.save(network)`, as in so many tutorials? Because that writes a **pickle**, and a pickle is no data but a *program*: loading it runs whatever it says. Here is one that is harmless, apart from doing something that nobody asked for:


# %%
# NBVAL_CHECK_OUTPUT
class Innocent:
    def __reduce__(self):
        return print, ("this line was printed by LOADING a file",)


content = pickle.dumps(Innocent())
_ = pickle.loads(content)

(runs / "weights.pt").write_bytes(content)
try:
    load_checkpoint(runs / "weights.pt")
except ValueError as error:
    print("load_checkpoint:", str(error).replace(str(runs / "weights.pt"), "weights.pt"))

# %% [markdown]
# Instead of `print` it could have been anything that you are allowed to do. (`torch.load` has refused such files by default since version 2.6, unless told otherwise; older code on the web tells it otherwise.) safetensors holds numbers and nothing else.
#
# ### Stop, and go on
#
# A checkpoint is for *drawing*. To go on with a run as if it had never stopped, one needs more: the raw weights, the optimizer's means, the order of the pictures, the state of the random numbers. All that is in the folder `state/`. The run writes it every few minutes and at its end; and when you
# press the stop button of the notebook, it finishes its step, writes it, and says how to go on. We train the run from above once more, and press stop (by program) when 40 steps are done:


# %%
def press_stop(run, step):
    """Does what the stop button does, as soon as the run reports that ``step`` steps are done."""
    while not any(line["step"] == step for line in RunFolder(run).read_metrics()):
        time.sleep(0.01)
    _thread.interrupt_main()


again = dataclasses.replace(config, out=runs / "stopped")
threading.Thread(target=press_stop, args=(again.out, 40), daemon=True).start()
try:
    train(again)
except KeyboardInterrupt as stopped:
    print(str(stopped).replace(str(runs), "runs"))

gone_on = resume(again.out)
pairs = zip(gone_on.network.parameters(), run.network.parameters(), strict=True)
same = gone_on.losses == run.losses and all(torch.equal(a, b) for a, b in pairs)
print(f"{len(gone_on.losses)} steps in two parts, as in one, bit for bit:", same)
assert len(gone_on.losses) == len(run.losses)
assert same or device.type != "cpu"

# %% [markdown]
# Not a step is lost or done twice: the loss of each step and all weights are those of the run that nobody stopped. From a terminal it is Ctrl-C and the command that stands above. A power cut is survived in the same way, and costs the few minutes since the last state.
#
# ## Watch it learn
#
# Now the real thing: 32 x 32 pictures, 700 steps. `Trainer` is what `train` runs inside; with it we have the loop in our own hands, and look at samples on the way; `LivePlot` draws the loss and the latest ones. A sample takes the averaged weights and walks from noise to a picture in 20 steps (how, is the topic of lesson 6). It always starts from the
# same noise, so that you see the same picture getting better. *Run this cell and watch.*


# %%
@torch.no_grad()
def draw(network, config, schedule, noise):
    """Pictures from ``noise``, in 20 steps of DDIM (lesson 6)."""
    model = clip_x0(as_eps_model(network, schedule, config.target), schedule)
    model = in_precision(model, device, pick_precision("auto", device))
    walk = evenly_spaced(schedule.num_steps, 20)
    return last(ddim(model, schedule, noise.to(device), walk)).clamp(-1, 1).cpu()


LOOK_AT = (50, 100, 200, 300, 450, 700)
config = TrainConfig(size=32, steps=700)
noise = torch.randn(64, 3, 32, 32, generator=seeded(8))
torch.manual_seed(config.seed)
trainer = Trainer(config, new_network(config, data), data, device, pick_precision("auto", device))

strips, labels, discs, kept, losses = [], [], {}, {}, []
start = time.perf_counter()
with LivePlot(steps=config.steps) as live:
    while trainer.fraction_done() < 1:
        losses.append(trainer.step())
        trainer.update_lr()
        step, pictures = trainer.steps_done, None
        if step in LOOK_AT:
            kept[step] = copy.deepcopy(trainer.ema.module).eval()
            pictures = draw(kept[step], config, trainer.schedule, noise)
            discs[step] = float(disc_quality(pictures).is_disc.float().mean())
            strips.append(pictures[:9])
            labels.append(f"step {step}")
        live.update(step, losses[-1], None if pictures is None else pictures[:16])
seconds = time.perf_counter() - start
print(f"{config.steps * config.batch_size / seconds:.0f} images a second, drawing included")

# %%
show(
    filmstrip(strips, rows=labels),
    alt="Six rows of nine samples, drawn after 50, 100, 200, 300, 450 and 700 training steps: from "
    "colored haze to clean discs",
)
for step, share in discs.items():
    print(f"step {step:>3}: {share:4.0%} of 64 samples are one clean disc")
assert discs[50] == 0
assert discs[700] > 0.5

# %% [markdown]
# Look down a column: haze, then patches of color, then something round and dented, then a disc. The share of clean discs is judged by a program (`disc_quality`; lesson 7 asks how one can trust such a judge). Note how late the discs come, compared with the loss:

# %%
running_at, running = smooth([float(loss) for loss in losses], window=25)
figure, plots = panels(2)
plots[0].plot(running_at, running, color=BLUE)
plots[0].set(yscale="log", xlabel="training step", ylabel="loss (weighted)")
plots[1].plot(list(discs), [100 * share for share in discs.values()], "o-", color=ORANGE)
plots[1].set(xlabel="training step", ylabel="clean discs (%)", ylim=(-3, 103))
show(
    figure,
    alt="Left: the loss falls steeply for 150 steps and slowly afterwards. Right: the share of "
    "clean discs is 0 for the first 200 steps and then climbs to the end.",
)
early, late = (float(torch.stack(losses[a:b]).mean()) for a, b in ((150, 200), (650, 700)))
print(
    f"loss around step 175: {early:.4f}, around step 675: {late:.4f}; at the start {losses[0]:.2f}"
)

# %% [markdown]
# Most of the loss is gone before the first disc appears. What still falls afterwards is small, and decides how the pictures look. To see *where* it falls, take the loss apart by $t$.
#
# ### Exercise 5.6: the loss by step, in bins
#
# *Difficulty 2 of 3, 6 minutes.*
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

# %%
fresh = circles(1024, seed=1).images.to(device)
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
for step in (100, 200, 700):
    of_each = losses_of_network(kept[step])
    by_bin[step] = [float(of_each[(t - 1) // WIDTH == k].mean()) for k in range(BINS)]

figure, (plot,) = panels(1, width=6.8, height=3.2)
for (step, means), color, dash in zip(
    by_bin.items(), (GREY, ORANGE, BLUE), (":", "--", "-"), strict=True
):
    plot.plot(middle, means, color=color, ls=dash, label=f"after {step} steps")
plot.legend(frameon=False)
plot.set(yscale="log", xlabel="t", ylabel="epsilon loss")
show(
    figure,
    alt="Epsilon loss against t on a logarithmic axis, after 100, 200 and 700 steps. All three fall "
    "with t; the later ones lie lower everywhere.",
)
falls = [by_bin[200][k] / by_bin[700][k] for k in range(BINS)]
print(f"first bin (t up to {WIDTH}): {by_bin[700][0]:.3f}, last bin: {by_bin[700][-1]:.5f}")
print(
    f"from step 200 to 700 the loss falls by a factor of {falls[0]:.1f} in the first bin, "
    f"{statistics.median(falls):.1f} in the median bin, {falls[-1]:.1f} in the last"
)
assert by_bin[700][0] > 20 * by_bin[700][-1]

# %% [markdown]
# Look at the height: the curve spans orders of magnitude, so a mean over all $t$ shows its left end and little else. (The left end is high for a good reason: at small $t$ there is hardly any noise to be seen, and the floor of lesson 3 is high.) Between the dashed and the solid curve the middle falls to less than half,
# and there, between frayed patches and discs, the shapes are decided. At the right end nothing happens any more: seeing noise in almost pure noise was learned in the first hundred steps.
#
# Now look at what stands behind each point of the solid curve. Drag $t$ from right to left: when does the disc appear in $\hat x_0$, when its color, when its edge? And what does the error look like on the way?

# %%
trained = as_eps_model(kept[700], trainer.schedule, config.target)
DenoiserExplorer(trained, trainer.schedule, fresh[:3])

# %% [markdown]
# At $t = 1000$ it is a blur, the mean of all discs that the network knows. By $t = 550$ the disc stands where it belongs, in nearly the right color; what is left of the error lies within it and along its edge, where the shape is decided. At $t = 1$ the error is the noise itself: there is hardly any to be seen, and the network says hardly anything.
#
# Keep the result: save, load, draw.

# %%
card = {
    "dataset": {
        "name": "circles",
        "image_shape": [3, 32, 32],
        "class_names": list(data.class_names),
    },
    "steps": trainer.steps_done,
    "seed": config.seed,
    "command": config.command(),
}
saved = save_checkpoint(
    runs / "discs", trainer.ema.module, trainer.schedule, target=config.target, card=card
)
back = load_checkpoint(saved, device=device)
again = draw(back.network, config, back.schedule, noise)
difference = float((again[:9] - strips[-1]).abs().max())
print(f"{saved.stat().st_size / 1e6:.1f} MB; largest difference of the samples: {difference:.0e}")
assert difference < 1e-3

show(
    image_grid(again[9:25], columns=8),
    alt="Sixteen samples of the loaded network, most of them one clean colored disc",
)

# %% [markdown]
# ## On a GPU, and on several
#
# **On one GPU** you change nothing: `device="auto"` finds it. What is different inside:
#
# - *The data live there.* The library moves all pictures to the device once. Small sets fit; feeding a GPU from disk is a craft of its own.
# - *Nobody waits.* The CPU only queues work for the GPU. `loss.item()` at every step makes it wait until the queue is empty, so the library looks at its losses every 50 steps.
# - *A larger batch is nearly free*, up to a point: a small batch leaves most of a GPU idle. The step gets less noisy, so that a larger learning rate works; try, with a warm-up.
# - *Bits differ.* Sums are done in another order on every kind of device. The same seed gives the same first noise, and nearly, not exactly, the same network.
#
# **On several GPUs**, the usual way (data parallel) is: each holds the whole network and takes its own part of the batch; after `backward()` the gradients are *averaged* over all of them; then everyone makes the same step and the copies stay equal. $N$ GPUs with batches of $B$ are one GPU with a batch of $N B$: the same mathematics as
# one long batch, and the same reasons to change the learning rate and the warm-up. Each GPU must work on *its own* pictures, $t$ and noise: the same ones everywhere would be $N$ times the same work.
#
# `torchrun`, which comes with PyTorch, starts one process a GPU. With two of them:
#
# ```
# torchrun --nproc-per-node 2 -m tutorial_lib train --dataset circles --batch-size 64
# ```
#
# Here 64 is the batch of both together, 32 each. Every process draws the random numbers of the whole batch and takes its own part, so the run is that of one GPU with a batch of 64, but for the order in which numbers are added. And where a batch does not fit into the memory, `--accumulate 4` works it off in four parts,
# with the sums of `backward()` from the beginning of this lesson.
#
# ## What you have learned
#
# - A training step is `zero_grad`, `backward`, `step`, in this order. A loss above 1 means that the loop is broken.
# - Adam's first steps have full length, whatever the gradient. A warm-up makes fast rates possible, a decay quiets the end.
# - Clipping by the global norm is a seat belt: it does nothing on most days.
# - The average of the weights is better than the weights at a constant rate, and adds little when the rate falls to 0.
# - bf16 keeps the range and needs no scaling; fp16 has a window, and loss scaling keeps the gradients inside it. Weights stay in fp32.
# - One loss number hides most of what happens. Take it apart by $t$, and look at samples.
#
# ### Key terms
#
# | what people say | what it means |
# |---|---|
# | step, iteration | one batch, one move of the weights |
# | epoch | as many steps as it takes to see every picture once |
# | warm-up | the learning rate grows over the first steps |
# | gradient clipping | all gradients together are shortened to a largest norm |
# | EMA | exponential moving average, here of the weights; samples are drawn with it |
# | mixed precision, AMP | products in 16 bits, weights and sums that matter in 32 |
# | loss scaling | multiply the loss, divide the gradients: moves them into the range of fp16 |
# | checkpoint | the weights in a file; here with a card that says what they are |
# | resume | to go on with a stopped run; takes the optimizer's and the random numbers' state, not just weights |
# | gradient accumulation | several calls of `backward()` before one step: a large batch in parts |
# | data parallel, DDP | several GPUs, each with a part of the batch; gradients are averaged |
#
# ### Claims, measured
#
# | claim | verdict | numbers |
# |---|---|---|
# | "Warm-up is needed." | for fast rates | rate 0.03: loss 1.00 after 150 steps without it, 0.26 with it (two seeds); rate 0.003 needs none |
# | "Clipping keeps training stable." | yes, when something happens | after one loss a thousand times too large: 0.42 without, 0.18 with; no effect on ordinary steps |
# | "EMA gives better samples." | at a constant rate, by the loss; not where the rate falls to 0 | loss 14 % lower; 3 % higher (one seed) |
# | "fp16 needs loss scaling." | not at this size; in big runs yes | error of the gradient 2 %; 50 % if the mean runs over 256 times as many numbers |
# | "bf16 is as good as fp32, and faster." | as good here; faster where it is native | losses after 40 steps within 1 %; 1.30 times as many images a second; in four runs beside other work 1.1 to 1.7 |
# | "The loss tells how good the samples are." | hardly | from step 175 to 675 it falls by 0.01, and the clean discs go from none to most |
#
# All by the cells above: seeds as they stand there, 2 CPU cores (AMD EPYC, AVX-512 BF16), no GPU.
#
# ### Further reading
#
# - D. P. Kingma, J. Ba, *Adam: A Method for Stochastic Optimization*, 2014, arXiv:1412.6980
# - I. Loshchilov, F. Hutter, *Decoupled Weight Decay Regularization* (AdamW), 2017, arXiv:1711.05101
# - P. Goyal et al., *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour* (warm-up), 2017, arXiv:1706.02677
# - P. Micikevicius et al., *Mixed Precision Training* (loss scaling), 2017, arXiv:1710.03740
# - J. Ho, A. Jain, P. Abbeel, *Denoising Diffusion Probabilistic Models*, 2020, arXiv:2006.11239 (appendix B: EMA 0.9999)
# - T. Karras et al., *Analyzing and Improving the Training Dynamics of Diffusion Models* (EMA in depth), 2023, arXiv:2312.02696
# - R. Pascanu, T. Mikolov, Y. Bengio, *On the difficulty of training recurrent neural networks* (clipping), 2012, arXiv:1211.5063
#
# <!-- navigation -->
