# %% [markdown]
# # 13 · Pictures from words
#
# <!-- opening -->
#
# Type *a small cyan triangle left of a large magenta cross*, and a picture of it appears. In this lesson you find out how the words get into the
# picture. You write each part that makes it happen, look at where each word is heard, and teach the model a word it has never
# seen. At the end you hold every part of Stable Diffusion in your hands, a thousand times smaller.
#
# **After this lesson you will be able to**
#
# - turn a sentence into numbers, and say what is lost if you average them,
# - write attention and cross-attention, and read an attention map,
# - steer with a prompt and away from another one,
# - teach a trained model a new word with LoRA, and measure what it forgets,
# - write the loss of CLIP, and name each part of Stable Diffusion.
#
# **You need** lesson 8 (guidance) and lesson 12 (latents). **Time:** about <!-- minutes --> minutes.

# %%
import torch
import torch.nn.functional as F

from tutorial_lib.autoencoders import with_autoencoder
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.checks import lesson13
from tutorial_lib.datasets import Dataset, scenes
from tutorial_lib.datasets.scene_captions import VOCABULARY
from tutorial_lib.forward import diffuse
from tutorial_lib.guidance import guide, labeled
from tutorial_lib.metrics import judge_scenes
from tutorial_lib.networks.contrastive import PictureTextNet
from tutorial_lib.networks.lora import add_lora, lora_parameters, merge_lora
from tutorial_lib.predictions import velocity
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.training import TrainConfig, train

from tutorial_lib.lab import seeded, start

device = start(13)

# %% tags=["plumbing"]
import math
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

from tutorial_lib.datasets.scene_captions import GROUNDS, PARTS, parse
from tutorial_lib.explorers import WordsExplorer
from tutorial_lib.hardware import keep_freed_memory
from tutorial_lib.losses import NoisySteps
from tutorial_lib.plots import COLORS, INK, filmstrip, panels, show

keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: training is up to three times faster


def own(exercise, mine):
    """Your function if its check passes, else the model answer: the lesson goes on either way.

    It gets copies, which it may overwrite; lists, arrays and float64 become what the lesson uses.
    """
    answer = mine if exercise.judge(mine).passed else exercise.model_answer

    def plain(*given):
        value = answer(*(x.clone() if isinstance(x, torch.Tensor) else x for x in given))
        value = torch.as_tensor(value)
        return value.to(torch.float32 if value.is_floating_point() else torch.int64)

    return plain


def all_right(pictures, sentences):
    """For each picture, whether every word of its sentence holds."""
    return judge_scenes(pictures, sentences).all_right.double()


def single(pictures, sentences):
    """The share of words that hold."""
    words = VOCABULARY.encode(sentences) if isinstance(sentences, list) else sentences
    return float(judge_scenes(pictures, words).right[words != 0].double().mean())


def percent(values):
    """The mean of values in [0, 1] and its standard error, in percent."""
    error = float(values.std()) / math.sqrt(len(values))
    return f"{100 * float(values.mean()):.0f} ± {100 * error:.0f} %"


# %% [markdown]
# ## A world with sentences
#
# The words of our world are few, so that a small model can learn them, and a judge can check every one. A scene has one or two
# objects on a plain ground. The judge, `judge_scenes`, needs no network: it finds the objects, and says for each word of a caption whether it holds.

# %%
data = scenes(400, seed=1)
captions = VOCABULARY.decode(data.words)
print(*captions[:6], sep="\n")
print(f"judge, on real scenes: {percent(all_right(data.images, data.words))} all right")

# %% tags=["plumbing"]
show(
    filmstrip([data.images[:8], data.images[8:16]]),
    alt="Sixteen scenes: one or two discs, squares, triangles, rings and crosses in six colors, small "
    "or large, on a black, gray or white ground.",
)

# %% [markdown]
# ## Words to numbers
#
# A network takes numbers. So each word becomes its place, counted from 0, on a list of all words, the *vocabulary*. All sentences of a
# batch must fit into one tensor, so the rest of a row is filled with 0, the *padding*. A row of nothing but zeros is the empty sentence.

