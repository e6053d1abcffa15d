"""The state of a run: everything the next training step depends on, in one sealed file.

``state/step-NNNNNNNN.safetensors`` in the run folder carries its own checksum, see ``_sealed``, and
appears whole or not at all: a crash at any moment leaves the states before it whole. The newest two
are kept, so damage to one costs only the steps since the one before.
"""

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tutorial_lib import _sealed
from tutorial_lib.checkpoints import CheckpointError, misfits
from tutorial_lib.networks.wrappers import without_wrappers
from tutorial_lib.training.run_folder import RunFolder

KEPT = 2
"""How many states stay: the newest, and one to fall back on."""

FORMAT = 1


class State(NamedTuple):
    """What a state file holds.

    Attributes:
        path: the file.
        tensors: by name.
        facts: everything else, as JSON holds it.
    """

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_state(
    run: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Path:
    """Writes the state of the run in folder ``run`` after ``step`` steps; removes older ones.

    Raises:
        CheckpointError: it cannot be written (no space, no permission); those before it are whole.
    """
    folder = RunFolder(run)
    path = folder.state(step)
    try:
        folder.states.mkdir(exist_ok=True)
        _sealed.write(path, tensors, {"format": FORMAT, "step": step, **facts})
    except OSError as error:
        with contextlib.suppress(OSError):  # not where others are in it
            folder.states.rmdir()
        before = [found.name for found in folder.state_files() if found != path]
        kept = f"; {before[-1]} is whole" if before else ""
        raise CheckpointError(f"cannot write {path}: {error.strerror}{kept}") from error
    for old in [*folder.state_files()[:-KEPT], *folder.states.glob("*.tmp")]:
        with contextlib.suppress(OSError):  # it takes up space, but does no harm
            old.unlink()
    return path


def newest_state(run: Path) -> State | None:
    """The newest whole state of the run in folder ``run``; None if there are no states at all.

    Warns of each newer state; the message says how it is damaged.

    Raises:
        CheckpointError: there are states, but all are damaged.
    """
    damage = []
    for path in reversed(RunFolder(run).state_files()):
        try:
            state = read_state(path)
        except CheckpointError as error:
            damage.append(str(error))
            continue
        for message in damage:
            warnings.warn(f"{message}; continuing from {path.name}", stacklevel=2)
        return state
    if damage:
        raise CheckpointError(f"no state of {run} can be used: {'; '.join(damage)}")
    return None


def read_state(path: Path) -> State:
    """The state in one file, if it is whole.

    Raises:
        CheckpointError: it cannot be read, is not a state, or is not what was written.
    """
    try:
        tensors, facts = _sealed.read(path)
    except _sealed.SealError as error:
        raise CheckpointError(str(error)) from error
    if facts.get("format") != FORMAT:
        found = facts.get("format")
        raise CheckpointError(f"{path} has format {found}; this version reads {FORMAT}")
    return State(path, tensors, facts)


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """What the optimizers remember about each parameter, by name."""
    return {
        f"optimizer.{i}.{number}.{key}": torch.as_tensor(value)
        for i, optimizer in enumerate(optimizers)
        for number, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
    }


def fill_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    """The reverse of ``optimizer_tensors``, for optimizers of the same parameters."""
    for i, optimizer in enumerate(optimizers):
        memory: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimizer.{i}."):
                _, _, number, key = name.split(".", 3)
                memory.setdefault(int(number), {})[key] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": memory, "param_groups": groups})
        for parameter, entries in optimizer.state.items():
            for key, value in entries.items():
                if value.shape == parameter.shape:  # strides as before, so the same kernels
                    entries[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def module_tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers, by name."""
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def fill_module(state: State, prefix: str, module: nn.Module) -> None:
    """The reverse of ``module_tensors``.

    Raises:
        CheckpointError: the names or shapes are not those of ``module``.
    """
    own = {k.removeprefix(prefix): v for k, v in state.tensors.items() if k.startswith(prefix)}
    plain = without_wrappers(own, module.state_dict())  # earlier versions kept a wrapper's names
    own = {plain[name]: tensor for name, tensor in own.items()}
    wrong = misfits(module.state_dict(), own)
    if wrong:
        name = type(module).__name__
        raise CheckpointError(f"{state.path} is for another network than this {name}: {wrong[0]}")
    module.load_state_dict(own)
