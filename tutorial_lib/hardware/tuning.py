"""Going fast on a device: precision, memory layout, compiling, and where data may stay.

Nothing here changes the process unless it is called for just that: ``keep_freed_memory`` is for
programs (the command line calls it), and no library call calls it for you.

What stands here because of a fault in torch 2.11 says so, and tests/hardware/test_workarounds.py
fails with a sentence as soon as plain torch does as well. So do ``whole_state`` and
``keep_process_group``, which others call.
"""

import contextlib
import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.overrides import TorchFunctionMode

from tutorial_lib._typing import EpsModel
from tutorial_lib.hardware.devices import Precision, native_bf16

SHARE_FOR_DATA = 0.5
"""How much of a GPU's free memory a data set may take; the rest is for the network at work."""

KEPT_MEMORY = 2**30
"""How much freed memory, in bytes, ``keep_freed_memory`` lets a process keep."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # what glibc takes at most on 64 bits

FEW_TOKENS = 128
"""Up to this many, attention as two matrix products is faster in native bf16 than torch's."""

Network = TypeVar("Network", bound=nn.Module)


def grad_scaler(device: torch.device, precision: Precision) -> GradScaler:
    """What keeps small gradients from becoming 0 in fp16; idle in other precisions.

    The loss is multiplied by a scale before ``backward`` and the gradients are divided by it. Where
    one overflows, the step is left out and the scale halved (Micikevicius et al. 2018, sec. 3.2).
    """
    return GradScaler(device.type, enabled=precision.dtype == torch.float16)


def fits(size: int, device: torch.device) -> bool:
    """Whether data of ``size`` bytes may stay on ``device`` beside a network at work.

    On a GPU: it takes at most half of what is free now. On the CPU it is in memory already.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return size <= SHARE_FOR_DATA * free
    if device.type == "mps":
        return size <= SHARE_FOR_DATA * torch.mps.recommended_max_memory()
    return True


def compiled(network: nn.Module) -> Callable[..., Tensor]:
    """``network`` through torch.compile, or as it is where that does not work, with a warning.

    The first call compiles, which takes a minute or so, and shows whether this machine can: it
    needs a C++ compiler, and on a GPU Triton.
    """
    from torch._dynamo.exc import TorchDynamoException  # loads the compiler: seconds

    fast: list[Callable[..., Tensor]] = [torch.compile(network)]

    def call(*args: Tensor) -> Tensor:
        try:
            return fast[0](*args)
        except TorchDynamoException as error:
            why = str(error).strip().partition("\n")[0]
            warnings.warn(f"compile does not work here, going on without ({why})", stacklevel=2)
            fast[0] = network
            return network(*args)

    return call


def memory_format(network: nn.Module, device: torch.device) -> torch.memory_format:
    """The memory layout in which ``network`` is fastest: usually channels last.

    Not on a CPU where a group norm has fewer than 16 channels a group: forward and backward
    together, torch 2.11 takes three to six times longer for those in bf16 and channels last.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    small = any(norm.num_channels < 16 * norm.num_groups for norm in norms)
    if device.type == "cpu" and small:
        return torch.contiguous_format
    return torch.channels_last


def laid_out(network: Network, device: torch.device) -> Network:
    """``network`` itself, moved to ``device`` and laid out in memory as ``memory_format`` says.

    Both happen in place: the caller's network is changed, though not its numbers.
    """
    layout = memory_format(network, device)
    return network.to(device).to(memory_format=layout)  # type: ignore[call-overload]


placed = laid_out  # the name of earlier versions


def keep_freed_memory() -> bool:
    """Makes glibc keep what tensors on the CPU free, up to ``KEPT_MEMORY``, for the next ones.

    By default it returns large blocks to the system at once. A network frees and asks for tens of
    megabytes at each step, which then costs thousands of page faults, and time that matters where
    the network is small. The setting is the whole process's, see ``man 3 mallopt``; so this is for
    a program to call, and no other function of this library calls it.

    Returns:
        Whether glibc agreed. Never where there is another allocator than glibc's (macOS, Windows,
        musl), nor where a variable of the environment (``MALLOC_TRIM_THRESHOLD_``,
        ``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``) has settled it.
    """
    variables = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    settled = any(name in os.environ for name in variables)
    settled = settled or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if settled or sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    agreed = library.mallopt(_M_TRIM_THRESHOLD, KEPT_MEMORY)
    return bool(agreed and library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD))


