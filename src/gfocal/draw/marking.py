"""A mark inside the files of drawings, by which they are told from the pictures and videos of the user."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

_PICTURE = b"tEXtSoftware\0gfocal"  # a text chunk of a PNG file, which stands before the pixels
_VIDEO = b"\0\0\0\x0efreegfocal"  # a box of 14 bytes that players pass over, at the end of an MP4 file


def save_picture(drawing: Image.Image, path: Path) -> None:
    """Write a drawing as a PNG file that bears the mark."""
    info = PngInfo()
    info.add_text("Software", "gfocal")
    drawing.save(path, format="PNG", pnginfo=info)


def mark_video(path: Path) -> None:
    """Add the mark to an MP4 file."""
    with path.open("ab") as file:
        file.write(_VIDEO)


def is_drawing(path: Path) -> bool:
    """Return whether a file bears the mark."""
    try:
        with path.open("rb") as file:
            begins = file.read(64)
            file.seek(max(file.seek(0, os.SEEK_END) - len(_VIDEO), 0))
            return _PICTURE in begins or file.read() == _VIDEO
    except OSError:
        return False
