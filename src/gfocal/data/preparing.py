"""From a picture to the network's input, as in the test: resized and normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from gfocal.data.collate import Prepared
from gfocal.data.resizing import check_sides, resize, resized_size


def normalize(
    picture: NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float], bgr: bool = False
) -> Float[Tensor, "3 h w"]:
    """Return (x - mean) / std of a uint8 RGB picture (h, w, 3) as float32 (3, h, w), channels reversed for `bgr`.

    `mean` and `std` are in the order of the result's channels, in units of 0..255. In memory the channels of a pixel
    stay together, as convolutions take them.
    """
    # A table of the 256 values of each channel: exact to the last bit of float32, and faster than arithmetic.
    levels = (np.arange(256)[:, None] - np.array(mean)) / np.array(std)
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if bgr else np.ascontiguousarray(picture)
    return torch.as_tensor(cv2.LUT(pixels, levels.astype(np.float32)[None])).permute(2, 0, 1)


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
