"""Measures every number in the tables of claims: README's, and each lesson's own.

    python benchmarks/claims.py                     measure all claims anew
    python benchmarks/claims.py pure_noise eta_one  these; the others keep their numbers
    python benchmarks/claims.py lesson06            those of one lesson
    python benchmarks/claims.py --render            measure nothing, write the tables anew
    python benchmarks/claims.py --list              names, lessons, seconds that each one took

The claims stand in ``benchmarks/measured/lessonNN.py``, the numbers in
``benchmarks/results/claims/lessonNN.json``, each with machine, versions and seconds. README's
table, between ``<!-- claims -->`` and ``<!-- end of claims -->``, is made from these files, and so
is the table at the mark ``<!-- claims -->`` in a lesson's source (run ``make notebooks`` then).
"""

import argparse
import importlib
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import report
from measured.claim import Claim, Numbers

from tutorial_lib import _files, course

ROOT = Path(__file__).resolve().parents[1]
RESULTS = report.RESULTS / "claims"
README = ROOT / "README.md"
TABLE = re.compile(r"(<!-- claims -->\n).*?(<!-- end of claims -->\n)", re.DOTALL)
MOST_WORDS = {"verdict": 12, "number": 30}


def claims() -> dict[str, tuple[str, Claim]]:
    """Every claim and its lesson's number, by name, in the order of the course.

    Raises:
        ValueError: two claims have one name.
    """
    found: dict[str, tuple[str, Claim]] = {}
    for lesson in course.LESSONS:
        if not (ROOT / "benchmarks" / "measured" / f"{lesson.checks}.py").exists():
            continue
        for claim in importlib.import_module(f"measured.{lesson.checks}").CLAIMS:
            if claim.name in found:
                raise ValueError(f"two claims have the name {claim.name!r}")
            found[claim.name] = (lesson.number, claim)
    return found


def checks_of(number: str) -> str:
    """The name of a lesson's checks: "lesson05b" for "5b"."""
    return next(lesson.checks for lesson in course.LESSONS if lesson.number == number)


def rendered(lesson: str, claim: Claim, numbers: Numbers) -> dict[str, str]:
    """The texts of a claim's row.

    Raises:
        ValueError: a text is too long for a row of a table.
    """
    texts = {"verdict": claim.verdict(numbers), "number": claim.number(numbers)}
    for part, most in MOST_WORDS.items():
        if (count := len(texts[part].split())) > most:
            raise ValueError(
                f"{part} of {claim.name} has {count} words, at most {most}: {texts[part]}"
            )
    return {"lesson": lesson, "claim": claim.claim, **texts}


def stored() -> dict[str, Any]:
    """What has been measured so far, by the claims' names, in the order of the course."""
    found: dict[str, Any] = {}
    for path in RESULTS.glob("*.json"):
        found |= json.loads(path.read_text(encoding="utf-8"))
    known = {name: found.pop(name) for name in claims() if name in found}
    return known | found


def store(entries: dict[str, Any]) -> None:
    """Writes what has been measured, a file for each lesson, with the texts made anew.

    What belongs to no claim any more is dropped.
    """
    known = claims()
    files: dict[str, dict[str, Any]] = {}
    for name, (lesson, claim) in known.items():
        if name in entries:
            entry = entries[name]
            kept = {key: entry[key] for key in ("numbers", "seconds", "about")}
            texts = rendered(lesson, claim, entry["numbers"])
            files.setdefault(checks_of(lesson), {})[name] = {**texts, **kept}
    RESULTS.mkdir(parents=True, exist_ok=True)
    for path in RESULTS.glob("*.json"):
        if path.stem not in files:
            path.unlink()
    for stem, found in files.items():
        _write(stem, found)


def keep(name: str, lesson: str, entry: dict[str, Any]) -> None:
    """Writes one measurement into its lesson's file, beside what is there; nothing else changes."""
    path = RESULTS / f"{checks_of(lesson)}.json"
    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    RESULTS.mkdir(parents=True, exist_ok=True)
    _write(path.stem, there | {name: entry})


def _write(stem: str, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=2, ensure_ascii=False)
    _files.write_whole(RESULTS / f"{stem}.json", f"{text}\n".encode())


def readme_table(entries: dict[str, Any]) -> str:
    """README's table of all claims."""
    lines = ["| claim | verdict | number | lesson |", "|---|---|---|---|"]
    for entry in entries.values():
        lines.append(
            "| " + " | ".join(entry[k] for k in ("claim", "verdict", "number", "lesson")) + " |"
        )
    return "\n".join(lines)


def with_table(text: str, entries: dict[str, Any]) -> str:
    """README's text with its table of claims made anew.

    Raises:
        ValueError: the text does not have one pair of marks.
    """
    table = f"\n{readme_table(entries)}\n\n"
    new, count = TABLE.subn(lambda match: match[1] + table + match[2], text)
    if count != 1:
        marks = "<!-- claims --> and <!-- end of claims -->"
        raise ValueError(f"README.md must have one pair of lines {marks}, it has {count}")
    return new


def write_tables() -> None:
    """Makes the stored texts and README's table anew from the stored numbers."""
    store(stored())
    text = README.read_text(encoding="utf-8")
    README.write_text(with_table(text, stored()), encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.set_defaults(seed="each claim has its own")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--json", type=Path, help="file for the numbers of --quick")
    about = "claims to measure, or lessons such as lesson06; default all"
    parser.add_argument("names", nargs="*", metavar="NAME", help=about)
    parser.add_argument("--render", action="store_true", help="measure nothing, write the tables")
    parser.add_argument("--list", action="store_true", help="list the claims")
    options = parser.parse_args()
    known = claims()
    names = []
    for word in options.names or known:
        own = [name for name, (lesson, _) in known.items() if word in (name, checks_of(lesson))]
        if not own:
            parser.error(f"no claim or lesson with claims is called {word!r}: {', '.join(known)}")
        names += [name for name in own if name not in names]
    if options.list:
        entries = stored()
        for name in names:
            seconds = entries[name]["seconds"] if name in entries else "not measured"
            print(f"{known[name][0]:>3}  {name}  {seconds}")
        return
    if options.render:
        write_tables()
        return
    measured = [measure(name, *known[name], options) for name in names]
    print(
        report.table(
            [{key: row[key] for key in ("claim", "verdict", "number")} for row in measured]
        )
    )
    if options.quick:
        report.write(options, report.about(options, __file__) | {"rows": measured})
    else:
        write_tables()


def measure(name: str, lesson: str, claim: Claim, options: argparse.Namespace) -> dict[str, Any]:
    """Measures one claim and, unless ``--quick``, stores it at once.

    The numbers are stored before texts are made of them: minutes of measuring are not lost to a
    text that is too long, or to a number that an older measurement lacks.
    """
    about = report.about(options, __file__)
    print(f"measuring {name} (lesson {lesson})", file=sys.stderr, flush=True)
    start = time.perf_counter()
    numbers = claim.measure(options.quick)
    seconds = round(time.perf_counter() - start, 1)
    conditions = {key: about[key] for key in ("device", "cpu", "threads", "versions")}
    kept = {"numbers": numbers, "seconds": seconds, "about": conditions}
    untold = {"lesson": lesson, "claim": claim.claim, "verdict": "", "number": ""}
    if not options.quick:
        keep(name, lesson, {**untold, **kept})
    entry = {**rendered(lesson, claim, numbers), **kept}
    if not options.quick:
        keep(name, lesson, entry)
    return entry


if __name__ == "__main__":
    main()
