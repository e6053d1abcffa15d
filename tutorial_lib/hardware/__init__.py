"""The machine: which device, how to go fast on it, and several processes."""

from tutorial_lib.hardware.devices import (
    DEVICES,
    DTYPES,
    PRECISIONS,
    Precision,
    describe_device,
    pick_device,
    pick_precision,
)
from tutorial_lib.hardware.tuning import (
    FEW_TOKENS,
    KEPT_MEMORY,
    SHARE_FOR_DATA,
    FewTokenAttention,
    calls_attention,
    compiled,
    fits,
    grad_scaler,
    in_precision,
    keep_freed_memory,
    laid_out,
    memory_format,
    placed,
)

__all__ = [
    "DEVICES",
    "DTYPES",
    "FEW_TOKENS",
    "KEPT_MEMORY",
    "PRECISIONS",
    "SHARE_FOR_DATA",
    "FewTokenAttention",
    "Precision",
    "calls_attention",
    "compiled",
    "describe_device",
    "fits",
    "grad_scaler",
    "in_precision",
    "keep_freed_memory",
    "laid_out",
    "memory_format",
    "pick_device",
    "pick_precision",
    "placed",
]
