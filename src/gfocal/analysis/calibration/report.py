"""What `gfocal calibrate` reports, as plain values and as text for a person."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gfocal.analysis.calibration.box_metrics import BoxCoverage
from gfocal.analysis.calibration.classification import ScoreReliability
from gfocal.analysis.calibration.edge_metrics import Coverage, EdgeScores
from gfocal.analysis.calibration.softness import SoftnessReport
from gfocal.calibration import Calibration, Spread

MAIN = 0.9
"""Probability that what has room for one is told of."""

STAGES = {"before": "uncalibrated", "tempered": "temperature", "conformal": "conformal"}


@dataclass(frozen=True)
class Part:
    """One part of the pictures, and how many boxes of these were matched."""

    pictures: int
    boxes: int


@dataclass(frozen=True)
class Alternative:
    """Conformal bands of `MAIN` if errors were measured otherwise: coverage, mean width in pixels and of the side."""

    spread: Spread
    coverage: float
    width: float
    relative: float


@dataclass(frozen=True)
class ClassCoverage:
    """Conformal intervals of `MAIN` in one class: boxes fitted and reported on, whether it has bands of its own.

    coverage: share of its edges held, NaN where it was not reported on.
    """

    name: str
    fitted: int
    boxes: int
    own: bool
    coverage: float


@dataclass(frozen=True)
class Repeated:
    """Coverage over several random splits of the pictures: mean and standard deviation, a value a mass.

    stage: before, tempered and conformal are of edges, outer and inner of whole boxes.
    """

    stage: str
    means: tuple[float, ...]
    deviations: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationReport:
    """How well distributions, bands and scores hold on pictures that the calibration was not fitted on.

    source, data: how model and data were named. fit, test: pictures fitted and reported on. iou, same_class: how
    detections were matched with annotations. before, tempered: of the distributions as they come and at their
    temperatures, None where there are none. conformal: of the bands of edges. boxes, boxes_before: of whole boxes,
    conformal, and made of each edge's own quantiles. alternatives: other measures of the error. classes: coverage of
    each. scores: of all detections of the test pictures. softness: None where it is unknown. repeated: over `splits`
    random splits, empty for one. calibration: what was fitted.
    """

    source: str
    data: str
    fit: Part
    test: Part
    iou: float
    same_class: bool
    before: EdgeScores | None
    tempered: EdgeScores | None
    conformal: tuple[Coverage, ...]
    boxes_before: tuple[BoxCoverage, ...]
    boxes: tuple[BoxCoverage, ...]
    alternatives: tuple[Alternative, ...]
    classes: tuple[ClassCoverage, ...]
    scores: ScoreReliability
    softness: SoftnessReport | None
    repeated: tuple[Repeated, ...]
    splits: int
    calibration: Calibration

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not finite becomes None."""
        values = asdict(self) | {"calibration": self.calibration.to_dict()}
        return _plain(values)

    def text(self) -> str:
        """Return the report in lines."""
        parts = (_head(self), _edges(self), _boxes(self), _alternatives(self), _classes(self), _scores(self),
                 _softness(self), _repeated(self))  # fmt: skip
        return "\n\n".join("\n".join(lines) for lines in map(list, parts) if lines)


def _head(report: CalibrationReport) -> Iterator[str]:
    rule = "of its class" if report.same_class else "of any class"
    yield f"{report.source} on {report.data}"
    yield f"  fitted on    {report.fit.pictures:,} pictures with {report.fit.boxes:,} matched boxes"
    yield f"  reported on  {report.test.pictures:,} pictures with {report.test.boxes:,} matched boxes"
    yield f"  a box is matched by the best free annotation {rule} with IoU {report.iou:g} or more"


def _edges(report: CalibrationReport) -> Iterator[str]:
    masses = [row.mass for row in report.conformal]
    yield f"{'coverage of edges':<20}{_percents(masses, '7.0f')}   width of {100 * _main(masses):g} %"
    for scores, name in ((report.before, STAGES["before"]), (report.tempered, STAGES["tempered"])):
        if scores is not None:
            yield _edges_row(name, scores.intervals)
    yield _edges_row(STAGES["conformal"], report.conformal)
    if report.before is None or report.tempered is None:
        yield "  the boxes have no distributions, and no spread of their own: there are only the conformal bands"
        return
    yield ""
    yield f"{'distributions':<20}{'CRPS':>10}{'NLL':>8}{'error':>8}{'outside':>10}   rank correlation with |error|"
    for scores, name in ((report.before, STAGES["before"]), (report.tempered, STAGES["tempered"])):
        yield (
            f"  {name:<18}{scores.crps:>7.2f} px{scores.likelihood:>8.3f}{scores.error:>8.3f}"
            f"{100 * scores.outside:>8.1f} %{scores.error_correlation:>9.2f}"
        )


