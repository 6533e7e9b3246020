"""Raw output and ground truth to named losses; the one place that normalises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.boxrep import BoxRepresentation
from gfocal.distributed import mean_over_ranks
from gfocal.families import Family, Regression
from gfocal.ops.boxes import box_iou_pairwise
from gfocal.quality import Quality
from gfocal.structures import GroundTruth, Raw, Target


@dataclass(frozen=True)
class Pairs:
    """The candidate pairs of a batch, one row each: what is to be learnt, and what stands there.

    code: (p, 4, width) of the detector. predicted: what that stands for; true: what it should.
    """

    target: Target
    code: Float[Tensor, "p 4 w"]
    predicted: Regression
    true: Regression


@dataclass(frozen=True)
class Criterion:
    """The training loss of a detector (V1 Eq. 8), without parameters of its own."""

    family: Family
    box: BoxRepresentation
    quality: Quality

    def __call__(self, raw: Raw, truths: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the weighted losses `cls`, `box` and, where they exist, `dfl` and `quality`; their sum is the loss.

        truths: one mapping a picture with `boxes` (g, 4) xyxy pixels, `labels` (g,), and optionally `size`, the
        (height, width) that the picture takes up in the batch. The family says what losses are divided by; box losses
        that are weighted, by the sum of their weights; all averaged over ranks. With no positive anywhere box losses
        are 0 and every gradient is finite. ValueError where the pictures do not fit the batch, or a label the classes.
        """
        pairs = self.pairs(raw, truths)
        target = pairs.target
        counts = self.family.counts(_positives(target))
        # bounded after the mean, as the reference: a rank without a positive does not count as one with one
        class_count, box_count = (mean_over_ranks(count).clamp(min=1) for count in counts)
        losses = {
            name: _total(loss, target) / (class_count if name == "cls" else box_count)
            for name, loss in self.quality.losses(raw, target).items()
        }
        weight = self.quality.box_weight(raw, target)
        if weight is None:
            weight, total = target.positive.to(pairs.code.dtype), box_count
        else:
            weight = weight * target.positive
            # the bound only acts where no location is positive, and then the sum above it is 0 too
            total = mean_over_ranks(weight.sum()).clamp(min=1e-12)
        box_losses = self.box.losses(pairs.code, pairs.true.values)
        if "box" not in box_losses:
            box_losses["box"] = self.family.box_loss(pairs.predicted, pairs.true)
        return losses | {name: (loss * weight).sum() / total for name, loss in box_losses.items()}

    def pairs(self, raw: Raw, truths: Sequence[Mapping[str, Any]]) -> Pairs:
        """Return what the pairs of the family's own match are to learn, and the boxes there; truths: as for a call."""
        truth = ground_truth(raw, truths)
        match = self.family.assigner(raw.priors, truth)
        priors, coding = match.priors_of(raw.priors), self.family.coding
        true = Regression(*coding.targets(priors, truth.boxes[match.truth]))
        code = raw.box.flatten(0, 1)[match.location]
        values = self.box.values(code)
        predicted = Regression(values, coding.decode(priors, values))
        target = Target(
            location=match.location,
            positive=match.positive,
            counted=match.counted,
            labels=truth.labels[match.truth],
            priors=priors,
            boxes=true.boxes,
            iou=box_iou_pairwise(predicted.boxes.detach(), true.boxes),
        )
        return Pairs(target, code, predicted, true)


def ground_truth(raw: Raw, truths: Sequence[Mapping[str, Any]]) -> GroundTruth:
    """Return the boxes of all pictures in one row, on the device of `raw`; ValueError for what does not fit."""
    device = raw.scores.device
    if len(truths) != raw.scores.shape[0]:
        raise ValueError(f"{len(truths)} ground truths were given for a batch of {raw.scores.shape[0]} pictures")
    for place, truth in enumerate(truths):
        boxes, labels = truth["boxes"].shape, truth["labels"].shape
        if boxes[1:] != (4,) or labels != boxes[:1]:
            raise ValueError(
                f"picture {place} of the batch: boxes must be (g, 4) and labels (g,), got {tuple(boxes)} and "
                f"{tuple(labels)}"
            )
    finest = raw.priors.grids[0]
    whole = (finest.height * finest.stride, finest.width * finest.stride)
    counts = [len(truth["boxes"]) for truth in truths]
    picture = torch.arange(len(truths)).repeat_interleave(torch.tensor(counts))
    extents = torch.tensor([truth.get("size", whole) for truth in truths], dtype=torch.float32)
    labels = torch.cat([truth["labels"] for truth in truths])
    boxes = torch.cat([truth["boxes"] for truth in truths])
    _refuse_unknown(labels, boxes, raw.scores.shape[-1])
    return GroundTruth(
        boxes=boxes.to(device, torch.float32),
        labels=labels.to(device, torch.long),
        picture=picture.to(device, non_blocking=True),
        extents=extents.to(device, non_blocking=True),
    )


def _refuse_unknown(labels: Tensor, boxes: Tensor, num_classes: int) -> None:
    """Raise ValueError for values that nothing can learn; those on a GPU are not looked at, which would wait for it."""
    wrong = labels[(labels < 0) | (labels >= num_classes)] if labels.is_cpu else labels[:0]
    if len(wrong):
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {wrong[0].item()}")
    if boxes.is_cpu and not boxes.isfinite().all():
        raise ValueError(f"boxes must be finite, got {boxes[~boxes.isfinite().all(dim=1)][0].tolist()}")


def _positives(target: Target) -> Float[Tensor, " b"]:
    """Return the number of positives of each picture."""
    positive = target.positive.float()
    pictures, locations = target.counted.shape
    return positive.new_zeros(pictures).index_add_(0, target.location // locations, positive)


def _total(loss: Tensor, target: Target) -> Tensor:
    """Return the sum of a loss over counted locations, (b, n) or (b, n, classes), or over positive pairs, (p,)."""
    if loss.ndim == 1:
        return (loss * target.positive).sum()
    return (loss * target.counted.view(*target.counted.shape, *[1] * (loss.ndim - 2))).sum()
