"""OpenCV and its FFmpeg, kept from writing to the terminal in their own words."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

from cv2.utils import logging


@contextmanager
def quiet_opencv() -> Generator[None]:
    """Say nothing while a video is opened: what is wrong with it is told in one line of this package's."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg reads it once a process
    level = logging.getLogLevel()
    logging.setLogLevel(0)
    try:
        yield
    finally:
        logging.setLogLevel(level)
