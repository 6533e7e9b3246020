"""Augmentations that make one picture of several: mosaic and mixup; all chance comes from torch's generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfocal.data.resizing import blank, fitted_size, move_boxes, paste, resize
from gfocal.errors import UserError, within_one

Sample: TypeAlias = tuple[NDArray[np.uint8], Tensor, Tensor]
"""A uint8 RGB picture (h, w, 3), its boxes (g, 4) xyxy in pixels, float32, and their labels (g,)."""

Mix: TypeAlias = Callable[[Sample, Callable[[], Sample]], Sample]
"""From a sample, and what returns another random one at each call, to a sample of several."""

LARGEST_MOSAIC = 4096
"""Pixels that no side of a mosaic passes: one of photographs of 12 megapixels would be 0.15 GB."""


@final
@dataclass(frozen=True)
class Mosaic:
    """With a probability of `chance`, put a picture and three others around a point of one canvas.

    The canvas is `canvas` (1..2) times as wide and high as the first picture, at most 4,096 pixels. The point is drawn
    evenly from the middle half of each of its axes; every picture has a corner there, and is cut where the canvas ends.
    The others are made as large as fits the first one's size. Boxes are clipped, and dropped with their labels where
    their centres are cut off. fill: the RGB colour (0..255) of what no picture covers.
    Bochkovskiy et al., YOLOv4 (2020), section 3.3.
    """

    chance: float
    canvas: float = 2.0
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        within_one("mosaic", self.chance)
        if not 1 <= self.canvas <= 2:
            raise UserError(f"mosaic_canvas is {self.canvas}: must lie in 1..2")

    def __call__(self, sample: Sample, draw_other: Callable[[], Sample]) -> Sample:
        """Return a mosaic of `sample` and three others, or `sample` itself."""
        happens, right, down = (float(share) for share in torch.rand(3))
        if happens >= self.chance:
            return sample
        height, width = sample[0].shape[:2]
        shrink = min(1.0, LARGEST_MOSAIC / (max(height, width) * self.canvas))
        within = max(int(height * shrink), 1), max(int(width * shrink), 1)
        canvas = int(within[0] * self.canvas), int(within[1] * self.canvas)
        x, y = round((0.25 + 0.5 * right) * canvas[1]), round((0.25 + 0.5 * down) * canvas[0])
        out, boxes, labels = blank(canvas, self.fill), list[Tensor](), list[Tensor]()
        # Upper left, upper right, lower left, lower right: the share of a picture's sides that lies before the point.
        for before in ((1, 1), (0, 1), (1, 0), (0, 0)):
            picture, own, own_labels = sample if before == (1, 1) else draw_other()
            old = picture.shape[0], picture.shape[1]
            size = fitted_size(old, within)
            offset = x - before[0] * size[1], y - before[1] * size[0]
            paste(out, _resized(picture, size), offset)
            moved = move_boxes(own, old=old, size=size, offset=offset, canvas=canvas)
            kept = (moved[:, 2:] > moved[:, :2]).all(1)
            boxes.append(moved[kept])
            labels.append(own_labels[kept])
        return out, torch.cat(boxes), torch.cat(labels)


@final
@dataclass(frozen=True)
class MixUp:
    """With a probability of `chance`, blend a picture with another one, half and half, and keep the boxes of both.

    The other is made as large as fits the first one's size and lies at a place drawn evenly; where it does not cover
    the first, that stays as it is. Half and half as in the published code of YOLOX (Ge et al., 2021): all boxes count
    alike in the losses, so that no picture may be much fainter than the other. Zhang et al., mixup (2018).
    """

    chance: float

    def __post_init__(self) -> None:
        within_one("mixup", self.chance)

    def __call__(self, sample: Sample, draw_other: Callable[[], Sample]) -> Sample:
        """Return a blend of `sample` and another, or `sample` itself."""
        happens, right, down = (float(share) for share in torch.rand(3))
        if happens >= self.chance:
            return sample
        picture, boxes, labels = sample
        other, other_boxes, other_labels = draw_other()
        canvas = picture.shape[0], picture.shape[1]
        old = other.shape[0], other.shape[1]
        size = fitted_size(old, canvas)
        offset = x, y = round(right * (canvas[1] - size[1])), round(down * (canvas[0] - size[0]))
        out = picture.copy()
        shared = np.s_[y : y + size[0], x : x + size[1]]
        out[shared] = cv2.addWeighted(picture[shared], 0.5, _resized(other, size), 0.5, 0)
        moved = move_boxes(other_boxes, old=old, size=size, offset=offset, canvas=canvas)
        return out, torch.cat([boxes, moved]), torch.cat([labels, other_labels])


@final
@dataclass(frozen=True)
class Mixing:
    """A mosaic, then a mixup of what came of it with a plain picture; each by its own chance."""

    mosaic: Mosaic
    mixup: MixUp

    def __call__(self, sample: Sample, draw_other: Callable[[], Sample]) -> Sample:
        """Return a sample that is one picture, a mosaic, a blend, or a mosaic blended with a picture."""
        return self.mixup(self.mosaic(sample, draw_other), draw_other)


def mixing(
    *, mosaic: float, mixup: float, mosaic_canvas: float = 2.0, fill: tuple[int, int, int] = (0, 0, 0)
) -> Mixing | None:
    """Return the mixing of these chances (0..1), or None where both are 0; UserError where they are out of range.

    mosaic_canvas: sides of a mosaic over those of its first picture, 1..2. fill: RGB colour, 0..255.
    """
    made = Mixing(Mosaic(mosaic, canvas=mosaic_canvas, fill=fill), MixUp(mixup))
    return made if mosaic > 0 or mixup > 0 else None


def _resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return picture if size == picture.shape[:2] else resize(picture, size)
