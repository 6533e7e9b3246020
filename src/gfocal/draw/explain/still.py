"""Still pictures for papers: all boxes of a picture, and single boxes with the distributions of their edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torchvision.ops import box_iou

from gfocal.draw.explain.material import Explained
from gfocal.draw.pictures import PALETTE, draw_detections
from gfocal.files import whole_or_absent
from gfocal.structures import Detections, Truth

BOXES = 4
"""Boxes of a picture that are drawn by themselves."""

# a colour and a hatching: of the left and top edge, and of the right and bottom one, which share their axes
_LOOKS = ((PALETTE[0], ""), (PALETTE[6], "///"))
_FOUND = PALETTE[3]  # green, as in the paper; the true box is white
_MARGIN = 0.35  # of the box's longer side, seen around it
_SAME = 0.3  # IoU from where on a true box is that of the box drawn
_PANEL = 3.1  # inches, of which the distributions take _STRIP
_STRIP = 0.7
_DOTS_PER_INCH = 200
_CASING = "#141414"


def write_stills(folder: Path, name: str, explained: Explained, *, score: float = 0.3) -> list[Path]:
    """Write `name.png` with all boxes that score `score` or more, and `name-edges.png` with single ones; return both.

    The second shows, each in its own panel, the boxes with the flattest and with the sharpest edges, four at most: the
    box green, the true one white, above it the distributions of its left and right edge, at its side those of top and
    bottom, on the axes of the picture (paper V1, Fig. 3, 13 and 14). It is left out where no box has distributions.
    UserError where a file cannot be written.
    """
    overview = folder / f"{name}.png"
    drawing = draw_detections(explained.picture, explained.after, threshold=score, truth=explained.truth)
    with whole_or_absent(overview) as scratch:
        drawing.save(scratch, format="PNG")
    chosen = _telling(explained.after[explained.after.scores >= score])
    if not len(chosen):
        return [overview]
    sheet = Figure(figsize=(_PANEL * len(chosen), _PANEL + 0.35), dpi=_DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(sheet)
    for place, found in enumerate(chosen):
        _panel(sheet, place, len(chosen), found, explained)
    single = folder / f"{name}-edges.png"
    with whole_or_absent(single) as scratch:
        sheet.savefig(scratch, format="png", metadata={"Software": "gfocal"})
    return [overview, single]


def _telling(found: Detections) -> Detections:
    """Return the boxes with the highest entropy of an edge, then those with the lowest, `BOXES` in all."""
    if found.edges is None:
        return found[:0]
    order = found.edges.entropy.amax(-1).argsort(descending=True)
    if len(order) > BOXES:
        order = torch.cat([order[: BOXES // 2], order[-(BOXES - BOXES // 2) :]])
    return found[order]


def _panel(sheet: Figure, place: int, count: int, found: Detections, explained: Explained) -> None:
    """Draw one box (one row): the picture around it, and the distributions on the picture's own axes."""
    width, height = _PANEL * count, _PANEL + 0.35
    side, left = _PANEL - _STRIP - 0.3, place * _PANEL + 0.2

    def axes(x: float, y: float, w: float, h: float) -> Axes:
        return sheet.add_axes((x / width, y / height, w / width, h / height))

    middle = axes(left, 0.15, side, side)
    above = axes(left, 0.15 + side + 0.04, side, _STRIP)
    beside = axes(left + side + 0.04, 0.15, _STRIP, side)
    box = found.boxes[0].tolist()
    window = _window(box)
    _show(middle, explained.picture, window)
    truth = _true_box(found, explained.truth)
    if truth is not None:
        _box(middle, truth, colour="white", width=1.4)
    _box(middle, box, colour=_FOUND, width=1.8)
    assert found.edges is not None
    masses, places = found.edges.probabilities[0].double(), found.edges.positions[0].double()
    for edge in range(4):
        strip = above if edge % 2 == 0 else beside
        known = None if truth is None else truth[edge]
        _distribution(strip, places[edge].numpy(), masses[edge].numpy(), edge=edge, truth=known)
    above.set_xlim(window[0], window[2])
    beside.set_ylim(window[3], window[1])
    highest = 1.08 * float(masses.max())
    above.set_ylim(0, highest)
    beside.set_xlim(0, highest)
    title = f"{' '.join(found.names[0].split())} {float(found.scores[0]):.2f}"
    sheet.text((left + side / 2) / width, 1 - 0.12 / height, title, ha="center", va="top", fontsize=9, weight="bold",
               parse_math=False)  # fmt: skip


def _window(box: list[float]) -> tuple[float, float, float, float]:
    """Return the square around a box that is seen, xyxy pixels."""
    left, top, right, bottom = box
    reach = max(abs(right - left), abs(bottom - top), 8.0) * (0.5 + _MARGIN)
    x, y = (left + right) / 2, (top + bottom) / 2
    return x - reach, y - reach, x + reach, y + reach


def _true_box(found: Detections, truth: Truth | None) -> list[float] | None:
    """Return the true box of the detection's class that overlaps it most, if it is the same at all."""
    if truth is None:
        return None
    same = truth.boxes[(truth.labels == found.labels[0]) & ~truth.crowd]
    if not len(same):
        return None
    overlap = box_iou(found.boxes, same)[0]
    best = int(overlap.argmax())
    return same[best].tolist() if float(overlap[best]) >= _SAME else None


def _show(axes: Axes, picture: NDArray[np.uint8], window: tuple[float, float, float, float]) -> None:
    """Draw what of the picture lies in a window, grey where there is none."""
    height, width = picture.shape[:2]
    left, top = max(int(window[0]), 0), max(int(window[1]), 0)
    right, bottom = min(int(window[2]) + 1, width), min(int(window[3]) + 1, height)
    if right > left and bottom > top:
        part = picture[top:bottom, left:right]
        axes.imshow(part, extent=(left, right, bottom, top), interpolation="bilinear", aspect="auto")
    axes.set(xlim=(window[0], window[2]), ylim=(window[3], window[1]), xticks=[], yticks=[], facecolor="#d8d8d8")
    axes.spines[:].set_visible(False)


def _box(axes: Axes, box: list[float], *, colour: str, width: float) -> None:
    left, top, right, bottom = box
    patch = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=width)
    patch.set_path_effects([withStroke(linewidth=width + 1.2, foreground=_CASING)])
    axes.add_patch(patch)


def _distribution(
    axes: Axes, places: NDArray[np.float64], masses: NDArray[np.float64], *, edge: int, truth: float | None
) -> None:
    """Draw the bins of one edge along its axis of the picture, and a dashed line at the true edge."""
    colour, hatch = _LOOKS[edge // 2]
    options: dict[str, Any] = {"color": colour, "alpha": 0.75, "hatch": hatch, "edgecolor": "white", "linewidth": 0.4}
    step = abs(places[1] - places[0])
    if edge % 2 == 0:
        axes.bar(places, masses, width=step * 0.92, **options)
        line = axes.axvline
    else:
        axes.barh(places, masses, height=step * 0.92, **options)
        line = axes.axhline
    line(float(places @ masses), color=_FOUND, linewidth=1.3)
    if truth is not None:
        line(truth, color="#333333", linewidth=1.1, linestyle=(0, (3, 2)))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.spines["bottom" if edge % 2 == 0 else "left"].set_visible(True)
