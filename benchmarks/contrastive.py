"""How often does a small CLIP find the sentence that describes a picture?

    python benchmarks/contrastive.py

``networks.contrastive.PictureTextNet`` is trained on scenes without the objects of
``words.HELD_OUT``. Then each test picture is given ``--choices`` captions, its own and those of
others, and the most similar is taken. It is right if it is true of the picture, by
``metrics.judge_scenes``, since captions of others may be true, too. Each row is a share with its
standard error; "words" counts single words.
"""

import math
import time
from typing import Any

import report
import torch
from torch import Tensor
from words import HELD_OUT, PROMPTS_SEED

from tutorial_lib import hardware
from tutorial_lib.datasets import Dataset, scenes
from tutorial_lib.datasets.scene_captions import VOCABULARY
from tutorial_lib.metrics import judge_scenes
from tutorial_lib.networks.contrastive import PictureTextNet, contrastive_loss


def trained(options: Any) -> PictureTextNet:
    """The net after ``options.steps`` steps of AdamW with a falling learning rate."""
    device = hardware.pick_device()
    data = scenes(options.images, size=options.size, seed=options.seed, held_out=HELD_OUT)
    torch.manual_seed(options.seed)
    net = PictureTextNet(options.size, len(VOCABULARY), VOCABULARY.length).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, options.steps)
    generator = torch.Generator().manual_seed(options.seed)
    for _ in range(options.steps):
        chosen = torch.randint(len(data), (options.batch_size,), generator=generator)
        loss = contrastive_loss(net(data.images[chosen].to(device), data.words[chosen].to(device)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return net.cpu().eval()


@torch.no_grad()
def retrieval(net: PictureTextNet, data: Dataset, choices: int) -> dict[str, float]:
    """The share of pictures whose most similar caption, of ``choices``, is true of them."""
    right, words = [], []
    for images, captions in zip(data.images.split(choices), data.words.split(choices), strict=True):
        taken: Tensor = captions[net(images, captions).argmax(1)]
        verdict = judge_scenes(images, taken)
        right.append(verdict.all_right)
        words.append(verdict.right[taken != 0])
    share = float(torch.cat(right).double().mean())
    return {
        "all right": round(share, 4),
        "error": round(math.sqrt(share * (1 - share) / len(data)), 4),
        "words right": round(float(torch.cat(words).double().mean()), 4),
    }


def main() -> None:
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--steps", type=int, default=1000, help="training steps")
    parser.add_argument("--images", type=int, default=10_000, help="scenes to learn from")
    parser.add_argument("--batch-size", type=int, default=64, help="pairs in a training step")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures")
    parser.add_argument("--count", type=int, default=1024, help="test pictures of each kind")
    parser.add_argument("--choices", type=int, default=64, help="captions to choose from")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.images, options.size = 3, 40, 16
        options.batch_size, options.count, options.choices = 8, 16, 8
    hardware.keep_freed_memory()
    result = report.about(options, __file__)
    start = time.process_time()
    net = trained(options)
    seconds = round(time.process_time() - start, 1)
    asked = {k: v for k, v in vars(options).items() if k not in ("json", "quick")}
    kinds: dict[str, dict[str, Any]] = {
        "seen": {"held_out": HELD_OUT},
        "held out": {"only": HELD_OUT},
    }
    rows = [
        {
            "work": f"combinations {name}",
            "CPU seconds": seconds,
            **retrieval(net, data, options.choices),
        }
        for name, kind in kinds.items()
        for data in [scenes(options.count, size=options.size, seed=PROMPTS_SEED, **kind)]
    ]
    report.write(options, {**result, **asked, "rows": rows})
    print(report.table(rows))


if __name__ == "__main__":
    main()
