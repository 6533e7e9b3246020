"""Which anchors overlap a box so much that it matters, found without looking at all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gfocal.ops.boxes import box_iou_pairwise
from gfocal.ops.constants import constant
from gfocal.structures import GroundTruth, Priors

NEAR_AT_ONCE = 1_000_000
"""Pairs of box and anchor that are looked at together, but for those of one box: some hundred megabytes."""


class Pairs(NamedTuple):
    """Boxes and anchors that overlap: index of the box, index of the anchor, and their IoU."""

    box: Int[Tensor, " p"]
    anchor: Int[Tensor, " p"]
    iou: Float[Tensor, " p"]


def near_pairs(priors: Priors, truth: GroundTruth, *, least: float) -> Iterator[Pairs]:
    """Yield all pairs of a box and an anchor inside its picture whose IoU is `least` or more, or the box's highest.

    Others may be among them; none has an IoU of 0. All pairs of a box come at once, and pairs in the order of their
    boxes. least: above 0.

    Every cell of a level holds the anchors of its first one, moved by whole strides (`gfocal.priors.Anchors`), and the
    IoU of an anchor and a box does not grow with the distance of their centres along either axis. So the cell nearest
    to a box has the highest IoU of each kind of anchor, and the cells that can reach a given IoU fill a rectangle. Time
    and memory grow with the pairs in those, whose number depends on the data, so that a GPU would be waited for.
    """
    kinds = _kinds(priors)
    floor, first, count = _windows(priors, truth, kinds, least=least)
    number = count.prod(dim=-1).sum(dim=1)
    parts = (number.cumsum(0) // NEAR_AT_ONCE).unique_consecutive(return_counts=True)[1]
    for boxes in torch.arange(len(number), device=number.device).split(parts.tolist()):
        corner, extent = first[boxes].flatten(0, 1), count[boxes].flatten(0, 1)
        window, row = _runs(extent[:, 1])
        line, column = _runs(extent[window, 0])
        kind = window % len(kinds.first)
        cell = (corner[window, 1] + row) * kinds.size[kind, 0] + corner[window, 0]
        anchor = (kinds.first[kind] + cell * kinds.step[kind])[line] + column * kinds.step[kind[line]]
        box = boxes[window // len(kinds.first)][line]
        iou = box_iou_pairwise(priors.boxes[anchor], truth.boxes[box])
        matter = (iou >= floor[box]) & (iou > 0)
        yield Pairs(box[matter], anchor[matter], iou[matter])


class _Kinds(NamedTuple):
    """The k anchors of one cell of all levels together.

    first: index of the anchor in the first cell. step: from one cell to the next. size: columns and rows of the level.
    stride: pixels a cell.
    """

    first: Int[Tensor, " k"]
    step: Int[Tensor, " k"]
    size: Int[Tensor, "k 2"]
    stride: Float[Tensor, "k 1"]


def _kinds(priors: Priors) -> _Kinds:
    rows: list[tuple[int, int, int, int, int]] = []
    start = 0
    for grid in priors.grids:
        for anchor in range(grid.anchors):
            rows.append((start + anchor, grid.anchors, grid.width, grid.height, grid.stride))
        start += grid.num_priors
    table = constant(rows, priors.boxes, torch.long)
    return _Kinds(table[:, 0], table[:, 1], table[:, 2:4], table[:, 4:].to(priors.boxes.dtype))


def _windows(
    priors: Priors, truth: GroundTruth, kinds: _Kinds, *, least: float
) -> tuple[Float[Tensor, " g"], Int[Tensor, "g k 2"], Int[Tensor, "g k 2"]]:
    """Return an IoU for each box, and the columns and rows of each kind of anchor that may reach it: first and number.

    The IoU is at most `least` and at most the highest of the box with any anchor. Anchors lie in float32 where these
    sums, in float64, have them only but for rounding; `slack`, in pixels, is several times that.
    """
    cells = (truth.extents.flip(1)[truth.picture][:, None] / kinds.stride).ceil().long().minimum(kinds.size)
    stride = kinds.stride.double()
    slack = priors.boxes.abs().amax().double() * 1e-6
    low, high = truth.boxes.double()[:, None].split(2, dim=-1)
    anchor_low, anchor_high = priors.boxes[kinds.first].double().split(2, dim=-1)

    # a box that is not finite has a nearest cell too, though no overlap
    centred = ((low + high - anchor_low - anchor_high) / (2 * stride)).round().nan_to_num(0)
    nearest = centred.minimum(cells - 1.0).clamp(min=0).long()
    index = kinds.first + (nearest[..., 1] * kinds.size[:, 0] + nearest[..., 0]) * kinds.step
    boxes = truth.boxes[:, None].expand(*index.shape, 4)
    floor = box_iou_pairwise(priors.boxes[index], boxes).amax(dim=1).clamp(max=least)

    moved = nearest * stride
    shared = (high.minimum(anchor_high + moved) - low.maximum(anchor_low + moved)).clamp(min=0) + slack
    areas = (high - low).prod(dim=-1) + (anchor_high - anchor_low - slack).clamp(min=0).prod(dim=-1)
    # IoU >= t where intersection >= t / (1 + t) of both areas together; float32 makes it larger by at most 1e-6 of it
    wanted = floor.double()[:, None] * (1 - 1e-5)
    needed = wanted / (1 + wanted) * areas
    # along one axis, where the other one shares as much as it can
    side = needed[..., None] / shared.flip(-1)
    first = ((low + side - slack - anchor_high) / stride).ceil().clamp(min=0)
    last = ((high - side + slack - anchor_low) / stride).floor().minimum(cells - 1.0)
    reached = (shared.prod(dim=-1) >= needed)[..., None]
    count = torch.where(reached, (last - first + 1).clamp(min=0), 0)
    return floor, first.long(), count.long()


def _runs(lengths: Int[Tensor, " r"]) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Return the run and the place in it, from 0, of each element of runs that follow each other."""
    run = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    start = lengths.cumsum(0) - lengths
    return run, torch.arange(len(run), device=lengths.device) - start[run]
