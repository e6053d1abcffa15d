"""The playground without a browser: its numbers, and what it answers to messages."""

import re
import threading
import time

import numpy as np
import pytest
import torch

from tests.draws import seeded
from tutorial_lib._random import normal_like
from tutorial_lib.explorers.playground import points as _points
from tutorial_lib.explorers.playground import widget as _playground
from tutorial_lib.explorers.playground.widget import PARTICLES, Playground
from tutorial_lib.explorers.shared import wire
from tutorial_lib.forward import diffuse
from tutorial_lib.losses import epsilon_loss
from tutorial_lib.oracles import DatasetOracle
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced, last
from tutorial_lib.schedules import cosine_schedule, linear_schedule

LINEAR = linear_schedule()
PATIENCE = 60.0  # seconds to wait for a thread; a busy machine is no bug


def steps_of(count: int):
    """A share that is over after ``count`` steps."""
    taken = iter(range(count))
    return lambda: next(taken, count) / count


# What is computed.


@pytest.mark.parametrize("name", _points.SHAPES)
def test_a_shape_lies_in_the_middle_of_the_plane(name: str):
    points = _points.shape_points(name, 400, seeded())
    assert points.shape == (400, 2)
    assert points.dtype == torch.float32
    assert points.abs().max() < 2.6
    assert 0.7 < points.std() < 1.7
    assert len(points.unique(dim=0)) == 400
    torch.testing.assert_close(points, _points.shape_points(name, 400, seeded()), atol=0, rtol=0)


def test_shapes_are_what_they_are_called():
    ring = _points.shape_points("ring", 1000, seeded()).norm(dim=1)
    assert abs(float(ring.mean()) - 1.5) < 0.02
    assert float(ring.std()) < 0.1
    blobs = _points.shape_points("two blobs", 1000, seeded())
    assert 0.2 < float((blobs[:, 0] < 0).float().mean()) < 0.3
    board = _points.shape_points("checkerboard", 1000, seeded())
    squares = (board + 2).floor().long()
    assert ((squares.sum(1) % 2) == 0).all()
    assert len(squares.unique(dim=0)) == 8


