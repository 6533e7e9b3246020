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
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.floating[Any]]  # float32; type checkers take its product with a float for a float64
Point = tuple[float, float]
Sides = tuple[float, float, float, float]
Axes = tuple[Plane, Plane]  # the x and the y coordinates of a grid of points
Window = tuple[int, int, int, int]  # first column, first row, column and row after the last

NO_CLASS = -1
MAX_SOFTNESS = 16.0  # pixels
MIN_FEATHER = 2.0  # pixels; a crisp edge fades over CRISP
CRISP = 1.0  # pixels
SOFT_SHARE = 0.35  # softness of an edge is at most this share of the box's side across it
SOFT_RADII = 1.6  # ... and this many radii: at 2 the fades of two sides could meet at an extreme point
ALL_CRISP_CHANCE = 0.2  # of a figure
CRISP_CHANCE = 0.35  # of each edge of the others; with edges that have no room to fade half of all are crisp
MIN_RADIUS = 1.0  # pixels; half of it already holds the whole fade of a crisp edge
UPRIGHT_CHANCE = 0.35  # of a figure, against a turn by any angle
SIN_36, COS_36 = 0.5877852523, 0.8090169944  # literals, as libraries differ in their last bit
HEART_LOBE = math.sqrt(2) / 4


@dataclass(frozen=True)
class Outline:
    """A core in its unit frame.

    distance: planes of x and y -> distance to the core, 0 on it.
    support: x and y of a unit direction -> the largest dot product of the direction with a point of the core.
    roundness: the least and the largest radius, in units of the frame, by which the core may be grown.
    turns: whether turning it makes a difference.
    """

    distance: Callable[[Plane, Plane], Plane]
    support: Callable[[float, float], float]
    roundness: tuple[float, float]
    turns: bool = True


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

    def window(self, size: tuple[int, int]) -> Window:
        """Return the part of a picture of `size` (height, width) that the figure may touch."""
        margin = max(self.softness) / 2 + 1
        x1, y1, x2, y2 = self.box
        left, top = max(math.floor(x1 - margin), 0), max(math.floor(y1 - margin), 0)
        return left, top, min(math.ceil(x2 + margin), size[1]), min(math.ceil(y2 + margin), size[0])


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number drawn evenly from low..high; numpy's own `uniform` may round differently on other processors."""
    return low + (high - low) * float(rng.random())


def below(rng: np.random.Generator, end: int) -> int:
    """Return a whole number drawn evenly from 0..end - 1; faster than numpy's own for a single one."""
    return int(end * float(rng.random()))


def direction(rng: np.random.Generator) -> Point:
    """Return a unit vector of any angle, found without a sine."""
    while True:
        x, y = between(rng, -1.0, 1.0), between(rng, -1.0, 1.0)
        square = x * x + y * y
        if 0.01 < square <= 1:
            return x / math.sqrt(square), y / math.sqrt(square)


def compose(rng: np.random.Generator, label: int, *, longest: float) -> Figure:
    """Return a figure of class `label` about the origin; the longer side of its box is `longest` pixels."""
    outline = _OUTLINES[CLASS_NAMES[label]](rng)
    upright = rng.random() < UPRIGHT_CHANCE or not outline.turns
    turn = (1.0, 0.0) if upright else direction(rng)
    all_crisp = rng.random() < ALL_CRISP_CHANCE
    crisp = [all_crisp or chance < CRISP_CHANCE for chance in rng.random(4).tolist()]
    fades: list[float] = rng.random(4).tolist()
    # A wide fade needs a round tip to stay exact, so figures with a feathered edge come from the rounder half.
    share = between(rng, 0.0 if all(crisp) else 0.5, 1.0)
    low, high = outline.roundness
    scale, radius, reach = _measure(outline, turn, longest=longest, roundness=low + (high - low) * share)
    sides = (reach[0] + reach[2], reach[1] + reach[3]) * 2
    room = [min(MAX_SOFTNESS, SOFT_SHARE * side, SOFT_RADII * radius) - MIN_FEATHER for side in sides]
    left, top, right, bottom = (
        CRISP if sharp or most <= 0 else MIN_FEATHER + most * fade
        for sharp, most, fade in zip(crisp, room, fades, strict=True)
    )
    return Figure(label, outline, turn, scale, radius, reach, (left, top, right, bottom))


