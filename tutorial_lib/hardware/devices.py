"""Which device and which precision: what ``auto`` means, and why.

bf16 is chosen only where the hardware multiplies it natively; emulated, it is slower than fp32.
GPUs from before bf16 have matrix units for fp16, which needs its losses scaled: ``grad_scaler``.
"""

import contextlib
import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.overrides import TorchFunctionMode

from tutorial_lib import _validate
from tutorial_lib._typing import EpsModel

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

SHARE_FOR_DATA = 0.5
"""How much of a GPU's free memory a data set may take; the rest is for the network at work."""


Network = TypeVar("Network", bound=nn.Module)


class Precision(NamedTuple):
    """The number format that a network computes in.

    Attributes:
        name: "fp32", "bf16" or "fp16".
        dtype: torch's word for it.
        reason: why this one, half a sentence.
    """

    name: str
    dtype: torch.dtype
    reason: str


def pick_device(name: str = "auto") -> torch.device:
    """The device called ``name``; "auto" takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: a word that is none of ``DEVICES``, or a device that this machine has not.
    """
    _validate.one_of("device", name, DEVICES)
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((device for device, here in present.items() if here), "cpu")
    if not present.get(name, True):
        raise ValueError(f"device {name!r} is not there; this torch sees {_present(present)}")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> Precision:
    """The precision called ``name`` on ``device``; "auto" takes bf16 where it is native.

    Where it is not, auto is fp16 on CUDA GPUs that have matrix units for it, and fp32 elsewhere.

    Raises:
        ValueError: a word that is none of ``PRECISIONS``.
    """
    _validate.one_of("precision", name, PRECISIONS)
    native, reason = _native_bf16(device)
    if name == "auto":
        name = "bf16" if native else "fp32"
        if (
            not native
            and device.type == "cuda"
            and torch.cuda.get_device_capability(device) >= (7, 0)
        ):
            name, reason = "fp16", f"{reason}, and has matrix units for fp16"
    elif name == "bf16" and not native:
        reason = f"asked for, though {reason}, so it may be slower than fp32"
    else:
        reason = "asked for"
    return Precision(name, DTYPES[name], reason)


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
    """How images and kernels of ``network`` lie in memory best: channels last, as a rule.

    Not on a CPU where a group norm has fewer than 16 channels a group: forward and backward
    together, torch 2.11 takes six times longer for those when they lie channels last in bf16.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    small = any(norm.num_channels < 16 * norm.num_groups for norm in norms)
    if device.type == "cpu" and small:
        return torch.contiguous_format
    return torch.channels_last


def placed(network: Network, device: torch.device) -> Network:
    """``network`` itself, moved to ``device`` and laid out as ``memory_format`` says.

    On a CPU the process keeps the memory that networks free from then on: ``keep_freed_memory``.
    """
    if device.type == "cpu":
        keep_freed_memory()
    layout = memory_format(network, device)
    return network.to(device).to(memory_format=layout)  # type: ignore[call-overload]


KEPT_MEMORY = 2**30
"""How much freed memory, in bytes, a process may keep for its next tensors."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # what glibc takes at most on 64 bits


def keep_freed_memory() -> bool:
    """Has glibc keep what tensors on the CPU free, up to ``KEPT_MEMORY``, for the next ones.

    By default it gives large pieces back to the system at once. A network frees and asks for tens
    of megabytes at each step, which then costs thousands of page faults, and time that shows where
    the network is small. The setting is the whole process's, see ``man 3 mallopt``.

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


FEW_TOKENS = 128
"""Up to so many, attention by two matrix products is faster on a CPU in bf16 than torch's own."""


class _AttentionOfFew(TorchFunctionMode):
    """Inside, ``F.scaled_dot_product_attention`` of few tokens is two matrix products.

    For CPUs in bf16: there torch 2.11 takes two (128 tokens) to six times (64) longer for its own
    and the gradient of it. U-Nets for small images have so few. Masks and dropout are torch's.
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
    """softmax(Q K' scale) V in the precision of autocast; what is not so simple, by torch.

    A network that switches autocast off around its attention, or computes in float64, wants more
    digits than autocast has.
    """
    device = query.device.type
    plain = attn_mask is None and not (dropout_p or is_causal or enable_gqa)
    lowered = torch.is_autocast_enabled(device) and query.dtype != torch.float64
    if not (plain and lowered) or max(query.shape[-2], key.shape[-2]) > FEW_TOKENS:
        how = {"scale": scale, "enable_gqa": enable_gqa}
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, **how
        )
    q, k, v = (x.to(torch.get_autocast_dtype(device)) for x in (query, key, value))
    factor: float = q.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast(device, enabled=False):  # which would take the softmax to fp32 and back
        return (q * factor @ k.transpose(-1, -2)).softmax(-1) @ v


def in_precision(model: EpsModel, device: torch.device, precision: Precision) -> EpsModel:
    """``model`` under torch's autocast: the big sums in ``precision``, the answer as x_t came.

    On a CPU torch's attention of few tokens goes a faster way. With precision fp32 this is the
    model itself. Losses and samplers around it go on in the dtype of x_t.
    """
    if precision.dtype == torch.float32:
        return model

    def cast(x_t: Tensor, t: Tensor, /) -> Tensor:
        attention = _AttentionOfFew() if device.type == "cpu" else contextlib.nullcontext()
        with attention, torch.autocast(device.type, dtype=precision.dtype):
            answer = model(x_t, t)
        plain = x_t.is_contiguous()  # an answer that lies as x_t does is cheaper to reckon with
        layout = torch.contiguous_format if plain else torch.preserve_format
        return answer.to(x_t.dtype, memory_format=layout)

    return cast


def describe_device(device: torch.device) -> str:
    """The device in words: its kind, its name and, on the CPU, how many threads torch uses."""
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        return f"cuda ({torch.cuda.get_device_name(device)}, {memory:.0f} GiB)"
    if device.type == "cpu":
        about = torch.cpu.get_capabilities()
        name = about.get("cpu_name", "CPU")
        cores = about.get("num_physical_cores", torch.get_num_threads())
        return f"cpu ({name}, {cores} cores, torch uses {torch.get_num_threads()} threads)"
    return device.type


def _native_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether ``device`` multiplies bf16 in hardware, and the reason in words."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return native, f"this GPU {'has' if native else 'lacks'} native bf16"
    if device.type == "cpu":
        about = torch.cpu.get_capabilities()
        units = [name for name in ("amx_bf16", "avx512_bf16") if about.get(name)]
        if units:
            return True, f"this CPU has {units[0]}"
        return False, "this CPU has neither AVX-512 BF16 nor AMX"
    return False, f"bf16 on {device.type} is not taken for granted"


def _present(present: dict[str, bool]) -> str:
    return ", ".join(["cpu", *(device for device, here in present.items() if here)])
