"""The editing explorer's Python part; its script is compared with it in tests/browser."""

import pytest
import torch
from torch import Tensor

from tests.draws import seeded
from tutorial_lib import schedules
from tutorial_lib.explorers import EditingExplorer
from tutorial_lib.explorers.editing import widget as _editing
from tutorial_lib.explorers.shared import wire
from tutorial_lib.oracles import GaussianMixtureOracle

COSINE = schedules.cosine_schedule()
IMAGES = torch.rand(3, 1, 8, 8, generator=seeded(0)) * 2 - 1
ORACLE = GaussianMixtureOracle(COSINE, IMAGES, torch.full((3,), 0.1), torch.ones(3))


def explorer(**options) -> EditingExplorer:
    return EditingExplorer(ORACLE, COSINE, IMAGES, **{"steps": 6, "answers": 2, **options})


def grays(data: bytes, *shape: int) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).float().view(shape) / 127.5 - 1


def heard(made: EditingExplorer, content: dict) -> list[tuple[dict, list]]:
    """What the explorer sends when a script asks it."""
    said: list[tuple[dict, list]] = []
    made.send = lambda content, buffers=None: said.append((content, buffers or []))  # type: ignore
    made._on_message(made, content, [])
    return said


def test_areas_are_what_they_are_called():
    lower, right, middle, everything = (_editing.area_mask(k, 8, 6) for k in range(4))
    assert lower[4:].all()
    assert not lower[:4].any()
    assert right[:, 3:].all()
    assert not right[:, :3].any()
    assert middle[2:6, 1:5].all()
    assert int(middle.sum()) == 16
    assert everything.all()
    assert len(wire.AREAS) == 4


def test_ready_completions_keep_what_is_known():
    made = explorer()
    ready = grays(made.ready, 3, wire.READY, 2, 1, 8, 8)
    for k in range(wire.READY):
        keep = ~_editing.area_mask(k, 8, 8)
        off = (ready[:, k] - IMAGES[:, None]).abs() * keep
        assert off.max() < 0.51 / 127.5
    assert not torch.equal(ready[:, 0, 0], ready[:, 0, 1])


def test_a_request_is_answered_along_the_way_and_at_the_end():
    made = explorer()
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 1:7] = True
    made.mask, made.chosen, made.percent = _editing._packed(mask), 2, 50
    said = heard(made, {"kind": wire.Ask.FILL, "key": "a key"})
    kinds = [content["kind"] for content, _ in said]
    assert kinds == [*3 * [wire.Tell.FILLING], wire.Tell.FILLED]  # half of six strides
    assert all(content["key"] == "a key" for content, _ in said)
    assert [content["t"] for content, _ in said[:3]] == [333, 167, 0]
    (end,) = said[2][1]
    drawn = grays(end, 2, 1, 8, 8)
    assert ((drawn - IMAGES[2]).abs() * ~mask).max() < 0.51 / 127.5
    assert torch.equal(drawn, grays(_editing.base.gray_bytes(made.complete()), 2, 1, 8, 8))


def test_new_noise_and_the_same_noise():
    made = explorer()
    made.mask = _editing._packed(torch.ones(8, 8, dtype=torch.bool))
    first, again = made.complete(), made.complete()
    assert torch.equal(first, again)
    made.noise = 1
    assert not torch.equal(made.complete(), first)


def test_a_chosen_class_is_told_and_guided():
    asked = []

    def model(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        asked.append(labels.clone())
        return 0.5 * x_t

    made = EditingExplorer(model, COSINE, IMAGES, num_classes=4, answers=2, steps=2)
    assert made.class_names == ["0", "1", "2", "3"]
    assert all((labels == 4).all() for labels in asked)
    asked.clear()
    made.label = 3
    made.complete()
    assert [labels.tolist() for labels in asked] == 2 * [[3, 3, 4, 4]]


def test_whatever_a_model_raises_is_told():
    made = explorer()

    def broken(x_t: Tensor, t: Tensor) -> Tensor:
        raise RuntimeError("no weights")

    made._model = broken
    ((content, _),) = heard(made, {"kind": wire.Ask.FILL, "key": ""})
    assert content == {"kind": wire.Tell.FAILED, "text": "RuntimeError: no weights"}
    ((content, _),) = heard(made, {"kind": wire.Ask.HELLO})
    assert content == {"kind": wire.Tell.HEARD}
    assert heard(made, {"kind": wire.Ask.BYE}) == []


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"answers": 0}, ValueError, "answers must be at least 1"),
        ({"answers": 9}, ValueError, "answers must be at most 8"),
        ({"steps": 1001}, ValueError, "steps must be at most 1000"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1"),
        ({"class_names": ["a"]}, ValueError, "class_names needs num_classes"),
        ({"guidance": -1.0}, ValueError, "guidance must be"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"images": torch.zeros(1, 1, 65, 8)}, ValueError, "images must be at most 64"),
        ({"images": "x"}, TypeError, "images"),
        ({"schedule": 3}, TypeError, "schedule must be a NoiseSchedule"),
        ({"model": 3}, TypeError, "model must be a function"),
    ],
)
def test_invalid_arguments_are_named(options, error, words):
    given = {"model": ORACLE, "schedule": COSINE, "images": IMAGES, **options}
    with pytest.raises(error, match=words):
        EditingExplorer(**given)


def test_names_must_be_those_of_all_classes():
    with pytest.raises(ValueError, match="class_names must name 3 classes"):
        EditingExplorer(
            lambda x_t, t, labels: x_t, COSINE, IMAGES, num_classes=3, class_names=["a"], steps=1
        )


def test_the_still_picture_says_what_it_shows():
    made = explorer()
    assert "3 pictures, and 2 completions of each" in repr(made)
    figure = made._still()
    assert figure.axes
