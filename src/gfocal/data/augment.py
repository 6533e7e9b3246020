"""SSD's augmentation of one picture: expansion, crops that keep an overlap, photometric distortion.

Liu et al., SSD (2016), sections 2.2 and 3.6, with the ranges and the order (distort, expand, crop) of its published
code. torchvision has the three as steps, but its crop and its colours take 25 and 53 ms for a picture of 640 x 480, on
one core at 2.5 GHz; so here the crop tries all its parts at once and OpenCV changes the colours, in 1.5 and 5 ms.
"""

from __future__ import annotations

from typing import Any, cast, final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors  # pyright: ignore[reportMissingTypeStubs]
from torchvision.transforms import v2  # pyright: ignore[reportMissingTypeStubs]

from gfocal.data.placing import Placing, size_of, to_image, to_pixels
from gfocal.errors import UserError, within_one

LARGEST_CANVAS = 4096
"""Pixels that no side of an expanded picture passes: a photograph of 12 megapixels on 16 times its area is 0.6 GB."""


@final
class Expand(Placing):
    """With a probability of `chance`, put an image on a canvas up to `largest` times as wide and high.

    The factor is drawn evenly from 1..`largest`, the place evenly too; the canvas around it has the colour `fill`, RGB
    in 0..255. Where a side of the canvas would pass 4,096 pixels, image and canvas are made smaller together.
    """

    def __init__(self, chance: float, *, largest: float = 4.0, fill: tuple[int, int, int] = (0, 0, 0)) -> None:
        super().__init__(fill=fill)
        within_one("expand", chance)
        if not 1 <= largest <= 4:
            raise UserError(f"expand_max is {largest}: must lie in 1..4")
        self.chance = chance
        self.largest = largest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the canvas (height, width) and where the image lies on it."""
        height, width = size_of(flat_inputs)
        happens, zoom, right, down = (float(share) for share in torch.rand(4))
        if happens >= self.chance:
            return {}
        factor = 1 + zoom * (self.largest - 1)
        shrink = min(1.0, LARGEST_CANVAS / (max(height, width) * factor))
        size = max(round(height * shrink), 1), max(round(width * shrink), 1)
        canvas = max(int(height * shrink * factor), size[0]), max(int(width * shrink * factor), size[1])
        offset = int(right * (canvas[1] - size[1])), int(down * (canvas[0] - size[0]))
        return {"size": size, "offset": offset, "canvas": canvas}


@final
class IoUCrop(Placing):
    """With a probability of `chance`, cut out a part that shares enough with a box.

    As torchvision's `v2.RandomIoUCrop`: the least IoU of the part with one of the boxes whose centres lie in it is
    drawn from 0, .1, .3, .5, .7, .9, or the image stays whole; of 40 parts, .3 to 1 of each side at an aspect of 1/2
    to 2, the first that fulfils it is taken; where none does, all is drawn again. Images without boxes stay whole.
    """

    def __init__(self, chance: float) -> None:
        super().__init__()
        within_one("iou_crop", chance)
        self.chance = chance

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the part that is kept, as the canvas on which the whole image lies."""
        size = size_of(flat_inputs)
        boxes = [value for value in flat_inputs if isinstance(value, tv_tensors.BoundingBoxes)]
        corners = boxes[0].as_subclass(Tensor).double().numpy() if boxes else np.zeros((0, 4))
        if float(torch.rand(())) >= self.chance or len(corners) == 0:
            return {}
        while True:
            option = int(torch.randint(len(_LEAST_IOUS) + 1, ()))
            if option == len(_LEAST_IOUS):
                return {}
            parts = _parts(size, torch.rand(40, 4).double().numpy())
            parts = parts[_best_ious(parts, corners) >= _LEAST_IOUS[option]]
            if len(parts):
                left, top, right, bottom = (int(edge) for edge in parts[0])
                return {"size": size, "offset": (-left, -top), "canvas": (bottom - top, right - left)}


@final
class Distort(v2.Transform):
    """Change brightness, contrast, saturation, hue and the order of the channels, each with a probability of `chance`.

    Draws what torchvision's `v2.RandomPhotometricDistort` draws, with its ranges, and computes it in OpenCV on 8 bits:
    a shift of the hue, in steps of 1/256 of the circle, is coarser than torchvision's.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, chance: float) -> None:
        super().__init__()
        within_one("distort", chance)
        self.draws = v2.RandomPhotometricDistort(p=chance)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the factors of what is changed, None for what is not."""
        return self.draws.make_params(flat_inputs)

    def transform(self, value: Any, params: dict[str, Any]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Change the colours of the image."""
        pixels = to_pixels(value)
        first, contrast = params["contrast_before"], params["contrast_factor"]
        if params["brightness_factor"] is not None:
            pixels = _combined(pixels, np.eye(3) * params["brightness_factor"])
        if contrast is not None and first:
            pixels = _contrasted(pixels, contrast)
        if params["saturation_factor"] is not None:
            pixels = _saturated(pixels, params["saturation_factor"])
        if params["hue_factor"] is not None:
            pixels = _turned(pixels, params["hue_factor"])
        if contrast is not None and not first:
            pixels = _contrasted(pixels, contrast)
        if params["channel_permutation"] is not None:
            pixels = _combined(pixels, np.eye(3)[params["channel_permutation"].numpy()])
        return to_image(pixels)


def _parts(size: tuple[int, int], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return parts (n, 4) xyxy of a picture (height, width) from shares (t, 4) in 0..1; those of no use are left out.

    The first two shares say how large the part is, the others where.
    """
    whole = np.array(size[::-1], dtype=np.float64)
    sides = np.floor((0.3 + 0.7 * shares[:, :2]) * whole)
    corner = np.floor((whole - sides) * shares[:, 2:])
    width, height = sides.T
    useful = (sides >= 1).all(1) & (width <= 2 * height) & (height <= 2 * width)
    return np.concatenate([corner, corner + sides], axis=1)[useful]


def _best_ious(parts: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the highest IoU (n,) of each part (n, 4) with a box (g, 4) whose centre lies in it, -1 without such a box.

    In NumPy: on so few numbers the calls cost more than the arithmetic, and torch's cost several times as much.
    """
    left, top, right, bottom = parts.T[:, :, None]
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    inside = (left < x) & (x < right) & (top < y) & (y < bottom)
    width, height = np.minimum(right, x2) - np.maximum(left, x1), np.minimum(bottom, y2) - np.maximum(top, y1)
    shared = np.maximum(width, 0) * height  # negative at most where nothing is shared, never a whole that divides by 0
    whole = (right - left) * (bottom - top) + (x2 - x1) * (y2 - y1)
    return np.where(inside, shared / (whole - shared), -1.0).max(1)


def _combined(pixels: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return pixels (h, w, 3) times a matrix (3, 3), or (3, 4) with what is added, rounded and cut to 0..255."""
    return cast(NDArray[np.uint8], cv2.transform(pixels, matrix))


def _contrasted(pixels: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    mean = float(_GREY @ cv2.mean(pixels)[:3])
    return _combined(pixels, np.column_stack([np.eye(3) * factor, np.full(3, (1 - factor) * mean)]))


def _saturated(pixels: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    return _combined(pixels, np.eye(3) * factor + (1 - factor) * _GREY)


def _turned(pixels: NDArray[np.uint8], turns: float) -> NDArray[np.uint8]:
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(turns * 256) % 256)  # 256 steps make the circle: it wraps as 8 bits do
    return cast(NDArray[np.uint8], cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


_LEAST_IOUS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as torchvision weighs red, green and blue
