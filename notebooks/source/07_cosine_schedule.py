# %% [markdown]
# # 7 · The cosine schedule
#
# <!-- opening -->
#
# One network, the same noise, three steps of DDIM. All that differs from row to row is **where on the way the network is
# asked**. A schedule decides that. In lesson 1 you saw that the linear schedule spends its last three hundred steps on less
# than 1 % of the picture. Here you build its most famous rival, and then do what is done too seldom: find out whether
# it *is* better.
#
# **After this lesson you will be able to**
#
# - write the cosine schedule for any $T$, without the mistakes that crash it or quietly spoil it,
# - say where on the way from clean to noisy a schedule spends its steps,
# - measure how far samples are from data: the Fréchet distance, its bias, and its real-against-real floor,
# - separate what a schedule does in *training* from what it does in *sampling*,
# - say what came out, and how sure you are.
#
# **You need** lessons 1, 5 and 6: $\bar\alpha_t$ and the SNR, training, DDIM. **Time:** about <!-- minutes --> minutes.

# %%
import math

import torch

from tutorial_lib.checks import lesson07
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.datasets import load
from tutorial_lib.lab import seeded, start, your_model
from tutorial_lib.metrics import frechet_distance, real_floor
from tutorial_lib.oracles import DatasetOracle
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import cosine_schedule, linear_schedule, quadratic_schedule

device = start(7)

# %% tags=["plumbing"]
import tempfile
import time
from pathlib import Path

import torch.nn.functional as F

from tutorial_lib.datasets import glyphs
from tutorial_lib.explorers import ScheduleExplorer
from tutorial_lib.hardware import keep_freed_memory
from tutorial_lib.metrics import bootstrap_error
from tutorial_lib.metrics.digit_features import load_digit_classifier
from tutorial_lib.plots import COLORS, GRAY, filmstrip, panels, show
from tutorial_lib.training import TrainConfig, train

BLUE, ORANGE, GREEN = COLORS[:3]
LOOK = {"linear": (ORANGE, "--"), "quadratic": (GREEN, "-."), "cosine": (BLUE, "-")}
T = 1000
keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: up to 1.6 times faster


def mean_and_error(values):
    """Mean over seeds, and its standard error."""
    values = torch.tensor(values, dtype=torch.float64)
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


# %% [markdown]
# ## A line with stations
#
# Think of a train line from *Clean* to *Noise*. The track is the same for everybody: each place on it has its ratio of
# signal to noise, the SNR. A schedule chooses the **stations**. The network is trained at the stations only, each as
# often as any other, and a sampler with 10 steps stops at every hundredth of them. If many stations are out in the
# fields, where nobody gets on, too few are left in town.
#
# ### Question 7.A: steps in the dark
#
# *2 minutes.*
#
# At which share of the steps $t = 1, \dots, 1000$ of `linear_schedule(1000)` is less than 1 % of the picture's variance left,
# $\bar\alpha_t < 0.01$? Give a number in 0..1, or an expression. (`linear_schedule(1000).alpha_bar[1:]` holds these steps.)

# %%
# BEGIN SOLUTION
share_in_the_dark = float((linear_schedule(1000).alpha_bar[1:] < 0.01).double().mean())
# STUB
# share_in_the_dark = ...  # a number in 0..1
# END SOLUTION

# %%
lesson07.wasted.check(share_in_the_dark)

# %% [markdown]
# ## A curve instead of betas
#
# Nichol and Dhariwal (2021) turned the design around. Do not choose betas and see what $\bar\alpha$ comes out; choose the
# curve that you want, and derive the betas. They wanted one that falls almost on a straight line in the middle and changes
# very little at both ends, so that the amount of noise never jumps. A **squared cosine** over a quarter turn does that:
#
# $$\bar\alpha_t = \frac{f(t)}{f(0)}, \qquad f(t) = \cos^2\!\left(\frac{t/T + s}{1 + s}\cdot\frac{\pi}{2}\right), \qquad s = 0.008.$$
#
# **Why $\cos^2$, and not $\cos$?** The signal rate is $\sqrt{\bar\alpha_t}$, so it is the cosine itself, and the noise rate
# $\sqrt{1-\bar\alpha_t}$ is the sine, since $\sin^2 + \cos^2 = 1$ (all up to the small $s$). On the quarter circle of lesson 1
# the point (signal rate, noise rate) moves **at constant speed**.
#
# **Why the offset $s$?** A cosine is flat at its top: $1-\cos^2 x \approx x^2$. Without $s$, the first step would add noise of
# standard deviation $\pi/2T = 0.0016$ (for $T = 1000$). Two neighboring gray levels out of 256 are $2/255 = 0.0078$ apart. So if you rounded
# the noisy picture to gray levels again, noise that small would change 1.2 % of the pixels; the network would practice
# finding noise that is hardly there. With the offset we start a little further down the slope. The first step adds 0.0064,
# which changes 54 % of the pixels. In the authors' words, it is slightly smaller than the gap between two gray levels. (This one step is four times as
# long on the circle as the others: the price of the offset.) And since $f(0)$ is now slightly below 1, we divide by it.
#
# Note that $t$ occurs only as $t/T$, the share of the way. The same curve serves every $T$, and nothing must be
# rescaled as in lesson 1.
#
# ### Exercise 7.1: a squared cosine
#
# *Difficulty 1 of 3, 6 minutes.*
#
# Write `my_curve(num_steps, offset)` with $T$ = `num_steps` and $s$ = `offset`. Return a tensor of shape (T + 1,): $f(t)/f(0)$ for
# $t = 0, 1, \dots, T$, falling from 1 to practically 0.
#
# `torch.arange(n, dtype=torch.float64)` is $0, 1, \dots, n-1$; `torch.cos` takes angles in radians; `math.pi` is $\pi$.