# %% [markdown]
# ### Exercise 13.1: words to numbers
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_tokens(sentence, words, length, unknown)`. It returns `length` whole numbers, as a list or a tensor.
#
# - `sentence` is text: words separated by one or more spaces, perhaps with capital letters,
# - `words` is the vocabulary, a list in lower case; its first entry is the empty word `""`, the padding,
# - a word that is not on the list gets the number `unknown`; of a sentence that is too long, keep the beginning.


# %%
def my_tokens(sentence, words, length, unknown):
    # BEGIN SOLUTION lesson13.tokens
    ...
    # END SOLUTION


# %%
lesson13.tokens.check(my_tokens)

# %% [markdown]
# What it gives: six prompts as a table of numbers. The library's `VOCABULARY.encode` gives the same, but refuses a word it does not know
# and suggests the nearest. Stable Diffusion cuts after 77. Its tokenizer knows 49,408 *pieces* of words, so that nothing is unknown to it.

# %%
PROMPTS = [
    "a large yellow ring",
    "a small red disc above a large blue square",
    "a small cyan triangle left of a large magenta cross",
    "a large green disc on white",
    "a large cyan cross right of a small yellow disc",
    "a large red triangle above a small green ring on black",
]
tokens = own(lesson13.tokens, my_tokens)
words = torch.stack([tokens(p, list(VOCABULARY.words), VOCABULARY.length, 99) for p in PROMPTS])
assert torch.equal(words, VOCABULARY.encode(PROMPTS))
print(words)

# %% [markdown]
# ## What a mean cannot say
#
# Each number looks up a vector in a table that is trained, 64 numbers for a word. Now the sentence is a few vectors, and a network like
# that of lesson 8 wants one. The obvious choice is their mean.
#
# ### Question 13.A: what a mean says
#
# *2 minutes.*
#
# Which of these sentences has exactly the same mean as "a large red disc above a large blue square"?
#
# - a) "a large red disc above a small blue square"
# - b) "a large blue disc above a large red square"
# - c) "a large blue square below a large red disc"
# - d) "a large red disc"

# %%
# BEGIN SOLUTION
same = "b"
# STUB
# same = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson13.same_mean.check(same)

# %%
checkpoint = with_autoencoder(load_checkpoint("words", device=device))  # lesson 12's autoencoder
network, schedule, codec = checkpoint.network, checkpoint.schedule, checkpoint.codec
table = network.text.word.weight.detach()


def mean_of(sentence):
    numbers = VOCABULARY.encode(sentence)[0].to(device)
    return table[numbers[numbers != 0]].mean(0)


here = mean_of("a large red disc above a large blue square")
for other in (
    "a large blue disc above a large red square",
    "a large red disc above a small blue square",
):
    print(f"{other}: distance {float((mean_of(other) - here).norm()):.6f}")

# %% [markdown]
# Zero, up to rounding. Who has which color is lost. This is called the *binding* problem, and no training helps, since both sentences tell
# the network the same.
#
# Two things help. First, tell each word where it stands (a vector for each *position*), and let words look at each other before the picture
# uses them, so that *red* can find out that it belongs to *disc*. That is what a **text encoder** is. Second, take no mean: let every place
# of the picture choose which words it hears. Both are done by the same small formula.
#
# ## Attention
#
# Think of a library. You come with a question, the **query**. Each book has a label on its spine, the **key**, and what you take home is
# inside, the **value**. You compare your query with all keys, and take a mean of the values in which those that fit best count most:
#
# $$\text{attention}(Q, K, V) = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V.$$
#
# $Q K^\top$ holds the product of each query with each key. The softmax turns each query's row into shares that sum to 1. Why $\sqrt d$? A
# query and a key have $d$ numbers each. If these are independent, with mean 0 and variance 1, their product is a sum of $d$ terms, with
# standard deviation $\sqrt d$. Without the division, the softmax of long vectors would give nearly everything to one word, and pass hardly
# any gradient.
#
# The padding must not be heard: its scores become $-\infty$ **before** the softmax, so that its shares are 0 and the others still sum to 1.

# %% [markdown]
# ### Exercise 13.2: attention
#
# *Difficulty 2 of 3, 8 minutes.*
#
# Write `my_attention(queries, keys, values, visible)`.
#
# - `queries` are (B, Q, d), `keys` are (B, S, d), `values` are (B, S, e),
# - `visible` is bool (B, S), True where there is a word (each sentence has at least one),
# - it returns (B, Q, e).
#
# `x.transpose(1, 2)` swaps two axes, `x.masked_fill(where, -math.inf)` writes a number wherever `where` is True, and `~visible` is the
# opposite of `visible`.


# %%
def my_attention(queries, keys, values, visible):
    # BEGIN SOLUTION lesson13.attention
    ...
    # END SOLUTION


# %%
lesson13.attention.check(my_attention)

# %% [markdown]
# What it gives: your function inside the shipped model's text encoder, whose words look at each other. That is *self-attention*: queries,
# keys and values all come from the words. Each row is a word that asks, each column one that answers. (There are two *heads*: attention
# done twice, on half of the numbers each, so that a word may ask two questions. A start mark stands before every sentence, so that even the
# empty one has something to look at.)

# %%
attend = own(lesson13.attention, my_attention)
sentence = PROMPTS[1]
numbers = F.pad(VOCABULARY.encode(sentence), (1, 0)).to(device)  # the mark has number 0
visible = numbers != 0
visible[:, 0] = True
with torch.no_grad():
    x = network.text.word(numbers) + network.text.position.weight
    layer = network.text.layers[0]
    q, k, v = layer.qkv(layer.norm1(x)).chunk(3, 2)  # (1, 13, 64) each
    unit = torch.eye(13, device=device)[None]  # with these as values, the result is the shares
    heads = [
        attend(*half, unit, visible) for half in zip(q.chunk(2, 2), k.chunk(2, 2), strict=True)
    ]
assert all(torch.allclose(h.sum(2), torch.ones(1, 13, device=device), atol=1e-4) for h in heads)

# %% tags=["plumbing"]
names = ["(start)", *sentence.split()]
figure, axes = panels(2, height=4.0)
for axis, head, title in zip(axes, heads, ("first head", "second head"), strict=True):
    axis.imshow(head[0, : len(names), : len(names)].cpu(), cmap="viridis", vmin=0)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", color=INK, fontsize=8)
    axis.set_yticks(range(len(names)), names, color=INK, fontsize=8)
    axis.set_title(title, color=INK, loc="left", fontsize=11)
show(
    figure,
    alt="Two tables of shares, ten by ten words, one a head. Each row sums to one. Some words give "
    "most of their attention to one or two others, and the two heads look at different ones.",
)

# %% [markdown]
# Nobody told the words whom to ask. It came out of training, because it helps to draw.
#
# ## The picture asks
#
# Now the step that connects words and pictures. The network of lesson 12 works on latents of 16 x 16 places. In **cross-attention**
# the queries come from these places, keys and values from the words:
#
# - each place of the picture makes a query of its own numbers: *I am at the edge of something, what should I be?*
# - each word offers a key and a value,
# - each place adds what it took to its own numbers.
#
# Each place is also told *where* it is, as each word is. A sentence may have any length, and each place may listen to another word. This
# happens three times: on the way down at 16 x 16, at the bottom at 8 x 8, and on the way up.

# %% [markdown]
# ### Exercise 13.3: the picture asks the words
#
# *Difficulty 2 of 3, 7 minutes.*
#
# Write `my_cross(x, context, visible, W_q, W_k, W_v)`.
#
# - `x` is (B, C, H, W), the numbers at each place; `context` is (B, S, D), a vector for each word,
# - `W_q` is (C, d), `W_k` is (D, d), `W_v` is (D, C): with a row of numbers for each place, the queries are `rows @ W_q`, and so on,
# - it returns (B, C, H, W): `x` plus what each place took.
#
# `F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None])` is your attention. `x.flatten(2)` makes one axis of H and W, and
# `y.unflatten(2, (H, W))` two of one.


# %%
def my_cross(x, context, visible, W_q, W_k, W_v):
    # BEGIN SOLUTION lesson13.cross
    ...
    # END SOLUTION


# %%
lesson13.cross.check(my_cross)

# %% [markdown]
# What it gives: words get into the picture. The library's `CrossAttention` does this with several heads, a norm before it and a matrix
# after it. We draw the six prompts and note during the walk how much each place takes of each word. The maps show the shares of the first
# *color word*, on the way up, as a mean over heads and steps.

# %%
model = labeled(network, schedule, checkpoint.card["target"])
EMPTY = network.no_condition.to(device)
STEPS = evenly_spaced(1000, 20)


def noise_for(count, seed):
    return torch.randn(count, *checkpoint.image_shape, generator=seeded(seed)).to(device)


def draw(sentences, scale=2.0, seed=0, told=model):
    words = VOCABULARY.encode(sentences) if isinstance(sentences, list) else sentences
    asked = guide(told, words.to(device), scale, EMPTY)
    return codec.decode(last(ddim(asked, schedule, noise_for(len(words), seed), STEPS))).cpu()


PICTURES_SEED = 3  # a lucky one: further down you count how often it goes well
asked = words.to(device)
walk = ddim(guide(model, asked, 2.0, EMPTY), schedule, noise_for(6, PICTURES_SEED), STEPS)
maps = []
for step in walk:
    if step.t > 0:
        t = torch.full((6,), step.t, device=device)
        shares = network.attention_maps(step.x_t, t, asked)["levels.up.ask"]
        maps.append(shares.mean(1))  # (6, heads, 16, 16, 13) to (6, 16, 16, 13)
pictures, heard = codec.decode(step.x_t).cpu(), torch.stack(maps).mean(0).cpu()
print(f"every word right in {int(all_right(pictures, words).sum())} of 6 pictures")
print(f"of all words, {100 * single(pictures, words):.0f} % hold")

# %% tags=["plumbing", "opening"]
INKS = {
    "red": "#d62728",
    "yellow": "#b59a00",
    "green": "#2ca02c",
    "cyan": "#17a2b8",
    "blue": "#4a6cf0",
    "magenta": "#d03fc0",
}
figure, _ = panels(1, height=4.3)
figure.clear()
axes = figure.subplots(2, len(PROMPTS), gridspec_kw={"hspace": 0.05, "wspace": 0.06, "top": 0.82})
for i, prompt in enumerate(PROMPTS):
    picture = (pictures[i].permute(1, 2, 0) + 1) / 2
    axes[0, i].imshow(picture)
    axes[0, i].set_title(textwrap.fill(prompt, 18), color=INK, fontsize=8.5)
    spoken = prompt.split()
    color = next(place for place, word in enumerate(spoken) if word in INKS)
    whole = {"extent": (0, 16, 16, 0)}
    axes[1, i].imshow(picture.mean(2), cmap="gray", vmin=0, vmax=1, **whole)
    axes[1, i].imshow(
        heard[i, :, :, color + 1], cmap="inferno", alpha=0.8, interpolation="bilinear", **whole
    )
    axes[1, i].set_title(spoken[color], color=INKS[spoken[color]], fontweight="bold")
for axis in axes.flat:
    axis.axis("off")
show(
    figure,
    alt="Six drawn scenes, each under its prompt, such as: a small red disc above a large blue "
    "square. Below each a map of where its first color word is heard: bright at the object of that "
    "color, dark elsewhere.",
)

# %% [markdown]
# A color word is heard where its object is. The network found the binding that the mean had lost. The claims at the end say how often.
#
# Drag the step below from noise to picture, and point at the words. How early does a color find its place? And where was a word heard that the
# judge marks with ✗ in the end? Then type a sentence of your own.

# %%
WordsExplorer.from_checkpoint(checkpoint, [PROMPTS[i] for i in (2, 1, 3, 4)], seeds=(2, 0))

# %% [markdown]
# ### Question 13.B: how many shares?
#
# *2 minutes.*
#
# One layer of cross-attention in Stable Diffusion 1.5 works on 64 x 64 places, with 77 words and 8 heads. How many shares does it compute,
# each time it sees one picture?

# %%
# BEGIN SOLUTION
how_many = 2_523_136
# STUB
# how_many = ...  # a number
# END SOLUTION

# %%
lesson13.shares.check(how_many)

# %% [markdown]
# ## Train one
#
# Training is that of lesson 8, with a sentence in place of the label. One caption in ten is replaced by the empty sentence, so that
# guidance will work. `train` encodes the pictures with the autoencoder of lesson 12, and the network sees only latents. To finish in half a
# minute, we train a small network on a world with **one large disc**, in six colors, anywhere, on three grounds.

# %%
many = scenes(4500, seed=3, only=[("large", "disc")])
alone = parse(many.words).relation < 0  # one object
discs = Dataset(many.images[alone], many.words[alone], vocabulary=VOCABULARY)
config = TrainConfig(
    dataset="scenes",
    text=True,
    latent="scenes",
    widths=(32, 64),
    patch=1,
    target="v",
    steps=250,
    batch_size=32,
    progress=False,
)
with tempfile.TemporaryDirectory() as folder:
    run = train(replace(config, out=Path(folder) / "run"), data=discs)
mine = labeled(run.ema_network, schedule, "v")
print(f"{len(discs)} scenes, {config.steps} steps, {run.seconds:.0f} seconds")

# %%
test = scenes(120, seed=4, only=[("large", "disc")])
test_words = test.words[parse(test.words).relation < 0]
painted = draw(test_words, told=mine)
verdict, part = judge_scenes(painted, test_words), parse(test_words).part
for kind in ("ground", "color", "size", "shape"):
    holds = verdict.right[part == PARTS.index(kind)].double()
    print(f"{kind:6s} right: {percent(holds)}")

# %% tags=["plumbing"]
shown = [sentence.split() for sentence in VOCABULARY.decode(test_words[:8])]
show(
    filmstrip([painted[:8]], labels=[" ".join([s[2], *s[4:]]) for s in shown]),
    alt="Eight pictures that the small network drew after its short training, under color and "
    "ground of their prompts: most are one roundish spot as asked for, with a wobbly outline.",
)

# %% [markdown]
# Size, ground and color come first. **A clean outline takes longest**, and the judge insists on one: it allows an error of half a pixel. The shipped model is the same thing, larger, with all shapes and two objects, trained for longer. From here on we use that one.
#
# ## What is decided when
#
# A walk begins with noise and ends with a picture. When does it settle where things are, and when their shapes? Take a real scene, noise it to a step $t$, and walk back from there, told its
# caption **with one word changed**. If the picture follows the new word, that was still open at $t$.

# %%
SWITCHES = (950, 850, 700, 550, 400, 250)
PLACES = {"ground": -1, "relation": 4, "color": 2, "shape": 3}  # in a sentence with two objects
OTHERS = {
    "ground": list(GROUNDS),
    "color": ["red", "green", "blue", "yellow", "cyan", "magenta"],
    "shape": ["disc", "square", "triangle", "ring", "cross"],
    "relation": ["left", "right", "left", "above", "below", "above"],  # each before its opposite
}


def changed(sentence, kind):
    """The sentence with one word replaced by another of its kind, or a relation by its opposite."""
    words, others = sentence.split(), OTHERS[kind]
    old = words[PLACES[kind]]
    after = others[others.index(old) + 1 :] + others
    words[PLACES[kind]] = next(word for word in after if word not in words)
    return " ".join(words)


known = scenes(120, seed=20)
full = (parse(known.words).relation >= 0) & (parse(known.words).ground >= 0)
z = codec.encode(known.images[full][:24])
said = VOCABULARY.decode(known.words[full][:24])
print(said[0], *(changed(said[0], kind) for kind in PLACES), sep="\n")

told = {k: VOCABULARY.encode([changed(sentence, k) for sentence in said]) for k in PLACES}
asked = guide(model, torch.cat(list(told.values())).to(device), 2.0, EMPTY)
follows = {}
for switch in SWITCHES:  # all four kinds in one batch, from the same noised scenes
    t = torch.full((len(z),), switch, device=device)
    x_t = diffuse(schedule, z.to(device), t, noise_for(len(z), 21)).repeat(len(told), 1, 1, 1)
    rest = [switch, *(step for step in evenly_spaced(1000, 12) if step < switch)]
    pictures = codec.decode(last(ddim(asked, schedule, x_t, rest))).cpu()
    for kind, some in zip(told, pictures.split(len(z)), strict=True):
        at = parse(told[kind]).part == PARTS.index(kind)
        follows[kind, switch] = judge_scenes(some, told[kind]).right[at].double()

# %% tags=["plumbing"]
figure, (axis,) = panels(1, height=3.2)
noise = [float(schedule.noise_rate[t] / schedule.signal_rate[t]) for t in SWITCHES]
for kind, color in zip(PLACES, COLORS, strict=False):
    means = [100 * float(follows[kind, t].mean()) for t in SWITCHES]
    errors = [100 * float(follows[kind, t].std()) / math.sqrt(len(z)) for t in SWITCHES]
    axis.errorbar(noise, means, errors, color=color, marker="o", capsize=3, label=kind)
axis.set_xscale("log")
axis.invert_xaxis()
axis.set_xticks(noise, [f"{n:.1f}\nt = {t}" for n, t in zip(noise, SWITCHES, strict=True)])
axis.minorticks_off()
axis.set_xlabel("noise / signal when the word is changed")
axis.set_ylabel("pictures that follow (%)")
axis.legend()
show(
    figure,
    alt="Share of pictures that follow a changed word, by the noise at which it was changed, one line each for ground, "
    "relation, color and shape. All fall from left to right as the noise gets less.",
)

# %% [markdown]
# **Ground and relation are settled first, then the color, and the shape last.** Half of the new words are ignored from here on: relations where the
# noise is 3.4 times the signal, colors where it is 1.6 times, shapes where the two are about equal. So layout is learned at noisy steps, which min-SNR hardly weighs. There,
# *red* and *left of* must become *red, and on the left*, and networks that we trained on all steps at once never learned it. So the shipped
# model was trained in three parts: 800 steps with $t = T u^{1/16}$, $u$ uniform in [0, 1], after which its text encoder was frozen; 7,000
# with min-SNR; 4,000 with $t = T\sqrt{u}$ and the weight of $v$.
#
# ## Steer, and steer away
#
# Guidance (lesson 8) draws the prompt and moves away from what the model would draw without one: $\hat\epsilon = \hat\epsilon_\text{empty}
# + s\,(\hat\epsilon_\text{prompt} - \hat\epsilon_\text{empty})$. The prompt to move away from need not be *empty*. Put another sentence
# there: a *negative prompt*.

# %% [markdown]
# ### Exercise 13.4: a negative prompt
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_negative(model, x_t, t, words, negative, scale)`, which returns the guided `eps_hat`. `model(x_t, t, words)` gives a plain one;
# `words` and `negative` are int64 (B, L). Scale 1 must be the plain prompt.


