# %% [markdown]
# # 5b · Training for real
#
# <!-- opening -->
#
# A run that takes hours meets what a run of a minute never does: numbers of 16 bits that become 0 or infinity, a power cut, a
# second GPU. The picture shows where one of the two 16-bit formats works, and how close to the edge a small network already stands.
#
# **After this lesson you will be able to**
#
# - train in bf16 and in fp16, and write a step with loss scaling that skips an overflow unharmed,
# - save a model so that others can load it without trusting you,
# - resume a run that was stopped, and share one among several processes.
#
# **This lesson is optional**: lessons 6 to 8 do not need it. **You need** lesson 5. **Time:** about <!-- minutes --> minutes.

# %%
import copy
import dataclasses
import json
import math
import pickle

import torch
from torch import nn

from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.checks import lesson05b
from tutorial_lib.datasets import circles
from tutorial_lib.hardware import pick_precision
from tutorial_lib.losses import epsilon_loss
from tutorial_lib.training import RunFolder, TrainConfig, Trainer, new_network, resume, train
from tutorial_lib.lab import seeded, start

device = start("5b")

# %% tags=["plumbing"]
import _thread
import statistics
import tempfile
import threading
import time
from pathlib import Path

from tutorial_lib.hardware import keep_freed_memory
from tutorial_lib.plots import COLORS, GRAY, panels, show

BLUE, ORANGE, GREEN = COLORS[:3]
keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: up to 1.6 times faster
folder = tempfile.TemporaryDirectory()  # everything that this lesson writes; gone afterwards
runs = Path(folder.name)
torch.set_num_threads(1)  # our pictures are too small to share among cores

# %% [markdown]
# ## The library's loop
#
# We need a network that has learned something. `train(TrainConfig(...))` trains one: the loop of lesson 5 with all its parts, and it takes care of files. Everything that decides a run stands in its config, and the same config gives the same numbers on the same machine.

# %%
config = TrainConfig(
    dataset="circles", size=16, widths=(16, 32), steps=150, log_every=50, progress=False,
    schedule="linear", target="eps", weight="none", out=runs / "first",
)  # fmt: skip
run = train(config)
small, schedule = circles(2000, size=16), run.schedule

print("the same from a terminal:", dataclasses.replace(config, out=None).command(), "\n")
for values in RunFolder(run.path).read_metrics():
    print(f"step {values['step']:>3}: loss {values['loss']:.4f}, lr {values['lr']:.5f}")
assert run.losses[-1] < run.losses[0]

# %% [markdown]
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
# **bf16** keeps the range of fp32 and gives up digits: fewer than three. **fp16** has one more digit, and a narrow range: nothing above 65504, and whatever is below $3\cdot10^{-8}$, half of its smallest number, is rounded to 0.
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
# A loss is a mean over many numbers, batch x channels x pixels, so the gradient that starts the way back is divided by that many. Here that is 32 x 3 x 16 x 16 = 24,576. A batch of 2048 pictures of 64 x 64 makes 25 million, a thousand times as many.
# Do such small gradients survive? We take the network from above and one batch, multiply the loss by some factor, do the backward pass in 16 bits, divide the gradients by the factor, and compare with fp32. A factor of $2^{-10}$ stands for a mean over 1024 times as many numbers.

# %%
cpu_schedule = schedule.to("cpu")
cpu_network = copy.deepcopy(run.network).cpu()


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

# %% tags=["plumbing", "opening"]
figure, (plot,) = panels(1, width=7.2, height=3.4)
for name, color, dash in (("bf16", GREEN, "-."), ("fp16", BLUE, "-")):
    plot.plot(factors, error[name], color=color, ls=dash, marker="o", ms=4)
plot.axvspan(overflow, factors[-1] * 4, color=ORANGE, alpha=0.2, lw=0)
plot.text(overflow * 1.5, 0.15, "fp16:\ninfinity", color=ORANGE)
plot.text(2**-20, 0.5, "fp16: gradients\nbecome 0", color=BLUE, va="center")
plot.text(2.0**14, 1.25 * error["bf16"][-1], "bf16", color=GREEN)
plot.text(2.0**14, 1.25 * fp16_error[2.0**8], "fp16", color=BLUE)
plot.axvline(1, color=GRAY, ls=":", lw=1)
plot.text(1.2, 0.0027, "our loss", color=GRAY, fontsize=9)
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
    "10 percent. fp16 is flat at about 1 percent from our loss on to the right, rises to 100 percent "
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
# a big one. With a mean over 256 times as many numbers ($2^{-8}$) nearly half the gradient is gone. (How much depends on the network: the one in the table at the end, trained for 150 steps, loses a fifth.) bf16 has no such window: its error is larger, because it has fewer digits, and the same at every factor. (Such errors are random, and cancel over many steps.)
#
# ### Question 5b.A: no scaling for bf16
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
lesson05b.why_bf16.check(why)