# %%
def my_curve(num_steps, offset):
    # BEGIN SOLUTION lesson07.alpha_bar_curve
    ...
    # END SOLUTION


# %%
lesson07.alpha_bar_curve.check(my_curve)

# %% [markdown]
# Here is the curve, from the library, beside the two schedules that you know: linear, and *quadratic*, whose betas grow like a
# square (lesson 1).

# %%
SCHEDULES = {
    "linear": linear_schedule(T),
    "quadratic": quadratic_schedule(T),
    "cosine": cosine_schedule(T),
}

# %% tags=["plumbing"]
figure, (left, right) = panels(2, width=8.2, height=3.6)
for (name, schedule), size in zip(SCHEDULES.items(), (1.24, 1.12, 1), strict=True):
    color, dash = LOOK[name]
    left.plot(schedule.alpha_bar, color=color, ls=dash, label=name)
    tenths = evenly_spaced(T, 20)
    # each on a circle of its own, so that all can be seen
    right.plot(
        size * schedule.signal_rate[tenths],
        size * schedule.noise_rate[tenths],
        "o",
        color=color,
        ms=4,
    )
left.axhline(0.01, color=GRAY, ls=":", lw=0.8)
left.text(0, 0.03, "1 %", color=GRAY)
left.legend(frameon=False, labelcolor="linecolor", loc="upper right")
left.set(title=r"$\bar\alpha_t$: what is left", xlabel="t")
right.set(title="every 50th step", xlabel="signal rate", ylabel="noise rate", aspect="equal")
right.set(xticks=(0, 1), yticks=(0, 1))
show(
    figure,
    alt="Left: alpha bar of the linear schedule falls early and is below 1 percent from t = 674 on, that of the quadratic "
    "schedule from t = 851 on, that of the cosine schedule from t = 936 on. Right: on three nested quarter circles the cosine "
    "schedule's steps lie at equal distances; the linear schedule's crowd together at pure noise, the quadratic one's less so.",
)

# %% [markdown]
# Look at the right side: the blue points keep their distance, the orange ones crowd where there is only noise, and the green ones lie in
# between.
#
# You can try by hand what that does to a picture. Stop at $t = 700$ and switch the *schedule* between linear and cosine: which of
# the two still shows the digit?

# %%
ScheduleExplorer(glyphs(5).images[4], family="cosine", t=700)

# %% [markdown]
# ## Betas, and why they must be cut
#
# A schedule made of steps needs betas. Step $t$ keeps the share $\alpha_t = \bar\alpha_t/\bar\alpha_{t-1}$, so
#
# $$\beta_t = \min\!\left(1 - \frac{\bar\alpha_t}{\bar\alpha_{t-1}},\; 0.999\right).$$
#
# Why the $\min$? At $t = T$ the cosine is 0: the last step would lose *everything*, $\beta_T = 1$. Then $\bar\alpha_T = 0$, and
# $\hat x_0 = (x_T - \sqrt{1-\bar\alpha_T}\,\hat\epsilon)/\sqrt{\bar\alpha_T}$ divides by 0. In code it is worse. The rounded
# $\cos^2(\pi/2)$ is not 0 but about $4\cdot10^{-33}$: nothing crashes, and errors are blown up by $10^{16}$. With the cut, the last
# step still keeps a thousandth of what it finds.
#
# ### Exercise 7.2: betas, and the cut
#
# *Difficulty 1 of 3, 5 minutes.*
#
# Write `my_betas(alpha_bar, max_beta)`. It gets a falling `alpha_bar` of shape (T + 1,), with `alpha_bar[0] == 1` and possibly 0 at its
# end, and the largest beta allowed. Return the betas of the steps 1..T, shape (T,), none above `max_beta`.
#
# `x[1:]` leaves out the first entry of a tensor, `x[:-1]` the last one; `x.clamp(max=...)` cuts from above.


# %%
def my_betas(alpha_bar, max_beta):
    # BEGIN SOLUTION lesson07.cut_betas
    ...
    # END SOLUTION


# %%
lesson07.cut_betas.check(my_betas)

# %% [markdown]
# What the cut does, and what it leaves alone:

# %%
# NBVAL_CHECK_OUTPUT
beta = SCHEDULES["cosine"].beta
print(f"beta_1 = {beta[0]:.6f}, beta_500 = {beta[499]:.5f}; the last three:", end=" ")
print(", ".join(f"{b:.3f}" for b in beta[-3:].tolist()))
print("betas that are cut, of 1000:", int((beta > 0.9989).sum()))
for name, schedule in SCHEDULES.items():
    print(f"{name:>9}: signal rate at T = {schedule.signal_rate[-1]:.5f}")