# %%
def my_negative(model, x_t, t, words, negative, scale):
    # BEGIN SOLUTION lesson13.negative_prompt
    ...
    # END SOLUTION


# %%
lesson13.negative_prompt.check(my_negative)

# %% [markdown]
# What it gives: "a large red square" leaves the ground open, and the model draws any of the three. Away from "a large red square on white", it should avoid one of them.

# %%
negative_eps = own(lesson13.negative_prompt, my_negative)
prompt = VOCABULARY.encode(["a large red square"] * 24).to(device)
unwanted = VOCABULARY.encode(["a large red square on white"] * 24).to(device)


def away(x_t, t):
    return negative_eps(model, x_t, t, prompt, unwanted, 2.0)


plain = draw(prompt.cpu(), seed=5)
without = codec.decode(last(ddim(away, schedule, noise_for(24, 5), STEPS))).cpu()
for name, images in (("empty", plain), ("on white", without)):
    ground = judge_scenes(images, prompt.cpu()).found.ground
    counts = {g: int((ground == i).sum()) for i, g in enumerate(GROUNDS)}
    print(f"negative prompt {name:9s}", counts)

# %% tags=["plumbing"]
show(
    filmstrip([plain[:10], without[:10]], rows=["empty", "on white"]),
    alt="Two rows of ten large red squares from the same noise. In the first row the ground is black, "
    "gray or white; in the second, with the negative prompt, white is rare.",
)

