"""The state of a run: all that the next training step depends on, in one file that checks itself.

``state/step-NNNNNNNN.safetensors`` in the run folder holds the tensors; its header holds the
other facts as JSON, and a checksum over every byte of the file. It is written beside its place,
then moved into it: a crash at any moment leaves the states before it whole. The newest two are
kept, so one that the disk has damaged costs the steps since the one before, and no more.
"""

import contextlib
import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from tutorial_lib import _files
from tutorial_lib.checkpoints import CheckpointError, is_pickle, misfits, pickle_message

FOLDER = "state"
"""The folder of the states, inside that of the run."""

KEPT = 2
"""How many states stay: the newest, and one to fall back on."""

FORMAT = 1
_ZEROS = b"0" * 64  # where the checksum stands in the header, while it is being computed


class State(NamedTuple):
    """What a state file holds.

    Attributes:
        path: the file.
        tensors: by name.
        facts: all that is no tensor, as JSON holds it.
    """

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_state(
    run: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Path:
    """Writes the state of the run in folder ``run`` after ``step`` steps; removes older ones.

    Raises:
        CheckpointError: it cannot be written (no space, no right to); those before it are whole.
    """
    folder = run / FOLDER
    path = folder / f"step-{step:08d}.safetensors"
    # a copy each: tied weights share their memory, which safetensors does not write
    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    said = json.dumps({"format": FORMAT, "step": step, **facts})
    header = {"facts": said, "sha256": _ZEROS.decode()}
    content = safetensors.torch.save(copies, metadata=header)
    head, body = _split(content)
    sealed = head.replace(_ZEROS, _checksum(head, body).encode(), 1)
    try:
        folder.mkdir(exist_ok=True)
        _files.write_whole(path, sealed + bytes(body))
    except OSError as error:
        before = [found.name for found in _states(run) if found != path]
        kept = f"; {before[-1]} is whole" if before else ""
        raise CheckpointError(f"cannot write {path}: {error.strerror}{kept}") from error
    for old in [*_states(run)[:-KEPT], *folder.glob("*.tmp")]:
        with contextlib.suppress(OSError):  # it takes room, and does no harm
            old.unlink()
    return path


def newest_state(run: Path) -> State | None:
    """The newest state of the run in folder ``run`` that is whole; None where there is none at all.

    Warns of each that is damaged, naming it.

    Raises:
        CheckpointError: there are states, and every one is damaged.
    """
    damage = []
    for path in reversed(_states(run)):
        try:
            state = read_state(path)
        except CheckpointError as error:
            damage.append(str(error))
            continue
        for message in damage:
            warnings.warn(f"{message}; going on from {path.name}", stacklevel=2)
        return state
    if damage:
        raise CheckpointError(f"no state of {run} can be used: {'; '.join(damage)}")
    return None


def read_state(path: Path) -> State:
    """The state in one file, if it is whole.

    Raises:
        CheckpointError: it cannot be read, is no state, or not what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if is_pickle(content):
        raise CheckpointError(pickle_message(path))
    try:
        head, body = _split(content)
        header = json.loads(head[8:])["__metadata__"]
        stated = str(header["sha256"])
        facts = json.loads(header["facts"])
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: its header cannot be read") from error
    if _checksum(head.replace(stated.encode(), _ZEROS, 1), body) != stated:
        raise CheckpointError(f"{path} is damaged: its checksum is not what its header says")
    if facts["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {facts['format']}; this version reads {FORMAT}")
    return State(path, safetensors.torch.load(content), facts)


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """What the optimizers remember of each parameter, by name."""
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
                if value.shape == parameter.shape:  # laid out in memory as it was: same kernels
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
    wrong = misfits(module.state_dict(), own)
    if wrong:
        name = type(module).__name__
        raise CheckpointError(f"{state.path} is for another network than this {name}: {wrong[0]}")
    module.load_state_dict(own)


def _states(run: Path) -> list[Path]:
    """The state files of a run, oldest first."""
    found = (run / FOLDER).glob("step-*.safetensors")
    return sorted(path for path in found if re.fullmatch(r"step-\d+", path.stem))


def _split(content: bytes) -> tuple[bytes, memoryview]:
    """The header of a safetensors file with its length before it, and what follows it."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[:end], memoryview(content)[end:]


def _checksum(head: bytes, body: memoryview) -> str:
    digest = hashlib.sha256(head)
    digest.update(body)
    return digest.hexdigest()
