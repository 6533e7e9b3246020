"""Shapes with exact boxes and edges of known softness: what the pictures of `scenes` are drawn from.

A shape is a core (a point, a curve or an area in its own unit frame) grown by a radius in pixels. Growing makes every
extreme point smooth, so that the distance to the contour is exact on both sides of it for at least the radius.
Coordinates are pixels, x to the right and y down; the centre of pixel (row, column) is (column + 0.5, row + 0.5).

Only operations whose result IEEE 754 fixes to the last bit (sums, products, quotients, roots) touch what is drawn:
sines and powers differ between machines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]
Point = tuple[float, float]
Sides = tuple[float, float, float, float]
Window = tuple[slice, slice]

NO_CLASS = -1
MAX_SOFTNESS = 16.0  # pixels
MIN_FEATHER = 2.0  # pixels; a crisp edge fades over CRISP
CRISP = 1.0  # pixels
SOFT_SHARE = 0.35  # softness of an edge is at most this share of the box's side across it
CRISP_CHANCE = 0.5  # of an edge; edges with no room to fade bring the share of crisp ones to a little more
MIN_RADIUS = 1.0  # pixels; half of it already holds the whole fade of a crisp edge
UPRIGHT_CHANCE = 0.35  # of a figure, against a turn by any angle


@dataclass(frozen=True)
class Outline:
    """A core in its unit frame.

    distance: planes of x and y -> distance to the core, exact outside, not above zero inside an area.
    support: x and y of a unit direction -> the largest dot product of the direction with a point of the core.
    roundness: the least and the largest radius, in units of the frame, by which the core may be grown.
    """

    distance: Callable[[Plane, Plane], Plane]
    support: Callable[[float, float], float]
    roundness: tuple[float, float]


@dataclass(frozen=True)
class Figure:
    """An outline put in a picture.

    label: class from 0, or NO_CLASS. turn: cosine and sine of its rotation. scale: pixels a unit. radius: pixels by
    which the core is grown. reach: pixels from the centre to the left, top, right and bottom side of the box.
    softness: pixels over which each of these sides fades. centre: x, y of the frame's origin.
    """

    label: int
    outline: Outline
    turn: Point
    scale: float
    radius: float
    reach: Sides
    softness: Sides = (CRISP, CRISP, CRISP, CRISP)
    centre: Point = (0.0, 0.0)

    @property
    def box(self) -> Sides:
        """The exact extent of the contour, xyxy pixels."""
        (x, y), (left, top, right, bottom) = self.centre, self.reach
        return x - left, y - top, x + right, y + bottom

    def window(self, size: tuple[int, int], *, step: int = 1) -> Window:
        """Return the rows and columns, every `step`-th, of a picture of `size` (height, width) the figure may touch."""
        margin = max(self.softness) / 2 + 1
        x1, y1, x2, y2 = self.box
        return _span(y1 - margin, y2 + margin, size[0], step), _span(x1 - margin, x2 + margin, size[1], step)


def _span(low: float, high: float, stop: int, step: int) -> slice:
    start = max(math.floor(low), 0) // step * step
    return slice(start, max(min(math.ceil(high), stop), start), step)


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number drawn evenly from low..high; numpy's own `uniform` may round differently on other processors."""
    return low + (high - low) * float(rng.random())


def direction(rng: np.random.Generator) -> Point:
    """Return a unit vector of any angle, found without a sine."""
    while True:
        x, y = between(rng, -1, 1), between(rng, -1, 1)
        square = x * x + y * y
        if 0.01 < square <= 1:
            return x / math.sqrt(square), y / math.sqrt(square)


