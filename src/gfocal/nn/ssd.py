"""SSD's own backbone and neck: VGG-16 cut before its classifier, and the layers that halve its map on and on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions and channels of VGG-16's five stages (Simonyan & Zisserman 2015, configuration D)."""


@final
class VGG16(nn.Module):
    """VGG-16 with its first two fully connected layers as convolutions (SSD, Liu et al. 2016, Sec. 3).

    The last pooling keeps the size, and the convolution after it looks as far by its dilation. Puts out conv4_3 at
    stride 8 and fc7 at stride 16. width: scales all channels. Layers are numbered as in torchvision and timm.
    """

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        from timm.models import FeatureInfo  # takes a second to load

        layers: list[nn.Module] = []
        channels = 3
        for stage, (depth, full) in enumerate(STAGES):
            for _ in range(depth):
                layers += [nn.Conv2d(channels, round(full * width), 3, padding=1), nn.ReLU(inplace=True)]
                channels = round(full * width)
            last = stage == len(STAGES) - 1
            layers.append(nn.MaxPool2d(3, 1, 1) if last else nn.MaxPool2d(2, 2, ceil_mode=True))
        dense = round(1024 * width)
        layers += [nn.Conv2d(channels, dense, 3, padding=6, dilation=6), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(dense, dense, 1), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        described = [
            {"num_chs": channels, "reduction": 8, "module": "features.22"},
            {"num_chs": dense, "reduction": 16, "module": "features.34"},
        ]
        self.feature_info = FeatureInfo(described, (0, 1))
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                _initialise(layer)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Return conv4_3 after its ReLU, and fc7."""
        fine = self.features[:23](images)
        return [fine, self.features[23:](fine)]


@final
class MultiboxLayers(nn.Module):
    """SSD's further levels: pairs of a 1x1 and a striding 3x3 convolution, the last one a 4x4 over what is left.

    in_channels: of the two features of `VGG16`. The first feature is scaled to a learnt length at each location, since
    its values are larger than the others' (Liu et al. 2016, Sec. 3.1). out_channels: of each level.
    """

    def __init__(self, in_channels: Sequence[int], *, width: float = 1.0) -> None:
        super().__init__()
        fine, coarse = in_channels
        self.l2_norm = L2Norm(fine)
        plan = [(256, 512, 3, 2), (128, 256, 3, 2), (128, 256, 3, 2), (128, 256, 3, 2), (128, 256, 4, 1)]
        self.out_channels = [fine, coarse]
        self.extra = nn.ModuleList()
        for middle, full, kernel, stride in plan:
            squeeze = nn.Conv2d(self.out_channels[-1], round(middle * width), 1)
            shrink = nn.Conv2d(round(middle * width), round(full * width), kernel, stride, padding=1)
            _initialise(squeeze)
            _initialise(shrink)
            relu = nn.ReLU(inplace=True)
            self.extra.append(nn.Sequential(OrderedDict(squeeze=squeeze, relu=relu, shrink=shrink, relu2=relu)))
            self.out_channels.append(shrink.out_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the seven levels of features (b, c, h, w), finest first."""
        fine, coarse = features
        levels = [self.l2_norm(fine), coarse]
        for layers in self.extra:
            levels.append(layers(levels[-1]))
        return levels


@final
class L2Norm(nn.Module):
    """Scales the channels of each location to length 1, then by a learnt factor a channel, 20 at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 20.0))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the scaled feature, computed in float32: squares of large values leave half precision."""
        normal = F.normalize(x.float(), dim=1, eps=1e-10)
        return (self.weight[:, None, None] * normal).to(x.dtype)


def _initialise(conv: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
