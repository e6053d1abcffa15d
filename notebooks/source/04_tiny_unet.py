# %% [markdown]
# # 4 · TinyUNet
#
# <!-- opening -->
#
# Two X-rays. In the middle, all that one output pixel (the cross) of a simple network can see: the rest of the picture has *no influence at all*, and no
# training changes that. On the right, what a pixel of `TinyUNet` sees. In this lesson you build the parts of a network that sees a
# whole picture at once and knows what time it is, and you take the X-rays.
#
# **After this lesson you will be able to**
#
# - turn a step number into an embedding, say why plain $t/1000$ is a poor one, and tell every layer the time,
# - work out what an output pixel of any network can see, by hand and by gradient,
# - build levels, skips and patches, and say what each of them is worth, by taking it away,
# - say when a network needs to be told $t$ at all.
#
# **You need** lessons 1 to 3: rates, the jump, the epsilon loss and its floor. Of PyTorch: convolutions, a training
# loop. **Time:** about <!-- minutes --> minutes.

# %%
import math

import torch
import torch.nn.functional as F
from torch import nn

from tutorial_lib.checks import lesson04
from tutorial_lib.forward import diffuse
from tutorial_lib.lab import seeded, start
from tutorial_lib.losses import StratifiedSteps, epsilon_loss, epsilon_losses
from tutorial_lib.networks.unet import ResBlock, TinyUNet, TwoLevelUNet, timestep_embedding
from tutorial_lib.oracles import DatasetOracle, GaussianMixtureOracle
from tutorial_lib.schedules import linear_schedule

device = start(4)

# %% tags=["plumbing"]
import numpy as np

from tutorial_lib.datasets import circles
from tutorial_lib.explorers import EmbeddingExplorer, ReceptiveFieldExplorer
from tutorial_lib.hardware import keep_freed_memory
from tutorial_lib.metrics import disc_quality  # preview: lesson 7 explains how samples are judged
from tutorial_lib.plots import COLORS, GRAY, INK, filmstrip, panels, show
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced, last  # preview: lesson 6 explains sampling

BLUE, ORANGE, GREEN, PINK = COLORS[:4]
torch.set_num_threads(1)  # for nets as small as these, a second thread costs more than it helps
keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: up to 1.6 times faster

# %% [markdown]
# ## What time is it?
#
# The network is asked $\hat\epsilon = \epsilon_\theta(x_t, t)$. The picture goes in as it is. How does $t$ go in? A number up to 1000 is far
# too large for a layer whose inputs should be around 1. So: $t/1000$?
#
# Think of a clock with an hour hand only. It tells all times apart in principle, but to see whether it is 3:00 or
# 3:01 you need a magnifying glass. A real clock has **several hands that turn at different speeds**. The
# sinusoidal embedding (Vaswani et al. 2017, used by Ho et al. 2020) is such a clock, with $d/2$ hands:
#
# $$\mathrm{emb}(t) = \big(\sin t\omega_0, \;\dots,\; \sin t\omega_{d/2-1},\;\; \cos t\omega_0, \;\dots,\; \cos t\omega_{d/2-1}\big),
# \qquad \omega_i = 10000^{-i/(d/2)}.$$
#
# $d$ (in code: `dim`) is the length of the embedding, even. $\omega_i$ is the speed of hand $i$ in radians a step: it falls geometrically
# from 1 (the second hand: a turn in $2\pi \approx 6$ steps) to nearly 1/10000 (the hour hand: a small part of one turn in a thousand steps). Sine
# and cosine together are the two coordinates of a hand's tip.
#
# ### Exercise 4.1: the sinusoidal embedding
#
# *Difficulty 2 of 3, 8 minutes.*
#
# Write `my_timestep_embedding(t, dim)`. `t` is int64 of shape (B,), `dim` an even whole number from 4 up; return floating-point numbers of shape
# (B, dim). The order counts: **all sines first, then all cosines**, hand 0 first in each half. (Other code interleaves them, or has the cosines first, or divides $i$ by
# $d/2 - 1$. A network would learn as well with those, but weights trained with one are useless with another.) Angles are in radians, as `torch.sin` wants
# them. New tensors must be made where `t` is, so that it works on a GPU: `torch.arange(n, device=t.device)` is 0, 1, ..., n - 1. Useful:
# `t[:, None]` has shape (B, 1), and `torch.cat([a, b], dim=1)` puts b to the right of a.


# %%
def my_timestep_embedding(t, dim):
    # BEGIN SOLUTION lesson04.timestep_embedding
    ...
    # END SOLUTION


# %%
lesson04.timestep_embedding.check(my_timestep_embedding)

# %% [markdown]
# Here it is as a picture, by the library's version: one column for each step, one row for each number. Beside it, the **similarity** of each step
# to each other step: the inner product of their embeddings, divided by $d/2$, so that it is 1 for a step with itself.

# %%
schedule = linear_schedule(1000)
T = schedule.num_steps
every_t = torch.arange(0, T + 1)
DIM = 64
table = timestep_embedding(every_t, DIM)  # (1001, 64)
similarity = table @ table.T / (DIM / 2)  # (1001, 1001)

