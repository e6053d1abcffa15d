"""The playground: draw points, train a small network on them, watch particles flow back.

Training runs in a thread of the kernel, so that the kernel goes on answering. What the browser
asks for comes as a message and is answered at once ("heard"), by whichever thread the kernel gives
to widgets; the playground's own thread sends what it has computed. Nobody waits for anybody: where
the kernel is silent the browser says so, and a view that is closed, a playground that is closed or
a kernel that ends stops the thread.
"""

import atexit
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _validate, plots
from tutorial_lib._random import normal_like
from tutorial_lib._typing import EpsModel
from tutorial_lib.explorers.playground import points as _points
from tutorial_lib.explorers.shared import base as _base
from tutorial_lib.oracles import DatasetOracle
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import NoiseSchedule, linear_schedule

FEWEST_POINTS, MOST_POINTS = 2, 600
"""Points to train on, and that the exact oracle knows: with more its walks take too long."""
PARTICLES = 500
READY_POINTS = 400  # of a ready shape
LONGEST = 60.0  # seconds of training that a message may ask for
_TELL_EVERY = 0.1  # seconds between two words about the loss
_LOOK_EVERY = 0.5  # seconds between two looks at what the network draws
_MEAN_OF = 20  # training steps to one point of the loss curve
_LOOK = 20  # DDIM steps of such a look
_GRACE = 10.0  # seconds to wait for a thread to end; it looks up every few milliseconds


class Wish(NamedTuple):
    """What the browser wants to see.

    Attributes:
        walk: one of ``_points.WALKS``.
        noise: the number of the noise that the particles start from.
        oracle: whether the exact oracle is to walk too.
        points: what the oracle knows, int16 pairs.
    """

    walk: str
    noise: int
    oracle: bool
    points: bytes


@dataclass(eq=False)
class Course:
    """A training: what it was given and how far it has come; times in seconds."""

    points: bytes
    seconds: float
    model: _points.PointNet
    floor: float = float("nan")
    step: int = 0
    began: float = 0.0
    elapsed: float = 0.0
    told: float = 0.0
    looked: float = 0.0
    recent: list[float] = field(default_factory=list)
    unsaid: list[tuple[float, float]] = field(default_factory=list)

    def note(self, loss: float) -> None:
        """Counts a step, and every few steps keeps the mean of their losses."""
        if not self.step:  # the first step loads half of torch: the clock starts behind it
            self.began = time.monotonic()
        self.step += 1
        self.elapsed = time.monotonic() - self.began
        self.recent.append(loss)
        if len(self.recent) == _MEAN_OF:
            self.unsaid.append((self.step - _MEAN_OF / 2, float(np.mean(self.recent))))
            self.recent = []


class HaltedError(Exception):
    """Nobody wants the rest of what is being computed."""


_at_work: "weakref.WeakSet[Playground]" = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """No thread may compute while the interpreter goes down under it."""
    for playground in list(_at_work):
        playground.halt()


def _as_bytes(value: Any, widget: Any) -> bytes:
    """A buffer from the browser, which arrives as a memoryview."""
    return bytes(value)