def _measure(outline: Outline, turn: Point, *, longest: float, roundness: float) -> tuple[float, float, Sides]:
    """Return the scale, radius and reach that make a figure `longest` pixels at its longer side.

    Where `roundness` comes to less than MIN_RADIUS pixels the figure is larger by the difference on each side.
    """
    cos, sin = turn
    # The directions left, top, right, bottom of the picture, in the frame of the core.
    core = [outline.support(x, y) for x, y in ((-cos, sin), (-sin, -cos), (cos, -sin), (sin, cos))]
    scale = longest / (max(core[0] + core[2], core[1] + core[3]) + 2 * roundness)
    radius = max(roundness * scale, MIN_RADIUS)
    left, top, right, bottom = (scale * extent + radius for extent in core)
    return scale, radius, (left, top, right, bottom)


def bar(rng: np.random.Generator, *, length: float, width: float) -> Figure:
    """Return a straight bar at any angle about the origin, in pixels between its round ends, that is no object."""
    outline, turn = _capsule(rng), direction(rng)
    longest = length * max(abs(turn[0]), abs(turn[1])) + width
    return Figure(NO_CLASS, outline, turn, *_measure(outline, turn, longest=longest, roundness=width / length))


def cloud(rng: np.random.Generator, *, longest: float) -> Figure:
    """Return a lumpy patch about the origin, `longest` pixels at its longer side, that is no object."""
    balls = [(between(rng, -1.0, 1.0), between(rng, -0.6, 0.6), between(rng, 0.3, 0.7)) for _ in range(3)]
    balls.append((0.0, 0.0, 0.5))
    outline = Outline(
        partial(_to_balls, balls=balls),
        lambda x, y: max(x * bx + y * by + radius for bx, by, radius in balls),
        (0.0, 0.0),
    )
    turn = direction(rng)
    return Figure(NO_CLASS, outline, turn, *_measure(outline, turn, longest=longest, roundness=0.05))


def distance(figure: Figure, axes: Axes) -> Plane:
    """Return the signed distance in pixels to the contour, negative inside, at each crossing of the axes."""
    return _core_distance(figure, axes) * np.float32(figure.scale) - np.float32(figure.radius)


def coverage(figure: Figure, window: Window) -> Plane:
    """Return the share 0..1 of each pixel of `window` that the figure covers: 0.5 - distance / width, clipped.

    The width is the softness of a side of the box wherever that side's fade reaches, and a mix of the four elsewhere.
    """
    width, height = window[2] - window[0], window[3] - window[1]
    steps = np.arange(max(width, height), dtype=np.float32) + np.float32(0.5)
    places = np.array(((window[0],), (window[1],)), dtype=np.float32) + steps
    plane = _core_distance(figure, (places[0, :width], places[1, :height])) * np.float32(-figure.scale)
    plane += np.float32(figure.radius)
    if len(set(figure.softness)) == 1:
        plane *= np.float32(1 / figure.softness[0])
    else:
        weight, fade = _pull(figure, places)
        plane *= weight[0, :width] + weight[1, :height, None]
        plane /= fade[0, :width] + fade[1, :height, None]
    plane += np.float32(0.5)
    return _at_most_one(_positive(plane))


def _pull(figure: Figure, places: Plane) -> tuple[Plane, Plane]:
    """Return what the two sides across each axis (x, y) weigh at each place, and the sum of their softness so weighed.

    All three are (2, n).
    """
    x1, y1, x2, y2 = figure.box
    left, top, right, bottom = figure.softness
    softness = np.array((((left,), (right,)), ((top,), (bottom,))), dtype=np.float32)
    gap = np.abs(places[:, None, :] - np.array((((x1,), (x2,)), ((y1,), (y2,))), dtype=np.float32))
    # A crisp side holds to a pixel on either side, lest a soft neighbour lend it a halo.
    gap -= np.maximum(softness * np.float32(0.5), np.float32(1))
    # No weight is endless: where the fades of two sides cross, they weigh the same.
    np.maximum(gap, np.float32(0.05), out=gap)
    gap *= gap
    fade = softness / gap
    weight = 1 / gap
    return weight[:, 0] + weight[:, 1], fade[:, 0] + fade[:, 1]


