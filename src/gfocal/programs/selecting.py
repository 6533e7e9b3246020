"""Post-processing as runtimes can compute it: every tensor has as many rows whatever is in the pictures.

What `gfocal.postprocess` leaves out has a score of 0 here; what it keeps is the same.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gfocal.errors import UserError
from gfocal.postprocess import PostProcess
from gfocal.programs.suppression import kept_scores
from gfocal.structures import Raw


@final
class Selection:
    """The detections among raw output. UserError for post-processing that runtimes have no operators for."""

    def __init__(self, postprocess: PostProcess) -> None:
        unfit = None
        if postprocess.nms != "nms":
            unfit = f"test.nms is {postprocess.nms!r}"
        elif postprocess.vote_sigma is not None:
            unfit = "test.vote_sigma is set"
        if unfit is not None:
            raise UserError(
                f"{unfit} in the recipe, for which the runtimes have no operator: export with raw, or change it"
            )
        self.test = postprocess

    def __call__(self, raw: Raw, sizes: Int[Tensor, "b 2"]) -> dict[str, Tensor]:
        """Return the best `max_detections` of each picture, best score first, and a score of 0 where there are fewer.

        sizes: height and width of each picture before padding, to which boxes are clipped.
        Returns `boxes` (b, m, 4) xyxy pixels of the batch, `scores`, `labels`, `locations` and `levels` (b, m), and
        where the detector has them `class_scores` and `quality` (b, m), `edges` and `positions` (b, m, 4, bins).
        """
        test = self.test
        location, scores = self._candidates(raw)
        boxes = self._boxes(raw, location, sizes)
        kept = kept_scores(boxes, scores.mT.contiguous(), test.nms_threshold, test.max_detections).mT
        # in the order in which post-processing has its candidates, so that those of equal scores stay in it
        best, pair = F.pad(kept.flatten(1), (0, test.max_detections)).topk(test.max_detections)
        classes = scores.shape[2]
        # the rows of the padding stand for no candidate: their score of 0 says so, wherever they lie
        row = (pair // classes).clamp(max=scores.shape[1] - 1)
        label = pair % classes
        location = location.gather(1, row)
        return {
            "boxes": _rows(boxes, row),
            "scores": best,
            "labels": label,
            "locations": location,
            "levels": _levels(raw, location),
            **self._doubts(raw, location, label),
        }

    def _candidates(self, raw: Raw) -> tuple[Int[Tensor, "b k"], Float[Tensor, "b k c"]]:
        """Return the location of each candidate and its score of each class, 0 where it is none."""
        test = self.test
        classes = raw.scores.shape[2]
        if test.ranking == "locations":
            counts = [grid.num_priors for grid in raw.priors.grids]
            best, location = _best_of_levels(raw.scores.amax(dim=-1), counts, test.max_per_level)
            held = _rows(raw.class_scores, location)
            return location, torch.where(
                (held > test.score_threshold) & (best >= 0)[..., None], _rows(raw.scores, location), 0.0
            )
        above = torch.where(raw.class_scores > test.score_threshold, raw.scores, 0.0).flatten(1)
        counts = [grid.num_priors * classes for grid in raw.priors.grids]
        best, pair = _best_of_levels(above, counts, test.max_per_level)
        label = (pair % classes)[..., None]
        only = torch.arange(classes, device=label.device) == label
        return pair // classes, torch.where(only, best.relu()[..., None], 0.0)

    def _boxes(self, raw: Raw, location: Int[Tensor, "b k"], sizes: Int[Tensor, "b 2"]) -> Float[Tensor, "b k 4"]:
        """Return the boxes at the locations, xyxy pixels of the batch, clipped to the pictures."""
        test = self.test
        code = _rows(raw.box, location).flatten(0, 1)
        boxes = test.coding.decode(raw.priors[location.flatten()], test.box.values(code))
        limit = sizes.flip(1).repeat(1, 2).to(boxes.dtype) - test.coding.last_pixel
        return boxes.view(*location.shape, 4).clamp(min=0).minimum(limit[:, None])

    def _doubts(self, raw: Raw, location: Int[Tensor, "b m"], label: Int[Tensor, "b m"]) -> dict[str, Tensor]:
        """Return what else is known of the detections at the locations, as far as the detector tells it."""
        test = self.test
        told: dict[str, Tensor] = {}
        if raw.class_scores is not raw.scores:
            told["class_scores"] = _rows(raw.class_scores, location).gather(2, label[..., None])[..., 0]
        if raw.quality_logits is not None:
            told["quality"] = _rows(raw.quality_logits, location).sigmoid()
        code = _rows(raw.box, location).flatten(0, 1)
        spread = test.box.distribution(code) if test.coding.spreads else None
        if spread is not None:
            mass, values = spread
            positions = test.coding.positions(raw.priors[location.flatten()], values)
            told["edges"] = mass.unflatten(0, location.shape)
            told["positions"] = positions.unflatten(0, location.shape)
        return told


def _best_of_levels(
    values: Float[Tensor, "b n"], counts: list[int], limit: int | None
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """Return the `limit` best values of each level and where they lie, -1 where a level has fewer; None for all."""
    if limit is None:
        return values, torch.arange(values.shape[1], device=values.device).expand_as(values)
    best: list[Tensor] = []
    where: list[Tensor] = []
    start = 0
    for count, level_values in zip(counts, values.split(counts, dim=1), strict=True):
        # as many rows on every level, however small the picture is: shapes that depend on it are slow to trace
        level, index = F.pad(level_values, (0, limit), value=-1.0).topk(limit)
        best.append(level)
        where.append(index.clamp(max=count - 1) + start)
        start += count
    return torch.cat(best, dim=1), torch.cat(where, dim=1)


def _rows(values: Tensor, index: Int[Tensor, "b k"]) -> Tensor:
    """Return `values` (b, n, …) at the index of each picture, (b, k, …)."""
    pictures, count = values.shape[:2]
    first = torch.arange(pictures, device=index.device)[:, None] * count
    return values.flatten(0, 1)[index + first]


def _levels(raw: Raw, location: Int[Tensor, "b m"]) -> Int[Tensor, "b m"]:
    """Return the level that each location lies on, 0 for the first."""
    level = torch.zeros_like(location)
    stop = 0
    for grid in raw.priors.grids[:-1]:
        stop += grid.num_priors
        level = level + (location >= stop)
    return level
