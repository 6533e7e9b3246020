"""Box coding: how four numbers at a prior stand for a box, a part of the family."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.ops.boxes import boxes_to_ltrb, ltrb_to_boxes
from gfocal.ops.constants import constant
from gfocal.structures import Priors


class Coding(ABC):
    """Four values at each prior, and the box in pixels that they stand for.

    spreads: whether each value is a distance from the point to an edge, so that a distribution over 0..n·Δ can stand
    for it. last_pixel: what is taken off a picture's sides to get the coordinates that boxes are clipped to.
    """

    spreads: bool
    last_pixel: int

    @abstractmethod
    def encode(self, priors: Priors, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the values that stand for `boxes`, xyxy pixels, at the priors."""

    @abstractmethod
    def decode(self, priors: Priors, values: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the boxes, xyxy pixels, that `values` stand for at the priors."""

    def targets(self, priors: Priors, boxes: Float[Tensor, "n 4"]) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n 4"]]:
        """Return the values to learn at the priors for `boxes`, xyxy pixels, and the nearest boxes they stand for."""
        return self.encode(priors, boxes), boxes

    @abstractmethod
    def ltrb(self, values: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        """Return the distances in strides to the four edges, at priors that are alike but for their stride."""

    @abstractmethod
    def positions(self, priors: Priors, values: Float[Tensor, "... bins"]) -> Float[Tensor, "n 4 bins"]:
        """Return the pixel coordinate of each edge when its value is each of `values`; for codings that spread.

        values: (bins,) where they are the same for all edges, else (n, 4, bins).
        """


@final
class Distances(Coding):
    """Left, top, right and bottom distance from the prior's point, in strides of its level (FCOS, GFL)."""

    spreads = True
    last_pixel = 0

    def encode(self, priors: Priors, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the distances in strides; negative where the point lies outside."""
        return boxes_to_ltrb(priors.points, boxes, priors.strides)

    def decode(self, priors: Priors, values: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the boxes, xyxy pixels; a negative distance counts as 0."""
        return ltrb_to_boxes(priors.points, values.relu(), priors.strides)

    def ltrb(self, values: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        """Return the values, negative ones as 0."""
        return values.relu()

    def positions(self, priors: Priors, values: Float[Tensor, "... bins"]) -> Float[Tensor, "n 4 bins"]:
        """Return the pixel coordinates: left and top run against the values, right and bottom with them."""
        steps = priors.strides[:, None, None] * values
        outwards = steps.new_tensor([-1, -1, 1, 1])[:, None]
        return priors.points.repeat(1, 2)[..., None] + outwards * steps


@final
class Deltas(Coding):
    """Shift of the anchor's centre in its sides, and logarithm of its growth (Girshick et al. 2014).

    stds: what the four values are divided by. side: of the anchor in strides, where all are squares of that side.
    """

    spreads = False
    last_pixel = 0

    def __init__(self, *, stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0), side: float = 8.0) -> None:
        self.stds = stds
        self.side = side
        # boxes grow or shrink 62.5-fold at most, as in the reference
        self.largest_growth = abs(math.log(16 / 1000))

    def encode(self, priors: Priors, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return shift and growth; a box without area counts as one of a millionth of a pixel."""
        centres, sides = _centres_and_sides(priors.boxes)
        true_centres, true_sides = _centres_and_sides(boxes)
        growth = (true_sides.clamp(min=1e-6) / sides).log()
        return torch.cat([(true_centres - centres) / sides, growth], dim=-1) / constant(self.stds, boxes)

    def targets(self, priors: Priors, boxes: Float[Tensor, "n 4"]) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n 4"]]:
        """Return the values, and boxes no more than 62.5 times smaller or larger than the anchors, as the reference."""
        values = self.encode(priors, boxes)
        return values, self.decode(priors, values)

    def decode(self, priors: Priors, values: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the boxes, xyxy pixels."""
        return self._decode(*_centres_and_sides(priors.boxes), values)

    def ltrb(self, values: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        """Return the distances from the anchor's centre, for a square anchor of `side` strides."""
        boxes = self._decode(torch.zeros_like(values[..., :2]), torch.full_like(values[..., :2], self.side), values)
        return torch.cat([-boxes[..., :2], boxes[..., 2:]], dim=-1)

    def positions(self, priors: Priors, values: Float[Tensor, "... bins"]) -> Float[Tensor, "n 4 bins"]:
        """Raise: no value belongs to one edge alone."""
        raise NotImplementedError("deltas move two edges at once")

    def _decode(
        self, centres: Float[Tensor, "*n 2"], sides: Float[Tensor, "*n 2"], values: Float[Tensor, "*n 4"]
    ) -> Float[Tensor, "*n 4"]:
        values = values * constant(self.stds, values)
        centres = centres + sides * values[..., :2]
        half = sides * values[..., 2:].clamp(-self.largest_growth, self.largest_growth).exp() / 2
        return torch.cat([centres - half, centres + half], dim=-1)


@final
class Logarithms(Coding):
    """Logarithm of the four distances from the point, over a length of the level (FoveaBox, Kong et al. 2020).

    base: that length in strides. Distances are learnt within a factor of `reach` of it.
    """

    spreads = False
    last_pixel = 1

    def __init__(self, *, base: float = 2.0, reach: float = 16.0) -> None:
        self.base = base
        self.reach = reach

    def encode(self, priors: Priors, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the logarithms."""
        ltrb = boxes_to_ltrb(priors.points, boxes, priors.strides)
        return (ltrb / self.base).clamp(1 / self.reach, self.reach).log()

    def decode(self, priors: Priors, values: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the boxes, xyxy pixels."""
        return ltrb_to_boxes(priors.points, self.ltrb(values), priors.strides)

    def ltrb(self, values: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        """Return the distances in strides; beyond any picture they stay finite."""
        return self.base * values.clamp(max=10.0).exp()

    def positions(self, priors: Priors, values: Float[Tensor, "... bins"]) -> Float[Tensor, "n 4 bins"]:
        """Raise: the bins would not be evenly spaced."""
        raise NotImplementedError("logarithms of distances have no even bins")


def _centres_and_sides(boxes: Float[Tensor, "*n 4"]) -> tuple[Float[Tensor, "*n 2"], Float[Tensor, "*n 2"]]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
