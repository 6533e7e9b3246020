"""What the audit reports: suspicions in one ranked list, as plain values, as text, and as CSV and JSON files."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from gfocal.errors import encodable
from gfocal.files import whole_or_absent

Kind = Literal["edge", "missed", "spurious", "duplicate", "class"]
Box = tuple[float, float, float, float]

KINDS: Mapping[Kind, str] = {
    "edge": "an edge lies where the detector gives it next to no probability",
    "missed": "an object seems to have no annotation",
    "spurious": "an annotation seems to stand for nothing",
    "duplicate": "two annotations seem to stand for one object",
    "class": "an annotation seems to be of another class",
}
"""The kinds of suspicion, and what each says."""
EDGES = ("left", "top", "right", "bottom")
SHOWN = 10
"""Suspicions in the text."""
COLUMNS = (
    *("rank", "score", "kind", "file", "image_id", "annotation", "annotation_id", "label", *EDGES),
    *("expected_label", *(f"expected_{side}" for side in EDGES), "edges", "why"),
)
"""The head of the CSV file."""


@final
@dataclass(frozen=True)
class Suspicion:
    """One label to look at.

    score: 0..1, from which all kinds are ranked together. index: of the picture in the data set; file, image_id: which
    that is. annotation: place of the box among those of its picture in the data set, from 0, None for a missed one.
    annotation_id: what its own file calls it, None where that is not known (see `Truth`). label, box: as annotated,
    xyxy pixels, None for a missed one. expected_label, expected_box: what the detector found there, None where it found
    nothing. edges: names of the edges that are doubted. why: in words.
    """

    kind: Kind
    score: float
    index: int
    file: str
    image_id: int
    annotation: int | None
    annotation_id: int | None
    label: str | None
    box: Box | None
    expected_label: str | None
    expected_box: Box | None
    why: str
    edges: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The picture, and which of its boxes."""
        return self.file if self.annotation is None else f"{self.file}, {box_text(self.annotation, self.annotation_id)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the suspicion as plain values."""
        return {
            "kind": self.kind,
            "score": round(self.score, 4),
            "file": self.file,
            "image_id": self.image_id,
            "annotation": self.annotation,
            "annotation_id": self.annotation_id,
            "label": self.label,
            "box": _rounded(self.box),
            "expected_label": self.expected_label,
            "expected_box": _rounded(self.expected_box),
            "edges": list(self.edges),
            "why": self.why,
        }


@final
@dataclass(frozen=True)
class Audit:
    """What the audit found. data: how the data set was named. suspicions: the worst first. boxes: looked at.

    >>> from gfocal.analysis.audit import Audit
    >>> print(Audit("mine", pictures=10, boxes=25, suspicions=()).text())
    mine: 25 boxes in 10 pictures, nothing suspicious
    """

    data: str
    pictures: int
    boxes: int
    suspicions: tuple[Suspicion, ...]

    def of_kind(self, kind: Kind) -> tuple[Suspicion, ...]:
        """Return the suspicions of one kind, the worst first.

        >>> from gfocal.analysis.audit import Audit
        >>> Audit("mine", pictures=10, boxes=25, suspicions=()).of_kind("edge")
        ()
        """
        return tuple(suspicion for suspicion in self.suspicions if suspicion.kind == kind)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, which JSON can hold.

        >>> from gfocal.analysis.audit import Audit
        >>> Audit("mine", pictures=10, boxes=25, suspicions=()).to_dict()["boxes"]
        25
        """
        return {
            "data": self.data,
            "pictures": self.pictures,
            "boxes": self.boxes,
            "suspicions": [suspicion.to_dict() for suspicion in self.suspicions],
        }

    def text(self) -> str:
        """Return how many suspicions of each kind there are, and the worst in lines."""
        counts = Counter(suspicion.kind for suspicion in self.suspicions)
        told = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) or "nothing suspicious"
        lines = [f"{self.data}: {self.boxes:,} boxes in {self.pictures:,} pictures, {told}"]
        for suspicion in self.suspicions[:SHOWN]:
            lines.append(f"  {suspicion.score:.2f}  {suspicion.kind:<9}  {suspicion.place}: {suspicion.why}")
        if len(self.suspicions) > SHOWN:
            lines.append(f"  and {len(self.suspicions) - SHOWN:,} more")
        return encodable("\n".join(lines))

    def write_json(self, path: str | Path) -> None:
        """Write the audit as JSON, whole or not at all; UserError where that cannot be done.

        >>> import tempfile
        >>> from gfocal.analysis.audit import Audit
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Audit("mine", pictures=10, boxes=25, suspicions=()).write_json(f"{folder}/audit.json")
        """
        with whole_or_absent(Path(path)) as scratch:
            scratch.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")

    def write_csv(self, path: str | Path) -> None:
        """Write one row a suspicion as CSV, whole or not at all; UserError where that cannot be done.

        >>> import tempfile
        >>> from gfocal.analysis.audit import Audit
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Audit("mine", pictures=10, boxes=25, suspicions=()).write_csv(f"{folder}/audit.csv")
        """
        with (
            whole_or_absent(Path(path)) as scratch,
            scratch.open("w", newline="", encoding="utf-8", errors="replace") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for rank, suspicion in enumerate(self.suspicions, start=1):
                writer.writerow(_row(rank, suspicion))


def box_text(annotation: int, annotation_id: int | None) -> str:
    """Return how a person is told of an annotated box: its place in the picture, and its id where that is known."""
    return f"box {annotation}" if annotation_id is None else f"box {annotation} (id {annotation_id})"


def _row(rank: int, suspicion: Suspicion) -> list[object]:
    nothing = [""] * 4
    return [
        rank,
        round(suspicion.score, 4),
        suspicion.kind,
        suspicion.file,
        suspicion.image_id,
        "" if suspicion.annotation is None else suspicion.annotation,
        "" if suspicion.annotation_id is None else suspicion.annotation_id,
        suspicion.label or "",
        *(_rounded(suspicion.box) or nothing),
        suspicion.expected_label or "",
        *(_rounded(suspicion.expected_box) or nothing),
        " ".join(suspicion.edges),
        suspicion.why,
    ]


def _rounded(box: Box | None) -> list[float] | None:
    return None if box is None else [round(value, 2) for value in box]
