"""What can be seen in the source of an answer."""

import ast
import inspect
import textwrap
from collections.abc import Callable


def return_in_loop(answer: Callable) -> str:
    """What to tell about a ``return`` that ends a ``for`` loop in its first round; "" if none.

    Only a plain statement of the loop's own body counts: one behind an ``if`` may be meant.
    """
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(answer))
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, ValueError, SyntaxError):  # no source, or a part of a line
        return ""
    loops = (node for node in ast.walk(tree) if isinstance(node, ast.For))
    returns = (node for loop in loops for node in loop.body if isinstance(node, ast.Return))
    found = next(returns, None)
    if found is None:
        return ""
    line = lines[found.lineno - 1].strip()
    return (
        "Your `return` stands inside the loop, so the function ends in the loop's first round. "
        f"Move it to the left, under the `for`.\nLine {first + found.lineno - 1}: `{line[:120]}`"
    )
