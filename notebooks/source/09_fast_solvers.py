# %% [markdown]
# # 9 · Fast solvers
#
# <!-- opening -->
#
# Fifty calls of the network for one digit. Is that necessary? Sampling is an old problem in disguise: follow a curve when all you
# are told is its slope. People have worked on it for 250 years, and have become very good at it. You will give your walk their tools,
# and draw digits with **ten** calls. And at the end the same curve will tell you something no picture can: how likely a point is.
#
# **After this lesson you will be able to**
#
# - show that DDIM is Euler's method, and say which equation it solves,
# - measure the order of a method by the slope of its error,
# - write Heun's step and the step of DPM-Solver++,
# - choose where to put ten steps, and say when a famous choice fails,
# - say what the dice of DDPM are good for,
# - compute the exact log density of a point.
#
# **You need** lesson 3 (oracles, the score) and lesson 6 (DDPM and DDIM). **Time:** about <!-- minutes --> minutes.

# %%
import torch

from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.checks import lesson09
from tutorial_lib.forward import predict_x0
from tutorial_lib.guidance import condition, labeled
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import SPACINGS, ddim, ddpm, dpm_solver, euler, evenly_spaced
from tutorial_lib.samplers import heun, karras_spaced, last
from tutorial_lib.schedules import linear_schedule

from tutorial_lib.lab import seeded, start

device = start(9)

# %% tags=["plumbing"]
import math
import time

from tutorial_lib.explorers import SolverExplorer
from tutorial_lib.hardware import keep_freed_memory
from tutorial_lib.plots import COLORS, GRAY, INK, filmstrip, panels, show

keep_freed_memory()  # on a CPU, this kernel reuses the memory of its tensors: up to 1.6 times faster


def own(exercise, mine):
    """Your function if its check passes, else the model answer: the lesson goes on either way."""
    return mine if exercise.judge(mine).passed else exercise.model_answer


# %% [markdown]
# ## DDIM is Euler's method
#
# Our world for this lesson is a plane with eight clusters of points on a ring. Its oracle (lesson 3) makes no errors, so whatever
# goes wrong is the walk's fault.
#
# First, a change of variables. Divide $x_t$ by the signal rate, and call the result $y$. Then the data no longer shrinks as
# noise comes in; there is only noise on top of it, of size $\sigma$:
#
# $$y = \frac{x_t}{\sqrt{\bar\alpha_t}} = x_0 + \sigma\,\epsilon, \qquad
# \sigma = \frac{\sqrt{1-\bar\alpha_t}}{\sqrt{\bar\alpha_t}}.$$
#
# (In lesson 6, $\sigma$ was the size of a roll of the dice. From here on it is the noise in $y$, as most papers have it.) Now
# suppose we know $\hat\epsilon$ and want to go from $\sigma_t$ to $\sigma_s$. The data stays, the noise changes its size, so
#
# $$y_s = y_t + (\sigma_s - \sigma_t)\,\hat\epsilon .$$
#
# New value = old value + stride × slope. That is **Euler's method** (1768), the oldest way to follow an *ordinary differential
# equation*, ODE for short. You will now see that it is also DDIM.

# %%
schedule = linear_schedule()  # T = 1000
T = schedule.num_steps
signal, sigma = schedule.signal_rate, schedule.noise_rate / schedule.signal_rate
angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
ring = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)  # (8, 2), the centers
oracle = GaussianMixtureOracle(schedule, ring, torch.full((8,), 0.05), torch.ones(8))
print("sigma at t = 1, 100, 500, 1000:", [round(float(sigma[t]), 2) for t in (1, 100, 500, 1000)])

