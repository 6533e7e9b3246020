"""How well edge distributions and bands fit the annotations: coverage, sharpness, CRPS, likelihood, PIT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.analysis.calibration.fitting import with_outliers
from gfocal.structures import EdgeDistributions

Floats = npt.NDArray[np.float64]

GRID = np.arange(1, 20) / 20
"""Shares at which the PIT is compared with itself: 0.05, 0.10, ... 0.95."""

EDGES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Coverage:
    """How often intervals of one probability hold the annotated edge, and how wide they are.

    mass: what they promise, 0..1. coverage: share of edges held. edges: the same of left, top, right and bottom alone.
    width: mean in pixels; relative: mean of the width over the side of the true box across the edge. Both are infinite
    where an interval is.
    """

    mass: float
    coverage: float
    edges: tuple[float, ...]
    width: float
    relative: float


@dataclass(frozen=True)
class EdgeScores:
    """How well the distributions of many edges fit the annotations.

    intervals: coverage of the central intervals. crps: mean in pixels (`crps`). likelihood: mean negative log-density
    in nats a pixel (`negative_log_likelihood`), of the edges within the cells. error: edge calibration error
    (`calibration_error`), mean of the four edges. outside: share of annotations beyond the cells, which no interval can
    hold. pit: (4, 19) share of each edge's PIT at or below each value of `GRID`. error_correlation: Spearman's rank
    correlation of predicted spread and size of the error.
    """

    intervals: tuple[Coverage, ...]
    crps: float
    likelihood: float
    error: float
    outside: float
    pit: tuple[tuple[float, ...], ...]
    error_correlation: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def edge_scores(edges: EdgeDistributions, truths: Float[Tensor, "m 4"], *, masses: Sequence[float]) -> EdgeScores:
    """Return how well distributions fit the annotated edges; truths: (m, 4) xyxy pixels, at least one.

    >>> from gfocal.analysis.calibration.synthetic import synthetic_matches
    >>> matched = synthetic_matches(4000)
    >>> scores = edge_scores(matched.edges, matched.truths, masses=(0.5, 0.9))
    >>> [round(row.coverage, 1) for row in scores.intervals], scores.error < 0.02
    ([0.5, 0.9], True)
    """
    edges = EdgeDistributions(edges.probabilities.double(), edges.positions.double())
    truths = truths.double()
    _, inside = edges.cells(truths)
    ranks = outward_pit(edges, truths)
    error = (edges.mean - truths).abs()
    return EdgeScores(
        intervals=tuple(coverage(*edges.interval(mass), truths, mass=mass) for mass in masses),
        crps=float(crps(edges, truths).mean()),
        likelihood=float(negative_log_likelihood(edges, truths)[inside].mean()),
        error=calibration_error(ranks),
        outside=float((~inside).double().mean()),
        pit=tuple(tuple((ranks[:, edge, None] <= GRID).mean(axis=0).tolist()) for edge in range(4)),
        error_correlation=spearman(edges.variance.flatten().numpy(), error.flatten().numpy()),
    )


def coverage(
    lower: Float[Tensor, "m 4"], upper: Float[Tensor, "m 4"], truths: Float[Tensor, "m 4"], *, mass: float
) -> Coverage:
    """Return how often intervals, in pixels, hold the true edges, and how wide they are.

    >>> truth = torch.tensor([[10.0, 10.0, 20.0, 30.0]])
    >>> coverage(truth - 1, truth + torch.tensor([1.0, 1.0, 1.0, -0.5]), truth, mass=0.9).edges
    (1.0, 1.0, 1.0, 0.0)
    """
    held = ((lower <= truths) & (truths <= upper)).double()
    width = (upper - lower).double()
    sides = (truths[:, 2:] - truths[:, :2]).clamp(min=1).repeat(1, 2)
    return Coverage(
        mass, float(held.mean()), tuple(held.mean(0).tolist()), float(width.mean()), float((width / sides).mean())
    )


def outward_pit(edges: EdgeDistributions, truths: Float[Tensor, "m 4"]) -> Floats:
    """Return (m, 4) the probability integral transform: the mass of each edge that lies inside of the annotation.

    It runs from the inside of the box outwards, so that boxes found too small have large values on all four edges. It
    is even in 0..1 where the distributions are true (Dawid 1984), and 0 or 1 for annotations beyond the cells.

    >>> edges = EdgeDistributions(torch.tensor([0.25, 0.75]).expand(1, 4, 2), torch.tensor([0.0, 8.0]).expand(1, 4, 2))
    >>> outward_pit(edges, torch.tensor([[4.0, 8.0, 12.0, 99.0]])).tolist()
    [[0.25, 0.625, 1.0, 1.0]]
    """
    below = edges.cdf(truths)
    return torch.where(edges.step > 0, below, 1 - below).double().numpy()


def calibration_error(ranks: npt.ArrayLike) -> float:
    """Return the edge calibration error of PIT values (m, 4): 0 for true distributions, 0.5 at most.

    It is the mean, over the four edges and the shares p of `GRID`, of |share of PIT values at or below p - p| (the
    quantile calibration error of Kuleshov et al. 2018, without the square). With true distributions it is of the
    order 0.3 / sqrt(m), not 0.

    >>> calibration_error(np.full((10, 4), 0.5)) > 0.2
    True
    """
    ranks = np.asarray(ranks)
    reached = (ranks[..., None] <= GRID).mean(axis=0)
    return float(np.abs(reached - GRID).mean())


def negative_log_likelihood(edges: EdgeDistributions, truths: Float[Tensor, "m 4"]) -> Float[Tensor, "m 4"]:
    """Return the negative logarithm of the density, 1 / pixel, at each annotation.

    It allows for 1 % of outliers, evenly over the cells (`OUTLIERS`), as the fit of the temperatures does, so that one
    edge cannot make it infinite. An annotation beyond the cells, where the density is 0, gets that of the nearest cell;
    tell how many these are beside it, or leave them out.

    >>> edges = EdgeDistributions(torch.full((1, 4, 2), 0.5), torch.tensor([0.0, 8.0]).expand(1, 4, 2))
    >>> negative_log_likelihood(edges, torch.full((1, 4), 3.0)).exp()[0, 0].item()
    16.0
    """
    cell, _ = edges.cells(truths.double())
    mass = edges.probabilities.gather(-1, cell[..., None])[..., 0]
    return edges.step.abs().log() - with_outliers(mass, edges.positions.shape[-1]).log()


def crps(edges: EdgeDistributions, truths: Float[Tensor, "m 4"]) -> Float[Tensor, "m 4"]:
    """Return the continuous ranked probability score in pixels: ∫ (F(x) - [x ≥ truth])² dx, 0 for a sure hit.

    It is exact: within a cell F is a straight line, whose square's integral is known. Beyond the cells each pixel
    between them and the annotation counts 1. Of a single number instead of a distribution it is the absolute error.

    >>> edges = EdgeDistributions(torch.tensor([1.0, 0.0]).expand(1, 4, 2), torch.tensor([0.0, 12.0]).expand(1, 4, 2))
    >>> crps(edges, torch.tensor([[0.0, 6.0, 7.0, -6.0]])).round(decimals=3)
    tensor([[1., 4., 5., 4.]])
    """
    width = edges.step.abs()[..., None]
    # along the bins, in cells: the score does not change where an axis is turned round
    place = edges.places(truths)
    mass = edges.probabilities / edges.probabilities.sum(-1, keepdim=True)
    end = mass.cumsum(-1)
    start = end - mass
    bins = mass.shape[-1]
    before = (place[..., None] - torch.arange(bins, device=mass.device)).clamp(0, 1)  # share of each cell up to there
    split = start + before * mass
    inside = before * _square(start, split) + (1 - before) * _square(1 - split, 1 - end)
    beyond = (-place).clamp(min=0) + (place - bins).clamp(min=0)
    return (inside * width).sum(-1) + beyond * width[..., 0]


def _square(one: Float[Tensor, "*n"], other: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the mean square of a straight line between two values."""
    return (one.square() + one * other + other.square()) / 3


def spearman(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Return the rank correlation of two rows of values, -1..1, equal ones at their mean rank.

    NaN where one is constant or holds a NaN.

    >>> spearman([1, 2, 3, 4], [1, 8, 27, 26])
    0.8
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (one, other)]
    if len(columns[0]) < 2 or any(np.isnan(values).any() or np.ptp(values) == 0 for values in columns):
        return float("nan")
    first, second = (_ranks(values) for values in columns)
    return float(np.round(np.corrcoef(first, second)[0, 1], 12))


def _ranks(values: Floats) -> Floats:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place.reshape(-1)]
