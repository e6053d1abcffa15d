"""Sphinx's settings. What it builds from is staged by tools/build_site.py."""

import html
import json
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from website.docstrings import as_rst
from website.formulas import Formulas

HERE = Path(__file__).parent
SITE = json.loads(os.environ["TUTORIAL_SITE"])  # source, title, version, address, repository

project = SITE["title"]
author = ""
copyright = ""  # noqa: A001
release = SITE["version"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_*"]
suppress_warnings = ["config.cache"]
nitpicky = False

myst_enable_extensions = ["dollarmath", "attrs_inline", "fieldlist", "deflist"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
nb_execution_mode = "off"
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_math_renderer = "katex"
html_theme = "furo"
html_title = SITE["title"]
html_baseurl = SITE["address"]
html_static_path = [str(HERE / "static"), f"{SITE['source']}/_static"]
html_extra_path = [f"{SITE['source']}/_extra"]
html_css_files = ["explorer.css", "site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_favicon = str(HERE / "static" / "favicon.svg")
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {
        "color-brand-primary": "#0063a3",
        "color-brand-content": "#0063a3",
        "color-brand-visited": "#70408f",
    },
    "dark_css_variables": {
        "color-brand-primary": "#6cb8ff",
        "color-brand-content": "#6cb8ff",
        "color-brand-visited": "#c9a5ef",
    },
}
if SITE["repository"]:
    html_theme_options["footer_icons"] = [
        {"name": "GitHub", "url": SITE["repository"], "html": "The course on GitHub", "class": ""}
    ]
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


SIGNATURE = re.compile(r'<dt class="sig .*?</dt>', re.DOTALL)
LISTS = {
    "<dl>": '<span class="sig-list">',
    "<dd>": '<span class="sig-line">',
    "</dl>": "</span>",
    "</dd>": "</span>",
}


def _without_lists(signature: re.Match[str]) -> str:
    """A signature over several lines, which Sphinx writes as a list without terms."""
    return re.sub(r"</?d[ld]>", lambda tag: LISTS[tag[0]], signature[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Formulas are set here and now; KaTeX's style goes to the pages that have some."""
    formulas = Formulas()

    def inline(writer: Any, node: nodes.math) -> None:
        writer.body.append(formulas.html(node.astext(), display=False))
        raise nodes.SkipNode

    def block(writer: Any, node: nodes.math_block) -> None:
        label = node.get("label")
        anchor = f' id="{html.escape(label)}"' if label else ""
        formula = formulas.html(node.astext(), display=True)
        writer.body.append(f'<div class="formula" tabindex="0"{anchor}>{formula}</div>')
        raise nodes.SkipNode

    def style(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
        if doctree is not None and any(doctree.findall(nodes.math)) | any(
            doctree.findall(nodes.math_block)
        ):
            app.add_css_file("katex/katex.min.css")

    def docstring(app: Sphinx, what: str, name: str, it: Any, options: Any, lines: list) -> None:
        lines[:] = as_rst(lines)

    def is_left_out(
        app: Sphinx, what: str, name: str, it: Any, skip: bool, options: Any
    ) -> bool | None:
        """A field of a named tuple has no docstring of its own: the class says what it is."""
        says = getattr(it, "__doc__", None) or ""
        return True if says.startswith("Alias for field number") else None

    def accessible(
        app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
    ) -> None:
        """What screen readers need: headings with levels, no lists that are none."""
        if "body" in context:
            context["body"] = SIGNATURE.sub(_without_lists, context["body"])
        tree = context.get("furo_navigation_tree", "")
        level = 'role="heading" aria-level="2"'
        context["furo_navigation_tree"] = tree.replace('role="heading"', level)

    app.add_html_math_renderer("katex", (inline, None), (block, None))
    app.connect("html-page-context", accessible, priority=900)  # after the theme
    app.connect("autodoc-process-docstring", docstring, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", is_left_out)
    app.connect("html-page-context", style)
    app.connect("build-finished", lambda app, error: formulas.close())
    return {"parallel_read_safe": False, "parallel_write_safe": False}
