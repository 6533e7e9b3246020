"""Pictures within a page, so that it needs no other file."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def jpeg_uri(picture: NDArray[np.uint8], *, longest: int, quality: int = 82, subsampling: int = -1) -> str:
    """Return a uint8 RGB picture (h, w, 3) as a JPEG in a data URI, made smaller where a side is longer than `longest`.

    quality, subsampling: as Pillow takes them; -1 leaves the colours' resolution to it, 0 keeps it whole.

    >>> jpeg_uri(np.zeros((4, 6, 3), np.uint8), longest=3)[:23]
    'data:image/jpeg;base64,'
    """
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
