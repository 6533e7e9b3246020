"""Reading annotations in the COCO format."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gfocal.data.dataset import FolderDataset, Record, split_rows
from gfocal.data.pictures import path_text, value_text
from gfocal.errors import UserError
from gfocal.structures import Truth

# Beyond any picture, and small enough that sums of coordinates stay exact.
_LARGEST_NUMBER = 1e9


def read_coco(annotations: Path, images: Path, *, annotated: bool = True) -> FolderDataset:
    """Read a COCO JSON whose pictures lie in the folder `images`.

    Labels count the categories in the order of their ids. Boxes become xyxy float32 pixels, as annotated: those that
    leave their picture or have no size are kept, because the metrics count them, and those flagged `ignore` dropped.
    Whether each picture exists is found when it is read. annotated: whether the file must hold annotations, which
    those of a test split do not. Raises UserError with the file, key and value at fault.
    """
    try:
        content = _mapping(_read_json(annotations), "the file")
        names, labels = _read_categories(_entries(content, "categories"))
        pictures = _read_images(_entries(content, "images"))
        entries = _entries(content, "annotations") if annotated or "annotations" in content else []
        boxes = _read_boxes(entries, pictures, labels)
    except UserError as error:
        raise UserError(f"{path_text(annotations)}: {error}") from error.__cause__
    if not os.path.isdir(images):
        raise UserError(f"{path_text(images)}: no such folder: it should hold the pictures of {path_text(annotations)}")
    rows = zip(pictures.items(), _per_picture(boxes, pictures), strict=True)
    records = [
        Record(
            images / picture.name,
            Truth(image_id, picture.name, (picture.height, picture.width), *columns[:3], areas=columns[3]),
        )
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
    """The annotations as columns: box xywh, area, row of the picture, label, crowd."""

    xywh: Tensor
    area: Tensor
    row: Tensor
    label: Tensor
    crowd: Tensor


def _read_boxes(entries: list[Any], pictures: dict[int, _Picture], labels: dict[int, int]) -> _Boxes:
    rows = {number: picture.row for number, picture in pictures.items()}
    xywh: list[list[float]] = []
    areas: list[float] = []
    heads: list[tuple[int, int, bool]] = []
    for index, entry in enumerate(entries):
        # There may be a million: the common case has to be quick, what is wrong with any other is found afterwards.
        try:
            x, y, width, height = box = entry["bbox"]
            row, label = rows[entry["image_id"]], labels[entry["category_id"]]
            crowd, ignored = entry.get("iscrowd", 0), entry.get("ignore", 0)
            area = entry.get("area", width * height)
            sound = (
                -_LARGEST_NUMBER < x < _LARGEST_NUMBER
                and -_LARGEST_NUMBER < y < _LARGEST_NUMBER
                and 0 <= width < _LARGEST_NUMBER
                and 0 <= height < _LARGEST_NUMBER
                and crowd in (0, 1)
                and ignored in (0, 1)
                and 0 <= area < _LARGEST_NUMBER**2
                and bool not in (type(x), type(y), type(width), type(height))
            )
        except (KeyError, TypeError, ValueError):
            raise _fault(entry, f"annotations[{index}]", rows, labels) from None
        if not sound:
            raise _fault(entry, f"annotations[{index}]", rows, labels)
        if not ignored:
            xywh.append(box)
            areas.append(area)
            heads.append((row, label, bool(crowd)))
    row, label, crowd = torch.tensor(heads, dtype=torch.long).reshape(-1, 3).unbind(1)
    boxes = torch.tensor(xywh, dtype=torch.float64).reshape(-1, 4)
    return _Boxes(boxes, torch.tensor(areas, dtype=torch.float32), row, label, crowd > 0)


def _per_picture(boxes: _Boxes, pictures: dict[int, _Picture]) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return the boxes xyxy, labels, crowd flags and areas of each picture, in the order of the file."""
    order = boxes.row.argsort(stable=True)
    counts = boxes.row.bincount(minlength=len(pictures)).numpy().tolist()
    xyxy = torch.cat([boxes.xywh[:, :2], boxes.xywh[:, :2] + boxes.xywh[:, 2:]], dim=1).float()
    columns = (xyxy[order], boxes.label[order], boxes.crowd[order], boxes.area[order])
    return list(zip(*(split_rows(column, counts) for column in columns), strict=True))


def _fault(entry: Any, where: str, rows: dict[int, int], labels: dict[int, int]) -> UserError:
    """Return the error that says what is wrong with an annotation that cannot be used."""
    annotation = _mapping(entry, where)
    for key, known, listed in (("image_id", rows, "images"), ("category_id", labels, "categories")):
        number = _whole(annotation, key, where)
        if number not in known:
            return UserError(f"{where}.{key} is {number}: no entry of {listed} has this id")
    for key in ("iscrowd", "ignore"):
        if annotation.get(key, 0) not in (0, 1):
            return UserError(f"{where}.{key} is {value_text(annotation[key])}: must be 0 or 1")
    area = annotation.get("area", 0)
    if type(area) not in (int, float) or not 0 <= area < _LARGEST_NUMBER**2:
        return UserError(f"{where}.area is {value_text(area)}: must be square pixels, a finite number from 0")
    bbox = _value(annotation, "bbox", where)
    return UserError(
        f"{where}.bbox is {value_text(bbox)}: must be [x, y, width, height] in pixels, "
        "four finite numbers, the last two not negative"
    )


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
    return _list(value)


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if type(value) is list else []


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise UserError(f"{where} is {value_text(value)}: must be an object, as in the COCO format")
    return cast(dict[str, Any], value)


def _value(entry: dict[str, Any], key: str, where: str) -> Any:
    if key not in entry:
        raise UserError(f"{where}.{key} is missing")
    return entry[key]
