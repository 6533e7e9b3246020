"""What can be found in a data set: each kind of flaw with its weight, its words, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "note"]
"""What cannot be used or makes scores wrong; what costs accuracy; what may well be meant so."""

MOST_EXAMPLES = 100
"""Kept of each kind; the count is always of all."""


@dataclass(frozen=True)
class Example:
    """One place where a flaw was found.

    split: of the data set. file: name of the picture, or the annotation file and the place there; may be empty. entry:
    place of the box among those of its picture, from 0, or None where no box is meant. detail: what to see there.
    index: place of the picture in its split, or None where it is not in the data.
    """

    split: str
    file: str = ""
    entry: int | None = None
    detail: str = ""
    index: int | None = None

    def __str__(self) -> str:
        box = "" if self.entry is None else f" boxes[{self.entry}]"
        head = f"{self.file}{box}" if self.file else ""
        return f"{self.split}: " + ": ".join(part for part in (head, self.detail) if part)


@dataclass(frozen=True)
class Flaws:
    """Places of one kind of flaw: how many there are, and the first of them."""

    kind: str
    count: int
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Finding:
    """All flaws of one kind over all splits. what: number and kind in words. advice: what follows, what to do."""

    kind: str
    severity: Severity
    count: int
    what: str
    advice: str
    examples: tuple[Example, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Kind:
    """The words of a kind of flaw, for one of it and for several."""

    severity: Severity
    one: str
    many: str
    advice: str


def gather(flaws: Iterable[Flaws]) -> tuple[Finding, ...]:
    """Return a finding for each kind that has flaws, in the order of `KINDS`: the gravest first."""
    parts: dict[str, list[Flaws]] = {kind: [] for kind in KINDS}
    for part in flaws:
        parts[part.kind].append(part)
    return tuple(_finding(kind, found) for kind, found in parts.items() if sum(part.count for part in found))


def _finding(name: str, parts: list[Flaws]) -> Finding:
    kind, count = KINDS[name], sum(part.count for part in parts)
    examples = tuple(example for part in parts for example in part.examples)[:MOST_EXAMPLES]
    what = f"{count:,} {kind.one if count == 1 else kind.many}"
    return Finding(name, kind.severity, count, what, kind.advice, examples)


KINDS: Mapping[str, Kind] = {
    "malformed": Kind(
        "error", "entry cannot be read", "entries cannot be read", "left out; correct or remove what is named"
    ),
    "class": Kind(
        "error",
        "entry of an unknown class",
        "entries of unknown classes",
        "left out; correct the class, or add it to the list of classes",
    ),
    "reversed": Kind(
        "error",
        "box whose edges are reversed",
        "boxes whose edges are reversed",
        "left out; swap what should be left and right, or top and bottom",
    ),
    "picture": Kind(
        "error",
        "picture cannot be read",
        "pictures cannot be read",
        "training stops at such a file; replace it, or remove it with its annotation",
    ),
    "size": Kind(
        "error",
        "picture is of another size than annotated",
        "pictures are of another size than annotated",
        "training stops at such a file; give the picture that was annotated, or correct the annotation",
    ),
    "classes-differ": Kind(
        "error",
        "split with another list of classes",
        "splits with other lists of classes",
        "labels mean different things; give all splits the same classes with the same ids",
    ),
    "leak": Kind(
        "error",
        "picture in more than one split",
        "pictures in more than one split",
        "scores on what was learnt tell nothing; keep each in one split",
    ),
    "empty": Kind("warning", "box without area", "boxes without area", "never learnt, yet scored; remove or redraw"),
    "thin": Kind(
        "warning",
        "box under 1 pixel wide or high",
        "boxes under 1 pixel wide or high",
        "never learnt, yet scored; remove or redraw",
    ),
    "outside": Kind(
        "warning",
        "box outside of its picture",
        "boxes outside of their pictures",
        "under 1 pixel of it lies inside, so it is never learnt, yet scored; remove or redraw",
    ),
    "partly-outside": Kind(
        "warning",
        "box partly outside of its picture",
        "boxes partly outside of their pictures",
        "clipped in training but not when scored; draw it to the edge of the picture",
    ),
    "duplicate": Kind(
        "warning",
        "box annotated more than once",
        "boxes annotated more than once",
        "a detector finds it once, so the others count as missed; keep one",
    ),
    "conflict": Kind(
        "warning",
        "box with several classes",
        "boxes with several classes",
        "the same box, differently labelled; keep the right class",
    ),
    "class-missing": Kind(
        "warning",
        "class of one split without a box in another",
        "classes of one split without a box in another",
        "not learnt, or not scored there; add pictures of it, or split anew",
    ),
    "repeated": Kind(
        "warning",
        "picture repeated within its split",
        "pictures repeated within their splits",
        "counted twice; keep one, with the boxes of both",
    ),
    "clipped": Kind(
        "warning",
        "edge beyond the bins of the recipe",
        "edges beyond the bins of the recipe",
        "more than 1 % of what the bins should learn; give the box representation a larger n or delta",
    ),
    "class-unused": Kind(
        "note", "class without any box", "classes without any box", "remove it from the list unless boxes will follow"
    ),
    "no-boxes": Kind(
        "note", "picture without boxes", "pictures without boxes", "learnt as background; make sure nothing is on them"
    ),
    "crowd": Kind(
        "note", "box around a crowd", "boxes around crowds", "not learnt, and what is found in it is not scored"
    ),
}
