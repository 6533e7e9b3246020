"""Axis 1: one function a family, saying which parts surround the qualities and the boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gfocal.assign.atss import ATSS
from gfocal.assign.base import Assigner
from gfocal.assign.fcos import FCOS
from gfocal.assign.fovea import Fovea
from gfocal.assign.max_iou import MaxIoU
from gfocal.classification import Classification, Focal, Softmax
from gfocal.coding import Coding, Deltas, Distances, Logarithms
from gfocal.nn.fpn import FPN
from gfocal.nn.ssd import MultiboxLayers
from gfocal.nn.trunk import Trunk
from gfocal.ops.losses import giou_loss
from gfocal.priors import Anchors, multibox_sides, shaped_sides, square_sides

STRIDES = (8, 16, 32, 64, 128)
"""Pixels a cell of P3 to P7."""


class Regression(NamedTuple):
    """A box as the code's values (p, 4) and decoded, (p, 4) xyxy pixels."""

    values: Float[Tensor, "p 4"]
    boxes: Float[Tensor, "p 4"]


BoxLoss: TypeAlias = Callable[[Regression, Regression], Tensor]


class Counts(NamedTuple):
    """What the class loss and what the other losses of a batch are divided by, or by 1 where they are less."""

    classes: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class Family:
    """The parts that make a family.

    priors: where it looks. assigner: what learns what. coding: how four values stand for a box. classification: how
    classes are learnt where no joint quality is. box_loss: of predicted and true boxes, weighted. counts: from the
    positives of each picture (b,) to what losses are divided by. neck: from the backbone's channels and the width of
    the pyramid to a module with `out_channels`. trunk: from width and depth to the towers. scaled: whether each level
    multiplies its box code by a learnt number. shared: whether all levels have the same output layers.
    feature_strides: of the backbone's features that the neck stands on. least_side: pixels a picture must have.
    """

    priors: Anchors
    assigner: Assigner
    coding: Coding
    classification: Classification
    box_loss: BoxLoss
    counts: Callable[[Float[Tensor, " b"]], Counts]
    neck: Callable[[Sequence[int], int], FPN | MultiboxLayers]
    trunk: Callable[[int, int], nn.Module]
    scaled: bool = True
    shared: bool = True
    feature_strides: tuple[int, ...] = (8, 16, 32)
    least_side: int = 32


def family_of(spec: Mapping[str, Any]) -> Family:
    """Return the family that a recipe names, made with its options; TypeError for options that it has not.

    >>> family_of({"name": "ssd"}).least_side
    512
    """
    return FAMILIES[str(spec["name"])](**options_in(spec))


