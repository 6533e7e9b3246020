"""Numbers that a computation takes along to the device that it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Numbers: TypeAlias = Sequence[float] | Sequence[Sequence[float]]


def constant(values: Numbers, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return numbers as a tensor on the device of `like`, and in its type where `dtype` names none.

    A GPU need not be done with what it was given before, as `Tensor.new_tensor` would wait for it to be.
    """
    return torch.tensor(values, dtype=dtype or like.dtype).to(like.device, non_blocking=True)
