# %% [markdown]
# # 8 · Guidance
#
# <!-- opening -->
#
# So far the model has drawn what it liked. Now you place an order: *one of each digit, please*. And there is a dial on the
# counter, the **guidance scale**, which says how strongly the model should insist on your order. Anyone who has used an image
# generator has met that dial. You will build it, for a model that you train yourself, and then turn it too far.
#
# **After this lesson you will be able to**
#
# - put a class into a network, and train it to draw both with a class and without one,
# - write classifier-free guidance, first as one line, then as one call of the network,
# - say why scale 1 is the plain conditional model and scale 0 the unconditional one,
# - measure what guidance buys (digits that are easy to read) and what it costs (variety),
# - say what a guided model draws, and why the formula promises something else.
#
# **You need** lesson 3 (eps and v), lesson 4 (how a network is told the step), lesson 6 (DDIM) and lesson 7 (distances and
# their floor). **Time:** about <!-- minutes --> minutes.

# %%
import torch
from torch import nn

from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.checks import lesson08
from tutorial_lib.datasets import is_here, load
from tutorial_lib.forward import diffuse, predict_x0
from tutorial_lib.guidance import LabeledMixture, condition, guide, guided, labeled
from tutorial_lib.networks import TinyUNet
from tutorial_lib.predictions import clip_x0, velocity
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import cosine_schedule

from tutorial_lib.lab import seeded, start

device = start(8)

# %% tags=["plumbing"]
import math
import time

from tutorial_lib.explorers import GuidanceExplorer
from tutorial_lib.hardware import keep_freed_memory
from tutorial_lib.metrics import frechet_distance
from tutorial_lib.metrics.digit_features import load_digit_classifier, load_digit_reference
from tutorial_lib.plots import COLORS, INK, filmstrip, panels, show
from tutorial_lib.training.optimizers import Muon

keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: up to 1.6 times faster
DIGITS = [f"“{digit}”" for digit in range(10)]


def own(exercise, mine):
    """Your function if its check passes, else the model answer: the lesson goes on either way."""
    return mine if exercise.judge(mine).passed else exercise.model_answer


def standard_error(values):
    """Of the mean of these numbers."""
    return float(values.std() / math.sqrt(len(values)))


# %% [markdown]
# ## Tell the network the class
#
# Lesson 4 told the network the step: a vector made from $t$ goes into every residual block. A class goes in by the same
# door. The network keeps a **table** with one row of numbers for each class, learned like all its weights, and the row of the
# class is **added to the vector of the step**.
#
# The table gets **one row more than there are classes**. The last row means **no class**: draw what you like. We will need
# it soon.

# %% [markdown]
# ### Exercise 8.1: add the row of the class
#
# *Difficulty 1 of 3, 6 minutes.*
#
# Write `my_add_class(table, step_vector, labels)`:
#
# - `table` is (num_classes + 1, width), the rows; the last one is for "no class",
# - `step_vector` is (B, width), what the network has made of t, for each sample,
# - `labels` are int64 (B,), in 0..num_classes, where num_classes means "no class"; or `labels` is `None`, and then every sample gets
#   the row for "no class".
#
# Return (B, width). The table has to learn, so a gradient must get through to it. (A tensor can be indexed with a tensor of
# whole numbers: `table[torch.tensor([2, 0])]` is row 2, and below it row 0.)


# %%
def my_add_class(table, step_vector, labels):
    # BEGIN SOLUTION lesson08.add_class
    ...
    # END SOLUTION


# %%
lesson08.add_class.check(my_add_class)

# %% [markdown]
# Now use it: a network that listens. `TinyUNet` asks its method `embedding` for the vector that all blocks see, so this
# method is all we have to change. (`own` takes your function once its check passes, and the model answer until then.)

# %%
add_class = own(lesson08.add_class, my_add_class)


class DigitNet(TinyUNet):
    """The network of lesson 4, with a table of classes."""

    def __init__(self, num_classes):
        super().__init__(in_channels=1)
        width = self.time_out.out_features  # of the step's vector
        self.table = nn.Parameter(torch.randn(num_classes + 1, width))  # one row more

    def embedding(self, t, labels=None):
        return add_class(self.table, super().embedding(t), labels)


# %% [markdown]
# ## One network, with a class and without
#
# Guidance compares two models: one that is told the class, and one that is not. Training two would be a waste. Ho and
# Salimans (2022) train **one**, and sometimes do not tell it: in each training step every label is replaced by "no class"
# with a small probability $p$. So the network learns both answers.

# %% [markdown]
# ### Exercise 8.2: drop the label
#
# *Difficulty 2 of 3, 6 minutes.*
#
# Write `my_drop_labels(labels, p, num_classes, generator)`:
#
# - `labels` are int64 (B,), in 0..num_classes - 1,
# - each of them, **on its own**, becomes `num_classes` ("no class") with probability `p`, a number in 0..1,
# - random numbers come from `generator` (`torch.rand(n, generator=generator)` gives n of them, uniform in 0..1),
# - it returns a new int64 tensor (B,) and leaves `labels` as they are.


