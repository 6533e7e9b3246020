"""Whole boxes: how often outer and inner boxes hold, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.analysis.calibration.fitting import outward_error
from gfocal.bands import Bands
from gfocal.structures import EdgeDistributions


@dataclass(frozen=True)
class BoxCoverage:
    """How often boxes that promise a probability hold with all four edges.

    mass: what is promised, 0..1. outer: share of true boxes that lie whole within their outer box; inner: that hold
    their inner box whole; both: at once. outer_area, inner_area: median of their area over that of the box found.
    """

    mass: float
    outer: float
    inner: float
    both: float
    outer_area: float
    inner_area: float


def box_coverage(bands: Bands, found: Float[Tensor, "m 4"], truths: Float[Tensor, "m 4"]) -> tuple[BoxCoverage, ...]:
    """Return how often the outer and inner boxes of bands hold, for each of their probabilities.

    All four edges must lie on the right side, those of an inner box of which nothing is left as well.

    >>> box = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    >>> bands = Bands((0.9,), *(t[..., None] for t in (box, box, box + torch.tensor([-5.0, -5.0, 5.0, 5.0]), box)))
    >>> held = box_coverage(bands, box, truths=box + torch.tensor([0.0, 0.0, 2.0, -1.0]))[0]
    >>> held.outer, held.inner, held.outer_area
    (1.0, 0.0, 2.25)
    """
    return tuple(_coverage(mass, *bands.boxes(mass), found, truths) for mass in bands.masses)


def box_coverage_of_quantiles(
    edges: EdgeDistributions, truths: Float[Tensor, "m 4"], *, masses: Sequence[float]
) -> tuple[BoxCoverage, ...]:
    """Return the same for boxes made of each edge's own quantiles: what reading the distributions one by one gives.

    The outer box has its edges where a share `mass` of each lies inside of it, the inner one where that share lies
    outside.

    >>> from gfocal.analysis.calibration.synthetic import synthetic_matches
    >>> matched = synthetic_matches(4000)
    >>> held = box_coverage_of_quantiles(matched.edges, matched.truths, masses=(0.9,))[0]
    >>> abs(held.outer - 0.9**4) < 0.02  # the four edges are independent here
    True
    """
    rows: list[BoxCoverage] = []
    for mass in masses:
        low, high = edges.quantile(1 - mass), edges.quantile(mass)
        outer = torch.cat([low[:, :2], high[:, 2:]], dim=-1)
        inner = torch.cat([high[:, :2], low[:, 2:]], dim=-1)
        rows.append(_coverage(mass, outer, inner, edges.mean, truths))
    return tuple(rows)


def _coverage(
    mass: float,
    outer: Float[Tensor, "m 4"],
    inner: Float[Tensor, "m 4"],
    found: Float[Tensor, "m 4"],
    truths: Float[Tensor, "m 4"],
) -> BoxCoverage:
    within = (outward_error(outer, truths) <= 0).all(-1)
    around = (outward_error(inner, truths) >= 0).all(-1)
    area = _area(found).clamp(min=1)
    return BoxCoverage(
        mass,
        outer=float(within.double().mean()),
        inner=float(around.double().mean()),
        both=float((within & around).double().mean()),
        outer_area=float((_area(outer) / area).median()),
        inner_area=float((_area(inner) / area).median()),
    )


def _area(boxes: Float[Tensor, "m 4"]) -> Float[Tensor, " m"]:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)
