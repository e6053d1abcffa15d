"""The front page: digits that come out of noise, live; how to begin; the explorers; the lessons."""

import html
import io
from collections.abc import Sequence

import numpy as np
import torch
from build_notebooks import Lesson
from PIL import Image, ImageOps
from repository import Repository
from torch import Tensor

from tutorial_lib import explorers
from tutorial_lib.checkpoints import load_checkpoint, shipped
from tutorial_lib.explorers.shared import wire
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced
from website.lessons import Staged, live

SEED, STEPS, GRAYS = 5, 48, 16
THUMBNAIL = (320, 208)
CAPTION = 0.12  # a line of text at the foot of a picture takes at most this share of its height


def about(kind: str) -> str:
    """What the explorers of a kind show: the first line of their docstring."""
    classes = (getattr(explorers, name) for name in explorers.__all__)
    (found,) = (one for one in classes if one.title == wire.TITLES[kind])
    return found.__doc__.partition("\n")[0]


def walk(count: int = 10) -> tuple[list[int], Tensor]:
    """Digits 0 to 9 on their way from noise, drawn by the model that ships.

    Returns:
        The steps, from T to 0, and for each of them a picture, (frames, 2, H, 10 W), of bytes:
        x_t, and below it what the model expects to come out.
    """
    checkpoint = load_checkpoint(shipped()["mnist"], device=torch.device("cpu"))
    schedule, shape = checkpoint.schedule, checkpoint.image_shape
    x_T = torch.randn(count, *shape, generator=torch.Generator().manual_seed(SEED))
    asked = clip_x0(checkpoint.conditioned(torch.arange(count)), schedule)
    halts = evenly_spaced(schedule.num_steps, STEPS)
    steps, states, guesses = [schedule.num_steps], [x_T], []
    for step in ddim(asked, schedule, x_T, halts):
        steps.append(step.t)
        states.append(step.x_t)
        guesses.append(step.x0_hat)
    guesses.append(states[-1])
    frames = torch.stack(
        [torch.stack([_row(a), _row(b)]) for a, b in zip(states, guesses, strict=True)]
    )
    return steps[::2], frames[::2]


def _row(images: Tensor) -> Tensor:
    """Images (N, 1, H, W) side by side as bytes (H, N W), in few grays so that they pack well."""
    side_by_side = torch.cat(list(images[:, 0].float()), dim=1)
    level = ((side_by_side.clamp(-1, 1) + 1) / 2 * (GRAYS - 1)).round()
    return (level * 255 / (GRAYS - 1)).to(torch.uint8)


def png(gray: Tensor) -> bytes:
    """A gray picture (H, W) of bytes as a file."""
    file = io.BytesIO()
    Image.fromarray(gray.numpy(), "L").save(file, "png", optimize=True)
    return file.getvalue()


def thumbnail(picture: bytes, size: tuple[int, int] = THUMBNAIL) -> bytes:
    """A picture, or the last frame of one that moves, cut to fill ``size``, as WebP.

    Of a wide one it is a part near the left, where figures begin.
    """
    with Image.open(io.BytesIO(picture)) as opened:
        opened.seek(getattr(opened, "n_frames", 1) - 1)
        whole = _without_caption(opened.convert("RGBA"))
    file = io.BytesIO()
    small = ImageOps.fit(whole, size, Image.Resampling.LANCZOS, centering=(0.15, 0.5))
    small.save(file, "webp", quality=60, method=4)
    return file.getvalue()


def _without_caption(picture: Image.Image) -> Image.Image:
    """What is not empty of a picture, but for a line of text that stands below all the rest."""
    box = picture.getchannel("A").getbbox()
    if box is None:
        return picture
    cut = picture.crop(box)
    rows = np.asarray(cut.getchannel("A")).max(axis=1) > 0
    gap = len(rows) - 1 - int(np.argmin(rows[::-1])) if not rows.all() else 0
    is_caption = gap > (1 - CAPTION) * len(rows)
    return _without_caption(cut.crop((0, 0, cut.width, gap))) if is_caption else cut


def hero(staged: Staged) -> str:
    """The digits that come out of noise, as HTML; their pictures are added to ``staged``."""
    steps, frames = walk()
    count, _, height, width = frames.shape
    staged.pictures["images/hero.png"] = png(frames.reshape(count * 2 * height, width))
    staged.pictures["images/hero-end.png"] = png(frames[-1, 0])
    alt = "The digits 0 to 9, drawn by the model that comes with the course"
    return f"""<figure class="hero" data-sprite="images/hero.png" data-steps="{steps}">
<img src="images/hero-end.png" alt="{alt}" width="{width}" height="{height}">
</figure>"""


