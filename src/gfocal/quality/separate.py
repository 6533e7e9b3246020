"""Class scores learnt as the family learns them, and qualities beside them that only join in the test (V1 Fig. 6)."""

from __future__ import annotations

from typing import Literal, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gfocal.ops.boxes import boxes_to_ltrb, centerness
from gfocal.ops.precision import at_least_float32
from gfocal.quality.base import Head, Quality, output_conv
from gfocal.structures import Raw, Target

Label = Literal["centerness", "iou"]


@final
class Plain(Quality):
    """No quality: the class score alone ("w/o quality branch" of V1 Table 1a)."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.classification = head.classification
        self.cls = class_conv(head)

    def forward(
        self,
        cls_feature: Float[Tensor, "b c height width"],
        box_feature: Float[Tensor, "b c height width"],
        box: Float[Tensor, "b e height width"],
    ) -> tuple[Float[Tensor, "b k height width"], None]:
        """Return class logits."""
        return self.cls(cls_feature), None

    def scores(
        self, class_logits: Float[Tensor, "b n k"], quality_logits: Float[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """Return the class scores, for both."""
        scores = self.classification.scores(class_logits)
        return scores, scores

    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        """Return `cls`."""
        return {"cls": self.classification.losses(raw.class_logits, target)}

    def box_weight(self, raw: Raw, target: Target) -> None:
        """Count all alike."""
        return


@final
class Branch(Quality):
    """A quality predicted from the box feature, learnt at positives only, multiplied with the class score in the test.

    label: what it learns, "centerness" (FCOS, ATSS) or "iou" (IoU-Net, IoU-aware) (V1 Table 1a).
    """

    def __init__(self, head: Head, *, label: Label = "centerness") -> None:
        super().__init__()
        self.classification = head.classification
        self.label: Label = label
        self.cls = class_conv(head)
        self.branch = output_conv(head.channels, head.anchors)

    def forward(
        self,
        cls_feature: Float[Tensor, "b c height width"],
        box_feature: Float[Tensor, "b c height width"],
        box: Float[Tensor, "b e height width"],
    ) -> tuple[Float[Tensor, "b k height width"], Float[Tensor, "b a height width"]]:
        """Return class logits and quality logits."""
        return self.cls(cls_feature), self.branch(box_feature)

    def scores(
        self, class_logits: Float[Tensor, "b n k"], quality_logits: Float[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """Return class score times quality for the ranking, and the class score for the threshold."""
        assert quality_logits is not None
        scores = self.classification.scores(class_logits)
        return scores * quality_logits.sigmoid()[..., None], scores

    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        """Return `cls`, and `quality`, the binary cross entropy of the quality at the positives."""
        assert raw.quality_logits is not None
        logits = at_least_float32(raw.quality_logits.flatten()[target.location])
        quality = F.binary_cross_entropy_with_logits(logits, label_of(target, self.label), reduction="none")
        return {"cls": self.classification.losses(raw.class_logits, target), "quality": quality}

    def box_weight(self, raw: Raw, target: Target) -> Float[Tensor, " p"]:
        """Return the label of the quality."""
        return label_of(target, self.label)


@final
class Guided(Quality):
    """No quality predicted: positives of a high one count more in the class loss (IoU-balanced, Wu & Li 2019).

    label: which quality, "centerness" or "iou" (V1 Table 1a).
    """

    def __init__(self, head: Head, *, label: Label = "iou") -> None:
        super().__init__()
        self.classification = head.classification
        self.label: Label = label
        self.cls = class_conv(head)

    def forward(
        self,
        cls_feature: Float[Tensor, "b c height width"],
        box_feature: Float[Tensor, "b c height width"],
        box: Float[Tensor, "b e height width"],
    ) -> tuple[Float[Tensor, "b k height width"], None]:
        """Return class logits."""
        return self.cls(cls_feature), None

    def scores(
        self, class_logits: Float[Tensor, "b n k"], quality_logits: Float[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """Return the class scores, for both."""
        scores = self.classification.scores(class_logits)
        return scores, scores

    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        """Return `cls`, weighted by the quality at the true class of the positives."""
        weight = label_of(target, self.label)
        return {"cls": self.classification.losses(raw.class_logits, target, weight=weight)}

    def box_weight(self, raw: Raw, target: Target) -> Float[Tensor, " p"]:
        """Return the quality."""
        return label_of(target, self.label)


def class_conv(head: Head) -> nn.Conv2d:
    """Return the convolution to the class logits of the family."""
    outputs = head.anchors * head.classification.outputs(head.num_classes)
    return output_conv(head.channels, outputs, probability=head.classification.first_probability)


def label_of(target: Target, label: Label) -> Float[Tensor, " p"]:
    """Return the quality of each pair, 0..1."""
    if label == "iou":
        return target.iou
    return centerness(boxes_to_ltrb(target.priors.points, target.boxes, target.priors.strides))
