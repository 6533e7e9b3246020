"""The checks of the audit, each of one picture: what is annotated against what was found.

Every check scores a suspicion in 0..1 as a product: how sure the detector is, times how little the label agrees with
it. That is what makes kinds comparable in one list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_iou

from gfocal.analysis.audit.suspicions import EDGES, Box, Suspicion, box_text
from gfocal.analysis.matching import Matched, match
from gfocal.structures import Detections, Truth

SAME_OBJECT = 0.5
"""IoU from where on two boxes are taken to stand for one object."""
HALF_AS_SURE = 0.5
"""Share of the best score about an annotation from where on another detection has a say about its edges."""
FREE = 0.3
"""IoU with every annotation below which a detection is taken to stand on its own."""
HALF = 4.0
"""Errors of an edge, in its usual ones, at which a suspicion is half of what it can become."""
TAIL = 0.05
"""Mass of a distribution beyond the annotation that takes the suspicion down to 1/e: a second peak is no mistake."""
SMALLEST_SHARE = 0.02
"""Of a box's side, that annotators are taken to be off anyway."""


@dataclass(frozen=True)
class Place:
    """One picture: its place in the data set, its annotation, and what was found in it."""

    index: int
    truth: Truth
    found: Detections

    @cached_property
    def overlaps(self) -> Float[Tensor, "n g"]:
        """IoU of each detection with each annotated box of any class."""
        return box_iou(self.found.boxes, self.truth.boxes).nan_to_num(nan=0.0)

    @cached_property
    def same_class(self) -> Bool[Tensor, "n g"]:
        """Whether a detection and an annotated box are of one class."""
        return self.found.labels[:, None] == self.truth.labels

    @cached_property
    def matched(self) -> Matched:
        """Which detection stands for which annotated box of its class."""
        return match(self.found, self.truth, iou=SAME_OBJECT)

    @cached_property
    def support(self) -> Float[Tensor, " g"]:
        """How sure the detector is that each annotation stands for something: the best score about it, of any class.

        Down to an IoU of 0.5 a score counts in full, below that in proportion.
        """
        return _best(self.found.scores[:, None] * (self.overlaps / SAME_OBJECT).clamp(max=1))

    def id_of(self, annotation: int) -> int | None:
        """Return what the file of the annotated box calls it, None where that is not known."""
        return None if self.truth.ids is None else int(self.truth.ids[annotation])

    def suspicion(
        self,
        kind: str,
        score: float,
        *,
        annotation: int | None,
        found: int | None,
        why: str,
        edges: tuple[str, ...] = (),
    ) -> Suspicion:
        """Return a suspicion about an annotated box, a detection, or both."""
        names = self.found.class_names
        return Suspicion(
            kind=kind,  # type: ignore[arg-type]  one of `KINDS`, by the checks below
            score=score,
            index=self.index,
            file=self.truth.name,
            image_id=self.truth.image_id,
            annotation=annotation,
            annotation_id=None if annotation is None else self.id_of(annotation),
            label=None if annotation is None else names[int(self.truth.labels[annotation])],
            box=None if annotation is None else _box(self.truth.boxes[annotation]),
            expected_label=None if found is None else names[int(self.found.labels[found])],
            expected_box=None if found is None else _box(self.found.boxes[found]),
            why=why,
            edges=edges,
        )


@dataclass(frozen=True)
class Deviations:
    """How far annotated edges lie from where detections expect them: m pairs of one picture that overlap enough.

    found, annotation: (m,) rows of both. pixels: (m, 4) from the mean to the annotation. spread: (m, 4) pixels, as the
    distribution and the size of the box have it. tail: (m, 4) mass of the distribution beyond the annotation, 0..0.5.
    """

    found: Int[Tensor, " m"]
    annotation: Int[Tensor, " m"]
    pixels: Float[Tensor, "m 4"]
    spread: Float[Tensor, "m 4"]
    tail: Float[Tensor, "m 4"]


def deviations(place: Place) -> Deviations | None:
    """Return the deviations of the edges of a picture, None where there are no distributions.

    A detection is held against the annotation of its class that it overlaps most; the best of an annotation comes
    first of those about it.
    """
    if place.found.edges is None:
        return None
    overlaps = place.overlaps * (place.same_class & ~place.truth.crowd)
    if overlaps.numel():
        best, annotation = overlaps.max(1)
    else:
        best, annotation = overlaps.new_zeros(len(overlaps)), torch.zeros(len(overlaps), dtype=torch.long)
    rows = (best >= SAME_OBJECT).nonzero()[:, 0]
    rows = rows[place.found.scores[rows].argsort(descending=True, stable=True)]
    annotation = annotation[rows]
    boxes, edges = place.truth.boxes[annotation], place.found.edges[rows]
    height, width = place.truth.size
    # what is annotated at the border of the picture may go on beyond it, where the detector sees nothing
    limit = boxes.new_tensor([width, height, width, height])
    expected = edges.mean.clamp(min=0).minimum(limit)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    spread = (edges.variance + (SMALLEST_SHARE * sides).square()).sqrt()
    below = edges.cdf(boxes)
    at_border = ((boxes <= 0) & (edges.mean <= 0)) | ((boxes >= limit) & (edges.mean >= limit))
    tail = torch.minimum(below, 1 - below).where(~at_border, 0.5)
    return Deviations(rows, annotation, boxes - expected, spread, tail)


