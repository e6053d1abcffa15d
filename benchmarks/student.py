"""A student that draws the digits of the shipped model in 4, 2 or 1 steps.

    python benchmarks/student.py
    python benchmarks/student.py --save runs/students

The teacher, the checkpoint that ships, walks from ``walks`` noises to digits (DPM-Solver++, 8 even
steps, classes in turn, no guidance), and the states at t = 1000, 750, 500, 250, 0 are kept. A
student of few steps may stop only there. So it learns the *chord* from each stop to the next: the
loss is that of flow matching, the mean square of (velocity - chord), at states of the teacher's own
walks. Such a state has one chord only, so the best loss is 0; that of chance pairs, whose lines
cross, is not. Salimans & Ho 2022, "Progressive distillation", halve the steps of the teacher by the
same idea; here the student of 4 steps begins with the weights of the teacher, that of 2 steps with
those of 4, that of 1 step with those of 2.

A student is a network like its teacher, target v, drawn from by DDIM, so with ``--save`` it becomes
a checkpoint to sample from:

    python -m tutorial_lib sample runs/students/student-2 --sampler ddim --steps 2 --out digits.png

Each row is the Fréchet distance of ``count`` digits from 5,000 real ones, and the share that the
classifier reads as what was asked for, for each seed of the noise they start from; the students
are trained once. The results are written after each student.
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import quality
import report
import torch
from measured.claim import mean_and_error, paired
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from tutorial_lib import flows, hardware
from tutorial_lib._typing import EpsModel
from tutorial_lib.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from tutorial_lib.forward import at_steps
from tutorial_lib.guidance import condition, labeled
from tutorial_lib.metrics import frechet_distance
from tutorial_lib.metrics.digit_features import load_digit_classifier, load_digit_reference
from tutorial_lib.samplers import ddim, dpm_solver, evenly_spaced, last
from tutorial_lib.training import ema_decay, lr_factor, update_ema
from tutorial_lib.training.optimizers import OPTIMIZERS, Groups, Rates

TEACHER_STEPS = 8
STUDENTS = {4: 300, 2: 400, 1: 800}
"""The students by their steps, in the order in which they are trained: training steps of each."""
RATES = Rates(lr=1e-3, muon_lr=0.01, weight_decay=0.0)
MEASURES = {"Fréchet": frechet_distance}


class Walks:
    """What the teacher's walks passed through.

    Args:
        checkpoint: the teacher.
        count: walks.
        batch: walks at once.
        seed: of the noise.
    """

    def __init__(self, checkpoint: Checkpoint, count: int, batch: int, seed: int) -> None:
        self.schedule, self.labels = checkpoint.schedule, classes(checkpoint, count)
        self.stops = evenly_spaced(self.schedule.num_steps, max(STUDENTS))
        noise = starts(checkpoint, count, seed)
        parts = []
        for x_T, labels in zip(noise.split(batch), self.labels.split(batch), strict=True):
            model = told(checkpoint.network, checkpoint, labels)
            fine = evenly_spaced(self.schedule.num_steps, TEACHER_STEPS)
            walk = dpm_solver(model, self.schedule, x_T, fine)
            kept = [x_T, *(step.x_t for step in walk if step.t in self.stops)]
            parts.append(torch.stack(kept, 1))
        self.states = torch.cat(parts)  # (count, stops, C, H, W)

    def chords(
        self, steps: int, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States x_t, their t, labels, and the velocity of the straight line to the next stop of a
        student of so many steps."""
        every = max(STUDENTS) // steps
        row = torch.randint(len(self.states), (batch,), generator=generator)
        place = every * (torch.arange(batch) % steps)
        t, s = (torch.tensor(self.stops)[place + add] for add in (0, every))
        x_t, x_s = self.states[row, place], self.states[row, place + every]
        total = self.schedule.signal_rate + self.schedule.noise_rate
        passed = flows.times_of(self.schedule)
        way = x_t / at_steps(total, t, x_t) - x_s / at_steps(total, s, x_s)
        duration = at_steps(passed, t, x_t) - at_steps(passed, s, x_s)
        return x_t, t, self.labels[row], way / duration


def classes(checkpoint: Checkpoint, count: int) -> Tensor:
    return torch.arange(count) % len(checkpoint.class_names)


def starts(checkpoint: Checkpoint, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *checkpoint.image_shape, generator=generator)


def in_precision(model: EpsModel) -> EpsModel:
    cpu = torch.device("cpu")
    return hardware.in_precision(model, cpu, hardware.pick_precision("auto", cpu))


def told(network: nn.Module, checkpoint: Checkpoint, labels: Tensor) -> EpsModel:
    """The eps model of a network of the teacher's kind, for these labels."""
    return in_precision(condition(labeled(network, checkpoint.schedule, "v"), labels))


