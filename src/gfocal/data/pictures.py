"""Reading a picture file, whatever its kind, into the uint8 RGB array that everything else expects."""

from __future__ import annotations

import io
import os
import reprlib
import threading
import warnings
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from gfocal.errors import UserError, shortened

PICTURE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".dib", ".gif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""How the names of pictures in a folder end, in lower case."""
# Pillow's own guard against decompression bombs, held here too because programs switch Pillow's off.
LARGEST_PICTURE = 178_956_970


def read_picture(path: Path | str, *, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read a picture file as uint8 RGB, turned upright by its EXIF orientation.

    Alpha is dropped and the first frame of several is taken; 16-bit grey is divided by 257. `size` is the
    (height, width) that an annotation states: where only the picture as stored has that size, it is left as stored,
    because its boxes were drawn on it so. Result: (h, w, 3), C-contiguous and writable.
    Raises UserError, naming the file, where it is missing, no picture, damaged, too large or not of `size`.
    """
    path = Path(path)
    place = path_text(path)
    _check_file(path, place)
    array = _decoded(path, place, size)
    if size is not None and array.shape[:2] != size:
        raise UserError(
            f"{place}: the picture is {array.shape[1]} x {array.shape[0]} pixels (width x height), its annotation "
            f"says {size[1]} x {size[0]}: give the picture that was annotated, or correct the annotation"
        )
    return array


def decode_picture(data: bytes, place: str) -> NDArray[np.uint8]:
    """Return what `read_picture` would of a file with these bytes; `place` stands for its name in UserErrors."""
    return _decoded(io.BytesIO(data), place, None)


def to_rgb(picture: Image.Image | NDArray[Any]) -> NDArray[np.uint8]:
    """Turn a Pillow image of any mode, or check an array, into a uint8 RGB array (h, w, 3), C-contiguous, writable.

    A Pillow image is treated as its file would be by `read_picture`, orientation included. An array that already
    fits is returned itself. Raises UserError where it is not uint8, not (h, w, 3), or has no pixel.
    """
    if isinstance(picture, Image.Image):
        if not picture.width or not picture.height:
            raise UserError(f"the picture has no pixel: it is {picture.width} x {picture.height}")
        with _decoding("the picture"):
            return _array(_upright(picture, None), "the picture")
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise UserError(
            f"a picture must be a uint8 RGB array (height, width, 3) of at least one pixel, "
            f"got {array.dtype} {array.shape}"
        )
    return np.require(array, requirements=["C", "W"])


def path_text(path: Path | str) -> str:
    """Return a path as one printable line, of a length that fits a message."""
    text = shortened(str(path), longest=500)
    return text if text.isprintable() else repr(text)


def value_text(value: object) -> str:
    """Return any value as one short printable line."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring = 2, 60
    text = short.repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _check_file(path: Path, place: str) -> None:
    # os.path rather than Path: it answers False to names that no file system can hold.
    if os.path.isdir(path):
        raise UserError(f"{place}: this is a folder, not a picture: give a file in it")
    if not os.path.exists(path):
        raise UserError(f"{place}: no such file")
    if not os.path.isfile(path):
        raise UserError(f"{place}: not a regular file: give a picture file")
    if path.stat().st_size == 0:
        raise UserError(f"{place}: the file is empty (0 bytes): replace it")


def _decoded(source: Path | io.BytesIO, place: str, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    with _decoding(place), closing(Image.open(source)) as picture:
        # Checked before anything is decoded: Pillow hands some kinds (EPS) to other programs.
        if picture.format not in _FORMATS:
            raise UserError(f"{place}: files of the kind {picture.format} are not read: save it as JPEG or PNG")
        if picture.width * picture.height > LARGEST_PICTURE:
            raise _too_large(place)
        return _array(_upright(picture, size), place)


@contextmanager
def quiet_pillow() -> Generator[None]:
    """Keep Pillow's warnings of large pictures, damaged EXIF and palettes to itself: all are read as intended.

    To be entered around threads that read: the filters of warnings are one for all threads, and some that changed them
    at a time would lose them, so it changes nothing in any thread but the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


@contextmanager
def _decoding(place: str) -> Generator[None]:
    """Turn what Pillow raises into a UserError at `place`, and keep its warnings to itself as far as threads may."""
    try:
        with quiet_pillow():
            yield
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{place}: not a picture of a known kind: give a JPEG or PNG file") from error
    except Image.DecompressionBombError as error:
        raise _too_large(place) from error
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise UserError(f"{place}: cannot be read ({' '.join(reason.split())}): replace the file") from error


def _too_large(place: str) -> UserError:
    return UserError(f"{place}: the picture has more than {LARGEST_PICTURE:,} pixels: cut it into tiles")


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF is common in photographs whose pixels are whole
        return 1
    return value if value in _TURNS else 1


def _upright(picture: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Return the picture turned by its orientation, unless only as stored it has `size`."""
    # Pillow turns a TIFF itself while it loads it, and forgets the orientation then.
    before = _orientation(picture) if picture.format == "TIFF" else 1
    picture.load()
    after = _orientation(picture)
    done = before if before != after else 1
    loaded = (picture.height, picture.width)
    if done >= _SIDEWAYS and size == loaded[::-1] != loaded:
        return picture.transpose(_TURNS[{6: 8, 8: 6}.get(done, done)])
    as_stored = after >= _SIDEWAYS and size == loaded != loaded[::-1]
    return picture if after == 1 or as_stored else picture.transpose(_TURNS[after])


def _array(picture: Image.Image, place: str) -> NDArray[np.uint8]:
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = cast(NDArray[np.integer], np.asarray(picture))
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise UserError(f"{place}: holds whole numbers from {low} to {high}: save it with 8 or 16 bits a channel")
        grey = ((np.arange(65536) + 128) // 257).astype(np.uint8)[values]
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode == "F":
        raise UserError(f"{place}: holds floating-point numbers of no fixed range: save it with 8 or 16 bits a channel")
    if picture.mode == "RGB":
        return np.array(picture)
    return np.array(picture.convert("RGB"))


_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

# How to turn a picture of each EXIF orientation upright; from 5 on, its sides swap.
_SIDEWAYS = 5
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
