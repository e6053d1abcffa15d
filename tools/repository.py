"""Where the course is published, and every link that depends on it.

One setting says so: ``repository`` under ``[tool.course]`` in pyproject.toml. The badges in README
and in the notebooks and what installs the course on Colab are made from it by ``make notebooks``;
while it is empty there are none, so that nothing leads to an address that does not exist.

The website needs no setting where it can know better: in a workflow of GitHub it follows the
repository that the workflow runs in, so the site of a fork is right without a change.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+)")


@dataclass(frozen=True)
class Repository:
    """A repository on GitHub.

    Attributes:
        owner: a user or an organization.
        name: what the repository is called.
        branch: where readers find the newest course.
    """

    owner: str
    name: str
    branch: str = "main"

    @property
    def slug(self) -> str:
        """What GitHub calls it: "owner/name"."""
        return f"{self.owner}/{self.name}"

    @property
    def address(self) -> str:
        """Its page on GitHub."""
        return f"https://github.com/{self.slug}"

    @property
    def site(self) -> str:
        """Its website on GitHub Pages, with a slash at the end."""
        host = f"https://{self.owner.lower()}.github.io/"
        return (
            host
            if self.name.lower() == f"{self.owner.lower()}.github.io"
            else f"{host}{self.name}/"
        )

    def file(self, path: str) -> str:
        """The page of a file, or of a folder, whose path ends with a slash."""
        kind = "tree" if path.endswith("/") or not path else "blob"
        return f"{self.address}/{kind}/{self.branch}/{path}".rstrip("/")

    def colab(self, notebook: str) -> str:
        """Opens ``notebook``, a path, in Google Colab."""
        return f"https://colab.research.google.com/github/{self.slug}/blob/{self.branch}/{notebook}"

    def kaggle(self, notebook: str) -> str:
        """Opens a copy of ``notebook`` on Kaggle."""
        return f"https://kaggle.com/kernels/welcome?src={self.file(notebook)}"

    def binder(self, notebook: str) -> str:
        """Opens ``notebook`` in JupyterLab on Binder."""
        return f"https://mybinder.org/v2/gh/{self.slug}/{self.branch}?urlpath=lab/tree/{notebook}"

    def codespaces(self) -> str:
        """Opens the course in a codespace."""
        return f"https://codespaces.new/{self.slug}?quickstart=1"

    def requirement(self, extra: str) -> str:
        """What pip installs the course from, with one of its extras."""
        return f"tutorial_lib[{extra}] @ git+{self.address}@{self.branch}"

    def doors(self, notebook: str) -> dict[str, str]:
        """Where ``notebook`` can be run without installing anything, by the names of the places."""
        return {
            "Colab": self.colab(notebook),
            "Kaggle": self.kaggle(notebook),
            "Binder": self.binder(notebook),
            "Codespaces": self.codespaces(),
        }


def repository(root: Path) -> Repository | None:
    """The repository that pyproject.toml under ``root`` names; None while it names none.

    Raises:
        ValueError: the address is not one of a repository on GitHub.
    """
    path = root / "pyproject.toml"
    tools = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}) if path.exists() else {}
    address = tools.get("course", {}).get("repository", "")
    if not address:
        return None
    found = GITHUB.fullmatch(address.rstrip("/").removesuffix(".git"))
    if found is None:
        raise ValueError(
            "repository under [tool.course] in pyproject.toml must be empty or like "
            f"https://github.com/owner/name, got {address!r}"
        )
    return Repository(found[1], found[2])


def published(root: Path, environment: Mapping[str, str] = os.environ) -> Repository | None:
    """The repository whose website is built: in a workflow its own, else that of pyproject.toml."""
    owner, _, name = environment.get("GITHUB_REPOSITORY", "").partition("/")
    return Repository(owner, name) if name else repository(root)
