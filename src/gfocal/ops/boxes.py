"""Geometry of boxes: overlaps of aligned pairs, the four distances from a point, and how central a point lies."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.ops.precision import at_least_float32


def boxes_to_ltrb(
    points: Float[Tensor, "*n 2"], boxes: Float[Tensor, "*n 4"], strides: Float[Tensor, "*n"]
) -> Float[Tensor, "*n 4"]:
    """Return the distances from each point to the left, top, right and bottom edge of its box, in strides.

    points: (..., 2) x, y pixels. boxes: (..., 4) xyxy pixels. strides: (...) pixels. A distance is negative where
    the point lies outside the box on that side.
    """
    distances = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)
    return distances / strides[..., None]


def ltrb_to_boxes(
    points: Float[Tensor, "*n 2"], ltrb: Float[Tensor, "*n 4"], strides: Float[Tensor, "*n"]
) -> Float[Tensor, "*n 4"]:
    """Return the boxes, xyxy pixels, whose edges lie `ltrb` strides from each point: the inverse of `boxes_to_ltrb`."""
    distances = ltrb * strides[..., None]
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def centerness(ltrb: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Return how central a point lies in its box, from 0 on the edge to 1 in the middle (Tian et al. 2019, Eq. 3).

    ltrb: (..., 4) distances from the point to the left, top, right and bottom edge, in any unit. In float32 at least.
    """
    pairs = at_least_float32(ltrb).clamp(min=0).unflatten(-1, (2, 2))
    nearer, farther = pairs.amin(-2), pairs.amax(-2)
    return (nearer / farther.clamp(min=1e-12)).prod(-1).sqrt()


def _areas(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return sides[..., 0] * sides[..., 1]


def _overlap(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"], eps: float) -> tuple[Tensor, Tensor]:
    """Return IoU and union of each pair; the union is at least `eps` so that empty boxes give 0, not NaN."""
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]
    union = (_areas(a) + _areas(b) - intersection).clamp(min=eps)
    return intersection / union, union


def box_iou_pairwise(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"], *, eps: float = 1e-6) -> Float[Tensor, "*n"]:
    """Return the IoU, 0..1, of each box of `a` with the box of `b` at the same place.

    a, b: (..., 4) xyxy in the same unit. `eps` bounds the union from below (square units). In float32 at least.
    """
    # areas soon leave the range of float16
    return _overlap(at_least_float32(a), at_least_float32(b), eps)[0]


def generalized_box_iou_pairwise(
    a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"], *, eps: float = 1e-6
) -> Float[Tensor, "*n"]:
    """Return the generalized IoU, -1..1, of each box of `a` with the box of `b` at the same place.

    a, b: (..., 4) xyxy in the same unit. `eps` bounds the union and the enclosing area from below (square units). In
    float32 at least.
    """
    a, b = at_least_float32(a), at_least_float32(b)
    iou, union = _overlap(a, b, eps)
    sides = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0)
    enclosing = (sides[..., 0] * sides[..., 1]).clamp(min=eps)
    return iou - (enclosing - union) / enclosing
