"""Messages for learners about exceptions and arguments."""

import re
import textwrap

import torch
from torch import Tensor

from tutorial_lib.checks.framework import run

NO_RETURN = "Your function returns None: is its `return` missing?"
_TORCH_SAYS = (
    (
        r"size of tensor a .* must match the size of tensor b",
        "The shapes do not fit: broadcasting lines axes up from the right. Give (B,) its missing "
        "axes of length 1, as `[:, None]` or `.reshape(...)` do.",
    ),
    (
        r"sizes of tensors must match except in dimension",
        "`torch.cat` joins along one axis; along all others the lengths must agree.",
    ),
    (
        r"shapes cannot be multiplied|inconsistent tensor size|size mismatch, got input",
        "`a @ b` multiplies matrices: the last axis of a must be as long as the first one of b. "
        "`a * b` multiplies entry by entry.",
    ),
    (
        r"bitwise_\w+\" not implemented for '(Float|Double)'|unsupported operand type\(s\) for &",
        "`&` and `|` bind tighter than `<`, so write `(a < x) & (x < b)`, with the parentheses.",
    ),
    (
        r"only one element tensors can be converted|only length-1 arrays can be converted",
        "`math.cos`, `math.sqrt` and `float` take one number. A tensor of many needs `x.cos()`, "
        "`x.sqrt()`.",
    ),
    (
        r"'float' object has no attribute 'backward'",
        "`.item()` gives a plain number, which no longer knows its gradients. Call `backward` on "
        "the tensor.",
    ),
    (
        r"'float' object has no attribute '(sqrt|clamp|exp|log|square|pow|abs|cos|sin|sum|mean)'|"
        r"must be Tensor, not float",
        "This is a plain Python number. Use `math.sqrt` and its like, `min` and `max`, or make it "
        "a tensor.",
    ),
    (
        r"'NoneType' object is not (iterable|subscriptable)|NoneType.* is not reversible",
        "Something is None here. `list.reverse()`, `.sort()` and `.append()` change a list and "
        "return None; `items[::-1]` is a new list.",
    ),
    (
        r"does not require grad and does not have a grad_fn",
        "No gradient reaches this tensor: a `detach`, `.item()`, `no_grad` or a new "
        "`torch.tensor(...)` cut it off from the parameters.",
    ),
    (
        r"call numpy\(\) on Tensor that requires grad",
        "NumPy cannot follow gradients. Stay in torch, or `detach` first where none is needed.",
    ),
    (
        r"used as indices must be|indices must be integers|are valid indices \(got",
        "An index must be a whole number: `.long()` for a tensor, `int(...)` or `//` for a number.",
    ),
    (
        r"object cannot be interpreted as an integer|only integer tensors of a single element",
        "A whole number is needed here. `/` always gives a float; `//` or `round(...)` does not.",
    ),
    (
        r"in-place operation",
        "Autograd watches parameters. Change them inside `with torch.no_grad():`.",
    ),
    (
        r"backward through the graph a second time",
        "Each `backward` or `grad` uses up its graph. Compute what it starts from anew before the "
        "next one, or keep the graph: `retain_graph=True`.",
    ),
    (
        r"grad can be implicitly created only for scalar outputs",
        "`backward` starts from one number: take the mean (or sum) first.",
    ),
    (
        r"can't be cast to the desired output type",
        "An integer tensor cannot hold fractions: convert it first, `.double()` or `.float()`.",
    ),
    (
        r"(iteration over|len\(\) of) a 0-d tensor",
        "This tensor is a single number without axes; there is nothing to loop over.",
    ),
    (
        r"same dtype.*(long int|int)|expected scalar type (Long|Int)|but found (Long|Int)$",
        "One holds whole numbers, the other fractions: turn the whole ones into `.float()`.",
    ),
    (
        r"same dtype|expected scalar type",
        "One is float64, the other float32: convert one of them with `.double()` or `.float()`.",
    ),
    (
        r"shape '.*' is invalid for input of size",
        "`reshape` keeps all numbers, so the lengths must multiply up to as many as there are.",
    ),
    (
        r"index (\d+) is out of bounds for dimension \d+ with size \1$",
        "Python counts from 0: the last of n entries is n - 1.",
    ),
)
"""Patterns of torch's messages, and what a learner may want to look at."""


def _advice(failure: run.Failure) -> str:
    """What to look at, if this is one of torch's complaints about shapes and types."""
    for pattern, message in _TORCH_SAYS:
        if re.search(pattern, failure.text, re.IGNORECASE):
            return message
    return ""


def failure_text(failure: run.Failure, seconds: float = 0.0) -> str:
    """A short and friendly description of an exception, with the learner's line."""
    number = failure.line_number
    at = f"\nLine {number}: `{failure.line}`" if number and failure.line else ""
    text = textwrap.shorten(failure.text, 160, placeholder=" …")
    low = failure.text.lower()
    match failure.kind:
        case "TimeUp":
            message = f"Stopped after {seconds:g} seconds: does a loop never end?"
        case "RecursionError":
            message = "Your function calls itself endlessly."
        case "SystemExit":
            message = "Your code asked Python to quit; use a plain `return` instead."
        case "MemoryError":
            message = "Your code asked for more memory than there is: is a shape too large?"
        case "RuntimeError" if "allocate" in low and "memory" in low:
            message = "Your code asked for more memory than there is: is a shape too large?"
        case "TypeError" if not number and re.search(
            r"\d+ (required )?positional arguments?", failure.text
        ):
            message = f"The function does not take the arguments that the exercise asks for: {text}"
        case "RuntimeError" if "boolean value of tensor" in low:
            message = (
                "Python's `if`, `and`, `or`, `min`, `max` and a < x < b need one yes or no, but "
            )
            message += "a tensor holds many. Use `&`, `torch.minimum`, `.clamp` or `torch.where`."
        case "RuntimeError" if re.search(r"mean\(\).*got: (long|int|short|byte|char)", low):
            message = (
                "torch takes no mean of whole numbers: turn them into fractions first, "
                "`x.double().mean()`."
            )
        case "RuntimeError" if "got: bool" in low:
            message = (
                "True and False have no mean: turn them into numbers first, `mask.double().mean()`."
            )
        case "NotImplementedError" if not text:
            message = (
                "Your code raised NotImplementedError: remove that line once you have an answer."
            )
        case _:
            if advice := _advice(failure):
                text = (
                    f"{textwrap.shorten(failure.text, 110, placeholder=' …').rstrip('.')}. {advice}"
                )
            message = f"Your code raised {failure.kind}: {text}"
    return message + at[: 290 - len(message)]


def gist(failure: run.Failure | None) -> object:
    """What an exception says, no matter which of two tensors it names first."""
    assert failure is not None
    words = re.sub(r"\d+", "#", failure.text)
    return failure.kind, words, sorted(re.findall(r"\d+", failure.text))


def brief(value: object) -> str:
    """An argument in a few words."""
    if isinstance(value, Tensor):
        if value.ndim == 0 or (value.numel() <= 4 and value.ndim == 1):
            return str([round(v, 4) for v in value.flatten().tolist()])
        return f"shape {tuple(value.shape)}"
    if isinstance(value, torch.Generator):
        return "a seeded generator"
    if isinstance(value, torch.nn.Module):
        return "a small network"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = repr(value)
    if len(text) > 60 or " at 0x" in text:  # not meant to be read
        text = type(value).__name__
        if text in ("function", "method", "partial", "builtin_function_or_method"):
            return "a function"
        if text.startswith("_"):
            return "a stand-in of the check"
    return text
