"""Wrong arguments of the mathematics: whatever is wrong, the message names it."""

import inspect
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.draws import normal, seeded
from tutorial_lib import editing, flows, forward, guidance, losses, oracles, predictions, schedules
from tutorial_lib._validate import UserError
from tutorial_lib.metrics import distances
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced
from tutorial_lib.samplers.timesteps import respace

pytestmark = [
    pytest.mark.plain_errors,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of torch, about odd tensors
]
SCHEDULE = schedules.linear_schedule(20)
X, EPS = normal(4, 3), normal(4, 3, seed=1)
T, TIME = torch.tensor([1, 5, 10, 20]), torch.tensor([0.1, 0.2, 0.5, 0.9])
MEANS, VARIANCES = torch.zeros(2, 3), torch.ones(2)
LABELS = torch.tensor([0, 1, 0, 1])


def model(x_t: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
    return 0.1 * x_t


def twice(x: Tensor) -> Tensor:
    return 2 * x


def halved(y: Tensor) -> Tensor:
    return y / 2


def weight(schedule: schedules.NoiseSchedule, t: Tensor) -> Tensor:
    return torch.ones(len(t))


S, XT, M = {"schedule": SCHEDULE}, {"x_t": X, "t": T}, {"model": model}
JUMP = {**S, "t": T, "x0": X, "eps": EPS}
MIXTURE = {**S, "means": MEANS, "variances": VARIANCES, "weights": VARIANCES}
REAL = {"real": X, "samples": EPS}
DRAW = {"generator": seeded(0)}

CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    f"{function.__module__.rpartition('.')[2]}.{function.__name__}": (function, arguments)
    for function, arguments in [
        (schedules.NoiseSchedule, {"alpha_bar": SCHEDULE.alpha_bar}),
        (schedules.from_betas, {"beta": [0.1, 0.2]}),
        (schedules.linear_schedule, {"num_steps": 9, "beta_start": 0.1, "beta_end": 0.2}),
        (schedules.quadratic_schedule, {"num_steps": 9, "beta_start": 0.1, "beta_end": 0.2}),
        (schedules.cosine_schedule, {"num_steps": 9, "offset": 0.1, "max_beta": 0.9}),
        (forward.diffuse, JUMP),
        (forward.diffuse_stepwise, {**S, "x0": X, "t": T, **DRAW}),
        (forward.predict_x0, {**S, **XT, "eps_hat": EPS}),
        (forward.predict_eps, {**S, **XT, "x0_hat": EPS}),
        (forward.posterior, {**S, **XT, "x0": X}),
        (predictions.velocity, JUMP),
        (predictions.eps_from_v, {**S, "v_model": model}),
        (predictions.eps_from_x0, {**S, "x0_model": model}),
        (predictions.eps_from_flow, {**S, "flow_model": model}),
        (predictions.clip_x0, {**S, **M, "low": -1.0, "high": 1.0}),
        (predictions.as_eps_model, {**S, "network": model, "target": "eps", "condition": LABELS}),
        (losses.epsilon_losses, {**JUMP, **M}),
        (
            losses.epsilon_loss,
            {**S, **M, **DRAW, "x0": X, "sampler": losses.UniformSteps(20), "weight": weight},
        ),
        (losses.UniformSteps, {"num_steps": 20}),
        (losses.StratifiedSteps, {"num_steps": 20}),
        (losses.v_weight, {**S, "t": T}),
        (losses.x0_weight, {**S, "t": T}),
        (losses.velocity_weight, {**S, "t": T}),
        (losses.TimeSteps, {**S, "times": flows.uniform_times}),
        (losses.min_snr_weight, {**S, "t": T, "gamma": 5.0}),
        (losses.p2_weight, {**S, "t": T, "k": 1.0, "gamma": 1.0}),
        (ddpm, {**S, **M, **DRAW, "x_T": X, "timesteps": [20, 9, 0], "variance": "beta"}),
        (ddim, {**S, **M, **DRAW, "x_T": X, "timesteps": [20, 9, 0], "eta": 1.0}),
        (evenly_spaced, {"num_steps": 20, "count": 5}),
        (respace, {**S, **M, "timesteps": [20, 9, 0]}),
        (
            editing.edit,
            {**S, **M, **DRAW, "x0": X, "timesteps": [20, 9, 0], "strength": 1.0, "sampler": ddim},
        ),
        (
            editing.inpaint,
            {
                **S,
                **M,
                **DRAW,
                "x_T": X,
                "timesteps": [20, 9, 0],
                "sampler": ddim,
                "known": EPS,
                "mask": torch.ones(3, dtype=torch.bool),
                "resamplings": 2,
            },
        ),
        (
            editing.solve_linear,
            {
                **S,
                **M,
                **DRAW,
                "x_T": X,
                "timesteps": [20, 9, 0],
                "sampler": ddim,
                "y": EPS,
                "A": twice,
                "scale": 1.0,
            },
        ),
        (editing.consistent, {**S, **M, "y": EPS, "A": twice, "back": halved}),
        (
            guidance.drop_condition,
            {"condition": LABELS, "p": 0.5, "no_condition": 2, **DRAW},
        ),
        (guidance.drop_labels, {"labels": LABELS, "p": 0.5, "num_classes": 2, **DRAW}),
        (guidance.labeled, {**S, "network": model, "target": "eps"}),
        (guidance.condition, {**M, "condition": LABELS}),
        (guidance.guided, {"conditional": model, "unconditional": model, "scale": 2.0}),
        (guidance.guide, {**M, "condition": LABELS, "scale": 2.0, "no_condition": 2}),
        (guidance.LabeledMixture, {**MIXTURE, "labels": torch.tensor([0, 1])}),
        (oracles.GaussianMixtureOracle, MIXTURE),
        (oracles.DatasetOracle, {**S, "data": X, "chunk_size": 4}),
        (flows.straight_path, {"x0": X, "time": TIME, "eps": EPS}),
        (flows.straight_velocity, {"x0": X, "eps": EPS}),
        (flows.predict_x0, {"x": X, "time": TIME, "velocity": EPS}),
        (flows.predict_eps, {"x": X, "time": TIME, "velocity": EPS}),
        (flows.times_of, S),
        (flows.schedule_through, {"times": [0.9, 0.5, 0.0]}),
        (flows.denoiser_from_flow, {**S, **M}),
        (flows.flow_from_denoiser, {**S, **M}),
        (flows.euler, {**M, "x": X, "times": [1.0, 0.5, 0.0]}),
        (flows.heun, {**M, "x": X, "times": [1.0, 0.5, 0.0]}),
        (flows.straightness, {**M, "x": X, "times": [1.0, 0.5, 0.0]}),
        (flows.reflow_pairs, {**M, "noise": X, "times": [1.0, 0.5, 0.0]}),
        (flows.flow_losses, {**M, "x0": X, "time": TIME, "eps": EPS, "condition": LABELS}),
        (flows.flow_loss, {**M, "x0": X, "time": TIME, "eps": EPS, "condition": LABELS}),
        (flows.uniform_times, {"count": 3, "device": "cpu", **DRAW}),
        (flows.logit_normal_times, {"count": 3, "mean": 0.0, "std": 1.0, "device": "cpu", **DRAW}),
        (distances.frechet_distance, {"features_a": X, "features_b": EPS}),
        (distances.kernel_distance, {"features_a": X, "features_b": EPS}),
        (distances.precision_recall, {**REAL, "neighbors": 2}),
        (distances.nearest_neighbors, {"samples": X, "train": EPS, "count": 2}),
        (
            distances.real_floor,
            {
                "distance": distances.frechet_distance,
                "real": X,
                "sample_count": 2,
                "reference_count": 2,
                "repeats": 2,
                **DRAW,
            },
        ),
        (
            distances.bootstrap_error,
            {"measure": distances.frechet_distance, **REAL, "repeats": 2, **DRAW},
        ),
    ]
}
"""Every function with a valid value for each of its arguments."""

