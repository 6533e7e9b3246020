"""Raw output to detections: rank, threshold, decode what is left, suppress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gfocal.boxrep import BoxRepresentation
from gfocal.coding import Coding
from gfocal.ops.nms import nms_per_class
from gfocal.structures import Detections, EdgeDistributions, Grid, Priors, Raw


@dataclass(frozen=True)
class PostProcess:
    """Turns raw output into boxes of the pictures (V1 supplement D).

    score_threshold: pairs of location and class at or below it are dropped. nms_threshold: IoU over which the
    lesser box of a class is removed. max_per_level: locations kept a level, ranked by their best class.
    max_detections: boxes kept a picture.
    """

    coding: Coding
    box: BoxRepresentation
    class_names: tuple[str, ...]
    score_threshold: float = 0.05
    nms_threshold: float = 0.6
    max_per_level: int = 1000
    max_detections: int = 100

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
        suppression, as in the reference. threshold: replaces `score_threshold`.
        """
        if len(sizes) != raw.scores.shape[0]:
            raise ValueError(f"{len(sizes)} sizes were given for a batch of {raw.scores.shape[0]} pictures")
        threshold = self.score_threshold if threshold is None else threshold
        scales = [(1.0, 1.0)] * len(sizes) if scales is None else scales
        best = raw.scores.detach().amax(dim=-1)
        return [
            self._picture(raw, index, best[index], size=size, scale=scale, threshold=threshold)
            for index, (size, scale) in enumerate(zip(sizes, scales, strict=True))
        ]

    def _picture(
        self,
        raw: Raw,
        index: int,
        best: Float[Tensor, " n"],
        *,
        size: tuple[int, int],
        scale: tuple[float, float],
        threshold: float,
    ) -> Detections:
        locations = _best_of_levels(best, raw.priors.grids, self.max_per_level)
        locations = locations[best[locations] > threshold]
        priors, code = raw.priors[locations], raw.box[index, locations].detach()
        height, width = size
        limit = code.new_tensor([width, height, width, height])
        ratio = code.new_tensor([*scale, *scale])
        boxes = self.coding.decode(priors, self.box.values(code)).clamp(min=0).minimum(limit) / ratio

        scores = raw.scores[index, locations].detach()
        row, label = (scores > threshold).nonzero(as_tuple=True)
        score = scores[row, label]
        kept = nms_per_class(boxes[row], score, label, iou_threshold=self.nms_threshold, limit=self.max_detections)
        row = row[kept]
        quality = raw.quality_logits
        return Detections(
            boxes=boxes[row],
            scores=score[kept],
            labels=label[kept],
            class_names=self.class_names,
            quality=None if quality is None else quality[index, locations[row]].detach().sigmoid(),
            edges=self._edges(priors[row], code[row], ratio),
        )

    def _edges(
        self, priors: Priors, code: Float[Tensor, "k 4 w"], ratio: Float[Tensor, " 4"]
    ) -> EdgeDistributions | None:
        if self.box.bins is None:
            return None
        positions = self.coding.positions(priors, code.new_tensor(self.box.bins))
        return EdgeDistributions(self.box.probabilities(code), positions / ratio[:, None])


def _best_of_levels(best: Float[Tensor, " n"], grids: Sequence[Grid], limit: int) -> Int[Tensor, " k"]:
    """Return the locations that are among the `limit` best of their level."""
    kept: list[Tensor] = []
    start = 0
    for grid in grids:
        stop = start + grid.num_priors
        if grid.num_priors > limit:
            kept.append(best[start:stop].topk(limit).indices + start)
        else:
            kept.append(torch.arange(start, stop, device=best.device))
        start = stop
    return torch.cat(kept)
