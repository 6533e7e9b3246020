"""From a picture to the network's input: resizing, normalising, and the steps of augmentation in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2  # pyright: ignore[reportMissingTypeStubs]

from gfocal.data.augment import Distort, Expand, IoUCrop
from gfocal.data.collate import SMALLEST_SIDE, Example, Prepared, pad_size
from gfocal.data.resizing import (
    ResizeShortLong,
    ScaleJitter,
    check_factors,
    check_share,
    check_sides,
    resize,
    resized_size,
    to_boxes,
    to_image,
    to_pixels,
)
from gfocal.errors import UserError

__all__ = [
    "Prepare",
    "Prepared",
    "ResizeShortLong",
    "ScaleJitter",
    "TrainTransform",
    "mean_colour",
    "normalize",
    "pad_size",
    "resize",
    "resized_size",
]


def normalize(
    picture: NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float], bgr: bool = False
) -> Float[Tensor, "3 h w"]:
    """Return (x - mean) / std of a uint8 RGB picture (h, w, 3) as float32 (3, h, w), channels reversed for `bgr`.

    `mean` and `std` are in the order of the result's channels, in units of 0..255.
    """
    # A table of the 256 values of each channel: exact to the last bit of float32, and faster than arithmetic.
    levels = (np.arange(256)[None] - np.array(mean)[:, None]) / np.array(std)[:, None]
    tables = levels.astype(np.float32)
    picture = np.ascontiguousarray(picture)
    out = np.empty((3, *picture.shape[:2]), dtype=np.float32)
    for channel in range(3):
        plane = cv2.extractChannel(picture, 2 - channel if bgr else channel)
        cv2.LUT(plane, tables[channel], out[channel])
    return torch.as_tensor(out)


@dataclass(frozen=True)
class Prepare:
    """The test transform: resize and normalise one picture.

    short, long: limits of its sides in pixels. mean, std: three numbers in 0..255, in the order of the network's
    channels, which is blue first where `bgr`. upscale: whether small pictures are enlarged. keep_aspect: False
    stretches every picture to `short` rows and `long` columns. zoom: factor on the size that all this leads to.
    """

    short: int
    long: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False
    upscale: bool = True
    keep_aspect: bool = True
    zoom: float = 1.0

    def __post_init__(self) -> None:
        check_sides((self.short, self.short), self.long)

    def __call__(self, picture: NDArray[np.uint8]) -> Prepared:
        """Return a uint8 RGB picture (h, w, 3) ready for the network."""
        height, width = picture.shape[:2]
        rows, columns = resized_size(
            (height, width), short=self.short, long=self.long, upscale=self.upscale, keep_aspect=self.keep_aspect
        )
        size = max(int(rows * self.zoom + 0.5), 1), max(int(columns * self.zoom + 0.5), 1)
        image = normalize(resize(picture, size), mean=self.mean, std=self.std, bgr=self.bgr)
        return Prepared(image, size, (size[1] / width, size[0] / height))


@dataclass(frozen=True)
class TrainTransform:
    """The training transform; all chance comes from torch's generator.

    Its steps, in this order, are each off where not said otherwise: distort colours, expand, cut out, zoom (`jitter`),
    resize (always), flip (half the time) left to right, upside down, change colours (`color`), normalise (always).

    short: (low, high) of the short side in pixels, each whole number alike; long: limit of the other. flip,
    vertical_flip: chance of a mirror image, 0..1. mean, std, bgr, upscale, keep_aspect: as in `Prepare`.
    jitter: (low, high) factor of `ScaleJitter`, or None; jitter_size: the (height, width) in pixels that it cuts or
    fills every picture to, which then are not resized to `short` and `long`, or None. color: how far brightness,
    contrast and saturation stray from 1, 0 (off) to 1. distort, expand, iou_crop: chances, 0..1, of `Distort`,
    `Expand` and `IoUCrop`. expand_max: largest factor of `Expand`, 1..4.
    """

    short: tuple[int, int]
    long: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: float = 0.5
    bgr: bool = False
    upscale: bool = True
    keep_aspect: bool = True
    jitter: tuple[float, float] | None = None
    color: float = 0.0
    jitter_size: tuple[int, int] | None = None
    vertical_flip: float = 0.0
    distort: float = 0.0
    expand: float = 0.0
    expand_max: float = 4.0
    iou_crop: float = 0.0

    def __post_init__(self) -> None:
        check_sides(self.short, self.long)
        if self.jitter is not None:
            check_factors(self.jitter)
        if self.jitter_size is not None and (self.jitter is None or min(self.jitter_size) < 1):
            raise UserError(f"jitter_size is {self.jitter_size}: must be two sides of at least 1, beside a jitter")
        for name in ("flip", "vertical_flip", "color"):
            check_share(name, getattr(self, name))
        _ = self._steps  # they refuse what else is out of range, here rather than at the first picture

    def __call__(self, picture: NDArray[np.uint8], boxes: Float[Tensor, "g 4"], labels: Int[Tensor, " g"]) -> Example:
        """Return a uint8 RGB picture (h, w, 3) and its xyxy pixel boxes ready for training.

        Boxes under 1 pixel wide or high afterwards are dropped with their labels.
        """
        height, width = picture.shape[:2]
        image, moved = self._steps(to_image(picture), to_boxes(boxes, (height, width)))
        kept = (moved[:, 2:] - moved[:, :2] >= SMALLEST_SIDE).all(1)
        normal = normalize(to_pixels(image), mean=self.mean, std=self.std, bgr=self.bgr)
        return Example(normal, moved.as_subclass(Tensor)[kept], labels[kept])

    @cached_property
    def _steps(self) -> v2.Compose:
        fill = mean_colour(self.mean, bgr=self.bgr)
        sides = {"upscale": self.upscale, "keep_aspect": self.keep_aspect}
        # A step that is off is left out: it would draw from the generator, and change what follows it.
        chosen: list[tuple[bool, v2.Transform]] = [
            (self.distort > 0, Distort(self.distort)),
            (self.expand > 0, Expand(self.expand, largest=self.expand_max, fill=fill)),
            (self.iou_crop > 0, IoUCrop(self.iou_crop)),
            (self.jitter is not None, ScaleJitter(self.jitter or (1, 1), size=self.jitter_size, fill=fill, **sides)),
            (self.jitter_size is None, ResizeShortLong(self.short, self.long, **sides)),
            (True, v2.RandomHorizontalFlip(self.flip)),
            (self.vertical_flip > 0, v2.RandomVerticalFlip(self.vertical_flip)),
            # Not the hue: it alone takes three times as long as everything else on a CPU.
            (self.color > 0, v2.ColorJitter(self.color, self.color, self.color)),
        ]
        return v2.Compose([step for on, step in chosen if on])


def mean_colour(mean: Sequence[float], *, bgr: bool = False) -> tuple[int, int, int]:
    """Return the RGB colour (0..255) nearest to `mean`, three numbers in the order of the network's channels."""
    red, green, blue = (round(level) for level in (reversed(mean) if bgr else mean))
    return red, green, blue
