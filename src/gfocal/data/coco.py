"""Reading annotations in the COCO format."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfocal.data.dataset import FolderDataset, Record
from gfocal.data.pictures import path_text, value_text
from gfocal.errors import UserError
from gfocal.structures import Truth

# One pixel, less what arithmetic on coordinates may round away.
_SMALLEST_SIDE = 1 - 1e-3
# Beyond any picture, and small enough that sums of coordinates stay exact.
_LARGEST_NUMBER = 1e9


def read_coco(annotations: Path, images: Path) -> FolderDataset:
    """Read a COCO JSON whose pictures lie in the folder `images`.

    Labels count the categories in the order of their ids. Boxes become xyxy float32 pixels clipped to their picture;
    those under 1 pixel wide or high and those flagged `ignore` are dropped, pictures without a box are kept.
    Whether each picture exists is found when it is read. Raises UserError with the file, key and value at fault.
    """
    try:
        content = _mapping(_read_json(annotations), "the file")
        names, labels = _read_categories(_entries(content, "categories"))
        pictures = _read_images(_entries(content, "images"))
        boxes = _read_boxes(_entries(content, "annotations"), pictures, labels)
    except UserError as error:
        raise UserError(f"{path_text(annotations)}: {error}") from error.__cause__
    if not os.path.isdir(images):
        raise UserError(f"{path_text(images)}: no such folder: it should hold the pictures of {path_text(annotations)}")
    rows = zip(pictures.items(), _per_picture(boxes, pictures), strict=True)
    records = [
        Record(images / picture.name, Truth(image_id, picture.name, (picture.height, picture.width), *columns))
        for (image_id, picture), columns in rows
    ]
    return FolderDataset(names, tuple(records), tuple(labels))


@dataclass(frozen=True)
class _Picture:
    name: str
    height: int
    width: int
    row: int


def _read_json(path: Path) -> Any:
    if not os.path.isfile(path):
        raise UserError("this is a folder, not a JSON file" if os.path.isdir(path) else "no such file")
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise UserError(f"line {error.lineno}, column {error.colno}: not JSON ({error.msg})") from error
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # not text, numbers of thousands of digits, nested without end
        raise UserError(f"not JSON ({' '.join(str(error).split())})") from error


def _read_categories(entries: list[Any]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return the class names and the label of each category id, both in the order of the ids."""
    names: dict[int, str] = {}
    for index, entry in enumerate(entries):
        where = f"categories[{index}]"
        category = _mapping(entry, where)
        number, name = _whole(category, "id", where), _string(category, "name", where)
        if number in names:
            raise UserError(f"{where}.id is {number}, which an earlier category has: give each its own")
        if name in names.values():
            raise UserError(f"{where}.name is {value_text(name)}, which an earlier category has: give each its own")
        names[number] = name
    if not names:
        raise UserError("categories is empty: name at least one class")
    order = sorted(names)
    return tuple(names[number] for number in order), {number: label for label, number in enumerate(order)}


def _read_images(entries: list[Any]) -> dict[int, _Picture]:
    pictures: dict[int, _Picture] = {}
    for index, entry in enumerate(entries):
        where = f"images[{index}]"
        image = _mapping(entry, where)
        number = _whole(image, "id", where)
        if number in pictures:
            raise UserError(f"{where}.id is {number}, which an earlier image has: give each its own")
        sides = [_whole(image, key, where) for key in ("height", "width")]
        for key, side in zip(("height", "width"), sides, strict=True):
            if not 1 <= side < _LARGEST_NUMBER:
                raise UserError(f"{where}.{key} is {side}: must be the side of the picture in pixels, at least 1")
        pictures[number] = _Picture(_string(image, "file_name", where), sides[0], sides[1], index)
    if not pictures:
        raise UserError("images is empty: list at least one picture")
    return pictures


@dataclass(frozen=True)
class _Boxes:
    """The annotations as columns: box xywh, row of the picture, label, crowd."""

    xywh: NDArray[np.float64]
    row: NDArray[np.int64]
    label: NDArray[np.int64]
    crowd: NDArray[np.bool_]


