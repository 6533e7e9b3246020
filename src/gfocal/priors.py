"""Where a detector looks: the points and anchors of each pyramid level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from gfocal.errors import above
from gfocal.structures import Grid, Priors


@final
class SquareAnchors(nn.Module):
    """One square anchor a cell, `scale` strides wide, centred on the point (x · stride, y · stride).

    The priors of ATSS and of GFL V1 and V2 (`scale` 8). strides: pixels a cell of each level, finest first.
    """

    def __init__(self, strides: Sequence[int], scale: float = 8.0) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.scale = above("anchor_scale", scale, 0)

    def forward(self, levels: Sequence[Tensor]) -> Priors:
        """Return the priors of feature maps (b, c, h, w), finest first, on their device."""
        grids = tuple(
            Grid(level.shape[-2], level.shape[-1], stride) for level, stride in zip(levels, self.strides, strict=True)
        )
        points, boxes, strides = zip(*(self._level(grid, levels[0].device) for grid in grids), strict=True)
        return Priors(torch.cat(points), torch.cat(boxes), torch.cat(strides), grids)

    def _level(self, grid: Grid, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.arange(grid.width, device=device, dtype=torch.float32) * grid.stride
        y = torch.arange(grid.height, device=device, dtype=torch.float32) * grid.stride
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        points = torch.stack([columns, rows], dim=-1).flatten(0, 1)
        half = self.scale * grid.stride / 2
        strides = torch.full_like(points[:, 0], grid.stride)
        return points, torch.cat([points - half, points + half], dim=-1), strides
