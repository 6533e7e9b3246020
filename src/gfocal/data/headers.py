"""The sizes of many picture files, from their headers."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import ExifTags, Image

from gfocal.data.pictures import LARGEST_PICTURE, read_picture
from gfocal.progress import ProgressBar

Item = TypeVar("Item")
Result = TypeVar("Result")

PICTURE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".dib", ".gif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""How the names of pictures end, in lower case."""

_BATCH = 64
_THREADS = 16  # most of their time they wait for the disk
_MANY = 2000  # about a second's work


def header_size(path: Path) -> tuple[int, int] | None:
    """Return the (height, width) that `read_picture` would find, from the header alone; None where that is not sure.

    None too for whatever is no picture: `exact_size` tells why.
    """
    try:
        with open(path, "rb") as file, Image.open(file, formats=_QUICK) as picture:
            if picture.width * picture.height > LARGEST_PICTURE:
                return None
            if picture.format == "PNG" and _metadata_follows(path):
                return None
            # That of the base class: PNG's own decodes the picture first, for metadata that may follow it.
            turn = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)
            if turn not in _UPRIGHT:
                return (picture.width, picture.height) if turn in _SIDEWAYS and picture.format == "JPEG" else None
            return picture.height, picture.width
    except Exception:  # a damaged file makes Pillow's readers raise nearly anything
        return None


def exact_size(path: Path) -> tuple[int, int]:
    """Return the (height, width) of a picture that is read whole; UserError, naming the file, where it cannot be."""
    height, width, _ = read_picture(path).shape
    return height, width


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], *, title: str) -> list[Result]:
    """Return the results of a function that reads files, in order, with a progress bar where there are many items."""
    if len(items) <= _BATCH:
        return _quietly(function, items)
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    results: list[Result] = []
    with _quiet(), ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(lambda batch: [function(item) for item in batch], batches)
        if len(items) < _MANY:
            return [result for part in parts for result in part]
        with ProgressBar(len(items), title) as bar:
            for part in parts:
                results += part
                bar.update(len(results))
    return results


def _quietly(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    with _quiet():
        return [function(item) for item in items]


def _quiet() -> warnings.catch_warnings[None]:
    """Return a context in which Pillow does not warn, as in `read_picture`; to be entered once, outside of threads."""
    return warnings.catch_warnings(action="ignore")


def _metadata_follows(path: Path) -> bool:
    """Return whether a PNG has metadata behind its pixels that may turn it."""
    with open(path, "rb") as file:
        file.seek(8)
        behind = False
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            behind = behind or kind == b"IDAT"
            if behind and (kind == b"eXIf" or _is_profile(file, kind, length)):
                return True
            file.seek(length + 4, 1)
    return False
