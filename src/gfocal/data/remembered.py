"""A data set whose pictures are kept in memory once they were read or drawn."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from gfocal.data.dataset import Dataset
from gfocal.structures import Truth


@final
class Remembered:
    """Another data set, each picture and truth made once; for many short runs over the same few thousand pictures."""

    def __init__(self, dataset: Dataset) -> None:
        self.class_names = dataset.class_names
        self.category_ids = dataset.category_ids
        self._dataset = dataset
        self._truths: dict[int, Truth] = {}
        self._pictures: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def truth(self, index: int) -> Truth:
        """Return the annotation of a picture."""
        if index not in self._truths:
            self._truths[index] = self._dataset.truth(index)
        return self._truths[index]

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Return a picture as uint8 RGB (h, w, 3)."""
        if index not in self._pictures:
            self._pictures[index] = self._dataset.picture(index)
        return self._pictures[index]
