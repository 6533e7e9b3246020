"""Convolutions as oneDNN likes them on the CPU: weights laid out once, additions and ReLU on the way out."""

from __future__ import annotations

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@final
class PackedConv2d(nn.Module):
    """Does what a convolution does, in `dtype`, without gradients.

    The weight is laid out as oneDNN wants it for each size of input, when that comes first; most sizes share a layout.
    rectified: whether what is below 0 becomes 0 at the end.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = conv.weight.detach().to(dtype).to_mkldnn()
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.geometry: tuple[Any, ...] = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self.kernel, self.out_channels = conv.kernel_size, conv.out_channels
        self.rectified = False
        self._layouts: dict[bytes, Tensor] = {}
        self._for_size: dict[torch.Size, Tensor] = {}

    def forward(self, x: Float[Tensor, "b c h w"], other: Tensor | None = None) -> Float[Tensor, "_ d _ _"]:
        """Return the convolution of x, plus `other` where it is given."""
        x = x.to(self.weight.dtype)
        weight = self._for_size.get(x.shape)
        if weight is None:
            weight = self._for_size[x.shape] = self._laid_out(x.shape)
        # what torch.compile makes of convolutions on a CPU; builds without oneDNN lack it
        convolve = torch.ops.mkldnn._convolution_pointwise
        if other is not None and other.shape != self.shape_after(x.shape):
            found = convolve(x, weight, self.bias, *self.geometry, "none", [], "") + other
            return found.relu_() if self.rectified else found
        if other is None:
            return convolve(x, weight, self.bias, *self.geometry, "relu" if self.rectified else "none", [], "")
        other, after = other.to(x.dtype), "relu" if self.rectified else None
        return convolve.binary(x, other, weight, self.bias, *self.geometry, "add", None, after, [], "")

    def shape_after(self, shape: torch.Size) -> torch.Size:
        """Return the shape that an input of a shape is turned into."""
        padding, stride, dilation, _ = self.geometry
        sides = [
            (side + 2 * padding[i] - dilation[i] * (self.kernel[i] - 1) - 1) // stride[i] + 1
            for i, side in enumerate(shape[2:])
        ]
        return torch.Size((shape[0], self.out_channels, *sides))

    def _laid_out(self, size: torch.Size) -> Tensor:
        """Return the weight as oneDNN wants it for inputs of a size, the same tensor for the same layout."""
        lay_out = torch._C._nn.mkldnn_reorder_conv2d_weight  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        weight = lay_out(self.weight, *self.geometry, size)
        layout = torch.ops.mkldnn._get_mkldnn_serialized_md(weight).numpy().tobytes()
        if not self._layouts:
            self.weight = weight  # the plain one is not needed any more
        return self._layouts.setdefault(layout, weight)


def pack(network: nn.Module, dtype: torch.dtype) -> None:
    """Replace every convolution of a network by its packed form, where it has one."""
    for name, module in list(network.named_modules()):
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            network.set_submodule(name, PackedConv2d(module, dtype))