# %% [markdown]
# Away from white, the path leads past gray to black: guidance does not choose, it extrapolates. How large should the scale be? Ask the
# judge, on 24 prompts, each with the same noise at every scale.

# %%
held_out = [tuple(pair) for pair in checkpoint.card["held_out"]]
seen_words = scenes(24, seed=1_000_001, held_out=held_out).words
by_scale = {scale: draw(seen_words, scale, seed=6) for scale in (1.0, 2.0, 7.5)}
for scale, images in by_scale.items():
    print(
        f"scale {scale:3.1f}: all words right {percent(all_right(images, seen_words))}, "
        f"of single words {100 * single(images, seen_words):.0f} %"
    )

# %% [markdown]
# "7.5" is what everybody writes for Stable Diffusion. It is a habit with one model, not a law: **find the scale of yours by measuring**, as
# the claims below do with more prompts, together with the variety that it costs.
#
# ## Does it compose?
#
# The training scenes left something out on purpose:

# %%
print("never seen together:", ", ".join(" ".join(pair) for pair in held_out))
new_words = scenes(24, seed=1_000_001, only=held_out).words
composed = draw(new_words, seed=6)
for name, images, asked in (
    ("seen", by_scale[2.0], seen_words),
    ("held out", composed, new_words),
):
    right, words_right = all_right(images, asked), 100 * single(images, asked)
    print(f"{name:8s}: all words right {percent(right)}, single words {words_right:.0f} %")