# %%
def my_drop_labels(labels, p, num_classes, generator):
    # BEGIN SOLUTION lesson08.drop_labels
    ...
    # END SOLUTION


# %%
lesson08.drop_labels.check(my_drop_labels)

# %% [markdown]
# Now use it: the labels of a training batch, and some of them are 10 now.

# %%
NUM_CLASSES = 10
NO_CLASS = NUM_CLASSES  # label 10, the last row of the table
drop_labels = own(lesson08.drop_labels, my_drop_labels)
some_labels = torch.arange(20) % 10
print("before:", some_labels.tolist())
print("after: ", drop_labels(some_labels, 0.1, NUM_CLASSES, seeded(0)).tolist())

# %% [markdown]
# ### Exercise 8.3: the loss of a network that is told
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_class_loss(network, schedule, x0, labels, t, eps)`. Noise the images `x0` (B, ...) to the steps `t` (B,) with `eps`,
# ask `network(x_t, t, labels)`, and compare the answer with $v$, which this network is trained to say: return the mean
# squared error, one number. `diffuse(schedule, x0, t, eps)` is the jump of lesson 2, and `velocity(schedule, x0, t, eps)` is $v$.


# %%
def my_class_loss(network, schedule, x0, labels, t, eps):
    # BEGIN SOLUTION lesson08.class_loss
    ...
    # END SOLUTION


# %%
lesson08.class_loss.check(my_class_loss)

# %% [markdown]
# What the three give: a model of your own that takes orders. The data are handwritten digits (MNIST) if the files are on this
# computer, else the printed ones of `glyphs`, in 16 x 16 pixels. For the classes, **one line of the loop is new**.

# %%
data = load("mnist" if is_here("mnist") else "glyphs", size=16)
schedule = cosine_schedule(1000).to(device)
class_loss = own(lesson08.class_loss, my_class_loss)
TRAIN_STEPS, BATCH = 500, 32

torch.manual_seed(0)
net = DigitNet(NUM_CLASSES).to(device)
optimizers = [
    Muon([w for w in net.parameters() if w.ndim > 1], lr=0.02),  # for matrices, see lesson 5
    torch.optim.Adam([w for w in net.parameters() if w.ndim < 2], lr=3e-3),
]
rates = [
    torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 16) * (1 - step / TRAIN_STEPS)
    )
    for optimizer in optimizers
]
generator, clock = seeded(0), time.perf_counter()
for _step in range(TRAIN_STEPS):
    pick = torch.randint(len(data), (BATCH,), generator=generator)
    x0 = data.images[pick]
    labels = drop_labels(data.labels[pick], 0.1, NUM_CLASSES, generator)  # the new line
    t = torch.randint(1, 1001, (BATCH,), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    batch = [value.to(device) for value in (x0, labels, t, eps)]
    loss = class_loss(net, schedule, *batch)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    for mover in (*optimizers, *rates):
        mover.step()
    net.zero_grad()
net.eval()
print(f"{TRAIN_STEPS} steps in {time.perf_counter() - clock:.0f} s, last loss {loss.item():.2f}")

# %% [markdown]
# `labeled` turns the network into a *labeled model*: one that is called as `model(x_t, t, labels)` and answers with `eps_hat`. And
# `condition(model, labels)` is a model of `(x_t, t)` that knows its labels, so that DDIM can walk with it as with any other. Forty
# digits, one class a column:

# %%
mine = labeled(net, schedule, "v")
STEPS = evenly_spaced(1000, 20)
wish = torch.arange(40, device=device) % 10
noise = torch.randn(40, 1, 16, 16, generator=seeded(1)).to(device)
drawn = last(ddim(condition(mine, wish), schedule, noise, STEPS)).cpu()

# %% tags=["plumbing"]
show(
    filmstrip(drawn.view(4, 10, 1, 16, 16), labels=DIGITS),
    alt="Four rows of ten small digits, a column for each class. Most show the digit that was "
    "asked for; several are smudged or could be another one.",
)

# %% [markdown]
# It takes orders. But after such a short training several digits are smudged, and some you could not name. Keep them in mind.
#
# ## Exaggerate the difference
#
# How does a caricaturist make a portrait that everybody recognizes? He compares the face with the **average face** and draws
# every difference larger than it is. Guidance does this at each step of the walk. The average face is the answer
# without a class, $\hat\epsilon_\text{uncond}$; the portrait is the answer with it, $\hat\epsilon_\text{cond}$. The **guidance
# scale** $s$ says how much larger the difference is drawn:
#
# $$\hat\epsilon = \hat\epsilon_\text{uncond} + s\,(\hat\epsilon_\text{cond} - \hat\epsilon_\text{uncond}).$$
#
# At $s = 0$ only the unconditional answer is left. At $s = 1$ the unconditional one cancels, and what is left is the conditional
# model, **plain and exact**. At $s = 2$ the difference is drawn twice as large.
#
# <details><summary>Where the formula comes from: Bayes' rule</summary>
#
# Let $c$ be the class. Bayes' rule for the noisy image says $p(x_t \mid c) = p(x_t)\,p(c \mid x_t)/p(c)$. Take the logarithm and
# then the gradient in $x_t$. It removes $p(c)$, which does not depend on $x_t$:
#
# $$\nabla\log p(x_t \mid c) = \nabla\log p(x_t) + \nabla\log p(c \mid x_t).$$
#
# The last term is the direction in which the image becomes *more recognizable* as $c$: what a classifier would say. Make it $s$
# times as strong, and replace it by the difference of the other two, so that **no classifier is needed**:
#
# $$\nabla\log p(x_t) + s\,\nabla\log p(c \mid x_t)
# = \nabla\log p(x_t) + s\,\big(\nabla\log p(x_t \mid c) - \nabla\log p(x_t)\big).$$
#
# By lesson 3, eps is $-\sqrt{1-\bar\alpha_t}$ times the score. Multiply by that, and this is the formula above.
#
# </details>
#
# **Two ways of counting.** The paper writes $(1+w)\,\hat\epsilon_\text{cond} - w\,\hat\epsilon_\text{uncond}$. It is the same line,
# counted from the conditional model. Image generators, and this course, count from the unconditional one.

# %% [markdown]
# ### Exercise 8.4: the guided answer
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_guided_eps(eps_cond, eps_uncond, scale)`: two tensors of one shape and a number, at least 0. It returns the guided
# answer, in that shape.


