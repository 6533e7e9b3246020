"""Reading annotations in the COCO format."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gfocal.data.dataset import FolderDataset, Record, split_rows
from gfocal.data.faults import Faults, Kind, Note, naming
from gfocal.data.pictures import path_text, value_text
from gfocal.errors import UserError
from gfocal.structures import Truth

# Beyond any picture, and small enough that sums of coordinates stay exact.
_LARGEST_NUMBER = 1e9


def read_coco(
    annotations: Path, images: Path, *, annotated: bool = True, faults: Faults | None = None
) -> FolderDataset:
    """Read a COCO JSON whose pictures lie in the folder `images`.

    Labels count the categories in the order of their ids. Boxes become xyxy float32 pixels, as annotated: those that
    leave their picture or have no size are kept, because the metrics count them, and those flagged `ignore` dropped.
    Whether each picture exists is found when it is read. annotated: whether the file must hold annotations, which
    those of a test split do not. faults: as for `gfocal.data.opening.open_dataset`; the annotations of a category or
    picture at fault are left out without a word of their own. Raises UserError with the file, key and value at fault.
    """
    note = (faults if faults is not None else Faults()).of(annotations)
    with naming(annotations):
        content = _mapping(_read_json(annotations), "the file")
        classes = _entries(content, "categories", "name at least one class")
        listed = _entries(content, "images", "list at least one picture")
        entries = _entries(content, "annotations") if annotated or "annotations" in content else []
    names, labels = _read_categories(classes, note)
    pictures = _read_images(listed, note)
    dropped = _Dropped(_ids(classes) - labels.keys(), _ids(listed) - pictures.keys())
    boxes = _read_boxes(entries, pictures, labels, dropped=dropped, note=note)
    if not os.path.isdir(images):
        raise UserError(f"{path_text(images)}: no such folder: it should hold the pictures of {path_text(annotations)}")
    rows = zip(pictures.items(), _per_picture(boxes, pictures), strict=True)
    records = [
        Record(
            images / picture.name,
            Truth(image_id, picture.name, (picture.height, picture.width), *columns[:3], areas=columns[3], ids=ids),
        )
        for (image_id, picture), (*columns, ids) in rows
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
    except RecursionError as error:
        raise UserError("not JSON (nested too deep)") from error
    except ValueError as error:  # not text, or numbers of thousands of digits
        raise UserError(f"not JSON ({' '.join(str(error).split())})") from error


def _read_categories(entries: list[Any], note: Note) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return the class names and the label of each category id, both in the order of the ids."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for index, entry in enumerate(entries):
        where = f"categories[{index}]"
        try:
            category = _mapping(entry, where)
            number, name = _whole(category, "id", where), _string(category, "name", where)
            _check_new(number, names, f"{where}.id", "category")
            _check_new(name, taken, f"{where}.name", "category")
        except UserError as error:
            note("malformed", str(error))
        else:
            names[number] = name
            taken.add(name)
    order = sorted(names)
    return tuple(names[number] for number in order), {number: label for label, number in enumerate(order)}


def _read_images(entries: list[Any], note: Note) -> dict[int, _Picture]:
    pictures: dict[int, _Picture] = {}
    for index, entry in enumerate(entries):
        where = f"images[{index}]"
        try:
            image = _mapping(entry, where)
            number = _whole(image, "id", where)
            _check_new(number, pictures, f"{where}.id", "image")
            height, width = (_side(image, key, where) for key in ("height", "width"))
            pictures[number] = _Picture(_string(image, "file_name", where), height, width, len(pictures))
        except UserError as error:
            note("malformed", str(error))
    return pictures


def _check_new(value: int | str, known: Container[int | str], where: str, what: str) -> None:
    if value in known:
        raise UserError(f"{where} is {value_text(value)}, which an earlier {what} has: give each its own")


def _side(image: dict[str, Any], key: str, where: str) -> int:
    side = _whole(image, key, where)
    if not 1 <= side < _LARGEST_NUMBER:
        raise UserError(f"{where}.{key} is {side}: must be the side of the picture in pixels, at least 1")
    return side


@dataclass(frozen=True)
class _Dropped:
    """The ids of categories and images that are at fault, and so leave out their annotations."""

    categories: Set[float]
    images: Set[float]


def _ids(entries: list[Any]) -> Set[float]:
    """Return the ids of all entries that have one, whatever else is wrong with them."""
    ids = [cast(dict[str, Any], entry).get("id") for entry in entries if type(entry) is dict]
    return {cast(float, number) for number in ids if type(number) in (int, float)}


@dataclass(frozen=True)
class _Boxes:
    """The annotations as columns: box xywh, area, row of the picture, label, crowd, and the id where all have one."""

    xywh: Tensor
    area: Tensor
    row: Tensor
    label: Tensor
    crowd: Tensor
    number: Tensor | None


def _read_boxes(
    entries: list[Any], pictures: dict[int, _Picture], labels: dict[int, int], *, dropped: _Dropped, note: Note
) -> _Boxes:
    rows = {number: picture.row for number, picture in pictures.items()}
    xywh: list[list[float]] = []
    areas: list[float] = []
    heads: list[tuple[int, int, bool]] = []
    ids: list[Any] = []
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
            _note_fault(entry, f"annotations[{index}]", rows, labels, dropped=dropped, note=note)
            continue
        if not sound:
            _note_fault(entry, f"annotations[{index}]", rows, labels, dropped=dropped, note=note)
        elif not ignored:
            xywh.append(box)
            areas.append(area)
            heads.append((row, label, bool(crowd)))
            ids.append(entry.get("id"))
    row, label, crowd = torch.tensor(heads, dtype=torch.long).reshape(-1, 3).unbind(1)
    boxes = torch.tensor(xywh, dtype=torch.float64).reshape(-1, 4)
    return _Boxes(boxes, torch.tensor(areas, dtype=torch.float32), row, label, crowd > 0, _whole_ids(ids))


def _whole_ids(ids: list[Any]) -> Tensor | None:
    """Return the ids of annotations; None unless all have one, as the format wants and nothing here needs."""
    sound = all(type(number) in (int, float) and -(2**63) <= number < 2**63 and number == int(number) for number in ids)
    return torch.tensor([int(number) for number in ids], dtype=torch.long) if sound else None


def _per_picture(
    boxes: _Boxes, pictures: dict[int, _Picture]
) -> list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]]:
    """Return the boxes xyxy, labels, crowd flags, areas and ids of each picture, in the order of the file."""
    order = boxes.row.argsort(stable=True)
    counts = boxes.row.bincount(minlength=len(pictures)).numpy().tolist()
    xyxy = torch.cat([boxes.xywh[:, :2], boxes.xywh[:, :2] + boxes.xywh[:, 2:]], dim=1).float()
    columns = (split_rows(column[order], counts) for column in (xyxy, boxes.label, boxes.crowd, boxes.area))
    ids = [None] * len(counts) if boxes.number is None else split_rows(boxes.number[order], counts)
    return list(zip(*columns, ids, strict=True))


def _note_fault(
    entry: Any, where: str, rows: dict[int, int], labels: dict[int, int], *, dropped: _Dropped, note: Note
) -> None:
    """Note what is wrong with an annotation that cannot be used, unless that is its picture or category."""
    try:
        fault = _fault(_mapping(entry, where), where, rows, labels, dropped=dropped)
    except UserError as error:
        fault = ("malformed", str(error))
    if fault is not None:
        note(*fault)


def _fault(
    annotation: dict[str, Any], where: str, rows: dict[int, int], labels: dict[int, int], *, dropped: _Dropped
) -> tuple[Kind, str] | None:
    image, category = (_whole(annotation, key, where) for key in ("image_id", "category_id"))
    if image in dropped.images or category in dropped.categories:
        return None
    if image not in rows:
        raise UserError(f"{where}.image_id is {image}: no entry of images has this id")
    if category not in labels:
        return "class", f"{where}.category_id is {category}: no entry of categories has this id"
    return _fault_of_values(annotation, where)


def _fault_of_values(annotation: dict[str, Any], where: str) -> tuple[Kind, str]:
    for key in ("iscrowd", "ignore"):
        if annotation.get(key, 0) not in (0, 1):
            raise UserError(f"{where}.{key} is {value_text(annotation[key])}: must be 0 or 1")
    area = annotation.get("area", 0)
    if type(area) not in (int, float) or not 0 <= area < _LARGEST_NUMBER**2:
        raise UserError(f"{where}.area is {value_text(area)}: must be square pixels, a finite number from 0")
    bbox = _value(annotation, "bbox", where)
    what = (
        f"{where}.bbox is {value_text(bbox)}: must be [x, y, width, height] in pixels, "
        "four finite numbers, the last two not negative"
    )
    numbers = [value for value in _list(bbox) if type(value) in (int, float) and abs(value) < _LARGEST_NUMBER]
    return "reversed" if len(numbers) == len(_list(bbox)) == 4 else "malformed", what


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


def _entries(content: dict[str, Any], key: str, wanted: str = "") -> list[Any]:
    """Return a list of the file. wanted: what an error says to do where it is empty; "" where it may be."""
    value = content.get(key)
    if type(value) is not list:
        shown = f"is {value_text(value)}" if key in content else "is missing"
        raise UserError(f"{key} {shown}: must be a list, as in the COCO format")
    if not value and wanted:
        raise UserError(f"{key} is empty: {wanted}")
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
