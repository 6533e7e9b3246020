"""What a user names, as sources of frames: files, folders, globs, addresses, videos, cameras; in a stable order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gfocal.data.pictures import PICTURE_SUFFIXES, path_text
from gfocal.download import without_login
from gfocal.errors import UserError
from gfocal.frames import Frame, Source

VIDEOS = frozenset(
    (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv")
)
"""Endings of the videos that are taken from a folder or by a glob, beside those of pictures."""
STREAMS = ("rtsp", "rtsps", "rtmp", "udp", "tcp", "srt")
"""Schemes of addresses that a stream comes from."""
ENDLESS = (".m3u8", ".mjpg", ".mjpeg")
"""Endings of http(s) addresses that a stream comes from."""


@dataclass(frozen=True)
class Sources:
    """The sources that names stand for; found anew, one after the other, whenever they are gone through.

    names: files, folders (with their sub-folders), globs, http(s) addresses, cameras as camera:N or N, addresses of
    streams. leave_out: a folder that is not entered on the way, because results are being written to it. Names that
    begin with a dot are passed over in folders. Folders are listed one at a time, so a hundred thousand pictures cost
    no more memory than the names in the largest folder; with several names, all are kept in mind, so that what is named
    twice comes once. UserError for a name that stands for nothing.

    >>> [source.name for source in Sources(["camera:0", "https://example.org/a.jpg"])]
    ['camera:0', 'https://example.org/a.jpg']
    """

    names: Sequence[str]
    leave_out: Path | None = None

    def __iter__(self) -> Iterator[Source]:
        found = (source for name in self.names for source in self._of(name))
        if len(self.names) == 1:
            yield from found
            return
        places: set[str] = set()
        for source in found:
            if source.place not in places:
                places.add(source.place)
                yield source

    def frames(self, *, every: int = 1) -> Iterator[Frame]:
        """Yield all frames, of videos each whose index is divisible by `every`; UserError for one that is unreadable.

        >>> list(Sources([]).frames())
        []
        """
        for source in self:
            yield from source.frames(every=every)

    def count(self, *, every: int = 1) -> int | None:
        """Return how many frames there will be, as far as known without reading them, else None.

        UserError for a name that stands for nothing.
        """
        total: int | None = 0
        for source in self:
            count = source.count(every=every) if total is not None else None
            total = None if total is None or count is None else total + count
        return total

    def _of(self, name: str) -> Iterator[Source]:
        if os.path.isdir(name):
            yield from self._folder(name)
        elif os.path.lexists(name):
            yield _file(name)
        elif camera := re.fullmatch(r"(?:camera:)?(\d{1,4})", name):
            yield Source(f"camera:{int(camera[1])}", "live")
        elif "://" in name:
            yield _address(name)
        elif glob.has_magic(name):
            yield from _matches(name, self.leave_out)
        else:
            raise UserError(f"{path_text(name)}: no such file or folder")

    def _folder(self, folder: str) -> Iterator[Source]:
        empty = True
        try:
            for source in _walked(folder, None if self.leave_out is None else self.leave_out.resolve()):
                empty = False
                yield source
        except OSError as error:
            raise UserError(f"{path_text(folder)}: the folder cannot be read ({error.strerror})") from error
        if empty:
            raise UserError(f"{path_text(folder)}: the folder holds no picture and no video ({_endings()})")


def picture_files(paths: Sequence[Path]) -> list[Path]:
    """Return the picture files that paths stand for: files themselves, folders searched with their sub-folders.

    UserError for a path that is missing, and where there is no picture.
    """
    files: list[Path] = []
    for source in Sources([str(path) for path in paths]):
        if source.kind == "file":
            files.append(Path(source.place))
        elif source.kind == "closed":
            list(source.frames())  # tells why it has none
    if not files:
        raise UserError(f"{', '.join(path_text(path) for path in paths)}: no picture, only videos")
    return files


def _walked(folder: str, leave_out: Path | None) -> Iterator[Source]:
    """Yield the files of a folder and its sub-folders that are to be taken, by name; links to folders lead nowhere.

    OSError where the folder cannot be read; a sub-folder that cannot is a source that tells so in its turn.
    """
    with os.scandir(folder) as entries:
        shown = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if _taken(entry)]
    for name, is_folder in sorted(shown):
        path = os.path.join(folder, name)
        if not is_folder:
            yield _file(path)
        elif leave_out is None or Path(path).resolve() != leave_out:
            try:
                yield from _walked(path, leave_out)
            except OSError:
                yield Source(path, "closed")


def _taken(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    return entry.is_dir(follow_symlinks=False) or (_is_known(entry.name) and not entry.is_dir())


def _matches(pattern: str, leave_out: Path | None) -> Iterator[Source]:
    """Yield the files that a glob matches, but for those in the folder to leave out."""
    paths = [path for path in glob.iglob(pattern, recursive=True) if _is_known(path) and os.path.isfile(path)]
    if leave_out is not None:
        paths = [path for path in paths if leave_out.resolve() not in Path(path).resolve().parents]
    if not paths:
        raise UserError(f"{path_text(pattern)}: matches no picture and no video ({_endings()})")
    yield from map(_file, sorted(paths))


def _address(url: str) -> Source:
    parts = urlsplit(url)
    if parts.scheme in STREAMS:
        return Source(url, "live")
    if parts.scheme in ("http", "https"):
        if parts.path.lower().endswith(ENDLESS) or parts.query.lower().endswith(ENDLESS):
            return Source(url, "live")
        return Source(url, "video" if _ending(parts.path) in VIDEOS else "address")
    schemes = ", ".join(("http", "https", *STREAMS))
    raise UserError(f"{path_text(without_login(url))}: addresses of this kind are not read: give one of {schemes}")


def _file(path: str) -> Source:
    return Source(path, "video" if _ending(path) in VIDEOS else "file")


def _is_known(path: str) -> bool:
    return _ending(path) in PICTURE_SUFFIXES | VIDEOS


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _endings() -> str:
    return ", ".join(sorted(PICTURE_SUFFIXES | VIDEOS))