# %% [markdown]
# One beta out of a thousand is cut, and the rest of the curve is untouched. Now put the pieces together.
#
# ### Exercise 7.3: the cosine schedule
#
# *Difficulty 3 of 3, 10 minutes. The one to be proud of.*
#
# Write one function that you could train with: `my_cosine(num_steps, offset, max_beta)` returns `alpha_bar` **after the cut**, of shape
# (T + 1,), with `alpha_bar[0]` exactly 1. Only betas can be cut, so the way is: curve → betas → cut → and from the cut betas back to
# $\bar\alpha_t = (1-\beta_1)(1-\beta_2)\cdots(1-\beta_t)$.
#
# It is checked for many $T$, from 1 to 1000, and for other offsets and cuts. Each entry may be off by a ten-thousandth *of itself*, so the tiny
# ones at the end count as much as the first. From lesson 1 you may remember `x.cumprod(0)` and `torch.cat([torch.ones(1), x])`. Take float64.


# %%
def my_cosine(num_steps, offset, max_beta):
    # BEGIN SOLUTION lesson07.cosine
    ...
    # END SOLUTION


# %%
lesson07.cosine.check(my_cosine)

# %% [markdown]
# The library's `cosine_schedule(num_steps, offset=0.008, max_beta=0.999)` is the same.
#
# ## The same schedule in diffusers
#
# **diffusers** is the library in which most published diffusion models are used. It calls this schedule `squaredcos_cap_v2` and a sampler a
# *scheduler*, and it counts steps 0..T-1: **their t is ours minus 1**. Compare all entries, then let their scheduler draw with the
# network that ships with this course.

# %%
checkpoint = load_checkpoint("mnist", device=device)
own = checkpoint.schedule  # the network was trained with cosine
try:
    from diffusers import DDIMScheduler
except ImportError:
    print("diffusers is not installed here; for this cell: pip install diffusers")
else:
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    apart = (scheduler.alphas_cumprod - SCHEDULES["cosine"].alpha_bar[1:]).abs().max()
    print(f"largest difference of alpha_bar: {apart:.1e}")
    x_T = torch.randn(8, 1, 28, 28, generator=seeded(7)).to(device)
    theirs = x_T
    scheduler.set_timesteps(20)
    for t in scheduler.timesteps:
        ours_t = torch.full((8,), int(t) + 1, device=device)
        with torch.no_grad():
            v = checkpoint.network(theirs, ours_t)
        theirs = scheduler.step(v, t, theirs).prev_sample
    ours = last(ddim(checkpoint.model, own, x_T, evenly_spaced(T, 20)))
    print(f"largest difference of a pixel:   {(theirs - ours).abs().max():.1e}")

# %% [markdown]
# The schedules agree to rounding (theirs is float32), and no pixel of eight digits differs by as much as a gray level, 0.0078. You have built
# the schedule that everyone uses. [docs/diffusers.md](../docs/diffusers.md) goes further: their networks in our training, and back.
#
# ## Where the steps are spent
#
# A place on the line is best named by the logarithm of its SNR, the **log-SNR**: 0 is as much signal as noise, +5 is a picture with
# a little dust, -5 is noise with a hint of a picture.

# %% tags=["plumbing"]
figure, (left, right) = panels(2, width=8.6, height=3.1)
bins = torch.arange(-20, 11, 1.0)
for name, schedule in SCHEDULES.items():
    color, dash = LOOK[name]
    log_snr = schedule.snr[1:].log()
    left.plot(torch.arange(1, T + 1) / T, log_snr, color=color, ls=dash, label=name)
    right.stairs(
        torch.histc(log_snr, bins=30, min=-20, max=10) / T, bins, color=color, ls=dash, lw=1.8
    )
    half = int((schedule.snr < 1).nonzero()[0])
    left.plot(half / T, 0, "o", color=color, ms=5)
left.axhline(0, color=GRAY, ls=":", lw=0.8)
left.legend(frameon=False, labelcolor="linecolor", loc="lower left")
left.set(title="log-SNR along the way", xlabel="t / T", ylim=(-12, 11))
right.text(1.4, 0.135, "cosine", color=BLUE)
right.text(-12.6, 0.075, "linear", color=ORANGE)
right.text(3.6, 0.075, "quadratic", color=GREEN)
right.set(title="share of the steps at each log-SNR", xlabel="log-SNR (noise left, picture right)")
right.set_xlim(-13, 10)
show(
    figure,
    alt="Left: the log-SNR passes 0 at t = 260 with the linear schedule, at t = 419 with the quadratic one and at t = 497 with "
    "cosine, which dives only at the very end. Right: the cosine schedule has most steps around log-SNR 0; the linear one has "
    "many between -10 and -4; the quadratic one lies in between.",
)

