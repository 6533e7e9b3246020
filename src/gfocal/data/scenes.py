"""`scenes`: pictures of simple shapes made on the fly, the true ambiguity of every edge known.

A picture follows from (seed, index, size) alone, to the byte, on any machine: see `shapes` for the arithmetic, and
enlarging is left to the bit-exact bilinear filter of OpenCV on integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce
from typing import final

import cv2
import numpy as np
import torch

from gfocal.data.shapes import (
    CLASS_NAMES,
    NO_CLASS,
    Figure,
    Plane,
    Sides,
    Window,
    bar,
    below,
    between,
    cloud,
    compose,
    coverage,
    distance,
)
from gfocal.data.textures import Bytes, Size, enlarge, random_bytes, texture
from gfocal.errors import UserError
from gfocal.structures import Truth

MIN_SIDE = 64  # pixels of a picture
MIN_LONGEST = 24.0  # pixels of an object's longer side
MAX_LONGEST = 0.6  # of the picture's shorter side
MAX_OBJECTS = 8
MAX_CLOUDS = 2
MAX_BARS = 2
MAX_BAR = 6.0  # pixels of a bar's width: too little to hide any object
MAX_HIDDEN = 0.5  # share of an object's area; one hidden more is left out
SAMPLES = 12  # across an object's box, of what hides it
MIN_FILL = 0.2  # share of its box that any object fills
PLACES = 4  # tries to find an object a place where it overlaps others by less than MAX_OVERLAP
MAX_OVERLAP = 0.4  # share of the smaller box
MIN_CONTRAST = 60  # grey levels between an object and what lies under it, in some channel, where three tries find it

# RGB of each kind, in the order of CLASS_NAMES. As with fruit or road signs, colour tells most of the kind: so a small
# network learns classes soon, and what tells one detector from another is how well it places edges.
KIND_COLOURS = (
    (225, 60, 50),
    (60, 90, 225),
    (60, 190, 75),
    (250, 215, 60),
    (145, 60, 200),
    (70, 215, 220),
    (240, 130, 40),
    (240, 110, 190),
    (160, 110, 60),
    (30, 110, 80),
    (235, 235, 235),
)


@final
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

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The number that stands for each label in results files."""
        return tuple(range(len(CLASS_NAMES)))

    def __len__(self) -> int:
        return self.length

    def truth(self, index: int) -> Truth:
        """Return the annotation of picture `index` without drawing it.

        Boxes are the whole extent of each object, whatever hides a part of it. Raises IndexError for an index
        outside 0..length - 1.
        """
        figures = [figure for figure in self._layout(self._rng(index)) if figure.label != NO_CLASS]
        boxes = np.array([figure.box for figure in figures], dtype=np.float32)
        softness = np.array([figure.softness for figure in figures], dtype=np.float32)
        return Truth(
            image_id=index,
            name=f"scene-{self.seed}-{index:06d}",
            size=self.size,
            boxes=torch.from_numpy(boxes),
            labels=torch.tensor([figure.label for figure in figures], dtype=torch.int64),
            crowd=torch.zeros(len(figures), dtype=torch.bool),
            softness=torch.from_numpy(softness),
            ids=torch.arange(len(figures)),
        )

    def picture(self, index: int) -> Bytes:
        """Return picture `index`, (height, width, 3) RGB; raises IndexError for an index outside 0..length - 1."""
        rng = self._rng(index)
        return _paint(rng, self._layout(rng), size=self.size)

    def _rng(self, index: int) -> np.random.Generator:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} is out of range for {self.length} scenes")
        # Named rather than NumPy's default, which may change.
        return np.random.Generator(np.random.PCG64([self.seed, index]))

    def _layout(self, rng: np.random.Generator) -> list[Figure]:
        """Return what the picture shows, back to front; all of it is drawn from `rng` before any pixel is."""
        figures: list[Figure] = []
        for _ in range(1 + below(rng, MAX_OBJECTS)):
            figures.append(_object(rng, figures, size=self.size))
        short = min(self.size)
        for _ in range(_few(rng, MAX_CLOUDS)):
            _insert(rng, figures, figure=cloud(rng, longest=between(rng, 0.1, 0.3) * short), size=self.size)
        figures = _visible(figures)
        for _ in range(_few(rng, MAX_BARS)):
            length, width = between(rng, 0.25, 0.75) * short, between(rng, 2.0, MAX_BAR)
            _insert(rng, figures, figure=bar(rng, length=length, width=width), size=self.size)
        return figures


