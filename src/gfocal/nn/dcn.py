"""Deformable convolutions, version 1 (Dai et al. 2017) and 2 (Zhu et al. 2019), in place of 3x3 convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, final

from jaxtyping import Float
from torch import Tensor, nn

from gfocal.ops.precision import at_least_float32


@final
class DeformConv2d(nn.Module):
    """Version 1: every tap of the kernel is read at a place shifted by an offset (y, x) that the input decides.

    Takes over weight, bias and geometry of `conv`, under the same names. Offsets start at 0, where the output is
    that of `conv`.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        self.bias = conv.bias
        self.conv_offset = _zero_conv(conv, values_per_tap=2)
        self.geometry = _geometry(conv)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return the convolution of the shifted input."""
        return _in_float32(x, self.conv_offset(x), self.weight, self.bias, *self.geometry)


@final
class ModulatedDeformConv2d(nn.Module):
    """Version 2: as version 1, and every tap is weighted by a mask in 0..1 that the input decides, too.

    Takes over weight, bias and geometry of `conv`, under the same names. Offsets start at 0 and masks at 1/2, so the
    output starts at half of `conv`'s (without its bias).
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        self.bias = conv.bias
        self.conv_offset = _zero_conv(conv, values_per_tap=3)
        self.geometry = _geometry(conv)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return the convolution of the shifted and weighted input."""
        values = self.conv_offset(x)
        taps = values.shape[1] // 3
        mask = values[:, 2 * taps :].sigmoid()
        return _in_float32(x, values[:, : 2 * taps], self.weight, self.bias, *self.geometry, mask)


def _in_float32(x: Tensor, offset: Tensor, *rest: Any) -> Tensor:
    """Convolve in float32, the precision in which offsets keep their fractions, and which the CPU kernel insists on."""
    from torchvision.ops import deform_conv2d  # it takes seconds to load, which few models need

    rest = tuple(at_least_float32(value) if isinstance(value, Tensor) else value for value in rest)
    return deform_conv2d(at_least_float32(x), at_least_float32(offset), *rest).to(x.dtype)


Geometry: TypeAlias = "tuple[tuple[int, int], tuple[int, int], tuple[int, int]]"


def _geometry(conv: nn.Conv2d) -> Geometry:
    """Return stride, padding and dilation of a convolution."""
    assert not isinstance(conv.padding, str)
    return _pair(conv.stride), _pair(conv.padding), _pair(conv.dilation)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return values[0], values[1]


def _zero_conv(conv: nn.Conv2d, *, values_per_tap: int) -> nn.Conv2d:
    """Return a convolution of `conv`'s geometry that puts out 0s: some values for each tap of its kernel."""
    kernel = _pair(conv.kernel_size)
    stride, padding, dilation = _geometry(conv)
    width = values_per_tap * kernel[0] * kernel[1]
    zero = nn.Conv2d(conv.in_channels, width, kernel, stride=stride, padding=padding, dilation=dilation)
    assert zero.bias is not None
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    return zero


DEFORMABLE: Mapping[int, type[DeformConv2d] | type[ModulatedDeformConv2d]] = {1: DeformConv2d, 2: ModulatedDeformConv2d}
