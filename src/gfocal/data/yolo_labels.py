"""The label files of YOLO: one of text beside each picture, a line for each object."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

from gfocal.data.faults import Kind, Note
from gfocal.data.pictures import value_text

Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class LabelFile:
    """A label file as text, None where there is none or it cannot be read. fault: why it cannot."""

    path: Path
    text: str | None = None
    fault: str | None = None

    @property
    def missing(self) -> bool:
        """Whether there is no such file."""
        return self.text is None and self.fault is None


def label_path(picture: Path) -> Path:
    """Return where the labels of a picture stand: its last folder images/ becomes labels/, its suffix .txt."""
    stem = os.path.splitext(picture)[0]
    head, found, tail = stem.rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{head}{os.sep}labels{os.sep}{tail}.txt" if found else f"{stem}.txt")


def read_label_file(path: Path) -> LabelFile:
    """Read a label file, if it is there; what hinders becomes its fault."""
    try:
        return LabelFile(path, path.read_bytes().decode("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return LabelFile(path)
    except OSError as error:
        return LabelFile(path, fault=f"cannot be read ({error.strerror})")
    except UnicodeDecodeError as error:
        return LabelFile(path, fault=f"not UTF-8 text (byte {error.start}): save it as UTF-8")
    except ValueError:  # a name that no file can have
        return LabelFile(path)


def read_lines(
    text: str, size: tuple[int, int], classes: Mapping[str, int], *, note: Note, key_points: bool
) -> tuple[list[Box], list[int], list[int]]:
    """Return the boxes, labels and line numbers, from 1, of a label file; others are noted and left out.

    size: (height, width) of the picture. classes: the label of each class as lines write it. key_points: whether
    something follows the boxes that is not read. Boxes are xyxy in pixels.
    """
    height, width = size
    boxes: list[Box] = []
    labels: list[int] = []
    numbers: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if not words:
            continue
        try:
            label = _label(words[0], classes)
            left, top, right, bottom = _edges(words[1:], key_points=key_points)
        except _WrongError as wrong:
            note(wrong.kind, f"line {number}: {wrong}")
            continue
        boxes.append((left * width, top * height, right * width, bottom * height))
        labels.append(label)
        numbers.append(number)
    return boxes, labels, numbers


@final
class _WrongError(Exception):
    """A line that cannot be used: the kind of the fault, and what is wrong."""

    def __init__(self, kind: Kind, what: str) -> None:
        super().__init__(what)
        self.kind: Kind = kind


def _label(word: str, classes: Mapping[str, int]) -> int:
    if word in classes:
        return classes[word]
    (value,) = _numbers([word])
    if not value.is_integer():
        raise _WrongError("malformed", f"class is {value_text(word)}: must be the number of a class")
    plain = str(int(value))  # some programs write every number with a point
    if plain not in classes:
        raise _WrongError("class", f"class is {value_text(word)}: the data.yaml names only 0 to {len(classes) - 1}")
    return classes[plain]


def _edges(words: Sequence[str], *, key_points: bool) -> Box:
    """Return left, top, right and bottom as fractions of the picture."""
    values = _numbers(words)
    if len(values) == 4 or (key_points and len(values) > 4):
        return _edges_of_box(values)
    if len(values) < 6 or len(values) % 2:
        raise _WrongError("malformed", f"{len(words) + 1} values: write {_WANTED}")
    low, high = min(values), max(values)
    if not (low >= -_SLACK and high <= 1 + _SLACK and sum(values) < math.inf):
        worst = next(value for value in values if not -_SLACK <= value <= 1 + _SLACK)
        raise _WrongError("malformed", f"a corner is at {worst:g}: {_FRACTION}")
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def _edges_of_box(values: Sequence[float]) -> Box:
    x, y, width, height = values[:4]
    for key, value in (("x", x), ("y", y), ("width", width), ("height", height)):
        if key in ("width", "height") and -math.inf < value < 0:
            raise _WrongError("reversed", f"{key} is {value:g}: must not be negative")
        if not -_SLACK <= value <= 1 + _SLACK:
            raise _WrongError("malformed", f"{key} is {value:g}: {_FRACTION}")
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _numbers(words: Sequence[str]) -> list[float]:
    values: list[float] = []
    for word in words:
        try:
            values.append(float(word))
        except ValueError:
            raise _WrongError("malformed", f"{value_text(word)} is no number: write {_WANTED}") from None
    return values


_FRACTION = "must be a fraction of the picture, from 0 to 1: divide pixels by its side"
_WANTED = "`class x y width height`, or `class` and at least three points `x y` of a polygon"
_SLACK = 0.01  # what programs overstep by when they round
