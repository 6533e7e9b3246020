"""The network: images in, `Raw` out, nothing decided yet. This is what is exported."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gfocal.boxrep import BoxRepresentation
from gfocal.nn.fpn import FPN
from gfocal.nn.trunk import Trunk
from gfocal.ops.precision import at_least_float32
from gfocal.priors import SquareAnchors
from gfocal.quality import Quality
from gfocal.structures import Raw


@final
class Detector(nn.Module):
    """Backbone, pyramid, trunk and the two output layers of a dense detector."""

    def __init__(
        self,
        backbone: nn.Module,
        fpn: FPN,
        *,
        trunk: Trunk,
        quality: Quality,
        box: BoxRepresentation,
        priors: SquareAnchors,
        channels: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn
        self.trunk = trunk
        self.quality = quality
        self.priors = priors
        self.box_width = box.width
        self.box_conv = nn.Conv2d(channels, 4 * box.width, 3, padding=1)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in priors.strides)
        assert self.box_conv.bias is not None
        nn.init.normal_(self.box_conv.weight, std=0.01)
        nn.init.zeros_(self.box_conv.bias)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Raw:
        """Return the raw output for normalised images (b, 3, h, w), h and w multiples of 32.

        Channels are in the order the weights were trained with. Outputs are float32 under autocast too, because
        a bfloat16 score has too few digits to rank by.
        """
        class_levels: list[Tensor] = []
        quality_levels: list[Tensor] = []
        box_levels: list[Tensor] = []
        features = self.fpn(self.backbone(images))
        for level, feature in enumerate(features):
            cls_feature, box_feature = self.trunk(feature, level)
            box = self.scales[level] * at_least_float32(self.box_conv(box_feature))
            class_logits, quality_logits = self.quality(cls_feature, box_feature, box)
            class_levels.append(_rows(at_least_float32(class_logits), class_logits.shape[1]))
            box_levels.append(_rows(box, 4 * self.box_width))
            if quality_logits is not None:
                quality_levels.append(_rows(at_least_float32(quality_logits), 1))
        class_logits = torch.cat(class_levels, dim=1)
        quality_logits = torch.cat(quality_levels, dim=1)[..., 0] if quality_levels else None
        return Raw(
            scores=self.quality.scores(class_logits, quality_logits),
            box=torch.cat(box_levels, dim=1).unflatten(-1, (4, self.box_width)),
            class_logits=class_logits,
            quality_logits=quality_logits,
            priors=self.priors(features),
        )


def _rows(level: Float[Tensor, "b c h w"], width: int) -> Float[Tensor, "b n width"]:
    """Return one row a prior: cells row by row, the anchors of one cell last."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width)