def _edges_row(name: str, rows: Sequence[Coverage]) -> str:
    main = rows[[row.mass for row in rows].index(_main([row.mass for row in rows]))]
    shares = _percents([row.coverage for row in rows], "7.1f")
    return f"  {name:<18}{shares}   {main.width:.1f} px, {100 * main.relative:.1f} % of the side"


def _boxes(report: CalibrationReport) -> Iterator[str]:
    masses = [row.mass for row in report.boxes]
    place = masses.index(_main(masses))
    yield f"{'coverage of boxes':<20}{_percents(masses, '7.0f')}   median area of {100 * masses[place]:g} %, of the box"
    for name, rows in (("quantiles", report.boxes_before), ("conformal", report.boxes)):
        for side in ("outer", "inner"):
            if rows:
                shares = _percents([getattr(row, side) for row in rows], "7.1f")
                yield f"  {side + ', ' + name:<18}{shares}   {getattr(rows[place], side + '_area'):.2f}"


def _alternatives(report: CalibrationReport) -> Iterator[str]:
    yield f"conformal bands of {100 * MAIN:g} % with errors measured by"
    for row in report.alternatives:
        name = {"predicted": "predicted spread", "side": "side of the box", "constant": "pixels"}[row.spread]
        yield (
            f"  {name:<18}{100 * row.coverage:7.1f} %   width {row.width:.1f} px, "
            f"{100 * row.relative:.1f} % of the side"
        )


def _classes(report: CalibrationReport) -> Iterator[str]:
    own = [row for row in report.classes if row.own]
    rest = len(report.classes) - len(own)
    if not own:
        yield f"bands are of all {rest} classes together: none has enough boxes for its own"
        return
    yield f"{len(own)} classes have bands of their own, {rest} share one: coverage of edges at {100 * MAIN:g} %"
    width = max(len(row.name) for row in own)
    for row in own:
        told = f"({row.fitted:,} boxes fitted, {row.boxes:,} reported)"
        yield f"  {row.name:<{width}}  {100 * row.coverage:5.1f} %  {told}"


def _scores(report: CalibrationReport) -> Iterator[str]:
    scores = report.scores
    yield (
        f"scores of {scores.detections:,} detections: D-ECE {100 * scores.d_ece:.1f} %, "
        f"LaECE {100 * scores.la_ece:.1f} % (at IoU {report.iou:g})"
    )


def _softness(report: CalibrationReport) -> Iterator[str]:
    softness = report.softness
    if softness is None:
        return
    yield (
        f"rank correlation with true softness: predicted std {_known(softness.before, '.2f')} uncalibrated, "
        f"{_known(softness.after, '.2f')} at its temperature; size of the error {_known(softness.error, '.2f')}"
    )
    yield (
        f"  {'softness':<14}{'edges':>7}{'true std':>11}{'predicted':>11}{'|error|':>10}"
        f"{'90 % before':>13}{'after':>9}{'width':>11}"
    )
    for row in softness.buckets:
        span = f"{row.low:g} px and more" if math.isinf(row.high) else f"{row.low:g} to {row.high:g} px"
        yield (
            f"  {span:<14}{row.count:>7,}{row.truth:>8.2f} px{_known(row.std, '.2f', ' px'):>11}{row.error:>7.2f} px"
            f"{_known(100 * row.before, '.1f', ' %'):>13}{100 * row.after:>7.1f} %{row.width:>8.1f} px"
        )


def _known(value: float, form: str, unit: str = "") -> str:
    return "–" if math.isnan(value) else f"{value:{form}}{unit}"


def _repeated(report: CalibrationReport) -> Iterator[str]:
    if not report.repeated:
        return
    masses = [row.mass for row in report.conformal]
    yield f"{f'over {report.splits} splits':<20}{'  '.join(f'{100 * mass:9.0f} %' for mass in masses)}"
    for row in report.repeated:
        name = STAGES.get(row.stage, f"{row.stage} box")
        shares = (f"{100 * mean:5.1f} ± {100 * std:3.1f}" for mean, std in zip(row.means, row.deviations, strict=True))
        yield f"  {name:<18}{'  '.join(f'{share:>11}' for share in shares)}"


def _main(masses: Sequence[float]) -> float:
    """Return the probability nearest to `MAIN`."""
    return min(masses, key=lambda mass: abs(mass - MAIN))


def _percents(values: Sequence[float], form: str) -> str:
    return "".join(f"{100 * value:{form}} %" for value in values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
