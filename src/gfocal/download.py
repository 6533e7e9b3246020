"""Fetching files of weights from web servers: resumed where it broke off, checked by hash, whole or absent."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast, final
from urllib.error import URLError
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from gfocal.errors import UserError, above, at_least
from gfocal.progress import ProgressBar
from gfocal.version import __version__

FOLLOWED = {"http": ("http", "https"), "https": ("https",)}  # where redirects may lead: never from encrypted to plain
BLOCK = 1 << 18  # bytes read at once


def fetch(url: str, folder: Path, *, sha256: str, timeout: float = 30.0, attempts: int = 5, show: bool = True) -> Path:
    """Return the file of `url` in `folder`, downloaded if it is not there yet.

    A file takes its name only once its hash was checked. What a broken download leaves in `<name>.part` is resumed.
    `sha256`: beginning of the file's SHA-256 in hex, 8 digits or more. `timeout`: seconds without a byte after which
    a connection counts as broken. `attempts`: how many requests may break off. `show`: progress on standard error.
    ValueError for a hash, timeout or number of attempts that cannot be meant. UserError where the address is wrong,
    the server cannot be reached or refuses, the file is another one, or `folder` cannot be written to.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise ValueError(f"sha256 must be 8 to 64 hexadecimal digits, got {sha256!r}")
    above("timeout", timeout, 0.0)
    at_least("attempts", attempts, 1)
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if urlsplit(url).scheme not in FOLLOWED or not re.fullmatch(r"[^.\\:\x00-\x1f][^\\:\x00-\x1f]*", name):
        raise UserError(f"{url!r} is not the address of a file: give one such as https://host/folder/file.pth")
    target = folder / name
    with _disk(target):
        if target.is_file():
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with _opened(target, show=show) as part:
            tries = 0  # and the file is looked for again: another process may have been first
            while not (target.is_file() or (got := part.hash.hexdigest()).startswith(sha256.lower())):
                if tries > 0:
                    part.clear()
                if tries == 2:  # neither what was there and its rest, nor all of it anew
                    raise UserError(f"{url}: not the file it should be: expected SHA-256 {sha256}, got {got}")
                _download(part, url, timeout=timeout, attempts=attempts, show=show)
                tries += 1
    return target


def read_picture_at(url: str, *, largest: int, timeout: float = 30.0) -> bytes:
    """Return the file of a picture that a web server has under an http or https address, asked for once.

    url: may hold a user name and password, which no error repeats. largest: bytes that it may have. timeout: seconds
    without a byte after which the connection counts as broken. UserError, naming the address, where the server cannot
    be reached or refuses, there is more, or it is a video or stream, of which nothing is read.
    """
    name = without_login(url)
    try:
        with _asked(url, start=0, timeout=timeout) as response:
            if response.status != 200:
                raise UserError(f"{name}: the server refuses it (status {response.status}): check the address")
            kind = response.headers.get_content_type()
            if kind == "multipart/x-mixed-replace" or kind.startswith("video/"):
                raise UserError(f"{name}: a video ({kind}), no picture: download it, or if it is a stream, add ?.mjpg")
            data = response.read(largest + 1)
            missing = response.length or 0
    except UserError:
        raise
    except (OSError, HTTPException, ValueError) as error:  # ValueError: of an address
        why = error.reason if isinstance(error, URLError) else error
        raise UserError(f"{name}: cannot be downloaded ({why}): try again") from error
    if len(data) > largest:
        raise UserError(f"{name}: more than {largest:,} bytes: download it yourself, and see what it is")
    if missing:
        raise UserError(f"{name}: the connection broke off after {len(data):,} bytes: try again")
    return data


def without_login(url: str) -> str:
    """Return an address without the user name and password that may stand in it; anything else as it is.

    >>> without_login("rtsp://me:secret@10.0.0.7/door")
    'rtsp://10.0.0.7/door'
    """
    return re.sub(r"(?<=://)[^/?#]*@", "", url)


def _login(url: str) -> dict[str, str]:
    """Return the header that hands over the user name and password of an address, where it has some."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


@contextmanager
def _disk(target: Path) -> Generator[None]:
    """Name the file when the disk fails; what the network does inside must not get here, it fails with OSError too."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error


@final
class _Part:
    """The bytes that are there of a file on its way to `target`, and the hash of them all."""

    def __init__(self, file: BinaryIO, target: Path) -> None:
        self._file = file
        self.target = target
        self.size = 0
        self.hash = hashlib.sha256()
        file.seek(0)
        while block := file.read(BLOCK):
            self.hash.update(block)
            self.size += len(block)

    def append(self, block: bytes) -> None:
        with _disk(self.target):
            self._file.write(block)
        self.hash.update(block)
        self.size += len(block)

    def clear(self) -> None:
        with _disk(self.target):
            self._file.truncate(0)
        self.size = 0
        self.hash = hashlib.sha256()


