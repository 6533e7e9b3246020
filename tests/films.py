"""Real video files for tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_film(path: Path, *, frames: int = 8, size: tuple[int, int] = (48, 64), rate: float = 10.0) -> Path:
    """Write a video of MPEG-4 (.mp4) or motion JPEG (others) whose frame k is of the RGB colour (20 k, 100, 200)."""
    codec = "mp4v" if path.suffix == ".mp4" else "MJPG"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size[::-1])
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((*size, 3), (200, 100, 20 * index % 256), dtype=np.uint8))
    writer.release()
    return path
