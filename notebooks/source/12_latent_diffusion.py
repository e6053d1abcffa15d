# %% [markdown]
# # 12 · Latent diffusion
#
# <!-- opening -->
#
# Most of a picture is the same as what is next to it. A denoiser that works on pixels pays for each of them, a thousand times
# over. So let one network learn to pack pictures into a few numbers and to unpack them again, and let diffusion draw
# only those numbers. Stable Diffusion is built this way, and in an hour you will have built a small one yourself.
#
# **After this lesson you will be able to**
#
# - say what a latent saves, in values, in multiplications and in seconds, which are three different numbers,
# - train an autoencoder whose latents diffusion can draw,
# - scale latents so that a noise schedule fits them,
# - draw in latents, with the trainer and the samplers that you know,
# - say what no diffusion can repair, and what comes out of the wrong decoder.
#
# **You need** lesson 4 (the network), lesson 5 (training), lesson 6 (DDIM) and lesson 8 (guidance). **Time:** about <!-- minutes --> minutes.

# %%
import torch
import torch.nn.functional as F

from tutorial_lib.autoencoders import load_autoencoder, with_autoencoder
from tutorial_lib.checks import lesson12
from tutorial_lib.datasets import scenes
from tutorial_lib.guidance import guide, labeled
from tutorial_lib.latents import Codec
from tutorial_lib.metrics import judge_scenes
from tutorial_lib.networks.autoencoder import Autoencoder
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.training import TrainConfig, train

from tutorial_lib.lab import seeded, start

device = start(12)

# %% tags=["plumbing"]
import tempfile
import time
from pathlib import Path

from tutorial_lib.autoencoders import save_autoencoder
from tutorial_lib.checkpoints import CheckpointError, load_checkpoint
from tutorial_lib.datasets.scene_captions import COLORS, parse
from tutorial_lib.hardware import keep_freed_memory
from tutorial_lib.losses import epsilon_loss
from tutorial_lib.networks import TinyUNet
from tutorial_lib.plots import filmstrip, show
from tutorial_lib.predictions import as_eps_model
from tutorial_lib.schedules import cosine_schedule
from tutorial_lib.training import lr_factor
from tutorial_lib.training.optimizers import Groups, Rates, muon_and_adamw, scale_rates

keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: up to 1.6 times faster
folder = Path(tempfile.mkdtemp())


def new_folder():
    """A new folder for a run, also where a cell is run again."""
    return Path(tempfile.mkdtemp(dir=folder)) / "run"


def own(exercise, mine):
    """Your function if its check passes, else the model answer: the lesson goes on either way."""
    return mine if exercise.judge(mine).passed else exercise.model_answer


