"""Several processes that train one network: torch.distributed, and what each rank has to know.

``torchrun`` starts the processes and tells each its rank. Every rank draws the same random numbers
for the whole batch and works on its own share; the gradients are averaged. So the result is that
of one process, except for the order in which numbers are added.
"""

import contextlib
import datetime
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tutorial_lib._validate import InvalidValueError, UserError
from tutorial_lib.hardware import tuning

PATIENCE = datetime.timedelta(minutes=10)
"""How long a rank waits for the others: longer than a download, saving or sampling takes."""


PORT = 29500
"""Where processes on several machines meet, in the command that resumes their run."""

T = TypeVar("T")


class ParallelError(UserError, RuntimeError):
    """The processes of a run have lost touch with each other."""


class Ranks:
    """The processes of one run, seen from one of them. A run in one process is rank 0 of 1.

    Args:
        rank: the number of this process, 0 for the one that writes the files.
        count: how many there are.
        device: where this process computes.
        on_machine: the number of this process among those of its machine.
    """

    def __init__(
        self,
        rank: int = 0,
        count: int = 1,
        device: torch.device | str = "cpu",
        *,
        on_machine: int = 0,
    ) -> None:
        self.rank, self.count, self.device = rank, count, torch.device(device)
        self.on_machine = on_machine

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This rank's part of ``batch`` (B, ...), in order: (B / count, ...)."""
        size = len(batch) // self.count
        return batch[self.rank * size : (self.rank + 1) * size]

    def wrap(self, network: nn.Module) -> nn.Module:
        """``network``, whose gradients are averaged over the ranks where there are several.

        All ranks then have the weights of rank 0.
        """
        if self.count == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices)

    def gather(self, part: Tensor) -> Tensor:
        """The parts (B, ...) of all ranks, one after the other: (count B, ...)."""
        if self.count == 1:
            return part
        parts = [torch.empty_like(part, device=self.device) for _ in range(self.count)]
        dist.all_gather(parts, part.to(self.device).contiguous())
        return torch.cat(parts)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the ranks, entry by entry."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.count
        return values

    def largest(self, *values: float) -> list[float]:
        """The largest over the ranks of each value; the same on all ranks."""
        if self.count == 1:
            return list(values)
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        together = torch.tensor(values, dtype=wide, device=self.device)
        dist.all_reduce(together, dist.ReduceOp.MAX)
        return together.tolist()

    def all(self, holds: bool) -> bool:
        """Whether ``holds`` is true on every rank."""
        return not self.largest(float(not holds))[0]

    def first_does(self, work: Callable[[], str]) -> str:
        """What ``work`` returns on rank 0, the only one that calls it.

        Raises:
            ParallelError: it failed there; rank 0 itself raises what ``work`` raised.
        """
        if self.count == 1:
            return work()
        box: list[Any] = ["", ""]
        failure = None
        if self.rank == 0:
            try:
                box[0] = work()
            except Exception as error:  # raised below, once the others know of it
                failure, box[1] = error, f"{type(error).__name__}: {error}"
        dist.broadcast_object_list(box, src=0, device=self.device)
        if failure is not None:
            raise failure
        if box[1]:
            raise ParallelError(f"the first process of this run has ended: {box[1]}")
        return box[0]

    def in_turns(self, work: Callable[[], T]) -> T:
        """What ``work`` returns here: first on rank 0, then on the first rank of every other
        machine, then on all others. So each finds the files that those before it have written.

        Raises:
            ParallelError: it failed on another rank; that rank raises what ``work`` raised.
        """
        own = 0 if self.rank == 0 else 1 if self.on_machine == 0 else 2
        results: list[T] = []
        for turn in range(3):
            failure = None
            if turn == own:
                try:
                    results.append(work())
                except Exception as error:  # raised below, once the others know of it
                    failure = error
            everywhere = self.all(failure is None)
            if failure is not None:
                raise failure
            if not everywhere:
                raise ParallelError("another process of this run could not read what it needs")
        return results[0]


ONE_PROCESS = Ranks()
"""An ordinary run: rank 0 of 1."""


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[Ranks]:
    """Joins the ranks that ``torchrun`` has started; without ``torchrun``, rank 0 of 1.

    Args:
        device: where to compute; "cuda" becomes the GPU with this rank's number on its machine.

    Raises:
        ParallelError: another rank has ended, or does not answer.
    """
    if launched()[1] == 1:
        yield Ranks(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    ours = not dist.is_initialized()
    try:
        if ours:
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=PATIENCE)
        here = int(os.environ.get("LOCAL_RANK", str(dist.get_rank())))
        yield Ranks(dist.get_rank(), dist.get_world_size(), device, on_machine=here)
    except RuntimeError as error:
        if not is_about_others(error):
            raise
        message = "another process of this run has ended or does not answer"
        why = str(error).strip().partition("\n")[0]
        raise ParallelError(f"{message} ({why})") from error
    finally:
        if ours and dist.is_initialized():
            tuning.keep_process_group(dist.group.WORLD)
            dist.destroy_process_group()


def launched() -> tuple[int, int]:
    """The rank of this process and how many there are, as ``torchrun`` has set them.

    Rank 0 of 1 if ``torchrun`` did not set them. One of its two variables without the other is left
    over from something else, and would make us wait for processes that nobody has started.

    Raises:
        ValueError: the two variables are not whole numbers, or RANK is not below WORLD_SIZE.
    """
    rank, count = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or count is None:
        return 0, 1
    if not (rank.isdecimal() and count.isdecimal() and int(rank) < int(count)):
        expected = "whole numbers with 0 <= RANK < WORLD_SIZE, or not be set"
        got = f"RANK={rank!r} and WORLD_SIZE={count!r}"
        raise InvalidValueError(
            f"RANK and WORLD_SIZE in the environment must be {expected}; got {got}"
        )
    return int(rank), int(count)


def is_first() -> bool:
    """Whether this process is rank 0, the one that writes messages, as ``torchrun`` has set it."""
    return launched()[0] == 0


def without_average(network: nn.Module) -> AbstractContextManager[None]:
    """A context in which gradients of a wrapped network add up on their own rank."""
    if isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return contextlib.nullcontext()


def launch_words() -> list[str]:
    """The start of a command, up to ``tutorial_lib``, that starts as many processes as run now.

    On several machines the same command goes to each; HOST stands for the name of one of them.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if launched()[1] == 1:
        return ["python", "-m"]
    several = []
    if (machines := machine_count()) > 1:  # torchrun does not say where to meet again
        several = ["--nnodes", str(machines), "--rdzv-backend", "c10d"]
        several += ["--rdzv-endpoint", f"HOST:{PORT}"]
    return ["torchrun", *several, "--nproc-per-node", str(here), "-m"]


def machine_count() -> int:
    """How many machines take part, as ``torchrun`` has set it."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1"))


_SILENCE = re.compile(
    r"(closed|reset) by peer|broken pipe|remote ?error|timed? ?out|clients joined"
    r"|connection (was )?(closed|lost|refused)|failed to (recv|send)|(recv|send)\w* failed",
    re.IGNORECASE,
)


def is_about_others(error: RuntimeError) -> bool:
    """Whether ``error`` says that another process does not answer, not that this one failed.

    gloo raises plain RuntimeErrors that begin with a place in its own source. NCCL and the store
    have an error class of their own, which also stands for mistakes of this process, such as two
    ranks on one GPU or a port that is taken.
    """
    talked = isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and "gloo/transport/" in str(error)
    )
    return talked and _SILENCE.search(str(error)) is not None