# %% [markdown]
# Look at the right side: cosine has its stations in town, around log-SNR 0, where picture and noise are about equal.
#
# ### Exercise 7.4: where the steps are spent
#
# *Difficulty 1 of 3, 5 minutes.*
#
# Write `my_share(alpha_bar, low, high)`: it gets `alpha_bar` of shape (T + 1,) and returns **one number** in 0..1, the share of the steps
# $t = 1, \dots, T$ that have a log-SNR of at least `low` and below `high`. $\mathrm{SNR}_t = \bar\alpha_t/(1-\bar\alpha_t)$, and `.log()` is the natural
# logarithm.


# %%
def my_share(alpha_bar, low, high):
    # BEGIN SOLUTION lesson07.log_snr_share
    ...
    # END SOLUTION


# %%
lesson07.log_snr_share.check(my_share)

# %%
# NBVAL_CHECK_OUTPUT
print("           noise (< -3)   town (-3 to 3)   picture (> 3)")
for name, schedule in SCHEDULES.items():
    log_snr = schedule.snr[1:].log()
    shares = [
        float(((log_snr >= low) & (log_snr < high)).double().mean())
        for low, high in ((-99, -3), (-3, 3), (3, 99))
    ]
    print(f"{name:>9}" + "".join(f"{share:15.0%}" for share in shares))

# %% [markdown]
# Cosine spends 73 % of its steps in the middle of town; linear spends 45 % out in the noise.
#
# ## Same network, other stops
#
# Does that matter? Here is a test without training. A network trained with *one* schedule
# can **stop at another's stations**: look for the steps with the same SNR.


# %%
def stops_like(own, other, count):
    """Steps of ``own`` whose log-SNR is nearest to that of ``count`` even steps of ``other``."""
    stops = [T]
    for t in evenly_spaced(T, count)[1:-1]:
        away = (own.snr[1:].log() - other.snr[t].log()).abs()
        stops.append(int(away.argmin()) + 1)
    return [*stops, 0]


x_T = torch.randn(7, 1, 28, 28, generator=seeded(3)).to(device)
three_steps = {}
for name, schedule in SCHEDULES.items():
    stops = stops_like(own, schedule, 3)
    print(f"{name:>9}: the network stops at t = {stops}")
    three_steps[name] = last(ddim(checkpoint.model, own, x_T, stops)).cpu()

# %% tags=["plumbing", "opening"]
figure, (left, right) = panels(2, width=8.6, height=2.9)
figure.set_layout_engine("none")
left.set_position([0.01, 0.13, 0.36, 0.75])
right.set_position([0.39, 0.13, 0.6, 0.75])
sheet = torch.full((3 * 30, 7 * 30), -1.0)
for row, (name, pictures) in enumerate(three_steps.items()):
    color, _ = LOOK[name]
    places = own.snr[stops_like(own, SCHEDULES[name], 3)].log().clamp(-7, 7)
    left.plot([-7, 7], [row, row], color=GRAY, lw=1)
    left.plot(places, [row] * 4, "o", color=color, ms=9)
    left.text(-7, row - 0.24, name, color=color, fontsize=12, weight="bold")
    for i, picture in enumerate(pictures):
        sheet[30 * row + 1 : 30 * row + 29, 30 * i + 1 : 30 * i + 29] = picture[0]
left.set(xlim=(-8, 8), ylim=(2.5, -0.6), xticks=(-7, 0, 7), yticks=())
left.set_xticklabels(["noise", "half and half", "picture"], fontsize=10)
left.spines[["left", "bottom"]].set_visible(False)
left.tick_params(length=0)
left.set_title("where it stops", fontsize=12)
right.imshow(sheet.clamp(-1, 1), cmap="gray", vmin=-1, vmax=1)
right.set_axis_off()
right.set_title("what it draws", fontsize=12)
show(
    figure,
    alt="Three rows. On the left of each a line from noise to picture with four stops: the linear schedule's crowd "
    "at the noisy end and leave a long last leg, the cosine schedule's lie around the middle, the quadratic schedule's in between. "
    "On the right seven digits that one network drew with these stops from the same noise: blurred with ghost strokes in the "
    "linear row, crisper in the other two.",
)

# %% [markdown]
# Look at the first row. Its last leg goes from half noise to the finished picture in one leap, so $\hat x_0$ is still a blend of
# several digits, and you see it. *The stops alone* make this difference. (The table at the end has its size, for 300 digits.) Try it
# with **your own** network, the one you trained in lesson 5. It has learned all 1000 stations of its schedule, so it can stop anywhere, too.

# %%
mine = your_model(device)
x_T = torch.randn(9, *mine.image_shape, generator=seeded(7)).to(device)
yours = [
    last(ddim(mine.model, mine.schedule, x_T, stops_like(mine.schedule, schedule, 3))).cpu()
    for schedule in SCHEDULES.values()
]

# %% tags=["plumbing"]
show(
    filmstrip(yours, rows=list(SCHEDULES)),
    alt="Three rows of nine pictures by your network, from the same noise in three steps, with the stops of the linear, "
    "the quadratic and the cosine schedule.",
)