def maps(latents, size):
    """Latents (N, C, H, W) as gray pictures (N, 3, size, size), their channels side by side."""
    channels = latents.shape[1]
    side = max(1, round(channels**0.5))
    rows = latents.cpu().unflatten(1, (side, channels // side)) / 2.5  # (N, 2, 2, H, W)
    sheet = rows.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)[:, None]
    return F.interpolate(sheet, size=size).repeat(1, 3, 1, 1).clamp(-1, 1)


# %% [markdown]
# ## What a picture costs
#
# Our pictures are colored scenes: one or two objects on a plain ground, 64 x 64 pixels, each with a caption. A judge that knows how
# scenes are drawn looks at a picture and says, for each word of the caption, whether it is true.

# %%
test = scenes(64, seed=1_000_000)  # nothing was trained on these
pictures = test.images.to(device)
print(test.vocabulary.decode(test.words[:1])[0])
print(f"{pictures[0].numel():,} values each")
all_right = judge_scenes(test.images, test.words).all_right
print(f"the judge finds every word true of {int(all_right.sum())} of 64 pictures")

# %% [markdown]
# A picture has 12,288 values, and nearly all of them repeat a neighbor. So the plan has two stages:
#
# 1. An **autoencoder** is trained once. Its *encoder* turns a picture into a **latent**, a much smaller stack of numbers that is still laid out
#    like a picture. Its *decoder* turns the latent back.
# 2. **Diffusion** learns latents in place of pictures. To draw, it walks from noise to a latent, and then the decoder is called once.
#
# ### Question 12.A: how many times fewer?
#
# *2 minutes.*
#
# Stable Diffusion draws pictures of 512 x 512 pixels in three colors. Its latents have 64 x 64 positions and four channels. How many times
# fewer values is that?

# %%
# BEGIN SOLUTION
times_fewer = 512 * 512 * 3 / (64 * 64 * 4)
# STUB
# times_fewer = ...  # a number
# END SOLUTION

# %%
lesson12.values.check(times_fewer)

# %% [markdown]
# Fewer values need not mean less work. We time a training step of the same network, first on the pixels of a 64 x 64 picture, where each position of the
# network is a patch of 1 x 1, 2 x 2 or 4 x 4 pixels (lesson 4), and then on a latent with 16 x 16 positions.

# %%
schedule = cosine_schedule(1000).to(device)
inputs = {"patch 1": ((3, 64, 64), 1), "patch 2": ((3, 64, 64), 2), "patch 4": ((3, 64, 64), 4)}
inputs["latents"] = ((4, 16, 16), 1)
step_seconds = {}
for name, (shape, patch) in inputs.items():
    network = TinyUNet(shape[0], patch=patch).to(device)
    x = torch.randn(4, *shape, generator=seeded(0)).to(device)
    for _ in range(2):  # the first one warms up
        clock = time.process_time()
        epsilon_loss(as_eps_model(network, schedule, "v"), schedule, x).backward()
        step_seconds[name] = time.process_time() - clock
print({name: f"{1000 * s:.0f} ms" for name, s in step_seconds.items()})
assert step_seconds["patch 1"] > step_seconds["latents"]

# %% [markdown]
# Against single pixels, latents save most of the time. Against **patches of 4 x 4 pixels**, which give the network just as many positions, they save
# almost nothing: the work at each position is the same. So speed alone is no argument for latents. We will have to compare what the network has
# learned after the same time.
#
# ## The best linear autoencoder
#
# How close does the decoded picture come to the original? The usual measure is the **peak signal-to-noise ratio** in decibels: 10 times the logarithm to
# base 10 of the squared *range* of the values over the mean squared error. At 20 dB the error (root mean square) is a tenth of the range, at 40 dB a hundredth.

# %% [markdown]
# ### Exercise 12.1: decibels
#
# *Difficulty 1 of 3, 3 minutes.*
#
# Write `my_psnr(images, again)`: one number for all pictures together. Values are in −1..1, so their range is 2. Both have the same shape, (B, ...).


# %%
def my_psnr(images, again):
    # BEGIN SOLUTION lesson12.psnr
    ...
    # END SOLUTION


# %%
lesson12.psnr.check(my_psnr)

# %% [markdown]
# What must a network beat? An encoder without one. Cut the picture into patches of 4 x 4 pixels; in three colors a patch is a row of 48 numbers. Which four
# numbers say most about such a row, if encoder and decoder may only multiply by constants and add? Those of **principal component analysis** (PCA): subtract the mean row, find
# the directions in which the rows spread most, and note how far each row reaches along the first four. No other linear encoder and decoder leave a smaller squared error.

# %% [markdown]
# ### Exercise 12.2: the best linear autoencoder
#
# *Difficulty 2 of 3, 7 minutes.*
#
# Write `my_pca(x, k)`: encode each row of `x`, (N, D), as `k` numbers, decode it again, and return the decoded rows, (N, D).
#
# `torch.linalg.svd(centered, full_matrices=False).Vh` has the directions as rows, each of length 1, the one with the most spread first. The dot product of a
# row and a direction is one of the numbers. The decoder multiplies each direction by its number, and adds up.


# %%
def my_pca(x, k):
    # BEGIN SOLUTION lesson12.pca
    ...
    # END SOLUTION


# %%
lesson12.pca.check(my_pca)

# %% [markdown]
# What it gives: four numbers for each patch, so 16 x 16 x 4 for a picture. That is 12 times fewer values.

# %%
psnr, pca = own(lesson12.psnr, my_psnr), own(lesson12.pca, my_pca)


def right(images):
    """How many pictures have every word of their captions right."""
    return int(judge_scenes(images.cpu(), test.words).all_right.sum())


rows = F.unfold(pictures, 4, stride=4).transpose(1, 2).flatten(0, 1)  # (64 * 256, 48)
back = torch.as_tensor(pca(rows, 4)).unflatten(0, (64, 256)).transpose(1, 2)
by_pca = F.fold(back, (64, 64), 4, stride=4).clamp(-1, 1)
print(f"PCA: {float(psnr(pictures, by_pca)):.1f} dB, all words true of {right(by_pca)} of 64")

error = (torch.as_tensor(pca(rows, 4)) - rows).square().sum() / len(rows)
dropped = torch.linalg.eigvalsh(torch.cov(rows.T, correction=0))[:-4].sum()
print(f"squared error of a patch {float(error):.4f}, variance dropped {float(dropped):.4f}")
assert torch.isclose(error, dropped, rtol=1e-3)

# %% [markdown]
# The error is the variance along the 44 directions that were dropped, no more and no less. This is the mark to beat, and we were generous: PCA was fitted to these very pictures.
#
# ## A network as the encoder
#
# Ours is small: a few convolutions that make a picture a quarter as wide and high, with 4 channels, and a decoder that does the same in reverse. It can do two things that
# PCA cannot: look beyond its patch, and treat different patches differently. We load one that was trained for four minutes, on other pictures.

# %%
shipped = load_autoencoder("scenes", device=device)
autoencoder = shipped.codec.autoencoder
with torch.no_grad():
    encoded = autoencoder.encode(pictures).mean
    by_network = autoencoder.decode(encoded).clamp(-1, 1)
print(tuple(pictures.shape[1:]), "->", tuple(encoded.shape[1:]))
print(f"{float(psnr(pictures, by_network)):.1f} dB, all words true of {right(by_network)} of 64")
assert psnr(pictures, by_network) > psnr(pictures, by_pca) + 10

# %% tags=["plumbing"]
chosen = [0, 1, 3, 4, 6, 8, 10, 12]
by_channel = (encoded - encoded.mean((0, 2, 3), keepdim=True)) / encoded.std(
    (0, 2, 3), keepdim=True
)
show(
    filmstrip(
        [x[chosen].cpu() for x in (pictures, maps(by_channel, 64), by_network, by_pca)],
        rows=["pictures", "latents", "decoded", "PCA"],
    ),
    alt="Four rows of eight: scenes of one or two colored objects; their latents, four small gray "
    "maps each, in which the objects can be recognized; the decoded scenes, which look like the "
    "originals; those that PCA gives back, with ragged edges in blocks of four pixels.",
)

# %% [markdown]
# The four channels of a latent look like small pictures: an object stays where it is. That will matter, since a U-Net is made for pictures.
#
# ## Noise in the middle
#
# If only the error counts, the encoder may hide what it knows in the sixth decimal of a number. Diffusion cannot draw sixth decimals: it gets
# every latent slightly wrong. So in training the encoder does not give the decoder a number. It gives a **Gaussian**, a mean and a variance for each latent,
# and the decoder receives a number drawn from it.
#
# How does a gradient get through a random draw? The noise $\epsilon$ comes from outside, from a standard normal distribution, and mean and standard
# deviation only shift and stretch it: $z = \mu + \sigma\epsilon$. That is the **reparameterization trick**. The network's output is $\log\sigma^2$, which, unlike $\sigma$, may be any number.

# %% [markdown]
# ### Exercise 12.3: noise from outside
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_draw(mean, log_variance, eps)`: a draw from the Gaussians. All three are (B, ...), and so is the result. Gradients must reach `mean` and `log_variance`.


# %%
def my_draw(mean, log_variance, eps):
    # BEGIN SOLUTION lesson12.reparameterize
    ...
    # END SOLUTION


# %%
lesson12.reparameterize.check(my_draw)

# %% [markdown]
# There is a loophole. The encoder could make its variances tiny or its means huge, and the noise would make no difference. So each Gaussian costs something:
# how far it is from the standard normal one, measured by the **Kullback–Leibler divergence**. For one latent that is
#
# $$\tfrac12\big(\mu^2 + \sigma^2 - 1 - \log\sigma^2\big),$$
#
# and for a whole picture it is the sum over its latents.

# %% [markdown]
# ### Exercise 12.4: how far from standard normal
#
# *Difficulty 2 of 3, 5 minutes.*
#
# Write `my_divergence(mean, log_variance)`: both are (B, ...), and the result is (B,), one number for each picture. Gradients must reach both.


# %%
def my_divergence(mean, log_variance):
    # BEGIN SOLUTION lesson12.divergence
    ...
    # END SOLUTION


# %%
lesson12.divergence.check(my_divergence)

# %% [markdown]
# ## Train one
#
# The loss is the mean squared error plus a weight times the divergence. We divide the divergence by the number of latents, so that the weight need not change with the size
# of the picture (with natural logarithms, its unit is then *nats per latent*):
#
# $$\text{loss} = \text{mean}\,(\text{again} - x)^2 + w \cdot \text{divergence} / \text{number of latents}.$$
#
# $w$ is tiny, here $10^{-6}$ (Rombach et al. 2022 use the same number, on sums in place of means). We train for eighty steps with your two functions and the optimizer of the course's
# trainer: once with that weight, and once with one that is 100,000 times as large. To save time we train on quarters of pictures, and only on those that show something: convolutions work on any size.

# %%
draw, divergence = own(lesson12.reparameterize, my_draw), own(lesson12.divergence, my_divergence)

many = scenes(1000, seed=0).images
parts = many.unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
parts = parts[(parts.amax((2, 3)) - parts.amin((2, 3))).amax(1) > 0.1]  # (N, 3, 32, 32)


def trained(weight, steps=80, **sizes):
    torch.manual_seed(0)
    network = Autoencoder(**sizes).to(device)
    optimizers = muon_and_adamw(Groups.of(network), Rates(3e-3, 0.02, 0.0), device)
    generator = seeded(1)
    for step in range(steps):
        scale_rates(optimizers, lr_factor((step + 0.5) / steps, 0.05, "linear"))
        x = parts[torch.randint(len(parts), (32,), generator=generator)].to(device)
        mean, log_variance = network.encode(x)
        eps = torch.randn(mean.shape, generator=generator).to(mean)
        again = network.decode(draw(mean, log_variance, eps))
        nats = divergence(mean, log_variance).mean() / mean[0].numel()
        ((again - x).square().mean() + weight * nats).backward()
        for optimizer in optimizers:
            optimizer.step()
        network.zero_grad()
        if (step + 1) % (steps // 4) == 0:
            decibels = float(psnr(x, again.detach()))
            print(
                f"weight {weight:g}, step {step + 1}: {decibels:.1f} dB, {float(nats.detach()):.2f} nats"
            )
    return network.eval()


mine, strict = trained(1e-6), trained(0.1)

# %% [markdown]
# ### Question 12.B: too much of a good thing
#
# *2 minutes.*
#
# With the large weight the decoded pictures are clearly worse, by some decibels. Why?
#
# - a) The divergence forces the latents to describe the pictures more exactly.
# - b) The latents are mostly noise: it is cheapest to say little about the picture.
# - c) A large weight makes the variances so small that nothing can be learned.
# - d) Standard normal latents are what the noise schedule wants, so this is the better autoencoder.

# %%
# BEGIN SOLUTION
too_heavy = "b"
# STUB
# too_heavy = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson12.heavy.check(too_heavy)

# %%
with torch.no_grad():
    for name, network in (("yours", mine), ("weight 0.1", strict), ("shipped", autoencoder)):
        mean, log_variance = network.encode(pictures)
        noise = (log_variance / 2).exp().mean()
        print(f"{name}: means spread by {float(mean.std()):.2f}, noise {float(noise):.3f}")

# %% tags=["plumbing"]
with torch.no_grad():
    again = [
        network.decode(network.encode(pictures).mean).clamp(-1, 1) for network in (mine, strict)
    ]
show(
    filmstrip([x[chosen].cpu() for x in (pictures, *again)], rows=["pictures", "1e-6", "0.1"]),
    alt="Three rows of eight scenes: the originals; those that come back with the small weight, "
    "soft; those that come back with the large one, blurred, with colors that run.",
)

# %% [markdown]
# With the large weight there is more noise than signal. With the small one, after enough steps, the noise falls to a hundredth of the spread, as in the shipped autoencoder. It is often
# said that the divergence makes latents standard normal. At this weight it does *not* (see the claims at the end). It only keeps the numbers from growing without limit.
#
# ## The ceiling
#
# What the decoder cannot draw never appears in a picture, however well the diffusion does. So measure the autoencoder *alone*, on
# pictures that it has not seen, before you train anything on its latents. We compare four autoencoders; one is new, with a single channel and few weights.

# %%
tiny = trained(1e-6, widths=(8, 8), latent_channels=1)
with torch.no_grad():
    given_back = {
        "PCA": by_pca,
        "a single channel": tiny(pictures).clamp(-1, 1),
        "yours, 80 steps": mine(pictures).clamp(-1, 1),
        "shipped": by_network,
    }
for name, images in given_back.items():
    print(f"{name:17s} {float(psnr(pictures, images)):4.1f} dB, {right(images):2d} of 64 right")
assert right(given_back["a single channel"]) < right(given_back["shipped"])

# %% tags=["plumbing"]
show(
    filmstrip(
        [pictures[chosen].cpu(), *(x[chosen].cpu() for x in given_back.values())],
        rows=["pictures", "PCA", "one channel", "yours", "shipped"],
    ),
    alt="Five rows of eight scenes: the originals; by PCA, ragged; by an autoencoder with one channel, "
    "smeared and gray; by yours, soft; by the shipped one, like the originals.",
)

# %% [markdown]
# With one channel the colors are gone, and no diffusion will bring them back. The judge is stricter than decibels: an outline may be off by half a pixel at most. Yours can keep up
# with PCA in decibels, but its pictures are soft everywhere, and the judge accepts hardly any of them. The Fréchet distance of lesson 7 says
# much the same. In the claims at the end it compares outlines with those of other real scenes: after PCA they are more than 20 times as far off as before; after the shipped autoencoder the
# difference cannot be told from chance.
#
# In large systems the decoder struggles with small faces, fingers and letters. That is one reason why newer autoencoders have 16 channels instead of 4.
#
# ## A scale for each channel
#
# A noise schedule is made for data with a standard deviation of about 1: what a given amount of noise hides depends on how large the data are. But with so small a weight on the divergence, the autoencoder's loss hardly cares how large its latents are.

# %% [markdown]
# ### Exercise 12.5: a shift and a scale
#
# *Difficulty 2 of 3, 4 minutes.*
#
# Write `my_scale(latents)`: for latents (N, C, H, W) return two things, `shift` and `scale`, (C,) each, so that `(latents - shift) / scale` has mean 0 and standard deviation 1
# **in each channel**.


# %%
def my_scale(latents):
    # BEGIN SOLUTION lesson12.scale
    ...
    # END SOLUTION


# %%
lesson12.scale.check(my_scale)

# %% [markdown]
# What it gives, on the pictures that we are going to draw: one large object on black, a disc, a square or a triangle, in 32 x 32 pixels. (Half a minute of training is not enough for
# more.) The autoencoder takes any size that is a multiple of 4, so a latent has 8 x 8 positions here.

# %% tags=["plumbing"]
# picks pictures of one object on black, with its color and shape as its class
SHAPES = ("disc", "square", "triangle")
CLASSES = [f"a {color} {shape}" for color in list(COLORS)[:6] for shape in SHAPES]


def one_object(count):
    """Pictures (N, 3, 32, 32) and their classes (N,)."""
    data = scenes(count, size=32, held_out=[("small",), ("cross",), ("ring",)])
    said = parse(data.words)
    chosen = (said.relation < 0) & (data.images[:, :, 0, 0].mean(1) < -0.5)  # one, on black
    return data.images[chosen], (3 * said.color[:, 0] + said.shape[:, 0])[chosen]


# %%
images, labels = one_object(18_000)
with torch.no_grad():
    raw = autoencoder.encode(images.to(device)).mean  # (N, 4, 8, 8)
shift, scale = (torch.as_tensor(part).flatten() for part in own(lesson12.scale, my_scale)(raw))
latents = (raw - shift[:, None, None]) / scale[:, None, None]
print(f"{len(images)} pictures of {len(CLASSES)} classes")
print("means:    ", [f"{float(m):5.2f}" for m in raw.mean((0, 2, 3))])
print("deviations", [f"{float(s):5.2f}" for s in raw.std((0, 2, 3))])
for times in (1, 5):
    step = int((times**2 * schedule.snr < 1).nonzero()[0])
    print(f"deviation {times}: noise outweighs the latents from step {step} of 1,000 on")
assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4, device=device), rtol=1e-2)

# %% [markdown]
# Forget the scale, and nothing will warn you. If latents are five times too large, they stand out from the noise at most steps, and what to draw is decided in the
# few noisy steps that are left. If latents are too small, noise hides them early, and the many steps after that teach nothing. In the claims
# at the end, latents five times too large cost most of the pictures. Stable Diffusion's would be about that large: their standard deviation is about 5.5, and its famous factor 0.18215
# is one over that. Ours have 0.5 to 0.7, so they train without shift and scale, too; fewer pictures were right, but three seeds cannot tell that from chance.
#
# (`Codec.fitted(autoencoder, images)` is this exercise as a class, with `encode` and `decode`.)
#
# ## Draw in latents
#
# The rest you know. The trainer takes any tensor (N, ...) with its labels; it need not know that these are latents. This takes less than a minute:

# %%
config = TrainConfig(
    conditional=True, patch=1, batch_size=64, steps=350, ema=0.98,
    progress=False, out=new_folder(), device=str(device),
)  # fmt: skip
run = train(config, data=(latents.cpu(), labels))
print(f"{run.seconds:.0f} s, the loss from {run.losses[0]:.2f} to {run.losses[-1]:.3f}")

# %% [markdown]
# ### Exercise 12.6: draw in latents
#
# *Difficulty 2 of 3, 6 minutes.*
#
# Write `my_draw_in_latents(model, schedule, decode, shift, scale, x_T, timesteps)`:
#
# - walk with `ddim(model, schedule, x_T, timesteps)`; `last(...)` of it gives what the walk ends with, scaled latents (B, C, H, W),
# - undo `shift` and `scale`, (C,) each,
# - call `decode(latents)`, which turns *unscaled* latents into pictures, and clamp the pictures to −1..1.


# %%
def my_draw_in_latents(model, schedule, decode, shift, scale, x_T, timesteps):
    # BEGIN SOLUTION lesson12.draw
    ...
    # END SOLUTION


# %%
lesson12.draw.check(my_draw_in_latents)

# %% [markdown]
# What it gives: every class four times, at guidance scale 2, from noise of 8 x 8 x 4 numbers.

# %%
draw_in_latents = own(lesson12.draw, my_draw_in_latents)
asked = torch.arange(72, device=device) % 18
model = guide(labeled(run.ema_network, run.schedule, config.target), asked, 2.0, 18)
x_T = torch.randn(72, 4, 8, 8, generator=seeded(3)).to(device)
with torch.no_grad():
    drawn = draw_in_latents(
        model, run.schedule, autoencoder.decode, shift, scale, x_T, evenly_spaced(1000, 30)
    )
drawn = torch.as_tensor(drawn)
verdict = judge_scenes(drawn.cpu(), [CLASSES[i] for i in asked.tolist()])
print(f"{int(verdict.all_right.sum())} of 72 show what was asked for, says the judge")
assert verdict.all_right.float().mean() > 0.5

# %% tags=["plumbing", "opening"]
columns = [5, 14, 1, 7, 12, 15, 4, 9, 17, 10]
examples = torch.tensor([int((labels == i).nonzero()[2]) for i in columns])
with torch.no_grad():
    decoded = autoencoder.decode(raw[examples.to(device)]).clamp(-1, 1)
show(
    filmstrip(
        [
            images[examples],
            maps(latents[examples.to(device)], 32),
            decoded.cpu(),
            drawn[columns].cpu(),
        ],
        rows=["pictures", "latents", "decoded", "drawn"],
    ),
    alt="Four rows of ten. Pictures of one colored disc, square or triangle on black; their latents, "
    "four small gray maps each; the decoded pictures, like the originals; and pictures drawn by "
    "diffusion in latents, of the same classes in other places, nearly as clean.",
)

# %% [markdown]
# Nothing in the last row was ever a picture before the decoder was called.
#
# ## Against pixels
#
# How far does the same network get in pixels, with the same time and the same judge? The table of claims has the answer for twelve seconds and three seeds: in latents about half of the pictures are right,
# in pixels hardly any. With patches of 2 x 2 a step takes longer, so there are only half as many steps. With patches of 4 x 4 there are as many steps as in latents,
# but the network has to make 48 numbers at each position. **What latents buy is not cheaper steps. It is what diffusion does not have to learn**: edges and plain
# surfaces. The decoder already knows those. (Two things to keep in mind. The four minutes for the autoencoder are not counted; they are spent once, for all models that follow. And twelve seconds say nothing about a day of training:
# the digits of lesson 8 were drawn without latents.)
#
# ## The wrong decoder
#
# You now have two autoencoders whose latents have the same shape, yours and the shipped one. Give the latents of the shipped one to *your* decoder, scaled as it expects.

# %% [markdown]
# ### Question 12.C: a stranger's latents
#
# *2 minutes.*
#
# What do you get?
#
# - a) An error: the shapes do not fit.
# - b) The right pictures, a little blurred: both were trained on scenes.
# - c) Noise.
# - d) Objects in the right places, with colors and edges that are off.

# %%
# BEGIN SOLUTION
comes_out = "d"
# STUB
# comes_out = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson12.stranger.check(comes_out)

# %%
codec = Codec(autoencoder, shift, scale)  # the shipped one, with your shift and scale
my_codec = Codec.fitted(mine, images[:500].to(device))
in_latents = codec.encode(images[examples].to(device))
wrong = my_codec.decode(in_latents)

# %% tags=["plumbing"]
show(
    filmstrip(
        [codec.decode(in_latents).cpu(), wrong.cpu()], rows=["its own decoder", "a stranger's"]
    ),
    alt="Two rows of ten pictures from the same latents: by their own decoder, clean objects on "
    "black; by a decoder of another autoencoder, blurred spots in the same places, with colors "
    "that run.",
)

# %% [markdown]
# No error, no warning, just wrong pictures. So a checkpoint should say which autoencoder its latents come from. Ours store the **checksum** of the autoencoder's file, and refuse any
# other.

# %%
save_autoencoder(folder / "mine", my_codec.to("cpu"), card={})
two_steps = TrainConfig(latent="scenes", steps=2, progress=False, out=new_folder())
checkpoint = load_checkpoint(train(two_steps, data=images[:64]).checkpoint)
print("with its own:", with_autoencoder(checkpoint).picture_shape)
try:
    with_autoencoder(checkpoint, folder / "mine")
except CheckpointError as error:
    print("with yours:", str(error).replace(str(folder), "runs"))

# %% [markdown]
# ## Recap
#
# - An **autoencoder** packs pictures into latents that are laid out like pictures. It is trained once, on the squared error, with noise on the latents and a very small weight on
#   the divergence.
# - PCA is the best linear autoencoder: the mark to beat.
# - The **ceiling**: what the decoder cannot draw, no diffusion will draw. Measure it first.
# - Latents are **scaled** to a standard deviation of 1, channel by channel, and the scale is undone before the decoder.
# - Schedule, loss, trainer and samplers stay as they were.
#
# ## Key terms
#
# | what people say | what it means |
# |---|---|
# | VAE, variational autoencoder, KL autoencoder | an autoencoder whose encoder outputs Gaussians |
# | latent, latent space | what the encoder makes of a picture; the set of all of these |
# | reparameterization trick | noise from outside, so that gradients reach mean and variance |
# | f8, downsampling factor 8 | the sides of a latent are 8 times shorter than the picture's; ours is f4 |
# | scaling factor, 0.18215 | one over the standard deviation of Stable Diffusion's latents |
# | posterior collapse | the divergence wins, and latents say nothing |
# | LDM, latent diffusion model | diffusion on such latents |
# | perceptual loss, LPIPS, adversarial loss | what large autoencoders add for sharp texture; ours has none |
#
# ## Claims, measured
#
# <!-- claims -->
#
# What large systems use:
#
# | system | latents of a 1024 x 1024 picture | values, times fewer |
# |---|---|---|
# | Stable Diffusion 1 and 2, XL | 128 x 128 x 4 | 48 |
# | Stable Diffusion 3, Flux | 128 x 128 x 16 | 12 |
#
# The last two then make one position of their network from each patch of 2 x 2 latents: both ideas at once.
#
# <details><summary>Further reading</summary>
#
# - Kingma, Welling: *Auto-Encoding Variational Bayes*, 2014, arXiv 1312.6114. The divergence is in app. B.
# - Rombach and others: *High-Resolution Image Synthesis with Latent Diffusion Models*, 2022, arXiv 2112.10752. The weight and the scale are in app. G.
# - Esser and others: *Scaling Rectified Flow Transformers for High-Resolution Image Synthesis*, 2024, arXiv 2403.03206. More channels, a higher ceiling.
# - Eckart, Young: *The approximation of one matrix by another of lower rank*, 1936. Why no linear autoencoder beats PCA.
#
# </details>
#
# ## What you can do now
#
# An hour ago your denoiser had to learn every pixel. Now you can train an autoencoder, say what it loses before you build on it, and let the same trainer and the same samplers
# draw in its latents. You know which of the savings that people quote are real, and why a checkpoint must remember its autoencoder.
#
# <!-- navigation -->