def test_nothing_draws_from_the_global_generator():
    before = torch.get_rng_state()
    for name in _points.SHAPES:
        _points.shape_points(name, 50, seeded())
    net = _points.PointNet(100, generator=seeded())
    points = _points.shape_points("ring", 50, seeded())
    list(_points.fit(net, linear_schedule(100), points, steps_of(3), seeded()))
    _points.floor(linear_schedule(100), points, seeded())
    list(_points.frames(net, linear_schedule(100), points, "DDPM, every step", seeded()))
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_the_network_begins_with_the_answer_0():
    net = _points.PointNet(1000, generator=seeded())
    eps_hat = net(torch.randn(7, 2), torch.randint(0, 1001, (7,)))
    torch.testing.assert_close(eps_hat, torch.zeros(7, 2))
    same = _points.PointNet(1000, generator=seeded())
    for one, other in zip(net.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_training_comes_near_the_exact_answer():
    points = _points.shape_points("two blobs", 400, seeded())
    net = _points.PointNet(1000, generator=seeded())
    losses = list(_points.fit(net, LINEAR, points, steps_of(800), seeded(1)))
    assert len(losses) == 800
    assert losses[0] == pytest.approx(1, abs=0.15)
    oracle = DatasetOracle(LINEAR, points)
    t = torch.arange(1, 1001, 4)
    x_t = diffuse(LINEAR, points[: len(t)], t, torch.randn(len(t), 2, generator=seeded(2)))
    with torch.no_grad():
        excess = (net(x_t, t) - oracle(x_t, t)).square().mean(1)
    assert float(excess[t > 100].mean()) < 0.02
    assert float(excess.mean()) < 0.06


def test_the_floor_is_the_loss_of_the_best_guess():
    """For two points at -1 and 1 on a line, Bayes' rule is one tanh."""
    points = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    rng = np.random.default_rng(0)
    t = rng.integers(1, 1001, 400_000)
    bar = LINEAR.alpha_bar.numpy()[t]
    x0, eps = rng.choice([-1.0, 1.0], t.size), rng.standard_normal(t.size)
    x_t = np.sqrt(bar) * x0 + np.sqrt(1 - bar) * eps
    best = (x_t - np.sqrt(bar) * np.tanh(np.sqrt(bar) * x_t / (1 - bar))) / np.sqrt(1 - bar)
    wanted = np.mean((eps - best) ** 2) / 2  # the other coordinate is known: its noise is exact
    found = _points.floor(LINEAR, points, seeded())
    assert found == pytest.approx(wanted, abs=0.006)


@pytest.mark.parametrize("walk", _points.WALKS)
def test_a_walk_is_that_of_the_sampler(walk: str):
    points = _points.shape_points("ring", 30, seeded())
    model, x_T = DatasetOracle(LINEAR, points), torch.randn(6, 2, generator=seeded(1))
    found = list(_points.frames(model, LINEAR, x_T, walk, seeded(2)))
    kept = [(t, x_t) for t, x_t in found if x_t is not None]
    assert [t for t, _ in kept] == sorted({t for t, _ in kept}, reverse=True)
    assert kept[0][0] == 1000
    assert kept[-1][0] == 0
    assert len(kept) <= _points.MAX_FRAMES
    count = _points.WALKS[walk]
    stream = (
        ddim(model, LINEAR, x_T, evenly_spaced(1000, count))
        if count
        else ddpm(model, LINEAR, x_T, generator=seeded(2))
    )
    wanted = {1000: x_T} | {step.t: step.x_t for step in stream}
    assert len(found) == len(wanted)
    for t, x_t in kept:
        torch.testing.assert_close(x_t, wanted[t], atol=0, rtol=0)


def test_share_near_counts_pairs():
    x, points = torch.randn(40, 2, generator=seeded()), torch.randn(9, 2, generator=seeded(1))
    near = sum(
        any((a - b).square().sum().sqrt() <= 0.3 for b in points.double()) for a in x.double()
    )
    assert 0 < near < 40
    assert _points.share_near(x, points, 0.3) == near / 40


# What it answers.


class Heard:
    """A playground with what it sends, in place of a browser."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self.messages: list[tuple[dict, list[bytes]]] = []
        playground.send = self._take  # type: ignore[method-assign]
        self.say("hello")

    def _take(self, content: dict, buffers: list[bytes] | None = None) -> None:
        self.messages.append((content, buffers or []))

    def say(self, kind: str, **wanted) -> None:
        content = {"kind": kind, "view": "one", "walk": "DDIM, 5 steps", "noise": 0}
        content |= {"oracle": False, "seconds": 0.3} | wanted
        self.playground._on_message(None, content, [memoryview(self.playground.drawn)])

    def kinds(self) -> list[str]:
        return [content["kind"] for content, _ in list(self.messages)]

    def of(self, kind: str) -> list[tuple[dict, list[bytes]]]:
        return [message for message in list(self.messages) if message[0]["kind"] == kind]

    def wait(self, kind: str, count: int = 1) -> None:
        """Until ``count`` messages of that kind have come."""
        end = time.monotonic() + PATIENCE
        while len(self.of(kind)) < count:
            assert time.monotonic() < end, f"no {kind!r} among {self.kinds()}"
            time.sleep(0.005)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "playground"]


@pytest.fixture
def heard():
    playground = Playground(points=_points.shape_points("ring", 60, seeded()), seed=3)
    heard = Heard(playground)
    yield heard
    playground.close()
    for thread in threads():  # one that has said "idle" may have its last line yet to run
        thread.join(1)
    assert not threads()


def states(message: tuple[dict, list[bytes]]) -> torch.Tensor:
    """The states of a walk as torch reads them, (frames, particles, 2)."""
    whole = np.frombuffer(message[1][0], "<i2").reshape(-1, PARTICLES, 2)
    return torch.from_numpy(whole.astype(np.float32) / wire.EPS_SCALE)


def test_nothing_is_computed_before_a_press(heard: Heard):
    assert heard.kinds() == ["state"]
    assert not heard.messages[0][0]["running"]
    assert not threads()
    with pytest.raises(RuntimeError, match="press Train"):
        _ = heard.playground.model


def test_trains_then_walks_from_the_noise_that_was_asked_for(heard: Heard):
    heard.say("train", noise=4, oracle=True)
    heard.wait("idle")
    first = dict.fromkeys(heard.kinds())
    assert list(first)[:1] == ["state"]
    for kind in ("heard", "started", "progress", "trained", "walking", "walked", "idle"):
        assert kind in first
    network, oracle = heard.of("walked")
    assert [network[0]["who"], oracle[0]["who"]] == ["network", "oracle"]
    assert network[0]["steps"] == evenly_spaced(1000, 5)
    begin = normal_like(torch.empty(PARTICLES, 2), seeded(3 + 4 + 2))
    half = 0.5 / wire.EPS_SCALE + 1e-6
    playground = heard.playground
    for message, model in (
        (network, playground.model),
        (oracle, DatasetOracle(LINEAR, playground.points)),
    ):
        torch.testing.assert_close(states(message)[0], begin, atol=half, rtol=0)
        wanted = last(ddim(model, LINEAR, begin, evenly_spaced(1000, 5)))
        wanted = wanted.clamp(-8, 32767 / wire.EPS_SCALE)  # off the picture, no matter how far
        torch.testing.assert_close(states(message)[-1], wanted, atol=half, rtol=0)
        assert message[1][1] == playground.drawn


def test_the_exact_oracle_ends_on_the_data(heard: Heard):
    heard.say("walk", walk="DDPM, every step", oracle=True)  # nothing trained, and none needed
    heard.wait("idle")
    (message,) = heard.of("walked")
    assert message[0]["who"] == "oracle"
    ends, points = states(message)[-1], heard.playground.points
    far = torch.cdist(ends, points).min(1).values
    assert float(far.max()) < 0.05  # between two that are neighbors, at most
    assert float(far.median()) < 0.002


def test_the_loss_falls_towards_the_floor(heard: Heard):
    heard.say("train", seconds=3.0)
    heard.wait("idle")
    pairs = np.concatenate(
        [np.frombuffer(buffers[0], np.float32) for _, buffers in heard.of("progress")]
    ).reshape(-1, 2)
    trained = heard.of("trained")[0][0]
    assert (np.diff(pairs[:, 0]) > 0).all()
    assert pairs[-1, 0] <= trained["step"]
    assert trained["floor"] - 0.1 < pairs[-3:, 1].mean() < pairs[0, 1]
    previews = [buffers[1] for _, buffers in heard.of("progress") if buffers[1]]
    assert previews
    assert all(len(preview) == 4 * PARTICLES for preview in previews)
    assert not trained["stopped"]
    assert trained["elapsed"] >= 3.0


def test_stop_ends_the_training_and_shows_what_is_learned(heard: Heard):
    heard.say("train", seconds=60.0)
    heard.wait("progress")
    heard.say("stop")
    heard.wait("idle")
    trained = heard.of("trained")[0][0]
    assert trained["stopped"]
    assert trained["elapsed"] < 60
    assert heard.of("walked")
    heard.say("train")  # a stop is not remembered
    heard.wait("trained", 2)
    assert not heard.of("trained")[1][0]["stopped"]


def test_a_second_press_trains_anew(heard: Heard):
    heard.say("train", seconds=60.0)
    heard.wait("progress")
    heard.say("train", seconds=0.2)
    heard.wait("trained")
    assert heard.of("trained")[0][0]["seconds"] == 0.2
    heard.wait("idle")


def test_a_new_request_replaces_the_old(heard: Heard, monkeypatch):
    new, frames = threading.Event(), _points.frames

    def waiting(*args):  # the first walk is under way when the new request comes
        for frame in frames(*args):
            yield frame
            assert new.wait(PATIENCE)

    monkeypatch.setattr(_points, "frames", waiting)
    heard.say("walk", walk="DDPM, every step", oracle=True, noise=1)
    heard.wait("walking")
    heard.say("walk", walk="DDIM, 10 steps", oracle=True, noise=2)
    new.set()
    heard.wait("idle")
    assert [message[0]["walk"] for message in heard.of("walked")] == ["DDIM, 10 steps"]


def test_what_is_shown_already_is_not_computed_again(heard: Heard):
    heard.say("walk", oracle=True)
    heard.wait("idle")
    heard.say("walk", oracle=True)
    heard.wait("idle", 2)
    assert len(heard.of("walked")) == 1


def test_a_late_view_gets_everything(heard: Heard):
    heard.say("train", oracle=True)
    heard.wait("idle")
    count = sum(len(buffers[0]) for _, buffers in heard.of("progress"))
    del heard.messages[:]
    heard.say("hello", view="two")
    (state, (losses,)), *walks = heard.messages
    assert not state["running"]
    assert not state["training"]
    assert state["step"] > 0
    assert len(losses) == count
    assert [content["who"] for content, _ in walks] == ["network", "oracle"]


def test_the_last_view_ends_the_work(heard: Heard):
    heard.say("hello", view="two")
    heard.say("train", seconds=60.0)
    heard.wait("progress")
    heard.say("bye", view="two")
    (thread,) = threads()
    heard.say("bye")
    thread.join(PATIENCE)
    assert not threads()
    assert heard.playground.model is not None  # what it had learned by then
    heard.say("hello", view="three")
    heard.say("train", seconds=0.2)  # and it works again
    heard.wait("trained", 2)


@pytest.mark.parametrize("ended", [False, True])
def test_a_press_right_after_the_last_view_is_not_lost(heard: Heard, monkeypatch, ended: bool):
    """Whether the old thread still works when the press comes, or has ended just before."""
    pressed, report = threading.Event(), heard.playground._report_progress

    def waiting(training):
        report(training)
        assert ended or training.seconds < 1 or pressed.wait(PATIENCE)

    monkeypatch.setattr(heard.playground, "_report_progress", waiting)
    heard.say("train", seconds=60.0)
    heard.wait("progress")
    (old,) = threads()
    heard.say("bye")
    if ended:
        old.join(PATIENCE)
    assert old.is_alive() is not ended
    heard.say("hello")
    heard.say("train", seconds=0.2)
    pressed.set()
    heard.wait("trained", 1 + ended)
    heard.wait("idle", 1 + ended)
    seconds = [content["seconds"] for content, _ in heard.of("trained")]
    assert seconds == [60.0, 0.2][not ended :]


@pytest.mark.parametrize("end", ["close", "halt", "interpreter"])
def test_no_thread_stays_behind(heard: Heard, end: str):
    heard.say("train", seconds=60.0)
    heard.wait("progress")
    act = {"interpreter": _playground._end_all}.get(end) or getattr(heard.playground, end)
    act()
    assert not threads()


def test_two_playgrounds_train_beside_each_other(heard: Heard):
    other = Heard(Playground(cosine_schedule(200), shape="spiral"))
    heard.say("train")
    other.say("train")
    heard.wait("idle")
    other.wait("idle")
    other.playground.close()
    assert len(other.playground.model.time) == 201


def test_a_failure_is_reported_and_the_next_press_works(heard: Heard, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(_points, "floor", lambda *_: 1 / 0)
        heard.say("train")
        heard.wait("idle")
    assert "ZeroDivisionError" in heard.of("failed")[0][0]["text"]
    heard.say("train")
    heard.wait("trained")


@pytest.mark.parametrize(
    ("wanted", "points", "message"),
    [
        ({"walk": "DDMP"}, None, "walk must be one of"),
        ({"noise": -1}, None, "noise must be at least 0"),
        ({"noise": "3"}, None, "noise must be an int"),
        ({"seconds": 1e9}, None, "seconds must be in"),
        ({"kind": "dance"}, None, "kind must be one of"),
        ({}, b"123", "4 bytes each"),
        ({}, b"", "points must have shape"),
        ({}, bytes(4 * 601), "points must have shape"),
        ({}, np.array([[0, 0], [4 * 4096, 0]], "<i2").tobytes(), r"points must lie in \[-3"),
    ],
)
@pytest.mark.plain_errors
def test_an_invalid_message_is_refused_with_a_reason(heard: Heard, wanted, points, message):
    content = {"kind": "train", "walk": "DDIM, 5 steps", "noise": 0, "seconds": 0.2, "oracle": True}
    sent = heard.playground.drawn if points is None else points
    heard.playground._on_message(None, content | wanted, [memoryview(sent)])
    assert heard.kinds()[-1] == "refused"
    assert re.search(message, heard.messages[-1][0]["text"])
    assert not threads()


def test_a_trained_network_walks_also_when_the_points_are_gone(heard: Heard):
    heard.say("train")
    heard.wait("idle")
    for points in (b"", bytes(4)):  # an oracle that knows nothing has nowhere to go
        heard.playground.drawn = points
        heard.say("walk", noise=len(points) + 1, oracle=True)
        heard.wait("idle", 2 + len(points) // 4)
    assert not heard.of("refused")
    assert [content["who"] for content, _ in heard.of("walked")] == ["network"] * 3


# The widget.


def test_points_are_what_was_drawn():
    given = torch.tensor([[0.5, -1.25], [2.0, 3.0], [-3.0, 0.0]])
    playground = Playground(points=given)
    torch.testing.assert_close(playground.points, given)
    sent = memoryview(np.array([[4096, -2048]], "<i2").tobytes())
    playground.set_state({"drawn": sent})
    torch.testing.assert_close(playground.points, torch.tensor([[1.0, -0.5]]))


@pytest.mark.parametrize("wrong", [b"123", bytes(4 * 601)])
def test_more_or_less_than_points_cannot_be_drawn(wrong: bytes):
    playground = Playground()
    with pytest.raises(_playground.traitlets.TraitError, match="pairs of int16"):
        playground.drawn = wrong


def test_its_state_is_small_and_its_text_describes_it():
    playground = Playground()
    size = sum(len(v) for k in playground.keys if isinstance(v := getattr(playground, k), bytes))
    assert size < 50_000
    assert "400 points (two moons)" in repr(playground)
    assert "no network is trained yet" in repr(playground)
    data, metadata = playground._repr_mimebundle_()
    assert data["image/png"]
    assert "400 points" in metadata["image/png"]["alt"]


def test_the_still_picture_shows_what_was_trained(heard: Heard):
    before = heard.playground._repr_mimebundle_()[0]["image/png"]
    heard.say("train")
    heard.wait("idle")
    assert heard.playground._repr_mimebundle_()[0]["image/png"] != before
    assert "a network trained on such" in repr(heard.playground)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"schedule": 3}, TypeError, "schedule must be a NoiseSchedule"),
        ({"schedule": linear_schedule(49)}, ValueError, "schedule must have at least 50 steps"),
        ({"points": [[0, 0], [1, 1]]}, TypeError, "points must be a tensor"),
        ({"points": torch.zeros(1, 2)}, ValueError, r"N in 2\.\.600, got \(1, 2\)"),
        ({"points": torch.zeros(601, 2)}, ValueError, "points must have shape"),
        ({"points": torch.zeros(9, 3)}, ValueError, "points must have shape"),
        ({"points": torch.full((9, 2), 3.5)}, ValueError, "got a coordinate of 3.5"),
        ({"points": torch.full((9, 2), torch.nan)}, ValueError, "points must be finite"),
        ({"shape": "moon"}, ValueError, "did you mean 'two moons'"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ],
)
def test_bad_input_is_named(options, error, message):
    with pytest.raises(error, match=message):
        Playground(**options)


def test_it_needs_a_kernel_and_says_so(tmp_path):
    with pytest.raises(ValueError, match="needs a kernel"):
        Playground().save_html(tmp_path / "page.html")


def test_the_loss_of_a_message_is_the_course_of_the_library(heard: Heard):
    """The playground trains by the course's own loss: its floor is the oracle's epsilon loss."""
    heard.say("train", seconds=0.1)
    heard.wait("idle")
    points = heard.playground.points
    x0 = points[torch.randint(0, len(points), (20_000,), generator=seeded(9))]
    wanted = float(epsilon_loss(DatasetOracle(LINEAR, points), LINEAR, x0, generator=seeded(9)))
    assert heard.of("trained")[0][0]["floor"] == pytest.approx(wanted, abs=0.02)
