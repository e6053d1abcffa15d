"""Configs: invalid fields are named; strings and NumPy numbers are converted."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from training_cases import SETTINGS

from tutorial_lib.schedules import cosine_schedule
from tutorial_lib.training import TrainConfig
from tutorial_lib.training.config import weight_of


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "schedule .* did you mean 'cosine'"),
        ({"target": "epsilon"}, "target must be one of eps, v, x0, velocity; got 'epsilon'"),
        ({"weight": "min-snr"}, "weight .* did you mean 'min_snr'"),
        ({"step_sampler": "stratifed"}, "step_sampler .* did you mean 'stratified'"),
        ({"optimizer": "adam"}, "optimizer must be one of muon, adamw; got 'adam'"),
        ({"warmup": 100}, r"warmup must be in \[0, 1\], got 100"),
        ({"muon_lr": -0.1}, "muon_lr must be in .* got -0.1"),
        ({"decay": "cos"}, "decay must be one of .* got 'cos'"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda, mps; got 'gpu'"),
        ({"precision": "fp8"}, "precision must be one of .* got 'fp8'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": None}, "steps and max_seconds must not both be None"),
        ({"max_seconds": 0.0}, "max_seconds must be .* got 0.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"lr": float("nan")}, "lr must be in .* got nan"),
        ({"lr": -1.0}, "lr must be in .* got -1.0"),
        ({"ema": 1.5}, r"ema must be in \[0, 1\], got 1.5"),
        ({"label_drop": -0.1}, "label_drop must be .* got -0.1"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**32}, r"seed must be below 2\^32, got 4294967296"),
        ({"seed": True}, "seed must be an int, got bool True"),
        ({"steps": True}, "steps must be an int, got bool True"),
        ({"keep": False}, "keep must be an int, got bool False"),
        ({"blocks": "2"}, "blocks must be an int, got str '2'"),
        ({"bottom_blocks": 0}, "bottom_blocks must be at least 1, got 0"),
        ({"lr": True}, "lr must be a number, got bool True"),
        ({"conditional": "yes"}, "conditional must be True or False, got str 'yes'"),
        ({"resume": 1}, "resume must be True or False, got int 1"),
        ({"progress": None}, "progress must be True or False, got NoneType None"),
        ({"out": 3}, "out must be a path, got int 3"),
        ({"root": b"data"}, "root must be a path, got bytes b'data'"),
        ({"widths": ()}, "widths must be .* got tuple"),
        ({"widths": (8, 0)}, "widths must be at least 1, got 0"),
        ({"dataset": ""}, "dataset must be a name"),
    ],
)
def test_config_names_the_invalid_field(settings: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        TrainConfig(**{**SETTINGS, **settings})


@pytest.mark.plain_errors
def test_config_converts_strings_to_paths_and_numpy_numbers_to_plain_ones() -> None:
    given = {"steps": np.int64(3), "lr": np.float32(0.5), "warmup": 0, "widths": (np.int32(8),)}
    config = TrainConfig(out="runs/a", root="data", **given)  # type: ignore[arg-type]
    assert (config.out, config.root) == (Path("runs/a"), Path("data"))
    assert TrainConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    assert [type(v) for v in (config.steps, config.lr, config.warmup)] == [int, float, float]
    assert TrainConfig(seed=2**32 - 1).seed == 2**32 - 1


def test_min_snr_gamma_is_where_the_weight_stops_growing():
    schedule, t = cosine_schedule(), torch.arange(1, 1001)
    snr = schedule.alpha_bar[1:] / (1 - schedule.alpha_bar[1:])
    for gamma in (0.5, 2.0, 5.0):
        weight = weight_of(TrainConfig(min_snr_gamma=gamma))
        assert weight is not None
        expected = torch.minimum(snr, torch.tensor(gamma)) / snr
        assert (weight(schedule, t) - expected).abs().max() < 1e-6
    assert weight_of(TrainConfig(weight="none")) is None
    with pytest.raises(ValueError, match="min_snr_gamma"):
        TrainConfig(min_snr_gamma=0.0)


@pytest.mark.plain_errors
@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["large", "low", "huge"])
@pytest.mark.parametrize("field", dataclasses.fields(TrainConfig), ids=lambda field: field.name)
def test_numbers_beyond_all_floats_are_refused_in_every_field(
    field: dataclasses.Field, value: int
) -> None:
    """Also where a field is not a number."""
    given = (value,) if field.name == "widths" else value
    with pytest.raises((ValueError, TypeError), match=f"^{field.name} must be ") as caught:
        TrainConfig(**{field.name: given})  # pyright: ignore[reportArgumentType]
    assert len(str(caught.value)) < 250
