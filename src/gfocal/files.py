"""Files: written whole or not at all, known by their hash, named so that none replaces another."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from gfocal.errors import UserError


@contextmanager
def whole_or_absent(path: Path) -> Generator[Path]:
    """Yield a scratch path beside `path`; on success it is flushed to disk and takes the name, else it is removed.

    The scratch path ends as `path` does, for writers that choose a format by it. UserError where the folder cannot be
    written to.
    """
    scratch = path.parent / f"{_scratch_of(path)}{secrets.token_urlsafe(6)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.open("xb").close()  # by its own hand, so that the permissions are those of any new file
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield scratch
        with scratch.open("rb+") as written:
            os.fsync(written.fileno())
        scratch.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        scratch.unlink(missing_ok=True)


def forget_scratch(path: Path) -> None:
    """Remove what writers of a file that were killed left behind; none may be at work."""
    for scratch in path.parent.glob(f"{glob.escape(_scratch_of(path))}*{glob.escape(path.suffix)}"):
        scratch.unlink(missing_ok=True)


def _scratch_of(path: Path) -> str:
    """Return how the names begin that a file has while it is written."""
    return f".{path.stem}."


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def numbered(stem: str, taken: dict[str, int]) -> str:
    """Return a stem for a file, with a number where it is taken; `taken` has the last number of each stem.

    >>> taken = {}
    >>> numbered("a", taken), numbered("a", taken), numbered("a-2", taken)
    ('a', 'a-2', 'a-2-2')
    """
    number = taken.get(stem, 0) + 1
    while number > 1 and f"{stem}-{number}" in taken:
        number += 1
    taken[stem] = number
    if number == 1:
        return stem
    return numbered(f"{stem}-{number}", taken)