class Playground(_base.Explorer, script="playground/widget.js"):
    """Draw points, train a small network on them for some seconds, watch noise flow back to them.

    Draw with the mouse, a finger or a pen, or move the cursor with its sliders and press *Add
    points*, or choose a ready shape. *Train* trains in the kernel, on the CPU; then particles walk
    from noise to data by DDPM or DDIM. Beside them walk, from the same noise, those of the exact
    oracle, which needs no training. Between the steps of a walk particles move on straight lines.

    Nothing is computed before a press. Afterwards ``playground.model`` is the trained network and
    ``playground.points`` what was drawn, ready for code of your own.

    Args:
        schedule: noises the points, at least 50 steps; by default the linear one of 1000 steps.
        points: points of your own to begin with, (N, 2), 2 to 600 of them, each in [-3, 3]^2.
        shape: the ready shape to begin with, where there are no ``points``.
        seed: of the ready shapes, the network's first weights, the training and the noise.

    Raises:
        TypeError, ValueError: an invalid schedule, shape or seed, or invalid points.
    """

    title = "Playground"
    standalone = False
    shapes = traitlets.Bytes().tag(sync=True)
    shape_names = traitlets.List().tag(sync=True)
    shape_counts = traitlets.List().tag(sync=True)
    walk_names = traitlets.List(list(_points.WALKS)).tag(sync=True)
    most_points = traitlets.Int(MOST_POINTS).tag(sync=True)
    particles = traitlets.Int(PARTICLES).tag(sync=True)
    num_steps = traitlets.Int(1000).tag(sync=True)
    alpha_bar = traitlets.Bytes().tag(sync=True)
    drawn = traitlets.Bytes().tag(sync=True, from_json=_as_bytes)
    shape = traitlets.Unicode().tag(sync=True)
    cursor_x = traitlets.Float(0.0).tag(sync=True)
    cursor_y = traitlets.Float(0.0).tag(sync=True)
    seconds = traitlets.Float(5.0).tag(sync=True)
    walk = traitlets.Unicode(next(iter(_points.WALKS))).tag(sync=True)
    noise = traitlets.Int(0, min=0).tag(sync=True)
    oracle = traitlets.Bool(False).tag(sync=True)
    paths = traitlets.Bool(False).tag(sync=True)
    t = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        schedule: NoiseSchedule | None = None,
        *,
        points: Tensor | None = None,
        shape: str = "two moons",
        seed: int = 0,
    ) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._quit = threading.Event()  # the thread is to end
        self._stop = threading.Event()  # the training is to end
        self._schedule = _check_schedule(schedule)
        self._seed = _validate.seed("seed", seed)
        _validate.one_of("shape", shape, _points.SHAPES)
        ready = {} if points is None else {"your points": _check_points(points)}
        for name in _points.SHAPES:
            generator = torch.Generator().manual_seed(self._seed)
            ready[name] = _points.shape_points(name, READY_POINTS, generator)
        first = shape if points is None else "your points"
        self._views: set[str] = set()
        self._wish: Wish | None = None
        self._course: Course | None = None  # to be trained, or in training
        self._trained: Course | None = None
        self._losses: list[tuple[float, float]] = []
        self._sent: dict[str, tuple | None] = {}  # who walked: for which wish
        self._walks: dict[str, tuple[dict, list[bytes]]] = {}  # who walked: the message
        super().__init__(
            shapes=b"".join(map(_base.eps_bytes, ready.values())),
            shape_names=list(ready),
            shape_counts=[len(found) for found in ready.values()],
            shape=first,
            drawn=_base.eps_bytes(ready[first]),
            num_steps=self._schedule.num_steps,
            alpha_bar=_base.float_bytes(self._schedule.alpha_bar),
        )
        self.on_msg(self._hear)

    @property
    def points(self) -> Tensor:
        """The points as drawn now, (N, 2) float32."""
        return _decoded(self.drawn)

    @property
    def model(self) -> _points.PointNet:
        """The network trained last, ready to be asked: ``eps_hat = model(x_t, t)``.

        Raises:
            RuntimeError: nothing has been trained yet.
        """
        if self._trained is None:
            raise RuntimeError("nothing has been trained yet: press Train in the playground first")
        return self._trained.model

    def halt(self) -> None:
        """Ends what is being computed, and waits for the end."""
        with self._lock:
            thread = self._thread
            self._quit.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_GRACE)

    def close(self) -> None:
        """Ends what is being computed and takes the widget out of all views."""
        self.halt()
        super().close()

    @traitlets.validate("drawn")
    def _check_drawn(self, proposal: Any) -> bytes:
        value = proposal["value"]
        if len(value) % 4 or len(value) > 4 * MOST_POINTS:
            raise traitlets.TraitError(
                f"drawn must be up to {MOST_POINTS} pairs of int16, got {len(value)} bytes"
            )
        return value

    # What comes from the browser.

    def _hear(self, _: Any, content: dict, buffers: list) -> None:
        """Answers one message; a wrong one is refused in words."""
        try:
            kind = _validate.one_of("kind", content.get("kind"), ("hello", "bye", *_ASKS))
            if kind == "bye":
                self._leave(content.get("view", ""))
                return
            if kind == "hello":
                self._views.add(content.get("view", ""))
                self._tell_all()
                return
            if kind == "stop":
                self._stop.set()
            else:
                self._ask(kind, content, buffers)
            self._tell({"kind": "heard"})
        except (TypeError, ValueError) as error:
            self._tell({"kind": "refused", "text": str(error)})

    def _ask(self, kind: str, content: dict, buffers: list) -> None:
        """Notes what is wanted, and wakes the thread."""
        points = _as_bytes(buffers[0], self) if buffers else b""
        drawn = _decoded(points)
        if kind == "train" or len(drawn) >= FEWEST_POINTS:
            drawn = _check_points(drawn)
        wish = Wish(
            _validate.one_of("walk", content.get("walk"), _points.WALKS),
            _validate.whole_number("noise", content.get("noise"), at_least=0),
            content.get("oracle") is True and len(drawn) >= FEWEST_POINTS,
            points,
        )
        course = None
        if kind == "train":
            seconds = _validate.number("seconds", content.get("seconds"), low=0.1, high=LONGEST)
            generator = torch.Generator().manual_seed(self._seed)
            net = _points.PointNet(self._schedule.num_steps, generator=generator)
            course = Course(_base.eps_bytes(drawn), seconds, net)
        with self._lock:
            self._wish = wish
            if course is not None:
                self._course = course
                self._stop.clear()
            if self._thread is None or self._quit.is_set():
                self._quit = threading.Event()
                self._thread = threading.Thread(
                    target=self._work,
                    args=(self._quit, self._thread),
                    name="playground",
                    daemon=True,
                )
                _at_work.add(self)
                self._thread.start()

    def _leave(self, view: str) -> None:
        """A view is gone; nobody is left to compute for when it was the last."""
        self._views.discard(view)
        if not self._views:
            with self._lock:
                self._quit.set()

    def _tell_all(self) -> None:
        """All that a new view has missed."""
        with self._lock:
            course = self._course or self._trained
            state = {"kind": "state", "running": self._thread is not None}
            losses, walks = list(self._losses), list(self._walks.values())
        if course is not None:
            state |= _about(course) | {"training": course is self._course}
        self._tell(state, [_pairs(losses)])
        for content, buffers in walks:
            self._tell(content, buffers)

    def _tell(self, content: dict, buffers: list[bytes] | None = None) -> None:
        self.send(content, buffers)

    # What the thread does.

    def _work(self, over: threading.Event, before: threading.Thread | None) -> None:
        """Does what is wanted until nothing is left, or until it is ``over``."""
        if before is not None:
            before.join()
        failed = False
        while (task := self._next(over, failed)) is not None:
            failed = False
            try:
                if isinstance(task, Course):
                    self._train(task, over)
                else:
                    self._show_walk(task, over)
            except HaltedError:
                continue
            except Exception as error:  # whoever pressed the button is told, there is no cell
                failed = True
                self._tell({"kind": "failed", "text": f"{type(error).__name__}: {error}"})

    def _next(self, over: threading.Event, failed: bool) -> Course | str | None:
        """A course to train, or who is to walk; None where the thread has nothing left to do."""
        with self._lock:
            if self._quit is not over:  # another thread waits for this one's end
                return None
            if not over.is_set() and not failed:
                if self._course is not None:
                    return self._course
                for who in ("network", "oracle"):
                    if self._wanted(who) not in (None, self._sent.get(who)):
                        return who
            self._course = self._thread = None
            _at_work.discard(self)
            self._tell({"kind": "idle"})  # in the lock: a new thread's words must come after it
            return None

    def _wanted(self, who: str) -> tuple | None:
        """What a walk depends on; None where there is none to take."""
        wish = self._wish
        if wish is None:
            return None
        if who == "network":
            # a course is a new object each time; its id alone could be used again
            return self._trained and (wish.walk, wish.noise, self._trained)
        return (wish.walk, wish.noise, wish.points) if wish.oracle else None

    def _train(self, course: Course, over: threading.Event) -> None:
        """Trains until the time is over or *Stop* is pressed; what is learned by then stays."""
        points = _decoded(course.points)
        generator = torch.Generator().manual_seed(self._seed + 1)
        with self._lock:
            self._losses = []
        self._tell({"kind": "started"} | _about(course))
        course.floor = _points.floor(self._schedule, points, generator)

        def share() -> float:
            ended = over.is_set() or self._stop.is_set() or self._course is not course
            return 1.0 if ended else course.elapsed / course.seconds

        for loss in _points.fit(course.model, self._schedule, points, share, generator):
            course.note(loss)
            if course.elapsed - course.told >= _TELL_EVERY:
                self._tell_progress(course)
        self._tell_progress(course)
        course.model.eval()
        with self._lock:
            if self._course is not course:  # a newer one waits
                return
            self._trained, self._course = course, None
        self._tell({"kind": "trained", "stopped": self._stop.is_set()} | _about(course))

    def _tell_progress(self, course: Course) -> None:
        look = b""
        if course.elapsed - course.looked >= _LOOK_EVERY:
            course.looked, look = course.elapsed, self._look(course.model)
        losses, course.unsaid, course.told = course.unsaid, [], course.elapsed
        with self._lock:
            self._losses += losses
        self._tell({"kind": "progress"} | _about(course), [_pairs(losses), look])

    def _look(self, model: _points.PointNet) -> bytes:
        """Where the particles end if the network is used as it is now."""
        wish = self._wish
        assert wish is not None  # who trains has asked for it
        steps = evenly_spaced(self._schedule.num_steps, _LOOK)
        return _base.eps_bytes(last(ddim(model, self._schedule, self._start(wish.noise)[0], steps)))

    def _start(self, noise: int) -> tuple[Tensor, torch.Generator]:
        """x_T (particles, 2), and where a walk from there takes its noise from."""
        generator = torch.Generator().manual_seed((self._seed + noise + 2) % 2**63)
        return normal_like(torch.empty(PARTICLES, 2), generator), generator

    def _show_walk(self, who: str, over: threading.Event) -> None:
        """Walks the particles of the network or of the oracle, and sends the states."""
        with self._lock:
            wanted, wish, trained = self._wanted(who), self._wish, self._trained
        assert wish is not None  # else nothing was wanted
        if who == "oracle":
            known = wish.points
            model: EpsModel = DatasetOracle(self._schedule, _decoded(known))
        else:
            assert trained is not None  # nor here
            known, model = trained.points, trained.model
        self._tell({"kind": "walking", "who": who})
        x_T, generator = self._start(wish.noise)
        steps, states = [], []
        for t, x_t in _points.frames(model, self._schedule, x_T, wish.walk, generator):
            if over.is_set() or self._wanted(who) != wanted or self._course is not None:
                raise HaltedError
            if x_t is not None:
                steps.append(t)
                states.append(x_t)
        content = {"kind": "walk", "who": who, "walk": wish.walk, "steps": steps}
        buffers = [_base.eps_bytes(torch.stack(states)), known]
        with self._lock:
            self._sent[who] = wanted
            self._walks[who] = (content, buffers)
        self._tell(content, buffers)

    def _less(self) -> str:
        return "fewer points"

    def _says(self) -> str:
        what = "points drawn by hand" if self.shape == "" else f"points ({self.shape})"
        learned = "no network is trained yet"
        if self._trained is not None:
            near = _points.share_near(self._ends(), _decoded(self._trained.points), NEAR)
            learned = f"a network trained on such for {self._trained.step} steps ends near them "
            learned += f"with {near:.0%} of {PARTICLES} particles"
        return f"A playground with {len(self.points)} {what}; {learned}."

    def _still(self) -> Figure:
        figure, (axes,) = plots.panels(1, width=4.2, height=4.2)
        edge = _points.EDGE
        axes.scatter(*self.points.T, marker="x", s=14, color=plots.COLOURS[1], lw=1, label="data")
        if self._trained is not None:
            axes.scatter(*self._ends().T, s=6, color=plots.COLOURS[0], label="particles")
            axes.legend(loc="upper right", fontsize=8)
        axes.set(aspect="equal", xlim=(-edge, edge), ylim=(-edge, edge))
        return figure

    def _ends(self) -> Tensor:
        """Where the network's particles end by DDIM, (particles, 2)."""
        steps = evenly_spaced(self._schedule.num_steps, _LOOK)
        return last(ddim(self.model, self._schedule, self._start(self.noise)[0], steps))


