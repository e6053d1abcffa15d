# %% [markdown]
# # Start here
#
# In this course you build a machine that draws. It starts from pure noise, television snow, and takes
# a little of the noise away, again and again, until a picture is left that nobody has drawn before.
# Such machines are called **diffusion models**.
#
# **After these <!-- minutes --> minutes you will have**
#
# - drawn 64 handwritten digits with a model that comes with the course,
# - watched one digit drown in noise, and seen it come back,
# - solved your first exercise, and met the check that tells you whether you are right.
#
# **You need** some Python and school mathematics. PyTorch helps; what the lessons use of it, they
# explain. No GPU and no network are needed.
#
# Run a cell with <kbd>Shift</kbd>+<kbd>Enter</kbd>, or all of them with *Run → Run All Cells*.

# %%
import time

import torch

import tutorial_lib
from tutorial_lib import hardware
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.explorers import ForwardExplorer
from tutorial_lib.forward import diffuse
from tutorial_lib.plots import filmstrip, image_grid, show
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.checks import lesson00

device = hardware.pick_device()  # a GPU if there is one
print("tutorial_lib", tutorial_lib.__version__, "| torch", torch.__version__)
print("running on", hardware.describe_device(device))

# %% [markdown]
# ## Sixty-four digits out of nothing
#
# The folder `data/` holds a small network, trained on the 60,000 handwritten digits of MNIST. Its only
# skill: shown a picture with noise in it, it says **which noise** is in there. That is enough to draw.

# %%
checkpoint = load_checkpoint("mnist", device=device)
schedule = checkpoint.schedule
print(f"{checkpoint.card['network']['parameters']:,} numbers, {schedule.num_steps} noise steps")

# %% [markdown]
# We hand it 64 pictures of pure noise and let it take some of the noise away, 50 times over. With each
# picture goes a wish, which digit it should become: 0, 1, 2, and so on to 9, then 0 again. Each line of
# the next cell is a lesson of this course; for now, just look at what comes out.

# %%
generator = torch.Generator().manual_seed(0)
noise = torch.randn(64, *checkpoint.image_shape, generator=generator).to(device)
wishes = torch.arange(64, device=device) % 10
denoiser = clip_x0(checkpoint.conditioned(wishes), schedule)

start = time.perf_counter()
digits = last(ddim(denoiser, schedule, noise, evenly_spaced(schedule.num_steps, 50)))
print(f"64 digits in {time.perf_counter() - start:.1f} s")
assert digits.isfinite().all()

show(
    image_grid(digits, columns=16),
    alt="A grid of 64 small pictures: handwritten digits in white on black that count from 0 to 9, "
    "again and again",
)

# %% [markdown]
# Nobody has written these digits: the model has made them up, and now and then it slips, as a hand
# does. Change the seed in `manual_seed(0)` and run the cell again for another 64.
#
# ## A digit drowns
#
# How does a network learn to see noise? By being shown pictures to which we have added the noise
# ourselves, so that we know the answer. Watch it happen to one of the digits. The **step** $t$ counts
# how often a little noise has been added: $t = 0$ is the clean picture, $t = 1000$ the end.

# %%
digit = digits[3:4]
steps = torch.arange(0, 1001, 100, device=device)
eps = torch.randn(digit.shape, generator=generator).to(device).expand(len(steps), -1, -1, -1)
drowning = diffuse(schedule, digit.expand(len(steps), -1, -1, -1), steps, eps)

show(
    filmstrip([drowning], labels=[f"t = {t}" for t in steps.tolist()]),
    alt="One digit at eleven steps: clean on the left, hardly to be made out in the middle, "
    "and pure noise on the right",
)

# %% [markdown]
# Look at $t = 500$: you can still guess the digit. At $t = 1000$ nothing is left to guess from.
#
# Now drown them yourself: drag $t$ with the mouse, or click on the slider and hold an arrow key. Up to
# which step can you still read all twelve? *New noise* throws the dice again. (The curve and the two
# bars wait for lesson 2.)

# %%
ForwardExplorer(digits[:12], schedule, t=300)

# %% [markdown]
# ## And comes back
#
# Now the other way. We take the picture at $t = 600$ and let the model lead it back, this time without
# telling it which digit it is. The upper row is the picture on its way. The lower row is what the model, at that moment, thinks the clean picture
# looks like: blurred at first, where many answers are possible, and sharper with every step.

# %%
halfway = diffuse(schedule, digit, steps[6:7], eps[:1])  # at t = 600
path = [600, 500, 400, 300, 200, 100, 50, 0]
walk = list(ddim(clip_x0(checkpoint.model, schedule), schedule, halfway, path))
on_the_way = torch.cat([halfway] + [step.x_t for step in walk])
guesses = torch.cat([step.x0_hat for step in walk])
final = walk[-1].x_t

show(
    filmstrip(
        [on_the_way, torch.cat([guesses, final])],
        labels=[f"t = {t}" for t in path],
        rows=["on its way", "the model's guess"],
    ),
    alt="Upper row: a digit in heavy noise that clears up from left to right. Lower row: the "
    "model's guess of the clean digit, blurred on the left and sharp on the right",
)

# %% [markdown]
# Is it the same digit that went in? Often, not always. What the noise has drowned, the model must
# invent, and it invents something plausible. That is the whole trick of a diffusion model: start at
# $t = 1000$, where *everything* is drowned, and *everything* gets invented.

# %% [markdown]
# ## How exercises work
#
# You learn by writing the pieces yourself. Each exercise is a question, a cell with `...` for you to
# fill in, a **check** that says whether you are right (and, if not, what went wrong), and a cell that
# shows what your answer is good for. The lessons go on with the library's own version, so you can
# always run a lesson to its end, solved or not.
#
# Stuck? `lesson00.to_range.hint(1)` gives a first hint, `.hint(2)` a stronger one, and
# `lesson00.to_range.solution()` shows a solution. The folder `solutions/` holds every lesson solved.

# %% [markdown]
# ### Exercise 0.1: pixels from -1 to 1
#
# *Difficulty 1 of 3, 3 minutes.*
#
# Picture files store a pixel as a whole number from 0 (black) to 255 (white). This course, like nearly
# all of the field, works with numbers from $-1$ (black) to $1$ (white), so that middle grey is 0, where
# the noise is centered too.
#
# Write `to_range(pixels)`: it takes a tensor of any shape, of type `uint8`, with values 0..255, and
# returns a floating-point tensor of the same shape with values from -1 to 1.


# %%
def to_range(pixels):
    # BEGIN SOLUTION lesson00.to_range
    ...
    # END SOLUTION


# %%
lesson00.to_range.check(to_range)

# %% [markdown]
# Try what a wrong answer gets you: forget the `- 1`, or divide by 128, and run the check again.
#
# Here is what the range is good for: in it, turning a picture into its negative is a minus sign.

# %%
show(
    image_grid(torch.cat([digits[:8], -digits[:8]]), columns=8),
    alt="Eight digits in white on black, and below them the same eight in black on white",
)

# %% [markdown]
# ## Where to go next
#
# <!-- lessons -->
#
# Two commands are good to know. `python -m tutorial_lib doctor` says what this machine can do and how
# long the lessons will take on it. `python -m tutorial_lib progress` runs your notebooks and lists which
# exercises are solved.
#
# <!-- navigation -->
