"""A file beside its model: what both find in the same pictures, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import box_iou

from gfocal.data.collate import Prepared, pad
from gfocal.data.dataset import Dataset
from gfocal.evaluation import CocoEvaluator
from gfocal.exported import ExportedModel
from gfocal.exporting.certificate import Agreement, Difference
from gfocal.model import Model
from gfocal.predictor import Predictor
from gfocal.structures import Detections

IOU, SCORE = 0.9, 0.05
"""Overlap from where on, and difference of scores up to where two detections of a class are the same one."""

ROUNDS = 5
"""How often each side is timed, in turns."""


class Measured(NamedTuple):
    """What a comparison gives: of the model itself, and of each runtime.

    detections: that the model finds. ap: None without annotations. milliseconds: for the first picture.
    """

    detections: int
    ap: float | None
    milliseconds: float
    runtimes: tuple[Agreement, ...]


class Side(NamedTuple):
    """A file that is compared, and the precision it is asked for, None for its own."""

    file: ExportedModel
    precision: str | None

    @property
    def as_written(self) -> bool:
        """Whether it computes in the precision that the file was written in."""
        return self.precision == self.file.engine.closest

    @property
    def name(self) -> str:
        """What certificates call it."""
        name = self.file.engine.name
        return name if self.as_written else f"{name} in {self.precision}"


def compare(
    model: Model,
    files: Sequence[Side],
    dataset: Dataset,
    *,
    pictures: int,
    size: tuple[int, int] | None = None,
    score: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Measured:
    """Look at the first `pictures` of a data set with a model in float32 and with files made of it.

    size: as in `Predictor.predict`. score: whether the classes are those of the data set, so that there is an AP.
    progress: called with the number of pictures done.
    """
    prepare = model.prepare(size)
    sides = [_Side(model, "float32"), *(_Side(*side) for side in files)]
    found: list[list[Detections]] = [[] for _ in sides]
    evaluators = [CocoEvaluator(dataset.class_names) for _ in sides]
    for index in range(pictures):
        prepared = prepare(dataset.picture(index))
        for side, detections, evaluator in zip(sides, found, evaluators, strict=True):
            one = side.look(prepared)
            detections.append(one)
            if score:
                evaluator.add(dataset.truth(index), one)
        if progress is not None:
            progress(index + 1)
    aps = [_ap(evaluator) if score else None for evaluator in evaluators]
    first = prepare(dataset.picture(0))
    times = _milliseconds([partial(side.look, first) for side in sides])
    runtimes = tuple(
        _agreement(side, found[0], own, ap, spent)
        for side, own, ap, spent in zip(files, found[1:], aps[1:], times[1:], strict=True)
    )
    return Measured(sum(map(len, found[0])), aps[0], times[0], runtimes)


class _Side(NamedTuple):
    """One of those that are compared, and the precision it is asked for."""

    predictor: Predictor
    precision: str | None

    def look(self, prepared: Prepared) -> Detections:
        """Return what it finds in a picture."""
        images, sizes, scales = pad(prepared.image), [prepared.size], [prepared.scale]
        (found,) = self.predictor.find(images, sizes, scales=scales, precision=self.precision)
        return found


def _ap(evaluator: CocoEvaluator) -> float | None:
    metrics = evaluator.metrics()
    return float(metrics.ap) if metrics.num_boxes else None


def _milliseconds(lookers: Sequence[Callable[[], object]]) -> list[float]:
    """Return the median time that each takes, in turns, so that what disturbs one disturbs all."""
    spent: list[list[float]] = [[] for _ in lookers]
    for _ in range(ROUNDS):
        for look, times in zip(lookers, spent, strict=True):
            start = time.perf_counter()
            look()
            times.append(1000 * (time.perf_counter() - start))
    return [median(times) for times in spent]


def _agreement(
    side: Side, model: Sequence[Detections], own: Sequence[Detections], ap: float | None, spent: float
) -> Agreement:
    pairs = [(one, other, *matches(one, other)) for one, other in zip(model, own, strict=True)]
    both = sum(len(first) for *_, first, _ in pairs)
    total = sum(len(one) + len(other) for one, other, *_ in pairs)
    spreads = [
        one.edges[first].std - other.edges[second].std
        for one, other, first, second in pairs
        if one.edges is not None and other.edges is not None
    ]
    return Agreement(
        runtime=side.name,
        as_written=side.as_written,
        matched=2 * both / total if total else None,
        scores=_difference([one.scores[first] - other.scores[second] for one, other, first, second in pairs]),
        boxes=_difference([one.boxes[first] - other.boxes[second] for one, other, first, second in pairs]),
        edge_std=_difference(spreads) if spreads else None,
        ap=ap,
        milliseconds=spent,
    )


def matches(model: Detections, own: Detections) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Return which detections of one picture are the same, as rows of either: the best score takes its pick first.

    >>> one = Detections(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0.9]), torch.tensor([0]), ("cat",))
    >>> matches(one, one)
    (tensor([0]), tensor([0]))
    """
    alike = model.labels[:, None] == own.labels
    alike &= (model.scores[:, None] - own.scores).abs() <= SCORE
    overlap = box_iou(model.boxes, own.boxes)
    # boxes of no area overlap nothing, not even themselves
    overlap[(model.boxes[:, None] == own.boxes).all(dim=-1)] = 1.0
    overlap = overlap.masked_fill(~alike, 0.0)
    pairs: list[tuple[int, int]] = []
    for row, values in enumerate(overlap):
        best = int(values.argmax()) if len(own) else 0
        if len(own) and values[best] >= IOU:
            pairs.append((row, best))
            overlap[:, best] = 0.0
    rows = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _difference(parts: Sequence[Float[Tensor, "..."]]) -> Difference:
    values = torch.cat([part.flatten() for part in parts]).abs()
    if not len(values):
        return Difference(0.0, 0.0)
    return Difference(values.max().item(), values.median().item())