def _read_boxes(entries: list[Any], pictures: dict[int, _Picture], labels: dict[int, int]) -> _Boxes:
    xywh: list[list[float]] = []
    heads: list[tuple[int, int, bool]] = []
    for index, entry in enumerate(entries):
        where = f"annotations[{index}]"
        annotation = _mapping(entry, where)
        picture = pictures.get(_whole(annotation, "image_id", where))
        if picture is None:
            raise UserError(f"{where}.image_id is {annotation['image_id']}: no entry of images has this id")
        label = labels.get(_whole(annotation, "category_id", where))
        if label is None:
            raise UserError(f"{where}.category_id is {annotation['category_id']}: no entry of categories has this id")
        box, crowd = _box(annotation, where), _flag(annotation, "iscrowd", where)
        if not _flag(annotation, "ignore", where):
            xywh.append(box)
            heads.append((picture.row, label, crowd))
    columns = np.array(heads, dtype=np.int64).reshape(-1, 3)
    return _Boxes(np.array(xywh, dtype=np.float64).reshape(-1, 4), columns[:, 0], columns[:, 1], columns[:, 2] > 0)


def _per_picture(boxes: _Boxes, pictures: dict[int, _Picture]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the clipped boxes, labels and crowd flags of each picture, in the order of the file."""
    sizes = np.array([(p.width, p.height) for p in pictures.values()], dtype=np.float64)[boxes.row]
    low = np.clip(boxes.xywh[:, :2], 0, sizes)
    high = np.clip(boxes.xywh[:, :2] + boxes.xywh[:, 2:], 0, sizes)
    kept = np.flatnonzero((high - low >= _SMALLEST_SIDE).all(1))
    kept = kept[np.argsort(boxes.row[kept], kind="stable")]
    counts = np.bincount(boxes.row[kept], minlength=len(pictures)).tolist()
    xyxy = np.concatenate([low, high], axis=1)[kept].astype(np.float32)
    columns = (torch.from_numpy(column).split(counts) for column in (xyxy, boxes.label[kept], boxes.crowd[kept]))
    # Copies: a view would drag the boxes of all pictures along wherever those of one go.
    return [(a.clone(), b.clone(), c.clone()) for a, b, c in zip(*columns, strict=True)]


def _box(annotation: dict[str, Any], where: str) -> list[float]:
    box = _value(annotation, "bbox", where)
    if type(box) is not list or len(cast(list[Any], box)) != 4:
        raise UserError(f"{where}.bbox is {value_text(box)}: must be [x, y, width, height] in pixels")
    for value in cast(list[Any], box):
        # The comparison is false for NaN, too.
        if type(value) not in (int, float) or not -_LARGEST_NUMBER < value < _LARGEST_NUMBER:
            raise UserError(f"{where}.bbox is {value_text(box)}: must be four finite numbers in pixels")
    if box[2] < 0 or box[3] < 0:
        raise UserError(f"{where}.bbox is {value_text(box)}: its width and height must not be negative")
    return cast(list[float], box)


def _flag(entry: dict[str, Any], key: str, where: str) -> bool:
    value = entry.get(key, 0)
    if value not in (0, 1):
        raise UserError(f"{where}.{key} is {value_text(value)}: must be 0 or 1")
    return bool(value)


def _whole(entry: dict[str, Any], key: str, where: str) -> int:
    value = _value(entry, key, where)
    # Some programs write every number as a float; 2**63 is what the metrics can count to.
    if type(value) not in (int, float) or not -(2**63) < value < 2**63 or value != int(value):
        raise UserError(f"{where}.{key} is {value_text(value)}: must be a whole number")
    return int(value)


def _string(entry: dict[str, Any], key: str, where: str) -> str:
    value = _value(entry, key, where)
    if type(value) is not str or not value:
        raise UserError(f"{where}.{key} is {value_text(value)}: must be a text that is not empty")
    return value


def _entries(content: dict[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if type(value) is not list:
        shown = f"is {value_text(value)}" if key in content else "is missing"
        raise UserError(f"{key} {shown}: must be a list, as in the COCO format")
    return cast(list[Any], value)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise UserError(f"{where} is {value_text(value)}: must be an object, as in the COCO format")
    return cast(dict[str, Any], value)


def _value(entry: dict[str, Any], key: str, where: str) -> Any:
    if key not in entry:
        raise UserError(f"{where}.{key} is missing")
    return entry[key]
