"""FoveaBox's assignment (Kong et al. 2020): the middle of a box, on the levels of its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from gfocal.assign.base import Assigner
from gfocal.assign.dense import best_of_slice, match_of, match_without_boxes, slices
from gfocal.errors import above
from gfocal.structures import GroundTruth, Match, Priors


@final
class Fovea(Assigner):
    """A location learns a box when its cell lies in the box shrunk to `shrink` of its sides.

    ranges: for each level, the least and the greatest side in pixels (square root of the area) of its boxes; they
    overlap, so a box may be learnt on several levels. A location wanted by several boxes goes to the smallest, then to
    the box listed last.
    """

    def __init__(self, *, ranges: Sequence[tuple[float, float]], shrink: float = 0.4) -> None:
        self.ranges = tuple(ranges)
        self.shrink = above("shrink", shrink, 0)

    def __call__(self, priors: Priors, truth: GroundTruth) -> Match:
        """Return the match of all pictures at once."""
        pictures = truth.num_pictures
        counted = torch.ones(pictures, len(priors), dtype=torch.bool, device=truth.boxes.device)
        if not len(truth.boxes):
            return match_without_boxes(truth, counted)
        sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
        areas = sides.prod(dim=1)
        smallest = torch.full_like(counted, -torch.inf, dtype=areas.dtype)
        owner = torch.zeros_like(counted, dtype=torch.long)
        for part in slices(len(truth.boxes), len(priors)):
            picture = truth.picture[part]
            index = torch.arange(len(truth.boxes), device=picture.device)[part]
            wanted = self._wanted(priors, truth.boxes[part], areas[part].sqrt())
            values = torch.where(wanted, -areas[part][:, None], -torch.inf)
            # as the last, by the first of the indices counted backwards
            best, last = best_of_slice(values, -index, picture, pictures=pictures)
            owner = torch.where(best >= smallest, -last, owner)
            smallest = torch.maximum(best, smallest)
        return match_of(owner, smallest > -torch.inf, counted)

    def with_levels(self, count: int) -> Fovea:
        """Return the assigner whose ranges double from level to level, the first and the last open as they are here.

        These take what is smaller and larger than their place among the others would give. The first two levels of
        this one say what doubles.
        """
        (least, high), low, greatest = self.ranges[0], self.ranges[1][0], self.ranges[-1][1]
        ranges = [(low * 2.0 ** (level - 1), high * 2.0**level) for level in range(count)]
        ranges[0] = (least, ranges[0][1])
        ranges[-1] = (ranges[-1][0], greatest * 2.0 ** max(count - len(self.ranges), 0))
        return Fovea(ranges=ranges, shrink=self.shrink)

    def _wanted(self, priors: Priors, boxes: Tensor, size: Tensor) -> Bool[Tensor, "s n"]:
        """Return which locations lie in the middle of each box, on a level of its size."""
        levels: list[Tensor] = []
        for grid, (low, high) in zip(priors.grids, self.ranges, strict=True):
            cells = boxes / grid.stride
            half = 0.5 * (cells[:, 2:] - cells[:, :2])
            # in the reference's order of steps, because rounding decides about cells at the rim
            first_cell = (cells[:, :2] + (1 - self.shrink) * half - 0.5).ceil()
            last_cell = (cells[:, :2] + (1 + self.shrink) * half - 0.5).floor()
            right_size = (size >= low) & (size <= high)
            x = torch.arange(grid.width, device=boxes.device)
            y = torch.arange(grid.height, device=boxes.device)
            column = _between(x, first_cell[:, :1], last_cell[:, :1]) & right_size[:, None]
            row = _between(y, first_cell[:, 1:], last_cell[:, 1:])
            levels.append((row[:, :, None] & column[:, None, :]).flatten(1))
        return torch.cat(levels, dim=1)


def _between(cells: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Return which of a row of cells lie between two; those beyond the row stand for its first or last."""
    end = len(cells) - 1
    return (cells >= first.clamp(0, end)) & (cells <= last.clamp(0, end))
