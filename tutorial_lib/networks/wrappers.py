"""Networks inside other modules: ``torch.compile``, ``DataParallel``, ``DistributedDataParallel``.

Such a wrapper computes what the network in it computes, but puts a word of its own in front of the
names of the weights. What is saved must not depend on it.
"""

from collections.abc import Iterable

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

_COMPILED = "_orig_mod"
"""Under which name ``torch.compile`` holds a network. To ask for its class would load the compiler,
which takes a second."""
_WRAPPERS = (nn.DataParallel, DistributedDataParallel, AveragedModel)
"""Others, which hold it under the name ``module``."""


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside any number of wrappers; ``network`` itself if it is none."""
    while (name := _name_inside(network)) is not None:
        network = getattr(network, name)
    return network


def is_compiled(network: nn.Module) -> bool:
    """Whether ``torch.compile`` made ``network`` out of one that has no other wrapper."""
    inside = network._modules.get(_COMPILED)
    return inside is not None and _name_inside(inside) is None


def plain_names(network: nn.Module) -> dict[str, str]:
    """The name of each tensor in ``network.state_dict()``: without its wrappers, and as it is.

    Parts of a network may be wrapped, too: ``unet._orig_mod.head.weight`` is ``unet.head.weight``.
    """
    inside = {
        f"{path}.{name}".lstrip(".") + "."
        for path, module in network.named_modules(remove_duplicate=False)
        if (name := _name_inside(module)) is not None
    }
    names = {}
    for name in network.state_dict():
        kept = [
            part
            for end, part in _parts(name)
            if f"{name[:end]}." not in inside  # not the word that a wrapper adds
        ]
        names[".".join(kept)] = name
    return names


def without_wrappers(names: Iterable[str], expected: Iterable[str]) -> dict[str, str]:
    """Stored names, each with what it is without wrappers, for files that were saved with some.

    Args:
        names: as they stand in the file.
        expected: the names of a network without wrappers. Words that stand there stay.
    """
    expected = set(expected)
    plain = {name: name.replace(f"{_COMPILED}.", "") for name in names}
    wrapped = all(name.startswith("module.") for name in plain.values())
    if wrapped and not expected & set(plain.values()):
        plain = {name: word.removeprefix("module.") for name, word in plain.items()}
    if len(set(plain.values())) < len(plain):  # two would become one
        return {name: name for name in plain}
    return plain


def _name_inside(module: nn.Module) -> str | None:
    """Under which name a wrapper holds the network; None for a module that is no wrapper."""
    if _COMPILED in module._modules:
        return _COMPILED
    return "module" if isinstance(module, _WRAPPERS) else None


def _parts(name: str) -> list[tuple[int, str]]:
    """The words between the dots of a name, each with the place where it ends."""
    parts, end = [], -1
    for part in name.split("."):
        end += 1 + len(part)
        parts.append((end, part))
    return parts
