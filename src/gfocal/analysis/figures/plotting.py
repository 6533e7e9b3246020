"""How figures look: one style, colours that every eye tells apart, and the few kinds of panels they share."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure as Sheet
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import StrMethodFormatter

from gfocal.analysis.figures.base import Cell, Drawing
from gfocal.draw.pictures import PALETTE
from gfocal.files import whole_or_absent

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

ORANGE, SKY, YELLOW, GREEN, VERMILION, PURPLE, BLUE = PALETTE
DARK, GREY = "#333333", "#8a8a8a"
LINES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""Told apart without any colour; one a line, in the order of `LINES`."""
DOTS_PER_INCH = 200


def sheet_of(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple[Sheet, list[Axes]]:
    """Return a sheet of panels, row by row. width, height: in inches. options: of `Figure.subplots`."""
    sheet = Sheet(figsize=(width, height), layout="constrained", dpi=DOTS_PER_INCH)
    FigureCanvasAgg(sheet)
    axes = sheet.subplots(rows, columns, squeeze=False, **options)
    return sheet, cast("list[Axes]", list(axes.flat))


def write(drawing: Drawing, *, png: Path, table: Path) -> None:
    """Write the picture and the numbers, each whole or not at all; UserError where that cannot be done."""
    with whole_or_absent(table) as scratch, scratch.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(drawing.head)
        writer.writerows([_text(cell) for cell in row] for row in drawing.rows)
    with whole_or_absent(png) as scratch:
        drawing.sheet.savefig(scratch, format="png", metadata={"Software": "gfocal"})


def _text(cell: Cell) -> str:
    return f"{cell:.7g}" if isinstance(cell, float) else str(cell)


def density(
    axes: Axes, x: npt.ArrayLike, y: npt.ArrayLike, *, colour: str, extent: tuple[float, float, float, float]
) -> None:
    """Draw how many points fall where, as hexagons whose shade is the logarithm of their number.

    extent: lowest and highest x, then y.
    """
    shades = LinearSegmentedColormap.from_list("shades", ["#e4e4e4", colour, DARK])
    cells = axes.hexbin(
        np.asarray(x), np.asarray(y), gridsize=45, extent=extent, mincnt=1, cmap=shades, linewidths=0.1, norm=LogNorm()
    )
    bar = axes.figure.colorbar(cells, ax=axes, pad=0.01, aspect=30)
    bar.set_label("positive locations in a cell")
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    bar.outline.set_visible(False)  # type: ignore[operator]  typed as the artist's callable
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])


def means_of_bins(
    x: npt.NDArray[np.floating[Any]], y: npt.NDArray[np.floating[Any]], *, low: float, high: float, bins: int = 20
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the middles of even bins of x, and the mean y in each that holds 10 points or more."""
    edges = np.linspace(low, high, bins + 1)
    place = np.clip(np.digitize(x, edges) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, weights=y, minlength=bins)
    kept = counts >= 10
    return (edges[:-1] + edges[1:])[kept] / 2, sums[kept] / counts[kept]


def show_picture(axes: Axes, picture: npt.NDArray[np.uint8], *, window: tuple[float, ...] | None = None) -> None:
    """Draw a picture, or the window (xyxy pixels) of it, without ticks."""
    height, width = picture.shape[:2]
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="bilinear")
    left, top, right, bottom = window or (0, 0, width, height)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def draw_box(axes: Axes, box: Sequence[float], *, colour: str, width: float = 1.6) -> None:
    """Draw a box, xyxy pixels, with a dark casing that keeps it visible on any ground."""
    left, top, right, bottom = box
    patch = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=width)
    patch.set_path_effects([withStroke(linewidth=width + 1.4, foreground="#141414")])
    axes.add_patch(patch)


def around(box: Sequence[float], size: tuple[int, int], *, margin: float = 0.3) -> tuple[float, ...]:
    """Return a square window (xyxy) around a box with a margin in sides of it, moved into a picture of (h, w)."""
    side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * margin)
    side = min(max(side, 32.0), float(min(size)))
    low: list[float] = []
    for start, stop, limit in ((box[0], box[2], size[1]), (box[1], box[3], size[0])):
        low.append(min(max((start + stop - side) / 2, 0.0), limit - side))
    return low[0], low[1], low[0] + side, low[1] + side
