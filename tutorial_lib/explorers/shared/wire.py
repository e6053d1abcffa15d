"""What an explorer's Python and its script agree on: scales, limits, names, kinds of messages.

The scripts see these as shared/wire.js. ``python tools/build_wire.py`` makes that file, and the
types of the widgets' traits beside it; a test fails when they are stale.
"""

import inspect
from enum import StrEnum
from types import MappingProxyType

from tutorial_lib.schedules import SMALLEST_ALPHA_BAR as SMALLEST_ALPHA_BAR
from tutorial_lib.schedules import cosine_schedule

# Numbers on their way to the browser.

GRAYS_PER_UNIT = 127.5
"""Images travel as bytes: 0 for -1, 255 for 1."""

EPS_SCALE = 4096
"""Noise travels as int16 of eps x 4096: from -8 to 8 in steps that no gray level shows."""

INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1

ALL = -1
"""The choice of all images, or of all classes, where one can be chosen by its number."""

TITLES = MappingProxyType(
    {
        "denoiser": "Denoiser explorer",
        "editing": "Editing explorer",
        "embedding": "Embedding explorer",
        "flows": "Flow explorer",
        "forward": "Forward explorer",
        "guidance": "Guidance explorer",
        "playground": "Playground",
        "receptive": "Receptive-field explorer",
        "schedule": "Schedule explorer",
        "solvers": "Solver explorer",
        "trajectory": "Trajectory explorer",
        "words": "Words explorer",
    }
)

# The denoiser explorer.

EPS_RANGE = 4
"""eps_hat of images travels as a byte for -4 to 4: to half a gray level of what is drawn."""

EPS_SHOWN = 3
"""Noise is drawn from black at -3 to white at 3, so that 1 pixel in 370 is clipped."""


class Arrows(StrEnum):
    """Whose arrows are drawn; ERROR is the model's minus the oracle's."""

    BOTH = "both"
    MODEL = "model"
    ORACLE = "oracle"
    ERROR = "error"


# The editing explorer.

PAINTED = -1
"""The choice of an area that was painted by hand, where others have a name."""

AREAS = ("lower half", "right half", "middle", "everything")
"""What may be redrawn, in the order of the list."""

READY = 3
"""So many areas, the first ones, have completions that were made with the explorer."""

LEAST_STRENGTH = 5
"""The least strength, in percent of the walk."""

# The embedding explorer.

DIM_MIN, DIM_MAX = 4, 128
PERIOD_MIN, PERIOD_MAX = 10, 100_000

# The flow explorer.

FLOW_PATHS = MappingProxyType(
    {"straight": "straight lines", "learned": "learned paths", "reflowed": "reflowed paths"}
)
"""What is shown, and what it is called; all but the first are walks along a flow."""

FLOW_STEPS = (1, 2, 4, 8, 32)
"""Steps of Euler's method, to choose from."""

MANY_STEPS = 64
"""With so many, Euler's method draws the path itself."""

MOMENTS = 200
"""Places of the time slider: time is moment / 200."""

# The receptive-field explorer.

INFLUENCE_DECADES = 3
"""Influence is shown from its largest value down to a thousandth of that, as lesson 4 draws it."""

INFLUENCE_LEVELS = 254
"""Equal steps of its logarithm from byte 1, the least, to byte 255; byte 0 is none at all."""

# The schedule explorer.

FAMILIES = ("linear", "quadratic", "cosine")
STEPS_MIN, STEPS_MAX = 10, 2000
BETA_MIN, BETA_MAX = 1e-5, 0.5
COSINE_OFFSET: float = inspect.signature(cosine_schedule).parameters["offset"].default
COSINE_MAX_BETA: float = inspect.signature(cosine_schedule).parameters["max_beta"].default

# The solver explorer.

SOLVERS = MappingProxyType({"euler": "Euler", "heun": "Heun", "dpm_solver": "DPM-Solver++"})
"""What is raced: names in ``samplers.SAMPLERS``, and what they are called."""

EVALUATIONS_MIN, EVALUATIONS_MAX = 2, 64

# The trajectory explorer.

DDPM, DDIM = "DDPM", "DDIM"

# The words explorer.

MAP_LEVELS = 31
"""Attention maps travel as levels 0 to 31; the highest is the largest share of a word in a walk."""

# The playground.

PLANE_EDGE = 3
"""Points lie in [-3, 3] x [-3, 3]."""

NEAR = 0.15
"""A particle this close to a point "lies near the data"."""

POINTS_MIN, POINTS_MAX = 2, 600
"""Points to train on, and that the exact oracle knows: with more its walks take too long."""

SECONDS = (2, 5, 10, 30)
"""How long a training may take, to choose from."""


class Who(StrEnum):
    """Whose particles walk in the playground."""

    NETWORK = "network"
    ORACLE = "oracle"


# Messages.


class Ask(StrEnum):
    """What a script asks of the kernel."""

    HELLO = "hello"  # a view is there: is a kernel, too?
    BYE = "bye"  # the view is gone
    NOISE = "noise"  # draw other noise
    TRAIN = "train"
    WALK = "walk"
    STOP = "stop"  # end the training
    FILL = "fill"  # redraw the area
    DRAW = "draw"  # draw a sentence


class Tell(StrEnum):
    """What the kernel tells the script."""

    HEARD = "heard"  # the request has arrived
    REFUSED = "refused"  # it is invalid; whatever is being computed goes on
    FAILED = "failed"  # what was asked for raised an error
    STATE = "state"  # what a new view has missed
    STARTED = "started"  # a training has begun
    PROGRESS = "progress"
    TRAINED = "trained"
    WALKING = "walking"  # particles are being walked
    WALKED = "walked"  # their states
    IDLE = "idle"  # nothing is left to compute
    FILLING = "filling"  # what the model has in mind on the way
    FILLED = "filled"  # the completions
    DRAWN = "drawn"  # the sentence is among the others