def _few(rng: np.random.Generator, most: int) -> int:
    """Return a number in 0..most, the smaller the likelier."""
    return below(rng, 1 + below(rng, most + 1))


def _insert(rng: np.random.Generator, figures: list[Figure], *, figure: Figure, size: Size) -> None:
    """Put an occluder before all `figures` or, less often, somewhere between them."""
    depth = len(figures) if rng.random() < 0.6 else below(rng, len(figures) + 1)
    figures.insert(
        depth, replace(figure, centre=(between(rng, 0.0, float(size[1])), between(rng, 0.0, float(size[0]))))
    )


def _object(rng: np.random.Generator, others: list[Figure], *, size: Size) -> Figure:
    label = below(rng, len(CLASS_NAMES))
    growth = math.exp(between(rng, 0.0, math.log(MAX_LONGEST * min(size) / MIN_LONGEST)))
    # Rounded to a fraction with an exact binary form, since libraries differ in the last bit of exp.
    figure = compose(rng, label, longest=round(MIN_LONGEST * growth * 8) / 8)
    left, top, right, bottom = figure.reach
    margins = [reach + softness / 2 + 1 for reach, softness in zip(figure.reach, figure.softness, strict=True)]
    boxes = [other.box for other in others]
    x = y = 0.0
    for _ in range(PLACES):
        x, y = between(rng, margins[0], size[1] - margins[2]), between(rng, margins[1], size[0] - margins[3])
        box = (x - left, y - top, x + right, y + bottom)
        if all(_shared(box, other) < MAX_OVERLAP * min(_area(box), _area(other)) for other in boxes):
            break
    return replace(figure, centre=(x, y))


