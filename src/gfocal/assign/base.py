"""What every assigner is: a function of the priors and the ground truth."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gfocal.structures import GroundTruth, Match, Priors


class Assigner(ABC):
    """Decides which locations of a batch learn which box."""

    @abstractmethod
    def __call__(self, priors: Priors, truth: GroundTruth) -> Match:
        """Return the match of all pictures at once, without waiting for the device."""

    @abstractmethod
    def with_levels(self, count: int) -> Assigner:
        """Return what assigns alike on so many levels, at least 1, each of twice the stride before."""


def inside_extent(priors: Priors, truth: GroundTruth) -> Bool[Tensor, "b n"]:
    """Return whether each location lies on its own picture, not on the padding up to the batch's largest.

    A cell counts where it begins inside the picture's padded extent: column < ceil(width / stride), rows alike.
    """
    cells = priors.points / priors.strides[:, None]
    limits = (truth.extents[:, None] / priors.strides[None, :, None]).ceil()
    return (cells[None, :, 1] < limits[..., 0]) & (cells[None, :, 0] < limits[..., 1])


def best_owner(
    location: Int[Tensor, " p"],
    owner: Int[Tensor, " p"],
    rank: Float[Tensor, " p"],
    positive: Bool[Tensor, " p"],
    *,
    total: int,
) -> Bool[Tensor, " p"]:
    """Return which positive pairs keep their location: the highest rank, then the first owner."""
    best = rank.new_full((total,), -torch.inf).scatter_reduce(
        0, location, rank.masked_fill(~positive, -torch.inf), "amax"
    )
    leading = positive & (rank == best[location])
    nobody = location.shape[0]
    first = owner.new_full((total,), nobody).scatter_reduce(0, location, owner.masked_fill(~leading, nobody), "amin")
    return leading & (owner == first[location])
