"""Half precision learns what float32 does, and nothing in it overflows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

import gfocal
from gfocal.devices import autocast
from gfocal.model import Model
from gfocal.recipes import get_recipe

SMOOTHED = 0.98
BATCH = 6


def squares(count: int) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    generator = torch.Generator().manual_seed(count)
    images = 0.1 * torch.randn(BATCH, 3, 64, 64, generator=generator)
    truths = []
    for image in images:
        x, y, side = (
            int(torch.randint(low, high, (), generator=generator)) for low, high in ((0, 32), (0, 32), (16, 32))
        )
        image[:, y : y + side, x : x + side] += 2
        truths.append({"boxes": torch.tensor([[x, y, x + side, y + side]]).float(), "labels": torch.tensor([0])})
    return images, truths


def losses(recipe: str, dtype: torch.dtype, *, steps: int, device: str) -> Iterator[float]:
    """Yield the losses of steps on squares, from the same weights for every precision.

    The learning rate falls, as in every recipe: otherwise two runs that differ by a rounding end several percent apart.
    """
    small = get_recipe("gflv2_r18_mini")
    changes = {"backbone": small.backbone.model_copy(update={"width": 0.25}), "class_names": ("square",)}
    changes |= {"head": small.head.model_copy(update={"depth": 1})}
    torch.manual_seed(0)
    model: Model = gfocal.build(get_recipe(recipe).model_copy(update=changes), device=device)
    optimizer = torch.optim.SGD(model.detector.train().parameters(), lr=0.01, momentum=0.9)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    scaler = torch.amp.GradScaler(device, enabled=dtype is torch.float16)
    for step in range(steps):
        images, truths = squares(step)
        with autocast(dtype, torch.device(device)):
            moved = [{key: value.to(device) for key, value in truth.items()} for truth in truths]
            total = torch.stack(list(model.criterion(model.detector(images.to(device)), moved).values())).sum()
        scaler.scale(total).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.detector.parameters(), 10.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        decay.step()
        yield total.item()


def compared(recipe: str, dtype: torch.dtype, *, steps: int, device: str, share: float) -> None:
    smooth = None
    pairs = zip(
        losses(recipe, torch.float32, steps=steps, device=device),
        losses(recipe, dtype, steps=steps, device=device),
        strict=True,
    )
    for full, half in pairs:
        assert math.isfinite(half)
        smooth = (
            (full, half)
            if smooth is None
            else tuple(SMOOTHED * old + (1 - SMOOTHED) * new for old, new in zip(smooth, (full, half), strict=True))
        )
    assert smooth is not None
    assert smooth[1] == pytest.approx(smooth[0], rel=share)


@pytest.mark.parametrize("recipe", ["gfl_r18_mini", "gflv2_r18_mini"])
def test_bfloat16_follows_float32(recipe: str) -> None:
    compared(recipe, torch.bfloat16, steps=15, device="cpu", share=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["gfl_r18_mini", "gflv2_r18_mini"])
def test_bfloat16_follows_float32_for_long(recipe: str) -> None:
    compared(recipe, torch.bfloat16, steps=200, device="cpu", share=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("recipe", ["gfl_r18_mini", "gflv2_r18_mini"])
def test_half_precision_of_a_gpu_follows_float32(recipe: str, dtype: torch.dtype) -> None:
    compared(recipe, dtype, steps=200, device="cuda", share=0.02)
