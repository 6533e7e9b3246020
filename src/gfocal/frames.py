"""Where pictures come from: files, web addresses, videos, cameras; each a source of frames, read when asked for."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, final
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from gfocal.ahead import newest
from gfocal.data.pictures import decode_picture, path_text, read_picture
from gfocal.download import read_picture_at, without_login
from gfocal.errors import UserError
from gfocal.quiet import quiet_opencv

LARGEST_DOWNLOAD = 1 << 28
"""Bytes of a picture from a web server: what is larger is no picture, or one to be fetched by other means."""


MP4S = frozenset({".mp4", ".m4v", ".mov", ".3gp"})
"""Endings of videos in MP4's format, in lower case."""
LONGEST_STEM = 200
"""Bytes of the name of a drawing, but for its number and ending: file systems take 255 in all."""
ENOUGH = 0.9
"""Share of the frames and the time that a video tells of from where on it is held to be whole."""


@dataclass(frozen=True)
class Frame:
    """One picture and where it comes from.

    name: file, address or camera, the same in every run. picture: (h, w, 3) uint8 RGB. index: its number in a video,
    from 0. seconds: when it is shown, from the beginning. rate: frames a second of its video, None where it does not
    say. All three are None for a picture that is none of a video.
    """

    name: str
    picture: NDArray[np.uint8]
    index: int | None = None
    seconds: float | None = None
    rate: float | None = None

    @property
    def title(self) -> str:
        """Its name, with its number where it is one of many."""
        return self.name if self.index is None else f"{self.name}#{self.index}"


Kind: TypeAlias = Literal["file", "address", "video", "live", "closed"]
"""A picture file; one on a web server; a video file, on disk or on a web server; a camera or a stream; a folder that
cannot be read, in place of what it holds."""


