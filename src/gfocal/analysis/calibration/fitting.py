"""Fitting a calibration to matched boxes: temperatures by likelihood, error bands by split conformal prediction."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gfocal.analysis.matching import MatchedEdges
from gfocal.calibration import MASSES, Calibration, Rows, Spread, spread_of, temperatures_of, tempered
from gfocal.structures import EdgeDistributions

LEAST_OF_LEVEL = 50
"""Boxes of a pyramid level from where on it has temperatures of its own."""

LEAST_OF_CLASS = 100
"""Boxes of a class from where on it has quantiles of its own: bands of 90 % fitted on 100 boxes cover, from one draw of
these boxes to the next, 90 ± 3 % (one standard deviation, of Beta(91, 10)), and the pooled ones are as good below."""

OUTLIERS = 0.01
"""Share of edges that the likelihood takes to lie anywhere among the bins: boxes matched with another object, or labels
that are wrong. Without it a few of them, far out in a sharp distribution, would decide on the temperature of all."""

_HOTTEST = 20.0
_STEPS = 30


def fit_calibration(
    matched: MatchedEdges,
    class_names: tuple[str, ...],
    *,
    masses: tuple[float, ...] = MASSES,
    spread: Spread | None = None,
    least: int = LEAST_OF_CLASS,
    iou: float = 0.5,
    temperatures: Rows | None = None,
) -> Calibration:
    """Return the calibration that fits matched boxes, the error bands measured at the fitted temperatures.

    masses: probabilities of the bands. spread: what errors are measured by, None for "predicted" where the boxes have
    distributions and "constant" where they have none. least: boxes of a class from where on it has bands of its own;
    the other classes share those of their boxes together, or where these are too few as well, of all boxes. iou: which
    the boxes were matched at, told to whoever reads the calibration. temperatures: take these instead of fitting them.
    ValueError where no box is matched.

    >>> from gfocal.analysis.calibration.synthetic import synthetic_matches
    >>> fitted = fit_calibration(synthetic_matches(2000, temperature=2.0), ("thing",))
    >>> all(1.5 < value < 2.7 for value in fitted.temperatures[-1])
    True
    """
    if not len(matched):
        raise ValueError("no box is matched, and there is nothing to fit a calibration to")
    edges = matched.edges
    if edges is None:
        temperatures = ()
    else:
        temperatures = temperatures or fit_temperatures(edges, matched.truths, matched.levels)
        edges = tempered(edges, temperatures_of(temperatures, matched.levels).to(edges.probabilities))
    kind: Spread = spread or ("constant" if edges is None else "predicted")
    scale = spread_of(kind, matched.boxes, edges)
    groups, pools = class_groups(matched.labels, len(class_names), least=least)
    outward = outward_error(matched.boxes, matched.truths) / scale
    rows = [_quantiles(outward[pool], masses) for pool in pools]
    return Calibration(
        temperatures=temperatures,
        masses=masses,
        spread=kind,
        groups=groups,
        intervals=tuple(row[0] for row in rows),
        outward=tuple(row[1] for row in rows),
        inward=tuple(row[2] for row in rows),
        class_names=class_names,
        boxes=len(matched),
        iou=iou,
    )


def fit_temperatures(
    edges: EdgeDistributions,
    truths: Float[Tensor, "m 4"],
    levels: Int[Tensor, " m"],
    *,
    least: int = LEAST_OF_LEVEL,
) -> Rows:
    """Return the temperature of each level and edge of the highest likelihood, and in the last row of all levels.

    The likelihood is that of the cell an annotation lies in, `OUTLIERS` allowed for. One beyond the cells counts as in
    the nearest: there the network was taught to put what its bins do not reach. levels: (m,) pyramid level, -1 where
    unknown. least: boxes of a level from where on it has its own; below, it gets the last row. Temperatures lie in 1/20
    to 20.

    >>> from gfocal.analysis.calibration.synthetic import synthetic_matches
    >>> matched = synthetic_matches(3000, temperature=0.5)
    >>> rows = fit_temperatures(matched.edges, matched.truths, matched.levels)
    >>> len(rows), [round(value, 1) for value in rows[-1]]
    (1, [0.5, 0.5, 0.5, 0.5])
    """
    cell, _ = edges.cells(truths.double())
    tiny = torch.finfo(torch.float32).tiny
    logits = edges.probabilities.double().clamp(min=tiny).log()
    highest = int(levels.max()) if len(levels) else -1
    known = [levels == level for level in range(highest + 1)]
    pooled = _temperature(logits, cell)
    rows = [pooled if int(own.sum()) < least else _temperature(logits[own], cell[own]) for own in known]
    return tuple(tuple(row.tolist()) for row in (*rows, pooled))


def _temperature(logits: Float[Tensor, "m 4 bins"], cell: Int[Tensor, "m 4"]) -> Float[Tensor, " 4"]:
    """Return the temperature of each edge: the best of an even grid of logarithms, then of a finer one around it."""
    reach = math.log(_HOTTEST)
    best, step = torch.zeros(4, dtype=logits.dtype), reach / _STEPS
    for _ in range(2):
        tried = [best + step * place for place in range(-_STEPS, _STEPS + 1)]
        losses = torch.stack([_loss(logits / value.exp()[:, None], cell) for value in tried])
        chosen = losses.argmin(dim=0, keepdim=True)
        best = torch.stack(tried).gather(0, chosen)[0].clamp(-reach, reach)
        step = step / _STEPS
    return best.exp()


def _loss(logits: Float[Tensor, "m 4 bins"], cell: Int[Tensor, "m 4"]) -> Float[Tensor, " 4"]:
    mass = logits.softmax(-1).gather(-1, cell[..., None])[..., 0]
    return -with_outliers(mass, logits.shape[-1]).log().mean(0)


def with_outliers(mass: Float[Tensor, "*n"], bins: int) -> Float[Tensor, "*n"]:
    """Return the mass of a cell where a share `OUTLIERS` of the edges lies anywhere among so many cells.

    >>> round(with_outliers(torch.tensor(0.0), 10).item(), 6)
    0.001
    """
    return (1 - OUTLIERS) * mass + OUTLIERS / bins


def outward_error(boxes: Float[Tensor, "m 4"], truths: Float[Tensor, "m 4"]) -> Float[Tensor, "m 4"]:
    """Return by how many pixels each true edge lies outside of the box that was found, below 0 for inside.

    >>> outward_error(torch.tensor([[10.0, 10.0, 20.0, 20.0]]), torch.tensor([[9.0, 11.0, 21.0, 20.0]])).tolist()
    [[1.0, -1.0, 1.0, 0.0]]
    """
    return (truths - boxes) * boxes.new_tensor([-1.0, -1.0, 1.0, 1.0])


def class_groups(
    labels: Int[Tensor, " m"], count: int, *, least: int
) -> tuple[tuple[int, ...], list[Int[Tensor, " k"] | slice]]:
    """Return which pool of boxes each of `count` classes belongs to, and the rows of each pool.

    Classes with `least` boxes or more have one each; the first pool is of all others, or of all boxes where these are
    fewer than `least`.

    >>> class_groups(torch.tensor([0, 0, 0, 1, 2]), 3, least=2)
    ((1, 0, 0), [tensor([3, 4]), tensor([0, 1, 2])])
    """
    counts = torch.bincount(labels, minlength=count)
    large = [label for label in range(count) if int(counts[label]) >= least]
    rest = (~torch.isin(labels, torch.tensor(large, dtype=labels.dtype))).nonzero()[:, 0]
    first = rest if len(rest) >= least else slice(None)
    places = {label: place for place, label in enumerate(large, start=1)}
    pools = [first, *((labels == label).nonzero()[:, 0] for label in large)]
    return tuple(places.get(label, 0) for label in range(count)), pools


def conformal_quantile(errors: npt.NDArray[np.floating], mass: float) -> float:
    """Return the value that a new error stays at or below with probability `mass`, whatever its distribution.

    It is the ceil((n + 1) · mass)-th smallest of n errors; infinite where n is too small for that rank. The promise
    holds for an error exchangeable with these, averaged over draws of them (Vovk et al. 2005, Papadopoulos et al.
    2002).

    >>> conformal_quantile(np.arange(1.0, 100.0), 0.9), conformal_quantile(np.arange(5.0), 0.9)
    (90.0, inf)
    """
    # a hair is taken off, because 100 * 0.9 may come out above 90
    rank = math.ceil((len(errors) + 1) * mass - 1e-9)
    return math.inf if rank > len(errors) else float(np.partition(errors, rank - 1)[rank - 1])


def _quantiles(
    outward: Float[Tensor, "m 4"], masses: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Return intervals (by mass, then edge), outward and inward quantiles of errors in units of the spread."""
    errors = outward.double().numpy()
    largest, smallest = errors.max(axis=1), (-errors).max(axis=1)
    return (
        tuple(conformal_quantile(np.abs(errors[:, edge]), mass) for mass in masses for edge in range(4)),
        tuple(conformal_quantile(largest, mass) for mass in masses),
        tuple(conformal_quantile(smallest, mass) for mass in masses),
    )
