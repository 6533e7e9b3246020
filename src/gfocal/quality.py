"""Axis 2: how a detector says how good a box is, and how that is learnt."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gfocal.errors import at_least
from gfocal.ops.losses import quality_focal_loss, quality_focal_loss_of_product
from gfocal.structures import Raw, Target

PRIOR_PROBABILITY = 0.01
"""Score that every location starts from (Lin et al. 2017), so that the many negatives do not swamp the first steps."""


class Quality(nn.Module, ABC):
    """Puts out class and quality logits of one level, the score that ranks boxes, and the losses of both.

    min_bins: how many bins the distributions behind `box` must have; 0 where they are not read.
    """

    min_bins: int = 0

    @abstractmethod
    def forward(
        self,
        cls_feature: Float[Tensor, "b c height width"],
        box_feature: Float[Tensor, "b c height width"],
        box: Float[Tensor, "b e height width"],
    ) -> tuple[Float[Tensor, "b k height width"], Float[Tensor, "b 1 height width"] | None]:
        """Return class logits, and quality logits where the quality is predicted apart."""

    @abstractmethod
    def scores(
        self, class_logits: Float[Tensor, "b n k"], quality_logits: Float[Tensor, "b n"] | None
    ) -> Float[Tensor, "b n k"]:
        """Return the probability, 0..1, that ranks detections."""

    @abstractmethod
    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        """Return the element-wise losses, over (b, n, classes) or over the pairs of the target."""

    @abstractmethod
    def box_weight(self, raw: Raw, target: Target) -> Float[Tensor, " p"]:
        """Return how much the box losses of each pair count, detached."""


def class_conv(channels: int, num_classes: int) -> nn.Conv2d:
    """Return the 3x3 convolution to class logits, its bias set for `PRIOR_PROBABILITY`."""
    conv = nn.Conv2d(channels, num_classes, 3, padding=1)
    assert conv.bias is not None
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
    return conv


def iou_at_true_class(like: Float[Tensor, "b n k"], target: Target) -> Float[Tensor, "b n k"]:
    """Return the joint label: the IoU at the true class of each positive location, 0 elsewhere (V2 Eq. 1)."""
    num_classes = like.shape[-1]
    labels = torch.zeros_like(like)
    # pairs that are not positive add 0, so nothing has to be picked out and no size depends on the data
    labels.view(-1).index_add_(0, target.location * num_classes + target.labels, target.iou * target.positive)
    return labels


def best_score(raw: Raw, target: Target) -> Float[Tensor, " p"]:
    """Return the highest class score at the location of each pair, detached: the reference's weight of box losses."""
    return raw.scores.detach().flatten(0, 1)[target.location].amax(-1)


@final
class Joint(Quality):
    """Class score and IoU as one number, learnt with the quality focal loss (V1 Sec. 3, "joint w/ QFL")."""

    def __init__(self, channels: int, num_classes: int, *, beta: float = 2.0) -> None:
        super().__init__()
        self.beta = at_least("beta", beta, 0)
        self.cls = class_conv(channels, num_classes)

    def forward(
        self,
        cls_feature: Float[Tensor, "b c height width"],
        box_feature: Float[Tensor, "b c height width"],
        box: Float[Tensor, "b e height width"],
    ) -> tuple[Float[Tensor, "b k height width"], None]:
        """Return the joint logits; no quality apart."""
        return self.cls(cls_feature), None

    def scores(
        self, class_logits: Float[Tensor, "b n k"], quality_logits: Float[Tensor, "b n"] | None
    ) -> Float[Tensor, "b n k"]:
        """Return the sigmoid of the joint logits."""
        return class_logits.sigmoid()

    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        """Return `cls`, the quality focal loss against the IoU at the true class (V1 Eq. 2)."""
        labels = iou_at_true_class(raw.class_logits, target)
        return {"cls": quality_focal_loss(raw.class_logits, labels, beta=self.beta)}

    def box_weight(self, raw: Raw, target: Target) -> Float[Tensor, " p"]:
        """Return the highest joint score at each location."""
        return best_score(raw, target)


@final
class DGQP(Quality):
    """Class score times an IoU read off the edge distributions (V2 Sec. 3.2, Eq. 3 to 5).

    top_k: how many of the highest probabilities of each edge are looked at, beside their mean. hidden: width p of
    the hidden layer. beta: exponent of the quality focal loss.
    """

    def __init__(self, channels: int, num_classes: int, *, top_k: int = 4, hidden: int = 64, beta: float = 2.0) -> None:
        super().__init__()
        self.min_bins = at_least("top_k", top_k, 1)
        self.top_k = top_k
        self.beta = at_least("beta", beta, 0)
        self.cls = class_conv(channels, num_classes)
        layers = nn.Conv2d(4 * (top_k + 1), at_least("hidden", hidden, 1), 1), nn.Conv2d(hidden, 1, 1)
        for layer in layers:
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        self.predictor = nn.Sequential(layers[0], nn.ReLU(inplace=True), layers[1])

    def forward(
        self,
        cls_feature: Float[Tensor, "b c height width"],
        box_feature: Float[Tensor, "b c height width"],
        box: Float[Tensor, "b e height width"],
    ) -> tuple[Float[Tensor, "b k height width"], Float[Tensor, "b 1 height width"]]:
        """Return class logits, and the logit of I (Eq. 5) from the edge distributions of `box`."""
        return self.cls(cls_feature), self.predictor(self.statistics(box))

    def statistics(self, box: Float[Tensor, "b e height width"]) -> Float[Tensor, "b f height width"]:
        """Return Topkm of each edge (Eq. 4): its highest probabilities, then their mean."""
        probabilities = box.unflatten(1, (4, -1)).softmax(dim=2)
        top = probabilities.topk(self.top_k, dim=2).values
        return torch.cat([top, top.mean(dim=2, keepdim=True)], dim=2).flatten(1, 2)

    def scores(
        self, class_logits: Float[Tensor, "b n k"], quality_logits: Float[Tensor, "b n"] | None
    ) -> Float[Tensor, "b n k"]:
        """Return J = C × I (Eq. 3)."""
        assert quality_logits is not None
        return class_logits.sigmoid() * quality_logits.sigmoid()[..., None]

    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        """Return `cls`, the quality focal loss of the product against the IoU at the true class."""
        assert raw.quality_logits is not None
        labels = iou_at_true_class(raw.class_logits, target)
        loss = quality_focal_loss_of_product(raw.class_logits, raw.quality_logits, labels, beta=self.beta)
        return {"cls": loss}

    def box_weight(self, raw: Raw, target: Target) -> Float[Tensor, " p"]:
        """Return the highest joint score at each location."""
        return best_score(raw, target)


QUALITIES: Mapping[str, type[Quality]] = {"joint": Joint, "dgqp": DGQP}
