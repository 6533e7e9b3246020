"""Boxes that others nearby have a say in, each edge by how sure it is."""

from __future__ import annotations

import torch
import torchvision.ops
from jaxtyping import Float, Int
from torch import Tensor

from gfocal.structures import EdgeDistributions

LEAST_WEIGHT = 1e-4
"""Weight of an overlap under which a box has no vote: the box itself has 1."""


def vote(
    boxes: Float[Tensor, "n 4"],
    labels: Int[Tensor, " n"],
    edges: EdgeDistributions,
    kept: Int[Tensor, " k"],
    *,
    sigma: float,
) -> EdgeDistributions:
    """Return the edges of the boxes at `kept`, each mixed from those of all boxes of its class that overlap it.

    boxes: xyxy pixels. An edge of another box weighs exp(-(1 - IoU)² / sigma) / its variance, so that the mean of a
    mixture is what variance voting makes of the box (He et al., Bounding Box Regression With Uncertainty for Accurate
    Object Detection, CVPR 2019, Eq. 9, with sigma 0.02). There, boxes that overlap at all have a vote; here those
    whose overlap weighs 0.0001.

    >>> edges = EdgeDistributions(torch.ones(2, 4, 2) / 2, torch.tensor([[[1.0, 3]] * 2 + [[9, 11]] * 2] * 2))
    >>> vote(edges.mean, torch.zeros(2).long(), edges, torch.tensor([0]), sigma=0.02).mean
    tensor([[ 2.,  2., 10., 10.]])
    """
    iou = torchvision.ops.box_iou(boxes[kept], boxes)
    # a box that was clipped to nothing overlaps no box, not even itself
    iou[torch.arange(len(kept), device=kept.device), kept] = 1
    weight = (-(1 - iou).square() / sigma).exp().masked_fill(labels[kept][:, None] != labels, 0)
    row, voter = (weight > LEAST_WEIGHT).nonzero(as_tuple=True)
    votes = edges[voter]
    return mixtures(votes, row, weight[row, voter, None] / votes.variance, count=len(kept))


def mixtures(
    edges: EdgeDistributions, row: Int[Tensor, " m"], weight: Float[Tensor, "m 4"], *, count: int
) -> EdgeDistributions:
    """Return `count` mixtures of distributions: part i (of m) belongs to mixture row[i], each of its edges by a weight.

    Every mixture needs at least one part of positive weight. It lies on as many even bins as its parts have, which run
    as those of its parts do; mass between two bins goes to both in proportion, which keeps the mean.

    >>> edges = EdgeDistributions(torch.ones(2, 4, 2) / 2, torch.tensor([[[0.0, 2]] * 4, [[4.0, 6]] * 4]))
    >>> mixed = mixtures(edges, torch.tensor([0, 0]), torch.tensor([[1.0], [3]]).expand(2, 4), count=1)
    >>> mixed.mean.round()
    tensor([[4., 4., 4., 4.]])
    """
    bins = edges.probabilities.shape[-1]
    share = weight / weight.new_zeros(count, 4).index_add(0, row, weight)[row]
    index = row[:, None].expand(-1, 4)
    low = edges.positions.new_full((count, 4), torch.inf).scatter_reduce(0, index, edges.positions.amin(-1), "amin")
    high = edges.positions.new_full((count, 4), -torch.inf).scatter_reduce(0, index, edges.positions.amax(-1), "amax")
    step = (high - low) / (bins - 1)
    place = ((edges.positions - low[row][..., None]) / step[row][..., None]).clamp(0, bins - 1)
    left = place.floor().clamp(0, bins - 2)
    mass = edges.probabilities * share[..., None]
    cell = (row[:, None, None] * 4 + torch.arange(4, device=row.device)[:, None]) * bins + left.long()
    total = mass.new_zeros(count * 4 * bins)
    total = total.index_add(0, cell.flatten(), (mass * (1 - place + left)).flatten())
    total = total.index_add(0, cell.flatten() + 1, (mass * (place - left)).flatten())
    positions = low[..., None] + step[..., None] * torch.arange(bins, device=row.device)
    total = total.view(count, 4, bins)
    # the last bin is the outermost one, at whichever end that lies
    falling = (edges.step.new_zeros(count, 4).index_add(0, row, edges.step) < 0)[..., None]
    return EdgeDistributions(
        torch.where(falling, total.flip(-1), total), torch.where(falling, positions.flip(-1), positions)
    )
