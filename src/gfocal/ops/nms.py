"""Suppression of boxes that stand for an object a better box stands for already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gfocal.ops.boxes import box_iou_pairwise

SOFT_SIGMA = 0.5
"""Width of the Gaussian decay (Bodla et al. 2017, Sec. 4)."""
SOFT_FLOOR = 1e-3
"""Score under which a decayed box is dropped: three digits are what evaluation looks at."""


class Suppression(Protocol):
    """What all kinds of suppression take and return, so that one can stand for another."""

    def __call__(
        self,
        boxes: Float[Tensor, "n 4"],
        scores: Float[Tensor, " n"],
        labels: Int[Tensor, " n"],
        *,
        iou_threshold: float,
        limit: int | None = None,
    ) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
        """Return the indices of the boxes that stay, best first, and their scores.

        boxes: xyxy pixels. scores: 0..1. iou_threshold: 0..1, above which boxes are in each other's way. limit:
        how many are wanted at most; None for all.
        """
        ...


def nms_per_class(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    labels: Int[Tensor, " n"],
    *,
    iou_threshold: float,
    limit: int | None = None,
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Remove what overlaps a better box of its class by more than the threshold (see `Suppression`)."""
    return nms_class_agnostic(_apart(boxes, labels), scores, labels, iou_threshold=iou_threshold, limit=limit)


def nms_class_agnostic(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    labels: Int[Tensor, " n"],
    *,
    iou_threshold: float,
    limit: int | None = None,
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Remove what overlaps a better box of any class by more than the threshold (see `Suppression`)."""
    from torchvision.ops import nms as torchvision_nms  # it takes seconds to load, and this module is everywhere

    count = len(boxes)
    order = scores.argsort(descending=True, stable=True)
    ranked, ranked_scores = boxes[order].double(), scores[order].double()
    # whether a box survives depends on better ones alone, so the best few settle the first survivors at a
    # fraction of the quadratic cost
    size = count if limit is None else min(4 * limit, count)
    while True:
        kept = torchvision_nms(ranked[:size], ranked_scores[:size], iou_threshold)
        if size == count or (limit is not None and len(kept) >= limit):
            kept = order[kept[:limit]]
            return kept, scores[kept]
        size = min(4 * size, count)


def soft_nms_linear(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    labels: Int[Tensor, " n"],
    *,
    iou_threshold: float,
    limit: int | None = None,
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Multiply the score of what overlaps a better box of its class by more than the threshold by 1 - IoU.

    Bodla et al. 2017, Eq. 2 (see `Suppression`). Boxes whose score falls under 0.001 are dropped.
    """

    def decay(iou: Tensor) -> Tensor:
        return torch.where(iou > iou_threshold, 1 - iou, 1.0)

    return _soft_nms(_apart(boxes, labels), scores, decay, limit=limit)


def soft_nms_gaussian(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    labels: Int[Tensor, " n"],
    *,
    iou_threshold: float,
    limit: int | None = None,
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Multiply the score of what overlaps a better box of its class by exp(-IoU² / 0.5), at any IoU.

    Bodla et al. 2017, Eq. 3 (see `Suppression`); it has no use for a threshold. Boxes whose score falls under 0.001
    are dropped.
    """

    def decay(iou: Tensor) -> Tensor:
        return (-iou.square() / SOFT_SIGMA).exp()

    return _soft_nms(_apart(boxes, labels), scores, decay, limit=limit)


def _soft_nms(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], decay: Callable[[Tensor], Tensor], *, limit: int | None
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Take the best box again and again, and let those around it decay: one pass over all boxes for each taken."""
    left = scores.double().clone()
    kept: list[Tensor] = []
    found: list[Tensor] = []
    for _ in range(len(boxes) if limit is None else min(limit, len(boxes))):
        score, best = left.max(dim=0)
        if score < SOFT_FLOOR:
            break
        kept.append(best)
        found.append(score)
        left = left * decay(box_iou_pairwise(boxes[best].expand_as(boxes), boxes))
        left[best] = -1.0
    if not kept:
        return torch.empty(0, dtype=torch.long, device=boxes.device), scores[:0]
    return torch.stack(kept), torch.stack(found).to(scores.dtype)


def _apart(boxes: Float[Tensor, "n 4"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n 4"]:
    """Return the boxes with each class shifted beyond the others, in float64 so that it costs no precision."""
    if not len(boxes):
        return boxes.double()
    low, high = boxes.min(), boxes.max()
    return (boxes - low).double() + labels.double()[:, None] * (high - low + 1).double()


SUPPRESSIONS: Mapping[str, Suppression] = {
    "nms": nms_per_class,
    "agnostic": nms_class_agnostic,
    "soft_linear": soft_nms_linear,
    "soft_gaussian": soft_nms_gaussian,
}

HARD_SUPPRESSIONS = frozenset({"nms", "agnostic"})
"""Those in which a box stays or goes by what is better than it alone, with its score as it was."""
