"""Where a detector looks: the points and anchors of each pyramid level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gfocal.errors import above
from gfocal.structures import Grid, Priors

Sides: TypeAlias = "Float[Tensor, '_ 2']"


@final
class Anchors(nn.Module):
    """The same few boxes in every cell of a level, centred on the point ((x + offset) · stride, (y + offset) · stride).

    strides: pixels a cell of each level, finest first. sides: (a, 2) width and height in pixels of the a boxes of a
    cell, for each level. offset: where in its cell a point lies, 0 the corner, 0.5 the middle.
    """

    def __init__(self, strides: Sequence[int], sides: Sequence[Sides], *, offset: float = 0.0) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.offset = offset
        # as buffers they are where the detector is, and no step waits for their way there
        for level, one in zip(range(len(self.strides)), sides, strict=True):
            self.register_buffer(f"sides_{level}", one, persistent=False)

    @property
    def sides(self) -> tuple[Sides, ...]:
        """Width and height in pixels (a, 2) of the boxes of a cell, for each level."""
        return tuple(self.get_buffer(f"sides_{level}") for level in range(len(self.strides)))

    def forward(self, levels: Sequence[Tensor]) -> Priors:
        """Return the priors of feature maps (b, c, h, w), finest first, on the device of this module."""
        every = self.sides
        grids = tuple(
            Grid(level.shape[-2], level.shape[-1], stride, len(sides))
            for level, stride, sides in zip(levels, self.strides, every, strict=True)
        )
        made = [self._level(grid, sides) for grid, sides in zip(grids, every, strict=True)]
        points, boxes, strides = (torch.cat(parts) for parts in zip(*made, strict=True))
        return Priors(points, boxes, strides, grids)

    def _level(self, grid: Grid, sides: Sides) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.arange(grid.width, device=sides.device, dtype=torch.float32) * grid.stride
        y = torch.arange(grid.height, device=sides.device, dtype=torch.float32) * grid.stride
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        corners = torch.stack([columns, rows], dim=-1).reshape(-1, 1, 2)
        middle = self.offset * grid.stride
        # in the reference's order of steps: anchors that tie for the best of a box tie by the last bit
        cell = torch.cat([middle - sides / 2, middle + sides / 2], dim=1)
        boxes = (corners.repeat(1, 1, 2) + cell).flatten(0, 1)
        points = (corners + middle).expand(-1, grid.anchors, -1).flatten(0, 1)
        return points, boxes, torch.full_like(points[:, 0], grid.stride)


def square_sides(strides: Sequence[int], scale: float) -> list[Sides]:
    """Return one square a cell, `scale` strides wide (ATSS). ValueError for a scale that is not above 0."""
    above("anchor_scale", scale, 0)
    return [torch.full((1, 2), float(scale * stride)) for stride in strides]


def shaped_sides(
    strides: Sequence[int], *, scale: float, octaves: Sequence[float], ratios: Sequence[float]
) -> list[Sides]:
    """Return boxes of several sizes and shapes a cell (RetinaNet): ratios outside, octaves inside.

    scale: sides in strides of the smallest. octaves: factors of both sides. ratios: height over width.
    """
    return [_shapes(stride * 1.0, [scale * octave for octave in octaves], ratios).flatten(0, 1) for stride in strides]


def multibox_sides(
    smallest: Sequence[float], largest: Sequence[float], extra: Sequence[Sequence[float]]
) -> list[Sides]:
    """Return SSD's boxes: a small square, a larger one, then the small one in other shapes.

    smallest, largest: side in pixels of each level, the larger square being of their geometric mean. extra: other
    ratios of each level; each stands for itself and its inverse, the wide shape first.
    """
    levels: list[Sides] = []
    for low, high, others in zip(smallest, largest, extra, strict=True):
        ratios = [1.0, *(ratio for other in others for ratio in (1 / other, other))]
        shapes = _shapes(low, [1.0, (high / low) ** 0.5], ratios)
        levels.append(torch.cat([shapes[0], shapes[1:, 0]]))
    return levels


def _shapes(side: float, scales: Sequence[float], ratios: Sequence[float]) -> Float[Tensor, "r s 2"]:
    """Return width and height of a square of `side` for each ratio (height over width) and scale, areas kept."""
    tall = torch.tensor(ratios).sqrt()[:, None]
    size = torch.tensor(scales)[None]
    return torch.stack([side * (1 / tall) * size, side * tall * size], dim=-1)