def doubtful_edges(place: Place, deviations: Deviations, usual: Float[Tensor, " 4"]) -> Iterator[Suspicion]:
    """Yield annotated boxes with an edge in the far tail of its distribution, in all detections that know of it.

    usual: (4,) what |deviation| / spread usually is for each edge over the data set, the median over 0.6745, so that a
    detector that is too sure of itself does not doubt everything.
    """
    away = deviations.pixels.abs() / (deviations.spread * usual)
    fourth = away.pow(4)
    doubt = fourth / (fourth + HALF**4) * (-deviations.tail / TAIL).exp()
    scores = place.found.scores[deviations.found]
    for annotation in deviations.annotation.unique().tolist():
        rows = (deviations.annotation == annotation).nonzero()[:, 0]
        best = int(rows[0])
        # where a detection that is half as sure agrees with the annotation, the detector has no one opinion
        agreed = doubt[rows[scores[rows] >= HALF_AS_SURE * scores[best]]].amin(0)
        edge = int(agreed.argmax())
        doubted = tuple(name for name, value in zip(EDGES, agreed.tolist(), strict=True) if value > 0.5)
        off = float(deviations.pixels[best, edge])
        why = (
            f"{EDGES[edge]} edge {abs(off):.1f} px {_side(edge, off)} of where it is expected, "
            f"{float(away[best, edge]):.1f} times what is usual, "
            f"{100 * float(deviations.tail[best, edge]):.1f} % of the mass beyond"
        )
        yield place.suspicion(
            "edge",
            float(scores[best] * agreed[edge]),
            annotation=annotation,
            found=int(deviations.found[best]),
            why=why,
            edges=doubted or (EDGES[edge],),
        )


def missed_boxes(place: Place) -> Iterator[Suspicion]:
    """Yield detections that overlap no annotation, nor a better such detection: one for each object."""
    most = place.overlaps.amax(1) if place.overlaps.shape[1] else torch.zeros(len(place.found))
    free = (most < FREE) & ~place.matched.ignored
    taken = place.found.boxes[:0]
    for row in free.nonzero()[:, 0].tolist():
        box = place.found.boxes[row : row + 1]
        if len(taken) and float(box_iou(box, taken).max()) > FREE:
            continue
        taken = torch.cat([taken, box])
        score = float(place.found.scores[row]) * (1 - float(most[row]) / SAME_OBJECT)
        name = place.found.names[row]
        why = f"{name} found with score {float(place.found.scores[row]):.2f}, no annotation there"
        yield place.suspicion("missed", score, annotation=None, found=row, why=why)


def spurious_boxes(place: Place, usual: Float[Tensor, " g"]) -> Iterator[Suspicion]:
    """Yield annotations that nothing was found about. usual: (g,) support of annotations like each (0..1)."""
    scores = usual * (1 - place.support)
    for row in (~place.truth.crowd).nonzero()[:, 0].tolist():
        why = (
            f"nothing better than {float(place.support[row]):.2f} found here, where boxes of its class and size are "
            f"found with {float(usual[row]):.2f}"
        )
        yield place.suspicion("spurious", float(scores[row]), annotation=row, found=None, why=why)


def swapped_classes(place: Place) -> Iterator[Suspicion]:
    """Yield annotations about which another class is found than the annotated, and the annotated one hardly."""
    about = place.overlaps >= SAME_OBJECT
    free = place.matched.truth[:, None] < 0  # a detection that stands for a neighbour says nothing of this box
    other = place.found.scores[:, None] * (about & ~place.same_class & free)
    own = _best(place.found.scores[:, None] * (about & place.same_class))
    best = _best(other)
    for row in ((best > own) & ~place.truth.crowd).nonzero()[:, 0].tolist():
        found = int(other[:, row].argmax())
        why = (
            f"{place.found.names[found]} found here with score {float(best[row]):.2f}, "
            f"{place.found.class_names[int(place.truth.labels[row])]} with {float(own[row]):.2f}"
        )
        score = float(best[row]) * (1 - float(own[row]) / float(best[row]))
        yield place.suspicion("class", score, annotation=row, found=found, why=why)


def repeated_boxes(place: Place) -> Iterator[Suspicion]:
    """Yield the later of two annotations of one class that overlap, where the detector finds but one object."""
    boxes, labels = place.truth.boxes, place.truth.labels
    overlaps = box_iou(boxes, boxes).nan_to_num(nan=0.0)
    single = ~place.truth.crowd
    pairs = (labels[:, None] == labels) & single[:, None] & single & (overlaps >= SAME_OBJECT)
    found = torch.zeros(len(boxes))
    hit = place.matched.truth >= 0
    found[place.matched.truth[hit]] = place.found.scores[hit]
    best: dict[int, tuple[float, int]] = {}
    for first, second in pairs.triu(diagonal=1).nonzero().tolist():
        score = float(overlaps[first, second]) * (1 - float(torch.minimum(found[first], found[second])))
        best[second] = max(best.get(second, (0.0, -1)), (score, first))
    for second, (score, first) in best.items():
        other = box_text(first, place.id_of(first))
        why = (
            f"overlaps {other} of the same class by {float(overlaps[first, second]):.2f}, and no second object is "
            f"found better than {float(torch.minimum(found[first], found[second])):.2f}"
        )
        yield place.suspicion("duplicate", score, annotation=second, found=None, why=why)


def _best(scores: Float[Tensor, "n g"]) -> Float[Tensor, " g"]:
    """Return the highest score of each annotation, 0 where nothing was found."""
    return scores.amax(0) if len(scores) else scores.new_zeros(scores.shape[1])


def _box(box: Float[Tensor, " 4"]) -> Box:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom


def _side(edge: int, off: float) -> str:
    return ("left", "right")[off > 0] if edge % 2 == 0 else ("above", "below")[off > 0]
