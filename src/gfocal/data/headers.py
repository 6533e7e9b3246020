"""The sizes of many picture files, from their headers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import ExifTags, Image

from gfocal.data.pictures import LARGEST_PICTURE, quiet_pillow, read_picture
from gfocal.progress import ProgressBar

Item = TypeVar("Item")
Result = TypeVar("Result")


def header_size(path: Path) -> tuple[int, int] | None:
    """Return the (height, width) that `read_picture` would find, from the header alone; None where that is not sure.

    None, too, for whatever is no picture: `exact_size` tells why. Does not warn inside of `in_threads`.
    """
    try:
        with open(path, "rb") as file, Image.open(file, formats=_QUICK) as picture:
            if picture.width * picture.height > LARGEST_PICTURE:
                return None
            if picture.format == "PNG" and _metadata_follows(path):
                return None
            # By the base class: PNG's own decodes the picture first, for metadata that may follow it.
            if Image.Image.getexif(picture).get(ExifTags.Base.Orientation) not in _SIDEWAYS:
                return picture.height, picture.width
            # Versions of Pillow differ in whether they have turned the size of a TIFF by now.
            return None if picture.format == "TIFF" else (picture.width, picture.height)
    except Exception:  # a damaged file makes Pillow's readers raise nearly anything
        return None


def exact_size(path: Path) -> tuple[int, int]:
    """Return the (height, width) of a picture that is read whole; UserError, naming the file, where it cannot be."""
    height, width, _ = read_picture(path).shape
    return height, width


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], *, title: str) -> list[Result]:
    """Return the results of a function that reads files, in order, with a progress bar where there are many items."""
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    results: list[Result] = []

    def work(batch: Sequence[Item]) -> list[Result]:
        return [function(item) for item in batch]

    with quiet_pillow():
        if len(batches) < 2:
            return work(items)
        with ThreadPoolExecutor(_THREADS) as pool:
            parts = pool.map(work, batches)
            if len(items) < _MANY:
                return [result for part in parts for result in part]
            with ProgressBar(len(items), title) as bar:
                for part in parts:
                    results += part
                    bar.update(len(results))
    return results


def _metadata_follows(path: Path) -> bool:
    """Return whether a PNG holds what may turn it behind its pixels, where Pillow has not looked yet."""
    behind = False
    with open(path, "rb") as file:
        file.seek(8)  # the signature
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            behind = behind or kind == b"IDAT"
            start = file.read(len(_XMP)) if behind and kind in (b"iTXt", b"tEXt", b"zTXt") else b""
            if behind and (kind == b"eXIf" or start.startswith((_RAW_EXIF, _XMP))):
                return True
            file.seek(length - len(start) + 4, 1)  # and the checksum
    return False


_QUICK = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP")  # Pillow turns a JPEG into an MPO by itself
_SIDEWAYS = (5, 6, 7, 8)  # the EXIF orientations that swap the sides
_RAW_EXIF, _XMP = b"Raw profile type", b"XML:com.adobe.xmp"
_BATCH, _THREADS = 64, 16  # threads mostly wait for the disk
_MANY = 2000  # about a second's work
