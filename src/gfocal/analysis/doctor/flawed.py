"""Pictures with their flawed boxes drawn, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from gfocal.analysis.doctor.findings import Example, Finding
from gfocal.data.dataset import Dataset
from gfocal.draw.embedding import jpeg_uri
from gfocal.errors import UserError
from gfocal.structures import Truth

SHOWN = 3
"""Pictures of a finding."""
LONGEST = 720
"""Pixels of the longer side that a picture is stored with: the page must open on a phone."""
MARGIN = 0.25
"""Of the picture's sides, that is shown around it where flawed boxes leave it."""
MARK = 0.02
"""Share of the picture's longer side under which a side of a flawed box makes a ring around it necessary."""


def flawed_pictures(finding: Finding, datasets: Mapping[str, Dataset]) -> str:
    """Return the first pictures of a finding that can be read, with what is wrong marked; "" where there are none."""
    groups: dict[tuple[str, int], list[Example]] = {}
    for example in finding.examples:
        if example.index is not None:
            groups.setdefault((example.split, example.index), []).append(example)
    cards: list[str] = []
    for (split, index), examples in groups.items():
        dataset = datasets[split]
        try:
            picture = dataset.picture(index)
        except UserError:
            continue  # the finding says why
        cards.append(_card(picture, dataset.truth(index), examples))
        if len(cards) == SHOWN:
            break
    return f'<div class="pictures">{"".join(cards)}</div>' if cards else ""


def _card(picture: npt.NDArray[np.uint8], truth: Truth, examples: Sequence[Example]) -> str:
    height, width = truth.size
    wrong = {example.entry for example in examples}
    boxes: list[list[float]] = truth.boxes.double().tolist()
    flawed = [box for place, box in enumerate(boxes) if place in wrong]
    left, top, right, bottom = _window(flawed, width, height)
    others = "".join(_rectangle(box) for place, box in enumerate(boxes) if place not in wrong)
    marks = "".join(_rectangle(box) + _ring(box, MARK * max(width, height)) for box in flawed)
    first = examples[0]
    details = list(dict.fromkeys(example.detail for example in examples if example.detail))[:SHOWN]
    caption = ": ".join(part for part in (f"{first.split} {truth.name}", "; ".join(details)) if part)
    uri = jpeg_uri(picture, longest=LONGEST)
    return (
        f'<figure><svg viewBox="{left:.7g} {top:.7g} {right - left:.7g} {bottom - top:.7g}" role="img" '
        f'aria-label="{escape(caption)}"><image href="{uri}" width="{width}" height="{height}"/>'
        f'<g class="other">{others}</g><g class="mark">{marks}</g></svg><figcaption>{escape(caption)}</figcaption>'
        "</figure>"
    )


def _window(boxes: Sequence[Sequence[float]], width: int, height: int) -> tuple[float, float, float, float]:
    """Return what is shown, xyxy pixels: the picture, and a margin of it where boxes leave it."""
    x, y = MARGIN * width, MARGIN * height
    left = max(min([0.0, *(box[0] - x / 8 for box in boxes if box[0] < 0)]), -x)
    top = max(min([0.0, *(box[1] - y / 8 for box in boxes if box[1] < 0)]), -y)
    right = min(max([width, *(box[2] + x / 8 for box in boxes if box[2] > width)]), width + x)
    bottom = min(max([height, *(box[3] + y / 8 for box in boxes if box[3] > height)]), height + y)
    return left, top, right, bottom


def _rectangle(box: Sequence[float]) -> str:
    left, top, right, bottom = box
    return f'<rect x="{left:.7g}" y="{top:.7g}" width="{right - left:.7g}" height="{bottom - top:.7g}"/>'


def _ring(box: Sequence[float], least: float) -> str:
    """Return a ring around a box that is too small to be seen."""
    left, top, right, bottom = box
    if min(right - left, bottom - top) >= least:
        return ""
    x, y = (left + right) / 2, (top + bottom) / 2
    rx, ry = (right - left) / 2 + least, (bottom - top) / 2 + least
    return f'<ellipse cx="{x:.7g}" cy="{y:.7g}" rx="{rx:.7g}" ry="{ry:.7g}"/>'
