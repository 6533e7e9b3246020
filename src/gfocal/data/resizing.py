"""Resizing, and pictures at a place of a canvas with their boxes: arithmetic on sizes, pixels and boxes."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from gfocal.errors import UserError


def resized_size(
    size: tuple[int, int], *, short: int, long: int, upscale: bool = True, keep_aspect: bool = True
) -> tuple[int, int]:
    """Return the (height, width) that keeps the aspect and fits `short` and `long`, as the reference rounds it.

    The largest scale at which the short side is at most `short` and the long one at most `long`; never above 1
    without `upscale`. A side is at least 1 pixel. Without `keep_aspect`, (short, long) itself.
    """
    if not keep_aspect:
        return short, long
    scale = min(long / max(size), short / min(size))
    scale = scale if upscale else min(scale, 1.0)
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)


def resize(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a uint8 picture (h, w, 3) to `size` (height, width): OpenCV's fixed-point bilinear, no antialiasing."""
    return cast(NDArray[np.uint8], cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))


def fitted_size(size: tuple[int, int], within: tuple[int, int]) -> tuple[int, int]:
    """Return the largest (height, width) of the aspect of `size` that fits `within`; a side is at least 1 pixel."""
    scale = min(within[0] / size[0], within[1] / size[1])
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def blank(size: tuple[int, int], fill: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return a uint8 picture (h, w, 3) of one RGB colour, 0..255."""
    out = np.empty((*size, 3), dtype=np.uint8)
    out[:] = np.full((size[1], 3), fill, dtype=np.uint8)  # row by row: pixel by pixel is many times slower
    return out


def paste(onto: NDArray[np.uint8], picture: NDArray[np.uint8], offset: tuple[int, int]) -> None:
    """Copy a picture (h, w, 3) into `onto` (H, W, 3), its corner at `offset` (x, y), which may lie outside."""
    height, width = onto.shape[:2]
    x, y = offset
    seen = picture[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
    onto[max(y, 0) : max(y, 0) + seen.shape[0], max(x, 0) : max(x, 0) + seen.shape[1]] = seen


def move_boxes(
    boxes: Float[Tensor, "g 4"],
    *,
    old: tuple[int, int],
    size: tuple[int, int],
    offset: tuple[int, int],
    canvas: tuple[int, int],
    centred: bool = True,
) -> Float[Tensor, "g 4"]:
    """Move boxes with a picture of size `old` resized to `size` and put at `offset` (x, y) on `canvas`; clip to it.

    Boxes are xyxy pixels, sizes (height, width). `centred`: a box whose centre leaves the canvas becomes a point.
    """
    # In float64, so that the edges of the picture stay its edges.
    scale = torch.tensor([size[1] / old[1], size[0] / old[0]], dtype=torch.float64)
    limit = torch.tensor([canvas[1], canvas[0]], dtype=torch.float64)
    corners = boxes.double().reshape(-1, 2, 2) * scale + torch.tensor(offset)
    centre = corners.mean(1, keepdim=True)
    corners = corners.clamp(torch.zeros_like(limit), limit)
    if centred:
        inside = ((centre >= 0) & (centre <= limit)).all(-1, keepdim=True)
        corners = torch.where(inside, corners, corners[:, :1])
    return corners.float().reshape(-1, 4)


def check_sides(short: tuple[int, int], long: int) -> None:
    """Raise UserError where no side can be drawn from `short` = (low, high) under `long`."""
    if not 1 <= short[0] <= short[1] <= long:
        raise UserError(f"size is short {short}, long {long}: must be whole numbers, 1 <= low <= high <= long")


def check_factors(factors: tuple[float, float]) -> None:
    """Raise UserError where no factor can be drawn from `factors` = (low, high)."""
    if not 0 < factors[0] <= factors[1]:
        raise UserError(f"jitter is {factors}: must be (low, high) with 0 < low <= high")