def _area(box: Sides) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shared(a: Sides, b: Sides) -> float:
    """Return the area that two boxes share."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _visible(figures: list[Figure]) -> list[Figure]:
    """Return `figures`, back to front, without the objects that those before them hide too much of.

    Should no object be left, the clouds go: then the foremost object is in full view, and no picture is empty.
    """
    kept: list[Figure] = []
    for figure in reversed(figures):
        if figure.label == NO_CLASS or _hidden(figure, kept) <= MAX_HIDDEN:
            kept.append(figure)
    objects = [figure for figure in figures if figure.label != NO_CLASS]
    return kept[::-1] if any(figure.label != NO_CLASS for figure in kept) else _visible(objects)


def _hidden(figure: Figure, others: list[Figure]) -> float:
    """Return the share of the figure's area that the others cover, from samples of its box.

    It is 0 where the boxes of the others alone show that it cannot exceed MAX_HIDDEN.
    """
    box = x1, y1, x2, y2 = figure.box
    shared = [_shared(box, other.box) for other in others]
    if sum(shared) <= MAX_HIDDEN * MIN_FILL * _area(box):
        return 0.0
    steps = (np.arange(SAMPLES, dtype=np.float32) + np.float32(0.5)) * np.float32(1 / SAMPLES)
    axes = (steps * np.float32(x2 - x1) + np.float32(x1), steps * np.float32(y2 - y1) + np.float32(y1))
    inside = distance(figure, axes) < 0
    covered = reduce(
        np.logical_or, (distance(other, axes) < 0 for other, area in zip(others, shared, strict=True) if area)
    )
    return np.count_nonzero(inside & covered) / np.count_nonzero(inside)


def _paint(rng: np.random.Generator, figures: list[Figure], *, size: Size) -> Bytes:
    """Return the picture of `figures`, back to front, on a background of its own."""
    backdrop = _background(rng, size)
    canvas = np.array(backdrop)
    for figure in figures:
        left, top, right, bottom = window = figure.window(size)
        under = canvas[:, top:bottom, left:right].astype(np.float32)
        skin = (
            _patch(rng, backdrop, window=window) if figure.label == NO_CLASS else _skin(rng, under, label=figure.label)
        )
        mixed = (skin - under) * coverage(figure, window)
        mixed += under
        # The half makes the cut to whole numbers round.
        canvas[:, top:bottom, left:right] = mixed + np.float32(0.5)
    return _noisy(rng, canvas, strength=below(rng, 9))


def _noisy(rng: np.random.Generator, canvas: Bytes, *, strength: int) -> Bytes:
    """Return (height, width, 3) of a (3, height, width) picture with even noise in -strength..strength, all grey."""
    size = canvas.shape[1], canvas.shape[2]
    ramp = np.arange(256) * (2 * strength + 1) // 256
    noise, middle = cv2.LUT(random_bytes(rng, size), ramp.astype(np.uint8)), np.full(size, strength, dtype=np.uint8)
    # Two sums of bytes that stop at 0 and 255 are much faster than one of signed numbers.
    planes = [cv2.subtract(cv2.add(canvas[channel], noise), middle) for channel in range(3)]
    return np.asarray(cv2.merge(planes), dtype=np.uint8)


def _background(rng: np.random.Generator, size: Size) -> Bytes:
    """Return a (3, height, width) picture: broad colours, and a finer texture laid over them."""
    # Half the size is fine enough here, and a quarter of the work.
    half = (size[0] + 1) // 2, (size[1] + 1) // 2
    canvas = _mix(_colour(rng), _colour(rng), share=texture(rng, half, names=("noise", "gradient", "ripples")))
    fine = texture(rng, half, names=("noise", "grain", "gradient", "stripes", "checks", "ripples"))
    fine *= np.float32(between(rng, 10.0, 60.0))
    fine += texture(rng, half, names=("grain",)) * np.float32(between(rng, 5.0, 40.0))
    canvas += _planes(_tint(rng, strength=1.0)) * (fine - np.float32(40))
    pixels = np.asarray(cv2.merge(list(canvas.clip(0, 255).astype(np.uint8))), dtype=np.uint8)
    return np.array(cv2.split(enlarge(pixels, size)), dtype=np.uint8)


def _skin(rng: np.random.Generator, under: Plane, *, label: int) -> Plane:
    """Return a (3, height, width) texture near the colour of a kind, that mostly stands out from what lies `under`."""
    sample = under[:, ::4, ::4].astype(np.int64)
    # Sums of integers do not depend on the order of summation, which differs between processors.
    ground: list[float] = (sample.sum(axis=(1, 2)) / sample[0].size).tolist()
    colour = _kind_colour(rng, label)
    for _ in range(2):
        if max(abs(one - other) for one, other in zip(colour, ground, strict=True)) > MIN_CONTRAST:
            break
        colour = _kind_colour(rng, label)
    shift = _tint(rng, strength=between(rng, 0.0, 60.0))
    second = [min(max(one + other, 0.0), 255.0) for one, other in zip(colour, shift, strict=True)]
    names = ("plain", "plain", "gradient", "ripples", "noise", "grain", "stripes", "checks")
    return _mix(colour, second, share=texture(rng, (under.shape[1], under.shape[2]), names=names))


def _patch(rng: np.random.Generator, backdrop: Bytes, *, window: Window) -> Plane:
    """Return a piece of the backdrop from elsewhere, a little lighter or darker, to fill `window`."""
    width, height = window[2] - window[0], window[3] - window[1]
    top = below(rng, backdrop.shape[1] - height + 1)
    left = below(rng, backdrop.shape[2] - width + 1)
    piece = backdrop[:, top : top + height, left : left + width]
    return (piece + _planes(_tint(rng, strength=between(rng, 0.0, 50.0)))).clip(0, 255)


def _colour(rng: np.random.Generator) -> list[float]:
    """Return an RGB colour in 0..255."""
    grey = between(rng, -70.0, 145.0)
    return [min(max(grey + 180 * chance, 5.0), 250.0) for chance in rng.random(3).tolist()]


def _kind_colour(rng: np.random.Generator, label: int) -> list[float]:
    """Return an RGB colour in 0..255 near the one that is typical of a kind."""
    grey = between(rng, -20.0, 20.0)
    strays = (60 * chance - 30 + grey for chance in rng.random(3).tolist())
    return [min(max(level + stray, 5.0), 250.0) for level, stray in zip(KIND_COLOURS[label], strays, strict=True)]


def _tint(rng: np.random.Generator, *, strength: float) -> list[float]:
    """Return a difference of two RGB colours, of about `strength` in each channel, mostly lightness."""
    signed = strength if rng.random() < 0.5 else -strength
    return [(0.4 + 1.2 * chance) * signed for chance in rng.random(3).tolist()]


def _planes(colour: list[float]) -> Plane:
    return np.array(colour, dtype=np.float32)[:, None, None]


def _mix(first: list[float], second: list[float], *, share: Plane) -> Plane:
    base = _planes(first)
    return (_planes(second) - base) * share + base