# %% tags=["plumbing"]
sentences = [sentence.split() for sentence in VOCABULARY.decode(new_words[:8])]
asked_for = [next(" ".join(p) for p in held_out if set(p) <= set(s)) for s in sentences]
show(
    filmstrip([composed[:8]], labels=asked_for),
    alt="Eight pictures of prompts with an object that no training picture had, named above each, "
    "such as a green triangle.",
)

# %% [markdown]
# It has seen green, and it has seen triangles. If it had only memorized pictures, it could not draw a green triangle at all. It composes: the claims find no loss with more prompts.
#
# What fails more often is a second object. Of 512 prompts, 96 % of those with one object come out right, and 74 % of those with two (`benchmarks/words.py`,
# guidance 2). Relations such as *above* hold in 91 %. Large models had trouble with them for years.
#
# ## A new word
#
# *orange* is in the vocabulary, and in no training picture: its vector has never been trained. We have 200 pictures with orange objects. Training the whole
# network on them is costly, and it would soon forget the rest. **LoRA** (*low-rank adaptation*, Hu et al. 2021) freezes every matrix $W$ and adds
# a small change beside it:
#
# $$W x + \frac{\alpha}{r}\, B A\, x,$$
#
# where $A$ is (r, in) and $B$ is (out, r), with a small **rank** $r$, such as 4, and $\alpha$ is a fixed number. Only $A$ and $B$ are
# trained. $B$ starts at zero, so at first nothing changes.