NEAR = 0.15
"""A particle this close to a point "lies near the data"."""
_ASKS = ("train", "walk", "stop")


def _about(course: Course) -> dict[str, Any]:
    """How far a course has come, for a message; a floor not yet known is None (NaN is no JSON)."""
    return {
        "step": course.step,
        "elapsed": round(course.elapsed, 2),
        "seconds": course.seconds,
        "floor": course.floor if course.floor == course.floor else None,
    }


def _pairs(losses: list[tuple[float, float]]) -> bytes:
    """(step, loss) as float32, one pair after the other."""
    return np.asarray(losses, np.float32).tobytes()


def _decoded(points: bytes) -> Tensor:
    """int16 pairs as points (N, 2) float32."""
    if len(points) % 4:
        raise ValueError(f"points must be pairs of int16, 4 bytes each; got {len(points)} bytes")
    numbers = np.frombuffer(points, "<i2").astype(np.float32) / _base.EPS_SCALE
    return torch.from_numpy(numbers.reshape(-1, 2))


def _check_schedule(schedule: NoiseSchedule | None) -> NoiseSchedule:
    """The schedule on the CPU, the linear one by default."""
    if schedule is None:
        return linear_schedule()
    if not isinstance(schedule, NoiseSchedule):
        came = _validate.describe(schedule)
        raise TypeError(f"schedule must be a NoiseSchedule, got {came}")
    if schedule.num_steps < 50:
        raise ValueError(f"schedule must have at least 50 steps, got {schedule.num_steps}")
    return schedule.to(torch.device("cpu"))


def _check_points(points: Tensor) -> Tensor:
    """``points`` as (N, 2) float32 on the CPU, 2 to ``MOST_POINTS`` of them within the plane."""
    tensor = _validate.batch("points", points).detach().cpu().float()
    if tensor.ndim != 2 or tensor.shape[1] != 2 or not FEWEST_POINTS <= len(tensor) <= MOST_POINTS:
        shape = tuple(tensor.shape)
        sizes = f"{FEWEST_POINTS}..{MOST_POINTS}"
        raise ValueError(f"points must have shape (N, 2) with N in {sizes}, got {shape}")
    farthest = float(tensor.abs().max())
    if farthest > _points.EDGE:
        raise ValueError(f"points must lie in [-3, 3] x [-3, 3], got a coordinate of {farthest:g}")
    return tensor
