"""What assigners share that look at every location: the best box of each, kept over slices of the boxes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gfocal.structures import GroundTruth, Match

PAIRS_AT_ONCE = 8_000_000
"""Pairs of box and location that are looked at together: bounds the memory to a few hundred megabytes."""


def slices(num_boxes: int, num_locations: int) -> Iterator[slice]:
    """Yield slices of the boxes so that each makes at most `PAIRS_AT_ONCE` pairs with all locations."""
    step = max(PAIRS_AT_ONCE // max(num_locations, 1), 1)
    return (slice(start, start + step) for start in range(0, num_boxes, step))


def best_of_slice(
    values: Float[Tensor, "s n"], owner: Int[Tensor, " s"], picture: Int[Tensor, " s"], *, pictures: int
) -> tuple[Float[Tensor, "b n"], Int[Tensor, "b n"]]:
    """Return the highest value of each location of each picture and the box it is of, the first where several tie.

    values: of each box at each location, -inf where they have nothing to do with each other. owner: index of each box.
    picture: of each box. A location without any value gets -inf and an owner beyond all boxes.
    """
    count = values.shape[1]
    rows = picture[:, None].expand(-1, count)
    best = values.new_full((pictures, count), -torch.inf).scatter_reduce(0, rows, values, "amax")
    nobody = torch.iinfo(torch.long).max
    leading = (values == best[picture]) & (values > -torch.inf)
    owners = torch.where(leading, owner[:, None], nobody)
    first = owner.new_full((pictures, count), nobody).scatter_reduce(0, rows, owners, "amin")
    return best, first


def match_of(owner: Int[Tensor, "b n"], positive: Bool[Tensor, "b n"], counted: Bool[Tensor, "b n"]) -> Match:
    """Return the match in which each location is one candidate pair. owner: any index where not positive."""
    location = torch.arange(owner.numel(), device=owner.device)
    return Match(location, owner.masked_fill(~positive, 0).flatten(), positive.flatten(), counted)


def match_without_boxes(truth: GroundTruth, counted: Bool[Tensor, "b n"]) -> Match:
    """Return the match of pictures that hold nothing."""
    none = truth.labels
    return Match(none, none, none.bool(), counted)