# %% [markdown]
# ### Exercise 13.5: a layer with LoRA
#
# *Difficulty 2 of 3, 5 minutes.*
#
# Write `my_lora(x, W, A, B, alpha)`: `x` is (..., in), one vector a row, `W` is (out, in) and frozen, `A` is (r, in), `B` is (out, r). A linear layer computes
# `x @ W.T`. It returns (..., out).


# %%
def my_lora(x, W, A, B, alpha):
    # BEGIN SOLUTION lesson13.lora
    ...
    # END SOLUTION


# %%
lesson13.lora.check(my_lora)

# %% [markdown]
# ### Exercise 13.6: merge
#
# *Difficulty 1 of 3, 3 minutes.*
#
# After training, two extra matrices in every layer only cost time. Write `my_merge(W, A, B, alpha)`: the one matrix (out, in) that gives
# the same answers as the layer with LoRA.


# %%
def my_merge(W, A, B, alpha):
    # BEGIN SOLUTION lesson13.merge
    ...
    # END SOLUTION


# %%
lesson13.merge.check(my_merge)

# %% [markdown]
# ### Question 13.C: what LoRA costs
#
# *1 minute.*
#
# A matrix has 384 inputs and 896 outputs, which is 344,064 numbers. How many does a LoRA of rank 8 train in its place?

# %%
# BEGIN SOLUTION
trained = 10_240
# STUB
# trained = ...  # a number
# END SOLUTION

# %%
lesson13.lora_size.check(trained)

# %% [markdown]
# What they give: `add_lora` puts such a layer in place of every linear layer, and of the table of words. (In large models
# often only the attention gets one.) `merge_lora` does what your `my_merge` does. The loop is the one you know.