def compose(rng: np.random.Generator, label: int, *, longest: float) -> Figure:
    """Return a figure of class `label` about the origin; the longer side of its box is `longest` pixels."""
    outline = _OUTLINES[CLASS_NAMES[label]](rng)
    turn = (1.0, 0.0) if rng.random() < UPRIGHT_CHANCE else direction(rng)
    crisp, fades = rng.random(4) < CRISP_CHANCE, rng.random(4)
    # A wide fade needs a round tip to stay exact, so figures with a feathered edge come from the rounder half.
    share = between(rng, 0 if crisp.all() else 0.5, 1)
    low, high = outline.roundness
    figure = grow(outline, label, turn=turn, longest=longest, roundness=low + (high - low) * share)

    def softness(side: int) -> float:
        across = figure.reach[side] + figure.reach[(side + 2) % 4]
        room = min(MAX_SOFTNESS, SOFT_SHARE * across, 2 * figure.radius) - MIN_FEATHER
        return CRISP if crisp[side] or room <= 0 else MIN_FEATHER + room * float(fades[side])

    return replace(figure, softness=(softness(0), softness(1), softness(2), softness(3)))


def grow(outline: Outline, label: int, *, turn: Point, longest: float, roundness: float) -> Figure:
    """Return a crisp figure about the origin, its core grown by `roundness` units, `longest` pixels at its longer side.

    Where `roundness` comes to less than MIN_RADIUS pixels the figure is larger by the difference on each side.
    """
    cos, sin = turn
    # The directions left, top, right, bottom of the picture, in the frame of the core.
    core = [outline.support(x, y) for x, y in ((-cos, sin), (-sin, -cos), (cos, -sin), (sin, cos))]
    scale = longest / (max(core[0] + core[2], core[1] + core[3]) + 2 * roundness)
    radius = max(roundness * scale, MIN_RADIUS)
    left, top, right, bottom = (scale * extent + radius for extent in core)
    return Figure(label, outline, turn, scale, radius, reach=(left, top, right, bottom))


def bar(rng: np.random.Generator, *, length: float, width: float) -> Figure:
    """Return a straight bar at any angle about the origin, in pixels, that is no object."""
    outline = Outline(partial(_from_segment, half=1.0), lambda x, y: abs(x), (0, 0))
    return grow(outline, NO_CLASS, turn=direction(rng), longest=length, roundness=width / length)


def cloud(rng: np.random.Generator, *, longest: float) -> Figure:
    """Return a lumpy patch about the origin, `longest` pixels at its longer side, that is no object."""
    balls = [(between(rng, -1, 1), between(rng, -0.6, 0.6), between(rng, 0.3, 0.7)) for _ in range(5)]

    def distance(x: Plane, y: Plane) -> Plane:
        parts = (np.sqrt(np.square(x - bx) + np.square(y - by)) - radius for bx, by, radius in balls)
        return reduce(np.minimum, parts)

    def support(x: float, y: float) -> float:
        return max(x * bx + y * by + radius for bx, by, radius in balls)

    return grow(Outline(distance, support, (0, 0)), NO_CLASS, turn=direction(rng), longest=longest, roundness=0.05)


def distance(figure: Figure, window: Window) -> Plane:
    """Return the signed distance in pixels, negative inside, of each pixel centre of `window` to the contour."""
    cos, sin = figure.turn
    x, y = _offsets(figure, window)
    u = (x * (cos / figure.scale)).astype(np.float32) + (y * (sin / figure.scale)).astype(np.float32)
    v = (x * (-sin / figure.scale)).astype(np.float32) + (y * (cos / figure.scale)).astype(np.float32)
    return figure.outline.distance(u, v) * figure.scale - figure.radius


def coverage(figure: Figure, window: Window) -> Plane:
    """Return the share 0..1 of each pixel of `window` that the figure covers: 0.5 - distance / width, clipped.

    Across a side of the box the width is that side's softness; elsewhere on the contour the four are mixed.
    """
    if len(set(figure.softness)) == 1:
        return (0.5 - distance(figure, window) / figure.softness[0]).clip(0, 1)
    rows, columns = window
    padded = distance(figure, (slice(rows.start - 1, rows.stop + 1), slice(columns.start - 1, columns.stop + 1)))
    inner = padded[1:-1, 1:-1]
    return (0.5 - inner / _widths(figure, window, padded=padded)).clip(0, 1)


