"""What a split holds, in numbers: pictures, boxes, and how large, how many and how long they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gfocal.analysis.doctor.classes import class_counts
from gfocal.analysis.doctor.columns import Columns

SMALL, LARGE = 32**2, 96**2
"""Square pixels at which COCO parts small from medium and medium from large objects."""
AREAS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)
"""Lower ends of the bins of a box's share of its picture."""
COUNTS = (0.0, 1.0, 2.0, 3.0, 5.0, 9.0, 17.0, 33.0, 65.0, 129.0)
ASPECTS = (0.0, 1 / 8, 1 / 4, 1 / 2, 1 / 1.25, 1.25, 2.0, 4.0, 8.0)
"""Lower ends of the bins of width over height."""


@dataclass(frozen=True)
class Histogram:
    """How many values lie from each of `lows` up to the next; the last bin is open. The first low bounds all values."""

    lows: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class SplitStatistics:
    """A split in numbers. Crowds are counted apart, and boxes without area are in `boxes` and `classes` only.

    without_boxes: pictures. classes: boxes of each. small, medium, large: boxes by COCO's areas. relative_area: of the
    part of a box inside of its picture, 0..1. boxes_a_picture. aspect: width over height.
    """

    pictures: int
    boxes: int
    crowds: int
    without_boxes: int
    classes: dict[str, int]
    small: int
    medium: int
    large: int
    relative_area: Histogram
    boxes_a_picture: Histogram
    aspect: Histogram

    @property
    def crowd_share(self) -> float:
        """Share of boxes around crowds, 0..1."""
        return self.crowds / max(self.boxes + self.crowds, 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return asdict(self) | {"crowd_share": self.crowd_share}


def statistics_of(columns: Columns) -> SplitStatistics:
    """Return a split in numbers."""
    single = ~columns.crowd
    sides = columns.boxes[:, 2:] - columns.boxes[:, :2]
    whole = single & (sides > 0).all(1)
    inner = columns.clipped[whole]
    size = columns.limits[whole]
    areas = columns.areas[whole]
    relative = (inner[:, 2] - inner[:, 0]) * (inner[:, 3] - inner[:, 1]) / (size[:, 0] * size[:, 1])
    return SplitStatistics(
        pictures=len(columns.files),
        boxes=int(single.sum()),
        crowds=int(columns.crowd.sum()),
        without_boxes=int((columns.counts() == 0).sum()),
        classes=class_counts(columns),
        small=int((areas < SMALL).sum()),
        medium=int(((areas >= SMALL) & (areas < LARGE)).sum()),
        large=int((areas >= LARGE).sum()),
        relative_area=_histogram(AREAS, relative),
        boxes_a_picture=_histogram(COUNTS, np.bincount(columns.picture[single], minlength=len(columns.files))),
        aspect=_histogram(ASPECTS, sides[whole, 0] / sides[whole, 1]),
    )


def _histogram(lows: tuple[float, ...], values: npt.NDArray[Any]) -> Histogram:
    places = np.searchsorted(lows, values, side="right") - 1
    return Histogram(lows, tuple(np.bincount(places, minlength=len(lows)).tolist()))
