"""The playground: draw points, train a small network on them, watch particles flow back.

Training runs in a thread of the kernel, so the kernel keeps answering. The browser's requests are
messages, which the thread that handles widgets answers at once (``Tell.HEARD``); the playground's
own thread sends what it computes. Neither side waits for the other: if the kernel is silent the
browser says so, and the thread ends with the last view, with the playground, or with the kernel.
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
from tutorial_lib.explorers.shared import base, wire
from tutorial_lib.oracles import DatasetOracle
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import NoiseSchedule, linear_schedule

PARTICLES = 500
READY_POINTS = 400  # of a ready shape
MAX_SECONDS = 60.0  # of training that a message may ask for
_REPORT_EVERY = 0.1  # seconds between two reports of the loss
_PREVIEW_EVERY = 0.5  # seconds between two previews of what the network draws
_PREVIEW_STEPS = 20  # DDIM steps of a preview
_MEAN_OF = 20  # training steps in one point of the loss curve
_GRACE = 10.0  # seconds to wait for a thread to end; it checks every few milliseconds


class Request(NamedTuple):
    """What the browser wants to see.

    Attributes:
        walk: one of ``_points.WALKS``.
        noise: the number of the noise that the particles start from.
        oracle: whether the exact oracle's particles walk, too.
        points: what the oracle knows, int16 pairs.
    """

    walk: str
    noise: int
    oracle: bool
    points: bytes


@dataclass(eq=False)
class Training:
    """One training: what it was given and its progress; times in seconds."""

    points: bytes
    seconds: float
    model: _points.PointNet
    floor: float = float("nan")
    step: int = 0
    began: float = 0.0
    elapsed: float = 0.0
    reported: float = 0.0
    previewed: float = 0.0
    recent: list[float] = field(default_factory=list)
    unreported: list[tuple[float, float]] = field(default_factory=list)

    def note(self, loss: float) -> None:
        """Counts a step; every few steps the mean of their losses is kept for the next report."""
        if not self.step:  # the first step loads half of torch: the clock starts after it
            self.began = time.monotonic()
        self.step += 1
        self.elapsed = time.monotonic() - self.began
        self.recent.append(loss)
        if len(self.recent) == _MEAN_OF:
            self.unreported.append((self.step - _MEAN_OF / 2, float(np.mean(self.recent))))
            self.recent = []


class HaltedError(Exception):
    """What is being computed is no longer wanted."""


_running: "weakref.WeakSet[Playground]" = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Ends every thread before the interpreter shuts down."""
    for playground in list(_running):
        playground.halt()


def _as_bytes(value: Any, widget: Any) -> bytes:
    """A buffer from the browser, which arrives as a memoryview."""
    return bytes(value)


