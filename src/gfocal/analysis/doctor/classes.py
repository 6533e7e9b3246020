"""Flaws of the classes: lists that differ from split to split, classes that a split lacks or nobody uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gfocal.analysis.doctor.columns import Columns
from gfocal.analysis.doctor.findings import Example, Flaws


def class_flaws(splits: Sequence[Columns]) -> Iterator[Flaws]:
    """Yield the flaws of the classes over all splits.

    A class that is not on the list of a split is told once, as a difference of lists, not as one without boxes there.
    Splits without any box say nothing of classes.
    """
    different = [example for other in splits[1:] for example in _difference(splits[0], other)]
    yield Flaws("classes-differ", len(different), tuple(different))
    with_boxes = [columns for columns in splits if len(columns.boxes)]
    counts = {columns.split: class_counts(columns) for columns in with_boxes}
    numbers = {
        name: number for c in reversed(splits) for name, number in zip(c.class_names, c.category_ids, strict=True)
    }
    firsts = {name: columns.split for columns in reversed(splits) for name in columns.class_names}
    missing: list[Example] = []
    unused: list[Example] = []
    for name, number in numbers.items():
        used = {split: count[name] for split, count in counts.items() if count.get(name)}
        title = f"{name} (id {number})"
        if not used:
            unused.append(Example(firsts[name], detail=title))
            continue
        seen = ", ".join(f"{count:,} in {split}" for split, count in used.items())
        lacking = [split for split, count in counts.items() if name in count and split not in used]
        missing += [Example(split, detail=f"no box of {title}, {seen}") for split in lacking]
    yield Flaws("class-missing", len(missing), tuple(missing))
    yield Flaws("class-unused", len(unused) if with_boxes else 0, tuple(unused))


def class_counts(columns: Columns) -> dict[str, int]:
    """Return the number of boxes of each class of the split's list, crowds left out."""
    counts = np.bincount(columns.labels[~columns.crowd], minlength=len(columns.class_names))
    return dict(zip(columns.class_names, counts.tolist(), strict=True))


def _difference(first: Columns, other: Columns) -> Iterator[Example]:
    """Yield how the list of classes of a split differs from that of the first."""
    ours = dict(zip(first.class_names, first.category_ids, strict=True))
    theirs = dict(zip(other.class_names, other.category_ids, strict=True))
    parts = [f"lacks {name!r} of {first.split}" for name in ours if name not in theirs]
    parts += [f"has {name!r}, which {first.split} has not" for name in theirs if name not in ours]
    parts += [
        f"calls {name!r} {theirs[name]} and {first.split} {number}"
        for name, number in ours.items()
        if name in theirs and theirs[name] != number
    ]
    if parts:
        yield Example(other.split, detail="; ".join(parts[:5]) + (f"; and {len(parts) - 5} more" * (len(parts) > 5)))
