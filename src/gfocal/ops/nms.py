"""Non-maximum suppression within each class."""

from __future__ import annotations

import torch
import torchvision.ops
from jaxtyping import Float, Int
from torch import Tensor


def nms_per_class(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], labels: Int[Tensor, " n"], *, iou_threshold: float
) -> Int[Tensor, " k"]:
    """Return the indices that survive non-maximum suppression within their class, best score first.

    boxes: (n, 4) xyxy pixels. A box is removed where it overlaps a better one of its class by more than
    `iou_threshold` (0..1). Classes are kept apart by shifting each beyond the others, in float64 so that the
    shift costs no precision.
    """
    if not len(boxes):
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    low, high = boxes.min(), boxes.max()
    shifted = (boxes - low).double() + labels.double()[:, None] * (high - low + 1).double()
    return torchvision.ops.nms(shifted, scores.double(), iou_threshold)
