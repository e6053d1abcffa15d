"""Whether a model that was trained on few images has learned to copy them."""

import warnings

from tutorial_lib import datasets
from tutorial_lib.autoencoders import with_autoencoder
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.metrics import copies
from tutorial_lib.sampling import Recipe, draw
from tutorial_lib.training import Run

FEW = 1000
"""Up to so many training images a model is tested; measured, see ``metrics.copies``."""
SAMPLES = 32
STEPS = 20


def warn_of_copies(run: Run) -> None:
    """Warns where samples of the run are copies of its training images.

    Draws ``SAMPLES`` of them, and only where the run has trained on at most ``FEW`` images.
    """
    checkpoint = load_checkpoint(run.checkpoint, device=next(run.network.parameters()).device)
    checkpoint = with_autoencoder(checkpoint)
    count = checkpoint.card["dataset"]["images"]
    if count > FEW:
        return
    config = run.config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run has said it
        data = datasets.load(config.dataset, size=config.size, root=config.root, seed=config.seed)
    steps = min(STEPS, checkpoint.schedule.num_steps)
    samples = draw(checkpoint, Recipe(steps=steps, seed=config.seed), range(SAMPLES))
    found = int(copies(samples, data.images).sum())
    if found:
        advice = "train on more images, or for fewer steps"
        warnings.warn(
            f"{found} of {SAMPLES} samples are copies of one of the {count} training images; "
            f"{advice}",
            stacklevel=2,
        )
