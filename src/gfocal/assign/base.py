"""What every assigner is: a function of the priors and the ground truth."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Bool
from torch import Tensor

from gfocal.structures import GroundTruth, Match, Priors


class Assigner(ABC):
    """Decides which locations of a batch learn which box."""

    @abstractmethod
    def __call__(self, priors: Priors, truth: GroundTruth) -> Match:
        """Return the match of all pictures at once, without waiting for the device."""


def inside_extent(priors: Priors, truth: GroundTruth) -> Bool[Tensor, "b n"]:
    """Return whether each location lies on its own picture, not on the padding up to the batch's largest.

    A cell counts where it begins inside the picture's padded extent: column < ceil(width / stride), rows alike.
    """
    cells = priors.points / priors.strides[:, None]
    limits = (truth.extents[:, None] / priors.strides[None, :, None]).ceil()
    return (cells[None, :, 1] < limits[..., 0]) & (cells[None, :, 0] < limits[..., 1])
