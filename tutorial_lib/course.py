"""The manifest of the course: the only list of its lessons.

Everything that lists lessons is made from it or reads it: the tables in README and lesson 0, each
lesson's minutes and its links to the lessons before and after it (``tools/build_notebooks.py``
writes them), ``doctor``, ``progress`` and the tests. A new lesson is one entry here, one source,
``notebooks/source/NN_name.py``, and one file of checks, ``tutorial_lib/checks/lessonNN.py``.

This file imports nothing of the library, so that tools can load it alone.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """One lesson of the course.

    Attributes:
        name: its notebook's name without ``.ipynb``: the lesson's number in two digits, a letter
            for one that was put in between, an underscore and a few words: "05_training",
            "05b_training_for_real". Names sort in the order of the course.
        title: what it is called in tables and links.
        goal: what learners will do in it; completes the sentence "in this lesson you ...".
        minutes: how long reading and exercises take, in minutes.
        teaches: what it teaches of the library, as dotted names below ``tutorial_lib``: a module,
            a package ("samplers") or a part of one ("samplers.heun"). Earlier lessons import it
            only with a comment ``# preview: ...``.
        train_steps: how much it trains, in training steps of the default network on 32 x 32
            images in batches of 32.
        images: how much it samples, in images drawn with 50 steps each.
    """

    name: str
    title: str
    goal: str
    minutes: int
    teaches: tuple[str, ...] = ()
    train_steps: int = 0
    images: int = 0

    @property
    def number(self) -> str:
        """What the lesson is called: "5", or "5b" for one that comes between "5" and "6"."""
        return self._prefix.removeprefix("0")

    @property
    def notebook(self) -> str:
        """The file name of its notebook, in ``notebooks/`` and in ``notebooks/solutions/``."""
        return f"{self.name}.ipynb"

    @property
    def checks(self) -> str:
        """The module of ``tutorial_lib.checks`` with its exercises, "lesson05"."""
        return f"lesson{self._prefix}"

    @property
    def _prefix(self) -> str:
        """What its name begins with, "05" or "05b"."""
        return self.name.partition("_")[0]


LESSONS = (
    Lesson(
        "00_start_here",
        title="Start here",
        goal="draw 64 digits, watch one drown in noise and come back",
        minutes=10,
        teaches=("datasets",),
        images=80,
    ),
    Lesson(
        "01_noise_schedules",
        title="Noise schedules",
        goal="say how much noise comes when, and how pure the last picture is",
        minutes=60,
        teaches=("schedules",),
        train_steps=250,
    ),
    Lesson(
        "02_closed_form_jump",
        title="The closed-form jump",
        goal="jump to any step at once, and find the way one step back",
        minutes=60,
        teaches=("forward",),
        train_steps=250,
    ),
    Lesson(
        "03_epsilon_loss",
        title="The epsilon loss",
        goal="write the loss, and compare a small network with the exact answer",
        minutes=60,
        teaches=("oracles", "losses", "predictions"),
        train_steps=900,
    ),
    Lesson(
        "04_tiny_unet",
        title="TinyUNet",
        goal="build the network, and see why each of its parts is there",
        minutes=60,
        teaches=("networks", "unet"),
        train_steps=1300,
    ),
    Lesson(
        "05_training",
        title="Training",
        goal="train a network that is yours, and watch its samples improve",
        minutes=60,
        teaches=("training",),
        train_steps=950,
        images=60,
    ),
    Lesson(
        "05b_training_for_real",
        title="Training for real",
        goal="train in 16 bits, stop and resume, share a run among GPUs (optional)",
        minutes=30,
        train_steps=200,
    ),
    Lesson(
        "06_ddpm_vs_ddim",
        title="DDPM against DDIM",
        goal="walk back from noise in two ways, in 1000 steps and in 20",
        minutes=60,
        teaches=("samplers",),
        train_steps=400,
        images=250,
    ),
    Lesson(
        "07_cosine_schedule",
        title="The cosine schedule",
        goal="build the cosine schedule, and find out whether it is better",
        minutes=60,
        teaches=("metrics", "features"),
        train_steps=750,
        images=25,
    ),
    Lesson(
        "08_guidance",
        title="Guidance",
        goal="train a model that draws the digit you ask for, and turn its dial",
        minutes=60,
        teaches=("guidance",),
        train_steps=200,
        images=420,
    ),
    Lesson(
        "09_fast_solvers",
        title="Fast solvers",
        goal="draw digits with ten evaluations instead of fifty, and say how likely a point is",
        minutes=60,
        teaches=(
            "samplers.euler",
            "samplers.euler_ancestral",
            "samplers.heun",
            "samplers.dpm_solver",
            "samplers.karras_spaced",
            "samplers.SPACINGS",
        ),
        images=60,
    ),
    Lesson(
        "10_flow_matching",
        title="Flow matching",
        goal="join noise and data by straight lines, and draw in a single step",
        minutes=60,
        teaches=("flows",),
        images=30,
    ),
    Lesson(
        "11_editing",
        title="Editing",
        goal="complete, change and enlarge pictures with a model never trained for it",
        minutes=60,
        teaches=("editing",),
        images=500,
    ),
    Lesson(
        "12_latent_diffusion",
        title="Latent diffusion",
        goal="train an autoencoder, and draw pictures in its latents",
        minutes=50,
        teaches=("latents", "autoencoders", "networks.autoencoder", "training.autoencoder"),
        train_steps=600,
        images=100,
    ),
    Lesson(
        "13_pictures_from_words",
        title="Pictures from words",
        goal="type a sentence and get its picture, and teach the model a word it never saw",
        minutes=60,
        teaches=("networks.attention", "networks.text", "networks.lora", "networks.contrastive"),
        train_steps=900,
        images=300,
    ),
)
"""Every lesson, in the order of the course. Amounts of computing are estimates."""


def taught_in(name: str) -> Lesson | None:
    """The lesson that teaches ``name``, a dotted name below ``tutorial_lib``.

    The closest entry counts: where one lesson teaches "samplers" and a later one "samplers.heun",
    "samplers.ddim" belongs to the first. None for what no lesson teaches, such as "plots".
    """
    lessons = {taught: lesson for lesson in LESSONS for taught in lesson.teaches}
    while name:
        if name in lessons:
            return lessons[name]
        name = name.rpartition(".")[0]
    return None
