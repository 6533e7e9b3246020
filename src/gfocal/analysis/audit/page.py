"""The audit as one HTML page that needs nothing else: the worst labels, each with its part of the picture."""

from __future__ import annotations

from collections import Counter
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt

from gfocal.analysis.audit.suspicions import EDGES, KINDS, Audit, Box, Suspicion
from gfocal.data.dataset import Dataset
from gfocal.draw.embedding import jpeg_uri
from gfocal.errors import UserError
from gfocal.files import whole_or_absent

MOST = 300
"""Suspicions on the page: each is a crop of some 15 kB."""
LONGEST = 360
"""Pixels of the longer side of a crop."""
AROUND = 0.6
"""Of the box's longer side, that is shown around it."""
LEAST_AROUND = 24.0
"""Pixels that are shown around a box at least."""


def write_page(path: str | Path, audit: Audit, dataset: Dataset | None = None, *, most: int = MOST) -> None:
    """Write the worst suspicions as one HTML file: no network, no script. Whole or not at all.

    dataset: the data set audited, for its pictures; where one cannot be read, and without, boxes are drawn on black.
    most: suspicions on the page. UserError where the file cannot be written.

    >>> import tempfile
    >>> from gfocal.analysis.audit import Audit, write_page
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_page(f"{folder}/audit.html", Audit("mine", pictures=10, boxes=25, suspicions=()))
    """
    shown = audit.suspicions[:most]
    pictures = _Pictures(dataset)
    # in the order of pictures, so that each is read once; then as ranked
    cards = {place: _card(place + 1, shown[place], pictures.of(shown[place].index))
             for place in sorted(range(len(shown)), key=lambda place: shown[place].index)}  # fmt: skip
    rest = len(audit.suspicions) - len(shown)
    counts = Counter(suspicion.kind for suspicion in shown)
    page = Template(_part("page.html")).substitute(
        title=escape(audit.data),
        style=_part("page.css"),
        filters="".join(f"body:has(#show-{kind}:not(:checked)) .{kind} {{ display: none; }}\n" for kind in KINDS),
        verdict=escape(audit.text().partition("\n")[0].removeprefix(f"{audit.data}: ")),
        kinds="".join(_filter(kind, counts[kind]) for kind in KINDS),
        cards="\n".join(cards[place] for place in range(len(shown))) or '<li class="none">Nothing is suspicious.</li>',
        rest=f'<p class="quiet">and {rest:,} more, which CSV and JSON hold</p>' if rest else "",
    )
    with whole_or_absent(Path(path)) as scratch:
        scratch.write_bytes(page.encode("utf-8", errors="replace"))  # names of files may hold what UTF-8 cannot


class _Pictures:
    """The pictures of a data set, the last one kept."""

    def __init__(self, dataset: Dataset | None) -> None:
        self._dataset = dataset
        self._last: tuple[int, npt.NDArray[np.uint8] | None] = (-1, None)

    def of(self, index: int) -> npt.NDArray[np.uint8] | None:
        """Return a picture, None where there is none to be read."""
        if self._dataset is None:
            return None
        if self._last[0] != index:
            try:
                self._last = (index, self._dataset.picture(index))
            except UserError:
                self._last = (index, None)
        return self._last[1]


def _part(name: str) -> str:
    return resources.files("gfocal.analysis.audit").joinpath(name).read_text(encoding="utf-8")


def _filter(kind: str, count: int) -> str:
    disabled = "" if count else " disabled"
    return f'<label><input type="checkbox" id="show-{kind}" checked{disabled}>{kind} ({count})</label>'


def _card(rank: int, suspicion: Suspicion, picture: npt.NDArray[np.uint8] | None) -> str:
    label = suspicion.label or suspicion.expected_label or ""
    told = f"{KINDS[suspicion.kind]}: {suspicion.why}"
    return (
        f'<li class="card {suspicion.kind}">{_crop(suspicion, picture, told)}<div class="words"><h2><span>{rank}. '
        f"{escape(suspicion.kind)}: {escape(label)}</span><b>{suspicion.score:.2f}</b></h2>"
        f'<p>{escape(told)}</p><p class="quiet">{escape(suspicion.place)}</p></div></li>'
    )


def _crop(suspicion: Suspicion, picture: npt.NDArray[np.uint8] | None, told: str) -> str:
    """Return the part of the picture around the boxes as SVG, with both drawn and the doubted edges marked."""
    boxes = [box for box in (suspicion.box, suspicion.expected_box) if box is not None]
    left, top, right, bottom = _window(boxes, None if picture is None else picture.shape[:2])
    image = ""
    if picture is not None:
        uri = jpeg_uri(picture[top:bottom, left:right], longest=LONGEST)
        image = f'<image href="{uri}" x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/>'
    drawn = ""
    for box, kind in ((suspicion.box, "annotated"), (suspicion.expected_box, "expected")):
        if box is not None:
            drawn += f'<rect class="casing" {_rectangle(box)}/><rect class="{kind}" {_rectangle(box)}/>'
    if suspicion.box is not None:
        drawn += "".join(f'<path d="{_edge(suspicion.box, edge)}"/>' for edge in suspicion.edges)
    return (
        f'<svg viewBox="{left} {top} {right - left} {bottom - top}" role="img" aria-label="{escape(told)}">'
        f"{image}{drawn}</svg>"
    )


def _window(boxes: list[Box], size: tuple[int, ...] | None) -> tuple[int, int, int, int]:
    """Return what is shown, whole pixels xyxy: the boxes and some of what is around them, within the picture."""
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    around = max(AROUND * max(right - left, bottom - top), LEAST_AROUND)
    low_x, low_y, high_x, high_y = (
        int(value) for value in (left - around, top - around, right + around + 1, bottom + around + 1)
    )
    if size is None:
        return low_x, low_y, high_x, high_y
    low_x, low_y = min(max(low_x, 0), size[1] - 1), min(max(low_y, 0), size[0] - 1)
    return low_x, low_y, max(min(high_x, size[1]), low_x + 1), max(min(high_y, size[0]), low_y + 1)


def _rectangle(box: Box) -> str:
    left, top, right, bottom = box
    return f'x="{left:.7g}" y="{top:.7g}" width="{max(right - left, 0):.7g}" height="{max(bottom - top, 0):.7g}"'


def _edge(box: Box, edge: str) -> str:
    left, top, right, bottom = box
    place = EDGES.index(edge)
    if place % 2 == 0:
        return f"M{box[place]:.7g},{top:.7g}V{bottom:.7g}"
    return f"M{left:.7g},{box[place]:.7g}H{right:.7g}"