# %% [markdown]
# ### Exercise 9.1: Euler's step
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_euler_step(schedule, x_t, t, s, eps_hat)`, the step from `t` to an earlier step `s`:
#
# - `x_t` and `eps_hat` are tensors of one shape, (B, ...); `t` and `s` are Python ints with T >= `t` > `s` >= 0,
# - go from $x_t$ to $y$, take the step above, and come back: return $x_s$.
#
# `schedule.signal_rate` and `schedule.noise_rate` have T + 1 entries; step t is entry `t`.


# %%
def my_euler_step(schedule, x_t, t, s, eps_hat):
    # BEGIN SOLUTION lesson09.euler_step
    ...
    # END SOLUTION


# %%
lesson09.euler_step.check(my_euler_step)

# %% [markdown]
# Now use it: your step, fifty times, beside the library's DDIM.

# %%
euler_step = own(lesson09.euler_step, my_euler_step)
x_T = torch.randn(200, 2, generator=seeded(0), dtype=torch.float64)


def ask(x, t):
    return oracle(x, torch.full((len(x),), t))


def walk(step, x, steps):
    """All states of a walk."""
    states = [x]
    for t, s in zip(steps[:-1], steps[1:], strict=True):
        states.append(step(states[-1], t, s))
    return states


def by_euler(x, steps):
    return walk(lambda x, t, s: euler_step(schedule, x, t, s, ask(x, t)), x, steps)


fifty = evenly_spaced(T, 50)
difference = by_euler(x_T, fifty)[-1] - last(ddim(oracle, schedule, x_T, fifty))
print(f"Euler and DDIM differ by {float(difference.abs().max()):.0e} at most")
assert difference.abs().max() < 1e-9

# %% [markdown]
# <details><summary>The proof, in three lines</summary>
#
# The DDIM step without dice is $x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s}\,\hat\epsilon$. Divide it by
# $\sqrt{\bar\alpha_s}$: this is $y_s = \hat x_0 + \sigma_s\,\hat\epsilon$. And $\hat x_0$ is what is left of $y_t$ without its
# noise, $y_t - \sigma_t\,\hat\epsilon$. Put it in: $y_s = y_t + (\sigma_s - \sigma_t)\,\hat\epsilon$.
#
# </details>
#
# ## The road and its bends
#
# Let the strides shrink to nothing, and Euler's step turns into the equation that it follows, the **probability-flow ODE**:
#
# $$\frac{dy}{d\sigma} = \hat\epsilon(y, \sigma) = \frac{y - \hat x_0(y, \sigma)}{\sigma}.$$
#
# Read the right-hand side: *walk straight toward $\hat x_0$, so that you arrive when $\sigma$ is 0.* If $\hat x_0$ never changed,
# the road would be straight, and one step would do. But the model changes its mind on the way: from far away it sees the middle of
# the ring; up close, one cluster. **Where $\hat x_0$ moves, the road bends,** and that is where Euler, going straight, leaves it.
#
# ## How wrong is a step?
#
# Over a stride $h$ Euler misses the bend, an error of about $h^2$. With half the stride each step is wrong by a quarter, but there are
# twice as many of them. So the error at the end is **half**. It is proportional to $h^p$ with $p = 1$, and $p$ is the **order** of
# the method. To see it, draw the error over the number of evaluations on two logarithmic axes. A power law becomes a straight line,
# and $p$ is how steeply it falls.

# %% [markdown]
# ### Exercise 9.2: the order of a method
#
# *Difficulty 1 of 3, 3 minutes.*
#
# Write `my_order(counts, errors)`: two tensors (n,) of positive numbers, the evaluations N and the errors. Return $p$, one number,
# where the error is about $c\,N^{-p}$: fit a straight line to the logarithms by **least squares**, and change the sign of its slope.
#
# The slope of that line is `(x * y).sum() / (x * x).sum()`, where x and y are the two logarithms, each less its mean.


# %%
def my_order(counts, errors):
    # BEGIN SOLUTION lesson09.order
    ...
    # END SOLUTION


# %%
lesson09.order.check(my_order)

# %% [markdown]
# Now use it: the order of Euler's method, measured. We begin at $\sigma = 20$, where the ring drowns in noise, and compare with a walk
# so fine that its error does not count. (`spaced(n)` are n strides that get shorter toward the data; more on them in "Where to put
# the steps".)

# %%
order = own(lesson09.order, my_order)


def spaced(n):
    return karras_spaced(schedule, n, sigma_max=20.0)


exact = last(heun(oracle, schedule, x_T, spaced(500)))
COUNTS = [16, 32, 64, 128]


def miss(ends):
    """How far from the exact end, on average."""
    return float((ends - exact).norm(dim=1).mean())


def measured(misses):
    tensors = torch.tensor(COUNTS, dtype=torch.float64), torch.tensor(misses, dtype=torch.float64)
    return float(order(*tensors))


misses = {"Euler": [miss(by_euler(x_T, spaced(n))[-1]) for n in COUNTS]}
print(dict(zip(COUNTS, [round(e, 4) for e in misses["Euler"]], strict=True)))
print(f"order {measured(misses['Euler']):.2f}")
assert 0.8 < measured(misses["Euler"]) < 1.2

# %% [markdown]
# ### Question 9.A: four times as many
#
# *1 minute.*
#
# A method has order 2. You give it four times as many evaluations. How many times smaller does its error become?

# %%
# BEGIN SOLUTION
times_smaller = 16
# STUB
# times_smaller = ...  # a number
# END SOLUTION

# %%
lesson09.four_times.check(times_smaller)

# %% [markdown]
# ## Heun: look ahead, then go
#
# Euler looks at the slope where he stands, and is wrong because the road bends. **Heun's method** first goes ahead to look:
#
# 1. take Euler's step, and ask the model about the place where it ends,
# 2. go back, and take the step again with the **mean of both slopes**.
#
# A road that bends evenly has just that slope on average, so the error that remains comes only from how the bend *changes*: order 2.
#
# The last step is special. It leads to $\sigma = 0$, to clean data, about which the model has nothing to say: there the slope is
# $(y - \hat x_0)/0$. So **the last step is Euler's**. Forgetting this is the classic mistake with second-order samplers.

# %% [markdown]
# ### Exercise 9.3: Heun's step
#
# *Difficulty 2 of 3, 6 minutes.*
#
# Write `my_heun_step(model, schedule, x_t, t, s)`, the step from `t` to `s`:
#
# - `model` is a denoiser: `model(x, steps)` with `steps` an int64 tensor (B,), as in `torch.full((len(x_t),), t)`,
# - `x_t` is (B, ...), `t` and `s` are Python ints, T >= `t` > `s` >= 0,
# - where `s` is 0, it is Euler's step, and the model is asked only once,
# - it returns $x_s$. The model wants $x$, not $y$.


# %%
def my_heun_step(model, schedule, x_t, t, s):
    # BEGIN SOLUTION lesson09.heun_step
    ...
    # END SOLUTION


# %%
lesson09.heun_step.check(my_heun_step)

# %% [markdown]
# Now use it: half as many steps, since each one asks twice, and still less error, once the strides are short enough.

# %%
heun_step = own(lesson09.heun_step, my_heun_step)


def by_heun(x, steps):
    return walk(lambda x, t, s: heun_step(oracle, schedule, x, t, s), x, steps)


misses["Heun"] = [miss(by_heun(x_T, spaced(n // 2))[-1]) for n in COUNTS]
for name, row in misses.items():
    print(f"{name:6s}", dict(zip(COUNTS, [round(e, 4) for e in row], strict=True)))
same = by_heun(x_T, fifty)[-1] - last(heun(oracle, schedule, x_T, fifty))
assert same.abs().max() < 1e-9

# %% [markdown]
# ### Question 9.B: what ten steps cost
#
# *1 minute.*
#
# Ten steps of Heun, down to clean data. How often is the model asked?

# %%
# BEGIN SOLUTION
asked_by_heun = 19
# STUB
# asked_by_heun = ...  # a number
# END SOLUTION

# %%
lesson09.heun_asks.check(asked_by_heun)

# %% [markdown]
# ## DPM-Solver++: remember
#
# Heun's method pays for its second order with a second question. But we have asked before, in the last step. If we remember that answer, we know
# how the target $\hat x_0$ has moved, and may guess where it is going. This is **DPM-Solver++ (2M)** by Lu and others (2022), the usual choice
# in image generators: second order, **one question a step**. (2M is short for second order, multistep.)
#
# It rests on another way to write Euler's step. Insert $\hat\epsilon = (y_t - \hat x_0)/\sigma_t$, and $y$ slides toward the target; the
# share $\sigma_s/\sigma_t$ of the way is left over:
#
# $$y_s = \frac{\sigma_s}{\sigma_t}\,y_t + \Big(1 - \frac{\sigma_s}{\sigma_t}\Big)\,D .$$
#
# With $D = \hat x_0$ this is DDIM. DPM-Solver++ takes for $D$ the target as it will be **in the middle of the stride**. It continues the line
# through the last two targets, with strides measured in $\log\sigma$. (There, the farther you are from the data, the longer the
# strides you can afford.)
#
# $$D = \hat x_0 + \frac{h}{2\,h_\text{last}}\,\big(\hat x_0 - \hat x_{0,\text{last}}\big), \qquad
# h = \log\frac{\sigma_t}{\sigma_s}, \quad h_\text{last} = \log\frac{\sigma_\text{last}}{\sigma_t}.$$
#
# In the first step there is nothing to remember, and in the last one $h$ is infinite. Both take $D = \hat x_0$.

# %% [markdown]
# ### Exercise 9.4: the step of DPM-Solver++
#
# *Difficulty 3 of 3, 7 minutes.*
#
# Write `my_dpm_step(schedule, x_t, t, s, x0_hat, t_last, x0_hat_last)`, the step from `t` to `s`:
#
# - `x_t` and `x0_hat` are (B, ...); `t` and `s` are Python ints, T >= `t` > `s` >= 0,
# - `t_last` > `t` is where the step before this one began, and `x0_hat_last` the target there; both are `None` in the first step,
# - it returns $x_s$.
#
# Entries of `sigma` are tensors, so `(sigma[t] / sigma[s]).log()` is $h$.


# %%
def my_dpm_step(schedule, x_t, t, s, x0_hat, t_last, x0_hat_last):
    # BEGIN SOLUTION lesson09.dpm_step
    ...
    # END SOLUTION


# %%
lesson09.dpm_step.check(my_dpm_step)

# %% [markdown]
# Now use it: all three in one picture. The walks on the left have 16 evaluations each.

# %%
dpm_step = own(lesson09.dpm_step, my_dpm_step)


def by_dpm(x, steps):
    remembered = None, None

    def step(x, t, s):
        nonlocal remembered
        x0_hat = predict_x0(schedule, x, torch.full((len(x),), t), ask(x, t))
        x_s = dpm_step(schedule, x, t, s, x0_hat, *remembered)
        remembered = t, x0_hat
        return x_s

    return walk(step, x, steps)


misses["DPM-Solver++"] = [miss(by_dpm(x_T, spaced(n))[-1]) for n in COUNTS]
orders = {name: measured(row) for name, row in misses.items()}
print({name: round(p, 2) for name, p in orders.items()})
same = by_dpm(x_T, fifty)[-1] - last(dpm_solver(oracle, schedule, x_T, fifty))
assert same.abs().max() < 1e-9
assert 1.7 < orders["DPM-Solver++"] < 2.4
assert orders["Heun"] > 1.7

# %% tags=["plumbing", "opening"]
spiral = torch.arange(16, dtype=torch.float64)
few = ((0.45 + 0.07 * spiral) * torch.stack([(2.4 * spiral).cos(), (2.4 * spiral).sin()])).T
fine = torch.stack([few, *(step.x_t for step in heun(oracle, schedule, few, spaced(300)))])
walks = {
    "Euler": by_euler(few, spaced(16)),
    "Heun": by_heun(few, spaced(8)),
    "DPM-Solver++": by_dpm(few, spaced(16)),
}
figure, axes = panels(4, width=11, height=3.2)
for k, (axis, (name, states)) in enumerate(zip(axes, walks.items(), strict=False)):
    axis.scatter(*ring.T, s=420, color=GRAY, alpha=0.25, linewidths=0)
    axis.plot(fine[..., 0], fine[..., 1], color=INK, linewidth=1.3, alpha=0.6)
    places = torch.stack(states)
    axis.plot(places[..., 0], places[..., 1], "-o", color=COLORS[k], markersize=2, linewidth=1)
    axis.scatter(*places[-1].T, s=22, color=COLORS[k], zorder=3)
    axis.set(xlim=(-2.45, 2.45), ylim=(-2.45, 2.45), aspect="equal")
    axis.set_axis_off()
    axis.set_title(name, color=COLORS[k])
for k, (name, row) in enumerate(misses.items()):
    axes[3].plot(COUNTS, row, "-" + "os^"[k], color=COLORS[k], markersize=4, label=name)
axes[3].set(xscale="log", yscale="log", xlabel="evaluations")
axes[3].set_xticks(COUNTS, [str(n) for n in COUNTS])
axes[3].minorticks_off()
axes[3].set_title("error at the end", color=INK)
show(
    figure,
    alt="Three panels of sixteen walks from a cloud in the middle to eight clusters on a ring, each "
    "with 16 evaluations; gray lines are the exact paths. Euler's cut the bends, Heun's jump about "
    "in their first strides, those of DPM-Solver++ stay on the gray lines. Right, on logarithmic "
    "axes, the error over the evaluations: three falling lines, Euler's least steep, Heun's from "
    "above to below it, that of DPM-Solver++ lowest throughout.",
)

# %% [markdown]
# Euler falls with slope 1, the other two with slope 2 or a little more. Heun starts *above* Euler: with 16 evaluations its strides are so
# long that looking ahead misleads it. A higher order is a promise for **short enough** strides. It says nothing about long ones. (The panels show
# $x_t$, which shrinks toward noise. In $y$ the walks begin twenty times as far out.)

# %% [markdown]
# Now let them race. Drag the number of evaluations, and change where the steps are. From which number on does Heun pass Euler? Is one spacing
# best for all three?

# %%
SolverExplorer(oracle, few)

# %% [markdown]
# ## Where to put the steps
#
# Where are short strides needed? Where the road bends, and that is at small $\sigma$. Karras and others (2022) space not $\sigma$ evenly, but
# its root:
#
# $$\sigma_i = \Big(\sigma_\text{max}^{1/\rho} + \frac{i}{n-1}\,\big(\sigma_\text{min}^{1/\rho} - \sigma_\text{max}^{1/\rho}\big)\Big)^{\rho},
# \qquad i = 0, \dots, n-1,$$
#
# and then comes 0. With $\rho = 1$ strides in $\sigma$ are equal. The larger $\rho$, the shorter they get near the data. $\rho = 7$ is
# usual.

# %% [markdown]
# ### Exercise 9.5: Karras' spacing
#
# *Difficulty 1 of 3, 4 minutes.*
#
# Write `my_karras_sigmas(sigma_max, sigma_min, count, rho)`: three numbers and an int, `count` at least 2. Return `count` + 1 sigmas, a
# float64 tensor or a list: `count` by the formula, from `sigma_max` down to `sigma_min`, and then 0.


# %%
def my_karras_sigmas(sigma_max, sigma_min, count, rho):
    # BEGIN SOLUTION lesson09.karras_sigmas
    ...
    # END SOLUTION


# %%
lesson09.karras_sigmas.check(my_karras_sigmas)

# %% [markdown]
# Now use it: ten steps in three spacings. The library's `karras_spaced` takes, for each sigma of such a list, the step t whose sigma is nearest.
# Below: the error at the end, for each solver, spacing and number of evaluations.

# %%
karras_sigmas = own(lesson09.karras_sigmas, my_karras_sigmas)
for rho in (1, 7, 100):
    row = torch.as_tensor(karras_sigmas(20.0, 0.01, 10, rho))
    print(f"rho = {rho:3d}:", " ".join(f"{float(x):.2f}" for x in row))

top = spaced(2)[0]  # the step of sigma = 20
spacings = {
    "even in t": lambda n: [(2 * top * i + n) // (2 * n) for i in range(n, -1, -1)],
    "rho = 7": spaced,
    "rho = 100": lambda n: karras_spaced(schedule, n, 100.0, sigma_max=20.0),
}
print(f"\n{'':14s}" + "".join(f"{name:>26s}" for name in spacings))
print(f"{'evaluations':14s}" + f"{'10':>10s}{'20':>8s}{'60':>8s}" * 3)
found = {}
for name, solver in (("Euler", euler), ("Heun", heun), ("DPM-Solver++", dpm_solver)):
    for spacing, steps in spacings.items():
        for n in (10, 20, 60):
            strides = n // 2 if name == "Heun" else n
            found[name, spacing, n] = miss(last(solver(oracle, schedule, x_T, steps(strides))))
    row = [f"{found[name, spacing, n]:8.3f}" for spacing in spacings for n in (10, 20, 60)]
    print(f"{name:14s}" + "".join(f"  {''.join(row[k : k + 3])}" for k in (0, 3, 6)))
assert found["Euler", "even in t", 20] < found["Euler", "rho = 7", 20]
assert found["DPM-Solver++", "rho = 7", 20] < found["DPM-Solver++", "even in t", 20]

# %% [markdown]
# There is no winner for all. **Euler does best with even steps of t**: six of ten begin between $\sigma$ = 5 and 0.5, where these roads bend most, and
# with $\rho = 7$ only three. The second-order methods need a short stride at the end, since the last one is of first order. They gain most
# from Karras' spacing once they have some twenty evaluations. Each pair of world and solver has its own best spacing. Measure yours.
#
# **A trap.** Our digits use the cosine schedule, and its last $\sigma$ is not 20 or 80 but 20,291. Karras' spacing from *there* wastes five or six
# of ten steps on noise in which nothing can be seen. Karras and others begin at $\sigma = 80$. The library has both, as `"karras"` and `"edm"`
# (the name of their design).

# %%
checkpoint = load_checkpoint("mnist", device=device)
cosine = checkpoint.schedule
digit_sigma = cosine.noise_rate / cosine.signal_rate
for name in ("karras", "edm"):
    steps = SPACINGS[name](cosine, 10)
    print(f"{name:6s}", " ".join(f"{float(digit_sigma[t]):.3g}" for t in steps))

# %% [markdown]
# ## Ten evaluations
#
# Now the digits. Same noise, same labels; above, 50 steps of DDIM; below, ten evaluations each.

# %%
model = labeled(checkpoint.network, cosine, checkpoint.card["target"])
ten = torch.arange(10, device=device)
digits_T = torch.randn(10, 1, 28, 28, generator=seeded(4)).to(device)
denoiser = condition(model, ten)
contenders = {
    "DDIM, 50": ddim(denoiser, cosine, digits_T, evenly_spaced(1000, 50)),
    "DDIM": ddim(denoiser, cosine, digits_T, evenly_spaced(1000, 10)),
    "Heun": heun(denoiser, cosine, digits_T, SPACINGS["edm"](cosine, 5)),
    "DPM++, karras": dpm_solver(denoiser, cosine, digits_T, SPACINGS["karras"](cosine, 10)),
    "DPM++, edm": dpm_solver(denoiser, cosine, digits_T, SPACINGS["edm"](cosine, 10)),
}
clock = time.perf_counter()
drawn = {name: last(steps).cpu() for name, steps in contenders.items()}
print(f"all five in {time.perf_counter() - clock:.1f} s")

# %% tags=["plumbing"]
show(
    filmstrip(list(drawn.values()), labels=[f"“{digit}”" for digit in range(10)], rows=list(drawn)),
    alt="Five rows of the ten digits. DDIM with 50 steps draws clean digits. DDIM with ten and "
    "DPM-Solver++ with the edm spacing draw the same ones, DDIM a little fainter. Heun with "
    "five steps leaves speckles in the background, and DPM-Solver++ with the karras spacing frays "
    "some strokes.",
)

# %% [markdown]
# Ten digits show little; a thousand can be measured. Fréchet distance from 5,000 real digits, as in lesson 7, by number of evaluations. Labels
# asked for in turn, no guidance, one seed; standard errors are about 0.1, and the floor (real digits) is 0.30 ± 0.06:
#
# | sampler | spacing | 5 | 8 | 10 | 20 | 50 |
# |---|---|---|---|---|---|---|
# | DDIM = Euler | even | 1.12 | 0.76 | 0.70 | 0.63 | 0.60 |
# | Euler | edm | 6.07 | 1.81 | 1.32 | 0.80 | 0.70 |
# | Heun | even | 82.8 | 82.6 | 81.8 | 50.9 | 15.2 |
# | Heun | edm | 181 | 4.35 | 1.96 | 0.69 | 0.68 |
# | DPM-Solver++ | even | 0.78 | 0.59 | 0.58 | 0.59 | 0.60 |
# | DPM-Solver++ | karras | 50.0 | 1.28 | 1.04 | 0.56 | 0.61 |
# | DPM-Solver++ | edm | 0.72 | 0.58 | 0.52 | 0.63 | 0.68 |
# | DDPM | even | 0.83 | 0.46 | 0.43 | 0.31 | 0.35 |
#
# (`python benchmarks/few_steps.py`, seed 0.) **Eight or ten evaluations of DPM-Solver++ are as good as fifty of DDIM.** Second order alone is not
# enough: Heun's first stride, from $\sigma$ = 20,291, leads far past everything, so Heun needs its steps in the right place. And with 50 evaluations
# the walks that solve the ODE well end at 0.6 to 0.7, whatever the solver. Only DDPM, with its dice, gets below. Why?
#
# ### Question 9.C: a perfect solver
#
# *1 minute.*
#
# Somebody gives you a solver without any error. With the network that ships, its digits are
#
# - a) as good as real ones, at the floor,
# - b) bad, since only dice can reach the density of the data,
# - c) as good as the network, and no better,
# - d) at a distance that can be brought as near to 0 as one likes.

# %%
# BEGIN SOLUTION
perfect = "c"
# STUB
# perfect = ...  # "a", "b", "c" or "d"
# END SOLUTION

# %%
lesson09.perfect_solver.check(perfect)

# %% [markdown]
# ## What dice are good for
#
# DDPM rolls dice at each step. In the limit of short strides it follows a *stochastic* differential equation, an **SDE**, and at every $t$ its
# walkers have the same density as those of the ODE. Why pay for noise, then?
#
# Look at noise by itself. Stay at one noise level and take many small steps, uphill along the score, with a little noise $z$ each time:
#
# $$x \leftarrow x + \tfrac{h}{2}\,\nabla\log p_t(x) + \sqrt{h}\,z, \qquad \nabla\log p_t = -\hat\epsilon/\sqrt{1-\bar\alpha_t}.$$
#
# This is **Langevin dynamics**. It leaves the density $p_t$ as it is. And wherever a walker begins, it forgets that, and becomes a sample of $p_t$.
# Two thousand walkers, all started in one corner at t = 200:

# %%
t, dice = 200, seeded(0)
noise = schedule.noise_rate[t]
h = 0.2 * noise**2
x = torch.full((2000, 2), 1.7, dtype=torch.float64)
frames = {0: x}
for k in range(1, 301):
    score = -ask(x, t) / noise
    x = x + h / 2 * score + h.sqrt() * torch.randn(x.shape, generator=dice, dtype=x.dtype)
    frames[k] = x
right = {k: float((frames[k][:, 0] > 0).double().mean()) for k in (5, 40, 300)}
print("on the right side after 5, 40, 300 steps:", right, "(1/2 is right)")
assert abs(right[300] - 0.5) < 0.06

# %% tags=["plumbing"]
figure, axes = panels(4, width=10, height=2.8)
true = signal[t] * oracle.sample(2000, seeded(1)) + noise * torch.randn(
    2000, 2, generator=seeded(2), dtype=torch.float64
)
for axis, (title, points, color) in zip(
    axes,
    [(f"{k} steps", frames[k], COLORS[0]) for k in (5, 40, 300)] + [("exact", true, COLORS[1])],
    strict=True,
):
    axis.scatter(*points.T, s=2, color=color, linewidths=0, alpha=0.6)
    axis.set(xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), aspect="equal")
    axis.set_axis_off()
    axis.set_title(title, color=INK)
show(
    figure,
    alt="Four clouds of points. After 5 Langevin steps they are still in the upper right corner, "
    "after 40 they have spread over half of the ring, after 300 they fill a blurred ring that looks "
    "like the fourth cloud, exact samples at this noise level.",
)

# %% [markdown]
# So **noise forgets**. A step of DDPM is an ODE step with a bit of Langevin in it. And it forgets not only where a walker began, but also the errors
# that were made on the way. Let us spoil the oracle: in heavy noise, $t > 600$, it believes that the noise has pushed all points a little to the
# right, so the walk goes too far to the left. Afterwards it is exact again.

# %%


def spoiled(x, t):
    eps_hat = oracle(x, t)
    return eps_hat + 0.1 * (t > 600)[:, None] * torch.tensor([1.0, 0.0])


shares = {"ODE (DDIM)": [], "with dice (DDPM)": []}
for seed in range(3):
    x_T = torch.randn(2000, 2, generator=seeded(seed), dtype=torch.float64)
    steps = evenly_spaced(T, 200)
    ends = (
        last(ddim(spoiled, schedule, x_T, steps)),
        last(ddpm(spoiled, schedule, x_T, steps, generator=seeded(seed))),
    )
    for row, end in zip(shares.values(), ends, strict=True):
        row.append(float((end[:, 0] > 0).double().mean()))
for name, row in shares.items():
    print(
        f"{name:17s} on the right side: {sum(row) / 3:.3f} (0.5 is right; each of 3 seeds ± 0.011)"
    )
assert max(shares["ODE (DDIM)"]) < 0.42 < 0.45 < min(shares["with dice (DDPM)"])

# %% [markdown]
# The ODE keeps the error to the end, since its paths never cross and nobody changes sides. With dice most of it is forgotten. This is why DDPM
# scored *better* than every solver of the ODE above, with an imperfect network, and why samplers with dice stay in use. The
# downside: repairs take steps. Samplers in between roll a few dice: Euler ancestral, and DDIM with $\eta > 0$.
#
# ## How likely is a point?
#
# The ODE has one more gift. It moves every point of the data to one point of the noise, and back. Where it spreads points apart, density falls; where it
# gathers them, density rises. How fast it spreads is the **divergence** of the slope: how much each component of the slope
# $f$ grows along its own coordinate.
#
# $$\nabla\cdot f = \sum_{d=1}^{D}\frac{\partial f_d}{\partial y_d}, \qquad
# \log p(y_0) = \log \mathcal N(y_\text{max};\, 0,\, \sigma_\text{max}^2 I) + \int_0^{\sigma_\text{max}} \nabla\cdot f\; d\sigma .$$
#
# So: walk a point **up** into the noise, add up the divergence on the way, and ask at the top, where the density is known.

# %% [markdown]
# ### Exercise 9.6: divergence
#
# *Difficulty 2 of 3, 5 minutes.*
#
# Write `my_divergence(f, y)`: `y` is (B, D), `f(y)` is (B, D) too and treats each row by itself. Return (B,), for each row the sum of the
# derivatives of component d with respect to coordinate d. Let torch differentiate: `y = y.detach().requires_grad_()` asks for gradients,
# and `torch.autograd.grad(number, y, retain_graph=True)[0]` is the gradient of one number with respect to all of `y`, (B, D).


# %%
def my_divergence(f, y):
    # BEGIN SOLUTION lesson09.divergence
    ...
    # END SOLUTION


# %%
lesson09.divergence.check(my_divergence)

# %% [markdown]
# ### Exercise 9.7: the log density of a point
#
# *Difficulty 3 of 3, 8 minutes. The one to be proud of.*
#
# Write `my_log_density(slope, divergence, y, sigmas)`:
#
# - `slope(y, sigma)` is (B, D), the right-hand side of the ODE; `divergence(y, sigma)` is its divergence, (B,),
# - `y` is (B, D), the points; `sigmas` is a *rising* list of floats, and its last one is $\sigma_\text{max}$,
# - walk `y` up by Heun's steps, and beside it add up stride × mean of the divergences at both ends of the stride, at the `y` before it and the `y` after it,
# - return $\log p$, (B,), in nats. In D dimensions $\log\mathcal N(y; 0, \sigma^2 I) = -\frac{|y|^2}{2\sigma^2} - \frac D2\log(2\pi\sigma^2)$.


# %%
def my_log_density(slope, divergence, y, sigmas):
    # BEGIN SOLUTION lesson09.log_density
    ...
    # END SOLUTION


# %%
lesson09.log_density.check(my_log_density)

# %% [markdown]
# Now use it: the density of points of our world, beside the exact one. (The walk begins at t = 1, so this is the density of the data with a
# hint of noise, $\sigma = 0.01$.)

# %%
divergence, log_density = (
    own(task, mine)
    for task, mine in (
        (lesson09.divergence, my_divergence),
        (lesson09.log_density, my_log_density),
    )
)


def by_the_ode(points, count):
    steps = karras_spaced(schedule, count)[-2::-1]  # from t = 1 up to T
    step_of = {float(sigma[t]): t for t in steps}

    def slope(y, s):
        return ask(signal[step_of[s]] * y, step_of[s])

    return log_density(
        slope, lambda y, s: divergence(lambda z: slope(z, s), y), points, list(step_of)
    )


points = oracle.sample(60, seeded(3))
first = torch.ones(60, dtype=torch.int64)
truth = oracle.log_density(signal[1] * points, first) + 2 * signal[1].log()
for count in (40, 80, 160, 320):
    error = (by_the_ode(points, count) - truth).abs()
    print(f"{count:3d} steps: wrong by {float(error.mean()):.4f} nats on average")
assert error.mean() < 0.002

# %% tags=["plumbing"]
line = torch.stack([torch.linspace(-3.2, 3.2, 61), torch.full((61,), 0.35)], 1).double()
found = by_the_ode(line, 320).detach()
dense = torch.stack([torch.linspace(-3.2, 3.2, 400), torch.full((400,), 0.35)], 1).double()
ones = torch.ones(400, dtype=torch.int64)
curve = oracle.log_density(signal[1] * dense, ones) + 2 * signal[1].log()
figure, (axis,) = panels(1, width=7, height=2.8)
axis.plot(dense[:, 0], curve, color=GRAY, linewidth=3, label="exact")
axis.plot(line[:, 0], found, "o", color=COLORS[1], markersize=3.5, label="by the ODE")
axis.set(xlabel="x, along the line y = 0.35", ylabel="log density")
axis.legend(frameon=False, labelcolor=INK)
show(
    figure,
    alt="The log density along a line across the ring: two peaks at the clusters on the left and right, a deep "
    "valley between them. Dots computed by the ODE lie on the exact curve, in the valley as well.",
)

# %% [markdown]
# The error falls by 4 with each doubling: second order, again. The points in the valley are ones that the walk would never draw, and even for them
# the ODE knows how unlikely they are.
#
# Pictures have too many dimensions for D derivatives. There one takes **Hutchinson's estimate**: for random $v$ of mean 0 and variance 1,
# $v^\top J v$ has the divergence as its mean, and costs one backward pass. Papers then report **bits per dimension**: how
# many bits a perfect code based on this model spends on each pixel. A pixel of 256 gray levels in $[-1, 1]$ is a box of width $2/256 = 2^{-7}$;
# its probability is about density × width, and its bits are $-\log_2$ of that.

# %% [markdown]
# ### Question 9.D: bits per dimension
#
# *2 minutes.*
#
# A model gives a picture of 28 × 28 = 784 pixels, in $[-1, 1]$, a log density of 1630 nats. How many bits per dimension is that?

# %%
# BEGIN SOLUTION
bits_per_dimension = 4.0
# STUB
# bits_per_dimension = ...  # a number
# END SOLUTION

# %%
lesson09.bits.check(bits_per_dimension)

# %% [markdown]
# ## Recap
#
# - In $y = x_t/\sqrt{\bar\alpha_t}$, sampling follows $dy/d\sigma = \hat\epsilon$. **DDIM is Euler's method** on it.
# - The road bends where $\hat x_0$ moves. Order $p$: the error falls like $N^{-p}$, once strides are short.
# - **Heun** asks twice; **DPM-Solver++** remembers, and asks once. The last step, to $\sigma = 0$, is of first order.
# - **Where the steps are** matters as much as the solver. Look at where your schedule ends before you use a spacing.
# - No solver is better than the network. **Dice forget errors**; the ODE keeps them, and knows densities.
#
# ## Key terms
#
# | what people say | what it means |
# |---|---|
# | NFE | number of function evaluations: how often the network is asked |
# | probability-flow ODE, PF-ODE | $dy/d\sigma = \hat\epsilon$, with the densities of the noising |
# | order of a method | the power with which its error falls as strides get shorter |
# | Euler, `EulerDiscreteScheduler` | DDIM in $y$ and $\sigma$ |
# | DPM++ 2M, `DPMSolverMultistepScheduler` | the step of exercise 9.4 |
# | Karras, `use_karras_sigmas` | the spacing of exercise 9.5 with $\rho = 7$ |
# | Euler a, ancestral | Euler with dice |
# | SDE, Langevin dynamics | walks with noise; at one noise level, and on the way down |
# | bits per dimension, bpd | $-\log_2$ of a picture's probability, per pixel |
#
# Their names in `diffusers`, with all settings, are in [docs/diffusers.md](../docs/diffusers.md).
#
# ## Claims, measured
#
# <!-- claims -->
#
# <details><summary>Further reading</summary>
#
# - Song and others: *Score-Based Generative Modeling through Stochastic Differential Equations*, 2021, arXiv 2011.13456. ODE, SDE and likelihoods.
# - Karras and others: *Elucidating the Design Space of Diffusion-Based Generative Models*, 2022, arXiv 2206.00364. Heun, the spacing, and what dice do.
# - Lu and others: *DPM-Solver++*, 2022, arXiv 2211.01095. Algorithm 2 is exercise 9.4.
# - Grathwohl and others: *FFJORD*, 2019, arXiv 1810.01367. Densities by an ODE, Hutchinson's estimate.
# - Xu and others: *Restart Sampling for Improving Generative Processes*, 2023, arXiv 2306.14878. Errors that dice forget.
#
# </details>
#
# ## What you can do now
#
# An hour ago sampling was a recipe of fifty steps. Now you know the equation behind it, and can solve it three ways, measure how good each is,
# and place ten steps where they count. You know when to roll dice. And you can ask a diffusion model how likely a point is, and get the exact
# answer.
#
# <!-- navigation -->