class Playground(base.Explorer, folder="playground"):
    """Draw points, train a small network on them for some seconds, watch noise flow back to them.

    Draw with the mouse, a finger or a pen, or move the cursor with its sliders and press *Add
    points*, or choose a ready shape. *Train* trains in the kernel, on the CPU; then particles walk
    from noise to data by DDPM or DDIM. The particles of the exact oracle, which needs no training,
    walk beside them from the same noise. Between the steps of a walk particles move on straight
    lines.

    Nothing is computed before a button is pressed. Afterwards ``playground.model`` is the trained
    network and ``playground.points`` the points as drawn, ready for code of your own.

    Args:
        schedule: noises the points, at least 50 steps; by default the linear one of 1000 steps.
        points: points of your own to begin with, (N, 2), 2 to 600 of them, each in [-3, 3]^2.
        shape: the ready shape to begin with if there are no ``points``.
        seed: of the ready shapes, the network's first weights, the training and the noise.

    Raises:
        TypeError, ValueError: an invalid schedule, shape or seed, or invalid points.
    """

    standalone = False
    shapes = traitlets.Bytes().tag(sync=True)
    shape_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    shape_counts = traitlets.List(traitlets.Int()).tag(sync=True)
    walk_names = traitlets.List(traitlets.Unicode(), list(_points.WALKS)).tag(sync=True)
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
        self._request: Request | None = None
        self._training: Training | None = None  # to be trained, or in training
        self._trained: Training | None = None
        self._losses: list[tuple[float, float]] = []
        self._sent: dict[str, tuple | None] = {}  # who walked: for which request
        self._walks: dict[str, tuple[dict, list[bytes]]] = {}  # who walked: the message
        super().__init__(
            shapes=b"".join(map(base.eps_bytes, ready.values())),
            shape_names=list(ready),
            shape_counts=[len(found) for found in ready.values()],
            shape=first,
            drawn=base.eps_bytes(ready[first]),
            num_steps=self._schedule.num_steps,
            alpha_bar=base.float_bytes(self._schedule.alpha_bar),
        )
        self.on_msg(self._on_message)

    @property
    def points(self) -> Tensor:
        """The points as drawn now, (N, 2) float32."""
        return _decoded(self.drawn)

    @property
    def model(self) -> _points.PointNet:
        """The network trained last, called as ``eps_hat = model(x_t, t)``.

        Raises:
            RuntimeError: nothing has been trained yet.
        """
        if self._trained is None:
            raise RuntimeError("nothing has been trained yet: press Train in the playground first")
        return self._trained.model

    def halt(self) -> None:
        """Stops what is being computed, and waits until it has ended."""
        with self._lock:
            thread = self._thread
            self._quit.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_GRACE)

    def close(self) -> None:
        """Stops what is being computed and removes the widget from all views."""
        self.halt()
        super().close()

    @traitlets.validate("drawn")
    def _check_drawn(self, proposal: Any) -> bytes:
        value = proposal["value"]
        if len(value) % 4 or len(value) > 4 * wire.POINTS_MAX:
            raise traitlets.TraitError(
                f"drawn must be up to {wire.POINTS_MAX} pairs of int16, got {len(value)} bytes"
            )
        return value

    # Messages from the browser.

    def _on_message(self, _: Any, content: dict, buffers: list) -> None:
        """Answers one message; an invalid one is refused with a reason."""
        try:
            kind = _validate.one_of("kind", content.get("kind"), _ASKS)
            if kind == wire.Ask.BYE:
                self._leave(content.get("view", ""))
                return
            if kind == wire.Ask.HELLO:
                self._views.add(content.get("view", ""))
                self._send_all()
                return
            if kind == wire.Ask.STOP:
                self._stop.set()
            else:
                self._start_work(kind, content, buffers)
            self._tell(wire.Tell.HEARD)
        except (TypeError, ValueError) as error:
            self._tell(wire.Tell.REFUSED, {"text": str(error)})

    def _start_work(self, kind: str, content: dict, buffers: list) -> None:
        """Notes what is wanted, and starts the thread if it has ended."""
        points = _as_bytes(buffers[0], self) if buffers else b""
        drawn = _decoded(points)
        if kind == wire.Ask.TRAIN or len(drawn) >= wire.POINTS_MIN:
            drawn = _check_points(drawn)
        request = Request(
            _validate.one_of("walk", content.get("walk"), _points.WALKS),
            _validate.whole_number("noise", content.get("noise"), at_least=0),
            content.get("oracle") is True and len(drawn) >= wire.POINTS_MIN,
            points,
        )
        training = None
        if kind == wire.Ask.TRAIN:
            seconds = _validate.number("seconds", content.get("seconds"), low=0.1, high=MAX_SECONDS)
            generator = torch.Generator().manual_seed(self._seed)
            net = _points.PointNet(self._schedule.num_steps, generator=generator)
            training = Training(base.eps_bytes(drawn), seconds, net)
        with self._lock:
            self._request = request
            if training is not None:
                self._training = training
                self._stop.clear()
            if self._thread is None or self._quit.is_set():
                self._quit = threading.Event()
                self._thread = threading.Thread(
                    target=self._work,
                    args=(self._quit, self._thread),
                    name="playground",
                    daemon=True,
                )
                _running.add(self)
                self._thread.start()

    def _leave(self, view: str) -> None:
        """Forgets a view that is gone; after the last one the work stops."""
        self._views.discard(view)
        if not self._views:
            with self._lock:
                self._quit.set()

    def _send_all(self) -> None:
        """Sends everything that a new view has missed."""
        with self._lock:
            training = self._training or self._trained
            state: dict[str, Any] = {"running": self._thread is not None}
            losses, walks = list(self._losses), list(self._walks.values())
        if training is not None:
            state |= _about(training) | {"training": training is self._training}
        self._tell(wire.Tell.STATE, state, [_pairs(losses)])
        for content, buffers in walks:
            self._tell(wire.Tell.WALKED, content, buffers)

    def _tell(
        self, kind: wire.Tell, content: dict | None = None, buffers: list[bytes] | None = None
    ) -> None:
        self.send({"kind": kind, **(content or {})}, buffers)

    # The thread's work.

    def _work(self, over: threading.Event, before: threading.Thread | None) -> None:
        """Works until nothing more is wanted, or until ``over`` is set."""
        if before is not None:
            before.join()
        failed = False
        while (task := self._next(over, failed)) is not None:
            failed = False
            try:
                if isinstance(task, Training):
                    self._train(task, over)
                else:
                    self._show_walk(task, over)
            except HaltedError:
                continue
            except Exception as error:  # shown in the view: there is no cell to show it below
                failed = True
                self._tell(wire.Tell.FAILED, {"text": f"{type(error).__name__}: {error}"})

    def _next(self, over: threading.Event, failed: bool) -> Training | str | None:
        """A training to run, or whose particles are to walk; None if nothing is left to do."""
        with self._lock:
            if self._quit is not over:  # another thread is waiting for this one to end
                return None
            if not over.is_set() and not failed:
                if self._training is not None:
                    return self._training
                for who in wire.Who:
                    if self._wanted(who) not in (None, self._sent.get(who)):
                        return who
            self._training = self._thread = None
            _running.discard(self)
            self._tell(wire.Tell.IDLE)  # in the lock: a new thread's messages must come after it
            return None

    def _wanted(self, who: str) -> tuple | None:
        """What a walk depends on; None if none is wanted or possible."""
        request = self._request
        if request is None:
            return None
        if who == wire.Who.NETWORK:
            # Each training is a new object; its id alone could be used again.
            return self._trained and (request.walk, request.noise, self._trained)
        return (request.walk, request.noise, request.points) if request.oracle else None

    def _train(self, training: Training, over: threading.Event) -> None:
        """Trains until the time is over or *Stop* is pressed, and keeps what was learned."""
        points = _decoded(training.points)
        generator = torch.Generator().manual_seed(self._seed + 1)
        with self._lock:
            self._losses = []
        self._tell(wire.Tell.STARTED, _about(training))
        training.floor = _points.floor(self._schedule, points, generator)

        def share() -> float:
            ended = over.is_set() or self._stop.is_set() or self._training is not training
            return 1.0 if ended else training.elapsed / training.seconds

        for loss in _points.fit(training.model, self._schedule, points, share, generator):
            training.note(loss)
            if training.elapsed - training.reported >= _REPORT_EVERY:
                self._report_progress(training)
        self._report_progress(training)
        training.model.eval()
        with self._lock:
            if self._training is not training:  # a newer one waits
                return
            self._trained, self._training = training, None
        self._tell(wire.Tell.TRAINED, {"stopped": self._stop.is_set()} | _about(training))

    def _report_progress(self, training: Training) -> None:
        preview = b""
        if training.elapsed - training.previewed >= _PREVIEW_EVERY:
            training.previewed, preview = training.elapsed, self._preview(training.model)
        losses, training.unreported, training.reported = training.unreported, [], training.elapsed
        with self._lock:
            self._losses += losses
        self._tell(wire.Tell.PROGRESS, _about(training), [_pairs(losses), preview])

    def _preview(self, model: _points.PointNet) -> bytes:
        """Where the particles would end with the network as it is now."""
        request = self._request
        assert request is not None  # training starts with a request
        steps = evenly_spaced(self._schedule.num_steps, _PREVIEW_STEPS)
        return base.eps_bytes(
            last(ddim(model, self._schedule, self._start(request.noise)[0], steps))
        )

    def _start(self, noise: int) -> tuple[Tensor, torch.Generator]:
        """x_T (particles, 2), and the generator of the noise on a walk from there."""
        generator = torch.Generator().manual_seed((self._seed + noise + 2) % 2**63)
        return normal_like(torch.empty(PARTICLES, 2), generator), generator

    def _show_walk(self, who: str, over: threading.Event) -> None:
        """Computes the walk of the network's or the oracle's particles, and sends the states."""
        with self._lock:
            wanted, request, trained = self._wanted(who), self._request, self._trained
        assert request is not None  # otherwise nothing was wanted
        if who == wire.Who.ORACLE:
            known = request.points
            model: EpsModel = DatasetOracle(self._schedule, _decoded(known))
        else:
            assert trained is not None  # as above
            known, model = trained.points, trained.model
        self._tell(wire.Tell.WALKING, {"who": who})
        x_T, generator = self._start(request.noise)
        steps, states = [], []
        for t, x_t in _points.frames(model, self._schedule, x_T, request.walk, generator):
            if over.is_set() or self._wanted(who) != wanted or self._training is not None:
                raise HaltedError
            if x_t is not None:
                steps.append(t)
                states.append(x_t)
        content = {"who": who, "walk": request.walk, "steps": steps}
        buffers = [base.eps_bytes(torch.stack(states)), known]
        with self._lock:
            self._sent[who] = wanted
            self._walks[who] = (content, buffers)
        self._tell(wire.Tell.WALKED, content, buffers)

    def _advice(self) -> str:
        return "fewer points"

    def _summary(self) -> str:
        what = "points drawn by hand" if self.shape == "" else f"points ({self.shape})"
        learned = "no network is trained yet"
        if self._trained is not None:
            near = _points.share_near(self._ends(), _decoded(self._trained.points), wire.NEAR)
            learned = f"of a network trained on such points for {self._trained.step} steps, "
            learned += f"{near:.0%} of {PARTICLES} particles end near them"
        return f"A playground with {len(self.points)} {what}; {learned}."

    def _still(self) -> Figure:
        figure, (axes,) = plots.panels(1, width=4.2, height=4.2)
        edge = wire.PLANE_EDGE
        axes.scatter(*self.points.T, marker="x", s=14, color=plots.COLORS[1], lw=1, label="data")
        if self._trained is not None:
            axes.scatter(*self._ends().T, s=6, color=plots.COLORS[0], label="particles")
            axes.legend(loc="upper right", fontsize=8)
        axes.set(aspect="equal", xlim=(-edge, edge), ylim=(-edge, edge))
        return figure

    def _ends(self) -> Tensor:
        """Where the network's particles end after a walk by DDIM, (particles, 2)."""
        steps = evenly_spaced(self._schedule.num_steps, _PREVIEW_STEPS)
        return last(ddim(self.model, self._schedule, self._start(self.noise)[0], steps))


