"""Docstrings of the library as reStructuredText: bars are plain text, and tables are tables."""

import re
from itertools import groupby

ROW = re.compile(r"^\s*\|.*\|\s*$")
RULE = re.compile(r"^[\s|:-]+$")


def as_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring as Sphinx should read them.

    Args:
        lines: of the docstring; a table has Markdown's form.
    """
    found: list[str] = []
    for is_table, block in groupby(lines, key=lambda line: ROW.match(line) is not None):
        rows = list(block)
        found += _table(rows) if is_table else map(_plain, rows)
    return found


def _table(rows: list[str]) -> list[str]:
    indent = re.match(r"\s*", rows[0])
    assert indent is not None
    space = indent[0]
    has_head = len(rows) > 1 and RULE.match(rows[1]) is not None
    head = [f"{space}   :header-rows: 1"] if has_head else []
    lines = ["", f"{space}.. list-table::", *head, ""]
    for row in rows:
        if RULE.match(row):
            continue
        for number, cell in enumerate(row.strip().strip("|").split("|")):
            lines.append(f"{space}   {'  -' if number else '* -'} {_plain(cell.strip())}")
    return [*lines, ""]


def _plain(line: str) -> str:
    """A line whose bars outside of literals mean nothing."""
    parts = re.split(r"(``.*?``)", line)
    return "".join(part if part.startswith("``") else part.replace("|", "\\|") for part in parts)