@contextmanager
def _opened(target: Path, *, show: bool) -> Generator[_Part]:
    """Yield the part of `target`, which is nobody else's meanwhile; without an error it takes the name at the end."""
    path = target.with_name(f"{target.name}.part")
    locked = _locked(path, show=show)
    if locked is None:
        path = target.with_name(f"{target.name}.{os.getpid()}.part")
    with locked or nullcontext():  # the lock is held until the name is gone
        try:
            with path.open("ab+") as file:  # closed before: Windows renames no open file
                yield _Part(file, target)
                file.flush()
                os.fsync(file.fileno())
            if not target.is_file():
                path.replace(target)
        finally:
            if locked is None or target.is_file() or not path.stat().st_size:  # nothing that a later call could use
                path.unlink(missing_ok=True)


def _locked(path: Path, *, show: bool) -> BinaryIO | None:
    """Open `path` for this process alone, waiting while another has it; None where files cannot be locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        file = path.open("ab+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if show:
                print(f"{path.stem}: waiting for another process that downloads it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):  # who had it may have renamed or removed it
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _download(part: _Part, url: str, *, timeout: float, attempts: int, show: bool) -> None:
    """Append what is missing; UserError where the server refuses or no attempt is left."""
    for broken in range(1, attempts + 1):
        try:
            _receive(part, url, timeout=timeout, show=show)
            return
        except UserError:
            raise
        except (OSError, HTTPException, ValueError) as error:  # ValueError: of an address
            why = error.reason if isinstance(error, URLError) else error
            absent = why is not error and not isinstance(why, ConnectionResetError)
            if broken == attempts or (broken == 1 and absent):  # a network that was there may come back
                by_hand = f"or put the file into {part.target.parent} by hand"
                raise UserError(f"{url}: cannot be downloaded ({why}): try again, {by_hand}") from error
        time.sleep(2 ** (broken - 3))  # seconds: 1/4, 1/2, 1, ...


def _receive(part: _Part, url: str, *, timeout: float, show: bool) -> None:
    """Append what one request brings; OSError or HTTPException where it is not all that is missing."""
    with _asked(url, start=part.size, timeout=timeout) as response:
        span = re.match(r"bytes (\d+)-(\d+)/(\d*)", response.headers.get("Content-Range", ""))
        total = response.length
        if response.status == 206 and span and int(span[1]) == part.size:
            total = int(span[3] or int(span[2]) + 1)
        elif response.status == 200:
            part.clear()
        elif part.size and response.status in (206, 416):  # what is there is not the beginning of the server's file
            part.clear()
            return _receive(part, url, timeout=timeout, show=show)
        elif response.status >= 500 or response.status == 206:
            raise ConnectionError(f"status {response.status}")
        else:
            raise UserError(f"{url}: the server refuses it (status {response.status}): check the address")
        return _append(part, response, total=total, show=show)


def _append(part: _Part, response: HTTPResponse, *, total: int | None, show: bool) -> None:
    bar = ProgressBar(100, f"{part.target.name}, percent") if show and total else None
    with bar or nullcontext():
        while block := response.read1(BLOCK if total is None else min(BLOCK, total - part.size)):
            part.append(block)
            if bar and total:
                bar.update(100 * part.size // total, f"{part.size / 1e6:.1f} of {total / 1e6:.1f} MB")
    if total is not None and part.size < total:
        raise ConnectionError(f"{part.size} of {total} bytes came")


def _asked(url: str, *, start: int, timeout: float) -> HTTPResponse:
    """Return the server's answer, of any status but a redirect, to a request for the bytes from `start` on."""
    opener = OpenerDirector()
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler()):
        opener.add_handler(handler)
    headers = {"User-Agent": f"gfocal/{__version__}"} | ({"Range": f"bytes={start}-"} if start else {})
    here = url
    for _ in range(10):
        address = quote(without_login(here), safe="%/:=&?~#+!$,;'@()*[]")
        request = Request(address, headers=headers | _login(here))
        response = cast(HTTPResponse, opener.open(request, timeout=timeout))
        location = response.headers.get("Location")
        if response.status not in (301, 302, 303, 307, 308) or location is None:
            return response
        response.close()
        before, here = here, urljoin(here, location)
        if urlsplit(here).scheme not in FOLLOWED[urlsplit(before).scheme]:
            break
    raise UserError(f"{without_login(url)}: leads to {without_login(here)}: this redirect is not followed")
