"""The network: images in, `Raw` out, nothing decided yet. This is what is exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gfocal.ops.precision import at_least_float32
from gfocal.priors import Anchors
from gfocal.quality import Quality
from gfocal.structures import Raw


@final
class Outputs(nn.Module):
    """The output layers of one level, or of all: of class and quality logits and of box codes, `box_width` numbers."""

    def __init__(self, quality: Quality, *, channels: int, anchors: int, box_width: int) -> None:
        super().__init__()
        self.quality = quality
        self.box_conv = nn.Conv2d(channels, anchors * 4 * box_width, 3, padding=1)
        assert self.box_conv.bias is not None
        nn.init.normal_(self.box_conv.weight, std=0.01)
        nn.init.zeros_(self.box_conv.bias)


@final
class Scale(nn.Module):
    """Multiplies by one learnt number, 1 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return the product."""
        return self.scale * x


@final
class Detector(nn.Module):
    """Backbone, neck, trunk and output layers of a dense detector.

    outputs: one for all levels, or one a level. scaled: whether the box code of a level is multiplied by a learnt
    number.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        *,
        trunk: nn.Module,
        outputs: Sequence[Outputs],
        priors: Anchors,
        box_width: int,
        scaled: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.trunk = trunk
        self.outputs = nn.ModuleList(outputs)
        self.scales = nn.ModuleList(Scale() if scaled else nn.Identity() for _ in priors.strides)
        self.priors = priors
        self.box_width = box_width

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Raw:
        """Return the raw output for normalised images (b, 3, h, w), h and w multiples of 32.

        Channels are in the order the weights were trained with. Outputs are float32 under autocast too, because
        a bfloat16 score has too few digits to rank by.
        """
        class_levels: list[Tensor] = []
        quality_levels: list[Tensor] = []
        box_levels: list[Tensor] = []
        features = self.neck(self.backbone(images))
        for level, feature in enumerate(features):
            cls_feature, box_feature = self.trunk(feature, level)
            outputs = self.outputs_of(level)
            box = self.scales[level](at_least_float32(outputs.box_conv(box_feature)))
            class_logits, quality_logits = outputs.quality(cls_feature, box_feature, box)
            anchors = box.shape[1] // (4 * self.box_width)
            class_levels.append(_rows(at_least_float32(class_logits), anchors))
            box_levels.append(_rows(box, anchors))
            if quality_logits is not None:
                quality_levels.append(_rows(at_least_float32(quality_logits), anchors))
        class_logits = torch.cat(class_levels, dim=1)
        quality_logits = torch.cat(quality_levels, dim=1)[..., 0] if quality_levels else None
        scores, class_scores = self.outputs_of(0).quality.scores(class_logits, quality_logits)
        return Raw(
            scores=scores,
            class_scores=class_scores,
            box=torch.cat(box_levels, dim=1).unflatten(-1, (4, self.box_width)),
            class_logits=class_logits,
            quality_logits=quality_logits,
            priors=self.priors(features),
        )

    def outputs_of(self, level: int) -> Outputs:
        """Return the output layers of a level: its own, or those of all levels."""
        return cast("Outputs", self.outputs[level % len(self.outputs)])


def _rows(level: Float[Tensor, "b c h w"], anchors: int) -> Float[Tensor, "b n width"]:
    """Return one row a prior: cells row by row, the anchors of one cell last."""
    return level.flatten(2).mT.unflatten(2, (anchors, -1)).flatten(1, 2)
