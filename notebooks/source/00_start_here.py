# %% [markdown]
# # 0 · Start here
#
# <!-- opening -->
#
# These digits were drawn by the machine that you will build in this course. It starts from pure noise,
# the snow of an old television, and takes a little of it away, again and again, until pictures are left.
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
import torch

from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.checks import lesson00
from tutorial_lib.explorers import ForwardExplorer
from tutorial_lib.forward import diffuse
from tutorial_lib.lab import seeded, start
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced

device = start(0)

# %% tags=["plumbing"]
from torch.nn.functional import avg_pool2d, interpolate

from tutorial_lib.images import to_bytes
from tutorial_lib.metrics.digit_features import load_digit_classifier  # preview: lesson 7
from tutorial_lib.plots import COLORS, INK, animation, filmstrip, image_grid, panels, show

BLUE, ORANGE = COLORS[:2]

# %% [markdown]
# ## Sixty-four digits out of nothing
#
# The folder `data/` holds a small network. It was trained on the 60,000 handwritten digits of MNIST, and
# it can do one thing: shown a picture with noise in it, it estimates **which part is noise**. That is
# enough to draw.

# %%
checkpoint = load_checkpoint("mnist", device=device)
schedule = checkpoint.schedule
print(f"a network of {checkpoint.card['network']['parameters']:,} numbers")

# %% [markdown]
# We give it 64 pictures of pure noise and let it take some of the noise away, 50 times over. With each
# picture goes a request: the digit it should become: 0, 1, 2, and so on to 9, then 0 again. Later lessons
# take this cell apart. For now, run it and watch.

# %%
noise = torch.randn(64, *checkpoint.image_shape, generator=seeded(0)).to(device)
wishes = torch.arange(64, device=device) % 10
denoiser = clip_x0(checkpoint.conditioned(wishes), schedule)
walk = list(ddim(denoiser, schedule, noise, evenly_spaced(schedule.num_steps, 50)))
digits = walk[-1].x_t  # where the walk ends

# %% tags=["opening", "plumbing"]
assert digits.isfinite().all()
shown = [noise, *(step.x_t for step in walk[1:-2:2]), digits]
show(
    animation([frame.cpu() for frame in shown], columns=16),
    alt="64 squares of noise clear up, all at once, into handwritten digits in white on black that count "
    "from 0 to 9, again and again",
)

# %% [markdown]
# The network has made these digits up; now and then one fails, as it does by hand. Change the seed in
# `seeded(0)` and run the two cells again for another 64.
#
# What you just did has names that you will meet everywhere. The way from noise to picture is the **reverse
# process**. Taking it is called **sampling**, and in this course one such way is a **walk**.
#
# ### Coarse first, detail last
#
# Watch the film again. You see *where* the ink goes long before you see what the stroke looks like. We
# can measure it. At each step the network has a guess of the finished picture. How close is it to what the
# digit becomes in the end? We ask twice: for the picture blurred to 4 × 4 blocks, and for what
# the blur leaves out.


# %% tags=["plumbing"]
def blurred(x):
    return interpolate(avg_pool2d(x, 7), scale_factor=7)


def still_wrong(guess, final):
    """The squared error of the guess, over the spread of the final pictures: mean and its error."""
    error = (guess - final).square().flatten(1).mean(1) / (final - final.mean(0)).square().mean()
    return float(error.mean()), float(error.std()) / len(error) ** 0.5


parts = {"coarse": blurred, "detail": lambda x: x - blurred(x)}
steps_left = [step.t for step in walk]
wrong = {
    name: [still_wrong(part(step.x0_hat), part(digits)) for step in walk]
    for name, part in parts.items()
}
figure, (plot,) = panels(1, width=6.8, height=2.8)
for (name, values), color, dash in zip(wrong.items(), (BLUE, ORANGE), ("-", "--"), strict=True):
    means, errors = torch.tensor(values).T
    plot.plot(steps_left, means, color=color, ls=dash, label=name)
    plot.fill_between(steps_left, means - 2 * errors, means + 2 * errors, color=color, alpha=0.2)
plot.set(xlabel="noise left: from the start (1000) to the end (0)", xlim=(1000, 0), ylim=(0, 1))
plot.set_ylabel("share still wrong")
plot.legend(frameon=False, labelcolor=INK)
show(
    figure,
    alt="How much of the network's guess is still wrong, along the walk. Both curves fall to 0; the one for the "
    "coarse picture falls first, the one for detail later.",
)
at_820 = steps_left.index(820)
for name, values in wrong.items():
    print(f"{name}: {values[at_820][0]:.2f} ± {values[at_820][1]:.2f} still wrong at step 820")
assert wrong["coarse"][at_820][0] + 4 * wrong["coarse"][at_820][1] < wrong["detail"][at_820][0]

# %% [markdown]
# The coarse picture is settled first, the detail last. Keep this order in mind; schedules, samplers and guidance
# all come back to it.
#
# ### One hard problem, or a thousand easy ones
#
# Before diffusion, the best invented pictures came mostly from **GANs** (generative adversarial networks). There, two networks
# play against each other: a forger draws a picture in *one* go, a detective looks for fakes. GANs are fast,
# but the game easily gets out of balance, and a forger may settle for the few pictures that always
# pass. A diffusion model has no opponent. It turns one hard problem, "draw a digit", into a thousand
# easy ones, "take a little noise away", and each of them has an answer that is known in
# training. The price: it needs many passes through the network for one picture.
#
# ## A digit drowns
#
# How does a network learn to see noise? We add the noise ourselves, so that we know the answer. The
# **step** $t$ counts how often a little noise has been added: $t = 0$ is the clean picture, $t = 1000$ the end.

