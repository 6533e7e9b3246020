"""The convolutions between pyramid and output layers, one tower for classes and one for boxes."""

from __future__ import annotations

from collections import OrderedDict
from typing import final

from jaxtyping import Float
from torch import Tensor, nn


@final
class Trunk(nn.Module):
    """Two towers of `depth` times 3x3 convolution and ReLU, which all levels share.

    norm: whether a group norm of 32 groups stands between the two. bias: whether the convolutions have one.
    """

    def __init__(self, channels: int, depth: int = 4, *, norm: bool = True, bias: bool = False) -> None:
        super().__init__()
        self.cls = nn.Sequential(*(_layer(channels, norm=norm, bias=bias) for _ in range(depth)))
        self.box = nn.Sequential(*(_layer(channels, norm=norm, bias=bias) for _ in range(depth)))

    def forward(
        self, feature: Float[Tensor, "b c h w"], level: int
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """Return the class feature and the box feature of one level; this trunk treats all levels alike."""
        return self.cls(feature), self.box(feature)


def _layer(channels: int, *, norm: bool, bias: bool) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    parts = OrderedDict[str, nn.Module](conv=conv)
    if norm:
        parts["norm"] = nn.GroupNorm(32, channels)
    parts["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)
