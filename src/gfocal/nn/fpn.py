"""Feature pyramid network (Lin et al. 2017) with the coarse levels that dense detectors add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@final
class FPN(nn.Module):
    """Turns features of strides 8, 16, 32 into levels P3 to P7 of equal width.

    in_channels: of each feature, finest first. Each extra level is a 3x3 convolution of stride 2 on the level before
    it, the first of them on P5 after its output convolution ("output") or on the backbone's last feature ("input").
    relu: whether extra levels pass a ReLU before the next one is made of them. out_channels: of each level.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        extra_levels: int = 2,
        extra_from: Literal["output", "input"] = "output",
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.from_input = extra_from == "input"
        self.relu = relu
        self.lateral = nn.ModuleList(_conv(width, channels, kernel=1) for width in in_channels)
        self.output = nn.ModuleList(_conv(channels, channels, kernel=3) for _ in in_channels)
        first = in_channels[-1] if self.from_input else channels
        widths = [first, *[channels] * (extra_levels - 1)][:extra_levels]
        self.extra = nn.ModuleList(_conv(width, channels, kernel=3, stride=2) for width in widths)
        self.out_channels = [channels] * (len(in_channels) + extra_levels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels, finest first, of features (b, c, h, w), finest first."""
        merged = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            upper = F.interpolate(merged[i], size=features[i - 1].shape[-2:], mode="nearest")
            merged[i - 1] = merged[i - 1] + upper
        levels = [output(feature) for output, feature in zip(self.output, merged, strict=True)]
        source = features[-1] if self.from_input else levels[-1]
        for conv in self.extra:
            levels.append(conv(_trainable(source)))
            source = levels[-1].relu() if self.relu else levels[-1]
        return levels


def _trainable(feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c _ _"]:
    """Return a feature from whose convolution of kernel 3 and stride 2 the weights can learn.

    In bfloat16 on x86 CPUs the gradient of such weights is unset memory where the feature is a single cell. A margin of
    zeros on the right and below is what the convolution adds itself: it changes no value.
    """
    single = torch.is_grad_enabled() and feature.shape[-2:] == (1, 1)
    return F.pad(feature, (0, 1, 0, 1)) if single else feature


def _conv(in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2)
    assert conv.bias is not None
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv
