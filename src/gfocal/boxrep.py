"""Axis 3: how the four values of a box are represented by the network's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import final

from jaxtyping import Float
from torch import Tensor

from gfocal.errors import above, at_least
from gfocal.ops.losses import distribution_focal_loss


class BoxRepresentation(ABC):
    """What stands behind each of a box's four values.

    width: number of channels the network puts out for one value, the last dimension of a code.
    bins: the values that a distribution is spread over, or None where the code is no distribution.
    """

    width: int
    bins: tuple[float, ...] | None

    @abstractmethod
    def values(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4"]:
        """Return the four values that a code stands for, in the unit of the family's coding."""

    @abstractmethod
    def probabilities(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4 bins"]:
        """Return the probability of each bin; only for representations with bins."""

    @abstractmethod
    def losses(self, code: Float[Tensor, "p 4 w"], targets: Float[Tensor, "p 4"]) -> dict[str, Float[Tensor, " p"]]:
        """Return the losses on the code itself, weighted, one value a box; beside the loss on the decoded box."""


@final
class General(BoxRepresentation):
    """The General distribution over the values 0, Δ, …, n·Δ, learnt with DFL (V1 Eq. 5, 6).

    n: number of intervals; a code has n + 1 logits. delta: distance of two bins in strides (V1 Table 2b, 2c).
    dfl_weight: weight of the distribution focal loss, the mean over four edges (λ1 of V1 Eq. 8); 0 leaves it out
    ("General" of V1 Table 2a).
    """

    def __init__(self, *, n: int = 16, delta: float = 1.0, dfl_weight: float = 0.25) -> None:
        self.width = at_least("n", n, 1) + 1
        self.delta = above("delta", delta, 0)
        self.bins = tuple(i * delta for i in range(n + 1))
        self.dfl_weight = at_least("dfl_weight", dfl_weight, 0)
        # targets at the very end would leave no bin to their right: the reference stops 0.1 bins before it
        self.largest_target = (n - 0.1) * delta

    def values(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4"]:
        """Return the expectation of each distribution (V1 Eq. 5)."""
        # no matrix product: autocast would run it in half precision
        return (self.probabilities(code) * code.new_tensor(self.bins)).sum(-1)

    def probabilities(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4 bins"]:
        """Return the softmax of the logits."""
        return code.softmax(dim=-1)

    def losses(self, code: Float[Tensor, "p 4 w"], targets: Float[Tensor, "p 4"]) -> dict[str, Float[Tensor, " p"]]:
        """Return `dfl`, the mean over the four edges times its weight, or nothing where the weight is 0."""
        if self.dfl_weight == 0:
            return {}
        inside = targets.clamp(0, self.largest_target)
        return {"dfl": self.dfl_weight * distribution_focal_loss(code, inside, delta=self.delta).mean(-1)}


BOXES: Mapping[str, type[BoxRepresentation]] = {"general": General}
