"""Axis 3: how the four values of a box are represented by the network's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gfocal.errors import above, at_least
from gfocal.ops.constants import constant
from gfocal.ops.losses import distribution_focal_loss
from gfocal.ops.precision import at_least_float32


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
    def distribution(
        self, code: Float[Tensor, "*n 4 w"]
    ) -> tuple[Float[Tensor, "*n 4 bins"], Float[Tensor, "*n 4 bins"]] | None:
        """Return how likely each of some evenly spaced values is, and these values, in the unit of the coding.

        None where a code is one number and tells nothing of its doubt.
        """

    @abstractmethod
    def losses(self, code: Float[Tensor, "p 4 w"], targets: Float[Tensor, "p 4"]) -> dict[str, Float[Tensor, " p"]]:
        """Return the losses on the code itself, weighted, one value a box.

        One of the name `box` takes the place of the family's loss on the box, others come beside it.
        """


@final
class Dirac(BoxRepresentation):
    """One number for each value: a Dirac delta distribution (V1 Eq. 3)."""

    width = 1
    bins = None

    def values(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4"]:
        """Return the numbers."""
        return code[..., 0]

    def probabilities(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4 bins"]:
        """Raise: there are no bins."""
        raise NotImplementedError("a Dirac delta has no bins")

    def distribution(
        self, code: Float[Tensor, "*n 4 w"]
    ) -> tuple[Float[Tensor, "*n 4 bins"], Float[Tensor, "*n 4 bins"]] | None:
        """Return None: all of it is at one value."""
        return None

    def losses(self, code: Float[Tensor, "p 4 w"], targets: Float[Tensor, "p 4"]) -> dict[str, Float[Tensor, " p"]]:
        """Return nothing: the family's loss on the box is all."""
        return {}


@final
class Gaussian(BoxRepresentation):
    """Mean and variance of each value, learnt by their likelihood alone (V1 Table 5).

    weight: of the loss, the mean over the four values. smallest: variance from where on it grows with the softplus of
    the second number; without it, a target hit exactly would have an infinite density.
    """

    width = 2
    bins = None

    def __init__(self, *, weight: float = 1.0, smallest: float = 1e-3) -> None:
        self.weight = above("weight", weight, 0)
        self.smallest = above("smallest", smallest, 0)

    def values(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4"]:
        """Return the means."""
        return code[..., 0]

    def variances(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4"]:
        """Return the variances, in the square of the values' unit."""
        return F.softplus(code[..., 1]) + self.smallest

    def probabilities(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4 bins"]:
        """Raise: there are no bins."""
        raise NotImplementedError("a Gaussian has no bins")

    def distribution(
        self, code: Float[Tensor, "*n 4 w"]
    ) -> tuple[Float[Tensor, "*n 4 bins"], Float[Tensor, "*n 4 bins"]] | None:
        """Return the mass about each of 33 values from mean - 4σ to mean + 4σ; the outer ones have the tails.

        The mean is the Gaussian's, and so is what lies below each middle of two values; the standard deviation is less
        than 0.3 % more than σ.

        >>> mass, values = Gaussian().distribution(torch.zeros(1, 4, 2))
        >>> mass.shape, round(values[0, 0, -1].item(), 2)
        (torch.Size([1, 4, 33]), 3.33)
        """
        steps = torch.linspace(-4, 4, 33, device=code.device, dtype=code.dtype)
        below = torch.special.ndtr((steps[1:] + steps[:-1]) / 2)
        mass = torch.cat([below[:1], below.diff(), 1 - below[-1:]])
        values = self.values(code)[..., None] + self.variances(code).sqrt()[..., None] * steps
        return mass.expand_as(values), values

    def losses(self, code: Float[Tensor, "p 4 w"], targets: Float[Tensor, "p 4"]) -> dict[str, Float[Tensor, " p"]]:
        """Return `box`, (x - y)² / 2σ² + log(σ²) / 2, the mean over the four values times its weight."""
        code = at_least_float32(code)
        variance = self.variances(code)
        loss = (self.values(code) - targets).square() / (2 * variance) + variance.log() / 2
        return {"box": self.weight * loss.mean(-1)}


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
        self.bins = self._bins = tuple(i * delta for i in range(n + 1))
        self.dfl_weight = at_least("dfl_weight", dfl_weight, 0)
        # targets at the very end would leave no bin to their right: the reference stops 0.1 bins before it
        self.largest_target = (n - 0.1) * delta

    def values(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4"]:
        """Return the expectation of each distribution (V1 Eq. 5)."""
        # no matrix product: autocast would run it in half precision
        return (self.probabilities(code) * constant(self._bins, code)).sum(-1)

    def probabilities(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4 bins"]:
        """Return the softmax of the logits."""
        return code.softmax(dim=-1)

    def distribution(
        self, code: Float[Tensor, "*n 4 w"]
    ) -> tuple[Float[Tensor, "*n 4 bins"], Float[Tensor, "*n 4 bins"]] | None:
        """Return the softmax of the logits, and the bins.

        >>> mass, values = General(n=2, delta=0.5).distribution(torch.zeros(1, 4, 3))
        >>> mass[0, 0], values[0, 0]
        (tensor([0.3333, 0.3333, 0.3333]), tensor([0.0000, 0.5000, 1.0000]))
        """
        mass = self.probabilities(code)
        return mass, constant(self._bins, code).expand_as(mass)

    def losses(self, code: Float[Tensor, "p 4 w"], targets: Float[Tensor, "p 4"]) -> dict[str, Float[Tensor, " p"]]:
        """Return `dfl`, the mean over the four edges times its weight, or nothing where the weight is 0."""
        if self.dfl_weight == 0:
            return {}
        inside = targets.clamp(0, self.largest_target)
        return {"dfl": self.dfl_weight * distribution_focal_loss(code, inside, delta=self.delta).mean(-1)}


BOXES: Mapping[str, type[BoxRepresentation]] = {"dirac": Dirac, "gaussian": Gaussian, "general": General}
