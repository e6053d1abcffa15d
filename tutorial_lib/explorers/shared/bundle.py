"""ES modules become one module: a widget and an exported page each need a single script.

A page may be opened from a disk, where browsers refuse to load modules beside it, and editors that
show notebooks refuse scripts from ``data:`` addresses. So what a script imports is put in front of
it, each module in a function of its own: no name of one can clash with a name of another.
"""

import functools
import posixpath
import re
from collections.abc import Callable
from typing import NamedTuple

_IMPORT = re.compile(r'^import \{([^}]+)\} from "(\.[^"]+)";$', re.MULTILINE)
_DECLARED = re.compile(r"^export (?=(?:const|class|function) (\w+))", re.MULTILINE)
_LISTED = re.compile(r"^export \{([^}]+)\};$", re.MULTILINE)
_DEFAULT = re.compile(r"^export default (?=\{)", re.MULTILINE)
_OTHER = re.compile(r"^\s*(?:import|export)\b.*", re.MULTILINE)
_TYPES = re.compile(r"^ *//[^\n]*\n|^ */\*\*(?:(?!\*/).)*\*/\n", re.MULTILINE | re.DOTALL)


def bundle(entry: str, read: Callable[[str], str]) -> str:
    """The module ``entry`` and all that it imports, as one module with the exports of ``entry``.

    Understood are ``import { a, b } from "./file.js";``, ``export`` in front of a const, class or
    function, ``export { a, b };`` and ``export default { ... };``, each at the start of a line.
    Comments on lines of their own are left out.

    Args:
        entry: the path of a module.
        read: gives the source of a path; paths of imports are relative to the importing file.

    Raises:
        ValueError: another kind of import or export, a name that is not exported where it is
            imported from, or modules that import each other in a circle.
    """
    modules: dict[str, _Module] = {}

    def add(path: str, importers: tuple[str, ...]) -> None:
        if path in importers:
            raise ValueError(f"modules import each other: {' -> '.join([*importers, path])}")
        if path in modules:
            return
        module = _parsed(path, read(path))
        for origin, names in module.imports:
            add(origin, (*importers, path))
            if missing := sorted(set(names) - set(modules[origin].exports)):
                raise ValueError(f"{origin} does not export {missing[0]}, which {path} imports")
        modules[path] = module  # after all that it imports

    add(entry, ())
    parts = [module.text for module in modules.values()]
    exports = modules[entry].exports
    named = [name for name in exports if name != "_default"]
    if named:
        parts.append(f"export const {{ {', '.join(named)} }} = {_variable(entry)};\n")
    if "_default" in exports:
        parts.append(f"export default {_variable(entry)}._default;\n")
    return "".join(parts)


class _Module(NamedTuple):
    """A module as a bundle needs it.

    Attributes:
        imports: a path and the names that are taken from there, for each import.
        exports: the names it exports; ``_default`` for its default.
        text: the module as a constant that holds its exports.
    """

    imports: tuple[tuple[str, tuple[str, ...]], ...]
    exports: tuple[str, ...]
    text: str


@functools.cache  # the explorers share most of their modules
def _parsed(path: str, source: str) -> _Module:
    imports: list[tuple[str, tuple[str, ...]]] = []

    def imported(found: re.Match[str]) -> str:
        origin = posixpath.normpath(posixpath.join(posixpath.dirname(path), found[2]))
        imports.append((origin, _names(found[1])))
        return f"const {{ {', '.join(_names(found[1]))} }} = {_variable(origin)};"

    source = _IMPORT.sub(imported, _TYPES.sub("", source))
    exports = [found[1] for found in _DECLARED.finditer(source)]
    exports += [name for found in _LISTED.finditer(source) for name in _names(found[1])]
    source = _LISTED.sub("", _DECLARED.sub("", source))
    source, defaults = _DEFAULT.subn("const _default = ", source)
    if defaults:
        exports.append("_default")
    if other := _OTHER.search(source):
        raise ValueError(f"{path} has a line that cannot be bundled: {other[0].strip()}")
    result = f"return {{ {', '.join(exports)} }};"
    text = f"const {_variable(path)} = (() => {{\n{source.strip()}\n{result}\n}})();\n"
    return _Module(tuple(imports), tuple(exports), text)


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name for name in re.split(r"[\s,]+", listed) if name)


def _variable(path: str) -> str:
    """What the exports of a module are called in the bundle."""
    return "$" + re.sub(r"\W", "_", path.removesuffix(".js"))
