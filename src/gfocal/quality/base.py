"""What every quality representation is, and what they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from gfocal.classification import Classification
from gfocal.structures import Raw, Target

Decode: TypeAlias = "Callable[[Float[Tensor, 'b e height width']], Float[Tensor, 'b 4 height width']]"


@dataclass(frozen=True)
class Head:
    """What a quality's layers are made for, given by the family.

    channels: of the features. num_classes: classes. anchors: priors a cell. classification: how the family learns its
    classes where no joint quality does. ltrb: from a box code (b, e, height, width) to the distances in strides
    (b, 4, height, width) between a cell's point and the edges, for one prior a cell.
    """

    channels: int
    num_classes: int
    anchors: int
    classification: Classification
    ltrb: Decode


class Quality(nn.Module, ABC):
    """Puts out class and quality logits of one level, the score that ranks boxes, and the losses of both.

    min_bins: how many bins the distributions behind `box` must have; 0 where they are not read. max_anchors: how many
    priors a cell may have, or None.
    """

    min_bins: int = 0
    max_anchors: int | None = None

    @abstractmethod
    def forward(
        self,
        cls_feature: Float[Tensor, "b c height width"],
        box_feature: Float[Tensor, "b c height width"],
        box: Float[Tensor, "b e height width"],
    ) -> tuple[Float[Tensor, "b k height width"], Float[Tensor, "b a height width"] | None]:
        """Return class logits, and quality logits where the quality is predicted apart, anchor after anchor."""

    @abstractmethod
    def scores(
        self, class_logits: Float[Tensor, "b n k"], quality_logits: Float[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """Return the probability, 0..1, that ranks detections, and the one that the test threshold is held against."""

    @abstractmethod
    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        """Return the element-wise losses: over (b, n) or (b, n, classes), or over the pairs of the target."""

    @abstractmethod
    def box_weight(self, raw: Raw, target: Target) -> Float[Tensor, " p"] | None:
        """Return how much the box losses of each pair count, detached; None where all count alike."""


def output_conv(channels: int, outputs: int, *, probability: float | None = None) -> nn.Conv2d:
    """Return a 3x3 convolution to `outputs` logits, which start near `probability`, or near 0 without one."""
    conv = nn.Conv2d(channels, outputs, 3, padding=1)
    assert conv.bias is not None
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.bias, 0.0 if probability is None else -math.log((1 - probability) / probability))
    return conv


def one_number(inputs: int, hidden: int) -> nn.Sequential:
    """Return two 1x1 convolutions with a ReLU between, to one logit (V2 Eq. 5)."""
    layers = nn.Conv2d(inputs, hidden, 1), nn.Conv2d(hidden, 1, 1)
    for layer in layers:
        assert layer.bias is not None
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(inplace=True), layers[1])