# %% [markdown]
# ### A step that survives
#
# NVIDIA's GPUs of 2017 to 2019 (Volta, Turing) multiply fp16 fast and do not have bf16. There one trains with **loss scaling**: multiply the loss by a large `scale` (65536, say), so that the gradients lie inside the window; divide them by it, in fp32, before anything looks at them. Which scale is right
# changes during training, so it is found by trial: if any gradient comes out infinite or NaN, the scale was too large. Then **skip the step**, halve the scale, and take the next batch.
#
# ### Exercise 5b.1: a training step with loss scaling
#
# *Difficulty 3 of 3, 15 minutes. This one is worth being proud of.*
#
# Write `scaled_step(network, optimizer, loss_of, scale, max_norm)`, with `network`, `optimizer` and `loss_of` as in exercise 5.1 (all parameters get a gradient). It
#
# 1. wipes old gradients, and calculates those of the loss times `scale`,
# 2. divides every gradient by `scale`,
# 3. clips the true gradients to the global norm `max_norm` (`torch.nn.utils.clip_grad_norm_(parameters, max_norm)` does it in place, and returns the norm it found; the norm is infinite or NaN if any gradient is),
# 4. makes the step, but only if all gradients were finite,
# 5. returns the scale for the next step: `scale` as it was, or `scale / 2` where the step was skipped.


# %%
def scaled_step(network, optimizer, loss_of, scale, max_norm):
    # BEGIN SOLUTION lesson05b.scaled_step
    ...
    # END SOLUTION


# %%
lesson05b.scaled_step.check(scaled_step)

# %% [markdown]
# PyTorch's own is `torch.amp.GradScaler`. It also doubles the scale after 2000 good steps in a row, so that the scale follows what the network needs. The next cell trains in fp16 from a scale that is far too large; watch it find its way.

# %%
cpu_network = copy.deepcopy(run.network).cpu()
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
print(f"{30 - scales[-1]} of 16 steps were skipped")
assert scales[-1] == scales[-4] < 29
assert all(p.isfinite().all() for p in cpu_network.parameters())

# %% [markdown]
# Each skipped step halves the scale. At $2^{22}$ one step fits, but later batches overflow again; once the scale has settled, hardly a step is lost, and those that were did no harm. The library does the same by itself where it trains in fp16.
#
# ### Is it faster?
#
# That depends on the hardware, and on the size of the network. `pick_precision("auto", device)` takes bf16 where the machine multiplies it natively, fp16 with a scaler on older GPUs that are fast in it, and fp32 elsewhere, which is always right. We measure the library's training step on 32 x 32 pictures in both formats, in turns, so that whatever else the machine is doing hits both.

# %%
data = circles(2000)  # 32 x 32
formats = {name: pick_precision(name, device) for name in ("fp32", "bf16")}
trainers, seconds, losses_of = {}, {"fp32": [], "bf16": []}, {"fp32": [], "bf16": []}
for name, precision in formats.items():
    settings = TrainConfig(steps=21, precision=name)
    torch.manual_seed(0)
    trainers[name] = Trainer(settings, new_network(settings, data), data, device, precision)
    trainers[name].step().item()  # the first call sets things up
    trainers[name].update_lr()
for _ in range(4):
    for name, trainer in trainers.items():
        began = time.perf_counter()
        for _ in range(5):
            losses_of[name].append(trainer.step())
            trainer.update_lr()
        losses_of[name][-1].item()  # wait for the device
        seconds[name].append(time.perf_counter() - began)
throughput = {name: 5 * 32 / statistics.median(times) for name, times in seconds.items()}
end = {name: float(torch.stack(losses[-10:]).mean()) for name, losses in losses_of.items()}
chosen = pick_precision("auto", device)
print(f"auto takes {chosen.name}: {chosen.reason}")
for name in formats:
    print(f"{name}: {throughput[name]:6.0f} images a second, loss after 20 steps {end[name]:.3f}")
print(f"bf16 is {throughput['bf16'] / throughput['fp32']:.2f} times as fast here")
assert abs(end["bf16"] / end["fp32"] - 1) < 0.05

# %% [markdown]
# The losses agree within a few percent, and the speed depends on your machine. A CPU or GPU with units for bf16 can gain, and the more so the larger the network is. One without is *slower*, since each product is emulated.
#
# ## What a run leaves
#
# Back to the run at the beginning. Here is what it has written:

# %%
for path in sorted(path for path in run.path.rglob("*") if path.is_file()):
    print(f"{path.stat().st_size:>9,} bytes  {path.relative_to(run.path)}")

# %% [markdown]
# ### What a checkpoint holds
#
# A checkpoint is two of these files. The `.safetensors` holds the averaged weights and $\bar\alpha$, as plain numbers. The `.json` beside it is the **card**: which network, trained to say what, on which data, for how long, by which command, and a checksum of the weights.

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
# Why not `torch.save(network)`, as in so many tutorials? Because that writes a **pickle**, and a pickle is not data but a *program*: loading it runs whatever it says. Here is one that is harmless, apart from doing something that nobody asked for:


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
# A checkpoint is for *drawing*. To resume a run as if it had never stopped, one needs more: the raw weights, the optimizer's means, the order of the pictures, the state of the random numbers. All that is in the folder `state/`. The run writes it every few minutes and at its end; and when you
# press the stop button of the notebook, it finishes its step, writes it, and says how to resume. We train the run from above once more, and press stop (by program) when 50 steps are done:


# %%
def press_stop(run, step):
    """Does what the stop button does, as soon as the run reports that ``step`` steps are done."""
    while not any(line["step"] == step for line in RunFolder(run).read_metrics()):
        time.sleep(0.01)
    _thread.interrupt_main()


again = dataclasses.replace(config, out=runs / "stopped")
threading.Thread(target=press_stop, args=(again.out, 50), daemon=True).start()
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
# Not a step is lost or done twice: the loss of each step and all weights are those of the run that nobody stopped. From a terminal you press Ctrl-C, and the command that stands above resumes the run. The same command helps after a power cut: it resumes from the last state that was written, at most five minutes old.
#
# ### Question 5b.B: only the weights
#
# *Difficulty 2 of 3, 2 minutes.* Somebody has only the checkpoint, and resumes from it: averaged weights, a new optimizer, new random numbers. What happens?
#
# - a) Nothing: the weights are all that training is about.
# - b) The run goes on, but as another run: Adam's means start from 0 again, so the next steps are long and blind, and the pictures come in another order.
# - c) PyTorch refuses to train averaged weights.
# - d) The loss starts from 1 again.

# %%
# BEGIN SOLUTION
lost = "b"
# END SOLUTION

# %%
lesson05b.only_weights.check(lost)

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
# `torchrun`, which comes with PyTorch, starts one process for each GPU. With two of them:
#
# ```
# torchrun --nproc-per-node 2 -m tutorial_lib train --dataset circles --batch-size 64
# ```
#
# Here 64 is the batch of both together, 32 each. Every process draws the random numbers of the whole batch and takes its own part, so the run is that of one GPU with a batch of 64, but for the order in which numbers are added. And where a batch does not fit into the memory, `--accumulate 4` splits it into four parts, one after the other,
# whose gradients `backward()` adds up, as you saw at the beginning of lesson 5.
#
# ## What you have learned
#
# - bf16 keeps the range and needs no scaling; fp16 has a window, and loss scaling keeps the gradients inside it. Weights stay in fp32.
# - A checkpoint is for drawing: weights as plain numbers, and a card. A pickle is a program; do not load one from a stranger.
# - Resuming takes more than weights: the optimizer, the order of the pictures, the random numbers.
# - Several processes average their gradients, and are one process with a larger batch.
#
# ### Key terms
#
# | what people say | what it means |
# |---|---|
# | mixed precision, AMP | products in 16 bits, weights and sums that matter in 32 |
# | loss scaling | multiply the loss, divide the gradients: moves them into the range of fp16 |
# | checkpoint | the weights in a file; here with a card that says what they are |
# | resume | to continue a stopped run; takes the optimizer's and the random numbers' state, not just weights |
# | gradient accumulation | several calls of `backward()` before one step: a large batch in parts |
# | data parallel, DDP | several GPUs, each with a part of the batch; gradients are averaged |
#
# ### Claims, measured
#
# <!-- claims -->
#
# ### Further reading
#
# - P. Micikevicius et al., *Mixed Precision Training* (loss scaling), 2017, arXiv:1710.03740
# - P. Goyal et al., *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour* (many GPUs), 2017, arXiv:1706.02677
# - [docs/training.md](../docs/training.md): what the library's runs can do, and how to start them on several machines
#
# ## What you can do now
#
# Half an hour ago your training ended where your patience did. Now you can leave a run alone overnight: in 16 bits without losing gradients,
# stopped and resumed to the same bits, on one GPU or on several.
#
# And you can hand your model to somebody who does not trust you.
#
# <!-- navigation -->