def options_in(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a part that a recipe names.

    >>> options_in({"name": "atss", "topk": 5})
    {'topk': 5}
    """
    return {key: value for key, value in spec.items() if key != "name"}


def atss(*, topk: int = 9, anchor_scale: float = 8.0, coding: Literal["distances", "deltas"] = "distances") -> Family:
    """Return ATSS (Zhang et al. 2020), the family that GFL V1 and V2 stand on: one square anchor a cell.

    topk: candidates a level of the assigner. anchor_scale: side of an anchor in strides. coding: distances from the
    point, or deltas of the anchor as the baseline has them.
    """
    codings = {"distances": Distances(), "deltas": Deltas(stds=(0.1, 0.1, 0.2, 0.2), side=anchor_scale)}
    return Family(
        priors=Anchors(STRIDES, square_sides(STRIDES, anchor_scale)),
        assigner=ATSS(topk=topk),
        coding=codings[coding],
        classification=Focal(),
        box_loss=partial(_giou, weight=2.0),
        counts=_one_a_picture_at_least,
        neck=FPN,
        trunk=Trunk,
    )


def fcos(*, radius: float = 1.5) -> Family:
    """Return FCOS (Tian et al. 2019) with centre sampling and distances in strides: one point a cell.

    radius: how far from a box's centre points learn it, in strides.
    """
    return Family(
        priors=Anchors(STRIDES, square_sides(STRIDES, 8.0), offset=0.5),
        assigner=FCOS(limits=(64, 128, 256, 512, math.inf), radius=radius),
        coding=Distances(),
        classification=Focal(),
        box_loss=partial(_giou, weight=1.0),
        counts=_pictures_added,
        neck=partial(FPN, relu=True),
        trunk=partial(Trunk, bias=True),
    )


def retinanet(*, coding: Literal["distances", "deltas"] = "distances") -> Family:
    """Return RetinaNet (Lin et al. 2017).

    coding: "deltas" of nine anchors a cell, learnt with L1, in towers without norms, is the baseline. "distances" is
    what V2's authors put GFL on (github.com/implus/GFocalV2/issues/3): one anchor a cell and the head of GFL, so that
    the assigner is all that remains of it.
    """
    family = Family(
        priors=Anchors(STRIDES, square_sides(STRIDES, 4.0)),
        assigner=MaxIoU(positive=0.5, negative=0.4),
        coding=Distances(),
        classification=Focal(),
        box_loss=partial(_giou, weight=2.0),
        counts=_one_a_picture_at_least,
        neck=partial(FPN, extra_from="input"),
        trunk=Trunk,
    )
    if coding == "distances":
        return family
    octaves = [2 ** (i / 3) for i in range(3)]
    return replace(
        family,
        priors=Anchors(STRIDES, shaped_sides(STRIDES, scale=4.0, octaves=octaves, ratios=(0.5, 1.0, 2.0))),
        coding=Deltas(),
        box_loss=_l1,
        trunk=partial(Trunk, norm=False, bias=True),
        scaled=False,
    )


def foveabox(*, coding: Literal["distances", "logarithms"] = "distances", shrink: float = 0.4) -> Family:
    """Return FoveaBox (Kong et al. 2020).

    coding: "logarithms" of the distances, learnt with smooth L1, in towers without norms, is the baseline;
    "distances" has the head of GFL. shrink: the share of a box's sides within which cells learn it.
    """
    family = Family(
        priors=Anchors(STRIDES, square_sides(STRIDES, 8.0), offset=0.5),
        assigner=Fovea(ranges=((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048)), shrink=shrink),
        coding=Distances(),
        classification=Focal(alpha=0.4, gamma=1.5),
        box_loss=partial(_giou, weight=2.0),
        counts=_pictures_added,
        neck=partial(FPN, extra_from="input"),
        trunk=Trunk,
    )
    if coding == "distances":
        return family
    return replace(
        family,
        coding=Logarithms(),
        box_loss=partial(_smooth_l1, beta=0.11),
        trunk=partial(Trunk, norm=False, bias=True),
        scaled=False,
    )


def ssd() -> Family:
    """Return SSD512 (Liu et al. 2016) for pictures of 512 x 512 pixels: four or six anchors a cell, seven levels."""
    strides = (8, 16, 32, 64, 128, 256, 512)
    # sides in pixels: a tenth to nine tenths of 512, the first level by hand, as the reference rounds them
    sides = (20, 51, 133, 215, 296, 378, 460, 542)
    few, many = (2.0,), (2.0, 3.0)
    return Family(
        priors=Anchors(
            strides, multibox_sides(sides[:-1], sides[1:], (few, many, many, many, many, few, few)), offset=0.5
        ),
        assigner=MaxIoU(positive=0.5, negative=0.5, all_best=False),
        coding=Deltas(stds=(0.1, 0.1, 0.2, 0.2)),
        classification=Softmax(),
        box_loss=partial(_smooth_l1, beta=1.0),
        counts=_one_a_picture_at_least,
        neck=_multibox_layers,
        trunk=_no_trunk,
        scaled=False,
        shared=False,
        feature_strides=(8, 16),
        least_side=512,
    )


def _giou(predicted: Regression, true: Regression, *, weight: float) -> Float[Tensor, " p"]:
    return weight * giou_loss(predicted.boxes, true.boxes)


def _l1(predicted: Regression, true: Regression) -> Float[Tensor, " p"]:
    return (predicted.values - true.values).abs().sum(-1)


def _smooth_l1(predicted: Regression, true: Regression, *, beta: float) -> Float[Tensor, " p"]:
    return F.smooth_l1_loss(predicted.values, true.values, beta=beta, reduction="none").sum(-1)


def _one_a_picture_at_least(positives: Float[Tensor, " b"]) -> Counts:
    return Counts(*[positives.clamp(min=1).sum()] * 2)


def _pictures_added(positives: Float[Tensor, " b"]) -> Counts:
    return Counts(positives.sum() + len(positives), positives.sum())


def _multibox_layers(in_channels: Sequence[int], channels: int) -> MultiboxLayers:
    """Return SSD's layers at the width of its backbone; it has no pyramid, whose `channels` it does not need."""
    return MultiboxLayers(in_channels, width=in_channels[-1] / 1024)


def _no_trunk(channels: int, depth: int) -> nn.Module:
    """Return towers of no layer: SSD's output layers stand on its levels."""
    return Trunk(channels, depth=0)


FAMILIES: Mapping[str, Callable[..., Family]] = {
    "atss": atss,
    "fcos": fcos,
    "retinanet": retinanet,
    "foveabox": foveabox,
    "ssd": ssd,
}
