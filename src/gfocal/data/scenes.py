"""`scenes`: pictures of simple shapes made on the fly, the true ambiguity of every edge known.

A picture follows from (seed, index, size) alone, to the byte, on any machine: see `shapes` for the arithmetic, and
enlarging is left to the bit-exact bilinear filter of OpenCV on integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from gfocal.data.shapes import (
    CLASS_NAMES,
    NO_CLASS,
    Figure,
    Plane,
    Window,
    bar,
    between,
    cloud,
    compose,
    coverage,
    direction,
    distance,
)
from gfocal.errors import UserError
from gfocal.structures import Truth

Size = tuple[int, int]
Colour = npt.NDArray[np.float32]

MIN_SIDE = 64  # pixels of a picture
MIN_LONGEST = 12.0  # pixels of an object's longer side
MAX_LONGEST = 0.6  # of the picture's shorter side
MAX_OBJECTS = 8
MAX_OCCLUDERS = 3
MAX_HIDDEN = 0.7  # share of an object's area; one hidden more is left out
LATTICE = 2  # pixels between the samples of what hides what
PLACES = 4  # tries to find an object a place where it overlaps others by less than MAX_OVERLAP
MAX_OVERLAP = 0.4  # share of the smaller box
MIN_CONTRAST = 60  # grey levels between an object and what lies under it, in some channel, where three tries find it


@dataclass(frozen=True)
class Scenes:
    """A data set of `length` pictures of `size` (height, width) pixels drawn from `seed`.

    Raises UserError where length, seed or size is out of range.
    """

    length: int
    seed: int = 0
    size: Size = (192, 192)

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UserError(f"scenes: length is {self.length}; give at least 1 picture")
        if self.seed < 0:
            raise UserError(f"scenes: seed is {self.seed}; give 0 or more")
        if min(self.size) < MIN_SIDE:
            raise UserError(f"scenes: size is {self.size} (height, width); give at least {MIN_SIDE} pixels each")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The kind of shape that each label stands for."""
        return CLASS_NAMES

    def __len__(self) -> int:
        return self.length

    def truth(self, index: int) -> Truth:
        """Return the annotation of picture `index` without drawing it.

        Boxes are the whole extent of each object, whatever hides a part of it. Raises IndexError for an index
        outside 0..length - 1.
        """
        figures = [figure for figure in self._layout(self._rng(index)) if figure.label != NO_CLASS]
        return Truth(
            image_id=index,
            name=f"scene-{self.seed}-{index:06d}",
            size=self.size,
            boxes=torch.tensor([figure.box for figure in figures], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([figure.label for figure in figures], dtype=torch.int64),
            crowd=torch.zeros(len(figures), dtype=torch.bool),
            softness=torch.tensor([figure.softness for figure in figures], dtype=torch.float32).reshape(-1, 4),
        )

    def picture(self, index: int) -> npt.NDArray[np.uint8]:
        """Return picture `index`, (height, width, 3) RGB; raises IndexError for an index outside 0..length - 1."""
        rng = self._rng(index)
        return _paint(rng, self._layout(rng), size=self.size)

    def _rng(self, index: int) -> np.random.Generator:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} is out of range for {self.length} scenes")
        return np.random.default_rng([self.seed, index])

    def _layout(self, rng: np.random.Generator) -> list[Figure]:
        """Return what the picture shows, back to front; all of it is drawn from `rng` before any pixel is."""
        figures: list[Figure] = []
        for _ in range(int(rng.integers(1, MAX_OBJECTS + 1))):
            figures.append(_object(rng, figures, size=self.size))
        objects = figures.copy()
        for _ in range(int(rng.integers(0, MAX_OCCLUDERS + 1))):
            # Most occluders lie before all objects, the others somewhere between them.
            depth = len(figures) if rng.random() < 0.6 else int(rng.integers(0, len(figures) + 1))
            figures.insert(depth, _occluder(rng, size=self.size))
        # Without occluders the foremost object is in full view, so no picture is empty.
        return _visible(figures, size=self.size) or _visible(objects, size=self.size)


def _object(rng: np.random.Generator, others: list[Figure], *, size: Size) -> Figure:
    label = int(rng.integers(len(CLASS_NAMES)))
    growth = math.exp(between(rng, 0, math.log(MAX_LONGEST * min(size) / MIN_LONGEST)))
    # Rounded to a fraction with an exact binary form, since libraries differ in the last bit of exp.
    figure = compose(rng, label, longest=round(MIN_LONGEST * growth * 8) / 8)
    left, top, right, bottom = (
        reach + softness / 2 + 1 for reach, softness in zip(figure.reach, figure.softness, strict=True)
    )
    for _ in range(PLACES):
        centre = between(rng, left, size[1] - right), between(rng, top, size[0] - bottom)
        figure = replace(figure, centre=centre)
        if all(_overlap(figure, other) < MAX_OVERLAP for other in others):
            break
    return figure


