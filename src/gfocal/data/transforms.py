"""From a picture to the network's input in training: the steps of the augmentation, then as in the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2  # pyright: ignore[reportMissingTypeStubs]

from gfocal.data.augment import Distort, Expand, IoUCrop
from gfocal.data.collate import SMALLEST_SIDE, Example
from gfocal.data.placing import ResizeShortLong, ScaleJitter, to_boxes, to_image, to_pixels
from gfocal.data.preparing import normalize
from gfocal.data.resizing import check_factors, check_sides
from gfocal.errors import UserError, within_one


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
            within_one(name, getattr(self, name))
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