class FewTokenAttention(TorchFunctionMode):
    """Inside, ``F.scaled_dot_product_attention`` of few tokens is two matrix products.

    For CPUs that multiply bf16 natively: there torch 2.11 takes two (128 tokens) to six times (64)
    longer for its own and its gradient, and its documented alternative for this,
    ``sdpa_kernel(SDPBackend.MATH)``, more than twice as long. (Where bf16 is emulated, torch's own
    is two to ten times faster.) U-Nets for small images have so few tokens. Masks and dropout are
    left to torch.

    While it is entered, every call of torch passes through Python, which costs up to a fifth of
    the time at batch 1. So enter it only for networks that call that function: ``calls_attention``
    finds out.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            func = _attention
        return func(*args, **kwargs)


_torch_attention = F.scaled_dot_product_attention


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(Q K' scale) V in the precision of autocast; anything less simple is left to torch.

    A network that switches autocast off around its attention, or computes in float64, wants more
    digits than autocast has.
    """
    device = query.device.type
    plain = attn_mask is None and not (dropout_p or is_causal or enable_gqa)
    lowered = torch.is_autocast_enabled(device) and query.dtype != torch.float64
    if not (plain and lowered) or max(query.shape[-2], key.shape[-2]) > FEW_TOKENS:
        how = {"scale": scale, "enable_gqa": enable_gqa}
        return _torch_attention(query, key, value, attn_mask, dropout_p, is_causal, **how)
    q, k, v = (x.to(torch.get_autocast_dtype(device)) for x in (query, key, value))
    factor: float = q.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast(device, enabled=False):  # which would take the softmax to fp32 and back
        return (q * factor @ k.transpose(-1, -2)).softmax(-1) @ v


def attention_is_slow(device: torch.device, precision: Precision) -> bool:
    """Whether torch's attention of few tokens is slower than two matrix products.

    It is in bf16, on a CPU that multiplies bf16 natively.
    """
    return device.type == "cpu" and precision.dtype == torch.bfloat16 and native_bf16(device)[0]


def calls_attention(work: Callable[[], object]) -> bool:
    """Whether ``work`` calls ``F.scaled_dot_product_attention``, as seen in one call of it."""
    with _NotesAttention() as notes:
        work()
    return notes.called


class _NotesAttention(TorchFunctionMode):
    """Notes whether ``F.scaled_dot_product_attention`` is called inside."""

    called = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.called = self.called or func is F.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


def in_precision(
    model: EpsModel,
    device: torch.device,
    precision: Precision,
    *,
    few_token_attention: bool = False,
) -> EpsModel:
    """``model`` under torch's autocast: the big sums in ``precision``, the answer in x_t's dtype.

    With precision fp32 this is the model itself. Losses and samplers around it stay in the dtype
    of x_t. The answer has the memory layout of x_t, which makes what follows cheaper.

    Args:
        few_token_attention: compute attention of few tokens as ``FewTokenAttention`` does, where
            that is faster (``attention_is_slow``). Only for networks that call
            ``F.scaled_dot_product_attention``: others get slower.
    """
    if precision.dtype == torch.float32:
        return model
    replaces = few_token_attention and attention_is_slow(device, precision)

    def cast(x_t: Tensor, t: Tensor, /) -> Tensor:
        attention = FewTokenAttention() if replaces else contextlib.nullcontext()
        with attention, torch.autocast(device.type, dtype=precision.dtype):
            answer = model(x_t, t)
        plain = x_t.is_contiguous()
        layout = torch.contiguous_format if plain else torch.preserve_format
        return answer.to(x_t.dtype, memory_format=layout)

    return cast


def whole_state(state: Tensor) -> Tensor:
    """A generator's state in memory of its own.

    ``set_state`` of torch 2.11 crashes on a state that is a part of a larger tensor.
    """
    return state.clone()


_FINISHED_GROUPS: list[Any] = []


def keep_process_group(group: Any) -> None:
    """Keeps the process group of a finished run until the process ends.

    ``dist.destroy_process_group`` of torch 2.11 does not end the threads of a group that DDP has
    used: the C++ part of DDP still refers to it. If that drops the last reference, it joins the
    threads while holding Python's lock, which one of them may be waiting for: the process would
    never end. Keeping a reference costs the threads of one group for each run in a process.
    """
    _FINISHED_GROUPS.append(group)


def end_program(code: int) -> NoReturn:
    """Ends this program with exit code ``code``; what it has written must be flushed.

    The threads of a group that ``keep_process_group`` keeps may be about to ask for Python's lock.
    A Python that is shutting down ends such a thread in the middle of C++, and that aborts the
    process ("terminate called without an active exception"). So there the process ends at once.
    """
    if _FINISHED_GROUPS:
        os._exit(code)
    sys.exit(code)
