"""Shares, peaks and shortest stretches of many histograms at once, each a column, in units of their cells.

Columns, because going over rows of a dozen values takes several times as long. A place tells how many cells from the
start of the first one something lies: the middle of the first is 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Histograms:
    """Histograms whose mass fills each cell evenly.

    heights: (bins, e), 0 or more, each column with a sum above 0.

    >>> Histograms(torch.tensor([[0.25], [0.75]])).share(torch.tensor([[1.5]]))
    tensor([[0.6250]])
    """

    heights: Float[Tensor, "bins e"]

    @cached_property
    def border(self) -> Float[Tensor, "borders e"]:
        """The mass before each border of the cells, from 0 to all of it."""
        first = torch.zeros_like(self.heights[:1])
        return torch.cat([first, self.heights.cumsum(0)])

    def share(self, place: Float[Tensor, "k e"]) -> Float[Tensor, "k e"]:
        """Return the share of the mass before each place; NaN where that is NaN."""
        place = place.clamp(0, len(self.heights))
        cell = self.cell(place)
        before = torch.lerp(self.border.gather(0, cell), self.border.gather(0, cell + 1), place - cell)
        return before / self.border[-1]

    def cell(self, place: Float[Tensor, "k e"]) -> Int[Tensor, "k e"]:
        """Return the cell that each place lies in, the last of two that meet there; the nearest one beyond the ends."""
        return place.nan_to_num(nan=0.0).clamp(0, len(self.heights) - 1).long()

    def place(self, share: Float[Tensor, "k e"]) -> Float[Tensor, "k e"]:
        """Return the first place before which each share of the mass lies; for 0, where the mass starts."""
        # the ends are those of the mass, not of the bins, and rounding may leave the sum a little off 1
        wanted = _at_least_tiny(share * self.border[-1])
        cell = (self.border[1:-1, None] < wanted).sum(0)
        inside = (wanted - self.border.gather(0, cell)) / _at_least_tiny(self.heights.gather(0, cell))
        return cell + inside.clamp(0, 1)

    def peaks(self) -> tuple[Float[Tensor, "bins e"], Float[Tensor, "bins e"]]:
        """Return the mass that belongs to each peak, at its bin, and its place; the mass is 0 where there is none.

        A peak is a bin between lower ones, those beyond the ends included; of several bins of one height it is their
        middle, told at the last of them. All between the middles of the lowest bins beside it belongs to it.

        >>> mass, place = Histograms(torch.tensor([[0.25], [0.125], [0.125], [0.5]])).peaks()
        >>> mass[:, 0], place[3, 0]
        (tensor([0.3750, 0.0000, 0.0000, 0.6250]), tensor(3.5000))
        """
        bins, count = self.heights.shape
        middle = (self.border[1:] + self.border[:-1]) / 2
        place = (torch.arange(bins, device=middle.device, dtype=middle.dtype) + 0.5)[:, None].expand(-1, count)
        rise = self.heights.diff(dim=0)
        rising = torch.ones(bins + 1, count, device=middle.device, dtype=torch.bool)
        rising[1:-1] = rise > 0
        rising[-1] = False
        if (rise == 0).any():
            middle, place, rising = _levelled(middle, place, rising, rise == 0)
        # products, because picking by a mask takes several times as long
        valley = (rising[1:] > rising[:-1]).to(middle.dtype)
        start, end = middle * valley, middle + self.border[-1] * (1 - valley)
        # what lies before the last valley grows along the bins, what lies before the next one falls against them
        for before, row in pairwise(start.unbind()):
            torch.maximum(row, before, out=row)
        for after, row in pairwise(reversed(end.unbind())):
            torch.minimum(row, after, out=row)
        mass = torch.minimum(end, self.border[-1]) - start
        return mass * (rising[1:] < rising[:-1]).to(middle.dtype), place

    def shortest(self, share: float) -> tuple[Float[Tensor, " e"], Float[Tensor, " e"]]:
        """Return the places between which a share (0..1) of the mass lies on the shortest stretch.

        Of those within one cell, it is the one in its middle.

        >>> first, last = Histograms(torch.tensor([[0.25], [0.5], [0.25]])).shortest(0.25)
        >>> first.item(), last.item()
        (1.25, 1.75)
        """
        border, bins = self.border, len(self.heights)
        wanted = share * border[-1]
        cells = torch.ones_like(wanted, dtype=torch.long)
        for size in range(1, bins):
            short = (border[size:] - border[:-size]).amax(0) < wanted
            if not short.any():
                break
            cells += short
        # So many cells can hold the mass, one less cannot. Where they do, what they hold too much is left out at the
        # end where it lies thinner, and does not fill the cell there. Elsewhere they hold too little.
        end = (torch.arange(bins, device=border.device)[:, None] + cells).clamp(max=bins)
        last = self.heights.gather(0, end - 1)
        excess = border.gather(0, end) - border[:-1] - wanted
        spare, start = (excess / _at_least_tiny(torch.minimum(self.heights, last))).max(0)
        spare = spare.clamp(0, 1)
        thin_start = self.heights.gather(0, start[None])[0] < last.gather(0, start[None])[0]
        low = start + spare * torch.where(cells == 1, 0.5, thin_start.to(spare.dtype))
        return low, low + cells - spare


def _at_least_tiny(mass: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the masses, 0 as the smallest normal number, so that they can be divided by."""
    return mass.clamp(min=torch.finfo(mass.dtype).tiny)


def _levelled(
    middle: Float[Tensor, "bins e"],
    place: Float[Tensor, "bins e"],
    rising: Bool[Tensor, "borders e"],
    level: Bool[Tensor, "inner e"],
) -> tuple[Float[Tensor, "bins e"], Float[Tensor, "bins e"], Bool[Tensor, "borders e"]]:
    """Return what lies before the middle of all bins of one height, its place, and slopes that go on up to the last.

    level: whether each bin but the first is as high as the one before it.
    """
    first_middle, first_place, slopes = list(middle), list(place), list(rising)
    for index, same in enumerate(level):
        first_middle[index + 1] = torch.where(same, first_middle[index], first_middle[index + 1])
        first_place[index + 1] = torch.where(same, first_place[index], first_place[index + 1])
        slopes[index + 1] = torch.where(same, slopes[index], slopes[index + 1])
    return (middle + torch.stack(first_middle)) / 2, (place + torch.stack(first_place)) / 2, torch.stack(slopes)