def _core_distance(figure: Figure, axes: Axes) -> Plane:
    """Return the distance in units to the core."""
    cos, sin = np.float32(figure.turn[0] / figure.scale), np.float32(figure.turn[1] / figure.scale)
    x, y = axes[0][None, :] - np.float32(figure.centre[0]), axes[1][:, None] - np.float32(figure.centre[1])
    if sin == 0:
        return figure.outline.distance(x * cos, y * cos)
    return figure.outline.distance(x * cos + y * sin, y * cos - x * sin)


def _positive(plane: Plane) -> Plane:
    # A row of zeros, not a zero: NumPy's maximum of two arrays is several times faster.
    return np.maximum(plane, np.zeros(plane.shape[-1:], dtype=np.float32))


def _at_most_one(plane: Plane) -> Plane:
    return np.minimum(plane, np.ones(plane.shape[-1:], dtype=np.float32))


def _to_point(x: Plane, y: Plane) -> Plane:
    return np.sqrt(x * x + y * y)


def _to_box(x: Plane, y: Plane, *, half: Point) -> Plane:
    return _to_point(_positive(np.abs(x) - half[0]), _positive(np.abs(y) - half[1]))


def _to_line(x: Plane, y: Plane) -> Plane:
    """Return the distance to the segment from (-1, 0) to (1, 0)."""
    return _to_point(_positive(np.abs(x) - 1), y)


def _to_balls(x: Plane, y: Plane, *, balls: list[tuple[float, float, float]]) -> Plane:
    return _positive(reduce(np.minimum, (_to_point(x - bx, y - by) - radius for bx, by, radius in balls)))


def _to_chain(x: Plane, y: Plane, *, chain: tuple[Point, ...]) -> Plane:
    """Return the distance to a convex area, 0 in it, from points it holds or that are nearest to its edges `chain`.

    The chain runs with the area on its right hand as seen in the picture.
    """
    squares: list[Plane] = []
    sides: list[Plane] = []
    for (ax, ay), (bx, by) in pairwise(chain):
        half = math.sqrt((bx - ax) * (bx - ax) + (by - ay) * (by - ay)) / 2
        run, rise = (bx - ax) / (2 * half), (by - ay) / (2 * half)
        along = x * run + (y * rise - (ax * run + ay * rise + half))
        across = x * rise - (y * run + (ax * rise - ay * run))
        beyond = _positive(np.abs(along) - half)
        squares.append(beyond * beyond + across * across)
        sides.append(across)
    return np.sqrt(reduce(np.minimum, squares) * (reduce(np.maximum, sides) > 0))


def _reach(points: tuple[Point, ...], x: float, y: float) -> float:
    return max(x * px + y * py for px, py in points)


def _disc(rng: np.random.Generator) -> Outline:
    return Outline(_to_point, lambda x, y: 0.0, (1.0, 1.0), turns=False)


def _ring(rng: np.random.Generator) -> Outline:
    return Outline(lambda x, y: np.abs(_to_point(x, y) - 1), lambda x, y: 1.0, (0.15, 0.4), turns=False)


def _capsule(rng: np.random.Generator) -> Outline:
    return Outline(_to_line, lambda x, y: abs(x), (0.25, 0.6))


def _rectangle(rng: np.random.Generator) -> Outline:
    height = between(rng, 0.4, 1.0)
    return Outline(partial(_to_box, half=(1.0, height)), lambda x, y: abs(x) + abs(y) * height, (0.0, 0.4 * height))


def _diamond(rng: np.random.Generator) -> Outline:
    width = between(rng, 0.4, 0.6)
    chain = ((0.0, -1.0), (width, 0.0))
    return Outline(
        lambda x, y: _to_chain(np.abs(x), -np.abs(y), chain=chain),
        lambda x, y: max(abs(x) * width, abs(y)),
        (0.0, 0.25),
    )


def _triangle(rng: np.random.Generator) -> Outline:
    base = between(rng, 0.6, 1.2)
    chain = ((0.0, -1.0), (base, 0.8), (0.0, 0.8))
    return Outline(
        lambda x, y: _to_chain(np.abs(x), y, chain=chain), lambda x, y: _reach(chain, abs(x), y), (0.0, 0.35)
    )


