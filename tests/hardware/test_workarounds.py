"""Faults of torch that the library works around: each test fails once torch does as well.

Then what stands in hardware/tuning.py for it can go. Speeds are compared as processor time of one
thread, alternating, and a work-around is called needless only where torch has all but caught up.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib import hardware

NEEDLESS = 1.3
"""Times longer than our own way that torch may take, and be called as fast."""


def ratio(plain: Callable[[], object], ours: Callable[[], object], rounds: int = 9) -> float:
    """How many times longer ``plain`` takes than ``ours``: the median of alternating rounds."""

    def spent(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    plain(), ours()  # the first calls set things up
    return statistics.median(spent(plain) / spent(ours) for _ in range(rounds))


def has_bf16() -> bool:
    return hardware.pick_precision("auto", torch.device("cpu")).name == "bf16"


needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this CPU does not multiply bf16")


@needs_bf16
def test_attention_of_few_tokens_is_still_slow_on_a_cpu() -> None:
    q, k, v = (torch.randn(32, 4, 64, 32, requires_grad=True) for _ in range(3))

    def forward_and_backward(x_t: Tensor, t: Tensor) -> Tensor:
        for _ in range(4):
            F.scaled_dot_product_attention(q, k, v).float().sum().backward()
        return x_t

    cpu, t = torch.device("cpu"), torch.ones(1, dtype=torch.int64)
    bf16 = hardware.pick_precision("bf16", cpu)
    plain = hardware.in_precision(forward_and_backward, cpu, bf16)
    ours = hardware.in_precision(forward_and_backward, cpu, bf16, few_token_attention=True)
    slower = ratio(lambda: plain(torch.ones(1), t), lambda: ours(torch.ones(1), t))
    assert slower > NEEDLESS, (
        "FewTokenAttention is no longer needed: torch's own attention takes "
        f"{slower:.2f} times as long"
    )


@needs_bf16
def test_group_norm_of_small_groups_is_still_slow_in_channels_last() -> None:
    norm = nn.GroupNorm(8, 32)
    x = torch.randn(16, 32, 32, 32).bfloat16()
    laid = {
        layout: x.contiguous(memory_format=layout).requires_grad_()
        for layout in (torch.channels_last, torch.contiguous_format)
    }

    def work(layout: torch.memory_format) -> None:
        for _ in range(4):
            with torch.autocast("cpu", torch.bfloat16):
                norm(laid[layout]).sum().backward()

    slower = ratio(lambda: work(torch.channels_last), lambda: work(torch.contiguous_format))
    assert slower > NEEDLESS, (
        "memory_format needs no exception for small groups any more, and networks/unet.py no "
        f"groups of 16: channels last takes {slower:.2f} times as long"
    )


PART_OF_A_STATE = """
import torch
states = torch.stack([torch.default_generator.get_state()] * 2)
torch.manual_seed(5)
torch.default_generator.set_state(states[1])
assert torch.equal(torch.default_generator.get_state(), states[1])
"""


def test_a_part_of_a_larger_tensor_is_still_no_state() -> None:
    done = subprocess.run([sys.executable, "-c", PART_OF_A_STATE], capture_output=True, text=True)
    assert done.returncode != 0, "whole_state is no longer needed: torch takes a part of a tensor"


def test_process_groups_are_still_kept() -> None:
    """A rare deadlock cannot be waited for; a new torch is the moment to look again."""
    version = tuple(map(int, torch.__version__.split("+")[0].split(".")[:2]))
    assert version <= (2, 11), (
        "keep_process_group was written for torch 2.11: train in two processes a few hundred times "
        "without it, and remove it or raise this version"
    )