def _offsets(figure: Figure, window: Window) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    rows, columns = (np.arange(part.start, part.stop, part.step or 1, dtype=np.float64) + 0.5 for part in window)
    return (columns - figure.centre[0])[None, :], (rows - figure.centre[1])[:, None]


def _widths(figure: Figure, window: Window, *, padded: Plane) -> Plane:
    """Return the pixels over which the contour nearest to each pixel fades.

    The sides are weighed at the nearest point of the contour, found by going back along the gradient, and not at the
    pixel itself: so the width stays the same across the whole fade.
    """
    inner = padded[1:-1, 1:-1]
    x, y = (offset.astype(np.float32) for offset in _offsets(figure, window))
    x = x - inner * (padded[1:-1, 2:] - padded[1:-1, :-2]) * 0.5
    y = y - inner * (padded[2:, 1:-1] - padded[:-2, 1:-1]) * 0.5
    left, top, right, bottom = figure.reach
    total, widths = np.zeros_like(inner), np.zeros_like(inner)
    for gap, softness in zip((x + left, y + top, right - x, bottom - y), figure.softness, strict=True):
        weight = 1 / np.square(np.maximum(gap, 0) + 0.05)
        total += weight
        widths += weight * softness
    return widths / total


def _from_segment(x: Plane, y: Plane, *, half: float) -> Plane:
    return np.sqrt(np.square(np.maximum(np.abs(x) - half, 0)) + np.square(y))


def _from_polygon(x: Plane, y: Plane, *, chain: tuple[Point, ...], fold_y: bool) -> Plane:
    """Return the distance to a polygon that mirrors `chain` in the y axis, and in the x axis where `fold_y`.

    The chain runs through x >= 0 from one axis to the other (or back to the y axis), so that a ray towards larger x
    meets no part of the polygon but the chain.
    """
    x = np.abs(x)
    y = np.abs(y) if fold_y else y
    nearest = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, dtype=np.bool_)
    for (ax, ay), (bx, by) in pairwise(chain):
        run, rise = bx - ax, by - ay
        u, v = x - ax, y - ay
        along = (u * run + v * rise) * (1 / (run * run + rise * rise))
        np.maximum(along, 0, out=along)
        np.minimum(along, 1, out=along)
        nearest = np.minimum(nearest, np.square(u - along * run) + np.square(v - along * rise))
        if rise != 0:
            inside ^= ((y < ay) != (y < by)) & (u < v * (run / rise))
    return np.sqrt(nearest) * (1 - 2 * inside.astype(np.float32))


def _polygon(chain: tuple[Point, ...], roundness: tuple[float, float], *, fold_y: bool = False) -> Outline:
    def support(x: float, y: float) -> float:
        return max(abs(x) * px + (abs(y) if fold_y else y) * py for px, py in chain)

    return Outline(partial(_from_polygon, chain=chain, fold_y=fold_y), support, roundness)


def _disc(rng: np.random.Generator) -> Outline:
    return Outline(partial(_from_segment, half=0.0), lambda x, y: 0.0, (1, 1))


def _ring(rng: np.random.Generator) -> Outline:
    return Outline(lambda x, y: np.abs(np.sqrt(np.square(x) + np.square(y)) - 1), lambda x, y: 1.0, (0.15, 0.4))


def _capsule(rng: np.random.Generator) -> Outline:
    return Outline(partial(_from_segment, half=1.0), lambda x, y: abs(x), (0.25, 0.6))


def _rectangle(rng: np.random.Generator) -> Outline:
    height = between(rng, 0.4, 1)
    return _polygon(((0, height), (1, height), (1, 0)), (0, 0.4 * height), fold_y=True)


def _diamond(rng: np.random.Generator) -> Outline:
    return _polygon(((0, 1), (between(rng, 0.4, 0.6), 0)), (0, 0.2), fold_y=True)


