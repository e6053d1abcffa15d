"""Wrong answers made from a right one: its source with one thing changed.

    for mutant in mutants_of(source): ...

``source`` ends with one function or class. Everything that a slip of the pen, a habit from another
library or a half-understood formula changes in one place is changed here in turn: constants,
operators, comparisons, names, arguments, axes, types, statements and their order. The same source
always gives the same mutants in the same order, without repetition.

Some mutants call a helper that the answer does not have, such as ``at_least(x, 0.01)``. ``Meddler``
makes these; it notes whether they had anything to do, as ``.int()`` has with whole numbers.
"""

import ast
import copy
import difflib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SWAPPED_OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div,),
    ast.Pow: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.MatMult: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq, ast.LtE, ast.GtE),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}

_FAMILIES = (
    ("sqrt", "square"),
    ("sum", "mean"),
    ("cumsum", "cumprod"),
    ("sin", "cos"),
    ("exp", "log"),
    ("std", "var"),
    ("min", "max"),
    ("minimum", "maximum"),
    ("amin", "amax"),
    ("argmin", "argmax"),
    ("rand", "randn"),
    ("rand_like", "randn_like"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
    ("cat", "stack"),
    ("ceil", "floor"),
    ("repeat", "repeat_interleave"),
    ("chunk", "split"),
    ("parameters", "buffers"),
)
SWAPPED_NAMES = {name: [n for n in f if n != name] for f in _FAMILIES for name in f}
"""Functions that people take for one another."""

SCHEDULE = (
    "alpha_bar",
    "alpha",
    "beta",
    "signal_rate",
    "noise_rate",
    "snr",
    "posterior_variance",
)
"""What a schedule has: any of these is easily taken for another."""

COUNTING = {"range", "arange", "linspace", "randint", "evenly_spaced", "zeros", "ones", "full"}
"""Functions whose arguments are counts and bounds, which people get wrong by one."""

DIVIDING = {"log", "sqrt", "rsqrt", "log2", "log10"}
"""Functions before which people add a small number."""


@dataclass(frozen=True)
class Mutant:
    """One changed answer.

    Attributes:
        kind: what was changed, in two or three words.
        source: the changed source.
        diff: the lines that differ, "- " before and "+ " after, and where lines were
            only added the one before them; the name of the mutant in lists and files.
    """

    kind: str
    source: str
    diff: str


def normal_form(source: str) -> str:
    """The source as ``ast`` writes it, without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@functools.cache
def mutants_of(source: str) -> tuple[Mutant, ...]:
    """All mutants of a source."""
    before = normal_form(source)
    tree = ast.parse(before)
    seen, found = {before}, []
    for place in _places(tree):
        for kind, new in _changes(place):
            old = place.put(new)
            after = ast.unparse(tree)
            place.put(old)
            if after in seen:
                continue
            seen.add(after)
            try:
                compile(after, "<mutant>", "exec")
            except (SyntaxError, ValueError):  # `return` at a place where there is none, and so on
                continue
            found.append(Mutant(kind, after, _difference(before, after)))
    return tuple(found)


def _difference(before: str, after: str) -> str:
    """The lines that differ; of lines that were only added, also the one before, to tell where."""
    found: list[str] = []
    last = ""
    for line in difflib.ndiff(before.splitlines(), after.splitlines()):
        if line[:2] in ("- ", "+ "):
            if last and line[0] == "+":
                found.append(last)
            found.append(line.rstrip())
        last = line.rstrip() if line[:2] == "  " else ""
    return "\n".join(found)


@dataclass(frozen=True)
class _Place:
    """Where a node hangs in its tree, and which names of the answer are known there."""

    parent: ast.AST
    field: str
    index: int | None
    names: tuple[str, ...]

    @property
    def node(self) -> Any:
        value = getattr(self.parent, self.field)
        return value if self.index is None else value[self.index]

    def put(self, new: Any) -> Any:
        """Replaces the node; returns the old one."""
        old = self.node
        if self.index is None:
            setattr(self.parent, self.field, new)
        else:
            getattr(self.parent, self.field)[self.index] = new
        return old


def _places(tree: ast.Module) -> Iterator[_Place]:
    """Every place in the body of the last function or class, outer ones first.

    A list of statements counts as a place too.
    """
    yield from _inside(tree.body[-1], ())


def _inside(node: ast.AST, names: tuple[str, ...]) -> Iterator[_Place]:
    match node:
        case ast.FunctionDef() | ast.Lambda():
            names = _joined(names, [a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)])
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            names = _joined(names, [n for c in node.generators for n in _stored(c.target)])
        case ast.For():
            names = _joined(names, _stored(node.target))
    for field, value in ast.iter_fields(node):
        if isinstance(node, ast.FunctionDef) and field != "body":
            continue  # the signature is the exercise's
        if isinstance(node, ast.ClassDef) and field != "body":
            continue
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            known = names
            yield _Place(node, field, None, known)
            for i, statement in enumerate(value):
                yield _Place(node, field, i, known)
                yield from _inside(statement, known)
                known = _joined(known, _stored(statement))
        elif isinstance(value, list):
            for i, part in enumerate(value):
                if isinstance(part, ast.AST):
                    yield _Place(node, field, i, names)
                    yield from _inside(part, names)
        elif isinstance(value, ast.AST):
            yield _Place(node, field, None, names)
            yield from _inside(value, names)


def _joined(names: tuple[str, ...], more: list[str]) -> tuple[str, ...]:
    return names + tuple(dict.fromkeys(name for name in more if name not in names))


def _stored(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    kinds = (ast.Name,)
    return [n.id for n in ast.walk(node) if isinstance(n, kinds) and isinstance(n.ctx, ast.Store)]


Change = tuple[str, Any]


def _changes(place: _Place) -> Iterator[Change]:
    node = place.node
    if isinstance(node, list):
        yield from _changed_lists(node, place.parent)
    elif isinstance(node, ast.stmt):
        yield from _changed_statements(node)
    elif isinstance(node, ast.operator | ast.cmpop | ast.boolop):
        for other in SWAPPED_OPERATORS.get(type(node), ()):
            yield "operator", other()
    elif isinstance(node, ast.unaryop):
        return
    elif isinstance(node, ast.Slice):
        yield from _changed_slices(node)
    elif isinstance(node, ast.expr):
        yield from _changed_expressions(node, place)
        yield from _meddled(node, place)
    elif isinstance(node, ast.comprehension):
        yield from _changed_comprehensions(node)


# Statements


def _changed_lists(body: list[ast.stmt], parent: ast.AST) -> Iterator[Change]:
    for i, statement in enumerate(body):
        rest = body[:i] + body[i + 1 :]
        if not _is_definition(statement):
            yield "statement dropped", rest or [ast.Pass()]
        if i + 1 < len(body) and _depend(statement, body[i + 1]):
            yield "statements swapped", [*body[:i], body[i + 1], statement, *body[i + 2 :]]
        if isinstance(statement, (ast.With, ast.If)):
            yield "block unwrapped", [*body[:i], *statement.body, *body[i + 1 :]]
        if isinstance(statement, ast.If) and statement.orelse:
            yield "block unwrapped", [*body[:i], *statement.orelse, *body[i + 1 :]]
        if isinstance(statement, ast.For) and i + 1 < len(body):
            inner, after = copy.copy(statement), body[i + 1]
            inner.body = [*statement.body, after]
            kind = "return in loop" if isinstance(after, ast.Return) else "statement in loop"
            yield kind, [*body[:i], inner, *body[i + 2 :]]
        if isinstance(statement, (ast.For, ast.With, ast.If)) and len(statement.body) > 1:
            inner = copy.copy(statement)
            inner.body = statement.body[:-1]
            yield "statement out of block", [*body[:i], inner, statement.body[-1], *body[i + 1 :]]
    if isinstance(parent, (ast.For, ast.While)):
        yield "stops early", [*body, ast.Break()]
    if isinstance(parent, ast.FunctionDef):
        without = ast.With([ast.withitem(_parsed("torch.no_grad()"))], body, lineno=0)
        yield "no_grad", [without]


def _depend(first: ast.stmt, second: ast.stmt) -> bool:
    """Whether the order of two statements matters: not where both only give names to values."""
    if not (isinstance(first, ast.Assign) and isinstance(second, ast.Assign)):
        return True
    for a, b in ((first, second), (second, first)):
        stored = set(_stored(a))
        if stored & {n.id for n in ast.walk(b) if isinstance(n, ast.Name)}:
            return True
    return False


def _is_definition(statement: ast.stmt) -> bool:
    """Whether all that follows fails without it, which tells nothing about a check."""
    return isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom))


def _changed_statements(node: ast.stmt) -> Iterator[Change]:
    match node:
        case ast.AugAssign(target=target, op=op, value=value):
            loaded = _loaded(target)
            yield "rebound", ast.Assign([target], ast.BinOp(loaded, op, value), lineno=0)
            yield "operation dropped", ast.Assign([target], value, lineno=0)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=x, attr=name)) as call):
            if name.endswith("_") and not name.endswith("__"):
                target = _stored_form(x)
                if target is None:
                    return
                if name == "copy_":
                    yield "rebound", ast.Assign([target], call.args[0], lineno=0)
                else:
                    outside = ast.Call(ast.Attribute(x, name[:-1]), call.args, call.keywords)
                    yield "rebound", ast.Assign([target], outside, lineno=0)
        case ast.Return(value=ast.expr() as value):
            for kind in ("detached", "number", "squeezed", "int32"):
                yield kind, ast.Return(_call(kind, value))
            yield "negated", ast.Return(ast.UnaryOp(ast.USub(), value))
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=value) if len(names) == 2:
            swapped = ast.Tuple([names[1], names[0]], ast.Store())
            yield "targets swapped", ast.Assign([swapped], value, lineno=0)


def _loaded(target: Any) -> Any:
    loaded = copy.copy(target)
    loaded.ctx = ast.Load()
    return loaded


def _stored_form(value: ast.expr) -> ast.expr | None:
    """``value`` as something to assign to; inside a call of a call it is the innermost."""
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        value = value.func.value
    if not isinstance(value, (ast.Name, ast.Attribute, ast.Subscript)):
        return None
    target = copy.copy(value)
    target.ctx = ast.Store()
    return target


# Expressions


def _changed_expressions(node: ast.expr, place: _Place) -> Iterator[Change]:
    match node:
        case ast.Constant(value=bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            for new in _other_numbers(value):
                yield "constant", ast.Constant(new) if new >= 0 else _negative(new)
        case ast.UnaryOp(operand=operand):
            yield "sign or not dropped", operand
        case ast.BinOp(left=left, op=op, right=right):
            yield "operand dropped", left
            yield "operand dropped", right
            has_order = (ast.Sub, ast.Div, ast.FloorDiv, ast.Pow, ast.MatMult, ast.Mod)
            if isinstance(op, has_order) and not _loses_sign(place):
                yield "operands swapped", ast.BinOp(right, op, left)
            yield from _brackets_moved(node)
        case ast.BoolOp(values=values):
            for i in range(len(values)):
                rest = values[:i] + values[i + 1 :]
                yield "condition dropped", rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield "condition dropped", body
            yield "condition dropped", orelse
            yield "condition negated", ast.IfExp(test, orelse, body)
        case ast.Name(id=name, ctx=ast.Load()):
            if name in place.names:
                for other in place.names:
                    if other != name:
                        yield "name", ast.Name(other)
            yield from _called_otherwise(node, place)
        case ast.Attribute(value=value, attr=name, ctx=ast.Load()):
            if name in SCHEDULE and not _is_called(place):
                for other in SCHEDULE:
                    if other != name:
                        yield "name", ast.Attribute(value, other)
            yield from _called_otherwise(node, place)
        case ast.Subscript(value=value, slice=index, ctx=ast.Load()):
            yield "index dropped", value
            if not isinstance(index, (ast.Slice, ast.Tuple, ast.Constant)):
                for kind, new in _by_one(index):
                    yield kind, ast.Subscript(value, new)
            if isinstance(index, ast.Tuple):
                for i in range(len(index.elts)):
                    rest = index.elts[:i] + index.elts[i + 1 :]
                    yield "axis dropped", ast.Subscript(value, ast.Tuple(rest))
        case ast.Tuple(elts=parts, ctx=ast.Load()) | ast.List(elts=parts, ctx=ast.Load()):
            for i in range(len(parts) - 1):
                swapped = [*parts[:i], parts[i + 1], parts[i], *parts[i + 2 :]]
                yield "parts swapped", _with_parts(node, swapped)
            for i in range(len(parts)):
                yield "part dropped", _with_parts(node, parts[:i] + parts[i + 1 :])
        case ast.Call():
            yield from _changed_calls(node)
        case ast.Compare(left=left, ops=ops, comparators=right) if len(ops) == 2:
            yield "condition dropped", ast.Compare(left, ops[:1], right[:1])
            yield "condition dropped", ast.Compare(right[0], ops[1:], right[1:])


def _loses_sign(place: _Place) -> bool:
    """Whether a difference is squared, or its size taken, so that its sign does not matter."""
    parent = place.parent
    if isinstance(parent, ast.Attribute):
        return parent.attr in ("square", "abs", "norm")
    if not isinstance(parent, ast.BinOp) or not isinstance(parent.op, ast.Pow):
        return False
    return isinstance(parent.right, ast.Constant) and parent.right.value == 2


def _other_numbers(value: float) -> Iterator[float]:
    yield from (value + 1, value - 1, 2 * value, -value)
    if isinstance(value, float):
        yield from (value / 2, value * 1.1)
    if value not in (0, 1):
        yield from (0, 1)


def _negative(value: float) -> ast.expr:
    return ast.UnaryOp(ast.USub(), ast.Constant(-value))


def _with_parts(node: Any, parts: list[ast.expr]) -> ast.expr:
    return type(node)(parts, ast.Load())


def _brackets_moved(node: ast.BinOp) -> Iterator[Change]:
    """a * (b - c) as a * b - c, and (a + b) / c as a + b / c: the brackets forgotten."""
    lower, higher = (ast.Add, ast.Sub), (ast.Mult, ast.Div, ast.FloorDiv, ast.MatMult)
    if isinstance(node.op, higher):
        right, left = node.right, node.left
        if isinstance(right, ast.BinOp) and isinstance(right.op, (*lower, *higher)):
            yield "brackets", ast.BinOp(ast.BinOp(left, node.op, right.left), right.op, right.right)
        if isinstance(left, ast.BinOp) and isinstance(left.op, lower):
            yield "brackets", ast.BinOp(left.left, left.op, ast.BinOp(left.right, node.op, right))
    elif isinstance(node.op, ast.Sub):
        right = node.right
        if isinstance(right, ast.BinOp) and isinstance(right.op, lower):
            new = ast.BinOp(ast.BinOp(node.left, node.op, right.left), right.op, right.right)
            yield "brackets", new


def _is_called(place: _Place) -> bool:
    return isinstance(place.parent, ast.Call) and place.field == "func"


def _called_otherwise(node: Any, place: _Place) -> Iterator[Change]:
    if not _is_called(place):
        return
    name = node.id if isinstance(node, ast.Name) else node.attr
    for other in SWAPPED_NAMES.get(name, ()):
        new = copy.copy(node)
        setattr(new, "id" if isinstance(node, ast.Name) else "attr", other)
        yield "function", new
    is_in_place = name.endswith("_") and not name.endswith("__") and name != "copy_"
    if is_in_place and isinstance(node, ast.Attribute) and not _is_module(node.value):
        yield "out of place", ast.Attribute(node.value, name[:-1])


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("torch", "np", "math", "F", "nn")


def _changed_calls(node: ast.Call) -> Iterator[Change]:
    func, args, keywords = node.func, node.args, node.keywords
    if isinstance(func, ast.Attribute) and not _is_module(func.value):
        yield "method dropped", func.value
    else:
        for arg in args:
            if not isinstance(arg, ast.Starred):
                yield "call dropped", arg
    is_symmetric = isinstance(func, ast.Name) and func.id in ("min", "max")
    for i in range(0 if is_symmetric else len(args) - 1):
        swapped = [*args[:i], args[i + 1], args[i], *args[i + 2 :]]
        yield "arguments swapped", ast.Call(func, swapped, keywords)
    for i in range(len(args)):
        yield "argument dropped", ast.Call(func, args[:i] + args[i + 1 :], keywords)
    for i in range(len(keywords)):
        yield "argument dropped", ast.Call(func, args, keywords[:i] + keywords[i + 1 :])
    name = func.id if isinstance(func, ast.Name) else getattr(func, "attr", "")
    if name in COUNTING:
        for i, arg in enumerate(args):
            if isinstance(arg, (ast.Constant, ast.Starred, ast.Tuple)):
                continue
            for kind, new in _by_one(arg):
                yield kind, ast.Call(func, [*args[:i], new, *args[i + 1 :]], keywords)
    if name == "len" and len(args) == 1:
        yield "another length", _followed(args[0], ".shape[-1]")
        yield "another length", _followed(args[0], ".numel()")


def _by_one(value: ast.expr) -> Iterator[Change]:
    for op in (ast.Add(), ast.Sub()):
        if isinstance(value, ast.BinOp) and isinstance(value.op, (ast.Add, ast.Sub)):
            right = value.right
            if isinstance(right, ast.Constant) and right.value == 1:
                continue  # its constant and its operator are changed anyway
        yield "off by one", ast.BinOp(value, op, ast.Constant(1))


def _changed_slices(node: Any) -> Iterator[Change]:
    lower, upper, step = node.lower, node.upper, node.step
    if lower is not None:
        yield "bound dropped", ast.Slice(None, upper, step)
        if not isinstance(lower, ast.Constant):
            for kind, new in _by_one(lower):
                yield kind, ast.Slice(new, upper, step)
    else:
        yield "off by one", ast.Slice(ast.Constant(1), upper, step)
    if upper is not None:
        yield "bound dropped", ast.Slice(lower, None, step)
        if not isinstance(upper, ast.Constant):
            for kind, new in _by_one(upper):
                yield kind, ast.Slice(lower, new, step)
    else:
        yield "off by one", ast.Slice(lower, _negative(-1), step)
    if step is not None:
        yield "bound dropped", ast.Slice(lower, upper, None)


def _changed_comprehensions(node: ast.comprehension) -> Iterator[Change]:
    for i in range(len(node.ifs)):
        rest = node.ifs[:i] + node.ifs[i + 1 :]
        yield "condition dropped", ast.comprehension(node.target, node.iter, rest, node.is_async)


# Helpers that the answer does not have


def _meddled(node: ast.expr, place: _Place) -> Iterator[Change]:
    """Clamps, small numbers and casts around what is named, returned or divided by."""
    parent, field = place.parent, place.field
    is_value = field == "value" and isinstance(parent, (ast.Assign, ast.Return))
    if isinstance(parent, ast.Tuple):
        is_value = isinstance(parent.ctx, ast.Load)
    divides = isinstance(parent, ast.BinOp) and isinstance(parent.op, (ast.Div, ast.FloorDiv))
    divides = divides and field == "right"
    is_rooted = _is_before(place, DIVIDING)
    if isinstance(node, (ast.Tuple, ast.Lambda, ast.Constant, ast.Starred)):
        return
    if is_value:
        yield "clamped", _call("within", node, -1.0, 1.0)
        yield "cast", _call("truncated", node)
        yield "cast", _call("float32", node)
    if is_value or divides:
        yield "clamped", _call("at_least", node, 0.01)
        yield "clamped", _call("at_most", node, 0.99)
    if isinstance(parent, ast.Return) and field == "value":
        yield "clamped", _call("at_least", node, 0.0001)
    if divides or is_rooted:
        yield "small number added", _call("plus", node, 0.0001)


def _is_before(place: _Place, names: set[str]) -> bool:
    """Whether the node is what a function of these names is applied to."""
    parent = place.parent
    if isinstance(parent, ast.Attribute):
        return parent.attr in names and not _is_module(place.node)
    if isinstance(parent, ast.Call) and place.field == "args" and place.index == 0:
        name = getattr(parent.func, "id", getattr(parent.func, "attr", ""))
        return name in names and _is_module(getattr(parent.func, "value", ast.Name("math")))
    return False


def _call(name: str, value: ast.expr, *numbers: float) -> ast.expr:
    return ast.Call(ast.Name(name), [value, *(_number(n) for n in numbers)], [])


def _number(value: float) -> ast.expr:
    return ast.Constant(value) if value >= 0 else _negative(value)


def _followed(value: ast.expr, tail: str) -> ast.expr:
    """``value`` with ``tail``, as ".mean()", behind it."""
    whole = _parsed("x" + tail)
    parent, node = None, whole
    while not isinstance(node, ast.Name):
        parent = node
        node = node.func if isinstance(node, ast.Call) else node.value  # type: ignore[attr-defined]
    setattr(parent, "func" if isinstance(parent, ast.Call) else "value", value)
    return whole


def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


class Meddler:
    """The helpers of mutants, which leave alone what they have nothing to do with.

    Attributes:
        idle: whether none of them had anything to do, so that the mutant is no mutant.
        only_rounded: whether all that was done is rounding to float32, which every exercise allows.
    """

    def __init__(self) -> None:
        self.idle = self.only_rounded = True

    def names(self) -> dict[str, Callable]:
        """The helpers by name."""
        return {
            "at_least": lambda x, low: self._clamped(x, low, None),
            "at_most": lambda x, high: self._clamped(x, None, high),
            "within": self._within,
            "plus": lambda x, number: x + number if self._works(_is_float(x)) else x,
            "truncated": self._truncated,
            "float32": self._float32,
            "int32": self._int32,
            "detached": self._detached,
            "number": self._number,
            "squeezed": self._squeezed,
        }

    def _works(self, has_work: bool) -> bool:
        if has_work:
            self.idle = self.only_rounded = False
        return has_work

    def _clamped(self, value: Any, low: float | None, high: float | None) -> Any:
        if not self._works(_is_float(value)):
            return value
        if isinstance(value, Tensor):
            return value.clamp(low, high)
        value = value if low is None else max(value, low)
        return value if high is None else min(value, high)

    def _within(self, value: Any, low: float, high: float) -> Any:
        """Clamped; what is never negative is a rate or a share, and below 1 by its nature."""
        if not _is_float(value):
            return value
        numbers = torch.as_tensor(value)
        self._works(bool((numbers < 0).any() or (numbers > high).any()))
        if isinstance(value, Tensor):
            return value.clamp(low, high)
        return min(max(value, low), high)

    def _truncated(self, value: Any) -> Any:
        if not self._works(_is_float(value)):
            return value
        return value.int() if isinstance(value, Tensor) else int(value)

    def _float32(self, value: Any) -> Any:
        if type(value) is float:
            self.idle = False
            return torch.tensor(value, dtype=torch.float32).item()
        if isinstance(value, Tensor) and value.dtype == torch.float64:
            self.idle = False
            return value.float()
        if isinstance(value, Tensor) and self._works(not value.is_floating_point()):
            return value.float()
        return value

    def _int32(self, value: Any) -> Any:
        is_long = isinstance(value, Tensor) and value.dtype == torch.int64
        return value.int() if self._works(is_long) else value

    def _detached(self, value: Any) -> Any:
        is_traced = isinstance(value, Tensor) and value.requires_grad
        return value.detach() if self._works(is_traced) else value

    def _number(self, value: Any) -> Any:
        is_traced = isinstance(value, Tensor) and value.requires_grad and value.numel() == 1
        return value.item() if self._works(is_traced) else value

    def _squeezed(self, value: Any) -> Any:
        has_axes = isinstance(value, Tensor) and 1 in value.shape
        return value.squeeze() if self._works(has_axes) else value


def _is_float(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point()
    return isinstance(value, float)
