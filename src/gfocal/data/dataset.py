"""What a data set is, and a data set of picture files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfocal.data.pictures import read_picture
from gfocal.structures import Truth


@runtime_checkable
class Dataset(Protocol):
    """Pictures with their boxes, by index from 0."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""
        ...

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The number that stands for each label in results files."""
        ...

    def __len__(self) -> int: ...

    def truth(self, index: int) -> Truth:
        """Return the annotation of a picture, without reading the picture."""
        ...

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Return a picture as uint8 RGB (h, w, 3) of the size that its truth states."""
        ...


@dataclass(frozen=True)
class Record:
    """One picture file and its annotation."""

    path: Path
    truth: Truth


@final
@dataclass(frozen=True)
class FolderDataset:
    """A data set whose pictures are files, read when asked for.

    category_ids: the number of each class in a COCO file, 0, 1, ... in other formats.
    """

    class_names: tuple[str, ...]
    records: tuple[Record, ...]
    category_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(len(self.class_names))))

    def __len__(self) -> int:
        return len(self.records)

    def truth(self, index: int) -> Truth:
        """Return the annotation of a picture, without reading the picture."""
        return self.records[index].truth

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Return a picture as uint8 RGB (h, w, 3); UserError, naming the file, where it cannot be read."""
        record = self.records[index]
        return read_picture(record.path, size=record.truth.size)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all boxes as one array: a tensor each would cost a started worker one open file per tensor."""
        truths = [record.truth for record in self.records]
        heads = [(str(r.path), r.truth.image_id, r.truth.name, r.truth.size, len(r.truth.boxes)) for r in self.records]
        boxes = torch.cat([torch.zeros(0, 4), *(truth.boxes for truth in truths)]).numpy()
        labels = torch.cat([torch.zeros(0, dtype=torch.long), *(truth.labels for truth in truths)]).numpy()
        crowd = torch.cat([torch.zeros(0, dtype=torch.bool), *(truth.crowd for truth in truths)]).numpy()
        known = [[None if part is None else part.numpy() for part in (t.softness, t.areas, t.ids)] for t in truths]
        return _unpickled, (self.class_names, self.category_ids, heads, (boxes, labels, crowd), known)


def orientations(dataset: Dataset) -> NDArray[np.int64] | None:
    """Return 1 for each picture that is wider than high and 0 for the others; None where all are alike.

    None, too, of data sets that are no files: to ask them for a size may be to make a picture.
    """
    if not isinstance(dataset, FolderDataset):
        return None
    wide = np.array([width > height for height, width in (record.truth.size for record in dataset.records)], np.int64)
    return None if len(np.unique(wide)) < 2 else wide


def place_of(dataset: Dataset, index: int) -> Path:
    """Return the file of a picture, or where pictures are no files the name of its annotation."""
    return dataset.records[index].path if isinstance(dataset, FolderDataset) else Path(dataset.truth(index).name)


def split_rows(column: Tensor, counts: list[int]) -> list[Tensor]:
    """Return the rows (n, ...) of `column` in pieces of `counts` rows, each a copy.

    Copies, because a view would drag the rows of all pictures along wherever those of one go.
    """
    return [piece.clone() for piece in torch.split(column, counts)]


@dataclass(frozen=True)
class Annotated:
    """One picture as a reader found it: xyxy pixels, label, crowd flag and id of each box as plain values."""

    path: Path
    image_id: int
    name: str
    size: tuple[int, int]
    boxes: Sequence[Sequence[float]]
    labels: Sequence[int]
    crowd: Sequence[bool]
    ids: Sequence[int]


def records_of(pictures: Sequence[Annotated]) -> tuple[Record, ...]:
    """Return the records of pictures; one tensor for all boxes, because thousands of small ones take long to make."""
    counts = [len(picture.boxes) for picture in pictures]
    boxes = torch.tensor([box for p in pictures for box in p.boxes], dtype=torch.float64).reshape(-1, 4).float()
    labels = torch.tensor([label for p in pictures for label in p.labels], dtype=torch.long)
    crowd = torch.tensor([flag for p in pictures for flag in p.crowd], dtype=torch.bool)
    ids = torch.tensor([number for p in pictures for number in p.ids], dtype=torch.long)
    columns = zip(*(split_rows(column, counts) for column in (boxes, labels, crowd, ids)), strict=True)
    return tuple(
        Record(picture.path, Truth(picture.image_id, picture.name, picture.size, *rows[:3], ids=rows[3]))
        for picture, rows in zip(pictures, columns, strict=True)
    )


def _unpickled(
    class_names: tuple[str, ...],
    category_ids: tuple[int, ...],
    heads: Sequence[tuple[str, int, str, tuple[int, int], int]],
    columns: tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]],
    known: Sequence[Sequence[NDArray[np.float32] | NDArray[np.int64] | None]],
) -> FolderDataset:
    counts = [count for *_, count in heads]
    boxes, labels, crowd = (split_rows(torch.as_tensor(column), counts) for column in columns)
    rest = [[None if part is None else torch.as_tensor(part) for part in parts] for parts in known]
    records = [
        Record(Path(path), Truth(image_id, name, size, *required, *optional))
        for (path, image_id, name, size, _), required, optional in zip(
            heads, zip(boxes, labels, crowd, strict=True), rest, strict=True
        )
    ]
    return FolderDataset(class_names, tuple(records), category_ids)
