"""What to say where a package is missing that an extra of the installation brings.

Training and sampling need what ``pip install tutorial_lib`` installs. Plots, explorers and
``progress`` need a Jupyter beside it.
"""

import contextlib
from collections.abc import Iterator

from tutorial_lib._validate import UserError


class MissingPackageError(UserError, ModuleNotFoundError):
    """A package is not installed, and the message names the extra that brings it."""


@contextlib.contextmanager
def brought_by(extra: str, *, to: str) -> Iterator[None]:
    """Around imports: where a package is missing, the error says how to install it.

    Args:
        extra: the extra of pyproject.toml that the package belongs to.
        to: what it is needed for, as in "to draw figures".

    Raises:
        MissingPackageError: an import found no such package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if isinstance(error, MissingPackageError) or package in ("", "tutorial_lib"):
            raise
        raise MissingPackageError(
            f"to {to}, {package} must be installed: pip install 'tutorial_lib[{extra}]'",
            name=error.name,
        ) from error
