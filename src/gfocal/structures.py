"""The values that pass between the parts: frozen dataclasses of tensors, no behaviour of a detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gfocal.bands import Bands
from gfocal.edges import EdgeDistributions, Index, rows_of
from gfocal.errors import UserError


@dataclass(frozen=True)
class Grid:
    """One pyramid level: `height` x `width` cells of `stride` pixels, each with `anchors` priors."""

    height: int
    width: int
    stride: int
    anchors: int = 1

    @property
    def num_priors(self) -> int:
        """Number of priors of the level, `height * width * anchors`."""
        return self.height * self.width * self.anchors


@dataclass(frozen=True)
class Priors:
    """Where the detector looks: level by level, row by row, the anchors of one cell last.

    points: (n, 2) x, y in pixels of the batch. boxes: (n, 4) xyxy anchors in pixels. strides: (n,) pixels a cell.
    grids: the levels, finest first; their `num_priors` sum to n.
    """

    points: Float[Tensor, "n 2"]
    boxes: Float[Tensor, "n 4"]
    strides: Float[Tensor, " n"]
    grids: tuple[Grid, ...]

    def __len__(self) -> int:
        return self.points.shape[0]

    def __getitem__(self, index: Tensor) -> Priors:
        """Return the priors at `index` (long or bool); the result lies on no grid."""
        return Priors(self.points[index], self.boxes[index], self.strides[index], ())


@dataclass(frozen=True)
class Raw:
    """What the detector puts out for a batch, before any decision.

    scores: (b, n, classes) in 0..1, the probability that ranks detections. class_scores: (b, n, classes) in 0..1,
    what the test threshold is held against: without a quality that only joins in the test, as a centerness branch's.
    box: (b, n, 4, width), the box code of each edge before decoding. class_logits: (b, n, outputs), one a class and
    another one for the background under a softmax. quality_logits: (b, n), or None where no quality is predicted apart.
    """

    scores: Float[Tensor, "b n c"]
    class_scores: Float[Tensor, "b n c"]
    box: Float[Tensor, "b n 4 w"]
    class_logits: Float[Tensor, "b n o"]
    quality_logits: Float[Tensor, "b n"] | None
    priors: Priors


@dataclass(frozen=True)
class GroundTruth:
    """The boxes of a batch in one row, on the device of the detector.

    boxes: (g, 4) xyxy pixels. labels: (g,) class. picture: (g,) which of the b pictures a box belongs to.
    extents: (b, 2) height and width in pixels that each picture takes up in the batch.
    """

    boxes: Float[Tensor, "g 4"]
    labels: Int[Tensor, " g"]
    picture: Int[Tensor, " g"]
    extents: Float[Tensor, "b 2"]

    @property
    def num_pictures(self) -> int:
        """Number of pictures of the batch."""
        return self.extents.shape[0]


@dataclass(frozen=True)
class Match:
    """Which locations of a batch learn which box: a list of candidate pairs, so that no size depends on the data.

    location: (p,) index into the b * n locations of the batch. truth: (p,) index into the boxes of the
    `GroundTruth`. positive: (p,) whether the pair counts; a location is positive in at most one pair.
    counted: (b, n) whether a location carries a classification loss at all.
    """

    location: Int[Tensor, " p"]
    truth: Int[Tensor, " p"]
    positive: Bool[Tensor, " p"]
    counted: Bool[Tensor, "b n"]

    def positives(self) -> Match:
        """Return the match of the positive pairs alone, whose number depends on the data: a GPU is waited for."""
        chosen = self.positive
        return Match(self.location[chosen], self.truth[chosen], chosen[chosen], self.counted)

    def priors_of(self, priors: Priors) -> Priors:
        """Return the prior of each pair, of the n of every picture of the batch."""
        return priors[self.location % len(priors)]


@dataclass(frozen=True)
class Target:
    """What the locations of a `Match` are to learn, one row a candidate pair.

    location, positive and counted are the match's. labels: (p,) class. priors: of each row. boxes: (p, 4) true box,
    xyxy pixels. iou: (p,) in 0..1, of the predicted box with the true one, detached.
    """

    location: Int[Tensor, " p"]
    positive: Bool[Tensor, " p"]
    counted: Bool[Tensor, "b n"]
    labels: Int[Tensor, " p"]
    priors: Priors
    boxes: Float[Tensor, "p 4"]
    iou: Float[Tensor, " p"]

    def at_true_class(self, values: Float[Tensor, " p"], *, like: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Return `values` at the true class of each pair's location, 0 elsewhere; they must be 0 where not positive."""
        placed = torch.zeros_like(like)
        # pairs that are not positive add 0, so nothing has to be picked out and no size depends on the data
        return placed.view(-1).index_add_(0, self.location * like.shape[-1] + self.labels, values).view_as(like)