# %%
def my_guided_eps(eps_cond, eps_uncond, scale):
    # BEGIN SOLUTION lesson08.guided_eps
    ...
    # END SOLUTION


# %%
lesson08.guided_eps.check(my_guided_eps)

# %% [markdown]
# What it gives, seen through $\hat x_0$. We noise ten real digits to $t = 850$, where little is left to be seen, and ask your
# model what is underneath.

# %%
guided_eps = own(lesson08.guided_eps, my_guided_eps)
ten = torch.arange(10, device=device)
real = data.images[[int((data.labels == digit).nonzero()[2]) for digit in range(10)]].to(device)
t = torch.full((10,), 850, device=device)
x_t = diffuse(schedule, real, t, torch.randn(real.shape, generator=seeded(9)).to(device))
with torch.no_grad():
    told, not_told = mine(x_t, t, ten), mine(x_t, t, torch.full_like(ten, NO_CLASS))
    seen = {s: predict_x0(schedule, x_t, t, guided_eps(told, not_told, s)).cpu() for s in (0, 1, 3)}

# %% tags=["plumbing"]
show(
    filmstrip(
        [real.cpu(), x_t.cpu(), *seen.values(), seen[1] - seen[0]],
        labels=DIGITS,
        rows=["real", "noisy", *(f"s = {s}" for s in seen), "1 minus 0"],
    ),
    alt="Six rows of ten pictures. Real digits; the same noised, hardly to be made out; the guess "
    "without a class, a gray blur; the guess with the class, in which the digit shows faintly; the "
    "guess at scale 3, bright and bold; the difference of the two guesses on gray, bright where "
    "the class adds ink and dark where it takes ink away.",
)

# %% [markdown]
# The last row is what the class has to say: bright is ink that it adds, dark is ink that it takes away. Row $s = 3$ is row
# $s = 0$ plus three times that.

# %% [markdown]
# ### Question 8.A: a seven at scale 0
#
# *1 minute.*
#
# We order sevens, with $s = 0$. What does the model draw?
#
# - a) Sevens, but faint ones.
# - b) Any digits, a seven as often as others.
# - c) Anything but sevens.
# - d) Noise.

# %%
# BEGIN SOLUTION
seven_at_zero = "b"
# STUB
# seven_at_zero = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson08.scale_zero.check(seven_at_zero)

# %% [markdown]
# ### Question 8.B: the same picture in two conventions
#
# *2 minutes.*
#
# A paper reports pictures at $w = 4$, in the form $(1+w)\,\hat\epsilon_\text{cond} - w\,\hat\epsilon_\text{uncond}$. Which scale
# $s$ do you set to get the same?

# %%
# BEGIN SOLUTION
scale_of_the_paper = 5
# STUB
# scale_of_the_paper = ...  # a number
# END SOLUTION

# %%
lesson08.paper_scale.check(scale_of_the_paper)

# %% [markdown]
# ## Two answers from one call
#
# Guidance asks the network twice at each step, and two calls pay twice for reading the weights and starting kernels. The usual
# way is **one call with a batch of 2B**: each sample is in it twice, once with its label and once with "no class". A network
# treats the members of a batch one by one, so they do not disturb each other.

# %% [markdown]
# ### Exercise 8.5: two in one
#
# *Difficulty 3 of 3, 12 minutes. The one to be proud of: this is how image generators do it.*
#
# Write `my_two_in_one(model, labels, scale, num_classes)`:
#
# - `model` is a labeled model, called as `model(x_t, t, labels)`; x_t (B, ...), t int64 (B,), labels int64 (B,),
# - `labels` are int64 (B,), `scale` is a number, and label `num_classes` means "no class",
# - it returns **a function of `(x_t, t)`** that calls the model **once**, with 2B samples, and returns the guided `eps_hat`, (B, ...).
#
# Useful: `torch.cat([a, b])` joins along the batch, `torch.full_like(labels, n)` is a tensor of n's like `labels`, and
# `both.chunk(2)` gives the two halves of a batch. A function can be defined inside a function, and returned:
#
# ```python
# def greeter(greeting):
#     def greet(name):
#         return greeting + ", " + name
#
#     return greet          # the function itself, not called
#
# greeter("Hello")("Ada")   # "Hello, Ada"
# ```


