"""Assignment by overlap with the anchors: RetinaNet and SSD."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gfocal.assign.base import Assigner, inside_extent
from gfocal.assign.dense import best_of_slice, match_of, match_without_boxes, slices
from gfocal.ops.boxes import box_iou_pairwise
from gfocal.structures import GroundTruth, Match, Priors


@final
class MaxIoU(Assigner):
    """An anchor learns the box it overlaps most, from `positive` on; below `negative` it learns that there is none.

    Anchors between the two count for nothing. Every box has its best anchor besides, whatever the overlap, and all
    that tie for the best where `all_best`; an anchor that is the best of several boxes goes to the last of them. Ties
    of an anchor's overlaps go to the first box. A box that overlaps no anchor learns nothing.
    """

    def __init__(self, *, positive: float = 0.5, negative: float = 0.4, all_best: bool = True) -> None:
        self.positive = positive
        self.negative = negative
        self.all_best = all_best

    def __call__(self, priors: Priors, truth: GroundTruth) -> Match:
        """Return the match of all pictures at once."""
        inside = inside_extent(priors, truth)
        if not len(truth.boxes):
            return match_without_boxes(truth, inside)
        pictures = truth.num_pictures
        overlap = truth.boxes.new_full((pictures, len(priors)), -torch.inf)
        owner = torch.zeros_like(overlap, dtype=torch.long)
        forced = torch.full_like(owner, -1)
        for part in slices(len(truth.boxes), len(priors)):
            picture = truth.picture[part]
            index = torch.arange(len(truth.boxes), device=picture.device)[part]
            pairs = len(index), len(priors), 4
            iou = box_iou_pairwise(priors.boxes.expand(pairs), truth.boxes[part][:, None].expand(pairs))
            iou = iou.masked_fill(~inside[picture], -torch.inf)
            best, first = best_of_slice(iou, index, picture, pictures=pictures)
            owner = torch.where(best > overlap, first, owner)
            overlap = torch.maximum(best, overlap)
            forced = torch.maximum(forced, self._forced(iou, index, picture, pictures=pictures))
        positive = (overlap >= self.positive) | (forced >= 0)
        between = (overlap >= self.negative) & ~positive
        return match_of(torch.where(forced >= 0, forced, owner), positive, inside & ~between)

    def _forced(
        self, iou: Float[Tensor, "s n"], owner: Int[Tensor, " s"], picture: Int[Tensor, " s"], *, pictures: int
    ) -> Int[Tensor, "b n"]:
        """Return the last box whose best anchor each one is, -1 where there is none."""
        best = iou.amax(dim=1, keepdim=True)
        is_best: Bool[Tensor, "s n"] = (iou == best) & (best > 0)
        if not self.all_best:
            first = is_best.int().argmax(dim=1, keepdim=True)
            is_best = is_best & (torch.arange(iou.shape[1], device=iou.device) == first)
        owners = torch.where(is_best, owner[:, None], -1)
        rows = picture[:, None].expand_as(owners)
        return owner.new_full((pictures, iou.shape[1]), -1).scatter_reduce(0, rows, owners, "amax")
