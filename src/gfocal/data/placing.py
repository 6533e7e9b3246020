"""Steps of the augmentation that put a picture at a place of a canvas, boxes along, as transforms of torchvision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors  # pyright: ignore[reportMissingTypeStubs]
from torchvision.transforms import v2  # pyright: ignore[reportMissingTypeStubs]

from gfocal.data.resizing import blank, check_factors, check_sides, move_boxes, paste, resize, resized_size


class Placing(v2.Transform, ABC):
    """A step that resizes an image and puts it at a place of a canvas, boxes (g, 4) xyxy along.

    Steps say in `make_params` where: size, the new (height, width); offset (x, y) of its corner; canvas (height,
    width). No parameters: everything stays as it is. A box is clipped to the canvas; one whose centre leaves it is set
    to zero size, to be dropped with its label. fill: the RGB colour (0..255) of the canvas around the image.
    """

    _transformed_types = (tv_tensors.Image, tv_tensors.BoundingBoxes)

    def __init__(self, *, fill: tuple[int, int, int] = (0, 0, 0)) -> None:
        super().__init__()
        self.fill = fill

    @abstractmethod
    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Return where the image goes: size, offset and canvas, or nothing."""

    @final
    def transform(self, value: Any, params: dict[str, Any]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Put the image at its place, or move the boxes with it."""
        if not params:
            return value
        if not isinstance(value, tv_tensors.Image):
            return to_boxes(move_boxes(value.as_subclass(Tensor), old=value.canvas_size, **params), params["canvas"])
        size, offset, canvas = params["size"], params["offset"], params["canvas"]
        pixels = to_pixels(value)
        pixels = pixels if size == pixels.shape[:2] else resize(pixels, size)
        out = blank(canvas, self.fill)
        paste(out, pixels, offset)
        return to_image(out)


@final
class ResizeShortLong(v2.Transform):
    """Resize an image and its boxes so that the short side is drawn from the whole numbers `short` = (low, high).

    `long` limits the long side, or is the width where `keep_aspect` is False. Boxes (g, 4) xyxy go by the real ratio
    of each axis and are clipped to the image.
    """

    _transformed_types = (tv_tensors.Image, tv_tensors.BoundingBoxes)

    def __init__(self, short: tuple[int, int], long: int, *, upscale: bool = True, keep_aspect: bool = True) -> None:
        super().__init__()
        check_sides(short, long)
        self.keep_aspect = keep_aspect
        self.short = short
        self.long = long
        self.upscale = upscale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the new (height, width)."""
        old = size_of(flat_inputs)
        short = int(torch.randint(self.short[0], self.short[1] + 1, ()))
        size = resized_size(old, short=short, long=self.long, upscale=self.upscale, keep_aspect=self.keep_aspect)
        return {"size": size}

    def transform(self, value: Any, params: dict[str, Any]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Resize the image, or move the boxes with it."""
        size: tuple[int, int] = params["size"]
        if isinstance(value, tv_tensors.Image):
            return to_image(resize(to_pixels(value), size))
        boxes, old = value.as_subclass(Tensor), value.canvas_size
        return to_boxes(move_boxes(boxes, old=old, size=size, offset=(0, 0), canvas=size, centred=False), size)


@final
class ScaleJitter(Placing):
    """Zoom an image by a factor drawn from `factors`, then cut or fill it to a canvas at a place drawn, too.

    The canvas is the image's own old size. Or it is `size` (height, width), and a factor of 1 makes the image the
    largest that fits it: the large-scale jitter of Ghiasi et al. (2021), with factors 0.1 to 2. There, without
    `upscale` that image is no larger than the old one, and without `keep_aspect` it is `size` itself.
    """

    def __init__(
        self,
        factors: tuple[float, float],
        *,
        size: tuple[int, int] | None = None,
        fill: tuple[int, int, int] = (0, 0, 0),
        upscale: bool = True,
        keep_aspect: bool = True,
    ) -> None:
        super().__init__(fill=fill)
        check_factors(factors)
        self.factors = factors
        self.size = size
        self.upscale = upscale
        self.keep_aspect = keep_aspect

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the zoomed (height, width) and where its corner (x, y) lies on the canvas."""
        old = size_of(flat_inputs)
        canvas = self.size or old
        zoom, right, down = (float(share) for share in torch.rand(3))
        factor = self.factors[0] + zoom * (self.factors[1] - self.factors[0])
        rows, columns = self._whole(old)
        size = max(round(rows * factor), 1), max(round(columns * factor), 1)
        # Both signs: the place of the canvas on a larger picture, or of a smaller picture on the canvas.
        offset = round(right * (canvas[1] - size[1])), round(down * (canvas[0] - size[0]))
        return {"size": size, "offset": offset, "canvas": canvas}

    def _whole(self, old: tuple[int, int]) -> tuple[float, float]:
        """Return the (height, width), not rounded, of an image that a factor of 1 leads to."""
        if self.size is None:
            return old
        if not self.keep_aspect:
            return self.size
        scale = min(self.size[0] / old[0], self.size[1] / old[1])
        scale = scale if self.upscale else min(scale, 1.0)
        return old[0] * scale, old[1] * scale


def size_of(flat_inputs: list[Any]) -> tuple[int, int]:
    """Return the (height, width) of the first image among the inputs of a step."""
    image = next(value for value in flat_inputs if isinstance(value, tv_tensors.Image))
    return image.shape[-2], image.shape[-1]


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """Return an image (3, h, w) as contiguous pixels (h, w, 3)."""
    return np.ascontiguousarray(image.as_subclass(Tensor).permute(1, 2, 0).numpy())


def to_image(pixels: NDArray[np.uint8]) -> tv_tensors.Image:
    """Return pixels (h, w, 3) as an image (3, h, w) of the same memory."""
    return tv_tensors.Image(torch.as_tensor(pixels).permute(2, 0, 1))


def to_boxes(boxes: Float[Tensor, "g 4"], canvas: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    """Return xyxy boxes as those of a canvas (height, width)."""
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas)  # pyright: ignore[reportCallIssue]
