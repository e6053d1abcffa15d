"""Links in the repository's files become links of the website.

A file that has a page on the site is linked there; any other is linked on GitHub, or only named
where nobody knows the repository's address.
"""

import posixpath
import re
from collections.abc import Mapping

from repository import Repository

LINK = re.compile(r"""(?P<before>\]\(|(?P<attribute>src|srcset|href)=["'])(?P<to>[^)\s"'#]+)""")
WHOLE = re.compile(r"(?<!!)\[(?P<text>[^\[\]]*)\]\((?P<to>[^)\s#]+)[^)]*\)")
ELSEWHERE = re.compile(r"[a-z][a-z+.-]*:|/")


class Links:
    """Rewrites the links of one file.

    Args:
        repository: where the files without a page are, if that is known.
        pages: what each file's page is, as paths: "docs/teachers.md": "guides/teachers.md".
        pictures: the folder on the site for pictures in each folder of the repository:
            "notebooks/images": "images".
    """

    def __init__(
        self, repository: Repository | None, pages: Mapping[str, str], pictures: Mapping[str, str]
    ) -> None:
        self.repository, self.pages, self.pictures = repository, pages, pictures

    def seen_from(self, page: str, file: str, text: str) -> str:
        """``text`` of the file ``file`` with its links as seen from ``page``, which shows it."""

        def path_of(to: str) -> str:
            return posixpath.normpath(posixpath.join(posixpath.dirname(file), to))

        def named(match: re.Match[str]) -> str:
            to = match["to"]
            known = ELSEWHERE.match(to) or self._on_site(path_of(to))
            return match[0] if known else match["text"]

        def moved(match: re.Match[str]) -> str:
            to = match["to"]
            if ELSEWHERE.match(to):
                return match[0]
            path = path_of(to)
            there = self._on_site(path)
            if there is None:
                if self.repository is None:
                    raise ValueError(f"{file} links to {to}, which has no page: only text can")
                folder = to.endswith("/") or "." not in posixpath.basename(path)
                return match["before"] + self.repository.file(f"{path}/" if folder else path)
            if match["attribute"] == "href":  # Sphinx does not look into HTML
                there = re.sub(r"\.(md|ipynb)$", ".html", there)
            return match["before"] + posixpath.relpath(there, posixpath.dirname(page) or ".")

        return LINK.sub(moved, text if self.repository else WHOLE.sub(named, text))

    def _on_site(self, path: str) -> str | None:
        folder, name = posixpath.split(path)
        if folder in self.pictures and name.endswith((".png", ".gif")):
            return f"{self.pictures[folder]}/{name}"
        return self.pages.get(path)
