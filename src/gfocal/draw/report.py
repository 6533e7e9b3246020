"""A report as one HTML file: pictures with boxes and edge distributions that can be filtered and chosen."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from gfocal.draw.embedding import jpeg_uri
from gfocal.draw.pictures import Points, class_colour, edge_profiles, rows, text_colour
from gfocal.files import whole_or_absent
from gfocal.structures import Detections, EdgeDistributions, Truth

_LOWEST_SCORE = 0.05
_MOST_BOXES = 50
_FIRST_THRESHOLD = 0.3
_LONGEST_SIDE = 1600  # pictures are stored no larger: the page must open on a phone


@dataclass(frozen=True)
class ReportPicture:
    """One picture of a report.

    picture: (h, w, 3) uint8 RGB; detections and truth are in its pixels. name tells it to a person.
    """

    name: str
    picture: NDArray[np.uint8]
    detections: Detections
    truth: Truth | None = None


def write_report(
    path: Path,
    *,
    title: str,
    pictures: Sequence[ReportPicture],
    summary: Mapping[str, str],
    class_rows: Sequence[tuple[str, float, int]] = (),
) -> None:
    """Write one HTML file that needs nothing else: no network, and scripts only to filter and choose boxes.

    summary: figures by name, in the order to show. class_rows: (class, AP in 0..1 or NaN where it has no boxes,
    number of boxes). Of each picture the 50 best detections above score 0.05 are kept. The file appears complete
    or not at all, its folder made. Raises UserError where it cannot be written.
    """
    shown = [_best(picture.detections) for picture in pictures]
    cards = [_card(index, picture, shown[index]) for index, picture in enumerate(pictures)]
    data = [_boxes_data(detections) for detections in shown]
    has_truth = any(picture.truth is not None for picture in pictures)
    page = Template(_part("report.html")).substitute(
        title=escape(title),
        style=_part("report.css"),
        script=_part("report.js"),
        summary="".join(_figure(name, value) for name, value in summary.items()),
        classes=_class_table(class_rows),
        threshold=_FIRST_THRESHOLD,
        lowest=_LOWEST_SCORE,
        truth_hidden="" if has_truth else " hidden",
        cards="\n".join(cards) or '<p class="empty">There are no pictures in this report.</p>',
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    )
    with whole_or_absent(path) as scratch:
        scratch.write_bytes(page.encode("utf-8", errors="replace"))  # names of files may hold what UTF-8 cannot


def _part(name: str) -> str:
    return resources.files("gfocal.draw").joinpath(name).read_text(encoding="utf-8")


def _best(detections: Detections) -> Detections:
    kept = detections[detections.scores > _LOWEST_SCORE]
    return kept[kept.scores.argsort(descending=True, stable=True)[:_MOST_BOXES]]


def _figure(name: str, value: str) -> str:
    kind = "figure long" if len(value) > 16 else "figure"
    return f'<div class="{kind}"><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>'


def _class_table(rows: Sequence[tuple[str, float, int]]) -> str:
    if not rows:
        return ""
    body = "".join(_class_row(*row) for row in rows)
    opened = " open" if len(rows) <= 12 else ""
    return (
        f'<details class="classes"{opened}><summary>Classes ({len(rows)})</summary><div class="scroll"><table>'
        '<thead><tr><th scope="col">Class</th><th scope="col" class="number">AP</th><td></td>'
        f'<th scope="col" class="number">Boxes</th></tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def _class_row(name: str, precision: float, boxes: int) -> str:
    known = not math.isnan(precision)
    bar = f'<span class="bar" style="width:{100 * min(max(precision, 0), 1):.1f}%"></span>' if known else ""
    text = f"{precision:.3f}" if known else '<abbr title="no boxes of this class">&ndash;</abbr>'
    return (
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{text}</td>'
        f'<td class="bars">{bar}</td><td class="number">{boxes}</td></tr>'
    )


def _card(index: int, picture: ReportPicture, shown: Detections) -> str:
    """Return the card of one picture: the picture, its boxes and profiles as SVG, their labels as text over it."""
    height, width = picture.picture.shape[:2]
    profiles = edge_profiles(shown, longest=max(height, width)) or [[] for _ in range(len(shown))]
    boxes = [_box(shown[row], row, profiles[row]) for row in range(len(shown))]
    tags = [_tag(shown[row], row, (height, width)) for row in range(len(shown))]
    truths = [] if picture.truth is None else rows(picture.truth.boxes)
    outlines = "".join(f"<rect {_rectangle(box)}/>" for box in truths)
    visible = int((shown.scores >= _FIRST_THRESHOLD).sum())
    name = escape(picture.name)
    uri = jpeg_uri(picture.picture, longest=_LONGEST_SIDE, quality=88, subsampling=0)
    return (
        f'<article class="card" data-picture="{index}" aria-labelledby="name-{index}"><header>'
        f'<h3 id="name-{index}">{name}</h3><p class="count">{visible} of {len(shown)} boxes</p></header>'
        f'<div class="stage" style="--ratio:{width / height:.5f}">'
        f'<img src="{uri}" alt="{name}" width="{width}" height="{height}">'
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="group" '
        f'aria-label="Boxes found in {name}"><g class="truth" aria-hidden="true">{outlines}</g>{"".join(boxes)}</svg>'
        f'<div class="tags" aria-hidden="true">{"".join(tags)}</div></div></article>'
    )


def _box(detection: Detections, row: int, profiles: Sequence[Points]) -> str:
    """Return one detection (one row) as an SVG group: outline and casing, then a path for each edge."""
    score, colour = float(detection.scores[0]), class_colour(int(detection.labels[0]))
    rectangle = _rectangle(rows(detection.boxes)[0])
    paths = "".join(f'<path class="edge" d="{_path(points)}"/>' for points in profiles)
    name = f"{escape(detection.names[0])} {score:.2f}"
    below = " below" if score < _FIRST_THRESHOLD else ""
    return (
        f'<g class="box{below}" data-row="{row}" style="--colour:{colour}" aria-label="{name}"><title>{name}</title>'
        f'<rect class="casing" {rectangle}/><rect class="line" {rectangle}/>{paths}</g>'
    )


def _tag(detection: Detections, row: int, size: tuple[int, int]) -> str:
    """Return the label of one detection: text over the picture, because text in the SVG would shrink with it."""
    left, top, right, _ = rows(detection.boxes)[0]
    score, colour = float(detection.scores[0]), class_colour(int(detection.labels[0]))
    height, width = size
    inside = " inside" if top < 0.07 * height else ""
    flush = " flush" if left > 0.7 * width else ""
    side = f"right:{_share(width - right, width)}%" if flush else f"left:{_share(left, width)}%"
    below = " below" if score < _FIRST_THRESHOLD else ""
    return (
        f'<span class="tag{below}{inside}{flush}" data-row="{row}" style="{side};top:{_share(top, height)}%;'
        f'z-index:{_MOST_BOXES - row};background:{colour};color:{text_colour(colour)}">'
        f"<b>{escape(detection.names[0])}</b> {score:.2f}</span>"
    )


def _share(part: float, whole: float) -> str:
    return _number(100 * min(max(part / whole, 0), 1))


def _rectangle(box: Sequence[float]) -> str:
    left, top, right, bottom = box
    return (
        f'x="{_number(left)}" y="{_number(top)}" '
        f'width="{_number(max(right - left, 0))}" height="{_number(max(bottom - top, 0))}"'
    )


def _path(points: Points) -> str:
    return "M" + "L".join(f"{_number(x)},{_number(y)}" for x, y in points.tolist()) + "Z"


def _number(value: float) -> str:
    return f"{round(value, 2):.7g}"


def _boxes_data(shown: Detections) -> list[dict[str, object]]:
    """Return what the script shows of each chosen box: text and, by edge, its distribution and figures of it."""
    edges = [None] * len(shown) if shown.edges is None else _edges_data(shown.edges)
    return [
        {
            "name": name,
            "score": round(float(shown.scores[row]), 4),
            "quality": None if shown.quality is None else round(float(shown.quality[row]), 4),
            "colour": class_colour(int(shown.labels[row])),
            "box": box,
            "edges": edges[row],
        }
        for row, (name, box) in enumerate(zip(shown.names, _rounded(shown.boxes, 2), strict=True))
    ]


def _edges_data(edges: EdgeDistributions) -> list[list[dict[str, object]]]:
    """Return the four edges of each box: positions in pixels, entropy in nats."""
    low, high = edges.interval(0.9)
    mean, std, lows, highs = (_rounded(value, 2) for value in (edges.mean, edges.std, low, high))
    start = _rounded(edges.positions[..., 0], 3)
    step = _rounded(edges.positions[..., 1] - edges.positions[..., 0], 3)
    entropy = _rounded(edges.entropy, 3)
    return [
        [
            {
                "mean": mean[row][edge],
                "std": std[row][edge],
                "interval": [lows[row][edge], highs[row][edge]],
                "entropy": entropy[row][edge],
                "start": start[row][edge],
                "step": step[row][edge],
                "probabilities": probabilities,
            }
            for edge, probabilities in enumerate(_rounded(edges.probabilities[row], 4))
        ]
        for row in range(len(edges))
    ]


def _rounded(values: Float[Tensor, "n k"], decimals: int) -> list[list[float]]:
    return [[round(value, decimals) for value in row] for row in rows(values)]
