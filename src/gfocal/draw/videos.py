"""Video files of drawings, written frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gfocal.errors import UserError
from gfocal.files import whole_or_absent

CODEC = "mp4v"
"""MPEG-4 Part 2, which every build of OpenCV with FFmpeg writes into .mp4."""


@contextmanager
def new_video(
    path: Path, *, size: tuple[int, ...], rate: float, endless: bool = False
) -> Generator[Callable[[NDArray[np.uint8]], None]]:
    """Yield what writes one uint8 RGB picture after the other, each of `size` (height, width), into an .mp4 file.

    The file is there when all is written, not before. rate: pictures a second. endless: whether being interrupted is
    how the video ends, instead of leaving it unfinished. OpenCV drops the last row and column of an odd size.
    UserError where the file cannot be written.
    """
    stop: BaseException | None = None
    path.unlink(missing_ok=True)  # of an earlier run: what is there is to be of this one
    with whole_or_absent(path) as scratch, _writer(scratch, size=size, rate=rate, name=path) as writer:

        def write(picture: NDArray[np.uint8]) -> None:
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

        try:
            yield write
        except (KeyboardInterrupt, GeneratorExit) as error:
            if not endless:
                raise
            stop = error
    if stop is not None:
        raise stop


@contextmanager
def _writer(scratch: Path, *, size: tuple[int, ...], rate: float, name: Path) -> Generator[cv2.VideoWriter]:
    height, width = size
    writer = cv2.VideoWriter(str(scratch), cv2.VideoWriter.fourcc(*CODEC), rate, (width, height))
    try:
        if not writer.isOpened():
            raise UserError(f"{name}: OpenCV cannot write a video of {width} x {height} pixels")
        yield writer
    finally:
        writer.release()
