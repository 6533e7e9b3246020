"""Flaws of single boxes and of pairs of them, from the annotations alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gfocal.analysis.doctor.columns import Columns, Floats, Numbers
from gfocal.analysis.doctor.findings import MOST_EXAMPLES, Example, Flaws
from gfocal.data.collate import SMALLEST_SIDE

BEYOND = 0.5
"""Pixels beyond its picture from which a box counts as partly outside: less is rounding."""


def box_flaws(columns: Columns) -> Iterator[Flaws]:
    """Yield the flaws of the boxes of a split; a box is of one kind of size and place at most.

    Crowds are looked at too, for place and size; duplicates are sought among boxes that have an area.
    """
    sides = columns.boxes[:, 2:] - columns.boxes[:, :2]
    empty = (sides <= 0).any(1)
    thin = ~empty & (sides < SMALLEST_SIDE).any(1)
    inner = columns.clipped[:, 2:] - columns.clipped[:, :2]
    outside = ~empty & ~thin & (inner < SMALLEST_SIDE).any(1)
    partly = ~empty & ~thin & ~outside & (np.abs(columns.boxes - columns.clipped) > BEYOND).any(1)
    for kind, wrong in (("empty", empty), ("thin", thin), ("outside", outside), ("partly-outside", partly)):
        yield _flaws(columns, kind, np.flatnonzero(wrong))
    twice, other = _repeated(columns, np.flatnonzero(~empty))
    yield _flaws(columns, "duplicate", twice)
    yield _flaws(columns, "conflict", other)
    yield _flaws(columns, "crowd", np.flatnonzero(columns.crowd))


def pictures_without_boxes(columns: Columns) -> Flaws:
    """Return the pictures of a split without any box; none of a split that comes without annotations."""
    bare = [] if columns.without_annotations else np.flatnonzero(columns.counts() == 0).tolist()
    examples = [Example(columns.split, columns.files[index], index=index) for index in bare[:MOST_EXAMPLES]]
    return Flaws("no-boxes", len(bare), tuple(examples))


def _repeated(columns: Columns, rows: Numbers) -> tuple[Numbers, Numbers]:
    """Return which of `rows` repeat the label and box of an earlier row, and the first of each box of several labels.

    A crowd and an object that fill the same box are two things.
    """
    crowd = columns.crowd[rows].astype(np.float64)
    places = np.column_stack([columns.picture[rows], crowd, columns.boxes[rows]])
    labels = columns.labels[rows]
    order = np.lexsort((labels, *places.T))
    same_place = np.zeros(len(rows), dtype=bool)
    same_place[1:] = (places[order[1:]] == places[order[:-1]]).all(1)
    same = same_place.copy()
    same[1:] &= labels[order[1:]] == labels[order[:-1]]
    group = np.cumsum(~same_place) - 1
    kinds = np.bincount(group, weights=~same)
    first = order[~same_place]
    return np.sort(rows[order[same]]), np.sort(rows[first[kinds > 1]])


def _flaws(columns: Columns, kind: str, rows: Numbers) -> Flaws:
    return Flaws(kind, len(rows), tuple(_example(columns, row) for row in rows[:MOST_EXAMPLES].tolist()))


def _example(columns: Columns, row: int) -> Example:
    picture = int(columns.picture[row])
    name = columns.class_names[int(columns.labels[row])]
    height, width = columns.sizes[picture].tolist()
    detail = f"{name} {corners_text(columns.boxes[row])} in {width} x {height}"
    return Example(columns.split, columns.files[picture], int(columns.entry[row]), detail, picture)


def corners_text(box: Floats) -> str:
    """Return a box (4,) as its two corners in pixels."""
    left, top, right, bottom = (f"{value:.6g}" for value in box.tolist())
    return f"({left}, {top}) to ({right}, {bottom})"
