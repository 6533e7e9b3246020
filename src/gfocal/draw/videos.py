"""Video files of drawings, written frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gfocal.draw.marking import mark_video
from gfocal.errors import UserError
from gfocal.files import whole_or_absent
from gfocal.quiet import quiet_opencv

CODEC = "mp4v"
"""MPEG-4 Part 2, which every build of OpenCV with FFmpeg writes into .mp4."""
LONGEST = 8190
"""Longest side in pixels that the codec takes."""
RATES = (0.01, 1000.0)
"""Least and most pictures a second of a video."""


@contextmanager
def new_video(
    path: Path, *, size: tuple[int, ...], rate: float, endless: bool = False
) -> Generator[Callable[[NDArray[np.uint8]], None]]:
    """Yield what writes one uint8 RGB picture after the other into an .mp4 file of `size` (height, width).

    The file is there when all is written, not before. rate: pictures a second, which the nearest that the codec takes
    stands for. endless: whether being interrupted is how the video ends, instead of leaving it unfinished. Pictures of
    another size are resized, and a size beyond what the codec takes is; of an odd one, OpenCV drops the last row or
    column. UserError where the file cannot be written.
    """
    stop: BaseException | None = None
    path.unlink(missing_ok=True)  # of an earlier run: what is there is to be of this one
    with whole_or_absent(path) as scratch:
        written = 0
        with _writer(scratch, size=_fitting(size), rate=_rounded(rate), name=path) as add:
            try:

                def write(picture: NDArray[np.uint8]) -> None:
                    nonlocal written
                    add(picture)
                    written += 1

                yield write
            except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:
                if not endless:
                    raise
                stop = error
        _refuse_broken(scratch, written, name=path)
        mark_video(scratch)
    if stop is not None:
        raise stop


@contextmanager
def _writer(
    scratch: Path, *, size: tuple[int, int], rate: float, name: Path
) -> Generator[Callable[[NDArray[np.uint8]], None]]:
    height, width = size
    with quiet_opencv():
        writer = cv2.VideoWriter(str(scratch), cv2.VideoWriter.fourcc(*CODEC), rate, (width, height))

    def add(picture: NDArray[np.uint8]) -> None:
        if picture.shape[:2] != size:  # OpenCV would leave it out
            picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    try:
        if not writer.isOpened():
            raise UserError(
                f"{name}: OpenCV cannot write a video of {width} x {height} pixels, {rate:g} a second: give --no-draw"
            )
        yield add
    finally:
        writer.release()


def _fitting(size: tuple[int, ...]) -> tuple[int, int]:
    """Return the (height, width) nearest to a size that the codec takes: its form, but for sides below 2."""
    scale = min(LONGEST / max(*size, 1), 1.0)
    height, width = (max(round(side * scale), 2) for side in size)
    return height, width


def _rounded(rate: float) -> float:
    """Return the rate nearest to one that the codec takes, which writes it as a fraction of 16 bits."""
    low, high = RATES
    digits = 3 if rate < 65 else 2 if rate < 655 else 1
    return round(min(max(rate, low), high), digits)


def _refuse_broken(scratch: Path, written: int, *, name: Path) -> None:
    """Raise UserError where a file does not hold all pictures: OpenCV says nothing when a disk is full."""
    with quiet_opencv():
        capture = cv2.VideoCapture(str(scratch))
    try:
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
    if count != written:
        raise UserError(
            f"{name}: only {count} of {written} frames could be written: is the disk full? make room, or give --no-draw"
        )