@final
@dataclass(frozen=True)
class Source:
    """Something that gives one frame or many.

    place: path, address, or camera:N for the camera of that number.
    """

    place: str
    kind: Kind

    @property
    def name(self) -> str:
        """What stands for it in results and errors: its place, without the user name and password of an address."""
        return without_login(self.place)

    @property
    def stem(self) -> str:
        """A name for the files that are written of it, short enough for what is added to it."""
        if "://" not in self.place:
            return cut_stem(self.place.replace(":", "-") if self.is_camera else Path(self.place).stem)
        parts = urlsplit(self.place)
        return cut_stem(
            re.sub(r"[^\w.-]+", "-", PurePosixPath(unquote(parts.path)).stem or parts.hostname or self.kind)
        )

    @property
    def live(self) -> bool:
        """Whether it shows what happens now, and can be neither repeated nor shared."""
        return self.kind == "live"

    @property
    def moving(self) -> bool:
        """Whether its frames have an index and a time."""
        return self.kind in ("video", "live")

    @property
    def local(self) -> bool:
        """Whether it is a file, and not an address or a camera."""
        return self.kind in ("file", "video") and "://" not in self.place

    @property
    def is_camera(self) -> bool:
        """Whether it is a camera of this machine."""
        return self.live and self.place.startswith("camera:")

    def frames(self, *, every: int = 1, start: int = 0) -> Iterator[Frame]:
        """Yield the frames in their order; of a video those whose index is at least `start` and divisible by `every`.

        Of a camera or a stream, always the newest of these: it is read as fast as it comes, in a thread of its own, and
        what comes while nobody asks is lost.
        UserError, naming the source, where it cannot be read, and after the last frame of a video that is cut off.
        """
        if self.kind == "file":
            yield Frame(self.name, read_picture(self.place))
        elif self.kind == "address":
            yield Frame(self.name, decode_picture(read_picture_at(self.place, largest=LARGEST_DOWNLOAD), self.name))
        elif self.kind == "closed":
            raise UserError(f"{path_text(self.place)}: the folder cannot be read: see whose it is, or leave it out")
        elif self.live:
            yield from newest(_moving(self, every=every, start=start))
        else:
            yield from _moving(self, every=every, start=start)

    def count(self, *, every: int = 1) -> int | None:
        """Return how many frames there are, as far as can be told without reading them, else None."""
        if not self.moving:
            return 1
        if self.live:
            return None
        try:
            with _opened(self) as capture:
                frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        except UserError:  # it is told when its turn comes
            return None
        return -(-frames // every) if frames > 0 else None


def cut_stem(stem: str) -> str:
    """Return a stem without what is beyond the bytes that a name may have."""
    name = os.fsencode(stem)
    return stem if len(name) <= LONGEST_STEM else name[:LONGEST_STEM].decode(errors="ignore")


def _moving(source: Source, *, every: int, start: int) -> Generator[Frame]:
    """Yield frames of a video, whose time is what it says itself, or of a stream, whose time begins with the first."""
    with _opened(source) as capture:
        index, began, now, rate = -1, 0.0, 0.0, capture.get(cv2.CAP_PROP_FPS)
        while capture.grab():
            index += 1
            now = time.monotonic() if source.live else capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            began = now if index == 0 else began
            if index >= start and index % every == 0:
                picture = _picture(capture, source)
                yield Frame(source.name, picture, index, round(now - began, 3), rate if rate > 0 else None)
        if index < 0:
            raise UserError(f"{path_text(source.name)}: gives no frame that can be read: {_advice(source)}")
        if not source.live:
            _refuse_cut_off(source, capture, frames=index + 1, end=now + 1 / rate if rate > 0 else now)


def _refuse_cut_off(source: Source, capture: cv2.VideoCapture, *, frames: int, end: float) -> None:
    """Raise UserError where a video that gave `frames` up to `end`, in seconds, clearly says that it holds more.

    Most formats only tell how long they last, from which the number of frames is a guess: both must be short. An MP4
    may rightly store far more than it shows, but not more than the file is long.
    """
    told, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    path = Path(source.place if source.local else urlsplit(source.place).path)
    if path.suffix.lower() in MP4S:
        cut_off = source.local and _is_cut_off_mp4(path)
    else:
        cut_off = rate > 0 and frames < ENOUGH * told and end < ENOUGH * told / rate
    if cut_off:
        raise UserError(
            f"{path_text(source.name)}: gave {frames} of about {told:.0f} frames, as the file is damaged or "
            "incomplete: replace it"
        )


def _is_cut_off_mp4(path: Path) -> bool:
    """Return whether the content of an MP4 file reaches beyond its end."""
    size, start = path.stat().st_size, 0
    with path.open("rb") as file:
        while start < size:
            file.seek(start)
            header = file.read(16)
            length, name = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1:
                length = int.from_bytes(header[8:], "big")
            if start + length > size:
                return name in (b"mdat", b"moof", b"moov")
            if length < 8:  # 0: it goes to the end, whatever that is
                return False
            start += length
    return False


@contextmanager
def _opened(source: Source) -> Generator[cv2.VideoCapture]:
    if source.place.encode(errors="surrogateescape") != source.place.encode(errors="replace"):
        # OpenCV ends the process
        raise UserError(f"{path_text(source.name)}: the name of a video must be UTF-8: rename it")
    with quiet_opencv():
        capture = cv2.VideoCapture(int(source.place.partition(":")[2]) if source.is_camera else source.place)
    try:
        if not capture.isOpened():
            raise UserError(f"{path_text(source.name)}: cannot be opened as a video: {_advice(source)}")
        yield capture
    finally:
        capture.release()


def _advice(source: Source) -> str:
    if source.is_camera:
        return "see whether it is connected, which number it has, and that no other program uses it"
    return "check the address, and that it answers" if "://" in source.place else "replace it, or convert it to MP4"


def _picture(capture: cv2.VideoCapture, source: Source) -> NDArray[np.uint8]:
    """Return the frame that was grabbed last as RGB."""
    decoded, picture = capture.retrieve()
    if not decoded:
        raise UserError(f"{path_text(source.name)}: a frame cannot be decoded: {_advice(source)}")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)
