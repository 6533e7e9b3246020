"""Adaptive training sample selection (Zhang et al. 2020): the assigner of ATSS, GFL V1 and GFL V2."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gfocal.assign.base import Assigner, best_owner, inside_extent
from gfocal.errors import at_least
from gfocal.ops.boxes import box_iou_pairwise
from gfocal.ops.constants import constant
from gfocal.structures import Grid, GroundTruth, Match, Priors


@final
class ATSS(Assigner):
    """Takes the `topk` nearest priors of each level and keeps those whose IoU is high among them.

    The threshold of a box is the mean plus the standard deviation (n - 1) of its candidates' IoU; a positive lies
    inside the box by more than `margin` pixels. A location wanted by several boxes goes to the highest IoU, then to
    the box listed first; ties of distance go to the lower index, on every device.

    Only cells near a box's centre are looked at: the k nearest points of a grid all lie at offsets (i, j) with
    (|i| + 1)(|j| + 1) <= k from the nearest one, because every point of that rectangle is at least as near. So time
    and memory grow with the boxes alone, not with boxes times locations.
    """

    def __init__(self, *, topk: int = 9, margin: float = 0.01) -> None:
        self.topk = at_least("topk", topk, 1)
        self.margin = margin
        reach = range(1 - topk, topk)
        self._offsets = [(i, j) for i in reach for j in reach if (abs(i) + 1) * (abs(j) + 1) <= topk]

    def __call__(self, priors: Priors, truth: GroundTruth) -> Match:
        """Return the match of all pictures at once."""
        index, valid = self._candidates(priors, truth)
        count = index.shape[1]
        near = priors[index.flatten()]
        boxes = truth.boxes.repeat_interleave(count, dim=0)
        iou = box_iou_pairwise(near.boxes, boxes).view(-1, count).masked_fill(~valid, 0)
        inside = torch.cat([near.points - boxes[:, :2], boxes[:, 2:] - near.points], dim=1).amin(dim=1) > self.margin
        positive = valid & (iou >= _mean_plus_std(iou, valid)) & inside.view(-1, count)

        location = (truth.picture[:, None] * len(priors) + index).flatten()
        owner = torch.arange(len(truth.boxes), device=location.device).repeat_interleave(count)
        total = truth.num_pictures * len(priors)
        return Match(
            location=location,
            truth=owner,
            positive=best_owner(location, owner, iou.flatten(), positive.flatten(), total=total),
            counted=inside_extent(priors, truth),
        )

    def with_levels(self, count: int) -> ATSS:
        """Return this one, which does not know the levels."""
        return self

    def _candidates(
        self, priors: Priors, truth: GroundTruth
    ) -> tuple[Int[Tensor, "g levels_k"], Bool[Tensor, "g levels_k"]]:
        """Return the `topk` nearest priors of each level for each box, and which of them exist."""
        centres = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2
        offsets = constant(self._offsets, centres, torch.long)
        found: list[tuple[Tensor, Tensor]] = []
        start = 0
        for grid in priors.grids:
            points = priors.points[start : start + grid.num_priors]
            limits = (truth.extents[truth.picture] / grid.stride).ceil().long()
            nearest, valid = self._nearest(points, grid, centres, limits, offsets)
            found.append((nearest + start, valid))
            start += grid.num_priors
        index, valid = zip(*found, strict=True)
        return torch.cat(index, dim=1), torch.cat(valid, dim=1)

    def _nearest(
        self,
        points: Float[Tensor, "m 2"],
        grid: Grid,
        centres: Float[Tensor, "g 2"],
        limits: Int[Tensor, "g 2"],
        offsets: Int[Tensor, "o 2"],
    ) -> tuple[Int[Tensor, "g k"], Bool[Tensor, "g k"]]:
        """Return the nearest points of one level within `limits` (rows, columns), best first, and which exist."""
        rows = limits[:, 0].clamp(max=grid.height)
        columns = limits[:, 1].clamp(max=grid.width)
        cell = ((centres - points[0]) / grid.stride - 0.5).ceil().long()
        row = torch.minimum(cell[:, 1].clamp(min=0), rows - 1)[:, None] + offsets[:, 0]
        column = torch.minimum(cell[:, 0].clamp(min=0), columns - 1)[:, None] + offsets[:, 1]
        valid = (row >= 0) & (row < rows[:, None]) & (column >= 0) & (column < columns[:, None])
        index = torch.where(valid, row * grid.width + column, 0)
        # the same float32 steps as a distance of all pairs, so that what ties there ties here
        distance = (points[index] - centres[:, None]).square().sum(-1).sqrt()
        # offsets run row by row, so a stable sort gives ties to the lower index
        order = distance.masked_fill(~valid, torch.inf).sort(dim=1, stable=True).indices[:, : self.topk]
        return index.gather(1, order), valid.gather(1, order)


def _mean_plus_std(iou: Float[Tensor, "g c"], valid: Bool[Tensor, "g c"]) -> Float[Tensor, "g 1"]:
    """Return the mean plus the standard deviation (n - 1) of the valid values of each row."""
    count = valid.sum(dim=1, keepdim=True)
    mean = iou.sum(dim=1, keepdim=True) / count.clamp(min=1)
    squares = (iou - mean).square().masked_fill(~valid, 0).sum(dim=1, keepdim=True)
    return mean + (squares / (count - 1).clamp(min=1)).sqrt()