# %% [markdown]
# Nine pictures decide nothing. We need a measure.
#
# ## How far apart are two sets of pictures?
#
# A sample is not supposed to equal any picture, so we compare **distributions**, in three moves.
#
# 1. Turn each picture into a few numbers that matter, its **features**. We take 64 numbers from inside a small classifier that learned to read
#    digits; pictures that look alike to it have similar features. (FID does this with a network named Inception.)
# 2. Describe each set of features by a Gaussian: its mean and its covariance.
# 3. Measure how far apart the two Gaussians are.
#
# For move 3, imagine each Gaussian as a heap of sand. How far must the grains travel, in the mean of the *squared* distance, if you turn one heap
# into the other with as little carrying as possible? In one dimension the cheapest way is to keep the order of the grains, which is why lesson 6 sorted its samples. The grain at $m_a + s_a z$ goes
# to $m_b + s_b z$, with the same standard normal $z$. So
#
# $$\begin{aligned}
# d^2 &= \mathbb E\big[(m_a + s_a z - m_b - s_b z)^2\big] \\
# &= (m_a-m_b)^2\,+\,2\,(m_a-m_b)(s_a-s_b)\underbrace{\mathbb E[z]}_{0}\,+\,(s_a-s_b)^2\underbrace{\mathbb E[z^2]}_{1} \\
# &= (m_a-m_b)^2 + (s_a-s_b)^2.
# \end{aligned}$$
#
# This is the **Fréchet distance** of two Gaussians (reported as the square). For several independent features, add up over the features.
#
# <details><summary><b>And when features are correlated?</b></summary>
#
# In one dimension $(s_a - s_b)^2 = s_a^2 + s_b^2 - 2 s_a s_b$. With covariance matrices $A$ and $B$ in place of the variances, sums of variances become traces, and $s_a s_b$ becomes a
# root of a product of matrices:
#
# $$d^2 = \lVert m_a - m_b\rVert^2 + \mathrm{tr}\big(A + B - 2\,(A^{1/2} B A^{1/2})^{1/2}\big)$$
#
# (Dowson and Landau 1982; used for pictures by Heusel et al. 2017). If $A$ and $B$ are diagonal, $(A^{1/2} B A^{1/2})^{1/2}$ is diagonal with entries $s_a s_b$, and the sum over the
# features comes back. The library's `frechet_distance` computes the full form.
#
# </details>
#
# ### Exercise 7.5: a distance between two sets
#
# *Difficulty 2 of 3, 6 minutes.*
#
# Write `my_distance(a, b)`. It gets two sets of features, `a` of shape (N, D) and `b` of shape (M, D): N and M samples of the same D features. Return one number: the Fréchet distance of
# Gaussians fitted to **each feature on its own**, $(m_a-m_b)^2 + (s_a-s_b)^2$, summed over the D features. Take $s$ as `x.std(0)` gives it (it divides by N - 1).


# %%
def my_distance(a, b):
    # BEGIN SOLUTION lesson07.frechet_diagonal
    ...
    # END SOLUTION


# %%
lesson07.frechet_diagonal.check(my_distance)

# %% [markdown]
# From here on we use the library's `frechet_distance`, which also sees correlations. Our pictures for today: digits drawn by the course, 16 × 16
# pixels, so small that a network learns them in seconds. The classifier learned real handwriting at 28 × 28, so we enlarge. Does it understand
# drawn digits at all?

# %%
data = load("glyphs", size=16)
classifier = load_digit_classifier(device=device)


def features(images):
    """What the classifier sees: (N, 64) for images (N, 1, 16, 16)."""
    enlarged = F.interpolate(images.to(device).clamp(-1, 1), size=28, mode="bilinear")
    return classifier.features(enlarged).cpu()


enlarged = F.interpolate(data.images[:2000].to(device), size=28, mode="bilinear")
read = classifier.probabilities(enlarged).argmax(1).cpu()
right = float((read == data.labels[:2000]).double().mean())
real = features(data.images)
print(f"{len(data.images)} drawn digits; {right:.0%} of the first 2000 are read as what they are")
assert right > 0.7

# %% [markdown]
# Four out of five: good enough as a pair of eyes.
#
# ## The floor
#
# What do *perfect* samples score? Not 0! Two finite sets are never equal. Take some real pictures as if they were samples, and measure them
# against the other real ones.
#
# ### Exercise 7.6: real against real
#
# *Difficulty 2 of 3, 6 minutes.*
#
# Write `my_floor(distance, real, count, generator)`:
#
# - `distance(a, b)` takes two sets of features and returns a number,
# - `real` are features of real pictures, (N, D), **in any order**, for example sorted by digit,
# - `count` is how many of them play the samples, below N,
# - `generator` is where all randomness comes from.
#
# Pick `count` rows of `real` at random and return the distance between them and *all the other* rows. No row may be in both sets. Call `distance` once.
#
# `torch.randperm(n, generator=generator)` is $0..n-1$ in random order, and `real[indices]` takes rows.


# %%
def my_floor(distance, real, count, generator):
    # BEGIN SOLUTION lesson07.one_floor
    ...
    # END SOLUTION


# %%
lesson07.one_floor.check(my_floor)