def _triangle(rng: np.random.Generator) -> Outline:
    base = between(rng, 0.6, 1.2)
    return _polygon(((0, -1), (base, 0.8), (0, 0.8)), (0, 0.3))


def _cross(rng: np.random.Generator) -> Outline:
    arm = between(rng, 0.12, 0.3)
    return _polygon(((0, 1), (arm, 1), (arm, arm), (1, arm), (1, 0)), (0, 0.16), fold_y=True)


def _arrow(rng: np.random.Generator) -> Outline:
    shaft, head, neck = between(rng, 0.12, 0.25), between(rng, 0.6, 0.85), between(rng, -0.3, 0.1)
    return _polygon(((0, -1), (head, neck), (shaft, neck), (shaft, 1), (0, 1)), (0, 0.13))


def _star(rng: np.random.Generator) -> Outline:
    waist = between(rng, 0.38, 0.5)
    # Sines and cosines of multiples of 36 degrees, as literals because libraries differ in their last bit.
    outer = ((0.0, -1.0), (0.9510565163, -0.3090169944), (0.5877852523, 0.8090169944))
    inner = ((0.5877852523 * waist, -0.8090169944 * waist), (0.9510565163 * waist, 0.3090169944 * waist), (0, waist))
    return _polygon(tuple(point for pair in zip(outer, inner, strict=True) for point in pair), (0, 0.18))


def _heart(rng: np.random.Generator) -> Outline:
    """Return a square stood on its corner with a half disc on each of its upper sides."""
    tip, lobe = 0.55, math.sqrt(2) / 4

    def distance(x: Plane, y: Plane) -> Plane:
        x, y = np.abs(x), tip - y
        along = np.maximum(x + y, 0) * 0.5
        lower = np.square(x - along) + np.square(y - along)
        cusp = np.square(x) + np.square(y - 1)
        square = np.copysign(np.sqrt(np.minimum(lower, cusp)), x - y)
        return np.where(x + y > 1, np.sqrt(np.square(x - 0.25) + np.square(y - 0.75)) - lobe, square)

    def support(x: float, y: float) -> float:
        return max(y * tip, abs(x) * 0.25 + y * (tip - 0.75) + lobe)

    return Outline(distance, support, (0, 0.14))


def _crescent(rng: np.random.Generator) -> Outline:
    """Return the unit disc less a disc of radius `bite` about (`shift`, 0); its tips are (x, y) and (x, -y)."""
    bite, shift = between(rng, 0.75, 0.95), between(rng, 0.4, 0.6)
    tip_x = (1 - bite * bite + shift * shift) / (2 * shift)
    tip_y = math.sqrt(1 - tip_x * tip_x)

    def distance(x: Plane, y: Plane) -> Plane:
        y = np.abs(y)
        discs = np.maximum(
            np.sqrt(np.square(x) + np.square(y)) - 1, bite - np.sqrt(np.square(x - shift) + np.square(y))
        )
        u, v = x - tip_x, y - tip_y
        # Between the normals of the two arcs at the tip, the tip is the nearest point.
        beyond = (tip_x * v < tip_y * u) & ((shift - tip_x) * v + tip_y * u > 0)
        return np.where(beyond, np.sqrt(np.square(u) + np.square(v)), discs)

    def support(x: float, y: float) -> float:
        tips = tip_x * x + tip_y * abs(y)
        return 1.0 if (x - shift) * (x - shift) + y * y >= bite * bite else tips

    return Outline(distance, support, (0.03, 0.14))


_OUTLINES: dict[str, Callable[[np.random.Generator], Outline]] = {
    "disc": _disc,
    "ring": _ring,
    "capsule": _capsule,
    "rectangle": _rectangle,
    "diamond": _diamond,
    "triangle": _triangle,
    "cross": _cross,
    "arrow": _arrow,
    "star": _star,
    "heart": _heart,
    "crescent": _crescent,
}
CLASS_NAMES: tuple[str, ...] = tuple(_OUTLINES)
