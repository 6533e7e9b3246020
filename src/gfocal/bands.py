"""Where edges and boxes lie with a stated probability: what a calibration adds to detections."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gfocal.edges import Index, rows_of


@dataclass(frozen=True)
class Bands:
    """Intervals of each edge, and boxes around and within each box, for each of some probabilities.

    masses: the probabilities, rising, 0..1 without its ends. lower, upper: (n, 4, masses) pixels, the interval that
    holds the true left, top, right and bottom edge. outer: (n, 4, masses) xyxy pixels, the box that holds the whole
    true box. inner: the box that the whole true box holds; it is empty, and holds in any case, where its right edge
    lies left of its left one or its bottom above its top. Each statement has the probability of its column by itself:
    an outer and an inner box of 0.95 hold together with 0.9 at least.

    Nothing is cut at the ends of the picture; a bound is infinite where too little data was there to give one.

    >>> import torch
    >>> low = torch.tensor([[[9.0], [4.0], [28.0], [38.0]]])
    >>> bands = Bands((0.9,), low, low + 4, outer=low, inner=low)
    >>> len(bands), bands.interval(0.9)[1].tolist()
    (1, [[13.0, 8.0, 32.0, 42.0]])
    """

    masses: tuple[float, ...]
    lower: Float[Tensor, "n 4 masses"]
    upper: Float[Tensor, "n 4 masses"]
    outer: Float[Tensor, "n 4 masses"]
    inner: Float[Tensor, "n 4 masses"]

    def __post_init__(self) -> None:
        shape = (len(self.lower), 4, len(self.masses))
        for name, value in self._columns().items():
            if value.shape != shape:
                raise ValueError(f"{name} must be {shape}, one column a mass, got {tuple(value.shape)}")

    def __len__(self) -> int:
        return len(self.lower)

    def __getitem__(self, index: Index) -> Bands:
        """Return the boxes at `index`: an int (one row), a slice, or a tensor, array or list of ints or bools."""
        rows = rows_of(index, len(self))
        return Bands(self.masses, **{name: value[rows] for name, value in self._columns().items()})

    def cpu(self) -> Bands:
        """Return the bands in the memory of the host."""
        return Bands(self.masses, **{name: value.cpu() for name, value in self._columns().items()})

    def interval(self, mass: float) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n 4"]]:
        """Return lower and upper coordinate in pixels that hold each edge with probability `mass`, one of `masses`."""
        column = self._column(mass)
        return self.lower[..., column], self.upper[..., column]

    def boxes(self, mass: float) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n 4"]]:
        """Return outer and inner boxes, xyxy pixels, that hold with probability `mass`, one of `masses`."""
        column = self._column(mass)
        return self.outer[..., column], self.inner[..., column]

    def to_dicts(self, mass: float) -> list[dict[str, list[Any]]]:
        """Return plain values for JSON, a row a box, to two decimals; what is infinite becomes None.

        `edge_band` has lower and upper end of each edge, `outer_box` and `inner_box` are xyxy, all in pixels.

        >>> import torch
        >>> low = torch.tensor([[[9.0], [4.0], [28.0], [float("-inf")]]])
        >>> Bands((0.9,), low, low + 4, outer=low, inner=low).to_dicts(0.9)[0]["edge_band"]
        [[9.0, 13.0], [4.0, 8.0], [28.0, 32.0], [None, None]]
        """
        lower, upper = (ends.tolist() for ends in self.interval(mass))
        outer, inner = (boxes.tolist() for boxes in self.boxes(mass))
        return [
            {
                "edge_band": [_rounded(ends) for ends in zip(low, high, strict=True)],
                "outer_box": _rounded(out),
                "inner_box": _rounded(within),
            }
            for low, high, out, within in zip(lower, upper, outer, inner, strict=True)
        ]

    def _column(self, mass: float) -> int:
        if mass not in self.masses:
            raise ValueError(f"mass must be one of {self.masses}, for which the bands were made, got {mass}")
        return self.masses.index(mass)

    def _columns(self) -> dict[str, Tensor]:
        return {"lower": self.lower, "upper": self.upper, "outer": self.outer, "inner": self.inner}


def _rounded(pixels: Iterable[float]) -> list[float | None]:
    return [round(value, 2) if math.isfinite(value) else None for value in pixels]


def bands_around(
    boxes: Float[Tensor, "n 4"],
    masses: tuple[float, ...],
    *,
    interval: Float[Tensor, "n 4 masses"],
    outward: Float[Tensor, "n masses 4"],
    inward: Float[Tensor, "n masses 4"],
) -> Bands:
    """Return the bands of boxes from how far their edges may lie off, in pixels.

    interval: to either side of each edge. outward, inward: of the four edges together, by which the box grows or
    shrinks.

    >>> import torch
    >>> box = torch.tensor([[10.0, 10.0, 30.0, 20.0]])
    >>> three = torch.full((1, 1, 4), 3.0)
    >>> bands = bands_around(box, (0.9,), interval=three.mT, outward=three, inward=2 * three)
    >>> [found.tolist() for found in bands.boxes(0.9)]
    [[[7.0, 7.0, 33.0, 23.0]], [[16.0, 16.0, 24.0, 14.0]]]
    """
    sign = boxes.new_tensor([-1.0, -1.0, 1.0, 1.0])
    centre = boxes[..., None]
    return Bands(
        masses,
        lower=centre - interval,
        upper=centre + interval,
        outer=(boxes[:, None] + sign * outward).mT,
        inner=(boxes[:, None] - sign * inward).mT,
    )