ODD: dict[str, Any] = {
    "an int": 3,
    "text": "x",
    "None": None,
    "a list": [1.0, "x"],
    "an object": object(),
    "true": True,
    "complex": X + 0j,
    "whole": X.long(),
    "eight bits": X.to(torch.float8_e4m3fn),
    "sparse": X.to_sparse(),
    "meta": X.to("meta"),
    "sparse steps": T.to_sparse(),
    "meta steps": T.to("meta"),
    "other shape": normal(4, 2, 2),
    "no axis": torch.tensor(1.0),
    "empty": torch.zeros(0, 3),
    "not a number": X * torch.nan,
}


def run(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    result = function(**arguments)
    return deque(result, maxlen=1) if isinstance(result, Iterator) else result


def complaint(function: Callable[..., Any], arguments: dict[str, Any]) -> str | None:
    """What a call is refused with; None where it is not. No other error is a refusal."""
    try:
        run(function, arguments)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", CALLS)
def test_the_valid_arguments_are_valid_and_complete(name: str) -> None:
    function, arguments = CALLS[name]
    run(function, arguments)
    assert set(arguments) == set(inspect.signature(function).parameters)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_named(name: str, odd: str) -> None:
    function, arguments = CALLS[name]
    for parameter in arguments:
        said = complaint(function, {**arguments, parameter: ODD[odd]})
        if said is not None:  # what is odd for one argument is right for another
            assert parameter in said
            assert said.isprintable(), "more than one line"


HUGE = torch.full((4, 3), 3e38)
OVERFLOWS: dict[str, Callable[[], Any]] = {
    "predict_x0": lambda: forward.predict_x0(SCHEDULE, HUGE, T, -HUGE),
    "predict_eps": lambda: forward.predict_eps(SCHEDULE, HUGE, T, -HUGE),
    "epsilon_losses": lambda: losses.epsilon_losses(model, SCHEDULE, HUGE / 2, T, HUGE / 2),
    "epsilon_loss": lambda: losses.epsilon_loss(model, SCHEDULE, HUGE / 2),
    "nearest_neighbors": lambda: distances.nearest_neighbors(HUGE, -HUGE),
}


@pytest.mark.parametrize("name", OVERFLOWS)
def test_numbers_that_overflow_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"(must be smaller|too large for a loss).*overflow"):
        OVERFLOWS[name]()