# %%
orange = scenes(200, seed=8, only=[("orange",)], new_words=True, held_out=[*held_out, ("star",)])
latents, orange_words = codec.encode(orange.images), orange.words
taught = add_lora(network, rank=2, generator=seeded(0)).train()
small = [p for p in taught.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(small, lr=5e-3)
falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 250)
noisy, generator = (
    NoisySteps(1000),
    seeded(9),
)  # t = T sqrt(u): more of the steps that decide colors
for _ in range(250):
    chosen = torch.randint(200, (8,), generator=generator)
    t, _ = noisy.draw(8, generator=generator)
    eps = torch.randn(8, *latents.shape[1:], generator=generator)
    x0, t, eps = latents[chosen].to(device), t.to(device), eps.to(device)
    v_hat = taught(diffuse(schedule, x0, t, eps), t, orange_words[chosen].to(device))
    loss = (v_hat - velocity(schedule, x0, t, eps)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    falling.step()
kept = lora_parameters(taught)  # all A and B, by the names of their layers
count, whole = (sum(p.numel() for p in ps) for ps in (kept.values(), network.parameters()))
print(f"{count:,} numbers trained, {100 * count / whole:.1f} % of {whole:,}")
print(f"they take {4 * count / 1000:.0f} kilobytes")

# %%
layered, single_matrix = own(lesson13.lora, my_lora), own(lesson13.merge, my_merge)
layer = taught.text.layers[0].out  # one of the layers, with its W, A and B
W, A, B = (m.detach() for m in (layer.layer.weight, layer.down, layer.up))
x = torch.randn(5, W.shape[1], generator=seeded(0)).to(device)
difference = (layered(x, W, A, B, 2.0) - x @ single_matrix(W, A, B, 2.0).T).abs().max()
print(f"with LoRA and merged: answers differ by at most {float(difference):.0e}")
assert difference < 1e-4
merged = merge_lora(taught).eval()

knows = labeled(merged, schedule, checkpoint.card["target"])
ask = scenes(32, seed=10, only=[("orange",)], new_words=True, held_out=[*held_out, ("star",)]).words
before, after = draw(ask, seed=11), draw(ask, seed=11, told=knows)
is_orange = ask == VOCABULARY.number("orange")
for name, images in (("before", before), ("after", after)):
    colors = judge_scenes(images, ask).right[is_orange].double()
    print(f"{name:6s}: orange where it was asked for {percent(colors)}")

old = draw(seen_words, 2.0, seed=6, told=knows)  # the same noise as before
change = all_right(old, seen_words) - all_right(by_scale[2.0], seen_words)
error = 100 * float(change.std()) / math.sqrt(len(change))
print(f"old prompts, all words right: {100 * float(change.mean()):+.0f} ± {error:.0f} points")
fewer = single(old, seen_words) - single(by_scale[2.0], seen_words)
print(f"of their single words: {100 * fewer:+.1f} points")

# %% tags=["plumbing"]
show(
    filmstrip([before[:8], after[:8]], rows=["before", "after"]),
    alt="Two rows of eight scenes from the same noise and prompts that ask for an orange object. "
    "Before, it has some other color; after training, some are orange, and some yellow.",
)

# %% [markdown]
# A file this small is easily shared and plugged in: that is why the internet is full of LoRAs. What is new in a picture here is a color,
# and even that comes in only 4 of 10 pictures, as a mean over seeds. Try other layers, or a new *shape*, such as
# *star*. The last lines show what it forgets: the same prompts and noise before and after.
#
# ## Where good vectors for sentences come from
#
# Our text encoder learned to read while the network learned layout. Stable Diffusion took one that could already read: the text half of
# **CLIP** (Radford et al. 2021). CLIP has two encoders, one for pictures and one for sentences, and a single goal: the vectors of a picture
# and of *its* sentence should point in the same direction, and those of others should not. For a batch of B pairs, the table of all B x B
# cosines, divided by a small temperature, holds 2 B questions: which sentence belongs to this picture (each row), which picture to this
# sentence (each column)? The right answers are on the diagonal.

# %% [markdown]
# ### Exercise 13.7: which sentence belongs to which picture?
#
# *Difficulty 2 of 3, 7 minutes.*
#
# Write `my_contrastive(pictures, sentences, temperature)`: both are (B, D), vectors not yet of length 1. A net is trained with it, so
# gradients must pass. Return the mean of two cross-entropies, over the rows and over the columns. `F.cross_entropy(table, answers)` takes a
# row of scores for each question, and the number of the right answer.


# %%
def my_contrastive(pictures, sentences, temperature):
    # BEGIN SOLUTION lesson13.contrastive
    ...
    # END SOLUTION


# %%
lesson13.contrastive.check(my_contrastive)

# %% [markdown]
# ### Question 13.D: a net that guesses
#
# *2 minutes.*
#
# What is this loss for a batch of 64 pairs, if the net knows nothing and gives each answer the same probability?

# %%
# BEGIN SOLUTION
guess = math.log(64)
# STUB
# guess = ...  # a number
# END SOLUTION

# %%
lesson13.guessing.check(guess)

# %% [markdown]
# What it gives: a CLIP trained with your loss, in a few seconds.

# %%
contrast = own(lesson13.contrastive, my_contrastive)
pairs = scenes(3000, seed=12)
torch.manual_seed(0)
clip = PictureTextNet(64, len(VOCABULARY), VOCABULARY.length)
optimizer = torch.optim.AdamW(clip.parameters(), lr=2e-3, weight_decay=0.05)
falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 200)
generator, losses = seeded(0), []
for _ in range(200):
    chosen = torch.randint(len(pairs), (64,), generator=generator)
    pictures_64 = clip.encode_pictures(pairs.images[chosen])
    loss = contrast(pictures_64, clip.encode_words(pairs.words[chosen]), (-clip.log_scale).exp())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    falling.step()
    losses.append(loss.item())
fresh = scenes(512, seed=13)
with torch.no_grad():
    found = torch.cat(
        [
            captions[clip(images, captions).argmax(1)]
            for images, captions in zip(fresh.images.split(64), fresh.words.split(64), strict=True)
        ]
    )
print(f"loss from {losses[0]:.2f} to {sum(losses[-20:]) / 20:.2f}; a guess is {math.log(64):.2f}")
print(f"of 64 sentences it picks a true one: {percent(all_right(fresh.images, found))}")

# %% [markdown]
# Guessing would find the picture's own sentence in 1.6 % of cases. Trained for longer, the same net picks a true caption in 88.3 ± 1.0 % (`benchmarks/contrastive.py`: seed 0, 1,024 pictures, 36 CPU seconds). In Stable Diffusion
# only the text half is kept, **frozen**: its words go where ours go, into keys and values.
#
# ## A map of Stable Diffusion
#
# You have written all of this:
#
# | part | Stable Diffusion 1.5 | yours | lesson |
# |---|---|---|---|
# | tokenizer | 49,408 pieces, rows of 77 | 25 words, rows of 12 | 13 |
# | text encoder | CLIP's: 12 layers, width 768, frozen | 2 layers, width 64, trained, then frozen | 13 |
# | autoencoder | 512 x 512 x 3 to 64 x 64 x 4 | 64 x 64 x 3 to 16 x 16 x 4 | 12 |
# | scale of the latents | 0.18215, one number | one a channel | 12 |
# | network | U-Net, four levels, 16 cross-attentions | U-Net, two levels, 3 cross-attentions | 4, 13 |
# | schedule, steps | 1000, betas linear in the root | 1000, cosine | 1, 7 |
# | target | eps | v | 3 |
# | sampler | 50 steps of PNDM, DDIM or DPM-Solver++ | 20 steps of DDIM | 6, 9 |
# | guidance | 7.5, negative prompts | what you measured | 8, 13 |
# | adding to it | LoRA, image to image, inpainting | the same | 11, 13 |

