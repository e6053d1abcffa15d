"""What an animation is; ``moving`` makes one, ``figures.show`` shows it."""

import io
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Animation:
    """An animated picture, for ``show``.

    Attributes:
        gif: the content of its file.
        width, height: in pixels of the screen.
    """

    gif: bytes
    width: int
    height: int

    def still(self) -> bytes:
        """The last picture, as the content of a PNG file."""
        with Image.open(io.BytesIO(self.gif)) as frames:
            frames.seek(getattr(frames, "n_frames", 1) - 1)
            file = io.BytesIO()
            frames.convert("RGBA").save(file, "png", optimize=True)
        return file.getvalue()
