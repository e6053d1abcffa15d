"""``python -m tutorial_lib sample``: images into one picture, or into shards."""

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch

from tutorial_lib import _files, _memory, _validate, hardware, sampling
from tutorial_lib._validate import FileError, InvalidValueError
from tutorial_lib.autoencoders import with_autoencoder
from tutorial_lib.checkpoints import Checkpoint, load_checkpoint
from tutorial_lib.cli.output import say
from tutorial_lib.hardware import parallel
from tutorial_lib.images import check_grid, png_bytes
from tutorial_lib.sampling import Recipe

LARGEST_GRID = 4096
"""Most images in one PNG, unless a PNG is asked for by name; more go to shards."""


@dataclass(frozen=True)
class SampleConfig(Recipe):
    """Draw images with a trained denoiser: one PNG grid, or any number of them in shards."""

    checkpoint: str = field(default="mnist", metadata={"positional": True})
    """A checkpoint file, a run folder, or the name of a checkpoint that comes with the course."""
    autoencoder: str | None = None
    """The autoencoder that decodes what a network of latents draws, a file or the name of one that
    comes with the course; None finds the one that it was trained with."""
    count: int = 64
    """How many images to draw (images)."""
    device: str = "auto"
    """Where to draw: auto, cpu, cuda or mps."""
    out: Path | None = None
    """The PNG file to write, instead of shards; None means samples.png."""
    columns: int | None = None
    """Images in each row of the PNG (images); None makes the grid square."""
    enlarge: int = 1
    """Side of the square that each pixel of an image becomes in the PNG (pixels)."""
    tensors: Path | None = None
    """A .safetensors file for the images as numbers: float32 (N, C, H, W) in [-1, 1]."""
    shards: Path | None = None
    """A folder for the images as uint8 numbers, about a thousand per file, instead of the PNG. The
    same command resumes where it was stopped. None means samples/ for more than 4,096 images if
    neither out nor tensors is given."""
    progress: bool = True
    """Whether to show a progress bar while drawing into shards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _validate.whole_number("count", self.count, at_least=1, at_most=sampling.MOST)
        _validate.whole_number("enlarge", self.enlarge, at_least=1)
        if self.autoencoder is not None:
            _validate.text("autoencoder", self.autoencoder)
        if self.columns is not None:
            _validate.whole_number("columns", self.columns, at_least=1)
        if self.out is not None and self.out.suffix.lower() != ".png":
            raise InvalidValueError(f"out must end in .png, got {self.out}")
        if self.tensors is not None and self.tensors.suffix != ".safetensors":
            raise InvalidValueError(f"tensors must end in .safetensors, got {self.tensors}")
        if self.tensors is not None and self.shards is not None:
            raise InvalidValueError(
                "tensors and shards must not both be given: shards hold numbers too"
            )
        if self.out is not None and self.shards is not None:
            raise InvalidValueError("out and shards must not both be given: shards are not a PNG")
        if self.folder is not None and (self.columns is not None or self.enlarge > 1):
            name = "columns" if self.columns is not None else "enlarge"
            instead = f"{self.count} images go to shards in {self.folder}"
            raise InvalidValueError(f"{name} needs a PNG, but {instead}; give out for a PNG")

    @property
    def folder(self) -> Path | None:
        """The folder of the shards; None if a picture is asked for."""
        picture = self.out is not None or self.tensors is not None
        if self.shards is None and not picture and self.count > LARGEST_GRID:
            return Path("samples")
        return self.shards


def sample(config: SampleConfig) -> int:
    if config.folder is not None:
        return _sample_shards(config, config.folder)
    if parallel.launched()[1] > 1:
        raise InvalidValueError("shards must name a folder if several processes draw")
    out = config.out or Path("samples.png")
    _files.check_outputs({"out": out, "tensors": config.tensors})
    checkpoint = _loaded(config, hardware.pick_device(config.device))
    if config.tensors is not None and _files.is_same_file(config.tensors, checkpoint.path):
        raise InvalidValueError(f"tensors must not replace the checkpoint, {checkpoint.path}")
    check_grid(config.count, checkpoint.picture_shape, config.columns, config.enlarge)
    _memory.check_fits("count", config.count, _bytes_of_all(config, checkpoint), "all images")
    sampling.check_batch("batch", min(config.batch, config.count), checkpoint)
    start = time.perf_counter()
    parts = (
        range(first, min(first + config.batch, config.count))
        for first in range(0, config.count, config.batch)
    )
    images = torch.cat([sampling.draw(checkpoint, config, part) for part in parts])
    seconds = time.perf_counter() - start
    contents = {out: png_bytes(images, config.columns, enlarge=config.enlarge)}
    if config.tensors is not None:
        contents[config.tensors] = safetensors.torch.save({"images": images.contiguous()})
    try:
        _files.write_all(contents)
    except OSError as error:
        places = ", ".join(map(str, contents))
        raise FileError(f"cannot write {places}: {error.strerror}") from error
    print(f"{config.count} images in {seconds:.1f} s, {config.count / seconds:.1f} images/s")
    print(f"written: {', '.join(map(str, contents))}")
    return 0


def _sample_shards(config: SampleConfig, folder: Path) -> int:
    device = hardware.pick_device(config.device)
    if device.type == "cuda" and parallel.launched()[1] > 1:  # a GPU for each process
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    _files.check_output_folder("shards", folder)
    checkpoint = _loaded(config, device)
    try:
        done = sampling.write_shards(
            checkpoint, config, folder, config.count, progress=config.progress
        )
    except KeyboardInterrupt:
        say(f"the shards in {folder} are complete; the same command resumes")
        raise
    rate = done.drawn / done.seconds
    print(f"{done.drawn} images in {done.seconds:.1f} s, {rate:.1f} images/s")
    there = f", {done.found} were there already" if done.found else ""
    print(f"written: {done.shards} shards in {folder}{there}")
    return 0


def _bytes_of_all(config: SampleConfig, checkpoint: Checkpoint) -> int:
    """What the images take as float32, in their batches and put together."""
    return 2 * 4 * config.count * math.prod(checkpoint.picture_shape)


def _loaded(config: SampleConfig, device: torch.device) -> Checkpoint:
    checkpoint = load_checkpoint(config.checkpoint, device=device)
    return with_autoencoder(checkpoint, config.autoencoder)
