"""What a model costs: parameters, and multiply-adds a picture."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from gfocal.builder import build_parts
from gfocal.config import Recipe


def cost_of(recipe: Recipe, *, size: tuple[int, int] = (800, 1280)) -> tuple[int, float]:
    """Return the number of parameters and the multiply-adds in 10⁹ for a picture of (height, width) pixels.

    A recipe that stretches all pictures to one size has its own instead.

    All parameters count, frozen ones too. Of the layers, convolutions and matrix products count, as is usual; a
    deformable convolution counts like the plain one, and the convolution of its offsets beside it. Nothing is
    computed, and no memory is taken up.
    """
    with torch.device("meta"):
        detector = build_parts(recipe).detector.eval()
        own = (recipe.pictures.short, recipe.pictures.long)
        images = torch.zeros(1, 3, *(size if recipe.pictures.keep_aspect else own))
    kinds = {torch.ops.torchvision.deform_conv2d: _deformable_flops}
    with FlopCounterMode(display=False, custom_mapping=kinds) as counter, torch.no_grad():
        detector(images)
    # a multiply-add is two operations
    return sum(parameter.numel() for parameter in detector.parameters()), counter.get_total_flops() / 2e9


def _deformable_flops(x: Any, weight: Any, *rest: Any, out_shape: Any, **options: Any) -> int:
    batch, channels, height, width = out_shape
    return 2 * batch * height * width * channels * prod(weight[1:])