# %% [markdown]
# The library's `real_floor` does this several times. How should the floor depend on the number of pictures? The mean of $N$ samples misses the
# true mean by a variance of $s^2/N$, and that squared miss goes straight into the distance. The standard deviation misses by about $s^2/2N$. So the floor should fall
# like **1/N**.

# %%
counts = (100, 200, 400, 800, 1600)
floors = {
    count: real_floor(frechet_distance, real, count, 8000, repeats=6, generator=seeded(1))
    for count in counts
}
print("pictures   floor            times N")
for count in counts:
    fall = floors[count]
    print(f"{count:8} {fall.mean():9.3f} ± {fall.std():.3f} {fall.mean() * count:9.0f}")
x = torch.tensor(counts).double().log()
y = torch.stack([floors[count].mean() for count in counts]).log()
slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
print(f"slope of log floor against log N: {slope:.2f}")
assert -1.2 < slope < -0.75

# %% [markdown]
# From 200 to 1600 pictures, eight times as many, the floor falls to about an eighth. So **a Fréchet distance means nothing without the number of pictures
# behind it**, and a floor holds for that number only.
#
# ### Question 7.B: which model is better?
#
# *2 minutes.*
#
# A paper reports that model A has a Fréchet distance of 1.9, from 500 samples. Another one reports 1.2 for model B, from 5000 samples, with the same features and the same data. What follows?
#
# - a) B is better, 1.2 is less than 1.9.
# - b) A is better, since B only had more samples.
# - c) They are equally good.
# - d) Nothing yet: the two numbers cannot be compared.

# %%
# BEGIN SOLUTION
which_is_better = "d"
# STUB
# which_is_better = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson07.fair.check(which_is_better)

# %% [markdown]
# ## The experiment
#
# **The claim:** "cosine gives better samples at few steps than linear."
#
# We train the *same* network from the same first weights, with the same pictures in the same order, once with each schedule, for three
# seeds. Everything but `schedule` is equal. Then each draws 200 pictures with DDIM ($\eta = 0$) in 5, 10 and 20 steps, from the same noise.
#
# One decision needs care. The papers train on $\epsilon$. But at $T$ the cosine schedule has a signal rate of 0.00005, and DDIM's first step divides by it: an error of 0.01 in $\hat\epsilon$ becomes 200 in $\hat x_0$, so
# the papers clip $\hat x_0$. We train on $v$ (lesson 3) with the min-SNR weight, which depends on the SNR alone: a place on the line weighs the same under every schedule, and only how often it is visited
# differs.

# %%
SEEDS, COUNT, STEPS, FEW = (0, 1, 2), 200, 140, (5, 10, 20)


