"""COCO metrics of detections against the truth."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np
import numpy.typing as npt

from gfocal.structures import Detections, Truth

STAT_NAMES = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)
"""The figures of COCO's summary, in its order."""
_AREA_BOUNDS = (0, 32**2, 96**2, 1e5**2)
"""Of small, medium and large boxes, in square pixels."""


@dataclass(frozen=True)
class ClassMetrics:
    """One row of the class table; ap and ap50 in 0..1, NaN for a class without boxes."""

    name: str
    ap: float
    ap50: float
    boxes: int


@dataclass(frozen=True)
class Metrics:
    """COCO's twelve figures, each in 0..1 and NaN where no box counts towards it, and a row for each class.

    ap: mean over the IoU thresholds .50 to .95; ap50, ap75: at one; ap_small, ap_medium, ap_large: for areas up to
    32², up to 96² and beyond; ar1, ar10, ar100: highest recall with so many boxes a picture.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    classes: tuple[ClassMetrics, ...]
    num_pictures: int
    num_boxes: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; NaN becomes None."""
        return _plain(asdict(self))

    def table(self) -> str:
        """Return the figures as text, in percent: one line for AP, one for AR, then the class table."""
        head = "  ".join(f"{name.upper().replace('_', ' ')} {_percent(getattr(self, name))}" for name in STAT_NAMES[:6])
        recall = "  ".join(
            f"{name.upper().replace('_', ' ')} {_percent(getattr(self, name))}" for name in STAT_NAMES[6:]
        )
        width = max(len("class"), *(len(row.name) for row in self.classes))
        rows = [f"{'class':<{width}}  {'boxes':>7}  {'AP':>5}  {'AP50':>5}"]
        rows += [
            f"{row.name:<{width}}  {row.boxes:>7}  {_percent(row.ap)}  {_percent(row.ap50)}" for row in self.classes
        ]
        return "\n".join([f"{self.num_pictures} pictures, {self.num_boxes} boxes", head, recall, *rows])


@final
class CocoEvaluator:
    """Collects truths and detections picture by picture, then scores them all; classes by label."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._results: list[npt.NDArray[np.float64]] = []

    def add(self, truth: Truth, detections: Detections) -> None:
        """Take in one picture, boxes of both in its own pixels."""
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, "height": truth.size[0], "width": truth.size[1]})
        boxes = truth.boxes.double().numpy()
        sides = boxes[:, 2:] - boxes[:, :2]
        areas = sides.prod(axis=1) if truth.areas is None else truth.areas.double().numpy()
        for box, side, area, label, crowd in zip(boxes, sides, areas, truth.labels, truth.crowd, strict=True):
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(label) + 1,
                    "bbox": [*box[:2].tolist(), *side.tolist()],
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
        found = detections.boxes.double().cpu().numpy()
        rows = np.empty((len(found), 7))
        rows[:, 0] = image_id
        rows[:, 1:3] = found[:, :2]
        rows[:, 3:5] = found[:, 2:] - found[:, :2]
        rows[:, 5] = detections.scores.double().cpu().numpy()
        rows[:, 6] = detections.labels.cpu().numpy() + 1
        self._results.append(rows)

    def metrics(self) -> Metrics:
        """Return the figures over all pictures so far, at least one."""
        from faster_coco_eval import COCO, COCOeval_faster  # it takes a second to load

        categories = [{"id": i + 1, "name": name} for i, name in enumerate(self.class_names)]
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its own summary
            truth = COCO({"images": self._images, "annotations": self._annotations, "categories": categories})
            results = np.concatenate(self._results)
            if not len(results) or not self._annotations:
                return self._without_evidence()
            score = COCOeval_faster(truth, truth.loadRes(results), iouType="bbox")
            score.evaluate()
            score.accumulate()
            score.summarize()
        figures = [value if value >= 0 else float("nan") for value in map(float, score.stats[:12])]
        return self._metrics(figures, np.asarray(score.eval["precision"]))

    def _without_evidence(self) -> Metrics:
        """Return 0 for every figure where nothing was found, NaN where there is nothing to find."""
        wanted = [annotation for annotation in self._annotations if not annotation["iscrowd"]]
        # COCO counts an area on a bound to both of its sides
        areas = [any(low <= one["area"] <= high for one in wanted) for low, high in pairwise(_AREA_BOUNDS)]
        counted = [any(wanted)] * 3 + areas
        nothing = np.full((10, 101, len(self.class_names), 4, 3), -1.0)
        for annotation in wanted:
            nothing[:, :, annotation["category_id"] - 1] = 0.0
        return self._metrics([0.0 if there else float("nan") for there in counted * 2], nothing)

    def _metrics(self, figures: Sequence[float], precision: npt.NDArray[np.float64]) -> Metrics:
        """Return the figures with the class table. precision: (IoU, recall, class, area, limit), -1 for no box."""
        labels = [annotation["category_id"] - 1 for annotation in self._annotations if not annotation["iscrowd"]]
        counts = np.bincount(labels, minlength=len(self.class_names))
        rows = [
            ClassMetrics(
                name, _mean(precision[:, :, label, 0, -1]), _mean(precision[0, :, label, 0, -1]), int(counts[label])
            )
            for label, name in enumerate(self.class_names)
        ]
        return Metrics(
            **dict(zip(STAT_NAMES, figures, strict=True)),
            classes=tuple(rows),
            num_pictures=len(self._images),
            num_boxes=len(labels),
        )


def _mean(values: npt.NDArray[np.float64]) -> float:
    counted = values[values >= 0]
    return float(counted.mean()) if counted.size else float("nan")


def _percent(value: float) -> str:
    return f"{100 * value:5.1f}" if value == value else "    –"  # noqa: PLR0124  NaN differs from itself


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if value != value else value  # noqa: PLR0124  NaN differs from itself
