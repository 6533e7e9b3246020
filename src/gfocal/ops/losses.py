"""Focal loss and its continuous generalisations (GFL V1, Eq. 1, 2, 6, 7): element-wise, no reduction.

Every function computes in float32 at least, whatever the autocast or the dtype of its input, so it is safe in
bfloat16 and float16 training. The caller sums and normalises.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gfocal.ops.boxes import generalized_box_iou_pairwise
from gfocal.ops.precision import at_least_float32


def _modulating(distance: Tensor, beta: float) -> Tensor:
    """Return |distance| ** beta with a finite gradient at 0 for every beta >= 0."""
    if beta < 0:
        raise ValueError(f"the focusing exponent must be >= 0, got {beta}")
    if beta == 0:
        return torch.ones_like(distance)
    if beta == 2:  # the papers' value: a square is several times faster than a power
        return distance.square()
    size = distance.abs()
    if beta >= 1:
        return size.pow(beta)
    # below 1 the slope of the power is infinite at 0, where the loss has its minimum: cut the slope there
    zero = size == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, size).pow(beta))


def focal_loss(
    logits: Float[Tensor, "*n"], targets: Float[Tensor, "*n"], *, gamma: float = 2.0, alpha: float | None = 0.25
) -> Float[Tensor, "*n"]:
    """Return the focal loss of each binary decision (V1 Eq. 1; α of Lin et al. 2017, which Eq. 1 leaves out).

    logits: before the sigmoid. targets: 0 or 1. gamma >= 0: focusing exponent. alpha: weight of the positives,
    1 - alpha that of the negatives; None weights both by 1. ValueError for a negative gamma.
    """
    logits, targets = at_least_float32(logits), at_least_float32(targets)
    loss = _modulating(targets - logits.sigmoid(), gamma) * F.binary_cross_entropy_with_logits(
        logits, targets, reduction="none"
    )
    if alpha is None:
        return loss
    return loss * (alpha * targets + (1 - alpha) * (1 - targets))


def quality_focal_loss(
    logits: Float[Tensor, "*n"], targets: Float[Tensor, "*n"], *, beta: float = 2.0
) -> Float[Tensor, "*n"]:
    """Return the quality focal loss -|y-σ|^β ((1-y) log(1-σ) + y log σ) of each score (V1 Eq. 2).

    logits: before the sigmoid. targets: y in 0..1, the IoU at the true class and 0 elsewhere. beta >= 0.
    The minimum over the logit is at σ = y. ValueError for a negative beta.
    """
    logits, targets = at_least_float32(logits), at_least_float32(targets)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return _modulating(targets - logits.sigmoid(), beta) * entropy


def quality_focal_loss_of_product(
    class_logits: Float[Tensor, "*n c"],
    quality_logits: Float[Tensor, "*n"],
    targets: Float[Tensor, "*n c"],
    *,
    beta: float = 2.0,
) -> Float[Tensor, "*n c"]:
    """Return the quality focal loss of the product of class and quality scores J = σ(class) · σ(quality) (V2 Eq. 3).

    class_logits: (..., classes). quality_logits: (...), one a location. targets: (..., classes), y in 0..1.
    It is the loss of Eq. 2 at the logit of J, -log(e^-c + e^-q + e^-(c+q)), which is exact and has the right gradient
    where the product itself rounds to 0 or 1. ValueError for a negative beta.
    """
    class_logits = at_least_float32(class_logits)
    quality_logits = at_least_float32(quality_logits)[..., None]
    minus_logits = torch.logaddexp(torch.logaddexp(-class_logits, -quality_logits), -(class_logits + quality_logits))
    return quality_focal_loss(-minus_logits, targets, beta=beta)


def distribution_focal_loss(
    logits: Float[Tensor, "*n bins"], targets: Float[Tensor, "*n"], *, delta: float = 1.0
) -> Float[Tensor, "*n"]:
    """Return the distribution focal loss of each edge (V1 Eq. 6), from logits over the bins 0, Δ, …, n·Δ.

    logits: (..., n + 1). targets: (...), y in 0..n·Δ, in the unit of delta; beyond that range the nearest end is
    learnt. delta > 0: distance of two bins. The weights of Eq. 6 are divided by Δ, so that they sum to 1.
    ValueError for delta <= 0 or fewer than two bins.
    """
    if delta <= 0:
        raise ValueError(f"delta must be > 0, got {delta}")
    if logits.shape[-1] < 2:
        raise ValueError(f"a distribution needs two bins or more, got {logits.shape[-1]}")
    logits = at_least_float32(logits)
    last = logits.shape[-1] - 1
    position = (at_least_float32(targets) / delta).clamp(0, last)
    left = position.detach().floor().clamp(max=last - 1)
    right_weight = position - left
    log_p = logits.log_softmax(dim=-1)
    index = left.long()[..., None]
    log_left = log_p.gather(-1, index)[..., 0]
    log_right = log_p.gather(-1, index + 1)[..., 0]
    return -((1 - right_weight) * log_left + right_weight * log_right)


def generalized_focal_loss(
    log_p_left: Float[Tensor, "*n"],
    log_p_right: Float[Tensor, "*n"],
    targets: Float[Tensor, "*n"],
    *,
    y_left: float | Float[Tensor, "*n"],
    y_right: float | Float[Tensor, "*n"],
    beta: float = 2.0,
) -> Float[Tensor, "*n"]:
    """Return the generalized focal loss (V1 Eq. 7) of two probabilities whose mean should be the target.

    -|y - (y_l p_l + y_r p_r)|^β ((y_r - y) log p_l + (y - y_l) log p_r), from log p_l and log p_r.
    targets: y in y_left..y_right. Focal, quality focal and distribution focal loss are special cases
    (supplement C); with p_l + p_r = 1 the minimum, 0 for β > 0, lies at p_r = (y - y_l) / (y_r - y_l)
    (supplement B). ValueError for a negative beta.
    """
    log_p_left, log_p_right = at_least_float32(log_p_left), at_least_float32(log_p_right)
    targets = at_least_float32(targets)
    estimate = y_left * log_p_left.exp() + y_right * log_p_right.exp()
    # xlogy-like: a weight of 0 times log 0 is 0, as in the limit
    left = torch.where(targets == y_right, 0.0, (y_right - targets) * log_p_left)
    right = torch.where(targets == y_left, 0.0, (targets - y_left) * log_p_right)
    return -_modulating(targets - estimate, beta) * (left + right)


def giou_loss(boxes: Float[Tensor, "*n 4"], targets: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Return 1 - GIoU, 0..2, of each predicted box, xyxy, with its target in the same unit."""
    return 1 - generalized_box_iou_pairwise(boxes, targets)
