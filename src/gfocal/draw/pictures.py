"""Pictures of detections: boxes, labels, and the distribution of each edge drawn where the edge lies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from gfocal.structures import Detections, Truth

# Okabe and Ito (2008), "Color Universal Design", without black: told apart with every kind of colour blindness.
# Ordered so that the first classes are also far apart in lightness.
PALETTE = ("#E69F00", "#56B4E9", "#F0E442", "#009E73", "#D55E00", "#CC79A7", "#0072B2")

_DARK = "#141414"
_READABLE_WIDTH = 640  # narrower pictures are enlarged until text on them can be read
_LARGEST_ENLARGED = 4096  # ... unless that makes a tall strip a picture nobody can open
_POINTS_A_BIN = 5  # enough for a curve to look smooth
_SUPERSAMPLING = 3  # PIL draws polygons without smoothing: draw them larger, then shrink

Points = NDArray[np.float64]


@dataclass(frozen=True)
class _Pen:
    """Sizes in pixels of the drawing: of a line, and the font of the labels."""

    line: int
    font: ImageFont.FreeTypeFont

    @classmethod
    def for_size(cls, size: tuple[int, int]) -> _Pen:
        import matplotlib as mpl  # only for its font: Pillow's own lacks most letters outside English

        longest = max(size)
        font = Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans-Bold.ttf"
        return cls(max(2, round(longest / 450)), ImageFont.truetype(str(font), max(12, round(longest / 64))))


def draw_detections(
    picture: NDArray[np.uint8],
    detections: Detections,
    *,
    edges: bool = True,
    threshold: float = 0.3,
    truth: Truth | None = None,
) -> Image.Image:
    """Draw the detections that score `threshold` (0..1) or more, with the distributions of their edges.

    picture: (h, w, 3) uint8 RGB, left unchanged. Boxes, in its pixels, have one colour a class and carry name and
    score. With `edges`, each edge that has a distribution carries it as a filled profile across the edge: its
    extent says where the edge may lie, its height is the probability. Truth boxes are thin white lines.
    The result has the picture's size, times a whole number where it is narrower than 640 pixels.
    """
    canvas, factor = _enlarged(picture)
    pen = _Pen.for_size(canvas.size)
    draw = ImageDraw.Draw(canvas)
    for box in [] if truth is None else rows(truth.boxes * factor):
        _outline(draw, box, colour="#FFFFFF", width=max(1, pen.line // 2), casing=max(1, pen.line // 2))
    shown = detections[detections.scores >= threshold]
    shown = shown[shown.scores.argsort(descending=True, stable=True)]
    boxes = rows(shown.boxes * factor)
    colours = [class_colour(int(label)) for label in shown.labels]
    for box, colour in reversed(list(zip(boxes, colours, strict=True))):  # the best lies on top
        _outline(draw, box, colour=colour, width=pen.line, casing=max(1, pen.line // 3))
    if edges:
        profiles = edge_profiles(shown, longest=max(picture.shape[:2]))
        for four, colour in reversed(list(zip(profiles, colours, strict=bool(profiles)))):
            for points in four:
                _fill(canvas, points * factor, colour=colour, line=max(1.0, pen.line / 2))
    names = [" ".join(name.split()) for name in shown.names]  # a label is one line
    texts = [f"{name} {float(score):.2f}" for name, score in zip(names, shown.scores, strict=True)]
    places = _label_places(canvas.size, boxes, texts, pen=pen)
    for place, text, colour in reversed(list(zip(places, texts, colours, strict=True))):
        _label(draw, place, text, colour=colour, pen=pen)
    return canvas


def class_colour(label: int) -> str:
    """Return the colour of a class as `#RRGGBB`, the same in every picture."""
    return PALETTE[label % len(PALETTE)]


def text_colour(background: str) -> str:
    """Return black or white as `#RRGGBB`, whichever has more contrast on the background (WCAG 2.2, 1.4.3)."""
    channels = np.array(ImageColor.getrgb(background)[:3]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "#000000" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "#FFFFFF"


def edge_profiles(detections: Detections, *, longest: float) -> list[list[Points]]:
    """Return the outline of each edge's distribution, four polygons (left, top, right, bottom) a box.

    Each is (points, 2) x, y in pixels of the picture, whose longer side is `longest`. It stands on a base through
    the middle of its edge and at right angles to it, over the bins that hold probability; its height is in
    proportion to the probability, on one scale for the four edges of a box. Empty without edges.
    """
    if detections.edges is None:
        return []
    boxes = _array(detections.boxes)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    certain = np.minimum(np.maximum(0.8 * np.sqrt(sides[:, 0] * sides[:, 1]), 0.05 * longest), 0.3 * longest)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    masses, places = _array(detections.edges.probabilities), _array(detections.edges.positions)
    result: list[list[Points]] = []
    for box in range(len(boxes)):
        curves = [_curve(places[box, edge], masses[box, edge] * certain[box]) for edge in range(4)]
        x, y = middles[box]
        result.append(
            [
                np.stack([along, y - up], 1) if edge % 2 == 0 else np.stack([x + up, along], 1)
                for edge, (along, up) in enumerate(curves)
            ]
        )
    return result


def rows(tensor: Float[Tensor, "n k"]) -> list[list[float]]:
    """Return the rows of a matrix as plain numbers."""
    return _array(tensor).tolist()


def _array(tensor: Tensor) -> Points:
    return tensor.detach().cpu().double().numpy()


def _curve(places: Points, heights: Points) -> tuple[Points, Points]:
    """Return a smooth curve through the bins (Fritsch and Butland's: no peak that the bins have not)."""
    order = np.argsort(places)
    held = np.flatnonzero(heights[order] >= 0.02 * heights.max())  # long empty tails would hide the picture
    order = order[held[0] : held[-1] + 1]
    step = abs(places[1] - places[0])
    along = np.concatenate([[places[order[0]] - step], places[order], [places[order[-1]] + step]])
    up = np.concatenate([[0.0], heights[order], [0.0]])
    slopes = np.diff(up)
    product = slopes[:-1] * slopes[1:]
    total = np.where(product > 0, slopes[:-1] + slopes[1:], 1.0)
    tangents = np.concatenate([[0.0], np.where(product > 0, 2 * product / total, 0.0), [0.0]])
    t: Points = np.linspace(0, 1, _POINTS_A_BIN, endpoint=False)[:, None]
    rise = t**2 * (3 - 2 * t)
    smooth = up[:-1] + rise * slopes + t * (1 - t) * ((1 - t) * tangents[:-1] - t * tangents[1:])
    fine = along[:-1] + t * np.diff(along)
    return np.append(np.ravel(fine, order="F"), along[-1]), np.append(np.ravel(smooth, order="F"), 0.0)


def _enlarged(picture: NDArray[np.uint8]) -> tuple[Image.Image, int]:
    height, width = picture.shape[:2]
    factor = max(1, min(math.ceil(_READABLE_WIDTH / width), _LARGEST_ENLARGED // max(height, width)))
    canvas = Image.fromarray(picture).convert("RGB")
    return canvas.resize((width * factor, height * factor), Image.Resampling.BICUBIC), factor


def _outline(draw: ImageDraw.ImageDraw, box: list[float], *, colour: str, width: int, casing: int) -> None:
    """Draw a box centred on its edges, with a dark casing that keeps it visible on any ground."""
    left, right = sorted(box[0::2])  # an untrained detector may put out the left edge right of the right one
    top, bottom = sorted(box[1::2])
    reach = width / 2 + casing
    draw.rectangle((left - reach, top - reach, right + reach, bottom + reach), outline=_DARK, width=width + 2 * casing)
    reach = width / 2
    draw.rectangle((left - reach, top - reach, right + reach, bottom + reach), outline=colour, width=width)


def _fill(canvas: Image.Image, points: Points, *, colour: str, line: float) -> None:
    """Fill a polygon half transparent, with a white outline in a dark casing."""
    margin = math.ceil(2 * line) + 1
    low = np.maximum(np.floor(points.min(0)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(points.max(0)).astype(int) + margin, canvas.size)
    if (high <= low).any():
        return
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    corners: list[tuple[float, float]] = [tuple(point) for point in ((points - low) * _SUPERSAMPLING).tolist()]
    closed = [*corners, corners[0], corners[1]]
    layers = ((_DARK, 0, 2.2 * line, 150), (colour, 165, 0.0, 0), ("#FFFFFF", 0, line, 255))
    for ink, inside, stroke, opacity in layers:
        mask = Image.new("L", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING))
        draw = ImageDraw.Draw(mask)
        draw.polygon(corners, fill=inside)
        if opacity:
            draw.line(closed, fill=opacity, width=max(1, round(stroke * _SUPERSAMPLING)), joint="curve")
        where = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        canvas.paste(ink, where, mask.resize(size, Image.Resampling.BOX))


def _label_places(
    size: tuple[int, int], boxes: list[list[float]], texts: list[str], *, pen: _Pen
) -> list[tuple[float, float, float, float]]:
    """Return a rectangle for each label, at its box, clear of the labels before it where there is room."""
    places: list[tuple[float, float, float, float]] = []
    for box, text in zip(boxes, texts, strict=True):
        width = pen.font.getlength(text) + pen.font.size * 0.6
        height = pen.font.size * 1.35
        candidates = list(_candidates(size, box, width, height))
        free = (place for place in candidates if not any(_meet(place, other) for other in places))
        places.append(next(free, candidates[0]))
    return places


def _candidates(
    size: tuple[int, int], box: list[float], width: float, height: float
) -> Iterator[tuple[float, float, float, float]]:
    """Yield where a label may go, best first: above the box, inside its top, below it; at its left or right."""
    left, top, right, bottom = box
    above = [top - height] if top >= height else []
    for y, x in product([*above, top, bottom], (left, right - width)):
        x0 = min(max(x, 0.0), max(size[0] - width, 0.0))
        y0 = min(max(y, 0.0), max(size[1] - height, 0.0))
        yield x0, y0, x0 + width, y0 + height


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _label(
    draw: ImageDraw.ImageDraw, place: tuple[float, float, float, float], text: str, *, colour: str, pen: _Pen
) -> None:
    draw.rounded_rectangle(place, radius=pen.font.size / 5, fill=colour)
    middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
    draw.text(middle, text, fill=text_colour(colour), font=pen.font, anchor="mm")
