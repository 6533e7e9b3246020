"""All boxes of a split in one row: what checks look at when there are a hundred thousand of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from gfocal.data.collate import SMALLEST_SIDE
from gfocal.data.dataset import Dataset

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """The annotations of a split, without its pictures.

    files: (p) the name of each picture. sizes: (p, 2) height and width in pixels. boxes: (g, 4) xyxy pixels, picture
    by picture. labels: (g,). crowd: (g,). areas: (g,) square pixels of the objects where known, else of the boxes.
    picture: (g,) which picture a box is of. entry: (g,) its place among the boxes of that picture, from 0.
    """

    split: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    files: tuple[str, ...]
    sizes: Numbers
    boxes: Floats
    labels: Numbers
    crowd: Flags
    areas: Floats
    picture: Numbers
    entry: Numbers

    @property
    def limits(self) -> Floats:
        """The right and lower end of the picture of each box, (g, 4): width, height, width, height."""
        return self.sizes[self.picture][:, [1, 0, 1, 0]].astype(np.float64)

    @cached_property
    def clipped(self) -> Floats:
        """The boxes (g, 4) as far as they lie in their pictures."""
        return np.clip(self.boxes, 0, self.limits)

    @cached_property
    def learnt(self) -> Flags:
        """Which boxes (g,) a detector learns: those that `gfocal.data.collate.learnable` keeps of each picture."""
        sides = self.clipped[:, 2:] - self.clipped[:, :2]
        return ~self.crowd & (sides >= SMALLEST_SIDE).all(1)

    @property
    def without_annotations(self) -> bool:
        """Whether the split is one to be tested on elsewhere, whose boxes nobody but its authors has."""
        return not len(self.boxes) and self.split.startswith("test")

    def counts(self) -> Numbers:
        """Return the number of boxes of each picture (p,)."""
        return np.bincount(self.picture, minlength=len(self.files))


def columns_of(split: str, dataset: Dataset) -> Columns:
    """Return the annotations of a data set as columns."""
    truths = [dataset.truth(index) for index in range(len(dataset))]
    counts = np.array([len(truth.labels) for truth in truths], dtype=np.int64)
    # float32, as they are learnt: what only rounds to the edge of its picture lies at it
    boxes = torch.cat([torch.zeros(0, 4), *(truth.boxes for truth in truths)]).double().numpy()
    sides = boxes[:, 2:] - boxes[:, :2]
    unknown = torch.tensor(torch.nan)
    areas = torch.cat(
        [torch.zeros(0), *(unknown.expand(len(t.labels)) if t.areas is None else t.areas for t in truths)]
    )
    starts = np.cumsum(counts) - counts
    return Columns(
        split=split,
        class_names=dataset.class_names,
        category_ids=dataset.category_ids,
        files=tuple(truth.name for truth in truths),
        sizes=np.array([truth.size for truth in truths], dtype=np.int64).reshape(-1, 2),
        boxes=boxes,
        labels=torch.cat([torch.zeros(0, dtype=torch.long), *(truth.labels for truth in truths)]).numpy(),
        crowd=torch.cat([torch.zeros(0, dtype=torch.bool), *(truth.crowd for truth in truths)]).numpy(),
        areas=np.where(np.isnan(areas.numpy()), sides[:, 0] * sides[:, 1], areas.numpy()),
        picture=np.repeat(np.arange(len(truths)), counts),
        entry=np.arange(len(boxes)) - np.repeat(starts, counts),
    )
