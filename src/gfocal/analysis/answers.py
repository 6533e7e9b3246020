"""Whether a faster way to compute gives the same answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from gfocal.data.dataset import Dataset
from gfocal.devices import choose_precision, precision_name
from gfocal.evaluation import CocoEvaluator
from gfocal.exporting.comparing import matches
from gfocal.model import Model
from gfocal.testing import detect, open_for


@dataclass(frozen=True)
class Answers:
    """What a model finds in a precision beside what it finds in float32.

    matched: share of the detections of both that the other has, too (same label, IoU 0.9 at least, scores within 0.05).
    box: median distance of matching edges in pixels. edge_std: median relative difference of their standard deviations,
    None without distributions. ap, ap_float32: on the same pictures, NaN where nothing is annotated.
    """

    precision: str
    pictures: int
    detections: int
    matched: float
    box: float
    edge_std: float | None
    ap: float
    ap_float32: float

    def text(self) -> str:
        """Return one line for people."""
        std = "" if self.edge_std is None else f", edge std within {self.edge_std:.2%} at the median"
        return (
            f"{self.precision} beside float32 on {self.pictures} pictures, {self.detections} detections: "
            f"AP {100 * self.ap:.2f} and {100 * self.ap_float32:.2f}, {self.matched:.2%} matched, "
            f"edges within {self.box:.3f} px at the median{std}"
        )


def same_answers(
    model: Model,
    data: str | Path | Dataset,
    *,
    split: str = "val",
    pictures: int | None = None,
    precision: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Answers:
    """Compare a model's detections in `precision` (None: the fastest here) with those in float32.

    data: what --data takes, or an open data set of the model's classes. pictures: the first so many, None for all.
    progress: called with the number of pictures done.
    """
    dataset = open_for(model, data, split)
    sides = [detect(model, dataset, precision=name) for name in (precision, "float32")]
    evaluators = [CocoEvaluator(dataset.class_names) for _ in sides]
    count = kept = seen = 0
    edges: list[Tensor] = []
    spreads: list[Tensor] = []
    for (truth, one), (_, other) in islice(zip(*sides, strict=True), pictures):
        for evaluator, found in zip(evaluators, (one, other), strict=True):
            evaluator.add(truth, found)
        first, second = matches(one, other)
        count, kept, seen = count + len(one) + len(other), kept + 2 * len(first), seen + 1
        edges.append((one.boxes[first] - other.boxes[second]).abs().flatten())
        if one.edges is not None and other.edges is not None:
            spreads.append((one.edges.std[first] / other.edges.std[second] - 1).abs().flatten())
        if progress is not None:
            progress(seen)
    ap, ap_float32 = (evaluator.metrics().ap for evaluator in evaluators)
    return Answers(
        precision=precision_name(choose_precision(precision, model.device)),
        pictures=seen,
        detections=count // 2,
        matched=kept / count if count else 1.0,
        box=_median(edges),
        edge_std=_median(spreads) if spreads else None,
        ap=ap,
        ap_float32=ap_float32,
    )


def _median(parts: list[Tensor]) -> float:
    values = torch.cat(parts)
    return values.median().item() if len(values) else 0.0