@dataclass(frozen=True)
class Truth:
    """The annotation of one picture.

    boxes: (g, 4) xyxy pixels. labels: (g,) from 0. crowd: (g,) whether a box stands for a group (ignored in
    training). softness: (g, 4) pixels over which the left, top, right, bottom edge fades, where known. areas: (g,)
    square pixels of the objects themselves, by which COCO's metrics tell small from large, where known. ids: (g,) what
    the file of the annotation calls each: the id of a COCO JSON, the place of a VOC object in its file from 0, the
    line of a YOLO label file from 1; where known. name tells the picture to a person (its file name); size is
    (height, width) in pixels.
    """

    image_id: int
    name: str
    size: tuple[int, int]
    boxes: Float[Tensor, "g 4"]
    labels: Int[Tensor, " g"]
    crowd: Bool[Tensor, " g"]
    softness: Float[Tensor, "g 4"] | None = None
    areas: Float[Tensor, " g"] | None = None
    ids: Int[Tensor, " g"] | None = None


@dataclass(frozen=True)
class Detections:
    """The boxes found in one picture, best score first; indexing and iteration keep all fields aligned.

    boxes: (n, 4) xyxy pixels. scores: (n,) in 0..1. labels: (n,) index into `class_names`. quality: (n,) in 0..1,
    what is predicted of the box apart: V2's I, an IoU; of a quality branch what it learnt, IoU or centerness; else
    None. edges: the distributions, or None. levels: (n,) the level of the pyramid that found each box, 0 for the
    finest, or None where there are none. locations: (n,) the place among all that the detector looked at, as `Raw`
    numbers them, or None where boxes come from several views. bands: where edges and boxes lie with stated
    probabilities, of a calibrated model, else None.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    class_names: tuple[str, ...]
    quality: Float[Tensor, " n"] | None = None
    edges: EdgeDistributions | None = None
    levels: Int[Tensor, " n"] | None = None
    locations: Int[Tensor, " n"] | None = None
    bands: Bands | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape[1:] != (4,):
            raise ValueError(f"boxes must be (n, 4), got {tuple(self.boxes.shape)}")
        for field, value in self._columns().items():
            if len(value) != count:
                raise ValueError(f"{field} has {len(value)} rows, boxes has {count}")
            if field != "boxes" and isinstance(value, Tensor) and value.ndim != 1:
                raise ValueError(f"{field} must be (n,), got {tuple(value.shape)}")
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.class_names):
            raise ValueError(f"labels must lie in 0..{len(self.class_names) - 1}, one for each class name")

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Index) -> Detections:
        """Return the detections at `index`: an int (one row), a slice, or a tensor, array or list of ints or bools."""
        rows = rows_of(index, len(self))
        return replace(self, **{field: value[rows] for field, value in self._columns().items()})

    def __iter__(self) -> Iterator[Detections]:
        return (self[index] for index in range(len(self)))

    def cpu(self) -> Detections:
        """Return the detections in the memory of the host."""
        return replace(self, **{field: value.cpu() for field, value in self._columns().items()})

    def _columns(self) -> dict[str, Any]:
        """Return what has a row for each box, by field."""
        return {name: value for name, value in vars(self).items() if name != "class_names" and value is not None}

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[label] for label in self.labels.tolist()]

    def measurement_covariance(self, *, form: Literal["xyxy", "cxcywh"] = "xyxy") -> Float[Tensor, "n 4 4"]:
        """Return how far off each box may be, as the measurement noise of a Kalman filter: square pixels.

        The four edges are taken as independent. form: what the filter measures, left, top, right, bottom, or centre x,
        centre y, width, height. ValueError where the detections have no distributions.

        >>> edges = EdgeDistributions(torch.ones(1, 4, 2) / 2, torch.tensor([[[1.0, 2], [1, 2], [8, 9], [9, 8]]]))
        >>> found = Detections(edges.mean, torch.ones(1), torch.zeros(1).long(), ("cat",), edges=edges)
        >>> found.measurement_covariance().shape
        torch.Size([1, 4, 4])
        """
        if self.edges is None:
            raise ValueError("the boxes have no edge distributions, which alone tell how far off they may be")
        return self.edges.covariance(form=form)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: `boxes`, a list with a row for each.

        A row has the class's name as `label` and its index as `class`, `score`, and `box`, xyxy in pixels; where known
        the `quality`, and of the left, top, right and bottom edge in pixels the standard deviation as `edge_std` and
        the central interval that holds 90 % as `edge_interval`; the `level` of the pyramid; and of a calibrated model
        `edge_band`, `outer_box` and `inner_box` (`Bands.to_dicts`).

        >>> boxes = torch.tensor([[1.0, 2, 3, 4]])
        >>> Detections(boxes, torch.tensor([0.5]), torch.tensor([0]), ("cat",)).to_dict()
        {'boxes': [{'label': 'cat', 'class': 0, 'score': 0.5, 'box': [1.0, 2.0, 3.0, 4.0]}]}
        """
        found = zip(self.names, self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        rows: list[dict[str, Any]] = [
            {"label": name, "class": label, "score": round(score, 4), "box": _rounded(box)}
            for name, label, score, box in found
        ]
        qualities = [] if self.quality is None else self.quality.tolist()
        for row, quality in zip(rows, qualities, strict=False):
            row["quality"] = round(quality, 4)
        for row, level in zip(rows, [] if self.levels is None else self.levels.tolist(), strict=False):
            row["level"] = level
        return {"boxes": [row | doubt for row, doubt in zip(rows, self._doubts(), strict=True)]}

    def to_coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Return the rows of a COCO results file: `bbox` as x, y, width, height in pixels, to two decimals.

        category_ids: of each label. Rows of boxes with distributions also have `edge_std` and `edge_interval` as in
        `to_dict`, which readers of such files pass over. ValueError where the number of ids is not that of classes.

        >>> boxes = torch.tensor([[1.0, 2, 4, 8]])
        >>> Detections(boxes, torch.tensor([0.5]), torch.tensor([0]), ("cat",)).to_coco(7, [17])
        [{'image_id': 7, 'category_id': 17, 'bbox': [1.0, 2.0, 3.0, 6.0], 'score': 0.5}]
        """
        if len(category_ids) != len(self.class_names):
            raise ValueError(
                f"category_ids has {len(category_ids)} ids, the detections {len(self.class_names)} classes"
            )
        return [
            {
                "image_id": image_id,
                "category_id": category_ids[label],
                "bbox": _rounded([left, top, right - left, bottom - top]),
                "score": round(score, 5),
                **doubt,
            }
            for (left, top, right, bottom), score, label, doubt in zip(
                self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self._doubts(), strict=True
            )
        ]

    def to_supervision(self) -> Any:
        """Return the boxes as `supervision.Detections`; needs the package supervision (extra `supervision`).

        Its `data` has `class_name`, and where known `quality`, `edge_std` (n, 4) and `edge_interval` (n, 4, 2) as in
        `to_dict`. UserError where the package is not installed.

        >>> found = Detections(torch.zeros(1, 4), torch.ones(1), torch.tensor([0]), ("cat",))
        >>> found.to_supervision().xyxy  # doctest: +SKIP
        array([[0., 0., 0., 0.]], dtype=float32)
        """
        try:
            import supervision  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError("supervision is not installed: pip install 'gfocal[supervision]'") from error
        data: dict[str, Any] = {"class_name": np.array(self.names, dtype=str)}
        if self.quality is not None:
            data["quality"] = self.quality.cpu().numpy()
        if self.edges is not None:
            data["edge_std"] = self.edges.std.cpu().numpy()
            data["edge_interval"] = torch.stack(self.edges.interval(0.9), dim=-1).cpu().numpy()
        return supervision.Detections(
            xyxy=self.boxes.cpu().numpy(),
            confidence=self.scores.cpu().numpy(),
            class_id=self.labels.cpu().numpy(),
            data=data,
        )

    def _doubts(self) -> list[dict[str, Any]]:
        """Return what is told of the edges of each box, nothing where they have neither distributions nor bands."""
        told: list[dict[str, Any]] = [{} for _ in range(len(self))]
        if self.edges is not None:
            intervals = torch.stack(self.edges.interval(0.9), dim=-1).tolist()
            for row, std, interval in zip(told, self.edges.std.tolist(), intervals, strict=True):
                row.update(edge_std=_rounded(std), edge_interval=[_rounded(ends) for ends in interval])
        if self.bands is not None and 0.9 in self.bands.masses:
            for row, band in zip(told, self.bands.to_dicts(0.9), strict=True):
                row.update(band)
        return told


def _rounded(pixels: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in pixels]