# %%
digit = digits[3:4]
steps = torch.arange(0, 1001, 100, device=device)
eps = torch.randn(digit.shape, generator=seeded(1)).to(device).expand(len(steps), -1, -1, -1)
drowning = diffuse(schedule, digit.expand(len(steps), -1, -1, -1), steps, eps)

# %% tags=["plumbing"]
show(
    filmstrip([drowning], labels=[f"t = {t}" for t in steps.tolist()]),
    alt="One digit at eleven steps: clean on the left, grainy but readable in the middle, "
    "and only noise on the right",
)

# %% [markdown]
# Now the detail goes first: over a larger patch the noise averages out, so the coarse picture can be made out
# longest. At $t = 500$ you can still guess the digit; at $t = 1000$ no eye finds it.
#
# Drown some yourself: drag $t$ with the mouse, or click on the slider and hold an arrow key. Up to
# which step can you read all twelve? *New noise* rolls the dice again. (The curve and the two
# bars wait for lesson 2.)

# %%
ForwardExplorer(digits[:12], schedule, t=300)

# %% [markdown]
# ## And comes back
#
# Can the model save a drowned digit? We take all 64 to $t = 600$ and let it lead them back, this time *without*
# telling it which digits they are. Here is one of them. The upper row is the picture on its way. The lower row is
# the model's guess of the clean picture at that moment: blurred where many answers are possible, and sharper
# with every step.

# %%
TO = 600
start_at = torch.full((64,), TO, device=device)
halfway = diffuse(
    schedule, digits, start_at, torch.randn(digits.shape, generator=seeded(2)).to(device)
)
path = [TO, *(t for t in (900, 800, 700, 600, 500, 400, 300, 200, 100, 50, 0) if t < TO)]
way_back = list(ddim(clip_x0(checkpoint.model, schedule), schedule, halfway, path))
final = way_back[-1].x_t
judge = load_digit_classifier(device=device)  # a small network that reads digits
before, after = (judge.probabilities(x).argmax(1) for x in (digits, final))
print(f"{int((before == after).sum())} of 64 are read as the same digit as before")

# %% tags=["plumbing"]
ONE = 3
upper = torch.stack([halfway[ONE], *(step.x_t[ONE] for step in way_back)])
lower = torch.stack([*(step.x0_hat[ONE] for step in way_back), final[ONE]])
show(
    filmstrip([upper, lower], [f"t = {t}" for t in path], ["on its way", "the model's guess"]),
    alt="Upper row: a digit in heavy noise that clears up from left to right. Lower row: the "
    "model's guess of the clean digit, blurred on the left and sharp on the right",
)
show(
    filmstrip([digits[:14], final[:14]], rows=["went in", "came back"]),
    alt="Fourteen digits in two rows: as they went in, and as they came back from step 600. Most are the same "
    "digit, written a little differently",
)

# %% [markdown]
# Most digits are themselves again, in a slightly different hand: what the noise has drowned, the model must
# invent. Set `TO = 800`, where more is drowned, and count again. At $t = 1000$, *everything* has to be invented.
# That is the whole trick of a diffusion model.
#
# ## How exercises work
#
# You learn by writing the pieces yourself. Each exercise is a question, a cell with `...` for you to
# fill in, a **check** that says whether you are right (and, if not, what went wrong), and a cell that
# shows what your answer is good for. The lessons continue with the library's own version, so you can
# always run a lesson to its end, solved or not.
#
# Stuck? `lesson00.to_range.hint(1)` gives a first hint, `.hint(2)` a stronger one, and
# `lesson00.to_range.solution()` shows a solution. The folder `solutions/` holds every lesson solved.
#
# ### Exercise 0.1: pixels from -1 to 1
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Picture files store a pixel as a whole number from 0 (black) to 255 (white). This course, like nearly
# all of the field, works with numbers from $-1$ (black) to $1$ (white), so that middle gray is 0, where
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
# And the way back, from numbers to a picture file? Noise goes beyond $-1$ and $1$, and a byte has no room for
# that: 256 becomes 0 again. So what is shown is **clamped** first: anything below $-1$ becomes $-1$, anything above $1$
# becomes $1$. Here is a digit at $t = 100$ as bytes, with and without.

# %%
noisy = drowning[1].cpu()
wrapped = (127.5 * (noisy + 1)).round().long() % 256  # bytes without a clamp
clamped = (127.5 * (noisy.clamp(-1, 1) + 1)).round().long()
assert torch.equal(clamped.byte(), torch.from_numpy(to_bytes(noisy[None])[0]).movedim(-1, 0))

# %% tags=["plumbing"]
show(
    image_grid(torch.stack([clamped, wrapped]) / 127.5 - 1, titles=["clamped", "not clamped"]),
    alt="The same slightly noisy digit twice. Clamped it looks as it should; not clamped, many black pixels have "
    "become white and many white ones black",
)

# %% [markdown]
# Forget the clamp once, and you will recognize this picture for the rest of your life. Many samplers end with
# `x.clamp(-1, 1)` for this reason.
#
# ## Where to go next
#
# <!-- lessons -->
#
# Two commands are good to know. `python -m tutorial_lib doctor` says what this machine can do and how
# long the lessons will take on it. `python -m tutorial_lib progress` runs your notebooks and lists which
# exercises are solved.
#
# ## What you can do now
#
# - Draw with a diffusion model, and say in which order a picture appears.
# - Drown a picture to any step, and say what comes back.
# - Read a check, and turn pixels into the numbers of this course and back.
#
# <!-- navigation -->
