"""Box coding: how four numbers at a prior stand for a box, a part of the family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.ops.boxes import boxes_to_ltrb, ltrb_to_boxes
from gfocal.structures import Priors


class Coding(ABC):
    """Four values at each prior, and the box in pixels that they stand for."""

    @abstractmethod
    def encode(self, priors: Priors, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the values that stand for `boxes`, xyxy pixels, at the priors."""

    @abstractmethod
    def decode(self, priors: Priors, values: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the boxes, xyxy pixels, that `values` stand for at the priors."""

    @abstractmethod
    def positions(self, priors: Priors, values: Float[Tensor, " bins"]) -> Float[Tensor, "n 4 bins"]:
        """Return the pixel coordinate of each edge when its value is each of `values`, on the edge's own axis."""


@final
class Distances(Coding):
    """Left, top, right and bottom distance from the prior's point, in strides of its level (FCOS, ATSS, GFL)."""

    def encode(self, priors: Priors, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the distances in strides; negative where the point lies outside."""
        return boxes_to_ltrb(priors.points, boxes, priors.strides)

    def decode(self, priors: Priors, values: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the boxes, xyxy pixels."""
        return ltrb_to_boxes(priors.points, values, priors.strides)

    def positions(self, priors: Priors, values: Float[Tensor, " bins"]) -> Float[Tensor, "n 4 bins"]:
        """Return the pixel coordinates: left and top run against the values, right and bottom with them."""
        steps = priors.strides[:, None] * values
        x, y = priors.points[:, :1], priors.points[:, 1:]
        return torch.stack([x - steps, y - steps, x + steps, y + steps], dim=1)
