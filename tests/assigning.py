"""What the tests of the assigners share: batches of boxes, and a match as the box of each location."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st

from gfocal.priors import Anchors
from gfocal.structures import GroundTruth, Match, Priors

Pictures: TypeAlias = "list[list[list[float]]]"
Extents: TypeAlias = "list[tuple[int, int]]"
Batch: TypeAlias = "tuple[tuple[int, int], Pictures, Extents]"


def priors_of(height: int, width: int, anchors: Anchors) -> Priors:
    """Return the priors of a batch of pictures of height x width, each level as large as its stride makes it."""
    return anchors([torch.zeros(1, 1, -(-height // stride), -(-width // stride)) for stride in anchors.strides])


def truth_of(pictures: Sequence[Sequence[Sequence[float]]], extents: Sequence[tuple[int, int]]) -> GroundTruth:
    boxes = [list(box) for picture in pictures for box in picture]
    owner = [index for index, picture in enumerate(pictures) for _ in picture]
    return GroundTruth(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.zeros(len(boxes), dtype=torch.long),
        picture=torch.tensor(owner, dtype=torch.long),
        extents=torch.tensor(extents, dtype=torch.float32),
    )


def owners(match: Match, locations: int) -> list[int]:
    """Return the box that each location learns, -1 for none; no location may be positive twice."""
    found = [-1] * locations
    for location, box in zip(
        match.location[match.positive].tolist(), match.truth[match.positive].tolist(), strict=True
    ):
        assert found[location] == -1
        found[location] = box
    return found


@st.composite
def batches(draw: st.DrawFn, *, most: int = 9, boxes: int = 6) -> Batch:
    """Draw the size of a batch, at most `most` times 32 pixels, the boxes of its pictures and their extents.

    Coordinates are quarters of a pixel, which float32 adds and multiplies without rounding, and which tie often;
    boxes may repeat, reach beyond their picture, lie outside, and have no area.
    """
    height, width = draw(st.integers(1, most)) * 32, draw(st.integers(1, most)) * 32
    extents = draw(st.lists(st.tuples(st.integers(1, height), st.integers(1, width)), min_size=1, max_size=3))
    pictures: Pictures = []
    for own_height, own_width in extents:
        x = st.integers(-40, 4 * own_width + 40).map(lambda value: value / 4)
        y = st.integers(-40, 4 * own_height + 40).map(lambda value: value / 4)
        box = st.tuples(x, y, x, y).map(lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])])
        found = draw(st.lists(box, max_size=boxes))
        pictures.append(found + draw(st.lists(st.sampled_from(found), max_size=2)) if found else found)
    return (height, width), pictures, extents


def overlaps(box: Sequence[float], anchors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the IoU of a box with each anchor, in float32, whose last bit decides about ties."""
    one = np.array(box, dtype=np.float32)
    sides = np.minimum(anchors[:, 2:], one[2:]) - np.maximum(anchors[:, :2], one[:2])
    shared = sides.clip(min=0).prod(axis=1)
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(axis=1)
    return shared / np.maximum(areas + (one[2:] - one[:2]).prod() - shared, np.float32(1e-6))
