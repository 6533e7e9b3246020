"""The precision that losses and scores are computed in, whatever autocast hands over."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or in float64 where it is float64 already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