# %%
def my_two_in_one(model, labels, scale, num_classes):
    # BEGIN SOLUTION lesson08.two_in_one
    ...
    # END SOLUTION


# %%
lesson08.two_in_one.check(my_two_in_one)

# %% [markdown]
# Now use it: **your network, guided by your code**. Each column starts from one noise, and only the scale changes.

# %%
two_in_one = own(lesson08.two_in_one, my_two_in_one)
strips = {}
for s in (0, 1, 3, 8):
    denoiser = two_in_one(mine, ten, s, NUM_CLASSES)
    strips[s] = last(ddim(denoiser, schedule, noise[30:], STEPS)).cpu()

in_two = guided(condition(mine, ten), condition(mine, torch.full_like(ten, NO_CLASS)), 3.0)
with torch.no_grad():
    difference = two_in_one(mine, ten, 3.0, NUM_CLASSES)(noise[30:], t) - in_two(noise[30:], t)
print(f"one call against two: largest difference {float(difference.abs().max()):.0e}")
assert difference.abs().max() < 1e-3

# %% tags=["plumbing"]
show(
    filmstrip(list(strips.values()), labels=DIGITS, rows=[f"s = {s}" for s in strips]),
    alt="Four rows of ten small digits. At s = 0 they are not those that were asked for. At s = 1 "
    "they are, some of them smudged; at s = 3 all are clear; at s = 8 thick and hard.",
)

# %% [markdown]
# At $s = 3$ the smudged digits have become clear. No training did that: only the dial. From here on we use the library's
# `guide(model, labels, scale, no_class)`, which does what yours does (and asks only once where $s$ is 0 or 1).

# %% [markdown]
# ## What guidance does when nothing is wrong with the model
#
# So guidance makes a weak model look better. But what does it do by itself? We take it to a world where the model is perfect: points
# in the plane, with the oracle of lesson 3. There are four villages. The blue class has two, one out in the west and one in the
# middle, near the others' borders. `LabeledMixture` answers exactly, with a class or without one.

# %%
plane = cosine_schedule(1000)
villages = torch.tensor([[-1.0, 0.9], [-0.35, -0.25], [0.9, 0.7], [0.55, -1.0]])
owners = torch.tensor([0, 0, 1, 2])
world = LabeledMixture(
    plane, villages, torch.full((4,), 0.02), torch.tensor([0.2, 0.2, 0.3, 0.3]), owners
)
who = torch.arange(3).repeat_interleave(300)
x_T = torch.randn(900, 2, generator=seeded(0))
walked = {
    s: last(ddim(guide(world, who, s, 3), plane, x_T, evenly_spaced(1000, 50)))
    for s in (0, 1, 3, 8)
}
for s, points in walked.items():
    home = torch.cdist(points[who == 0], villages).argmin(1)
    print(
        f"s = {s}: {(home == 1).float().mean():.0%} of the blue points live in the middle village"
    )
    assert s == 0 or abs((home == 1).float().mean() - {1: 0.5, 3: 0.13, 8: 0.0}[s]) < 0.09

# %% tags=["plumbing"]
figure, axes = panels(4, width=9, height=2.7, share_y=True)
for axis, (s, points) in zip(axes, walked.items(), strict=True):
    for c, mark in enumerate("osv"):
        own_points = points[who == c]
        axis.scatter(*own_points.T, s=5, marker=mark, color=COLORS[c], linewidths=0)
    axis.scatter(*villages.T, s=60, marker="+", color=INK, linewidths=1.4)
    axis.set(xlim=(-1.9, 1.9), ylim=(-1.9, 1.9), aspect="equal")
    axis.set_title(f"s = {s}", color=INK)
show(
    figure,
    alt="Four panels of points in three colors; crosses mark the four villages. s = 0: all colors "
    "in all villages. s = 1: each color in its own villages, half of the blue points in the middle "
    "one. s = 3: few blue points are left in the middle, all groups are tighter and have moved "
    "outward. s = 8: none is left there, and the groups lie beside their crosses.",
)

# %% [markdown]
# Look at the blue points. At $s = 1$ half of them live in each village, as they should. At $s = 3$ the village **in the middle
# empties**: its people could be taken for others, and guidance moves away from whatever could be taken for something else. At 8 it
# is deserted, and everybody else has moved *past* the crosses, to where nobody lives: the caricature.
#
# So guidance does not correct errors. It draws something other than the data: more typical, less varied, and in the end
# beyond it. It helps because a model makes many of its errors in just those doubtful places.
#
# ## What the formula promises, and what the walk does
#
# "Guidance samples $p(x)\,p(c \mid x)^s$", one often reads: the data, with the verdict of a classifier raised to the power $s$. (The folded
# box above shows where that comes from.) In one dimension we can draw that density and look. There are two classes, bell curves
# around $-1$ and $+1$ that overlap a little, and the model is exact again. We order $+1$.

