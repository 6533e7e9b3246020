"""Shares, peaks and shortest stretches of many histograms at once, each a column, in units of their cells.

Columns, because going over rows of a dozen values takes several times as long. A place tells how many cells from the
start of the first one something lies: the middle of the first is 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Histograms:
    """Histograms whose mass fills each cell evenly.

    heights: (bins, e), two bins or more, 0 or above, each column with a sum above 0.

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
        cell = (self.border[1:-1, None] - wanted).lt_(0).sum(0).long()
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
        border, total = self.border, self.border[-1:]
        index = torch.arange(len(self.heights), device=border.device, dtype=border.dtype)[:, None]
        # numbers that are 0 or 1 and products, because booleans and picking by them take several times as long
        slope = self.heights.diff(dim=0).sign()
        rising, start, first = slope.relu(), border[:-1], index
        if not slope.all():
            rising, start, first = _levelled(slope, start)
        slopes = torch.cat([torch.ones_like(total), rising, torch.zeros_like(total)])
        valley, peak = (slopes[1:] - slopes[:-1]).relu_(), (slopes[:-1] - slopes[1:]).relu_()
        # what lies before the last valley grows along the bins, what lies before the next one falls against them
        middle = (start + border[1:]).div_(2)
        before, after = middle * valley, torch.lerp(total, middle, valley)
        _carry(torch.maximum, before.unbind())
        _carry(torch.minimum, after.unbind()[::-1])
        return after.sub_(before).mul_(peak), ((first + index + 1) / 2).expand_as(peak)

    def shortest(self, share: float) -> tuple[Float[Tensor, " e"], Float[Tensor, " e"]]:
        """Return the places between which a share (0..1) of the mass lies on the shortest stretch.

        Of those within one cell, it is the one in its middle.

        >>> first, last = Histograms(torch.tensor([[0.25], [0.5], [0.25]])).shortest(0.25)
        >>> first.item(), last.item()
        (1.25, 1.75)
        """
        border, bins = self.border, len(self.heights)
        wanted = share * border[-1]
        most = torch.stack([(border[size:] - border[:-size]).amax(0) for size in range(1, bins)])
        cells = 1 + most.lt_(wanted).sum(0)
        # So many cells can hold the mass, one less cannot. Where they do, what they hold too much is left out at the
        # end where it lies thinner, and does not fill the cell there. Elsewhere they hold too little.
        index = torch.arange(bins, device=border.device, dtype=border.dtype)[:, None]
        end = (index + (cells - 1)).clamp_(max=bins - 1).long()
        last = self.heights.gather(0, end)
        excess = border[1:].gather(0, end).sub_(border[:-1]).sub_(wanted)
        spare, start = highest(excess.div_(_at_least_tiny(torch.minimum(self.heights, last))))
        spare = spare.clamp(0, 1)
        thin_start = self.heights.gather(0, start[None])[0] < last.gather(0, start[None])[0]
        low = start + spare * torch.where(cells == 1, 0.5, thin_start.to(spare.dtype))
        return low, low + cells - spare


def highest(rows: Float[Tensor, "k e"]) -> tuple[Float[Tensor, " e"], Int[Tensor, " e"]]:
    """Return the highest value of each column and the row it stands in, the last of equal ones.

    >>> highest(torch.tensor([[0.5, 2.0], [1.5, 1.0]]))
    (tensor([1.5000, 2.0000]), tensor([1, 0]))
    """
    # rows.max(0) takes twice as long
    most = rows.amax(0)
    index = torch.arange(len(rows), device=rows.device, dtype=rows.dtype)[:, None]
    return most, torch.sub(index, (rows - most).lt_(0), alpha=len(rows)).amax(0).long()


def _at_least_tiny(mass: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the masses, 0 as the smallest normal number, so that they can be divided by."""
    return mass.clamp(min=torch.finfo(mass.dtype).tiny)


def _carry(choose: Callable[..., Tensor], rows: Sequence[Tensor]) -> None:
    """Put into each row what is chosen between it and the row before."""
    # cumulative operations of torch take twice as long, because they tell the indices, too
    for before, row in pairwise(rows):
        choose(row, before, out=row)


def _levelled(
    slope: Float[Tensor, "inner e"], start: Float[Tensor, "bins e"]
) -> tuple[Float[Tensor, "inner e"], Float[Tensor, "bins e"], Float[Tensor, "bins e"]]:
    """Return where heights rise (1, else 0), the mass before each bin and its index, as if bins of one height were one.

    A slope goes on up to the last of them, and they start where the first of them does.
    slope: 1, 0 or -1 from each bin to the next; start: the mass before each bin.
    """
    start, sloped = start.clone(), slope.abs()
    rising = slope.relu()
    rising[0] += 1 - sloped[0]
    first = torch.arange(len(start), device=start.device, dtype=start.dtype)[:, None].repeat(1, start.shape[1])
    for before, row, goes_on in zip(rising, rising[1:], 1 - sloped[1:], strict=False):
        row.addcmul_(before, goes_on)
    for values in (start, first):
        values[1:] *= sloped
        _carry(torch.maximum, values.unbind())
    return rising, start, first
