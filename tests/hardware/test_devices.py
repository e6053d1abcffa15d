"""Devices and precisions: what ``auto`` means."""

import pytest
import torch

from tutorial_lib.hardware import devices as hardware


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("capability", "native", "expected"),
    [
        ((9, 0), True, "bf16"),
        ((8, 0), True, "bf16"),
        ((7, 5), False, "fp16"),
        ((6, 1), False, "fp32"),
    ],
)
def test_auto_precision_follows_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert hardware.pick_precision("auto", torch.device("cuda")).name == expected


def test_an_older_torch_finds_the_same_units() -> None:
    known = hardware._cpu_capabilities()
    assert hardware._cpu_units() == {unit: known[unit] for unit in ("avx512_bf16", "amx_bf16")}
