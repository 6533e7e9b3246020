"""Results in a folder: a line of JSON for each picture, written as it comes, and gone on with where it broke off."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, cast, final

from filelock import FileLock, Timeout

from gfocal.errors import UserError
from gfocal.files import forget_scratch, whole_or_absent

LINES = "detections.jsonl"
"""The file of a folder that holds the results."""
SETTINGS = "predict.json"
"""The file beside it that says what they depend on, and whether all pictures are done."""


@contextmanager
def alone_in(out: Path) -> Generator[None]:
    """Keep other runs out of a folder, which is made, and is gone again afterwards where nothing was written to it.

    UserError where another run is at work in it, or it cannot be made.
    """
    made = not os.path.exists(out)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        forget_scratch(out / SETTINGS)
    except Timeout as error:
        raise UserError(f"{out}: another run is writing to it: wait for it, or name another folder by --out") from error
    except OSError as error:
        raise UserError(f"{out}: cannot be written to ({error.strerror})") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows lets nobody remove what is open, and does so itself
            Path(lock.lock_file).unlink()
        lock.release()
        if made:
            with suppress(OSError):  # of a folder that is not empty
                out.rmdir()


@final
class Results:
    """Appends lines to detections.jsonl in a folder, each written before the next picture is waited for.

    settings: plain values that the results depend on. resume: keep the lines that are there, where there are any, and
    append to them; without it they are replaced as soon as there is a new one. endless: whether the pictures have no
    end, so that being interrupted is to be finished. `recorded` tells, by name, what is there: 1 for a picture, and for
    a video the index after that of its last frame. UserError where what is there is unfinished and not to be resumed,
    was made with other settings, or is no such file.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, resume: bool, endless: bool = False) -> None:
        self.path = out / LINES
        self.recorded: dict[str, int] = {}
        self._settings_path = out / SETTINGS
        self._settings = dict(settings)
        self._endless = endless
        self._file: FileIO | None = None
        before = _read(self._settings_path)
        self._kept = resume and before is not None
        if before is None:
            return
        if self._kept:
            self._refuse_other(before)
            self.recorded = _recorded(self.path)
        elif not before.get("finished"):
            raise UserError(
                f"{out}: holds the results of a run that was interrupted: go on with it by --resume, or name another "
                "folder by --out"
            )

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, line: str) -> None:
        """Write a line; UserError where that is not possible."""
        file = self._file or self._begin()
        try:
            rest = memoryview(line.encode() + b"\n")
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def finish(self) -> None:
        """Note that no picture is left."""
        if self._file is not None or self._kept:
            self._write_settings(finished=True)

    def _begin(self) -> FileIO:
        """Open the file, so that what is in it belongs to the settings beside it at any moment."""
        try:
            if not self._kept:
                self.path.unlink(missing_ok=True)
            self._write_settings(finished=self._endless)
            self._file = self.path.open("ab", buffering=0)  # what cannot be written must not be tried again at the end
        except OSError as error:
            raise self._unwritable(error) from error
        return self._file

    def _write_settings(self, *, finished: bool) -> None:
        with whole_or_absent(self._settings_path) as scratch:
            scratch.write_text(json.dumps(self._settings | {"finished": finished}, indent=1), encoding="utf-8")

    def _refuse_other(self, before: Mapping[str, Any]) -> None:
        for name, value in self._settings.items():
            if before.get(name) != value:
                raise UserError(
                    f"{self._settings_path}: the results there were made with {name} {before.get(name)}, now it is "
                    f"{value}: resume with the same, or name another folder by --out"
                )

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.path}: cannot be written ({error.strerror})")


def _read(path: Path) -> dict[str, Any] | None:
    """Return the settings of a folder, None where it has none."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}): name another folder by --out") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path}: is not what `gfocal predict` writes: name another folder by --out")
    return cast("dict[str, Any]", settings)


def _recorded(path: Path) -> dict[str, int]:
    """Return what the lines of a file are of, after cutting off a last one that is not whole."""
    found: dict[str, int] = {}
    whole = 0
    try:
        with path.open("rb+") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    file.truncate(whole)
                    break
                whole += len(line)
                name, index = _place(line, f"{path}: line {number}")
                found[name] = max(found.get(name, 0), index + 1)
    except FileNotFoundError:  # interrupted before the first line
        return found
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return found


def _place(line: bytes, where: str) -> tuple[str, int]:
    try:
        row = json.loads(line)
        return row["file"], row.get("frame", 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where} is not what `gfocal predict` writes: mend it, or name another folder") from error
