"""A calibration report as one HTML page that needs nothing else: its figures, and plots as inline SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from gfocal.analysis.calibration.edge_metrics import EdgeScores
from gfocal.analysis.calibration.panels import Panel, panels_of
from gfocal.analysis.calibration.report import MAIN, CalibrationReport
from gfocal.analysis.doctor.charts import COLOURS
from gfocal.files import whole_or_absent

SIDE, LEFT, BOTTOM, TOP, RIGHT = 250, 46, 40, 8, 22
"""Units of a plot, about the pixels of a phone: of its square, and of the room beside it."""

DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 4")
"""Told apart without any colour; one a line."""


def write_page(path: Path, report: CalibrationReport) -> None:
    """Write a report as one HTML file: no network, no script. The file appears complete or not at all.

    Raises UserError where it cannot be written.
    """
    page = Template(_part("gfocal.analysis.calibration", "page.html")).substitute(
        title=escape(f"{report.source} on {report.data}"),
        style=_part("gfocal.analysis.doctor", "page.css") + _part("gfocal.analysis.calibration", "page.css"),
        summary="".join(_figure(*row) for row in _summary(report)),
        charts="".join(map(_chart, panels_of(report))),
        text=escape(report.text()),
    )
    with whole_or_absent(path) as scratch:
        scratch.write_bytes(page.encode("utf-8", errors="replace"))  # names of files may hold what UTF-8 cannot


def _part(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _summary(report: CalibrationReport) -> Iterator[tuple[str, str, str]]:
    place = report.calibration.masses.index(MAIN)
    conformal, boxes = report.conformal[place], report.boxes[place]
    yield "pictures", f"{report.test.pictures:,}", f"{report.fit.pictures:,} others fitted on"
    for name, scores in (("uncalibrated", report.before), ("temperature", report.tempered)):
        if scores is not None:
            yield f"90 % of edges, {name}", _percent(scores.intervals[place].coverage), _error(scores)
    yield "90 % of edges, conformal", _percent(conformal.coverage), f"{conformal.width:.1f} px wide"
    yield "90 % outer box", _percent(boxes.outer), f"area × {boxes.outer_area:.2f}"
    yield "90 % inner box", _percent(boxes.inner), f"area × {boxes.inner_area:.2f}"
    yield "D-ECE of scores", _percent(report.scores.d_ece), f"LaECE {_percent(report.scores.la_ece)}"


def _error(scores: EdgeScores) -> str:
    return f"error {100 * scores.error:.1f} %, CRPS {scores.crps:.2f} px"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _figure(name: str, value: str, note: str) -> str:
    return f'<div class="figure"><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd>{escape(note)}</dd></div>'


def _chart(panel: Panel) -> str:
    """Return a plot as SVG with a key below."""
    largest = 1.0 if panel.unit else max(max(point) for line in panel.lines.values() for point in line) * 1.05
    lines = "".join(_line(place, name, line, largest) for place, (name, line) in enumerate(panel.lines.items()))
    key = "".join(
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><path class="line series-{place % COLOURS}" '
        f'stroke-dasharray="{DASHES[place % len(DASHES)]}" d="M1,5H25"/></svg>{escape(name)}</li>'
        for place, name in enumerate(panel.lines)
    )
    return (
        f'<figure class="chart"><figcaption>{escape(panel.title)}</figcaption>'
        f'<svg viewBox="0 0 {LEFT + SIDE + RIGHT} {TOP + SIDE + BOTTOM}" role="img" aria-label="{escape(panel.title)}">'
        f'{"".join(_axes(panel, largest))}<path class="ideal" d="M{LEFT},{TOP + SIDE}L{LEFT + SIDE},{TOP}"/>{lines}'
        f'</svg><ul class="key">{key}</ul><p class="quiet">{escape(panel.note)}</p></figure>'
    )


def _axes(panel: Panel, largest: float) -> Iterator[str]:
    for step in range(5):
        share = step / 4
        told = f"{100 * share:g} %" if panel.unit else f"{share * largest:.1f}"
        x, y = LEFT + share * SIDE, TOP + (1 - share) * SIDE
        yield f'<path class="grid" d="M{x:g},{TOP}v{SIDE}M{LEFT},{y:g}h{SIDE}"/>'
        yield f'<text x="{LEFT - 5}" y="{y + 4:g}" text-anchor="end">{told}</text>'
        yield f'<text x="{x:g}" y="{TOP + SIDE + 15}" text-anchor="middle">{told}</text>' if step else ""
    middle = LEFT + SIDE / 2
    yield f'<text x="{middle:g}" y="{TOP + SIDE + 33}" text-anchor="middle">{escape(panel.x)}</text>'
    yield (
        f'<text transform="translate({LEFT + 12},{TOP + SIDE / 2:g}) rotate(-90)" text-anchor="middle">'
        f"{escape(panel.y)}</text>"
    )


def _line(place: int, name: str, points: Sequence[tuple[float, float]], largest: float) -> str:
    at = [(LEFT + SIDE * x / largest, TOP + SIDE * (1 - y / largest)) for x, y in points]
    path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in at)
    dots = "".join(
        f'<circle class="series-{place % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(name)}: '
        f"{value[0]:.3g}, {value[1]:.3g}</title></circle>"
        for (x, y), value in zip(at, points, strict=True)
    )
    kind = f'class="line series-{place % COLOURS}" stroke-dasharray="{DASHES[place % len(DASHES)]}"'
    return f'<path {kind} d="{path}"/>{dots if len(points) < 20 else ""}'
