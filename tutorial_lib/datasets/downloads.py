"""Files from the web: each checked by its checksum, and no server waited for without end."""

import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from tutorial_lib import _files
from tutorial_lib._extras import ProgressBar
from tutorial_lib._validate import FileError

PATIENCE = 20.0
"""Seconds to wait for a server that sends nothing."""
_BLOCK = 2**15  # bytes read at once
_AGENT = "tutorial_lib"  # some servers refuse urllib's own name


class Download(NamedTuple):
    """A file to get.

    Attributes:
        file: where it belongs.
        md5: its checksum, as hexadecimal digits.
        addresses: where it can be had, in the order in which they are tried.
    """

    file: Path
    md5: str
    addresses: Sequence[str]


def fetch(download: Download) -> None:
    """Gets a file unless it is there already with the right checksum.

    The file appears under its name once it is complete and its checksum is right.

    Raises:
        OSError: no address delivered the file; the message names each with what happened there.
    """
    from torchvision.datasets.utils import check_integrity  # slow to import

    file = download.file
    if check_integrity(file, download.md5):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for address in download.addresses:
        part = _files.temporary(file)
        try:
            try:
                _copy(address, part, file.name)
            # The last is for an answer that is not HTTP, such as that of a proxy.
            except (OSError, HTTPException) as error:
                failures.append(f"{address}: {error}")
                continue
            if check_integrity(part, download.md5):
                part.replace(file)
                return
            failures.append(f"{address}: the file is corrupted, its checksum is wrong")
        finally:
            part.unlink(missing_ok=True)
    raise FileError("; ".join(failures))


def _copy(address: str, file: Path, name: str) -> None:
    """Copies what ``address`` delivers to the new ``file``, with a progress bar of this name."""
    request = urllib.request.Request(address, headers={"User-Agent": _AGENT})
    with (
        urllib.request.urlopen(request, timeout=PATIENCE) as response,
        file.open("xb") as copy,
        ProgressBar(total=response.length, unit="B", unit_scale=True, desc=name) as bar,
    ):
        while block := response.read(_BLOCK):
            copy.write(block)
            bar.update(len(block))