def trained(schedule, seed):
    """A network trained for ``STEPS`` steps, as ``eps_hat = model(x_t, t)``."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            dataset="glyphs",
            size=16,
            schedule=schedule,
            target="v",
            weight="min_snr",
            steps=STEPS,
            batch_size=32,
            widths=(16, 32),
            seed=seed,
            progress=False,
            out=Path(folder) / "run",
        )
        return train(config, data=data).model


def score(model, schedule, stops, seed):
    """Fréchet distance of ``COUNT`` pictures by DDIM, from the noise of ``seed``."""
    x_T = torch.randn(COUNT, 1, 16, 16, generator=seeded(1000 + seed)).to(device)
    return frechet_distance(features(last(ddim(model, schedule.to(device), x_T, stops))), real)


begin = time.perf_counter()
models = {(name, seed): trained(name, seed) for name in SCHEDULES for seed in SEEDS}
print(f"{len(models)} networks trained in {time.perf_counter() - begin:.0f} s")

# %% [markdown]
# After 140 training steps their pictures are smudges, so the measure must judge. Each number is a mean over three seeds, ± the **standard
# error** of that mean (standard deviation over $\sqrt 3$). The differences on the right are taken **seed by seed**: networks of one seed share first weights, pictures and noise, so a lucky seed
# drops out.

# %%
begin = time.perf_counter()
scores = {
    (name, count, seed): score(models[name, seed], SCHEDULES[name], evenly_spaced(T, count), seed)
    for name in SCHEDULES
    for count in FEW
    for seed in SEEDS
}
floor = float(floors[COUNT].mean())
print(
    f"{len(scores)} x {COUNT} pictures drawn in {time.perf_counter() - begin:.0f} s; floor {floor:.2f}\n"
)
print("steps    linear         quadratic      cosine         linear - cosine  quadratic - cosine")
gaps = {}
for count in FEW:
    row = {name: [scores[name, count, seed] for seed in SEEDS] for name in SCHEDULES}
    for name in ("linear", "quadratic"):
        pairs = zip(row[name], row["cosine"], strict=True)
        gaps[name, count] = mean_and_error([a - b for a, b in pairs])
    cells = [mean_and_error(values) for values in row.values()]
    cells += [gaps["linear", count], gaps["quadratic", count]]
    print(f"{count:5}  " + "   ".join(f"{m:5.2f} ± {e:4.2f}" for m, e in cells))

# %% tags=["plumbing"]
figure, (plot,) = panels(1, width=6.4, height=3.2)
for name, shift in (("linear", 0.97), ("quadratic", 1.03)):
    color, dash = LOOK[name]
    means, errors = zip(*(gaps[name, count] for count in FEW), strict=True)
    x = [shift * count for count in FEW]
    plot.errorbar(x, means, errors, color=color, ls=dash, marker="o", capsize=4)
    plot.text(21.5, means[-1], f"{name} - cosine", color=color, va="center")
plot.axhline(0, color=GRAY, ls=":")
plot.text(21.5, 0.12, "no difference", color=GRAY)
plot.set(
    xscale="log",
    xlabel="steps of DDIM",
    ylabel="Fréchet distance,\ndifference to cosine",
    xlim=(4.5, 34),
)
plot.set_xticks(FEW, [str(count) for count in FEW])
plot.minorticks_off()
plot.spines["bottom"].set_visible(False)
show(
    figure,
    alt="Differences of the Fréchet distance, with error bars: linear minus cosine is 4.9 at 5 steps, 3.7 at 10 and 3.5 at 20; "
    "quadratic minus cosine is 2.2, 2.2 and 2.0. All are above 0 by more than four times their error.",
)

# %% [markdown]
# **What came out.** (Numbers from the [solved notebook](solutions/07_cosine_schedule.ipynb); yours may differ in the second digit.) Here cosine
# is better than linear, by 4.9 ± 0.3 at 5 steps and by 3.5 ± 0.1 at 20. Quadratic comes out in between. So the claim holds, and something in it is odd: it
# speaks of *few* steps, but at 20 steps 70 % of the gap is still there, and from 10 to 20 it hardly shrinks. That part cannot come from the number of steps. And all are far above the floor of 0.40: these networks
# trained for seconds, and their own errors are large.
#
# The errors above tell how much *networks* of different seeds vary. The 200 pictures of each are a random draw, too. The
# **bootstrap** estimates how much others would change the distance, without drawing any: from how much it varies over random parts of these.

# %%
x_T = torch.randn(COUNT, 1, 16, 16, generator=seeded(1000)).to(device)
cosine = SCHEDULES["cosine"].to(device)
pictures = last(ddim(models["cosine", 0], cosine, x_T, evenly_spaced(T, 10)))
seen = features(pictures)
error = bootstrap_error(frechet_distance, seen, real, generator=seeded(0))
over_seeds = torch.tensor([scores["cosine", 10, seed] for seed in SEEDS]).std()
print(
    f"cosine, 10 steps, one network: {frechet_distance(seen, real):.2f} ± {error:.2f} (bootstrap)"
)
print(f"three networks, each with its own noise: standard deviation {over_seeds:.2f}")

# %% [markdown]
# The pictures of one network pin the distance down to ± 0.5, and the three networks differ a little more. The smallest gap, paired by seed, is 2.0 ± 0.5.
# With three seeds a gap is told apart from 0 if it is above 4.3 errors (95 %, Student's t; 3.2 with four). All six are, this one barely.
#
# ## Training or sampling?
#
# A schedule acts twice. In **training** it says how often the network practices at each place of the line. In **sampling** it says where the few stops are. The experiment
# changed both. `stops_like` takes them apart.

# %%
crossed = {}
for own_name, other in (("linear", "cosine"), ("cosine", "linear")):
    for seed in SEEDS:
        stops = stops_like(SCHEDULES[own_name], SCHEDULES[other], 5)
        crossed[own_name, other, seed] = score(
            models[own_name, seed], SCHEDULES[own_name], stops, seed
        )
        crossed[own_name, own_name, seed] = scores[own_name, 5, seed]

print("5 steps          stops of linear   stops of cosine")
for own_name in ("linear", "cosine"):
    cells = [
        mean_and_error([crossed[own_name, stop, seed] for seed in SEEDS])
        for stop in ("linear", "cosine")
    ]
    print(f"trained: {own_name}" + "".join(f"   {m:7.2f} ± {e:4.2f}" for m, e in cells))
moved = [crossed["linear", "linear", s] - crossed["linear", "cosine", s] for s in SEEDS]
practiced = [crossed["linear", "linear", s] - crossed["cosine", "linear", s] for s in SEEDS]
print("moving the stops alone gains {:.2f} ± {:.2f}".format(*mean_and_error(moved)))
print("changing the training alone {:.2f} ± {:.2f}".format(*mean_and_error(practiced)))

# %% [markdown]
# Read the first row. Move only the *stops* to cosine's places, and the linear network improves from 28.0 to 25.7: the same weights, better stations. Read the first column. Change only the *training*, and it is
# 26.4. Both together: 23.1. So the sentence "cosine is better at few steps" mixes two things:
#
# - **stops** matter when there are few of them,
# - **training** matters at any number of steps, as long as the network is short of practice: 45 % of the linear network's practice was out in the noise, where there is little to learn.
#
# Ours are *very* short of it, so that part is large.
#
# ## With a perfect denoiser
#
# Networks err. What would remain if they did not? For a finite set of pictures lesson 3 gave us the exact answer, the `DatasetOracle`. It needs no training, so only the stops are left. We give it 1000 pictures.

# %%
known = data.images[:1000].to(device)
perfect, nearest = {}, []
for name, schedule in SCHEDULES.items():
    oracle = DatasetOracle(schedule.to(device), known)
    for count in (5, 20):
        perfect[name, count] = [
            score(oracle, schedule, evenly_spaced(T, count), seed) for seed in SEEDS
        ]
    x_T = torch.randn(COUNT, 1, 16, 16, generator=seeded(1000)).to(device)
    x = last(ddim(oracle, schedule.to(device), x_T, evenly_spaced(T, 20)))
    # root mean square over the 256 pixels, to the nearest of the thousand
    nearest.append(torch.cdist(x.flatten(1), known.flatten(1)).amin(1) / 16)
print(f"floor {floor:.2f}")
print("steps  " + "".join(f"{name:<15}" for name in SCHEDULES))
for count in (5, 20):
    cells = [mean_and_error(perfect[name, count]) for name in SCHEDULES]
    print(f"{count:5}  " + "   ".join(f"{m:5.2f} ± {e:4.2f}" for m, e in cells))
print(
    f"at 20 steps, to the nearest of the thousand: at most {torch.cat(nearest).max():.4f} a pixel"
)

# %% [markdown]
# With a perfect denoiser the schedules differ by at most 0.3 at 5 steps, where the networks differed by 4.9. So long strides alone were not the trouble. It takes a **network's** errors too, and the schedule decides at
# which SNRs these are met. (A thousand remembered pictures are an easy case: the oracle makes up its mind early, and from then on its path is straight.)
#
# Now look at the last line. At 20 steps the oracle draws *nothing new*: each picture is one of its thousand, to less than 0.001 a pixel, and still it scores below 0.6, close to the floor of 0.40.
#
# ### Question 7.C: a score at the floor
#
# *2 minutes.*
#
# 400 samples of a model score exactly the floor for 400 pictures. What do you know?
#
# - a) The model is perfect.
# - b) The distance does not work.
# - c) The samples look like the data to these features; they may still be copies.
# - d) 4000 samples of it would score their floor too.

# %%
# BEGIN SOLUTION
at_the_floor = "c"
# STUB
# at_the_floor = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson07.at_the_floor.check(at_the_floor)

# %% [markdown]
# ## Key terms
#
# | what people say | what it means |
# |---|---|
# | cosine schedule | $\bar\alpha_t$ is a squared cosine of $t/T$, with offset 0.008 and betas cut at 0.999 |
# | log-SNR | $\log(\bar\alpha_t/(1-\bar\alpha_t))$, the place on the line from clean to noise |
# | few-step sampling | walking along a few of the $T$ steps, here 3 to 20 |
# | features | a few numbers instead of a picture, from inside a network trained for something else |
# | FID | Fréchet distance of Gaussians fitted to features of the Inception network; lower is better |
# | KID | another distance, with Inception's features and without the bias; here `kernel_distance` |
# | floor | the distance of real pictures to other real ones, with the same numbers of pictures |
# | standard error | how much a mean would scatter; standard deviation over the root of the number of seeds |
# | bootstrap | measuring parts of what was drawn, to see how much a result would scatter |
#
# ## Claims, measured
#
# With wider networks, more training, seeds and pictures than above: `benchmarks/measured/lesson07.py` says how, and `python benchmarks/claims.py lesson07` measures again. "Told apart" means that 0 lies outside the
# 95 % confidence interval of the paired difference (Student's t).
#
# <!-- claims -->
#
# Look at the third row: with $\epsilon$ and clipping, as in the papers, four networks each cannot tell the two apart at 5 steps. A difference of 1.2 would take about 27.
#
# **What this does not say:** anything about networks trained for hours, about large pictures (where every schedule needs more noise), or about ancestral sampling.
#
# <details><summary><b>Further reading</b></summary>
#
# - Alex Nichol, Prafulla Dhariwal, *Improved Denoising Diffusion Probabilistic Models*, 2021, arXiv:2102.09672. Section 3.2 has the cosine schedule, and drops up to a fifth of a linear schedule's steps with little loss.
# - Tim Salimans, Jonathan Ho, *Progressive Distillation for Fast Sampling of Diffusion Models*, 2022, arXiv:2202.00512. Cosine and $v$ together, down to very few steps.
# - Tero Karras, Miika Aittala, Timo Aila, Samuli Laine, *Elucidating the Design Space of Diffusion-Based Generative Models*, 2022, arXiv:2206.00364. Training and sampling schedules, taken apart on principle.
# - Diederik Kingma, Tim Salimans, Ben Poole, Jonathan Ho, *Variational Diffusion Models*, 2021, arXiv:2107.00630. The schedule as a log-SNR.
# - Martin Heusel and others, *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*, 2017, arXiv:1706.08500. Where FID comes from.
# - Mikołaj Bińkowski and others, *Demystifying MMD GANs*, 2018, arXiv:1801.01401. KID, and the bias of FID.
#
# </details>
#
# ## What you can do now
#
# - You can write the cosine schedule, and you know what each of its pieces is for.
# - You can say where on the way to noise any schedule spends its steps, and let a network stop at another schedule's places.
# - You can compare two models with a distance, its floor and its error, and tell a finding from luck.
#
# <!-- navigation -->
