"""Whether an answer is the solution that the course shows. That is marked, not prevented."""

import ast
import re
from collections.abc import Iterable

from tutorial_lib.checks.framework.asking import Handed

_ASKS_FOR_IT = re.compile(
    r"\b(model_answer|right_answers)\b|\bsolution\s*\([^()]*\)\s*\.\s*source|\.\s*alternatives\b"
)
_IS_NO_PYTHON = re.compile(r"^\s*[%!?].*$", re.MULTILINE)


def shapes(source: str) -> frozenset[str]:
    """The functions and classes in a piece of Python, each as text that does not depend on names
    of its own, docstrings, types, comments and spaces. Empty where it is not Python."""
    try:
        tree = ast.parse(_IS_NO_PYTHON.sub("pass", source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(_shape(node) for node in ast.walk(tree) if isinstance(node, kinds))


def asks_for_solutions(cells: Iterable[str]) -> bool:
    """Whether a notebook's code takes answers from the course's own objects."""
    return any(_ASKS_FOR_IT.search(cell) for cell in cells)


def is_copy(handed: Handed, solution: frozenset[str]) -> bool:
    """Whether the notebook itself says that its answer comes from the checks."""
    own = handed.module.startswith("tutorial_lib.checks")
    return own or bool(shapes(handed.source) & solution)


def _shape(node: ast.AST) -> str:
    """The node as text, with names of its own numbered in the order in which they appear."""
    own: dict[str, str] = {}
    for part in ast.walk(node):
        match part:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                own.setdefault(name, f"name {len(own)}")
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                own.setdefault(name, f"name {len(own)}")
    return _text(node, own)


def _text(node: object, own: dict[str, str]) -> str:
    if isinstance(node, list):
        return "[" + ",".join(_text(part, own) for part in node) + "]"
    if isinstance(node, ast.Constant):
        return repr(node.value)
    if not isinstance(node, ast.AST):
        return own.get(node, node) if isinstance(node, str) else repr(node)
    parts = []
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_comment", "ctx", "type_params"):
            continue
        if name == "body" and isinstance(value, list):
            value = [part for part in value if not _is_docstring(part)]
        parts.append(_text(value, own))
    return f"{type(node).__name__}({','.join(parts)})"


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