def _cross(rng: np.random.Generator) -> Outline:
    arm = between(rng, 0.12, 0.3)
    tips = ((1.0, arm), (arm, 1.0))
    return Outline(partial(_to_cross, arm=arm), lambda x, y: _reach(tips, abs(x), abs(y)), (0.0, 0.18))


def _to_cross(x: Plane, y: Plane, *, arm: float) -> Plane:
    x, y = np.abs(x), np.abs(y)
    return _to_box(np.maximum(x, y), np.minimum(x, y), half=(1.0, arm))


def _arrow(rng: np.random.Generator) -> Outline:
    shaft, width, neck = between(rng, 0.12, 0.25), between(rng, 0.6, 0.85), between(rng, -0.3, 0.1)
    head = ((0.0, -1.0), (width, neck), (0.0, neck))
    corners = (*head, (shaft, 1.0))
    return Outline(partial(_to_arrow, head=head, shaft=shaft), lambda x, y: _reach(corners, abs(x), y), (0.0, 0.15))


def _to_arrow(x: Plane, y: Plane, *, head: tuple[Point, ...], shaft: float) -> Plane:
    x, neck = np.abs(x), head[-1][1]
    box = _to_box(x, y - (1 + neck) / 2, half=(shaft, (1 - neck) / 2))
    return np.minimum(_to_chain(x, y, chain=head), box)


def _star(rng: np.random.Generator) -> Outline:
    tips = ((0.0, -1.0), (0.9510565163, -0.3090169944), (SIN_36, COS_36))
    return Outline(partial(_to_star, waist=between(rng, 0.38, 0.5)), lambda x, y: _reach(tips, abs(x), y), (0.0, 0.2))


def _to_star(x: Plane, y: Plane, *, waist: float) -> Plane:
    # All ten edges fall on one by two reflections in the line through a notch.
    for _ in range(2):
        x = np.abs(x)
        fold = _positive(x * COS_36 + y * SIN_36) * 2
        x, y = x - fold * COS_36, y - fold * SIN_36
    return _to_chain(np.abs(x), y, chain=((0.0, -1.0), (SIN_36 * waist, -COS_36 * waist)))


def _heart(rng: np.random.Generator) -> Outline:
    return Outline(_to_heart, lambda x, y: max(y * 0.55, abs(x) * 0.25 - y * 0.2 + HEART_LOBE), (0.0, 0.16))


def _to_heart(x: Plane, y: Plane) -> Plane:
    """Return the distance to a square stood on its corner with a half disc on each of its upper sides."""
    x, y = np.abs(x), y - 0.55
    # The half disc lies inside the whole disc about the middle of the side, whose rest lies in the square.
    disc = _positive(_to_point(x - 0.25, y + 0.75) - HEART_LOBE)
    return np.minimum(disc, _to_chain(x, y, chain=((0.0, -1.0), (0.5, -0.5), (0.0, 0.0))))


def _crescent(rng: np.random.Generator) -> Outline:
    """Return the unit disc less a disc of radius `bite` about (`shift`, 0); its tips are (x, y) and (x, -y)."""
    bite, shift = between(rng, 0.75, 0.95), between(rng, 0.4, 0.6)
    tip_x = (1 - bite * bite + shift * shift) / (2 * shift)
    tip = (tip_x, math.sqrt(1 - tip_x * tip_x))
    return Outline(
        partial(_to_crescent, bite=bite, shift=shift, tip=tip),
        # The outer arc where the disc is not bitten off, the tips elsewhere.
        lambda x, y: 1.0 if (x - shift) * (x - shift) + y * y >= bite * bite else tip[0] * x + tip[1] * abs(y),
        (0.03, 0.16),
    )


def _to_crescent(x: Plane, y: Plane, *, bite: float, shift: float, tip: Point) -> Plane:
    y = np.abs(y)
    arcs = _positive(np.maximum(_to_point(x, y) - 1, bite - _to_point(x - shift, y)))
    u, v = x - tip[0], y - tip[1]
    # Between the normals of the two arcs at the tip, the tip is the nearest point.
    beyond = (tip[0] * v < tip[1] * u) & ((shift - tip[0]) * v + tip[1] * u > 0)
    return np.where(beyond, _to_point(u, v), arcs)


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