# %%
centers, variance = torch.tensor([[-1.0], [1.0]]), 0.3
twins = LabeledMixture(
    plane, centers, torch.full((2,), variance), torch.ones(2), torch.tensor([0, 1])
)
plus = torch.ones(4000, dtype=torch.int64)
start_line = torch.randn(4000, 1, generator=seeded(0))
grid = torch.linspace(-6, 6, 12_001, dtype=torch.float64)
bell_minus, bell_plus = (torch.exp(-((grid - c) ** 2) / (2 * variance)) for c in (-1, 1))

ends, promised = {}, {}
for s in (1, 2, 4, 8):
    denoiser = guide(twins, plus, s, 2)
    ends[s] = last(ddim(denoiser, plane, start_line, evenly_spaced(1000, 200)))[:, 0]
    density = (bell_minus + bell_plus) * (bell_plus / (bell_minus + bell_plus)) ** s
    promised[s] = density / torch.trapezoid(density, grid)
    mean, error = float(ends[s].mean()), standard_error(ends[s])
    wanted = float(torch.trapezoid(grid * promised[s], grid))
    print(f"s = {s}: the walks end at {mean:.2f} ± {error:.2f} on average; promised {wanted:.2f}")
    assert abs(mean - wanted) < 4 * error if s == 1 else mean - wanted > 20 * error

# %% tags=["plumbing"]
figure, axes = panels(3, width=9, height=2.6, share_y=True)
for axis, s in zip(axes, (1, 2, 8), strict=True):
    axis.hist(
        ends[s], bins=60, range=(-1.5, 4), density=True, color=COLORS[0], alpha=0.6, label="walks"
    )
    axis.plot(grid, promised[s], color=COLORS[1], linewidth=2, label="p(x) p(c | x)$^s$")
    axis.set(xlim=(-1.5, 4), yticks=[])
    axis.set_xlabel("x", color=INK)
    axis.set_title(f"s = {s}", color=INK)
axes[0].legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper right")
show(
    figure,
    alt="Three histograms of where guided walks end, each with the curve of the promised density. "
    "At s = 1 the two agree. At s = 2 the walks lie to the right of the curve; at s = 8 the curve "
    "has hardly moved, and the walks are far to its right.",
)

# %% [markdown]
# At $s = 1$ the two agree, so the method works. At $s = 2$ the walks end clearly to the right of the density, and at 8 they have almost left it. The model is
# exact, and smaller steps change nothing: it is the promise that is wrong. **At each single step** $t$ the guided answer does point
# along the score of $p(x_t)\,p(c \mid x_t)^s$. But these densities belong to no common data set. Noise $p(x)\,p(c \mid x)^s$ to step $t$, and
# you get another density. In strong noise the classes overlap almost completely. No classifier is sure there, so the power $s$ keeps pushing
# outward, and later steps do not take all of it back. DDPM takes back more than DDIM, and ends elsewhere (see the table below): samplers of
# *one* density would agree. (Bradley and Nakkiran, 2024.)
#
# ## Turning the dial
#
# Now a better model: the one in `data/`, trained on MNIST for 14,000 steps with $p = 0.2$. Ten of each digit, the same noise for each scale:

# %%
checkpoint = load_checkpoint("mnist", device=device)
model = labeled(checkpoint.network, checkpoint.schedule, checkpoint.card["target"])
asked = torch.arange(10).repeat_interleave(10)
big_noise = torch.randn(100, 1, 28, 28, generator=seeded(8)).to(device)


def draw(s, change=lambda denoiser: denoiser):
    """A hundred digits at scale s."""
    denoiser = change(guide(model, asked.to(device), s, NO_CLASS))
    return last(ddim(denoiser, checkpoint.schedule, big_noise, STEPS)).cpu()


SCALES = [0.0, 1.0, 1.5, 3.0, 5.0, 7.5, 12.0]
clock = time.perf_counter()
dial = {s: draw(s) for s in SCALES}
print(f"{len(SCALES)} scales in {time.perf_counter() - clock:.0f} s")

# %% tags=["plumbing", "opening"]
one_of_each = torch.arange(10) * 10 + 2  # the third of each class
show(
    filmstrip(
        [dial[s][one_of_each] for s in (0.0, 1.0, 3.0, 7.5, 12.0)],
        labels=DIGITS,
        rows=[f"s = {s}" for s in ("0", "1", "3", "7.5", "12")],
    ),
    alt="Five rows of ten handwritten digits, 0 to 9 ordered, each column from one noise. At scale "
    "0 most are not those that were asked for. At scale 1 they are, in ordinary handwriting. "
    "Farther down the strokes grow bolder and the shapes plainer; at 12 they are swollen and hard.",
)

