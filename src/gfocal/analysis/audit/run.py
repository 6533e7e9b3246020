"""`gfocal.audit`: a detector's finds against the annotations of a data set, in one ranked list of suspicions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.analysis.audit.checks import (
    Deviations,
    Place,
    deviations,
    doubtful_edges,
    missed_boxes,
    repeated_boxes,
    spurious_boxes,
    swapped_classes,
)
from gfocal.analysis.audit.suspicions import Audit, Suspicion
from gfocal.data.dataset import Dataset
from gfocal.errors import UserError
from gfocal.heads import is_heads, open_annotations, open_heads
from gfocal.loading import load
from gfocal.predictor import Predictor
from gfocal.structures import Detections, Truth
from gfocal.testing import check_classes, detect

LEAST = 0.3
"""Score below which a suspicion is left out, unless told otherwise."""
ALIKE = 30
"""Annotations of the same class and nearest in size that say how surely boxes like one are found."""
MEDIAN = 0.6745
"""Of |x| for a normal distribution with deviation 1."""


def audit(
    source: str | Path | Predictor,
    data: str | Path | Dataset,
    *,
    split: str = "train",
    least: float = LEAST,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    precision: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Audit:
    """Return the labels of a data set that a detector finds hard to believe, the most suspicious first.

    source: what `gfocal.load` returns or takes, or an npz file of a head's arrays. data, split: as --data takes them,
    an open data set, or with an npz file a COCO JSON. least: score below which a suspicion is left out. name: what the
    audit calls the data set, None for data itself. progress: called with the number of pictures done. A detector
    doubts less what it was trained on: audit a split with a model of another where labels are to be trusted least.
    UserError where the classes are not the same.

    >>> import gfocal
    >>> found = gfocal.audit("heads.npz", "val.json")  # doctest: +SKIP
    >>> print(found.text())  # doctest: +SKIP
    """
    if name is None:
        name = str(data) if isinstance(data, str | Path) else "data"
    if is_heads(source):
        pairs: Iterable[tuple[Truth, Detections]] = open_heads(source, data, split=split)
    else:
        model = source if isinstance(source, Predictor) else load(source)
        dataset = open_annotations(data, split)
        check_classes(model.class_names, dataset.class_names, where=name)
        pairs = detect(model, dataset, size=size, precision=precision)
    return audit_pairs(pairs, name=name, least=least, progress=progress)


def audit_pairs(
    pairs: Iterable[tuple[Truth, Detections]],
    *,
    name: str = "data",
    least: float = LEAST,
    progress: Callable[[int], None] | None = None,
) -> Audit:
    """Return the audit of pictures whose truth and detections are given; UserError where there are none.

    >>> from gfocal import Detections
    >>> from gfocal.analysis.audit import audit_pairs
    >>> truth = Truth(1, "1.png", (20, 20), torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0) > 0)
    >>> found = Detections(torch.tensor([[2.0, 2, 9, 9]]), torch.tensor([0.9]), torch.tensor([0]), ("cat",))
    >>> print(audit_pairs([(truth, found)]).text())
    data: 0 boxes in 1 pictures, 1 missed
      0.90  missed     1.png: cat found with score 0.90, no annotation there
    """
    places: list[Place] = []
    for index, (truth, found) in enumerate(pairs):
        places.append(Place(index, truth, found.cpu()))
        if progress is not None:
            progress(index + 1)
    if not places:
        raise UserError(f"{name}: there is no picture to audit")
    edges = [deviations(place) for place in places]
    usual_edges = _usual_deviation([part for part in edges if part is not None])
    usual_support = _usual_support(places)
    suspicions: list[Suspicion] = []
    for place, part, support in zip(places, edges, usual_support, strict=True):
        found = [
            *(doubtful_edges(place, part, usual_edges) if part is not None else ()),
            *missed_boxes(place),
            *spurious_boxes(place, support),
            *swapped_classes(place),
            *repeated_boxes(place),
        ]
        suspicions += _worst_of_each([suspicion for suspicion in found if suspicion.score >= least])
    ranked = sorted(suspicions, key=lambda suspicion: -suspicion.score)
    boxes = sum(int((~place.truth.crowd).sum()) for place in places)
    return Audit(name, len(places), boxes, tuple(ranked))


def _worst_of_each(suspicions: list[Suspicion]) -> list[Suspicion]:
    """Return one suspicion for each annotation, its worst, and all of those about none."""
    worst: dict[int, Suspicion] = {}
    for suspicion in suspicions:
        if suspicion.annotation is not None:
            before = worst.get(suspicion.annotation)
            if before is None or suspicion.score > before.score:
                worst[suspicion.annotation] = suspicion
    return [suspicion for suspicion in suspicions if suspicion.annotation is None] + list(worst.values())


def _usual_deviation(parts: list[Deviations]) -> Float[Tensor, " 4"]:
    """Return what |deviation| over spread usually is for each edge, by the median: few wrong labels do not move it."""
    if not sum(len(part.found) for part in parts):
        return torch.ones(4)
    ratios = torch.cat([part.pixels.abs() / part.spread for part in parts])
    return (ratios.median(0).values / MEDIAN).clamp(min=0.1)


def _usual_support(places: list[Place]) -> list[Float[Tensor, " g"]]:
    """Return, for each annotation of each picture, the mean support of those of its class that are nearest in size."""
    support = torch.cat([place.support for place in places])
    labels = torch.cat([place.truth.labels for place in places])
    boxes = torch.cat([place.truth.boxes for place in places])
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(-1).clamp(min=1).log()
    usual = torch.zeros(len(labels))
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0]
        rows = rows[sizes[rows].argsort()]
        usual[rows] = _running_mean(support[rows], ALIKE)
    return list(usual.split([len(place.truth.labels) for place in places]))


def _running_mean(values: Float[Tensor, " n"], count: int) -> Float[Tensor, " n"]:
    """Return the mean of `count` neighbours of each value, itself among them, or of all where there are fewer."""
    count = min(count, len(values))
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    start = (torch.arange(len(values)) - count // 2).clamp(0, len(values) - count)
    return (sums[start + count] - sums[start]) / count
