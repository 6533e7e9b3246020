"""How a family that predicts no joint quality learns its classes, a part of the family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gfocal.errors import at_least
from gfocal.ops.losses import focal_loss
from gfocal.ops.precision import at_least_float32
from gfocal.structures import Target

PRIOR_PROBABILITY = 0.01
"""Score that every location starts from (Lin et al. 2017), so that the many negatives do not swamp the first steps."""


class Classification(ABC):
    """Class scores and their loss against one class a location.

    first_probability: score that every output starts from, or None for logits that start at 0.
    """

    first_probability: float | None

    @abstractmethod
    def outputs(self, num_classes: int) -> int:
        """Return how many outputs so many classes need."""

    @abstractmethod
    def scores(self, logits: Float[Tensor, "b n o"]) -> Float[Tensor, "b n c"]:
        """Return the probability, 0..1, of each class."""

    @abstractmethod
    def losses(
        self, logits: Float[Tensor, "b n o"], target: Target, *, weight: Float[Tensor, " p"] | None = None
    ) -> Float[Tensor, "b n *c"]:
        """Return the loss of each location, or of each of its scores.

        weight: (p,) of the positive pairs of the target, for the loss at their true class; None counts all alike.
        """


@final
class Focal(Classification):
    """One binary decision a class, learnt with the focal loss (Lin et al. 2017)."""

    first_probability = PRIOR_PROBABILITY

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.alpha = at_least("alpha", alpha, 0)
        self.gamma = at_least("gamma", gamma, 0)

    def outputs(self, num_classes: int) -> int:
        """Return one a class."""
        return num_classes

    def scores(self, logits: Float[Tensor, "b n o"]) -> Float[Tensor, "b n c"]:
        """Return the sigmoid."""
        return logits.sigmoid()

    def losses(
        self, logits: Float[Tensor, "b n o"], target: Target, *, weight: Float[Tensor, " p"] | None = None
    ) -> Float[Tensor, "b n *c"]:
        """Return the focal loss of each score."""
        labels = target.at_true_class(target.positive.to(logits.dtype), like=logits)
        loss = focal_loss(logits, labels, gamma=self.gamma, alpha=self.alpha)
        if weight is None:
            return loss
        return loss * torch.where(labels > 0, target.at_true_class(weight * target.positive, like=logits), 1.0)


@final
class Softmax(Classification):
    """One decision among the classes and the background, learnt with cross entropy (SSD, Liu et al. 2016).

    Only the negatives of the highest loss count, `negatives` times as many a picture as it has positives.
    """

    first_probability = None  # the outputs share all probability out by themselves

    def __init__(self, *, negatives: int = 3) -> None:
        self.negatives = at_least("negatives", negatives, 0)

    def outputs(self, num_classes: int) -> int:
        """Return one a class and one for the background."""
        return num_classes + 1

    def scores(self, logits: Float[Tensor, "b n o"]) -> Float[Tensor, "b n c"]:
        """Return the softmax without the background, which is the last output."""
        return logits.softmax(-1)[..., :-1]

    def losses(
        self, logits: Float[Tensor, "b n o"], target: Target, *, weight: Float[Tensor, " p"] | None = None
    ) -> Float[Tensor, "b n *c"]:
        """Return the cross entropy of each positive and hard negative, 0 elsewhere."""
        logits = at_least_float32(logits)
        pictures, locations, outputs = logits.shape
        positive = _per_location(logits, target, target.positive.to(logits.dtype)) > 0
        label = _per_location(logits, target, (target.labels * target.positive).to(logits.dtype)).long()
        label = torch.where(positive, label, outputs - 1)
        loss = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none").view(pictures, locations)
        counts = positive.to(loss.dtype)
        if weight is not None:
            counts = _per_location(logits, target, weight * target.positive)
        return loss * (counts + self._hard(loss.detach(), ~positive & target.counted, positive.sum(dim=1)))

    def _hard(
        self, loss: Float[Tensor, "b n"], negative: Bool[Tensor, "b n"], positives: Int[Tensor, " b"]
    ) -> Bool[Tensor, "b n"]:
        """Return which negatives are among the hardest of their picture."""
        order = loss.masked_fill(~negative, -1).argsort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(loss.shape[1], device=loss.device).expand_as(order)
        )
        return negative & (rank < self.negatives * positives[:, None])


def _per_location(like: Float[Tensor, "b n o"], target: Target, values: Float[Tensor, " p"]) -> Float[Tensor, "b n"]:
    """Return `values` at the location of each pair, 0 elsewhere; values of pairs in vain must be 0."""
    return like.new_zeros(like.shape[0] * like.shape[1]).index_add_(0, target.location, values).view(like.shape[:2])
