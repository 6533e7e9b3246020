"""Non-maximum suppression within each class."""

from __future__ import annotations

import torch
import torchvision.ops
from jaxtyping import Float, Int
from torch import Tensor


def nms_per_class(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    labels: Int[Tensor, " n"],
    *,
    iou_threshold: float,
    limit: int | None = None,
) -> Int[Tensor, " k"]:
    """Return the indices that survive non-maximum suppression within their class, best score first.

    boxes: (n, 4) xyxy pixels. A box is removed where it overlaps a better one of its class by more than
    `iou_threshold` (0..1). limit: how many survivors are wanted at most; None for all. Classes are kept apart by
    shifting each beyond the others, in float64 so that the shift costs no precision.
    """
    count = len(boxes)
    if not count:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    order = scores.argsort(descending=True, stable=True)
    low, high = boxes.min(), boxes.max()
    shifted = (boxes - low).double() + labels.double()[:, None] * (high - low + 1).double()
    shifted, ranked = shifted[order], scores[order].double()
    # whether a box survives depends on better ones alone, so the best few settle the first survivors at a
    # fraction of the quadratic cost
    size = count if limit is None else min(4 * limit, count)
    while True:
        kept = torchvision.ops.nms(shifted[:size], ranked[:size], iou_threshold)
        if size == count or (limit is not None and len(kept) >= limit):
            return order[kept[:limit]]
        size = min(4 * size, count)
