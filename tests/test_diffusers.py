"""docs/diffusers.md is true: its blocks run in order and give the results it states."""

import ast
import re
from pathlib import Path

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch.testing import assert_close

from tutorial_lib.samplers import ddim, evenly_spaced, karras_spaced, last

DOC = Path(__file__).resolve().parents[1] / "docs" / "diffusers.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOC.read_text(encoding="utf-8"), re.M | re.S)
pytestmark = [
    pytest.mark.plain_errors,
    # diffusers looks for packages that it could use, and some of those warn
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the blocks leave, run one after the other in an empty folder."""
    found: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("doc"))
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"{DOC.name}, block {number + 1}", "exec"), found)
    return found


def test_a_checkpoint_of_ours_draws_the_same_with_their_scheduler(names: dict):
    said = re.search(
        r"It is below ([\d.]+), less than one of 255 gray levels \(0.008\)", DOC.read_text()
    )
    assert said
    assert names["ours"].std() > 0.5  # digits, not a blank
    assert_close(names["theirs"], names["ours"], rtol=0, atol=float(said[1]))


def test_with_other_counts_the_same_is_drawn_on_the_shorter_schedule(names: dict):
    assert_close(names["theirs_15"], names["ours_15"], rtol=0, atol=0.005)
    assert (names["ours_15"] - names["ours"]).abs().max() > 0.1, "another walk than that of 20"


@pytest.mark.parametrize("count", [15, 30, 60, 50])
def test_their_stride_is_whole_where_their_steps_are_not(names: dict, count: int):
    """The reason that the document gives, seen in the steps, and the differences that it states."""
    checkpoint = names["checkpoint"]
    x_T = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        trained_betas=checkpoint.schedule.beta.tolist(),
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    scheduler.set_timesteps(count)
    walk = evenly_spaced(1000, count)
    assert [int(t) + 1 for t in scheduler.timesteps] == walk[:-1], "the same list of steps"
    theirs, goes_to = x_T, []
    stride = 1000 // count
    for t in walk[:-1]:
        with torch.no_grad():
            asked = checkpoint.network(theirs, torch.full((8,), t))
        theirs = scheduler.step(asked, t - 1, theirs, return_dict=False)[0]
        goes_to.append(t - stride)
    # a walk of ours that asks at the same steps, and goes where they go
    ours = x_T
    for t, s in zip(walk[:-1], goes_to, strict=True):
        ours = last(ddim(checkpoint.model, checkpoint.schedule, ours, [t, s]))
    assert_close(theirs, ours, rtol=0, atol=0.005)
    agree = goes_to == walk[1:]
    assert agree == (1000 % count == 0)
    right = last(ddim(checkpoint.model, checkpoint.schedule, x_T, walk))
    said = re.search(rf"([\d.]+) with {count}\b", DOC.read_text())
    assert said
    assert (theirs - right).abs().max().item() == pytest.approx(float(said[1]), rel=0.1, abs=2e-3)


def test_three_solvers_walk_as_theirs(names: dict):
    said = re.search(r"All three are below ([\d.]+)\.", DOC.read_text())
    assert said
    assert list(names["differences"]) == ["euler", "heun", "dpm_solver"]
    assert max(names["differences"].values()) < float(said[1])
    assert names["walked"].std() > 0.5


ROW = re.compile(r"^\| `[^|]*\| (?P<classes>`\w+Scheduler`[^|]*)\| (?P<settings>[^|]*)\|$", re.M)


def test_the_table_of_samplers_names_what_diffusers_has():
    """Each scheduler exists, and keeps each setting that stands beside it."""
    import diffusers

    rows = [match.groupdict() for match in ROW.finditer(DOC.read_text(encoding="utf-8"))]
    found = {}
    for row in rows:
        settings = dict(re.findall(r"`(\w+)=([^`]+)`", row["settings"]))
        values = {name: ast.literal_eval(text) for name, text in settings.items()}
        for name in re.findall(r"`(\w+Scheduler)`", row["classes"]):
            scheduler = getattr(diffusers, name)(**values)
            assert {key: scheduler.config[key] for key in values} == values, name
            found.setdefault(name, []).append(values)
    assert len(found) == 8
    assert len(found["DPMSolverMultistepScheduler"][0]) == 4


def test_where_their_spacing_of_karras_ends(names: dict):
    linear, usual = names["linear"], names["usual"]
    sigma = (linear.noise_rate / linear.signal_rate).tolist()
    ends = {EulerDiscreteScheduler: 50, DPMSolverMultistepScheduler: 1}
    ours = [sigma[t] for t in karras_spaced(linear, 20)]
    for scheduler, end_step in ends.items():
        peer = scheduler(**usual, use_karras_sigmas=True)
        peer.set_timesteps(20)
        theirs = [float(s) for s in peer.sigmas]
        assert theirs[0] == pytest.approx(sigma[1000], rel=1e-3)
        assert theirs[-1] == 0
        assert theirs[-2] == pytest.approx(sigma[end_step], rel=1e-3)
        assert len(ours) == len(theirs)
        near = zip(ours[:14], theirs[:14], strict=True)  # further down steps lie far apart
        assert end_step > 1 or all(a == pytest.approx(b, rel=0.05) for a, b in near)


def test_a_network_of_theirs_trained_by_us_draws_the_same_in_their_pipeline(names: dict):
    pipeline, run = names["pipeline"], names["run"]
    assert len(run.losses) == 20
    x_T = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(
        batch_size=2,
        num_inference_steps=10,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images
    ours = last(ddim(run.model, run.schedule, x_T, evenly_spaced(1000, 10)))
    expected = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert expected.std() > 0.1
    assert_close(torch.from_numpy(pictures), expected, rtol=0, atol=1e-3)
    x_t, t = torch.randn(2, 3, 16, 16), torch.tensor([1, 1000])
    with torch.no_grad():
        # the one lies channels last in memory, the other does not: that rounds differently
        assert_close(names["model"](x_t, t), run.ema_network(x_t, t), rtol=0, atol=1e-5)
    assert names["drawn"].isfinite().all()
