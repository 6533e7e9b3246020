"""Predicted against true uncertainty, where the data tells over how many pixels each edge fades."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gfocal.analysis.calibration.edge_metrics import spearman
from gfocal.analysis.matching import MatchedEdges
from gfocal.bands import Bands
from gfocal.structures import EdgeDistributions

BUCKETS = (1.0, 2.0, 4.0, 8.0, math.inf)
"""Ends of the buckets in pixels of softness: crisp, then up to 4, up to 8, and more."""


@dataclass(frozen=True)
class SoftnessBucket:
    """The edges whose true softness lies in low..high pixels, high excluded.

    truth: mean of their true standard deviation, softness / √12; std: of the predicted one, NaN without distributions;
    error: mean distance of the found edge from the annotated one, all in pixels. before: coverage of the 90 % interval
    of the uncalibrated distribution, NaN without one; after: of the calibrated band of 90 %; width: of the latter.
    """

    low: float
    high: float
    count: int
    truth: float
    std: float
    error: float
    before: float
    after: float
    width: float


@dataclass(frozen=True)
class SoftnessReport:
    """How predicted spread follows true softness.

    before: Spearman's rank correlation of predicted standard deviation and softness over all edges, uncalibrated;
    after: at the calibrated temperatures; both NaN without distributions. error: of softness and the distance of
    the found edge from the annotated one. buckets: those that hold an edge.
    """

    before: float
    after: float
    error: float
    buckets: tuple[SoftnessBucket, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def softness_report(
    matched: MatchedEdges, bands: Bands, *, calibrated: EdgeDistributions | None, mass: float = 0.9
) -> SoftnessReport | None:
    """Return how the spread of matched boxes follows the softness of the true edges, or None where that is unknown.

    bands: of the same boxes; calibrated: their distributions at the calibrated temperatures, whose spread is taken.
    mass: of the intervals, one of the bands'.

    >>> from gfocal.analysis.calibration import fit_calibration
    >>> from gfocal.analysis.calibration.synthetic import synthetic_matches
    >>> matched = synthetic_matches(300)
    >>> bands = fit_calibration(matched, ("thing",)).bands(matched.boxes, matched.edges, matched.labels)
    >>> softness_report(matched, bands, calibrated=matched.edges) is None
    True
    """
    soft = matched.softness.double().numpy()
    if not len(soft) or np.isnan(soft).any():
        return None
    error = (matched.boxes - matched.truths).abs().double().numpy()
    nothing = np.full(soft.shape, np.nan)
    std = nothing if calibrated is None else calibrated.std.double().numpy()
    plain = nothing if matched.edges is None else matched.edges.std.double().numpy()
    before = nothing if matched.edges is None else _held(*matched.edges.interval(mass), matched.truths)
    lower, upper = bands.interval(mass)
    after, width = _held(lower, upper, matched.truths), (upper - lower).double().numpy()
    columns = (soft / math.sqrt(12), std, error, before, after, width)
    buckets: list[SoftnessBucket] = []
    for low, high in pairwise(BUCKETS):
        inside = (soft >= low) & (soft < high)
        if inside.any():
            means = (float(column[inside].mean()) for column in columns)
            buckets.append(SoftnessBucket(low, high, int(inside.sum()), *means))
    return SoftnessReport(
        before=spearman(plain.ravel(), soft.ravel()),
        after=spearman(std.ravel(), soft.ravel()),
        error=spearman(error.ravel(), soft.ravel()),
        buckets=tuple(buckets),
    )


def _held(lower: Tensor, upper: Tensor, truths: Tensor) -> npt.NDArray[np.float64]:
    return ((lower <= truths) & (truths <= upper)).double().numpy()
