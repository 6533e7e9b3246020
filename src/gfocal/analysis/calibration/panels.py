"""The plots of a calibration report as plain numbers, which the page and the picture files both draw."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gfocal.analysis.calibration.edge_metrics import EDGES, GRID, EdgeScores
from gfocal.analysis.calibration.report import STAGES, CalibrationReport

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    """One plot: lines by name, and what the axes tell.

    name: of its file. ideal: whether both axes run from 0 to 1 and the diagonal is what should be; else both start at
    0 and the diagonal is drawn where the values reach. note: how to read it.
    """

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, Points]
    note: str
    unit: bool = True


def panels_of(report: CalibrationReport) -> Iterator[Panel]:
    """Yield the plots of a report; those that it has nothing for are left out.

    >>> from gfocal.analysis.calibration import calibration_report
    >>> from gfocal.analysis.calibration.synthetic import synthetic_matches
    >>> report = calibration_report(synthetic_matches(300), synthetic_matches(300), ("thing",), pictures=(50, 50))
    >>> [panel.name for panel in panels_of(report)]
    ['pit', 'pit_edges', 'coverage', 'scores']
    """
    stages = {STAGES["before"]: report.before, STAGES["tempered"]: report.tempered}
    known = {name: scores for name, scores in stages.items() if scores is not None}
    if known:
        yield Panel(
            "pit",
            "Edges: annotations below each quantile",
            "share predicted to lie further in",
            "share found there",
            {name: _curve(np.mean(scores.pit, axis=0)) for name, scores in known.items()},
            "Steeper than grey in the middle: distributions are too wide. Flatter: too narrow.",
        )
    if report.before is not None:
        yield Panel(
            "pit_edges",
            "The same of each edge, uncalibrated",
            "share predicted to lie further in",
            "share found there",
            dict(zip(EDGES, map(_curve, report.before.pit), strict=True)),
            "Above grey: edges are put too far out. Below: too far in.",
        )
    yield Panel(
        "coverage",
        "Intervals of edges; outer and inner boxes",
        "probability promised",
        "share that holds",
        dict(_coverages(report, known)),
        "Below grey: holds less often than it promises. Above: wider than it has to be.",
    )
    if report.scores.bins:
        yield Panel(
            "scores",
            "Scores of all detections",
            "mean score",
            f"share correct at IoU {report.iou:g}",
            {"detections": tuple((row.score, row.precision) for row in report.scores.bins)},
            "Below grey: scores promise more than comes true.",
        )
    if report.softness is not None:
        rows = report.softness.buckets
        lines = {
            "size of the error, mean": tuple((row.truth, row.error) for row in rows),
            "predicted": tuple((row.truth, row.std) for row in rows if not math.isnan(row.std)),
        }
        yield Panel(
            "softness",
            "Spread of edges by their true softness",
            "true, pixels",
            "pixels",
            {name: line for name, line in lines.items() if line},
            "Each point stands for the edges of one range of softness.",
            unit=False,
        )


def _curve(reached: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | tuple[float, ...]) -> Points:
    return ((0.0, 0.0), *zip(GRID.tolist(), (float(value) for value in reached), strict=True), (1.0, 1.0))


def _coverages(report: CalibrationReport, known: dict[str, EdgeScores]) -> Iterator[tuple[str, Points]]:
    for name, scores in known.items():
        yield name, tuple((row.mass, row.coverage) for row in scores.intervals)
    yield STAGES["conformal"], tuple((row.mass, row.coverage) for row in report.conformal)
    yield "outer box", tuple((row.mass, row.outer) for row in report.boxes)
    yield "inner box", tuple((row.mass, row.inner) for row in report.boxes)
