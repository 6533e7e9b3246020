"""What is found in the frames of sources: told as a line of JSON each, and drawn."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gfocal.ahead import made_ahead
from gfocal.data.pictures import path_text, quiet_pillow
from gfocal.draw.marking import save_picture
from gfocal.draw.pictures import draw_detections
from gfocal.draw.videos import RATES, new_video
from gfocal.errors import UserError
from gfocal.files import whole_or_absent
from gfocal.frames import Frame, Source
from gfocal.loading import load_for
from gfocal.model import Model
from gfocal.predictor import Predictor
from gfocal.structures import Detections
from gfocal.tiling import Tiling, predict_tiled

logger = logging.getLogger(__name__)

RATE = 25.0
"""Frames a second of the drawing of a video that does not say how many it has, or no number that can be."""


@dataclass(frozen=True)
class Search:
    """How frames are looked at: `threshold`, `size` and `precision` as in `Predictor.predict`.

    tiling: how each is cut; None looks at it as a whole. every: step from one frame of a video that is looked at to the
    next. edges: whether drawings show the distributions. backend: how the model computes, as `load_for` takes it.
    """

    threshold: float
    size: tuple[int, int] | None = None
    precision: str | None = None
    tiling: Tiling | None = None
    every: int = 1
    edges: bool = True
    backend: str = "auto"


@dataclass(frozen=True)
class Task:
    """A source to look at. number: its own. start: index of the first frame to tell of. drawing: its file, or None."""

    number: int
    source: Source
    start: int = 0
    drawing: Path | None = None


@dataclass(frozen=True)
class Result:
    """What was found in one frame as a line of JSON, or why it could not be read.

    name: of the frame. num_boxes: how many were found.
    """

    name: str
    line: str = ""
    num_boxes: int = 0
    fault: str | None = None


def find_all(model: Predictor, tasks: Iterable[Task], search: Search, *, live: bool = False) -> Generator[Result]:
    """Yield the results of the frames of tasks in their order, each drawn before, where it is to be.

    Reading runs ahead in a thread of its own. live: it does not, as what a camera shows is to be looked at now. A frame
    that the model refuses is a fault of its own. UserError where a drawing cannot be written, the size does not fit the
    model, or an exported model is to look at tiles.
    """
    find = _finder(model, search)
    ahead, told = 0 if live else 2, False
    reading = made_ahead(_frames(tasks, search), depth=ahead)
    with quiet_pillow(), _Drawings(search) as drawings, closing(reading) as frames:
        for task, frame in frames:
            if isinstance(frame, str):
                yield Result(task.source.name, fault=frame)
                continue
            try:
                found = find(frame.picture)
            except UserError as error:
                yield Result(frame.title, fault=f"{path_text(frame.title)}: {error}")
                continue
            if not told:
                logger.info("computing %s", model.computing(search.precision))
                told = True
            drawings.draw(task, frame, found)
            if task.start <= (frame.index or 0):
                yield Result(frame.title, to_json(frame, found), len(found))


def load_for_search(model: str | Path, search: Search, *, pictures: int | None, device: str | None) -> Predictor:
    """Return what `gfocal.load` gives for a model, ready for a run over so many pictures (see `load_for`)."""
    # a tile that is not resized is seen as it is
    tile = None if search.tiling is None else search.tiling.tile
    size = search.size or (tile and (min(tile), max(tile)))
    return load_for(
        model, pictures=pictures, device=device, backend=search.backend, size=size, precision=search.precision
    )


def _frames(tasks: Iterable[Task], search: Search) -> Generator[tuple[Task, Frame | str]]:
    """Yield the frames of tasks; where one cannot be read, why, and then those of the next task."""
    for task in tasks:
        # the drawing of a video is written in one go, so that it needs the frames that were told of before, too
        start = 0 if task.drawing is not None else task.start
        try:
            yield from ((task, frame) for frame in task.source.frames(every=search.every, start=start))
        except UserError as error:
            yield task, str(error)


def _finder(model: Predictor, search: Search) -> Callable[[NDArray[np.uint8]], Detections]:
    size, precision, threshold, tiling = search.size, search.precision, search.threshold, search.tiling
    model.prepare(size)  # what fits no picture is refused before the first
    if tiling is None:
        return lambda picture: model.predict(picture, size=size, precision=precision, threshold=threshold)
    if not isinstance(model, Model):
        raise UserError(
            "tiles are put together from what a model has found before suppression, which an exported file does not "
            "tell: give the weights it was made from"
        )
    return lambda picture: predict_tiled(
        model,
        picture,
        tile=tiling.tile,
        overlap=tiling.overlap,
        size=size,
        precision=precision,
        threshold=threshold,
    )


@final
class _Drawings:
    """Writes the drawings of frames: of a picture a PNG file, of a video one file that is finished after its last."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._stack = ExitStack()
        self._number: int | None = None
        self._moment = 0
        self._write: Callable[[NDArray[np.uint8]], None] | None = None

    def __enter__(self) -> _Drawings:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def draw(self, task: Task, frame: Frame, found: Detections) -> None:
        """Write or append the drawing of a frame, where its task asks for one."""
        if task.drawing is None:
            return
        search = self._search
        drawing = draw_detections(frame.picture, found, edges=search.edges, threshold=search.threshold)
        if frame.index is None:
            with whole_or_absent(task.drawing) as scratch:
                save_picture(drawing, scratch)
        else:
            rate = frame.rate if frame.rate is not None and RATES[0] <= frame.rate <= RATES[1] else RATE
            self._append(task, task.drawing, drawing, rate=rate / search.every, moment=frame.index // search.every)

    def _append(self, task: Task, path: Path, drawing: Image.Image, *, rate: float, moment: int) -> None:
        """Add a picture that is shown at a moment, counted in pictures: from the last one's on, where some are lost."""
        if self._write is None or self._number != task.number:
            self._stack.close()
            size = (drawing.height, drawing.width)
            self._write = self._stack.enter_context(new_video(path, size=size, rate=rate, endless=task.source.live))
            self._number, self._moment = task.number, moment - 1
        for _ in range(moment - self._moment):
            self._write(np.asarray(drawing))
        self._moment = moment


def to_json(frame: Frame, found: Detections) -> str:
    """Return one line of JSON: file, frame and seconds of a video's, height, width, `boxes` as `Detections.to_dict`.

    >>> import torch
    >>> found = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), ("cat",))
    >>> to_json(Frame("a.png", np.zeros((4, 6, 3), np.uint8)), found)
    '{"file": "a.png", "height": 4, "width": 6, "boxes": []}'
    >>> to_json(Frame("a.mp4", np.zeros((4, 6, 3), np.uint8), index=50, seconds=2.0), found)
    '{"file": "a.mp4", "frame": 50, "seconds": 2.0, "height": 4, "width": 6, "boxes": []}'
    """
    height, width = frame.picture.shape[:2]
    moment = {} if frame.index is None else {"frame": frame.index, "seconds": frame.seconds}
    return json.dumps({"file": frame.name, **moment, "height": height, "width": width, **found.to_dict()})