# %%
sizes = {
    "text encoder": (123_060_480, network.text),
    "network without it": (859_520_964, network),
    "autoencoder": (83_653_863, codec.autoencoder),
}
text = sum(p.numel() for p in network.text.parameters())
for name, (theirs, module) in sizes.items():
    ours = sum(p.numel() for p in module.parameters()) - (text if module is network else 0)
    print(f"{name:18s} {theirs:>11,} numbers there, {ours:>9,} here: {theirs / ours:,.0f} times")

# %% [markdown]
# Ten lines draw with the real one. Run them on Colab, on a GPU (they download 3 GB):
#
# ```python
# %pip install --quiet diffusers transformers accelerate
# import torch
# from diffusers import StableDiffusionPipeline
#
# pipe = StableDiffusionPipeline.from_pretrained(
#     "stable-diffusion-v1-5/stable-diffusion-v1-5", variant="fp16", torch_dtype=torch.float16
# ).to("cuda")
# picture = pipe(
#     "a small red ball on top of a large blue cube, studio photograph",
#     negative_prompt="blurry",
#     guidance_scale=7.5,
#     num_inference_steps=30,
#     generator=torch.Generator("cuda").manual_seed(0),
# ).images[0]
# picture
# ```
#
# Swap the colors in the prompt, and count how often the answer is right. Binding is hard for large models, too.
#
# <details><summary>And DiT?</summary>
#
# Newer systems (Stable Diffusion 3, Flux, Sora) have a **diffusion transformer** (Peebles and Xie 2023) in the U-Net's place. You know its parts:
#
# - *patchify*: the latents are cut into patches of 2 x 2, and each becomes one vector, as in our `patch`. A position is added, as to our words,
# - then come layers like those of the text encoder: self-attention among the patches, then a small network for each,
# - *adaLN-zero*: step and condition do not get added; they give each layer norm its scale and shift, and each branch a gate that **starts at zero**, so that every layer begins as the identity, like B in LoRA,
# - words: by cross-attention as here, or, in Stable Diffusion 3, as further tokens in the same self-attention (*joint attention*),
# - in the end each vector becomes a patch again.
#
# There are no levels and no skip connections. It needs more data than a U-Net, and keeps improving as it grows. That is why the large ones use it. Nearly all of them are trained as flows (lesson 10).
#
# </details>
#
# ## Recap
#
# - A sentence becomes numbers, then vectors. **A mean of them loses which word belongs to which**.
# - **Attention** is a mean with shares that each query chooses: softmax of products of queries and keys. Padding is hidden before the softmax.
# - **Cross-attention** lets each place of the picture ask the words. Its maps show where a word is heard.
# - A **negative prompt** takes the place of the empty sentence in guidance.
# - **LoRA** trains a thin product of two matrices beside each frozen one; merged, it costs nothing.
# - **CLIP** brings pictures and sentences into one space, by asking which belongs to which.
#
# ## Key terms
#
# | what people say | what it means |
# |---|---|
# | token, tokenizer | a word or a piece of one, as a number; what splits a sentence into them |
# | embedding | the vector that a number looks up in a table |
# | padding, attention mask | what fills a row behind a sentence; what hides it |
# | query, key, value | what asks, what is compared with it, what is taken |
# | head | one of several attentions side by side, each on a part of the numbers |
# | self-attention, cross-attention | queries and keys from the same thing; from picture and words |
# | prompt, negative prompt | the sentence to draw; the one to move away from |
# | binding, compositionality | which property belongs to which object; drawing what was never seen together |
# | LoRA, rank, alpha | a trained change B A beside a frozen matrix; its inner size; its strength, divided by the rank |
# | contrastive loss, CLIP, temperature | which sentence belongs to which picture; the net trained on that; what divides its cosines |
# | DiT | a transformer in the place of the U-Net |
#
# ## Claims, measured
#
# <!-- claims -->
#
# <details><summary>Further reading</summary>
#
# - Vaswani and others: *Attention Is All You Need*, 2017, arXiv 1706.03762.
# - Rombach and others: *High-Resolution Image Synthesis with Latent Diffusion Models*, 2022, arXiv 2112.10752. Stable Diffusion; cross-attention in sec. 3.3.
# - Radford and others: *Learning Transferable Visual Models From Natural Language Supervision*, 2021, arXiv 2103.00020. CLIP.
# - Hu and others: *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, arXiv 2106.09685.
# - Hertz and others: *Prompt-to-Prompt Image Editing with Cross Attention Control*, 2022, arXiv 2208.01626. Attention maps, and what to do with them.
# - Feng and others: *Training-Free Structured Diffusion Guidance for Compositional Text-to-Image Synthesis*, 2023, arXiv 2212.05032. Binding in large models.
# - Peebles, Xie: *Scalable Diffusion Models with Transformers*, 2023, arXiv 2212.09748. DiT.
#
# </details>
#
# ## Where to go from here
#
# The course's page [Where to go from here](../docs/where_to_go.md) lists common names and settings, and what to read and try next.
#
# ## What you can do now
#
# An hour ago a prompt was something you typed into somebody else's program. Now you can follow it all the way: words to numbers, numbers to vectors, and
# from there into every place of a picture. You can see where a word is heard, steer away from another, and teach a trained model a new one with a
# thirtieth of its numbers. And you have counted how often the picture shows what was asked for, instead of believing it.
#
# <!-- navigation -->