# %% tags=["plumbing"]
figure, (left, right) = panels(2, height=3.6)
image = left.imshow(table.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
left.axhline(DIM / 2 - 0.5, color="black", lw=1)  # on the heat map, which is light in any theme
left.set(xlabel="step t", ylabel="entry", title="the embedding")
left.set_yticks([3, 28, 35, 60], ["sin, fast", "sin, slow", "cos, fast", "cos, slow"])
figure.colorbar(image, ax=left)
image = right.imshow(similarity, cmap="cividis", vmin=0, vmax=1, origin="lower")
right.set(xlabel="step t", ylabel="step s", title="similarity of t and s")
figure.colorbar(image, ax=right)
show(
    figure,
    alt="Left: a heat map with one column a step. The first rows of both halves flicker from "
    "step to step, further down the stripes grow wider, the last rows hardly change. Right: the "
    "similarity of every step to every other, a bright diagonal with fainter stripes parallel to it.",
)

# %% [markdown]
# Look at the right picture: a bright diagonal that fades to both sides, and stripes that all run parallel to it. **Near in time is near in the embedding,
# and only the distance of two steps counts**, not where they are. One line of algebra says why, since $\sin a \sin b + \cos a \cos b = \cos(a - b)$:
#
# $$\mathrm{emb}(t)\cdot\mathrm{emb}(s) = \sum_i \cos\big((t - s)\,\omega_i\big).$$
#
# And the fast hands tell neighbors apart. In numbers: how far is step 500 from step 501, as a share of its largest distance to any step?

# %%
# NBVAL_CHECK_OUTPUT
same = torch.cos((every_t[:, None] - 500.0) * 10000.0 ** (-torch.arange(32) / 32)).mean(1)
assert (same - similarity[500]).abs().max() < 1e-3  # the line of algebra
away = (table - table[500]).norm(dim=1)
shares = {"t/1000": 1 / 500, "embedding": float(away[501] / away.max())}
print("step to next step, as a share of the largest distance")
print(f"t/1000: {shares['t/1000']:.3f}   embedding: {shares['embedding']:.2f}")
assert shares["embedding"] > 50 * shares["t/1000"]

# %% [markdown]
# Turn the hands yourself. Drag $t$ (or press the arrow keys): the bars are the row at the line, and each clock is one hand. Then:
#
# 1. Pull *dim* down to 4. Two hands are left: how similar is step $t$ to $t + 1$, and how similar to the step 44 further on?
# 2. Back to 64, and the *base* down to 10: now the slowest hand turns in 58 steps. What is the similarity good for, far away from $t$?

# %%
EmbeddingExplorer(T, dim=DIM)

# %% [markdown]
# With two hands $t + 44$ looks more like $t$ (0.95) than its neighbor $t + 1$ does (0.77): like a clock without an hour hand, they repeat. With the small base the curve
# wiggles around 0 everywhere but close to $t$: neighbors are told apart, early and late are not. The many speeds from 1 to 1/10000 serve both.
#
# ### Wouldn't t/1000 do?
#
# Let us test it rather than take it on faith. A small network (two hidden layers) gets $t$ in one of three forms and learns three functions of $t$ at once: the noise rate,
# which is smooth; the logarithm of the SNR, which drops steeply at small $t$; and a wave of period 100 steps, to see what fast changes do to it. Each is
# scaled to mean 0 and standard deviation 1, so an RMS error of 1 means "nothing learned". All have about the same number of weights (the ones
# with a single input get a wider hidden layer), the same 500 training steps, and three seeds each.

# %%
forms = {
    "t": every_t[1:, None].float(),
    "t/1000": every_t[1:, None] / T,
    "embedding": timestep_embedding(every_t[1:], DIM),
}
wave = torch.sin(2 * math.pi * every_t[1:] / 100)
wanted = torch.stack([schedule.noise_rate[1:], schedule.snr[1:].log(), wave], 1).float()
wanted = (wanted - wanted.mean(0)) / wanted.std(0)  # (1000, 3)
NAMES = ("noise rate", "log SNR", "wave")


def learn(form, seed, steps=500):
    """What a small network learned to say about every t, (1000, 3)."""
    inputs = forms[form]
    width = 64 if form == "embedding" else 92
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(inputs.shape[1], width), nn.SiLU(),
        nn.Linear(width, width), nn.SiLU(),
        nn.Linear(width, 3),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    generator = seeded(seed)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        some = torch.randint(T, (256,), generator=generator)
        loss = (net(inputs[some]) - wanted[some]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return net(inputs), sum(p.numel() for p in net.parameters())


learned, errors = {}, {}
print(f"RMS error, worst of 3 seeds {'':4}" + "".join(f"{name:>12}" for name in NAMES))
for form in forms:
    runs = [learn(form, seed) for seed in (0, 1, 2)]
    learned[form] = runs[0][0]
    errors[form] = torch.stack([(says - wanted).square().mean(0).sqrt() for says, _ in runs])
    row = "".join(f"{value:12.3f}" for value in errors[form].amax(0))
    print(f"{form:>12}, {runs[0][1]:5d} weights   {row}")
assert errors["t/1000"][:, 2].min() > 0.8  # no wave
assert errors["embedding"].max() < 0.1
assert errors["t/1000"][:, 1].min() > 1.5 * errors["embedding"][:, 1].max()

# %% tags=["plumbing"]
figure, (left, right) = panels(2)
left.plot(every_t[1:101], wanted[:100, 1], color=GRAY, lw=4, alpha=0.6)
right.plot(every_t[1:301], wanted[:300, 2], color=GRAY, lw=4, alpha=0.6, label="wanted")
for form, color, dash in (("t/1000", ORANGE, "--"), ("embedding", BLUE, "-")):
    left.plot(every_t[1:101], learned[form][:100, 1], color=color, ls=dash)
    right.plot(every_t[1:301], learned[form][:300, 2], color=color, ls=dash, label=form)
left.set(xlabel="step t", title="log SNR (scaled), small t")
right.set(xlabel="step t", title="wave of period 100", ylim=(-1.6, 2.2))
right.legend(frameon=False, fontsize=9, ncols=3, loc="upper left")
show(
    figure,
    alt="Two plots, the wanted curve in thick gray. Left, the log SNR for t up to 100: the "
    "embedding follows it, t/1000 cuts the steep corner at the smallest t. Right, a wave: the "
    "embedding follows it, t/1000 gives a nearly flat line.",
)

# %% [markdown]
# From the embedding the wave is learned, from $t/1000$ not a trace of it in the same time. On the left $t/1000$ gets the steep corner at small $t$
# wrong, and the smooth part right. So "$t/1000$ does not work" is too strong. **It works for what changes slowly**, and a network
# has better things to do with its training than to build a clock.
#
# ## Telling a feature map
#
# Inside the network there are **feature maps** $h$ of shape (B, C, H, W): C channels, each a picture of its own. Each sample of the batch has its own $t$, so
# each gets its own message. From the embedding a linear layer makes $2C$ numbers a sample: a **scale** $s$ and a **shift** $b$ for each channel,
#
# $$h_{c} \;\leftarrow\; (1 + s_c)\,h_c + b_c ,$$
#
# the same everywhere in the picture, because the time is the same everywhere. "At this step turn the edge detector up and the color detector down." The $1 +$ makes
# $s = b = 0$ mean "change nothing".
#
# ### Exercise 4.2: tell a feature map the time
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_scale_and_shift(h, time)`: `h` is (B, C, H, W), `time` is (B, 2C), first the C scales, then the C shifts. Return (B, C, H, W). Broadcasting
# lines shapes up from the **right**, so a (B, C) tensor would meet H and W; it has to become (B, C, 1, 1) first. (`time.chunk(2, dim=1)` cuts along axis 1 into two.)


# %%
def my_scale_and_shift(h, time):
    # BEGIN SOLUTION lesson04.scale_and_shift
    ...
    # END SOLUTION


# %%
lesson04.scale_and_shift.check(my_scale_and_shift)

# %% [markdown]
# The library's residual block does just this between its two convolutions. Does the message arrive? One block, one picture, two steps:

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(0)
block = ResBlock(16, 16, 64)
nn.init.normal_(block.conv2.weight, std=0.1)  # it starts at zero, see below
x = torch.randn(1, 16, 8, 8, generator=seeded(0))
early, late = (block(x, timestep_embedding(torch.tensor([t]), 64)) for t in (10, 900))
print("in and out:", tuple(x.shape), tuple(early.shape))
print("another step, another answer:", bool((early - late).abs().max() > 1e-2))
assert not torch.equal(early, late)

# %% [markdown]
# ## The two-level net, and what it can see
#
# The simplest net that deserves the name U-Net has two resolutions: a convolution, one of stride 2 that halves the picture, one more, back up, joined
# with what was there before, and out. It runs, its loss falls, and tutorials end there. The library has it as `TwoLevelUNet`. Let us ask what it *can* do.
#
# An output pixel depends on a window of the input only, its **receptive field**. To find its width, walk through the layers and keep two numbers: the width $r$
# (from 1 pixel) and the distance $j$ between neighbors, in input pixels (at first 1). A convolution of kernel size $k$ reaches $k - 1$ neighbors further:
# $r \leftarrow r + (k-1)\,j$. If it has stride $s$, neighbors are $s$ times as far apart *afterwards*: $j \leftarrow s\,j$.
#
# ### Question 4.A: a receptive field by hand
#
# *Difficulty 2 of 3, 3 minutes.*
#
# A 3 x 3 convolution, then a 3 x 3 convolution with stride 2, then a 3 x 3 convolution. How many pixels of the input **wide** is the square that one output
# entry sees?

# %%
# BEGIN SOLUTION
field_width = 3 + 2 * 1 + 2 * 2
# END SOLUTION

# %%
lesson04.field_by_hand.check(field_width)

# %% [markdown]
# By hand this becomes tedious once there are ways up and shortcuts. Autograd knows better: **an output pixel sees an input pixel if its gradient with
# respect to it is not zero.**
#
# ### Exercise 4.3: what a pixel sees
#
# *Difficulty 3 of 3, 12 minutes. With this one you can X-ray any network.*
#
# Write `my_sees(net, x, row, column)`. `net` is called as `net(x)`; `x` is one picture (1, C, H, W), and so is the answer. Return a map of shape (H, W): how strongly
# the output at (`row`, `column`), **summed over its channels**, depends on each input pixel, which is the **absolute value** of the gradient, **summed over the input's
# channels**. `x` does not ask for gradients; `x.clone().requires_grad_()` is a copy that does, and `torch.autograd.grad(number, x)` returns a tuple with one
# gradient, in the shape of x.


# %%
def my_sees(net, x, row, column):
    # BEGIN SOLUTION lesson04.sees
    ...
    # END SOLUTION


# %%
lesson04.sees.check(my_sees)

# %% [markdown]
# Now to the two nets: the two-level net, and the `TinyUNet` that the rest of the lesson is about. A fresh `TinyUNet` answers exactly 0, whatever comes (its last
# layers start at zero, and you will see why), so all its gradients are 0 as well. We move all weights a little first, in both.


# %%
# NBVAL_CHECK_OUTPUT
def sees(net, x, row, column):
    """The library's way to the same map; this lesson uses it from here on."""
    x = x.clone().requires_grad_()
    net(x)[:, :, row, column].sum().backward()
    return x.grad.abs().sum((0, 1))


def woken(net, seed=0):
    """The net with all its weights moved a little."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return net


torch.manual_seed(0)
picture = circles(1, size=32, seed=3).images
middle = torch.tensor([500])
two_level, tiny = TwoLevelUNet(3, width=16), TinyUNet(3, widths=(16, 32))
print("a fresh TinyUNet answers 0:", not tiny(picture, middle).any())
fields = {
    "two levels": sees(lambda x: woken(two_level)(x, middle), picture, 16, 16),
    "TinyUNet": sees(lambda x: woken(tiny)(x, middle), picture, 16, 16),
}
for name, field in fields.items():
    rows, columns = (int(field.any(axis).sum()) for axis in (1, 0))
    print(f"{name}: {rows} x {columns} pixels of 32 x 32, {field.count_nonzero() / 1024:.0%}")
assert fields["two levels"].count_nonzero() == 15 * 15
assert fields["TinyUNet"].count_nonzero() == 32 * 32

# %% tags=["opening", "plumbing"]
figure, plots = panels(3, height=3)
plots[0].imshow((picture[0].permute(1, 2, 0) + 1) / 2)
plots[0].set_title("a disc, and the window")
plots[0].plot([7.5, 22.5, 22.5, 7.5, 7.5], [7.5, 7.5, 22.5, 22.5, 7.5], color="white", lw=2)
for plot, (name, field) in zip(plots[1:], fields.items(), strict=True):
    strength = (field / field.max()).clamp(min=1e-6).log10()
    strength = np.ma.masked_where(field == 0, strength)
    image = plot.imshow(strength, cmap="cividis", vmin=-3, vmax=0)
    plot.plot(16, 16, "+", color=ORANGE, ms=10, mew=2)
    plot.set_title(f"{name}: what + sees")
for plot in plots:
    plot.set(xticks=[], yticks=[])
    plot.spines[:].set(visible=True, color=GRAY)  # where the picture ends
figure.colorbar(image, ax=plots, label="log10 of the influence", shrink=0.8)
show(
    figure,
    alt="Three squares of 32 by 32 pixels. First a colored disc with the outline of a window "
    "of 15 by 15 pixels. Second, what the middle pixel sees in the two-level net: that window, "
    "and nothing outside. Third, in TinyUNet: everything, strongest in the middle.",
)

# %% [markdown]
# Empty is *no influence at all*. The two-level net sees 15 x 15 pixels, 22 % of the picture. (Check it by your rule: `stem`, `down` with
# stride 2, `middle`; enlarging by 2 halves the jump again; then `up`, `merge`, `head`: 3, 5, 9, 11, 13, 15.) What lies outside might as well not exist: the pixel in the middle cannot know whether there is a disc in a corner already.
#
# Now choose the pixel: click, drag, or move *row* and *column* (on a picture of 20 x 20 pixels, so that all 400 maps of both nets travel quickly). What happens to the
# window in the corners? And in the middle of the picture move *one* column at a time: why does the window jump by two columns, and only at every second step?

# %%
ReceptiveFieldExplorer(
    {"two levels": two_level, "TinyUNet": tiny}, circles(1, size=20, seed=3).images
)

# %% [markdown]
# In a corner the window is cut off, so those pixels see least. And the lower level has one position for every *two* pixels, so the window can only move in steps
# of two.
#
# ### A perfect network with a small window
#
# "Then train it longer!" Or wider, or with better data? There is a way to know without training at all. In lesson 3 the best possible denoiser for a
# finite data set was a weighted mean of the data, with weights by how well each $x_i$ explains $x_t$. Let each pixel judge by **its window only**:
#
# $$\hat x_0[p] = \sum_i w_i[p]\; x_i[p], \qquad w_i[p] \propto \exp\Big(\!-\frac{\lVert x_t - \sqrt{\bar\alpha_t}\,x_i\rVert^2_{\text{window around } p}}{2(1-\bar\alpha_t)}\Big).$$
#
# This is the best answer in mean square that *any* function of the window can give in a world of these pictures, even one that knows where in the picture it
# stands (which a convolution finds out near the border only). No weights give the two-level net a lower loss; this answer is where its training
# leads. (Kamb & Ganguli 2024 study such local denoisers.)
#
# <details><summary><b>Why this is the best</b></summary>
#
# Lesson 3 showed that the best guess in mean square is the conditional mean, here $\mathbb E[x_0[p] \mid x_t \text{ in the window}]$. If $x_0$ is one of
# $x_1, \dots, x_N$, each with probability $1/N$, Bayes' rule gives the probability of $x_i$, given the window, as proportional to the density of the window's
# pixels under $x_i$. These pixels are independent Gaussians around $\sqrt{\bar\alpha_t}\,x_i$ with variance $1-\bar\alpha_t$: the formula above. With a window as
# large as the picture it is the oracle of lesson 3.
#
# </details>


# %%
class WindowOracle:
    """The best denoiser for ``data`` (N, C, H, W) whose every pixel sees ``width`` x ``width``."""

    def __init__(self, data, width):
        self.data, self.width = data, width

    def __call__(self, x_t, t):
        return torch.cat([self.one(x_t[i : i + 1], int(t[i])) for i in range(len(t))])

    def one(self, x_t, t):
        signal, noise = (float(rate[t]) for rate in (schedule.signal_rate, schedule.noise_rate))
        distance = (x_t - signal * self.data).square().sum(1, keepdim=True)  # (N, 1, H, W)
        for _ in range(2):  # sum over the window: along rows, then along columns
            k = self.width // 2
            total = F.pad(distance, (k + 1, k)).cumsum(3)
            distance = (total[..., self.width :] - total[..., : -self.width]).mT
        weight = (-distance / (2 * noise**2)).softmax(0)
        x0_hat = (weight * self.data).sum(0)  # (C, H, W)
        return (x_t - signal * x0_hat) / noise


WORLD = circles(400, size=32, channels=1).images
x_T = torch.randn(12, 1, 32, 32, generator=seeded(5))
exact = DatasetOracle(schedule, WORLD)(x_T[:2], torch.tensor([700, 30]))
whole = WindowOracle(WORLD, 63)(x_T[:2], torch.tensor([700, 30]))
assert (exact - whole).abs().max() < 1e-3  # a window over everything is lesson 3's oracle

drawn, discs = {}, {}
for width in (15, 31, 63):
    drawn[width] = last(ddim(WindowOracle(WORLD, width), schedule, x_T, evenly_spaced(T, 25)))
    quality = disc_quality(drawn[width])
    discs[width] = int(quality.is_disc.sum())
    print(f"window {width:2d} x {width:2d}: {discs[width]:2d} of 12 are discs")
assert discs[63] == 12
assert discs[15] <= 6

# %% tags=["plumbing"]
show(
    filmstrip([drawn[w] for w in drawn], rows=[f"window {w}" for w in drawn]),
    alt="Three rows of samples of perfect denoisers. Window 15: blots, bitten discs, a few discs. "
    "Window 31: nearly all discs. Window 63: discs.",
)

# %% [markdown]
# Each row starts from the same noise. The first one is drawn by the best denoiser with the window of the two-level net: bites and bumps, patches of
# different gray. Every piece of rim is a fine piece of rim; the pieces do not agree on **one** circle. Nothing is wrong with the loss, the data or the
# sampler. The denoiser cannot see far enough, and at large $t$, when it is decided where the disc will be, it takes all pixels to find it under the noise.
#
# (`python benchmarks/time_to_quality.py` trains the two-level net and `TinyUNet` for equal seconds and counts discs.)
#
# ## Levels, skips, patches
#
# How to see further? Larger kernels cost their square; more layers add a little each. Halving the picture is better: it makes every
# later convolution reach **twice as far at a quarter of the cost**. So: go down, several times, to where a few positions stand for the whole picture; think there; come up again.
#
# But what goes down by halving loses the fine detail, and the noise to be predicted *is* fine detail, different in every pixel. So on each level the map from the way
# down is kept and handed across to the way up: a **skip**. Both maps are laid side by side as channels, and a convolution mixes them. Drawn, it is a U.
#
# ### Exercise 4.4: join the skip
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_merge_skip(h, skip)`: `h` (B, C1, h, w) comes from the level below, `skip` (B, C2, H, W) from the way down. Enlarge `h` to the size of `skip` by its
# nearest neighbors, and join them along the channels, `h` first: (B, C1 + C2, H, W). H and W may be odd: 7 rows were halved to 4, and doubling would give
# 8. `F.interpolate(h, size=(H, W))` enlarges to just that size (its default is nearest neighbors); `torch.cat([a, b], dim=...)` joins.


# %%
def my_merge_skip(h, skip):
    # BEGIN SOLUTION lesson04.merge_skip
    ...
    # END SOLUTION


# %%
lesson04.merge_skip.check(my_merge_skip)

# %% [markdown]
# The finest level is the most expensive, since it has the most positions. `TinyUNet` does not even begin there: it first cuts the picture into **patches**
# of 2 x 2 pixels and makes the pixels of a patch into channels. Nothing is lost, the numbers only lie in another order, and everything after runs on a quarter of the positions.
#
# ### Exercise 4.5: a picture as patches
#
# *Difficulty 2 of 3, 6 minutes.*
#
# Write `my_to_patches(x, patch)`: `x` is (B, C, H, W), `patch` the side p of a patch. First pad with zeros **on the right and below**, as few as needed to make H and W multiples
# of p, and none where they are. Then make the pixels of each patch into channels: (B, C p², H'/p, W'/p), where H' and W' are the padded sizes. Channels come first by color, inside a color by row
# of the patch, then by column; that is the order of `F.pixel_unshuffle(x, p)`, which does this second part. `F.pad(x, (left, right, top, bottom))` pads; in Python
# `-7 % 4` is 1.


# %%
def my_to_patches(x, patch):
    # BEGIN SOLUTION lesson04.to_patches
    ...
    # END SOLUTION


# %%
lesson04.to_patches.check(my_to_patches)

# %%
# NBVAL_CHECK_OUTPUT
cut = F.pixel_unshuffle(picture, 2)
assert torch.equal(F.pixel_shuffle(cut, 2), picture)
print(tuple(picture.shape), "->", tuple(cut.shape), "and back, with nothing lost")

# %% [markdown]
# ## TinyUNet
#
# Now the whole. You have met most of it:
#
# | part | what it does | shape for a 32 x 32 RGB picture, widths 32 and 64 |
# |---|---|---|
# | patches, stem | pixels to channels, one convolution | (B, 12, 16, 16) to (B, 32, 16, 16) |
# | time | embedding, two linear layers | (B, 128), handed to **every** block |
# | level 1, down | residual block, its result kept as a skip | (B, 32, 16, 16) |
# | shrink | convolution of stride 2 | (B, 64, 8, 8) |
# | bottom | block, attention, block | (B, 64, 8, 8) |
# | grow, join | enlarge, convolution, skip beside it | (B, 32 + 32, 16, 16) |
# | level 1, up | residual block | (B, 32, 16, 16) |
# | head | norm, convolution, back to pixels | (B, 3, 32, 32) |
#
# A **residual block** adds to its input: $\text{out} = \text{shortcut}(x) + \text{branch}(x, t)$. The branch is norm, SiLU, convolution, norm, *scale and shift by the time*, SiLU, convolution.
#
# - **Group norm** brings each group of channels of each sample to mean 0 and standard deviation 1, over all positions. So the scale and shift of the time act on something of known
#   size, whatever the layers before have done. (Batch norm would mix samples of different $t$.)
# - **Zero at the end.** The last convolution of each branch starts with all weights 0. So at first every block is its shortcut, and the net grows from there.
# - **Attention** at the bottom: each of the 8 x 8 positions takes a weighted mean over all of them, so that far corners can agree. It is cheap where there are few positions.

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(0)
net = TinyUNet(3)
blocks = [name for name, module in net.named_modules() if isinstance(module, ResBlock)]
print("residual blocks:", ", ".join(blocks))
print("weights:", sum(p.numel() for p in net.parameters()))
fresh = ResBlock(16, 16, 64)
assert torch.equal(fresh(x, torch.randn(1, 64)), x)
print("a fresh block hands its input on, unchanged")

# %% [markdown]
# ### Take it apart
#
# What is each part worth? We train `TinyUNet` on discs of 16 x 16 pixels, whole and each time with something broken. PyTorch's **hooks** make that
# easy: a forward pre-hook may change what goes into a module. The loop is the plain one (lesson 5 builds a better one): 125 steps, AdamW, three seeds. The yardstick is
# the epsilon loss on 256 new discs, noised at steps spread evenly over 1..T, the same for all.


# %%
def deaf(block, inputs):
    """This block is not told the time."""
    x, time = inputs
    return x, torch.zeros_like(time)


def without_skip(block, inputs):
    """The second half of the channels that go into this block, the skip, is 0."""
    x, time = inputs
    x = x.clone()
    x[:, x.shape[1] // 2 :] = 0
    return x, time


def without_norm(net):
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())


def broken(how, seed):
    """A TinyUNet, with something missing."""
    torch.manual_seed(seed)
    net = TinyUNet(1, widths=(16, 32))
    for name, module in net.named_modules():
        if isinstance(module, ResBlock):
            if how == "no time":
                module.register_forward_pre_hook(deaf)
            if how == "no skips" and ".up." in name:
                module.register_forward_pre_hook(without_skip)
    if how == "no norm":
        without_norm(net)
    return net.to(device)


on_device = schedule.to(device)
discs_16 = circles(2000, size=16, channels=1).images.to(device)
test_x0 = circles(256, size=16, channels=1, seed=1).images.to(device)
test_t = (torch.arange(256) * T // 256 + 1).to(device)
test_eps = torch.randn(test_x0.shape, generator=seeded(2)).to(device)


def train(net, seed, steps=125, batch=32):
    generator = seeded(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    sampler = StratifiedSteps(T)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20, 2 * (1 - step / steps))
        x0 = discs_16[torch.randint(len(discs_16), (batch,), generator=generator).to(device)]
        loss = epsilon_loss(net, on_device, x0, generator=generator, sampler=sampler)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


@torch.no_grad()
def test_losses(net):
    """The loss of each of the 256 test pictures."""
    return epsilon_losses(net, on_device, test_x0, test_t, test_eps).cpu()


VARIANTS = ("whole", "no time", "no norm", "no skips")
nets = {how: [train(broken(how, seed), seed) for seed in (0, 1, 2)] for how in VARIANTS}
losses = {how: torch.stack([test_losses(net) for net in nets[how]]) for how in VARIANTS}
whole = losses["whole"].mean(1)  # (3 seeds,)
for how in VARIANTS[1:]:
    ratio = losses[how].mean(1) / whole  # seed by seed
    print(f"{how:>8}: {ratio.mean():.2f} +- {ratio.std() / 3**0.5:.2f} times the whole net's loss")
assert losses["no skips"].mean() > 2 * whole.mean()
assert losses["no norm"].mean() > 1.2 * whole.mean()

# %% tags=["plumbing"]
edges = [0, 20, 60, 150, 300, 500, 750, 1000]
centers = [math.sqrt((a + 1) * b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
figure, (plot,) = panels(1, width=7.6, height=3.6)
looks = ((BLUE, "-"), (ORANGE, "--"), (PINK, "-."))
for how, (color, dash) in zip(VARIANTS[1:], looks, strict=True):
    curves = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        here = ((test_t > low) & (test_t <= high)).cpu()
        curves.append(losses[how][:, here].mean(1) / losses["whole"][:, here].mean(1))
    curves = torch.stack(curves)  # (bins, 3 seeds)
    plot.fill_between(centers, curves.amin(1), curves.amax(1), color=color, alpha=0.2, lw=0)
    plot.plot(centers, curves.mean(1), color=color, ls=dash, marker="o", ms=4)
    plot.text(centers[-1] * 1.06, float(curves[-1].mean()), how, color=color, va="center")
plot.axhline(1, color=INK, lw=0.8)
plot.set(
    xscale="log", yscale="log", xlabel="t (logarithmic)", ylabel="loss / that of the whole net"
)
plot.set_xlim(3, 3000)
plot.set_yticks([1, 1.5, 2, 3, 5], ["1", "1.5", "2", "3", "5"])
plot.minorticks_off()
show(
    figure,
    alt="Loss relative to the whole net against t for three broken nets, bands from the lowest to "
    "the highest of three seeds. Without skips the ratio is the highest and grows toward large t. "
    "The others are closer to 1.",
)

# %% [markdown]
# **Skips** are worth the most. Without them all detail has to travel by way of the 4 x 4 positions of the bottom. There would be room (32 channels at
# 16 positions, for 256 pixels), but packing every pixel away and unpacking it has to be learned; with a skip it is simply there. The damage is
# largest at large $t$, where $x_t$ is nearly all noise: easy to copy, hard to pack. These are nets in their first 125 steps: they say what
# *helps learning*, not what is possible in the end. The table at the end has longer training and more seeds.
#
# ## Without time
#
# "Without time conditioning it works, only less well", tutorials say. The blind net above did learn. How can it, if the right answer depends on $t$? Because
# $x_t$ itself shows how noisy it is: on the black ground you see the noise alone.
#
# As before there is a perfect player to compare with. A denoiser that is not told $t$ can at best guess it, $p(t \mid x_t)$ by Bayes' rule, and average the answers:
#
# $$\epsilon^*_{\text{blind}}(x) = \mathbb E[\epsilon \mid x] = \sum_t p(t \mid x)\;\epsilon^*(x, t), \qquad p(t \mid x) \propto p_t(x),$$
#
# with $p_t$ the density of noised data at step $t$ (all steps equally likely beforehand).
#
# ### Question 4.B: who needs to be told the time?
#
# *Difficulty 2 of 3, 2 minutes.*
#
# Take two worlds: the eight clusters in the plane of lesson 3 (2 numbers), and pictures of discs (256 numbers). In which of them does not being told $t$ add more to the loss of a
# perfect denoiser? (The loss is a mean over the numbers, so 1 is what "always 0" gets in both worlds.)
#
# - a) In the pictures.
# - b) In the plane.
# - c) It loses a lot in both.
# - d) It loses nothing in either: $x_t$ holds all information about $t$.

# %%
# BEGIN SOLUTION
who_needs_it = "b"
# END SOLUTION

# %%
lesson04.blind.check(who_needs_it)


# %%
class PerfectBlind:
    """The best denoiser for clusters ``means`` (K, D), variance each, that is not told t."""

    def __init__(self, means, variance):
        self.means, self.variance = means.double(), variance
        self.grid = torch.arange(10, T + 1, 10)  # it knows that t is one of these
        self.signal = schedule.signal_rate[self.grid]
        self.noise = schedule.noise_rate[self.grid]

    def __call__(self, x_t, t=None):
        """eps_hat; where ``t`` (B,) is given, for that t, else for the guessed one."""
        x = x_t.flatten(1).double()  # (B, D)
        spread = self.signal**2 * self.variance + self.noise**2  # (G,), variance around a mean
        square = x.square().sum(1)[:, None, None]  # (B, 1, 1)
        square = square - 2 * (x @ self.means.T)[:, None] * self.signal[:, None]
        square = square + self.means.square().sum(1) * self.signal[:, None] ** 2  # (B, G, K)
        score = -0.5 * square / spread[:, None] - 0.5 * x.shape[1] * spread.log()[:, None]
        mean = score.softmax(2) @ self.means  # (B, G, D), the mean that each t would guess
        eps = (self.noise / spread)[:, None] * (x[:, None] - self.signal[:, None] * mean)
        share = score.logsumexp(2).softmax(1)  # p(t | x), (B, G)
        if t is not None:
            share = (self.grid == t[:, None]).double()  # all on the one that is told
        return (share[:, :, None] * eps).sum(1).reshape(x_t.shape).to(x_t)


angle = torch.arange(8) * 2 * math.pi / 8
ring = 1.4 * torch.stack([angle.cos(), angle.sin()], 1)
pictures = circles(400, size=16, channels=1).images
worlds = {
    "plane, 2 numbers": (PerfectBlind(ring, 0.04), ring, 0.2),
    "discs, 256 numbers": (PerfectBlind(pictures.flatten(1), 0.0), pictures, 0.0),
}
# Where t is told it is lesson 3's oracle, in both worlds.
oracles = (
    GaussianMixtureOracle(schedule, ring, torch.full((8,), 0.04), torch.ones(8)),
    DatasetOracle(schedule, pictures),
)
for oracle, (perfect, data, _) in zip(oracles, worlds.values(), strict=True):
    x, t = torch.randn(data[:8].shape, generator=seeded(6)), torch.arange(100, 900, 100)
    assert (oracle(x, t).to(x) - perfect(x, t)).abs().max() < 1e-3

by_world = {}
for name, (perfect, data, width) in worlds.items():
    t = perfect.grid.repeat(10)  # 10 samples of each of the 100 steps
    generator = seeded(7)
    x0 = data[torch.randint(len(data), (len(t),), generator=generator)]
    x0 = x0 + width * torch.randn(x0.shape, generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    x_t = diffuse(schedule, x0, t, eps)
    parts = zip(x_t.split(100), t.split(100), eps.split(100), strict=True)
    both = [
        torch.stack([(perfect(x, k) - e).square().flatten(1).mean(1),
                     (perfect(x) - e).square().flatten(1).mean(1)])
        for x, k, e in parts
    ]  # fmt: skip
    by_world[name] = torch.cat(both, 1).unflatten(1, (10, 100)).mean(1)  # (told or blind, step)
    told, not_told = by_world[name].mean(1).tolist()
    print(
        f"{name:>18}: loss {told:.4f} if told t, {not_told:.4f} if not, excess {not_told - told:.4f}"
    )
excess = [float((loss[1] - loss[0]).mean()) for loss in by_world.values()]
assert 0.07 < excess[0] < 0.14
assert 0 < excess[1] < 0.006

# %% [markdown]
# In the plane not being told adds about 0.10 to the loss. In pictures of only 256 numbers it adds 0.002: two numbers say little about the
# strength of the noise in them, 256 say it nearly exactly. (As a *share* it is much here, too: the perfect player who is told $t$ has memorized all 400 pictures
# and has nearly no loss.)
#
# Is a small loss harmless, then? Samples, all from the same noise:

# %%
x_T = torch.randn(64, 1, 16, 16, generator=seeded(8))
timesteps = evenly_spaced(T, 25)  # 1000, 960, ..., 40, 0: all on the grid
blind_oracle = worlds["discs, 256 numbers"][0]
drawn = {}
drawn["perfect, told"] = last(ddim(blind_oracle, schedule, x_T, timesteps))
drawn["perfect, blind"] = last(ddim(lambda x, t: blind_oracle(x), schedule, x_T, timesteps))
trained = {"trained, told": "whole", "trained, blind": "no time"}
for name, how in trained.items():
    model = clip_x0(nets[how][0], on_device)  # no pixel of x0_hat beyond -1 and 1 (lesson 6)
    with torch.no_grad():
        drawn[name] = last(ddim(model, on_device, x_T.to(device), timesteps)).cpu()
discs, dirt = {}, {}
for how, samples in drawn.items():
    quality = disc_quality(samples)
    discs[how], dirt[how] = int(quality.is_disc.sum()), float(quality.dirt.median())
    print(f"{how:>15}: {discs[how]:2d} of 64 are discs, median dirt {dirt[how]:.2f}")
assert discs["perfect, told"] == 64
assert discs["perfect, blind"] < 60

# %% tags=["plumbing"]
show(
    filmstrip([samples[:12] for samples in drawn.values()], rows=list(drawn)),
    alt="Four rows of twelve samples of 16 by 16 pixels: the perfect denoiser that is told t, the "
    "perfect blind one, the trained TinyUNet and the trained net without time. The numbers stand "
    "above.",
)
# %% [markdown]
# Look at the second row: even the perfect blind denoiser ends in noise in about a third of the pictures. The sampler walks down by *its*
# clock; the blind denoiser takes out the noise that it *sees*. Where the two come apart, **nothing corrects it** (the block says why). The trained nets draw no
# discs yet after 125 steps, told or not; lesson 5 trains for longer.
#
# <details><summary><b>Why nothing corrects it</b></summary>
#
# Let $x_t$ be $\sqrt{\bar\alpha_t}\,x_0 + n\,\epsilon$, with an amount of noise $n$ that is not the sampler's $N = \sqrt{1-\bar\alpha_t}$. A blind denoiser that
# judges $n$ rightly answers $\epsilon$. The sampler concludes that $\hat x_0 = x_0 + \frac{n - N}{\sqrt{\bar\alpha_t}}\,\epsilon$, and goes to step $s$ with
# $\sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s}\,\epsilon$: its noise is off by $\sqrt{\bar\alpha_s/\bar\alpha_t}\,(n - N)$, *more* than before. A denoiser that is told $t$
# and knows $x_0$ answers $\epsilon\,n/N$, so that $\hat x_0$ is right, and the error shrinks with the noise.
#
# </details>
#
# So the sentence holds: without time it works, only less well. How much less depends on how many numbers show the noise, and on what you
# count: the *loss* in pictures grows by only a few thousandths, and yet the samples are visibly worse. (Sun et al. 2025 ask this question for large models.)
#
# ## Key terms
#
# | what people say | what it means |
# |---|---|
# | time (timestep) embedding | the step as a vector of sines and cosines, then two linear layers |
# | conditioning, FiLM, adaptive norm | scaling and shifting channels by numbers made from the time (or the class) |
# | receptive field | the input pixels that an output pixel depends on at all |
# | skip connection | a feature map handed from the way down to the way up, joined as channels |
# | residual connection, shortcut | the input of a block, added to what it computes |
# | bottleneck | the lowest resolution of the U |
# | group norm | mean 0, standard deviation 1 for each group of channels of each sample |
# | zero initialization | the last layer of a branch starts with zeros, so the branch adds nothing at first |
# | patchify, pixel unshuffle, space to depth | the pixels of a patch become channels |
#
# ## Claims, measured
#
# Differences are paired: the same seeds with and without.
#
# <!-- claims -->
#
# <details><summary><b>Further reading</b></summary>
#
# - Vaswani et al.: *Attention Is All You Need*, 2017, arXiv 1706.03762. Section 3.5 has the sines and cosines.
# - Ronneberger, Fischer, Brox: *U-Net: Convolutional Networks for Biomedical Image Segmentation*, 2015, arXiv 1505.04597. Where the U comes from.
# - Ho, Jain, Abbeel: *Denoising Diffusion Probabilistic Models*, 2020, arXiv 2006.11239. Appendix B describes their U-Net.
# - Wu, He: *Group Normalization*, 2018, arXiv 1803.08494.
# - Perez et al.: *FiLM: Visual Reasoning with a General Conditioning Layer*, 2017, arXiv 1709.07871. Scale and shift.
# - Luo et al.: *Understanding the Effective Receptive Field in Deep Convolutional Neural Networks*, 2017, arXiv 1701.04128.
# - Kamb, Ganguli: *An analytic theory of creativity in convolutional diffusion models*, 2024, arXiv 2412.20292. Perfect denoisers with a window.
# - Sun et al.: *Is Noise Conditioning Necessary for Denoising Generative Models?*, 2025, arXiv 2502.13129.
#
# </details>
#
# ## What you can do now
#
# - You turn a step into an embedding, and tell every block of a network the time.
# - You can say what a pixel of *any* network sees, by arithmetic and by gradient, and when training longer is hopeless.
# - You know each part of a U-Net by what is lost without it: levels, skips, patches, norm, attention.
# - You know when a denoiser can read $t$ off the picture, and what that costs.
#
# <!-- navigation -->