# %% [markdown]
# Follow one column down. At $s = 0$ the digit is any digit. At 1 it is the one that was asked for, in somebody's handwriting. Then the
# strokes get **bolder and plainer**, like a street sign, and in the end swollen.
#
# ## Accuracy against variety
#
# Now in numbers. The judge is a small classifier that comes with the course. It learned from real digits only, and reads 99.4 % of
# MNIST's test images correctly. It gives us the **accuracy**, the share of samples that it reads as the digit we ordered, and
# **features**, 64 numbers for each image that are close for images that look alike. From these we want to know how *different*
# the samples of one class are.

# %% [markdown]
# ### Exercise 8.6: how different are samples of one class?
#
# *Difficulty 2 of 3, 8 minutes.*
#
# Write `my_spread(features, labels)`: `features` are floats (N, F), `labels` int64 (N,). For each class that occurs, take the mean
# distance (the usual, Euclidean one) between two *different* samples of the class, over all pairs. Return the mean of these over
# the classes, one number. Each class that occurs has at least two samples, and some labels may not occur at all.
#
# `torch.cdist(a, a)` is the table (n, n) of all distances between rows of `a`: each pair stands in it twice, and the diagonal
# is 0.


# %%
def my_spread(features, labels):
    # BEGIN SOLUTION lesson08.spread
    ...
    # END SOLUTION


# %%
lesson08.spread.check(my_spread)

# %% [markdown]
# Now use it: the spread at each scale, beside that of 5,000 real test images. A hundred digits are not many, so both numbers come
# with an error: two standard errors for the spread, a 95 % interval for the accuracy.

# %%
judge, reference = load_digit_classifier(), load_digit_reference()
spread = own(lesson08.spread, my_spread)
right = {s: judge.probabilities(dial[s]).argmax(1) == asked for s in SCALES}
variety = {s: float(spread(judge.features(dial[s]), asked)) for s in SCALES}
real_variety = float(spread(reference.test, reference.test_labels))

# %% tags=["plumbing"]


def wilson(hits):
    """A 95 % interval for the share of True, in percent (Wilson 1927)."""
    n, share, z = len(hits), float(hits.float().mean()), 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return 100 * (middle - half), 100 * (middle + half)


def jackknife(features, labels):
    """The standard error of the spread: what leaving out each sample in turn does to it."""
    every = torch.arange(len(labels))
    left = torch.tensor(
        [float(spread(features[every != i], labels[every != i])) for i in range(len(labels))]
    )
    return float(((len(left) - 1) * left.var(correction=0)).sqrt())


wide = {s: jackknife(judge.features(dial[s]), asked) for s in SCALES}
print(
    f"real digits: accuracy {judge.card['metrics']['test_accuracy']:.1%}, spread {real_variety:.2f}"
)
for s in SCALES:
    low, high = wilson(right[s])
    print(
        f"s = {s:4.1f}:   accuracy {right[s].float().mean():4.0%} ({low:.0f} to {high:.0f}), "
        f"spread {variety[s]:.2f} ± {wide[s]:.2f}"
    )
figure, (left, middle) = panels(2, width=9, height=3.2)
told_scales = SCALES[1:]
for s in told_scales:
    low, high = wilson(right[s])
    share = 100 * float(right[s].float().mean())
    left.errorbar(
        s,
        share,
        yerr=[[max(0, share - low)], [max(0, high - share)]],
        fmt="o",
        color=COLORS[0],
        markersize=5,
    )
left.axhline(100 * judge.card["metrics"]["test_accuracy"], color=COLORS[1], linestyle="--")
left.set(xlim=(0, 12.6), ylim=(90, 100.5))
middle.errorbar(
    told_scales,
    [variety[s] for s in told_scales],
    yerr=[2 * wide[s] for s in told_scales],
    fmt="-o",
    color=COLORS[0],
    markersize=5,
)
middle.axhline(real_variety, color=COLORS[1], linestyle="--")
middle.text(12.4, real_variety + 0.12, "real digits", color=COLORS[1], fontsize=9, ha="right")
middle.set(xlim=(0, 12.6), ylim=(0, 6.6))
for axis, title in ((left, "read as ordered, %"), (middle, "spread within a class")):
    axis.set_xlabel("guidance scale s", color=INK)
    axis.set_title(title, color=INK, loc="left", fontsize=11)
show(
    figure,
    alt="Left: the share of digits read as ordered, near 100 % at every scale from 1 on, with "
    "intervals of some percent that overlap. Right: the spread within a class falls with the "
    "scale, quickly at first; it crosses the dashed line of real digits between 1 and 1.5.",
)
assert right[0.0].float().mean() < 0.3
assert right[3.0].float().mean() > 0.96
assert variety[1.0] > real_variety > variety[3.0] > variety[7.5]

# %% [markdown]
# This model draws readable digits already at $s = 1$, so there is little to gain in accuracy. A hundred digits do not even show the
# gain; five hundred do (see the table below). The price is clear at once: **variety falls from the first turn of the dial**. At
# $s = 1.5$ the digits already differ less than real handwriting does, and at 7.5 by a third.
#
# Turn the dial yourself. Drag the scale and follow one digit on its way. What the judge reads as another digit has a frame: at
# which scale does the last frame vanish?

