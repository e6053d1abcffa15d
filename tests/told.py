"""A model that reads words, small and untrained, and walks that nobody has drawn: for tests."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tests.draws import seeded
from tutorial_lib.checkpoints import Checkpoint
from tutorial_lib.datasets import scenes
from tutorial_lib.datasets.scene_captions import VOCABULARY
from tutorial_lib.explorers import SentenceWalks
from tutorial_lib.latents import Codec
from tutorial_lib.networks import Autoencoder, TextUNet
from tutorial_lib.predictions import as_eps_model
from tutorial_lib.schedules import cosine_schedule

SENTENCES = ("a small red disc above a large blue square", "a large green ring on white")


def reader(**options) -> Checkpoint:
    """A checkpoint that draws pictures of 16 x 16 pixels as latents of 4 x 4."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"widths": (8, 16), "text_width": 16, "text_layers": 1, **options}
        network = TextUNet(4, len(VOCABULARY), VOCABULARY.length, **sizes).eval()
        torch.nn.init.normal_(network.get_parameter("head.weight"), std=0.3)  # which starts at zero
        for parameter in network.text.parameters():
            torch.nn.init.normal_(parameter)  # so that words matter
        autoencoder = Autoencoder(widths=(8, 8))
    codec = Codec.fitted(autoencoder, scenes(20, size=16).images)
    schedule = cosine_schedule(100)
    latents = {"autoencoder": "small", "sha256": "0" * 64, "image_shape": [3, 16, 16]}
    words = {"words": list(VOCABULARY.words), "length": VOCABULARY.length}
    dataset = {"image_shape": [4, 4, 4], "latents": latents, "vocabulary": words, "class_names": []}
    card = {"target": "v", "dataset": dataset}
    model = as_eps_model(network, schedule, "v")
    return Checkpoint(Path("small.safetensors"), card, network, model, schedule, codec)


def invented(
    sentences: Sequence[str] = SENTENCES,
    *,
    seeds: int = 2,
    scales: int = 3,
    steps: int = 4,
    size: int = 16,
    side: int = 5,
) -> dict[str, SentenceWalks]:
    """Walks whose pictures are a smooth color each, so that a JPEG file changes them little."""

    def drawn(*shape: int, seed: int) -> Tensor:
        return torch.rand(seeds, scales, steps, *shape, generator=seeded(seed))

    return {
        sentence: SentenceWalks(
            (drawn(3, 1, 1, seed=k) * 2 - 1).expand(-1, -1, -1, -1, size, size),
            drawn(len(sentence.split()), side, side, seed=100 + k),
        )
        for k, sentence in enumerate(sentences)
    }
