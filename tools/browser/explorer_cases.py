"""Every explorer, as one cell of a notebook shows it: the tests and the benchmark go over these.

`DRAGGED` names the slider that each is dragged by. `ALONE` holds those that also become a page of
their own.
"""

SETUP = """\
import torch
from tutorial_lib import datasets, explorers, oracles, schedules
glyphs = datasets.load("glyphs", size=28)
linear, cosine = schedules.linear_schedule(), schedules.cosine_schedule()
"""

CASES = {
    "denoiser": """\
memory = oracles.DatasetOracle(linear, glyphs.images[:40])
explorers.DenoiserExplorer(memory, linear, glyphs.images[38:44])""",
    "denoiser-points": """\
means, ones = torch.tensor([[-1.0, 0.5], [1.0, 1.0], [0.0, -1.2]]), torch.ones(3)
mixture = oracles.GaussianMixtureOracle(linear, means, ones / 20, ones)
points = mixture.sample(300, torch.Generator().manual_seed(0)).float()
memory = oracles.DatasetOracle(linear, points[:50])
explorers.DenoiserExplorer(memory, linear, points, oracle=mixture)""",
    "editing": """\
shapes = oracles.DatasetOracle(cosine, glyphs.images[:60])
explorers.EditingExplorer(shapes, cosine, glyphs.images[:5], steps=8)""",
    "guidance": """\
from tutorial_lib.metrics import digit_features as features
chosen = torch.cat([(glyphs.labels == c).nonzero()[:4, 0] for c in range(10)])
real, asked = glyphs.images[chosen], glyphs.labels[chosen]
drawn = {s: (real * s).clamp(-1, 1) + 0.1 for s in (0.2, 0.5, 1.0, 2.0, 3.0)}
explorers.GuidanceExplorer(drawn, asked, judge=features.load_digit_classifier())""",
    "schedule": """\
mine = schedules.cosine_schedule(offset=0.1)
explorers.ScheduleExplorer(glyphs.images[3], {"mine": mine}, t=250)""",
    "forward": """\
both = {"linear": linear, "cosine": cosine}
explorers.ForwardExplorer(glyphs.images[:12], both)""",
    "embedding": "explorers.EmbeddingExplorer()",
    "flows": """\
angles = torch.arange(8, dtype=torch.float64) * torch.pi / 4
ring = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
mixture = oracles.GaussianMixtureOracle(linear, ring, torch.full((8,), 0.02), torch.ones(8))
explorers.FlowExplorer(mixture, pairs=200)""",
    "receptive": """\
from tutorial_lib.networks import unet
nets = {"two levels": unet.TwoLevelUNet(1, width=8), "TinyUNet": unet.TinyUNet(1, (8, 16))}
for parameter in nets["TinyUNet"].parameters():
    torch.nn.init.normal_(parameter, std=0.2)
explorers.ReceptiveFieldExplorer(nets, datasets.load("glyphs", size=20).images[3])""",
    "playground": "explorers.Playground()",
    "solvers": """\
angles = torch.arange(8, dtype=torch.float64) * torch.pi / 4
ring = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
mixture = oracles.GaussianMixtureOracle(linear, ring, torch.full((8,), 0.05), torch.ones(8))
explorers.SolverExplorer(mixture)""",
    "trajectory": """\
memory = oracles.DatasetOracle(linear, glyphs.images[:40])
fewer = {"steps": (5, 10, 20), "etas": (0.0, 1.0), "ddpm_steps": 100}
explorers.TrajectoryExplorer(memory, linear, (2, 1, 28, 28), **fewer)""",
    "words": """\
data, dice = datasets.scenes(2, seed=5), torch.Generator().manual_seed(0)
left = torch.linspace(1, 0, 9) ** torch.tensor([[1.0], [2.0]])  # of the noise
walks = {}
for image, caption in zip(data.images, data.vocabulary.decode(data.words)):
    noise = torch.rand(2, 2, 9, 3, 64, 64, generator=dice) * 2 - 1
    pictures = torch.lerp(image.expand_as(noise), noise, left[:, :, None, None, None])
    maps = torch.rand(2, 2, 9, len(caption.split()), 16, 16, generator=dice)
    walks[caption] = explorers.SentenceWalks(pictures, maps)
nine = {"scales": (1.0, 2.0), "seeds": (0, 1), "timesteps": range(1000, 100, -100)}
explorers.WordsExplorer(walks, **nine)""",
}
"""A cell's text; its last line is the explorer. It runs after `SETUP`."""

DRAGGED = {
    "denoiser": "timestep t",
    "denoiser-points": "timestep t",
    "editing": "picture",
    "guidance": "guidance scale s",
    "schedule": "timestep t",
    "forward": "timestep t",
    "embedding": "timestep t",
    "flows": "time",
    "receptive": "output pixel",
    "playground": "timestep t",
    "solvers": "evaluations",
    "trajectory": "timestep t",
    "words": "step",
}

ALONE = (
    "denoiser",
    "denoiser-points",
    "editing",
    "guidance",
    "schedule",
    "forward",
    "embedding",
    "flows",
    "receptive",
    "solvers",
    "trajectory",
    "words",
)


def make(name: str):
    """The explorer of a case, here and now, without a notebook."""
    scope: dict = {}
    *lines, last = CASES[name].splitlines()
    exec("\n".join([SETUP, *lines, f"explorer = {last}"]), scope)
    return scope["explorer"]
