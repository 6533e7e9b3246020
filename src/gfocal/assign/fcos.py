"""FCOS's assignment (Tian et al. 2019) with centre sampling: by place and size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from gfocal.assign.base import Assigner, best_owner
from gfocal.errors import above
from gfocal.ops.boxes import boxes_to_ltrb
from gfocal.structures import GroundTruth, Match, Priors


@final
class FCOS(Assigner):
    """A location learns a box in whose middle it lies and whose farthest edge its level is meant for.

    The middle reaches `radius` strides from the centre, and no farther than the box. limits: the largest distance in
    pixels that each level learns; a level begins where the one before it ends. A location wanted by several boxes goes
    to the smallest, then to the box listed first.

    Only cells around a box's centre are looked at, so time and memory grow with the boxes alone.
    """

    def __init__(self, *, limits: Sequence[float], radius: float = 1.5) -> None:
        self.limits = tuple(limits)
        self.radius = above("radius", radius, 0)
        reach = math.ceil(radius)  # cells on either side of the one that holds the centre
        steps = torch.arange(-reach, reach + 1)
        self._offsets = torch.cartesian_prod(steps, steps)

    def __call__(self, priors: Priors, truth: GroundTruth) -> Match:
        """Return the match of all pictures at once."""
        boxes = truth.boxes
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        offsets = self._offsets.to(boxes.device, non_blocking=True)
        locations: list[Tensor] = []
        positives: list[Tensor] = []
        start = 0
        for grid, low, high in zip(priors.grids, (-1.0, *self.limits[:-1]), self.limits, strict=True):
            cell = (centres / grid.stride).floor().long()[:, None] + offsets
            column, row = cell.unbind(-1)
            exists = (row >= 0) & (row < grid.height) & (column >= 0) & (column < grid.width)
            index = torch.where(exists, row * grid.width + column, 0) + start
            points, strides = priors.points[index], priors.strides[index]
            ltrb = boxes_to_ltrb(points, boxes[:, None].expand(-1, index.shape[1], -1), torch.ones_like(strides))
            farthest = ltrb.amax(-1)
            reach = self.radius * grid.stride
            middle = torch.cat(
                [torch.maximum(centres - reach, boxes[:, :2]), torch.minimum(centres + reach, boxes[:, 2:])], dim=1
            )
            near = boxes_to_ltrb(points, middle[:, None].expand_as(ltrb), torch.ones_like(strides)).amin(-1) > 0
            locations.append(index + (truth.picture * len(priors))[:, None])
            positives.append(exists & near & (farthest >= low) & (farthest <= high))
            start += grid.num_priors
        location, positive = torch.cat(locations, dim=1), torch.cat(positives, dim=1)
        owner = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(location)
        area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[:, None].expand_as(location)
        total = truth.num_pictures * len(priors)
        return Match(
            location=location.flatten(),
            truth=owner.flatten(),
            positive=best_owner(location.flatten(), owner.flatten(), -area.flatten(), positive.flatten(), total=total),
            counted=torch.ones(truth.num_pictures, len(priors), dtype=torch.bool, device=boxes.device),
        )

    def with_levels(self, count: int) -> FCOS:
        """Return the assigner whose limits double from the first one on, and whose last level has none."""
        limits = [self.limits[0] * 2**level for level in range(count - 1)]
        return FCOS(limits=(*limits, math.inf), radius=self.radius)
