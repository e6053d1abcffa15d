"""The words of a command line, read into a config by ``argparse``.

A config is a frozen dataclass, and each of its fields is an option: the string below the field is
the option's help, the field's type says how its words are read. Two keys of a field's metadata are
for here: ``positional`` marks the field that takes the words without a flag, ``one_of`` lists the
names a field may have, for the help.
"""

import argparse
import ast
import dataclasses
import difflib
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidValueError

PROGRAM = "python -m tutorial_lib"
DESCRIPTION = "Train a denoiser, draw images with it, look at this machine, run the exercises."


class UsageError(InvalidValueError):
    """A command line that is not understood."""


def parse(
    argv: Sequence[str],
    commands: Mapping[str, type],
    before: Callable[[str, Mapping[str, Any]], Any] = lambda command, given: None,
) -> tuple[str, Any] | None:
    """The command and the config that the words ask for; None if they asked for help.

    Args:
        argv: the words after the program's name.
        commands: the config of each command by the command's name.
        before: called with the command and the fields that the words give; may return a config for
            the fields that they leave out, in place of the defaults.

    Raises:
        UsageError: a word that is not understood.
        TypeError, ValueError: a field with an invalid value.
    """
    if not argv:
        raise UsageError(f"expected a command, one of {', '.join(commands)}")
    if argv[0] in ("-h", "--help"):
        _overview(commands).print_help()
        return None
    command = _validate.one_of("command", argv[0], commands)
    config = commands[command]
    given = _given(config, _parser(f"{PROGRAM} {command}", config), argv[1:])
    if given is None:
        return None
    base = before(command, given)
    return command, config(**given) if base is None else dataclasses.replace(base, **given)


def _overview(commands: Mapping[str, type]) -> argparse.ArgumentParser:
    """The parser behind the help on the program as a whole."""
    parser = _Parser(prog=PROGRAM, description=DESCRIPTION)
    listed = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, config in commands.items():
        listed.add_parser(name, help=config.__doc__)
    return parser


def _given(
    config: type, parser: argparse.ArgumentParser, words: Sequence[str]
) -> dict[str, Any] | None:
    """The fields that the words give, each in its type; None if they asked for help."""
    try:
        found, unknown = parser.parse_known_intermixed_args(words)
    except SystemExit:  # --help has been answered
        return None
    kinds = typing.get_type_hints(config)
    if unknown:
        flags = [_flag(name) for name in kinds]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"not understood: {' '.join(unknown)}{hint}")
    given = {name: value for name, value in vars(found).items() if value not in (None, [])}
    return {name: _converted(name, kinds[name], value) for name, value in given.items()}


class _Parser(argparse.ArgumentParser):
    """A parser that raises, and lets its caller say what is wrong and end the program."""

    def error(self, message: str) -> typing.NoReturn:
        raise UsageError(message)


class _Once(argparse.Action):
    """Keeps the word or words of an option, which may be given once."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        _keep(namespace, self.dest, values)


class _Switch(argparse.BooleanOptionalAction):
    """An option for yes and one for no, of which one may be given once."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        _keep(namespace, self.dest, not (option or "").startswith("--no-"))


def _keep(namespace: argparse.Namespace, name: str, value: Any) -> None:
    """Keeps what was given for a field.

    Raises:
        UsageError: it was given before; whichever counted, somebody would not expect it. Or its
            only word was "--", which argparse takes away.
    """
    if value == []:
        raise UsageError(f"{_flag(name)} must have a value, got '--'")
    if hasattr(namespace, name):
        raise UsageError(f"{_flag(name)} must be given once, got it twice")
    setattr(namespace, name, value)


class _Help(argparse.HelpFormatter):
    """Help that breaks lines at spaces only: "signal-to-noise" stays one word.

    Overrides what argparse's own raw formatters override.
    """

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


def _parser(prog: str, config: type) -> _Parser:
    """A parser that collects, for each field that is given, its word or words."""
    fields, docs = dataclasses.fields(config), _field_docs(config)
    kinds = typing.get_type_hints(config)
    positional = [field.name.upper() for field in fields if field.metadata.get("positional")]
    usage = " ".join([prog, "[OPTIONS]", *(f"[{name}]" for name in positional)])
    parser = _Parser(
        prog=prog,
        usage=usage,
        description=config.__doc__,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    for field in fields:
        kind, many = _kind(kinds[field.name])
        text = docs[field.name]
        if "one_of" in field.metadata:
            text += f" One of {', '.join(field.metadata['one_of'])}."
        text = f"{text} (default: {_default(field)})".replace("%", "%%")
        if field.metadata.get("positional"):
            count = "*" if many else "?"
            parser.add_argument(field.name, nargs=count, metavar=field.name.upper(), help=text)
            continue
        if kind is bool:
            how: dict[str, Any] = {"action": _Switch}
        else:
            how = {"action": _Once, "metavar": _METAVARS[kind], "nargs": "+" if many else None}
        parser.add_argument(
            _flag(field.name), dest=field.name, default=argparse.SUPPRESS, help=text, **how
        )
    return parser


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


_METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
_NOUNS = {int: "an int", float: "a number"}


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of a field's words, and whether there may be many: int and True for
    ``tuple[int, ...]``, Path and False for ``Path | None``."""
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in hint.__args__ if part is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


def _converted(name: str, hint: Any, value: Any) -> Any:
    """A field's value from its word or words.

    Raises:
        UsageError: a word is not of the field's type.
    """
    kind, many = _kind(hint)
    if many:
        return tuple(_converted(name, kind, word) for word in value)
    if kind is bool:
        return value
    if value == "None" and isinstance(hint, types.UnionType):
        return None
    try:
        return kind(value)
    except ValueError as error:
        got = repr(value) if len(value) <= 80 else f"{value[:60]!r} and {len(value) - 60} more"
        raise UsageError(f"{_flag(name)} must be {_NOUNS[kind]}, got {got}") from error


def _default(field: dataclasses.Field) -> str:
    value = field.default
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _field_docs(config: type) -> dict[str, str]:
    """The string below each field of a dataclass, on one line."""
    docs = {}
    for kind in reversed(config.__mro__):
        if not dataclasses.is_dataclass(kind):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    docs[name] = " ".join(text.split())
    return docs
