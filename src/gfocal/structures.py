"""The values that pass between the parts: frozen dataclasses of tensors, no behaviour of a detector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


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
    square pixels of the objects themselves, by which COCO's metrics tell small from large, where known.
    name tells the picture to a person (its file name); size is (height, width) in pixels.
    """

    image_id: int
    name: str
    size: tuple[int, int]
    boxes: Float[Tensor, "g 4"]
    labels: Int[Tensor, " g"]
    crowd: Bool[Tensor, " g"]
    softness: Float[Tensor, "g 4"] | None = None
    areas: Float[Tensor, " g"] | None = None


def _rows(index: int | slice | Tensor, count: int) -> slice | Tensor:
    """Return what selects the same rows and keeps the first dimension; IndexError for an int outside of them."""
    if not isinstance(index, int):
        return index
    if not -count <= index < count:
        raise IndexError(f"index {index} is out of range for {count} rows")
    return slice(index, index + 1 or None)


@dataclass(frozen=True)
class EdgeDistributions:
    """The distribution of each edge (left, top, right, bottom) of n boxes over positions on the picture.

    probabilities: (n, 4, bins), each edge sums to 1. positions: (n, 4, bins), the pixel coordinate of each bin on
    its axis, evenly spaced; left and top descend with the bin. The mass of a bin is read as spread evenly over its
    cell, half a bin to either side, which leaves the mean as it is (paper V1, Eq. 5).
    """

    probabilities: Float[Tensor, "n 4 bins"]
    positions: Float[Tensor, "n 4 bins"]

    def __post_init__(self) -> None:
        if self.probabilities.shape != self.positions.shape or self.probabilities.shape[1:-1] != (4,):
            raise ValueError(
                f"probabilities and positions must both be (n, 4, bins), "
                f"got {tuple(self.probabilities.shape)} and {tuple(self.positions.shape)}"
            )

    def __len__(self) -> int:
        return self.probabilities.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> EdgeDistributions:
        """Return the boxes at `index` (int, slice, long or bool tensor)."""
        rows = _rows(index, len(self))
        return EdgeDistributions(self.probabilities[rows], self.positions[rows])

    def cpu(self) -> EdgeDistributions:
        """Return the distributions in the memory of the host."""
        return EdgeDistributions(self.probabilities.cpu(), self.positions.cpu())

    @property
    def mean(self) -> Float[Tensor, "n 4"]:
        """Expected coordinate of each edge in pixels: the unclipped box, xyxy (paper V1, Eq. 5)."""
        return (self.probabilities * self.positions).sum(-1)

    @property
    def std(self) -> Float[Tensor, "n 4"]:
        """Standard deviation of each edge in pixels, of the mass at the bins."""
        deviation = self.positions - self.mean[..., None]
        return (self.probabilities * deviation.square()).sum(-1).sqrt()

    @property
    def entropy(self) -> Float[Tensor, "n 4"]:
        """Entropy of each edge in nats, from 0 to log(bins)."""
        return torch.special.entr(self.probabilities).sum(-1)

    def quantile(self, q: float) -> Float[Tensor, "n 4"]:
        """Return the coordinate in pixels below which the share `q` (0..1) of each edge's mass lies."""
        if not 0 <= q <= 1:
            raise ValueError(f"q must lie in 0..1, got {q}")
        start = self.positions[..., :1]
        step = self.positions[..., 1:2] - start
        rising = step > 0
        share = torch.where(rising, q, 1 - q).to(self.probabilities.dtype)
        cumulative = self.probabilities.cumsum(-1).contiguous()
        # the ends are those of the mass, not of the bins, and rounding may leave the sum a little off 1
        share = torch.minimum(share, cumulative[..., -1:]).clamp(min=torch.finfo(share.dtype).tiny)
        cell = torch.searchsorted(cumulative, share)
        mass = self.probabilities.gather(-1, cell)
        below = cumulative.gather(-1, cell) - mass
        inside = ((share - below) / mass.clamp(min=torch.finfo(mass.dtype).tiny)).clamp(0, 1)
        return (start + step * (cell + inside - 0.5))[..., 0]

    def interval(self, mass: float) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n 4"]]:
        """Return the lower and upper coordinate in pixels that hold the central share `mass` (0..1) of each edge."""
        if not 0 <= mass <= 1:
            raise ValueError(f"mass must lie in 0..1, got {mass}")
        return self.quantile((1 - mass) / 2), self.quantile((1 + mass) / 2)


@dataclass(frozen=True)
class Detections:
    """The boxes found in one picture, best score first; indexing and iteration keep all fields aligned.

    boxes: (n, 4) xyxy pixels. scores: (n,) in 0..1. labels: (n,) index into `class_names`. quality: (n,) in 0..1,
    the predicted IoU where a quality is predicted apart (V2's I), else None. edges: the distributions, or None.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    class_names: tuple[str, ...]
    quality: Float[Tensor, " n"] | None = None
    edges: EdgeDistributions | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape[1:] != (4,):
            raise ValueError(f"boxes must be (n, 4), got {tuple(self.boxes.shape)}")
        for field in ("scores", "labels", "quality", "edges"):
            value = getattr(self, field)
            if value is not None and len(value) != count:
                raise ValueError(f"{field} has {len(value)} rows, boxes has {count}")
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.class_names):
            raise ValueError(f"labels must lie in 0..{len(self.class_names) - 1}, one for each class name")

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int | slice | Tensor) -> Detections:
        """Return the detections at `index` (int, slice, long or bool tensor); an int gives one row."""
        index = _rows(index, len(self))
        return replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            labels=self.labels[index],
            quality=None if self.quality is None else self.quality[index],
            edges=None if self.edges is None else self.edges[index],
        )

    def __iter__(self) -> Iterator[Detections]:
        return (self[index] for index in range(len(self)))

    def cpu(self) -> Detections:
        """Return the detections in the memory of the host."""
        return replace(
            self,
            boxes=self.boxes.cpu(),
            scores=self.scores.cpu(),
            labels=self.labels.cpu(),
            quality=None if self.quality is None else self.quality.cpu(),
            edges=None if self.edges is None else self.edges.cpu(),
        )

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[label] for label in self.labels.tolist()]
