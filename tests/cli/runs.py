"""What the tests of the command line share."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tutorial_lib.cli import program as cli

QUICK = ["--widths", "8", "8", "--batch-size", "8", "--steps", "3", "--device", "cpu"]
QUICK += ["--no-progress"]


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def drawn(run: Path, *words: str) -> torch.Tensor:
    assert cli.main(["sample", str(run), *words, "--tensors", "x.safetensors"]) == 0
    return safetensors.torch.load_file("x.safetensors")["images"]


def idx_file(path: Path, array: np.ndarray) -> None:
    """The format of the MNIST files: two zeros, type 8 (bytes), axes, lengths, numbers."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def assert_one_line(capsys: pytest.CaptureFixture[str], message: str) -> None:
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"error: [^\n]*\n", said.err), said.err
    assert re.search(message, said.err), said.err
