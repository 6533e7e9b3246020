"""The convolutions that all levels share, one tower for classes and one for boxes."""

from __future__ import annotations

from collections import OrderedDict
from typing import final

from jaxtyping import Float
from torch import Tensor, nn


@final
class Trunk(nn.Module):
    """Two towers of `depth` times 3x3 convolution, group norm of 32 groups and ReLU."""

    def __init__(self, channels: int, depth: int = 4) -> None:
        super().__init__()
        self.cls = nn.Sequential(*(_conv_norm_relu(channels) for _ in range(depth)))
        self.box = nn.Sequential(*(_conv_norm_relu(channels) for _ in range(depth)))

    def forward(
        self, feature: Float[Tensor, "b c h w"], level: int
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """Return the class feature and the box feature of one level; this trunk treats all levels alike."""
        return self.cls(feature), self.box(feature)


def _conv_norm_relu(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    nn.init.normal_(conv.weight, std=0.01)
    norm = nn.GroupNorm(32, channels)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm, relu=nn.ReLU(inplace=True)))