# %%
GuidanceExplorer(dial, asked, judge=judge, reference=reference)

# %% [markdown]
# ### Question 8.C: more readable than handwriting
#
# *2 minutes.*
#
# At $s = 3$ the judge reads the samples at least as well as real test images. What follows?
#
# - a) The samples are better than the data.
# - b) The judge has memorized the samples.
# - c) Doubtful handwriting, which real people do write, is missing from the samples.
# - d) The judge guesses.

# %%
# BEGIN SOLUTION
more_readable = "c"
# STUB
# more_readable = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson08.better_than_real.check(more_readable)

# %% [markdown]
# ## One number for both
#
# The Fréchet distance of lesson 7 notices both faults, unreadable digits and missing ones. Its floor is drawn **in the same way** as
# our samples: ten real digits of each kind, against all others.

# %%
floors = []
for seed in range(10):
    order = torch.randperm(len(reference.test), generator=seeded(seed))
    shuffled = reference.test_labels[order]
    ten_each = torch.cat([order[shuffled == c][:10] for c in range(10)])
    others = torch.ones(len(order), dtype=torch.bool)
    others[ten_each] = False
    floors.append(frechet_distance(reference.test[ten_each], reference.test[others]))
floors = torch.tensor(floors)
distance = {s: frechet_distance(judge.features(dial[s]), reference.test) for s in SCALES}
print(f"floor: {floors.mean():.2f} ± {floors.std():.2f} (one draw)")
print(" | ".join(f"s = {s:g}: {distance[s]:.2f}" for s in SCALES))
assert distance[7.5] > 2 * distance[1.0]
assert max(distance[1.0], distance[1.5]) < floors.mean() + 4 * floors.std()

# %% [markdown]
# **Nearest to real handwriting is a small scale**: 1 and 1.5 are about at the floor, and 7.5 is far worse than no guidance at all. If
# you want samples that stand in for the data, use little. If you want a digit on a house door, use more.
#
# ## Saturation, and clipping
#
# "Beyond 8 it over-saturates", one reads, and from 20 on people call pictures *deep-fried*. Saturation means that pixels leave the range and
# are cut off at its ends: shades are lost, edges turn hard. It is easy to see why guidance does it: $\hat x_0$ depends on
# $\hat\epsilon$ linearly, so an exaggerated difference in one is an exaggerated difference in the other, and nothing keeps it
# within $[-1, 1]$. The usual remedy is `clip_x0`: cut $\hat x_0$ off at every step.
#
# We measure two things, since bold strokes alone are no saturation (a thick pen writes clean black and white, too):
#
# - **pixels out of range**, by more than 0.02, in the finished picture,
# - **ink**: how white the picture is on the screen, compared with the same digit at $s = 1$.

# %%
CLIPPED = (3.0, 7.5, 12.0)
clipped = {s: draw(s, lambda denoiser: clip_x0(denoiser, checkpoint.schedule)) for s in CLIPPED}


def ink(images):
    """How white each image is on the screen, from 0 to 1."""
    return (images.clamp(-1, 1).mean((1, 2, 3)) + 1) / 2


def out_of_range(images):
    """The share of each image's pixels that are out of range."""
    return (images.abs() > 1.02).float().mean((1, 2, 3))


plain_ink = ink(dial[1.0])
print(f"ink at s = 1: {plain_ink.mean():.3f}; in MNIST's training images 0.131")
for s in SCALES[1:]:
    outside, more = (
        out_of_range(dial[s]),
        ink(dial[s]) / plain_ink.mean() - plain_ink / plain_ink.mean(),
    )
    line = f"s = {s:4.1f}: out of range {outside.mean():6.2%}, ink {more.mean():+4.0%}"
    if s in CLIPPED:
        thick = (ink(clipped[s]) - plain_ink) / plain_ink.mean()
        line += f"   clipped: {out_of_range(clipped[s]).mean():.2%}, {thick.mean():+.0%}"
    print(line)

# %% tags=["plumbing"]
figure, (left, middle) = panels(2, width=9, height=3.2)
for name, images, color, dash in (
    ("as it comes", {s: dial[s] for s in SCALES[1:]}, COLORS[0], "-o"),
    ("clipped", clipped, COLORS[1], "--s"),
):
    outside = [100 * out_of_range(images[s]) for s in images]
    more = [100 * (ink(images[s]) - plain_ink) / plain_ink.mean() for s in images]
    for axis, values in ((left, outside), (middle, more)):
        heights, errors = [float(v.mean()) for v in values], [2 * standard_error(v) for v in values]
        axis.errorbar(
            list(images), heights, yerr=errors, fmt=dash, color=color, markersize=4, label=name
        )
for axis, title in ((left, "pixels out of range, %"), (middle, "ink more than at s = 1, %")):
    axis.set_xlabel("guidance scale s", color=INK)
    axis.set_title(title, color=INK, loc="left", fontsize=11)
    axis.set(xlim=(0.5, 12.6), ylim=(-1, None))
