"""Test-time augmentation: one picture at several scales and mirrored, what is found there put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torchvision.ops
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from gfocal.data.collate import Prepared, pad
from gfocal.data.preparing import Prepare
from gfocal.errors import UserError
from gfocal.model import Model
from gfocal.ops.voting import mixtures
from gfocal.structures import Detections, EdgeDistributions

SAME_OBJECT_IOU = 0.65
"""Overlap with a surviving box from where on a box of another view counts as the same object."""


@dataclass(frozen=True)
class Augmentation:
    """The views of a picture, and what is done with the boxes found in them.

    scales: factors on the size the recipe tests at. flip: each scale is also seen mirrored. fuse: "boxes" lets all
    candidates of all views compete in suppression; "distributions" then also replaces each survivor's edges by the
    mixture of those of the best matching candidate of each view, and its box by their means.
    """

    scales: tuple[float, ...] = (0.75, 1.0, 1.25)
    flip: bool = True
    fuse: Literal["boxes", "distributions"] = "boxes"

    def __post_init__(self) -> None:
        if not self.scales or not all(0.1 <= scale <= 10 for scale in self.scales):
            raise UserError(f"scales of test-time augmentation must lie in 0.1..10, got {self.scales}")
        if self.fuse not in ("boxes", "distributions"):
            raise UserError(f"fuse must be boxes or distributions, got {self.fuse!r}")


def predict_augmented(
    model: Model,
    picture: NDArray[np.uint8],
    augmentation: Augmentation,
    *,
    size: tuple[int, int] | None = None,
    precision: str | None = None,
    threshold: float | None = None,
) -> Detections:
    """Return what is in a uint8 RGB picture (h, w, 3), in its own pixels, seen in all views of an augmentation.

    size: (short, long), None for the recipe's, which the scales are factors on. UserError where distributions are to
    be fused and the model has none, and for a scale at which a picture is too small for the model.
    """
    prepare = model.prepare(size)
    _refuse_small(model, augmentation.scales, short=prepare.short)
    views = [
        _view(model, picture, replace(prepare, zoom=scale), mirrored=mirrored, precision=precision, threshold=threshold)
        for scale in augmentation.scales
        for mirrored in ((False, True) if augmentation.flip else (False,))
    ]
    survivors = model.postprocess.suppressed(merged(views))
    if augmentation.fuse == "distributions":
        survivors = fuse_distributions(survivors, views, size=picture.shape[:2])
    return model.calibrated(survivors.cpu())


def _refuse_small(model: Model, scales: Sequence[float], *, short: int) -> None:
    """Raise UserError for a scale at which the short side is less than the model takes."""
    least = model.least_side
    for scale in scales:
        side = max(int(short * scale + 0.5), 1)
        if side < least:
            raise UserError(
                f"scale {scale:g} of test-time augmentation: family {model.recipe.family['name']!r} needs {least} "
                f"pixels at least, got {side}: take scales from {math.ceil(1000 * least / short) / 1000:g} on"
            )


def _view(
    model: Model,
    picture: NDArray[np.uint8],
    prepare: Prepare,
    *,
    mirrored: bool,
    precision: str | None,
    threshold: float | None,
) -> Detections:
    """Return the candidates of one view in pixels of the picture."""
    prepared = prepare(picture)
    if not mirrored:
        return candidates(model, prepared, precision=precision, threshold=threshold)
    prepared = replace(prepared, image=prepared.image.flip(-1))
    return mirror(candidates(model, prepared, precision=precision, threshold=threshold), picture.shape[1])


def candidates(model: Model, prepared: Prepared, *, precision: str | None, threshold: float | None) -> Detections:
    """Return what suppression would choose from in a view of a picture, in pixels of what was prepared."""
    raw = model.forward(pad(prepared.image), precision=precision)
    (found,) = model.postprocess.candidates(raw, [prepared.size], scales=[prepared.scale], threshold=threshold)
    return found


def mirror(found: Detections, width: float) -> Detections:
    """Return detections of a picture mirrored left to right as they lie in the picture; width: its own, in pixels."""
    left, top, right, bottom = found.boxes.unbind(-1)
    boxes = torch.stack([width - right, top, width - left, bottom], dim=-1)
    return replace(found, boxes=boxes, edges=None if found.edges is None else found.edges.mirrored(width))


def merged(views: Sequence[Detections]) -> Detections:
    """Return the detections of at least one view in one row."""
    first = views[0]
    return Detections(
        boxes=torch.cat([view.boxes for view in views]),
        scores=torch.cat([view.scores for view in views]),
        labels=torch.cat([view.labels for view in views]),
        class_names=first.class_names,
        quality=None if first.quality is None else torch.cat([v.quality for v in views if v.quality is not None]),
        edges=None
        if first.edges is None
        else EdgeDistributions.cat([view.edges for view in views if view.edges is not None]),
        levels=None if first.levels is None else torch.cat([v.levels for v in views if v.levels is not None]),
    )


def fuse_distributions(survivors: Detections, views: Sequence[Detections], *, size: tuple[int, ...]) -> Detections:
    """Return the survivors with edges mixed from their best match in each view, and boxes at the means of the mixtures.

    A match is of the survivor's class, overlaps it by more than `SAME_OBJECT_IOU`, and no better survivor as much; the
    best one has the highest score. Each of its edges weighs as much as its quality (its score, where no quality is
    predicted apart) over the variance of that edge, the share of a bin's own width, step² / 12, included. size:
    (height, width) of the picture, to which boxes are clipped. UserError where there are no distributions.
    """
    matches = [_best_matches(survivors, view) for view in views]
    alone = torch.ones(len(survivors), dtype=torch.bool, device=survivors.boxes.device)
    alone[torch.cat([rows for rows, _ in matches])] = False
    # a box that was clipped to nothing overlaps no box, not even itself
    matches.append((alone.nonzero()[:, 0], survivors[alone]))
    row = torch.cat([rows for rows, _ in matches])
    parts = merged([found for _, found in matches])
    if survivors.edges is None or parts.edges is None:
        raise UserError("distributions cannot be fused: the model's boxes have none")
    trust = (parts.scores if parts.quality is None else parts.quality).clamp(min=1e-6)
    weight = trust[:, None] / parts.edges.variance
    edges = mixtures(parts.edges, row, weight, count=len(survivors))
    height, width = size
    limit = edges.mean.new_tensor([width, height, width, height])
    return replace(survivors, edges=edges, boxes=edges.mean.clamp(min=0).minimum(limit))


def _best_matches(survivors: Detections, view: Detections) -> tuple[Int[Tensor, " m"], Detections]:
    """Return the rows of the survivors that a view has a match for, and the best match of each."""
    if not len(view):
        return torch.empty(0, dtype=torch.long, device=view.boxes.device), view
    iou = torchvision.ops.box_iou(survivors.boxes, view.boxes)
    same = (iou > SAME_OBJECT_IOU) & (survivors.labels[:, None] == view.labels)
    # what lies near several survivors stands for the best of them, which comes first
    same &= same.cumsum(dim=0) == 1
    best, index = torch.where(same, view.scores, -1.0).max(dim=1)
    rows = (best >= 0).nonzero()[:, 0]
    return rows, view[index[rows]]