def index(
    course: Sequence[Lesson], repository: Repository | None, staged: Staged, title: str
) -> str:
    """The front page, in Markdown with HTML."""
    start = course[0].entry
    hours = sum(one.entry.minutes for one in course) / 60
    notebook = f"notebooks/{start.notebook}"
    buttons = [("Read lesson 0", f"lessons/{start.name}.html")]
    clone, others = "cd diffusion-course  # where you have put it", ""
    if repository is not None:
        buttons += [
            ("Run it in Colab", repository.colab(notebook)),
            ("Run it on Binder", repository.binder(notebook)),
        ]
        clone = f"git clone {repository.address}\ncd {repository.name}"
        ways = f"{repository.file('README.md')}#other-ways-to-set-up"
        others = f" There are [other ways]({ways}), for conda, uv and Windows."
    return f"""---
hide-toc: true
---

# {title}

{hero(staged)}

<p class="lead">Pure noise on the left of the slider, digits that nobody wrote on the right. This
course builds the machine that walks from one to the other: you write every piece of it, a check
tells you what is wrong with your answer, and each claim is measured.</p>

{_buttons(buttons)}

- **{len(course)} lessons, about {hours:.0f} hours**, on a laptop with two cores. No GPU is needed.
- **Exercises that answer.** A wrong sign, a missing square root, `alpha` for `alpha_bar`: the check
  names it.
- **A library you can use.** What you have learned is what [`tutorial_lib`](reference/index.md)
  does: it trains and samples from a terminal, too.
- **Claims, measured.** [What tutorials repeat](claims.md), with numbers, seeds and errors.

## Drag something

<div class="cards">
{_explorer_cards(staged)}
</div>

## The lessons

<div class="cards">
{_lesson_cards(course, staged)}
</div>

## On your own machine

```sh
{clone}
make lab
```

It needs git, make and Python 3.11, 3.12 or 3.13, and opens the course in JupyterLab.{others}
[Teachers](guides/teachers.md) fork it and have notebooks graded.

```{{toctree}}
:hidden:

lessons
explorers
glossary
claims
```

```{{toctree}}
:hidden:
:caption: Guides

guides/training
guides/diffusers
guides/where_to_go
guides/teachers
```

```{{toctree}}
:hidden:
:caption: The library

reference/index
benchmarks
contributing
changelog
```
"""


def _buttons(buttons: Sequence[tuple[str, str]]) -> str:
    """Links that look like buttons, the first one most of all."""
    links = (
        f'<a class="button{" quiet" if number else ""}" href="{html.escape(address)}">{text}</a>'
        for number, (text, address) in enumerate(buttons)
    )
    return f'<p class="start">{" ".join(links)}</p>'


def _card(address: str, picture: str, title: str, text: str) -> str:
    return (
        f'<a class="card" href="{address}"><img src="{picture}" alt="" loading="lazy">'
        f"<strong>{html.escape(title)}</strong><span>{html.escape(text)}</span></a>"
    )


def first_of_each(staged: Staged) -> list[dict[str, str]]:
    """One explorer of each kind, in the order of the course."""
    found: dict[str, dict[str, str]] = {}
    for shown in staged.explorers:
        found.setdefault(shown["kind"], shown)
    return list(found.values())


def _explorer_cards(staged: Staged) -> str:
    cards = []
    for shown in first_of_each(staged):
        path = f"images/{shown['name']}.webp"
        staged.pictures[path] = thumbnail(staged.pictures[shown["still"]])
        kind = shown["kind"]
        cards.append(_card(f"explorers.html#{kind}", path, wire.TITLES[kind], about(kind)))
    return "\n".join(cards)


def _lesson_cards(course: Sequence[Lesson], staged: Staged) -> str:
    cards = []
    for lesson in course:
        entry = lesson.entry
        path = f"images/{entry.name}.webp"
        staged.pictures[path] = thumbnail(lesson.image("png").read_bytes())
        title = f"{entry.number} · {entry.title}"
        cards.append(
            _card(
                f"lessons/{entry.name}.html",
                path,
                title,
                f"{entry.goal[:1].upper()}{entry.goal[1:]}.",
            )
        )
    return "\n".join(cards)


def gallery(staged: Staged, course: Sequence[Lesson], repository: Repository | None) -> str:
    """The page of all explorers, alive."""
    titles = {f"lessons/{one.entry.notebook}": one.entry for one in course}
    parts = [
        "# Explorers",
        "",
        "Drag the sliders, or use the arrow keys. Everything is calculated in your browser, from",
        "what the lessons have made; in a notebook the same explorers take your own images and",
        "models.",
        "",
    ]
    for shown in first_of_each(staged):
        entry = titles[shown["page"]]
        still = f'<img src="{shown["still"]}" alt="" loading="lazy">'
        place = live(shown["kind"], shown["name"], still, "")
        kind = shown["kind"]
        lesson = f"[Lesson {entry.number}, {entry.title}]({shown['page']})"
        parts += [
            f"({kind})=",
            f"## {wire.TITLES[kind]}",
            "",
            f"{about(kind)} {lesson}.",
            "",
            place,
            "",
        ]
    where = "[lesson 3](lessons/03_epsilon_loss.ipynb)"
    if repository is not None:
        where += f": [open it on Binder]({repository.binder('notebooks/03_epsilon_loss.ipynb')})"
    parts += [
        f"## {wire.TITLES['playground']}",
        "",
        f"{about('playground')} It trains in Python, so it lives in the notebook of {where}.",
        "",
    ]
    return "\n".join(parts)
