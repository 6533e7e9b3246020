"""The plots of a calibration report as picture files, each with its numbers beside it."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.ticker import PercentFormatter

from gfocal.analysis.calibration.panels import Panel, panels_of
from gfocal.analysis.calibration.report import CalibrationReport
from gfocal.analysis.figures.base import Drawing
from gfocal.analysis.figures.plotting import DASHES, GREY, LINES, STYLE, sheet_of, write


def write_plots(folder: Path, report: CalibrationReport) -> list[Path]:
    """Write each plot of a report as PNG and its numbers as CSV into a folder; return the pictures."""
    written: list[Path] = []
    with mpl.rc_context(STYLE):
        for panel in panels_of(report):
            png = folder / f"{panel.name}.png"
            write(_drawing(panel), png=png, table=png.with_suffix(".csv"))
            written.append(png)
    return written


def _drawing(panel: Panel) -> Drawing:
    sheet, (axes,) = sheet_of(1, 1, width=4.6, height=4.2)
    largest = 1.0 if panel.unit else max(max(point) for line in panel.lines.values() for point in line) * 1.05
    axes.plot([0, largest], [0, largest], color=GREY, linewidth=1, zorder=1)
    for place, (name, line) in enumerate(panel.lines.items()):
        x, y = zip(*line, strict=True)
        colour, dashes = LINES[place % len(LINES)], DASHES[place % len(DASHES)]
        marker = "o" if len(line) < 20 else None
        axes.plot(x, y, label=name, marker=marker, markersize=3.5, color=colour, linestyle=dashes)
    axes.set_xlim(0, largest)
    axes.set_ylim(0, largest)
    if panel.unit:
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.legend(loc="upper left")
    rows = [(name, x, y) for name, line in panel.lines.items() for x, y in line]
    return Drawing(sheet, ("line", "x", "y"), rows)
