"""What is known of where the edges of boxes lie: one probability distribution an edge, and all that is read off it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gfocal.histograms import Histograms, highest

Index: TypeAlias = "int | slice | Tensor | list[int] | list[bool] | npt.NDArray[Any]"


def rows_of(index: Index, count: int) -> slice | Tensor:
    """Return what selects the same rows and keeps the first dimension; IndexError for one number outside of them.

    >>> rows_of(-1, 3)
    slice(-1, None, None)
    """
    if isinstance(index, list) or (isinstance(index, np.ndarray) and index.ndim):
        index = torch.as_tensor(index, dtype=None if len(index) else torch.long)
    # one number may come as a tensor, too
    if isinstance(index, slice) or (isinstance(index, Tensor) and index.ndim):
        return index
    row = operator.index(index)
    if not -count <= row < count:
        raise IndexError(f"index {row} is out of range for {count} rows")
    return slice(row, row + 1 or None)


@dataclass(frozen=True)
class EdgeDistributions:
    """The distribution of each edge (left, top, right, bottom) of n boxes over positions on the picture.

    probabilities: (n, 4, bins), each edge sums to 1. positions: (n, 4, bins), the pixel coordinate of each bin on
    its axis, at least two, evenly spaced from the inside of the box outwards: left and top descend with the bin. The
    mass of a bin is read as spread evenly over its cell, half a bin to either side, which leaves the mean as it is
    (paper V1, Eq. 5).

    A network has no bins beyond its last one, and learns to put an edge that lies further out there: `clipped` tells
    how much of each edge is of that kind. All that is below takes the mass of the last bin to lie in its cell.

    >>> positions = 10.0 * torch.tensor([[-1], [-1], [1], [1]]) * torch.arange(4) + 100
    >>> edges = EdgeDistributions(torch.tensor([0.0, 0.5, 0.25, 0.25]).expand(1, 4, 4), positions[None])
    >>> edges.mean
    tensor([[ 82.5000,  82.5000, 117.5000, 117.5000]])
    >>> edges.clipped
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    probabilities: Float[Tensor, "n 4 bins"]
    positions: Float[Tensor, "n 4 bins"]

    def __post_init__(self) -> None:
        if self.probabilities.shape != self.positions.shape or self.probabilities.shape[1:-1] != (4,):
            raise ValueError(
                f"probabilities and positions must both be (n, 4, bins), "
                f"got {tuple(self.probabilities.shape)} and {tuple(self.positions.shape)}"
            )
        if self.positions.shape[-1] < 2:
            raise ValueError(f"there must be at least 2 bins, got {self.positions.shape[-1]}")

    def __len__(self) -> int:
        return self.probabilities.shape[0]

    def __getitem__(self, index: Index) -> EdgeDistributions:
        """Return the boxes at `index`: an int (one row), a slice, or a tensor, array or list of ints or bools."""
        rows = rows_of(index, len(self))
        return EdgeDistributions(self.probabilities[rows], self.positions[rows])

    def cpu(self) -> EdgeDistributions:
        """Return the distributions in the memory of the host.

        >>> EdgeDistributions(torch.ones(1, 4, 2) / 2, torch.arange(2.0).expand(1, 4, 2)).cpu().mean.device
        device(type='cpu')
        """
        return EdgeDistributions(self.probabilities.cpu(), self.positions.cpu())

    @staticmethod
    def cat(parts: Sequence[EdgeDistributions]) -> EdgeDistributions:
        """Return the boxes of at least one set in one row; ValueError where their numbers of bins differ.

        >>> edges = EdgeDistributions(torch.ones(1, 4, 2) / 2, torch.arange(2.0).expand(1, 4, 2))
        >>> len(EdgeDistributions.cat([edges, edges]))
        2
        """
        counts = sorted({part.positions.shape[-1] for part in parts})
        if len(counts) != 1:
            raise ValueError(f"distributions must have the same number of bins to stand in one row, got {counts}")
        return EdgeDistributions(
            torch.cat([part.probabilities for part in parts]), torch.cat([part.positions for part in parts])
        )

    def mirrored(self, width: float) -> EdgeDistributions:
        """Return the distributions in the picture mirrored left to right; width: the picture's, in pixels.

        >>> positions = torch.tensor([[1.0], [2.0], [3.0], [4.0]]) + torch.tensor([-0.5, 0.5])
        >>> edges = EdgeDistributions(torch.ones(1, 4, 2) / 2, positions[None])
        >>> edges.mirrored(10).mean
        tensor([[7., 2., 9., 4.]])
        """
        order = [2, 1, 0, 3]
        positions = self.positions[:, order].clone()
        positions[:, [0, 2]] = width - positions[:, [0, 2]]
        return EdgeDistributions(self.probabilities[:, order], positions)

    def shifted(self, x: float, y: float) -> EdgeDistributions:
        """Return the distributions moved by x and y pixels, from a part of a picture into the whole.

        >>> edges = EdgeDistributions(torch.ones(1, 4, 2) / 2, torch.arange(2.0).expand(1, 4, 2))
        >>> edges.shifted(100, 10).mean
        tensor([[100.5000,  10.5000, 100.5000,  10.5000]])
        """
        return EdgeDistributions(self.probabilities, self.positions + self.positions.new_tensor([[x], [y], [x], [y]]))

    @property
    def mean(self) -> Float[Tensor, "n 4"]:
        """Expected coordinate of each edge in pixels: the unclipped box, xyxy (paper V1, Eq. 5)."""
        return (self.probabilities * self.positions).sum(-1)

    @property
    def std(self) -> Float[Tensor, "n 4"]:
        """Standard deviation of each edge in pixels, of the mass at the bins: 0 where one bin has it all."""
        # counted in bins: far from the origin, positions are too coarse to be squared
        heights = self._histograms.heights
        bins = torch.arange(len(heights), device=heights.device, dtype=heights.dtype)[:, None]
        deviation = bins - (heights * bins).sum(0)
        return deviation.square_().mul_(heights).sum(0).sqrt().view(len(self), 4) * self.step.abs()

    @cached_property
    def step(self) -> Float[Tensor, "n 4"]:
        """Distance from one bin to the next in pixels, below 0 where they descend."""
        return (self.positions[..., -1] - self.positions[..., 0]) / (self.positions.shape[-1] - 1)

    @property
    def variance(self) -> Float[Tensor, "n 4"]:
        """Variance of each edge in square pixels, of the mass spread over the cells: std² + step² / 12, never 0."""
        return self.std.square() + self.step.square() / 12

    def covariance(self, *, form: Literal["xyxy", "cxcywh"] = "xyxy") -> Float[Tensor, "n 4 4"]:
        """Return the covariance of each box in square pixels, its four edges taken as independent of each other.

        form: of left, top, right, bottom, which is a diagonal of `variance`; or of centre x, centre y, width, height,
        where centre and size go together if one of two opposite edges is surer than the other.

        >>> edges = EdgeDistributions(torch.tensor([0.5, 0.5]).expand(1, 4, 2), torch.arange(2.0).expand(1, 4, 2))
        >>> edges.covariance()[0].diagonal()
        tensor([0.3333, 0.3333, 0.3333, 0.3333])
        >>> edges.covariance(form="cxcywh")[0].diagonal()
        tensor([0.1667, 0.1667, 0.6667, 0.6667])
        """
        covariance = self.variance.diag_embed()
        if form == "xyxy":
            return covariance
        if form != "cxcywh":
            raise ValueError(f"form must be xyxy or cxcywh, got {form!r}")
        rows = [[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [-1, 0, 1, 0], [0, -1, 0, 1]]
        change = covariance.new_tensor(rows)
        return change @ covariance @ change.T

    @property
    def entropy(self) -> Float[Tensor, "n 4"]:
        """Entropy of each edge in nats, from 0 to log(bins)."""
        # torch.special.entr takes ten times as long
        heights = self._histograms.heights
        return -heights.clamp(min=torch.finfo(heights.dtype).tiny).log_().mul_(heights).sum(0).view(len(self), 4)

    @property
    def clipped(self) -> Float[Tensor, "n 4"]:
        """Mass of the outermost bin of each edge, 0..1: where the edge lies as far out as bins reach, or further."""
        return self.probabilities[..., -1]

    def quantile(self, q: float) -> Float[Tensor, "n 4"]:
        """Return the coordinate in pixels below which the share `q` (0..1) of each edge's mass lies.

        Where `clipped` is more than what `q` leaves on the outer side, the edge may lie further out than this says.

        >>> edges = EdgeDistributions(torch.tensor([0.25, 0.75]).expand(1, 4, 2), torch.arange(2.0).expand(1, 4, 2))
        >>> edges.quantile(0.25)
        tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must lie in 0..1, got {q}")
        return self._quantiles(q)[0]

    def interval(
        self, mass: float, *, kind: Literal["central", "shortest"] = "central"
    ) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n 4"]]:
        """Return the lower and upper coordinate in pixels between which the share `mass` (0..1) of each edge lies.

        kind: "central" leaves the same mass out on either side, "shortest" is the narrowest of all; of those within
        one cell, the one in its middle. Where `clipped` is more than what is left out on the outer side, the edge may
        lie further out than this says.

        >>> edges = EdgeDistributions(torch.tensor([0.25, 0.75]).expand(1, 4, 2), torch.arange(2.0).expand(1, 4, 2))
        >>> [round(end[0, 0].item(), 3) for end in edges.interval(0.75)]
        [0.0, 1.333]
        >>> [round(end[0, 0].item(), 3) for end in edges.interval(0.75, kind="shortest")]
        [0.5, 1.5]
        """
        if not 0 <= mass <= 1:
            raise ValueError(f"mass must lie in 0..1, got {mass}")
        if kind == "shortest":
            low, high = self._at(torch.stack(self._histograms.shortest(mass)))
            return torch.minimum(low, high), torch.maximum(low, high)
        if kind != "central":
            raise ValueError(f"kind must be central or shortest, got {kind!r}")
        low, high = self._quantiles((1 - mass) / 2, (1 + mass) / 2)
        return low, high

    def cdf(self, x: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the share of each edge's mass below a coordinate in pixels, 0..1; NaN where that is NaN.

        >>> edges = EdgeDistributions(torch.tensor([0.25, 0.75]).expand(1, 4, 2), torch.arange(2.0).expand(1, 4, 2))
        >>> edges.cdf(torch.tensor([[-5.0, 0.0, 0.5, 1.5]]))
        tensor([[0.0000, 0.1250, 0.2500, 1.0000]])
        """
        share = self._histograms.share(self.places(x).view(1, -1)).view(len(self), 4)
        return torch.where(self.step > 0, share, 1 - share)

    def places(self, x: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return how many cells from the start of the first one each coordinate in pixels lies, 0..bins within them.

        >>> edges = EdgeDistributions(torch.full((1, 4, 2), 0.5), torch.tensor([0.0, 8.0]).expand(1, 4, 2))
        >>> edges.places(torch.tensor([[-4.0, 0.0, 8.0, 20.0]]))
        tensor([[0.0000, 0.5000, 1.5000, 3.0000]])
        """
        return (x - self.positions[..., 0]) / self.step + 0.5

    def cells(self, x: Float[Tensor, "n 4"]) -> tuple[Int[Tensor, "n 4"], Bool[Tensor, "n 4"]]:
        """Return which cell each coordinate in pixels lies in, and whether it does or is only the nearest one.

        Where two cells meet, the outer one counts.

        >>> edges = EdgeDistributions(torch.full((1, 4, 2), 0.5), torch.tensor([0.0, 8.0]).expand(1, 4, 2))
        >>> [found.tolist() for found in edges.cells(torch.tensor([[-5.0, 3.0, 5.0, 11.0]]))]
        [[[0, 0, 1, 1]], [[False, True, True, True]]]
        """
        return self._cells(self.places(x))

    def log_prob(self, x: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Return the logarithm of each edge's density, 1 / pixel, at a coordinate; minus infinity where it has no mass.

        That is so beyond the outer ends of the first and the last cell. Where two cells meet, the outer one counts.

        >>> edges = EdgeDistributions(torch.tensor([0.25, 0.75]).expand(1, 4, 2), torch.arange(2.0).expand(1, 4, 2))
        >>> edges.log_prob(torch.tensor([[-5.0, 0.0, 0.5, 1.5]])).exp()
        tensor([[0.0000, 0.2500, 0.7500, 0.7500]])
        """
        place = self.places(x)
        cell, inside = self._cells(place)
        mass = self._histograms.heights.gather(0, cell.view(1, -1)) / self._histograms.border[-1]
        density = mass.view(len(self), 4) / self.step.abs()
        return density.where(inside, 0).log().where(~place.isnan(), torch.nan)

    def modes(self, *, least: float = 0.05) -> tuple[Float[Tensor, "n 4 m"], Float[Tensor, "n 4 m"]]:
        """Return the coordinate in pixels of each peak of each edge and its mass, the heaviest first.

        A peak is a bin, or several of one height, between lower ones; its mass is all between the lowest bins beside
        it, half of theirs included. Peaks of less than `least` (0..1), or of what rounding makes, are left out. m is
        the largest number of peaks of an edge, at least 1; edges that have fewer are filled up with coordinate NaN and
        mass 0.

        >>> mass = torch.tensor([0.3, 0.1, 0.0, 0.2, 0.4])
        >>> edges = EdgeDistributions(mass.expand(1, 4, 5), torch.arange(5.0).expand(1, 4, 5))
        >>> places, masses = edges.modes()
        >>> places[0, 0], masses[0, 0]
        (tensor([4., 0.]), tensor([0.6000, 0.4000]))
        """
        if not 0 <= least <= 1:
            raise ValueError(f"least must lie in 0..1, got {least}")
        masses, tops = self._histograms.peaks()
        enough = max(least, torch.finfo(masses.dtype).eps) * self._histograms.border[-1]
        found: list[tuple[Tensor, Tensor]] = []
        while not found or (masses.amax(0) >= enough).any():
            mass, index = highest(masses)
            counted = mass >= enough
            found.append((tops.gather(0, index[None])[0].where(counted, torch.nan), mass.where(counted, 0)))
            masses.scatter_(0, index[None], 0)
        place, mass = (torch.stack(values) for values in zip(*found, strict=True))
        share = (mass / self._histograms.border[-1]).view(len(found), len(self), 4)
        return self._at(place).permute(1, 2, 0), share.permute(1, 2, 0)

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "s n 4"]:
        """Return `count` coordinates in pixels of every edge, drawn independently; each first row is n boxes.

        Two edges may pass each other where both are broad.

        >>> edges = EdgeDistributions(torch.tensor([0.0, 1.0]).expand(1, 4, 2), torch.arange(2.0).expand(1, 4, 2))
        >>> boxes = edges.sample(1000, generator=torch.Generator().manual_seed(0))
        >>> boxes.shape, bool((boxes >= 0.5).all() and (boxes <= 1.5).all())
        (torch.Size([1000, 1, 4]), True)
        """
        share = torch.rand(
            (count, 4 * len(self)), generator=generator, device=self.positions.device, dtype=self.positions.dtype
        )
        return self._at(self._histograms.place(share))

    def _quantiles(self, *shares: float) -> Float[Tensor, "k n 4"]:
        """Return the coordinates below which the shares lie."""
        rising = self.positions.new_tensor(shares)[:, None]
        falling = self.positions.new_tensor([1 - share for share in shares])[:, None]
        return self._at(self._histograms.place(torch.where(self.step.view(-1) > 0, rising, falling)))

    @cached_property
    def _histograms(self) -> Histograms:
        """The distributions of all edges as columns, edge after edge."""
        return Histograms(self.probabilities.flatten(0, 1).t().contiguous())

    def _cells(self, place: Float[Tensor, "n 4"]) -> tuple[Int[Tensor, "n 4"], Bool[Tensor, "n 4"]]:
        cell = self._histograms.cell(place.view(1, -1)).view(len(self), 4)
        return cell, (place >= 0) & (place <= self.positions.shape[-1])

    def _at(self, place: Float[Tensor, "k e"]) -> Float[Tensor, "k n 4"]:
        """Return the coordinates of places along the columns."""
        return self.positions[..., 0] + self.step * (place.view(len(place), len(self), 4) - 0.5)
