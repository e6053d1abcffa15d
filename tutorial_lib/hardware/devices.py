"""Which device and which precision: what ``auto`` means, and why.

bf16 is chosen only where the hardware multiplies it natively; emulated, it is slower than fp32.
GPUs from before bf16 have matrix units for fp16, which needs its losses scaled; see ``tuning``.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidValueError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision(NamedTuple):
    """The number format that a network computes in.

    Attributes:
        name: "fp32", "bf16" or "fp16".
        dtype: torch's name for it.
        reason: why this one, half a sentence.
    """

    name: str
    dtype: torch.dtype
    reason: str


def pick_device(name: str = "auto") -> torch.device:
    """The device called ``name``; "auto" takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: a name that is not in ``DEVICES``, or a device this machine does not have.
    """
    _validate.one_of("device", name, DEVICES)
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((device for device, here in present.items() if here), "cpu")
    if not present.get(name, True):
        raise InvalidValueError(
            f"device {name!r} is not there; this torch sees {_present(present)}"
        )
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> Precision:
    """The precision called ``name`` on ``device``; "auto" takes bf16 where it is native.

    Where it is not, auto is fp16 on CUDA GPUs that have matrix units for it, and fp32 elsewhere.

    Raises:
        ValueError: a name that is not in ``PRECISIONS``.
    """
    _validate.one_of("precision", name, PRECISIONS)
    native, reason = native_bf16(device)
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


def describe_device(device: torch.device) -> str:
    """The device in words: its kind, its name and, on the CPU, how many threads torch uses."""
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        return f"cuda ({torch.cuda.get_device_name(device)}, {memory:.0f} GiB)"
    if device.type == "cpu":
        about = _cpu_capabilities()
        name = about.get("cpu_name", "CPU")
        cores = about.get("num_physical_cores", torch.get_num_threads())
        return f"cpu ({name}, {cores} cores, torch uses {torch.get_num_threads()} threads)"
    return device.type


def native_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether ``device`` multiplies bf16 in hardware, and the reason in words."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return native, f"this GPU {'has' if native else 'lacks'} native bf16"
    if device.type == "cpu":
        about = _cpu_capabilities()
        units = [name for name in ("amx_bf16", "avx512_bf16") if about.get(name)]
        if units:
            return True, f"this CPU has {units[0]}"
        return False, "this CPU has neither AVX-512 BF16 nor AMX"
    return False, f"bf16 on {device.type} is not taken for granted"


def _cpu_capabilities() -> Mapping[str, Any]:
    """What torch knows of this CPU; an old torch (2.6) knows the units, and not the name."""
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    return _cpu_units()


def _cpu_units() -> dict[str, bool]:
    """Which units that multiply bf16 this CPU has, asked in the way that an old torch knows."""
    asks = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    return {unit: getattr(torch.cpu, name)() for unit, name in asks.items()}


def _present(present: dict[str, bool]) -> str:
    return ", ".join(["cpu", *(device for device, here in present.items() if here)])