_ASKS = tuple(ask.value for ask in wire.Ask if ask is not wire.Ask.NOISE)


def _about(training: Training) -> dict[str, Any]:
    """The progress of a training, for a message; an unknown floor is None (JSON has no NaN)."""
    return {
        "step": training.step,
        "elapsed": round(training.elapsed, 2),
        "seconds": training.seconds,
        "floor": training.floor if training.floor == training.floor else None,
    }


def _pairs(losses: list[tuple[float, float]]) -> bytes:
    """(step, loss) as float32, one pair after the other."""
    return np.asarray(losses, np.float32).tobytes()


def _decoded(points: bytes) -> Tensor:
    """int16 pairs as points (N, 2) float32."""
    if len(points) % 4:
        raise ValueError(f"points must be pairs of int16, 4 bytes each; got {len(points)} bytes")
    numbers = np.frombuffer(points, "<i2").astype(np.float32) / wire.EPS_SCALE
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
    """``points`` as (N, 2) float32 on the CPU; their number and coordinates are checked."""
    tensor = _validate.batch("points", points).detach().cpu().float()
    if (
        tensor.ndim != 2
        or tensor.shape[1] != 2
        or not wire.POINTS_MIN <= len(tensor) <= wire.POINTS_MAX
    ):
        shape = tuple(tensor.shape)
        sizes = f"{wire.POINTS_MIN}..{wire.POINTS_MAX}"
        raise ValueError(f"points must have shape (N, 2) with N in {sizes}, got {shape}")
    farthest = float(tensor.abs().max())
    if farthest > wire.PLANE_EDGE:
        edge = wire.PLANE_EDGE
        raise ValueError(
            f"points must lie in [-{edge}, {edge}] x [-{edge}, {edge}], "
            f"got a coordinate of {farthest:g}"
        )
    return tensor