def velocity(network: nn.Module, walks: Walks, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """eps_hat - x0_hat of a network with target v: (signal + noise) v + (noise - signal) x_t."""
    v = in_precision(lambda x, t: network(x, t, labels))(x_t, t)
    signal = at_steps(walks.schedule.signal_rate, t, x_t)
    noise = at_steps(walks.schedule.noise_rate, t, x_t)
    return (signal + noise) * v + (noise - signal) * x_t


def taught(
    network: nn.Module, walks: Walks, steps: int, training: int, batch: int, seed: int
) -> tuple[nn.Module, float]:
    """A student of so many steps that begins as ``network``; its loss, the mean of the last 50."""
    network = copy.deepcopy(network).train()
    average, generator = AveragedModel(network), torch.Generator().manual_seed(seed)
    optimizers = OPTIMIZERS["muon"](Groups.of(network), RATES, torch.device("cpu"))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates, seen = [group["lr"] for group in groups], []
    for step in range(training):
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * lr_factor((step + 0.5) / training, 0.03, "linear")
        x_t, t, labels, chord = walks.chords(steps, batch, generator)
        loss = (velocity(network, walks, x_t, t, labels) - chord).square().mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        update_ema(average, network, ema_decay(step, 0.95))
        seen.append(loss.detach())
    student = average.module.eval()
    return student, float(torch.stack(seen[-50:]).mean())


def score(network: nn.Module, checkpoint: Checkpoint, steps: int, seed: int, options: Any) -> dict:
    """Of ``count`` digits drawn by DDIM in so many steps."""
    judge, real = load_digit_classifier(), load_digit_reference().test
    noise, labels = starts(checkpoint, options.count, seed), classes(checkpoint, options.count)
    stops, features, right = evenly_spaced(checkpoint.schedule.num_steps, steps), [], 0
    for x_T, asked in zip(noise.split(options.batch), labels.split(options.batch), strict=True):
        images = last(
            ddim(told(network, checkpoint, asked), checkpoint.schedule, x_T, stops)
        ).clamp(-1, 1)
        features.append(judge.features(images))
        right += int((judge.probabilities(images).argmax(1) == asked).sum())
    distance = frechet_distance(torch.cat(features), real)
    return {"Fréchet": round(distance, 5), "as asked": right / options.count}


def scored(name: str, steps: int, measure: Callable[[int], dict], seeds: list[int]) -> dict:
    rows = [measure(seed) for seed in seeds]
    return {"contender": name, "steps": steps, **{k: [row[k] for row in rows] for k in rows[0]}}


def tables(result: dict[str, Any]) -> str:
    lines = []
    for row in result["rows"]:
        shares = [100 * share for share in row["as asked"]]
        scores = {"Fréchet": mean_and_error(row["Fréchet"]), "as asked, %": mean_and_error(shares)}
        lines.append({"who": row["contender"], "steps": row["steps"], **scores})
    real = "{:.2f} ± {:.2f}".format(*result["floors"]["Fréchet"])
    lines.append({"who": "real images", "steps": "", "Fréchet": real, "as asked, %": ""})
    return report.table(lines) + "\n\n" + report.table(result["differences"])


def main() -> None:
    parser = report.parser(__doc__, __file__, seeds=range(3))
    parser.add_argument("--count", type=int, default=1000, help="digits drawn for each measure")
    parser.add_argument("--walks", type=int, default=4096, help="walks of the teacher")
    parser.add_argument("--batch", type=int, default=100, help="images at once, when drawn")
    parser.add_argument("--save", type=Path, help="folder for the students, as checkpoints")
    options = parser.parse_args()
    training = dict(STUDENTS)
    if options.quick:
        options.seed, options.count, options.walks = options.seed[:2], 70, 8
        training = dict.fromkeys(STUDENTS, 1)
    torch.manual_seed(0)
    checkpoint, seeds = load_checkpoint("mnist", device="cpu"), options.seed
    result: dict[str, Any] = {
        **report.about(options, __file__, device="cpu"),
        "checkpoint": checkpoint.card["weights"]["sha256"],
        "count": options.count,
        "walks": options.walks,
        "training steps": training,
        "floors": quality.floors(options.count, 5000, 20, 0, MEASURES),
        "rows": [],
        "differences": [],
    }
    began = time.process_time()
    walks = Walks(checkpoint, options.walks, options.batch, seed=1000)
    result["CPU seconds of the walks"] = round(time.process_time() - began, 1)
    network = checkpoint.network
    for steps, updates in training.items():
        teacher = scored(
            "teacher",
            steps,
            lambda seed, steps=steps: score(checkpoint.network, checkpoint, steps, seed, options),
            seeds,
        )
        began = time.process_time()
        network, loss = taught(network, walks, steps, updates, 64, seed=0)
        seconds = round(time.process_time() - began, 1)
        student = scored(
            "student",
            steps,
            lambda seed, steps=steps, network=network: score(
                network, checkpoint, steps, seed, options
            ),
            seeds,
        )
        result["rows"] += [teacher, {**student, "loss": loss, "CPU seconds": seconds}]
        gap = paired(student["Fréchet"], teacher["Fréchet"])
        words = {"student minus teacher": str(gap), "verdict": gap.words}
        result["differences"].append({"steps": steps, **words})
        report.write(options, result)
        if options.save is not None:
            card = {key: checkpoint.card[key] for key in ("dataset",)}
            path = options.save / f"student-{steps}"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(path, network, checkpoint.schedule, target="v", card=card)
    print(tables(result))


if __name__ == "__main__":
    main()
