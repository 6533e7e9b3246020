"""Raw output to detections: rank, threshold, decode what is left, suppress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gfocal.boxrep import BoxRepresentation
from gfocal.coding import Coding
from gfocal.errors import UserError, within_one
from gfocal.ops.nms import HARD_SUPPRESSIONS, SUPPRESSIONS
from gfocal.ops.voting import vote
from gfocal.ranking import RANKINGS
from gfocal.structures import Detections, EdgeDistributions, Grid, Priors, Raw


@dataclass(frozen=True)
class PostProcess:
    """Turns raw output into boxes of the pictures (V1 supplement D).

    score_threshold: pairs of location and class at or below it are dropped. nms: a name of `SUPPRESSIONS`.
    nms_threshold: IoU above which boxes are in each other's way. max_per_level: what is kept of a level, "locations"
    ranked by their best class as in the reference, or "pairs" of location and class as in mmdetection since 2.20; None
    keeps all.
    max_detections: boxes kept a picture. vote_sigma: where set, a box that is kept moves to where those that overlap it
    vote that it is (see `ops.voting.vote`); the larger, the less they need to overlap. UserError where boxes have no
    distributions, which tell how much an edge's vote is worth.
    """

    coding: Coding
    box: BoxRepresentation
    class_names: tuple[str, ...]
    score_threshold: float = 0.05
    nms: str = "nms"
    nms_threshold: float = 0.6
    max_per_level: int | None = 1000
    ranking: Literal["locations", "pairs"] = "locations"
    max_detections: int = 100
    vote_sigma: float | None = None

    def __post_init__(self) -> None:
        if self.vote_sigma is not None and not self.tells_spread:
            raise UserError(
                "vote_sigma is set, but boxes without edge distributions have no vote: choose another representation"
            )

    @property
    def tells_spread(self) -> bool:
        """Whether detections have edge distributions."""
        return self.coding.spreads and self.box.distribution(torch.zeros(1, 4, self.box.width)) is not None

    def __call__(
        self,
        raw: Raw,
        sizes: Sequence[tuple[int, int]],
        *,
        scales: Sequence[tuple[float, float]] | None = None,
        threshold: float | None = None,
    ) -> list[Detections]:
        """Return the detections of each picture of the batch, best score first.

        sizes: (height, width) of each picture in the batch before padding; boxes are clipped to it. scales: how
        many pixels of the batch stand for one of the picture, along x and y; boxes are divided by it before
        suppression, as in the reference. threshold: replaces `score_threshold`; UserError where it is not in 0..1.
        """
        return [self._survivors(view) for view in self._views(raw, sizes, scales, threshold)]

    def candidates(
        self,
        raw: Raw,
        sizes: Sequence[tuple[int, int]],
        *,
        scales: Sequence[tuple[float, float]] | None = None,
        threshold: float | None = None,
    ) -> list[Detections]:
        """Return what `__call__` would suppress among, in no order: for merging views of one picture first."""
        views = self._views(raw, sizes, scales, threshold)
        return [self._detections(found, found.scores) for found in (self._candidates(view, None) for view in views)]

    def suppressed(self, found: Detections) -> Detections:
        """Return what suppression leaves of boxes from anywhere, best score first."""
        kept, scores = self._suppress(found.boxes, found.scores, found.labels)
        survivors = replace(found[kept], scores=scores)
        return survivors if self.vote_sigma is None else _voted(survivors, found, kept, sigma=self.vote_sigma)

    def _suppress(
        self, boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], labels: Int[Tensor, " n"]
    ) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
        suppression = SUPPRESSIONS[self.nms]
        return suppression(boxes, scores, labels, iou_threshold=self.nms_threshold, limit=self.max_detections)

    def _views(
        self,
        raw: Raw,
        sizes: Sequence[tuple[int, int]],
        scales: Sequence[tuple[float, float]] | None,
        threshold: float | None,
    ) -> list[_View]:
        if len(sizes) != raw.scores.shape[0]:
            raise ValueError(f"{len(sizes)} sizes were given for a batch of {raw.scores.shape[0]} pictures")
        threshold = self.score_threshold if threshold is None else within_one("threshold", threshold)
        scales = [(1.0, 1.0)] * len(sizes) if scales is None else scales
        return [
            _View(raw, index, *geometry, threshold) for index, geometry in enumerate(zip(sizes, scales, strict=True))
        ]

    def _survivors(self, view: _View) -> Detections:
        """Return what suppression leaves of a picture's candidates."""
        # whether a box survives hard suppression depends on better ones alone: the best few settle the first survivors
        best = 4 * self.max_detections if self.vote_sigma is None and self.nms in HARD_SUPPRESSIONS else None
        while True:
            found = self._candidates(view, best)
            kept, scores = self._suppress(found.boxes, found.scores, found.labels)
            if best is None or found.complete or len(kept) == self.max_detections:
                break
            best *= 4
        survivors = self._detections(found[kept], scores)
        if self.vote_sigma is None:
            return survivors
        return _voted(survivors, self._detections(found, found.scores), kept, sigma=self.vote_sigma)

    def _candidates(self, view: _View, best: int | None) -> _Candidates:
        """Return the pairs of location and class that suppression chooses from: at least the `best` ones, or all."""
        raw, index = view.raw, view.index
        scores = raw.scores[index].detach()
        held = scores if raw.class_scores is raw.scores else raw.class_scores[index].detach()
        location, label, complete = RANKINGS[self.ranking](
            scores, held, raw.priors.grids, threshold=view.threshold, limit=self.max_per_level, best=best
        )
        locations, row = location.unique_consecutive(return_inverse=True)
        priors, code = raw.priors[locations], raw.box[index, locations].detach()
        height, width = view.size
        limit = code.new_tensor([width, height, width, height]) - self.coding.last_pixel
        ratio = code.new_tensor([*view.scale, *view.scale])
        boxes = self.coding.decode(priors, self.box.values(code)).clamp(min=0).minimum(limit) / ratio
        quality = raw.quality_logits
        return _Candidates(
            boxes=boxes[row],
            scores=scores[location, label],
            labels=label,
            row=row,
            priors=priors,
            code=code,
            ratio=ratio,
            quality_logits=None if quality is None else quality[index, locations].detach(),
            levels=_levels(locations, raw.priors.grids),
            locations=locations,
            complete=complete,
        )

    def _detections(self, found: _Candidates, scores: Float[Tensor, " n"]) -> Detections:
        quality = found.quality_logits
        return Detections(
            boxes=found.boxes,
            scores=scores,
            labels=found.labels,
            class_names=self.class_names,
            quality=None if quality is None else quality[found.row].sigmoid(),
            edges=self._edges(found.priors[found.row], found.code[found.row], found.ratio),
            levels=found.levels[found.row],
            locations=found.locations[found.row],
        )

    def _edges(
        self, priors: Priors, code: Float[Tensor, "k 4 w"], ratio: Float[Tensor, " 4"]
    ) -> EdgeDistributions | None:
        spread = self.box.distribution(code)
        if spread is None or not self.coding.spreads:
            return None
        mass, values = spread
        return EdgeDistributions(mass, self.coding.positions(priors, values) / ratio[:, None])


