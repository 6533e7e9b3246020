"""Assignment by overlap with the anchors: RetinaNet and SSD."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gfocal.assign.base import Assigner, best_owner, inside_extent
from gfocal.assign.dense import best_of_slice, match_of, match_without_boxes, slices
from gfocal.assign.near import Pairs, near_pairs
from gfocal.errors import above
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
        self.positive = above("positive", positive, 0)
        self.negative = above("negative", negative, 0)
        self.all_best = all_best

    def __call__(self, priors: Priors, truth: GroundTruth) -> Match:
        """Return the match of all pictures at once."""
        # on a GPU all pairs take less time than waiting for the number of those that matter
        return self.match(priors, truth, near=truth.boxes.is_cpu)

    def with_levels(self, count: int) -> MaxIoU:
        """Return this one, which does not know the levels."""
        return self

    def match(self, priors: Priors, truth: GroundTruth, *, near: bool) -> Match:
        """Return the match of all pictures at once.

        near: whether to look only at the pairs that matter, whose number depends on the data; the match is the same.
        For 100 boxes and the 182,403 anchors of RetinaNet at 800 x 1216 pixels that takes 0.02 s of a core instead of
        1.5 s, for 7 boxes in each of two pictures of 512 x 640 pixels 0.01 s instead of 0.07 s, where a training step
        with ResNet-50 takes about 4 s.
        """
        inside = inside_extent(priors, truth)
        if not len(truth.boxes):
            return match_without_boxes(truth, inside)
        iou, owner, forced = self._near(priors, truth) if near else self._dense(priors, truth, inside)
        positive = (iou >= self.positive) | (forced >= 0)
        between = (iou >= self.negative) & ~positive
        return match_of(torch.where(forced >= 0, forced, owner), positive, inside & ~between)

    def _near(self, priors: Priors, truth: GroundTruth) -> _Overlaps:
        """Return the overlaps from those pairs alone that reach one of the bounds or are the best of their box."""
        found = _no_overlaps(truth, len(priors))
        highest, owner, forced = (values.view(-1) for values in found)
        for pairs in near_pairs(priors, truth, least=min(self.positive, self.negative)):
            location = truth.picture[pairs.box] * len(priors) + pairs.anchor
            higher = pairs.iou > highest[location]
            # in the order of their boxes: the first pair is of the first box
            order = torch.arange(len(location), device=location.device)
            first = best_owner(location, order, pairs.iou, higher, total=len(highest))
            highest[location[first]] = pairs.iou[first]
            owner[location[first]] = pairs.box[first]
            best = self._best(pairs, total=len(truth.boxes))
            forced.scatter_reduce_(0, location[best], pairs.box[best], "amax")
        return found

    def _best(self, pairs: Pairs, *, total: int) -> Bool[Tensor, " p"]:
        """Return which pairs are the best of their box, of all `total` boxes."""
        best = pairs.iou.new_zeros(total).scatter_reduce(0, pairs.box, pairs.iou, "amax")
        is_best = pairs.iou == best[pairs.box]
        if self.all_best:
            return is_best
        nobody = torch.iinfo(torch.long).max
        anchors = pairs.anchor.masked_fill(~is_best, nobody)
        first = anchors.new_full((total,), nobody).scatter_reduce(0, pairs.box, anchors, "amin")
        return is_best & (pairs.anchor == first[pairs.box])

    def _dense(self, priors: Priors, truth: GroundTruth, inside: Bool[Tensor, "b n"]) -> _Overlaps:
        """Return the overlaps from all pairs, slice by slice."""
        pictures = truth.num_pictures
        overlap, owner, forced = _no_overlaps(truth, len(priors))
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
        return _Overlaps(overlap, owner, forced)

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


class _Overlaps(NamedTuple):
    """What is known of each anchor of each picture.

    iou: highest with a box, -inf where none is known. owner: the first box of that IoU, any where there is none.
    forced: the last box whose best anchor it is, -1 for none.
    """

    iou: Float[Tensor, "b n"]
    owner: Int[Tensor, "b n"]
    forced: Int[Tensor, "b n"]


def _no_overlaps(truth: GroundTruth, count: int) -> _Overlaps:
    """Return what is known of `count` anchors a picture before any box is looked at."""
    iou = truth.boxes.new_full((truth.num_pictures, count), -torch.inf)
    return _Overlaps(iou, torch.zeros_like(iou, dtype=torch.long), torch.full_like(iou, -1, dtype=torch.long))