def _overlap(a: Figure, b: Figure) -> float:
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.box, b.box
    shared = max(min(ax2, bx2) - max(ax1, bx1), 0) * max(min(ay2, by2) - max(ay1, by1), 0)
    return shared / min((ax2 - ax1) * (ay2 - ay1), (bx2 - bx1) * (by2 - by1))


def _occluder(rng: np.random.Generator, *, size: Size) -> Figure:
    height, width = size
    if rng.random() < 0.5:
        # Twice the sum of the sides reaches out of the picture at both ends wherever the bar lies.
        figure = bar(rng, length=2.0 * (height + width), width=between(rng, 1.5, 0.04 * min(size)))
    else:
        figure = cloud(rng, longest=between(rng, 0.1, 0.3) * min(size))
    return replace(figure, centre=(between(rng, 0, width), between(rng, 0, height)))


def _visible(figures: list[Figure], *, size: Size) -> list[Figure]:
    """Return `figures` without the objects that those before them hide for more than MAX_HIDDEN of their area."""
    covered = np.zeros((-(-size[0] // LATTICE), -(-size[1] // LATTICE)), dtype=np.bool_)
    kept: list[Figure] = []
    for figure in reversed(figures):
        rows, columns = figure.window(size, step=LATTICE)
        inside = distance(figure, (rows, columns)) < 0
        below = covered[_coarse(rows), _coarse(columns)]
        hidden = np.count_nonzero(inside & below)
        if figure.label != NO_CLASS and hidden > MAX_HIDDEN * np.count_nonzero(inside):
            continue
        below |= inside
        kept.append(figure)
    return kept[::-1]


def _coarse(part: slice) -> slice:
    return slice(part.start // LATTICE, -(-part.stop // LATTICE))


def _paint(rng: np.random.Generator, figures: list[Figure], *, size: Size) -> npt.NDArray[np.uint8]:
    """Return the picture of `figures`, back to front, on a background of its own."""
    canvas = _background(rng, size)
    backdrop = canvas.copy()
    for figure in figures:
        window = figure.window(size)
        under = canvas[:, window[0], window[1]]
        skin = _patch(rng, backdrop, window=window) if figure.label == NO_CLASS else _skin(rng, under)
        skin -= under
        skin *= coverage(figure, window)
        under += skin
    grain = rng.integers(0, 256, canvas.shape, dtype=np.uint8).astype(np.float32)
    canvas += (grain - 127.5) * (between(rng, 0, 8) / 127.5)
    return cv2.merge([plane.astype(np.uint8) for plane in (canvas + 0.5).clip(0, 255)])  # pyright: ignore


def _background(rng: np.random.Generator, size: Size) -> Plane:
    """Return a (3, height, width) picture in 0..255: broad colours, and a finer texture laid over them."""
    first, second = _colour(rng), _colour(rng)
    broad = _field(rng, size, names=("noise", "gradient", "ripples"))
    canvas = _mix(first, second, share=broad)
    canvas += _tint(rng, strength=between(rng, 10, 60))[:, None, None] * (_field(rng, size, names=tuple(_FIELDS)) - 0.5)
    canvas += _tint(rng, strength=between(rng, 5, 40))[:, None, None] * (_field(rng, size, names=("grain",)) - 0.5)
    return canvas


def _skin(rng: np.random.Generator, under: Plane) -> Plane:
    """Return a (3, height, width) texture of an object, of a colour that mostly stands out from what lies `under`."""
    sample = under[:, ::4, ::4].astype(np.int64)
    # Sums of integers do not depend on the order of summation, which differs between processors.
    ground = (sample.sum(axis=(1, 2)) / sample[0].size).astype(np.float32)
    colours = [_colour(rng) for _ in range(3)]
    colour = next((one for one in colours if max(abs(one - ground).tolist()) > MIN_CONTRAST), colours[-1])
    field = _field(rng, (under.shape[1], under.shape[2]), names=tuple(_FIELDS))
    second = colour + _tint(rng, strength=between(rng, 0, 60)) + _tint(rng, strength=between(rng, 0, 30))
    return _mix(colour, second, share=field)


def _patch(rng: np.random.Generator, backdrop: Plane, *, window: Window) -> Plane:
    """Return a piece of the backdrop from elsewhere, a little lighter or darker, to fill `window`."""
    height, width = (part.stop - part.start for part in window)
    top = int(rng.integers(0, backdrop.shape[1] - height + 1))
    left = int(rng.integers(0, backdrop.shape[2] - width + 1))
    flipped = backdrop[:, :: -1 if rng.random() < 0.5 else 1, :: -1 if rng.random() < 0.5 else 1]
    return flipped[:, top : top + height, left : left + width] + _tint(rng, strength=between(rng, 0, 50))[:, None, None]


def _colour(rng: np.random.Generator) -> Colour:
    """Return an RGB colour in 0..255."""
    return (between(rng, 20, 235) + 180 * (rng.random(3) - 0.5)).clip(5, 250).astype(np.float32)


def _tint(rng: np.random.Generator, *, strength: float) -> Colour:
    """Return a difference of two RGB colours, of about `strength` in each channel, mostly lightness."""
    sign = 1 if rng.random() < 0.5 else -1
    return ((0.4 + 1.2 * rng.random(3)) * (sign * strength)).astype(np.float32)


def _mix(first: Colour, second: Colour, *, share: Plane) -> Plane:
    return first[:, None, None] + (second - first)[:, None, None] * share


def _field(rng: np.random.Generator, size: Size, *, names: tuple[str, ...]) -> Plane:
    """Return a texture of `size` in 0..1, of a kind drawn from `names`."""
    return _FIELDS[names[int(rng.integers(len(names)))]](rng, size)


def _spline(rng: np.random.Generator, size: Size, *, cells: float) -> Plane:
    """Return smooth noise in 0..1 with about `cells` bumps along the longer side.

    Each bilinear doubling cuts the corners of the one before: a quadratic B-spline in the limit.
    """
    height, width = size
    cell = max(height, width) / cells
    grid = rng.integers(0, 256, (int(height / cell) + 2, int(width / cell) + 2), dtype=np.uint8)
    while grid.shape[0] * 2 <= height and grid.shape[1] * 2 <= width:
        grid = cv2.resize(grid, (grid.shape[1] * 2, grid.shape[0] * 2), interpolation=cv2.INTER_LINEAR_EXACT)
    grid = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    return grid.astype(np.float32) * np.float32(1 / 255)


def _noise(rng: np.random.Generator, size: Size) -> Plane:
    coarse, fine = between(rng, 1.5, 4), between(rng, 6, 16)
    plane = _spline(rng, size, cells=coarse) * 0.7
    plane += _spline(rng, size, cells=fine) * 0.3
    return plane


def _grain(rng: np.random.Generator, size: Size) -> Plane:
    return _spline(rng, size, cells=max(size) / between(rng, 2, 6))


def _gradient(rng: np.random.Generator, size: Size) -> Plane:
    x, y = direction(rng)
    span = abs(x) * size[1] + abs(y) * size[0]
    return _slope(size, across=x / span, down=y / span) + np.float32(0.5)


def _stripes(rng: np.random.Generator, size: Size) -> Plane:
    (x, y), period = direction(rng), between(rng, 5, 0.3 * max(size) + 5)
    phase = _slope(size, across=x / period, down=y / period)
    if rng.random() < 0.5:
        phase += _spline(rng, size, cells=between(rng, 1.5, 3)) * np.float32(between(rng, 0.3, 2))
    return _wave(phase, hardness=between(rng, 1, 6))


def _checks(rng: np.random.Generator, size: Size) -> Plane:
    (x, y), period, hardness = direction(rng), between(rng, 8, 0.4 * max(size) + 8), between(rng, 1.5, 6)
    one = _wave(_slope(size, across=x / period, down=y / period), hardness=hardness)
    other = _wave(_slope(size, across=-y / period, down=x / period), hardness=hardness)
    return one + other - 2 * one * other


def _ripples(rng: np.random.Generator, size: Size) -> Plane:
    height, width = size
    x = np.arange(width, dtype=np.float32) - np.float32(between(rng, 0, width))
    y = np.arange(height, dtype=np.float32) - np.float32(between(rng, 0, height))
    radius = np.sqrt(np.square(x)[None, :] + np.square(y)[:, None])
    return _wave(radius * np.float32(1 / between(rng, 0.3 * max(size), 2 * max(size))), hardness=1)


def _slope(size: Size, *, across: float, down: float) -> Plane:
    """Return the plane that rises by `across` a column and by `down` a row, 0 in the middle."""
    x = (np.arange(size[1]) + (0.5 - size[1] / 2)) * across
    y = (np.arange(size[0]) + (0.5 - size[0] / 2)) * down
    return x.astype(np.float32)[None, :] + y.astype(np.float32)[:, None]


def _wave(phase: Plane, *, hardness: float) -> Plane:
    """Return a wave in 0..1 of period 1, from a triangle at `hardness` 1 towards a square; overwrites `phase`."""
    phase -= np.floor(phase)
    phase -= np.float32(0.5)
    np.abs(phase, out=phase)
    phase *= np.float32(2 * hardness)
    phase += np.float32(0.5 - 0.5 * hardness)
    return phase.clip(0, 1, out=phase)


_FIELDS: dict[str, Callable[[np.random.Generator, Size], Plane]] = {
    "noise": _noise,
    "grain": _grain,
    "gradient": _gradient,
    "stripes": _stripes,
    "checks": _checks,
    "ripples": _ripples,
}