left.legend(frameon=False, fontsize=9, labelcolor=INK)
show(
    figure,
    alt="Left: the share of pixels out of range is near zero up to scale 3, then bends up and "
    "reaches about half at 12; clipped it is zero. Right: ink grows from the start, steeply at "
    "first; clipped it grows as well, only a little less.",
)
shares = {s: float(out_of_range(dial[s]).mean()) for s in SCALES}
assert shares[1.5] < 0.01
assert shares[3.0] < 0.03 < shares[5.0] < 0.1 < shares[7.5]
assert all(float(out_of_range(clipped[s]).max()) == 0 for s in CLIPPED)
assert all(ink(clipped[s]).mean() > 1.1 * plain_ink.mean() for s in CLIPPED)
assert ink(dial[12.0]).mean() > ink(clipped[12.0]).mean()

# %% [markdown]
# The two go separate ways. **The strokes thicken from the start. Pixels leave the range from about 3 on**, and then quickly; nothing special
# happens at 8. Clipping cures the second and not the first: no pixel is outside any more, and the strokes stay thick. It has a price, too: below, look at
# the clipped 6 and 7, whose strokes break.

# %% tags=["plumbing"]
show(
    filmstrip(
        [dial[1.0][one_of_each], dial[12.0][one_of_each], clipped[12.0][one_of_each]],
        labels=DIGITS,
        rows=["s = 1", "s = 12", "12, clipped"],
    ),
    alt="Three rows of ten digits: at s = 1 thin and varied; at s = 12 swollen and hard-edged; at "
    "s = 12 with clipping still bold, with softer edges and shapes of their own.",
)

# %% [markdown]
# ## Recap
#
# - A class is **a row of a table, added to the step's vector**. One more row means "no class", and dropping labels in training makes
#   one network out of two models.
# - **Guidance exaggerates their difference.** Scale 0 is the one and scale 1 the other, exactly; above 1 the caricature begins.
# - It does not correct errors. A perfect model, guided, leaves its doubtful members out and moves past the data.
# - A little makes digits easier to read. More costs variety, thickens strokes, and from about 3 on drives pixels out of range.
#
# ## Key terms
#
# | what people say | what it means |
# |---|---|
# | class-conditional model | a denoiser that is told the class of each sample |
# | null token, empty prompt | what a model is told when it is told nothing; here label 10 |
# | label dropout, `p_uncond` | the share of labels hidden in training, usually 0.1 to 0.2 |
# | classifier-free guidance, CFG | the guided answer above, without any classifier |
# | classifier guidance | the older method: adds the gradient of a classifier trained on noisy images |
# | guidance scale, CFG scale, $s$ | how large the difference is drawn; 1 is plain conditional |
# | $w$ | the same, counted from the conditional model: $s = 1 + w$ |
# | negative prompt | another answer in the place of $\hat\epsilon_\text{uncond}$: what to move away from |
# | saturation, deep-fried | pixels are cut off at the ends of their range |
#
# ## Claims, measured
#
# <!-- claims -->
#
# Scales that people recommend for text-to-image models, where words take the place of our ten labels:
#
# | for | scale |
# |---|---|
# | anything: the default of the Stable Diffusion pipeline in `diffusers` | 7.5 |
# | photographs | 5 to 8 |
# | art | 3 to 5 |
# | filling in a part of a picture (inpainting) | 2 to 4 |
#
# We cannot test those here. **A scale does not carry over** from one model to another, least of all from ten labels to sentences. Draw
# the curve for your own.
#
# <details><summary>Further reading</summary>
#
# - Ho, Salimans: *Classifier-Free Diffusion Guidance*, 2022, arXiv 2207.12598. Algorithm 1 is your training loop; it counts with $w$.
# - Dhariwal, Nichol: *Diffusion Models Beat GANs on Image Synthesis*, 2021, arXiv 2105.05233. Guidance with a classifier.
# - Saharia and others: *Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding*, 2022, arXiv 2205.11487. Large
#   scales, saturation, and a clipping that adapts.
# - Kynkäänniemi and others: *Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models*, 2024,
#   arXiv 2404.07724.
# - Karras and others: *Guiding a Diffusion Model with a Bad Version of Itself*, 2024, arXiv 2406.02507. Another answer in the place of the
#   unconditional one.
# - Bradley, Nakkiran: *Classifier-Free Guidance is a Predictor-Corrector*, 2024, arXiv 2408.09000. What guided walks sample, and what not.
#
# </details>
#
# ## Where to go from here
#
# You have built every part of a generator of small pictures. Lesson 9 makes it fast, lesson 10 straightens its paths, and
# lesson 11 edits with it. Large ones add more:
#
# - **latent diffusion** (lesson 12): the same walk in the small space of an autoencoder, which makes large pictures affordable;
# - **text**: a text encoder in the place of our table, and attention from the picture to the words.
#
# To draw your own classes: `python -m tutorial_lib train --dataset folder:PATH --conditional`, with a subfolder for each class.
#
# ## What you can do now
#
# An hour ago the model drew what it liked. Now you can make a network take orders, and train it for that. You can guide it with code of
# your own, and say what a guidance scale does and what it costs. And you can test with exact answers what a formula only seems to say.
#
# <!-- navigation -->