@dataclass(frozen=True)
class _View:
    """One picture of a batch: size (height, width) in it before padding, and pixels of it for one of the picture."""

    raw: Raw
    index: int
    size: tuple[int, int]
    scale: tuple[float, float]
    threshold: float


@dataclass(frozen=True)
class _Candidates:
    """Pairs of location and class of one picture (n), and what the locations (m) they stand on still hold undecoded.

    row: (n,) index of each pair into priors, code, quality_logits, levels and locations. locations: (m,) index into
    those of the raw output. complete: whether no pair was left out.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    row: Int[Tensor, " n"]
    priors: Priors
    code: Float[Tensor, "m 4 w"]
    ratio: Float[Tensor, " 4"]
    quality_logits: Float[Tensor, " m"] | None
    levels: Int[Tensor, " m"]
    locations: Int[Tensor, " m"]
    complete: bool

    def __getitem__(self, index: Int[Tensor, " k"]) -> _Candidates:
        return replace(
            self, boxes=self.boxes[index], scores=self.scores[index], labels=self.labels[index], row=self.row[index]
        )


def _voted(survivors: Detections, among: Detections, kept: Int[Tensor, " k"], *, sigma: float) -> Detections:
    """Return the survivors, at `kept` of those they were `among`, where all of them vote that they are."""
    assert among.edges is not None
    edges = vote(among.boxes, among.labels, among.edges, kept, sigma=sigma)
    # a mean lies beyond all boxes only where some were clipped: they end where the picture does
    ends = torch.cat([among.boxes[:, 2:], among.boxes.new_zeros(1, 2)]).amax(0)
    return replace(survivors, edges=edges, boxes=edges.mean.clamp(min=0).minimum(ends.repeat(2)))


def _levels(locations: Int[Tensor, " m"], grids: Sequence[Grid]) -> Int[Tensor, " m"]:
    """Return the level that each location lies on, 0 for the first."""
    stops = torch.tensor([grid.num_priors for grid in grids], device=locations.device).cumsum(0)
    return torch.bucketize(locations, stops, right=True)
