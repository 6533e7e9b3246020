"""From a picture to the network's input: resizing, normalising, and the augmentation of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors  # pyright: ignore[reportMissingTypeStubs]
from torchvision.transforms import v2  # pyright: ignore[reportMissingTypeStubs]

from gfocal.data.collate import SMALLEST_SIDE, Example, Prepared, pad_size
from gfocal.errors import UserError

__all__ = [
    "Prepare",
    "Prepared",
    "ResizeShortLong",
    "ScaleJitter",
    "TrainTransform",
    "normalize",
    "pad_size",
    "resize",
    "resized_size",
]


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
        _check_sides((self.short, self.short), self.long)

    def __call__(self, picture: NDArray[np.uint8]) -> Prepared:
        """Return a uint8 RGB picture (h, w, 3) ready for the network."""
        height, width = picture.shape[:2]
        rows, columns = resized_size(
            (height, width), short=self.short, long=self.long, upscale=self.upscale, keep_aspect=self.keep_aspect
        )
        size = max(int(rows * self.zoom + 0.5), 1), max(int(columns * self.zoom + 0.5), 1)
        image = normalize(resize(picture, size), mean=self.mean, std=self.std, bgr=self.bgr)
        return Prepared(image, size, (size[1] / width, size[0] / height))


class ResizeShortLong(v2.Transform):
    """Resize an image and its boxes so that the short side is drawn from the whole numbers `short` = (low, high).

    `long` limits the long side, or is the width where `keep_aspect` is False. Boxes (g, 4) xyxy go by the real ratio
    of each axis and are clipped to the image.
    """

    _transformed_types = (tv_tensors.Image, tv_tensors.BoundingBoxes)

    def __init__(self, short: tuple[int, int], long: int, *, upscale: bool = True, keep_aspect: bool = True) -> None:
        super().__init__()
        _check_sides(short, long)
        self.keep_aspect = keep_aspect
        self.short = short
        self.long = long
        self.upscale = upscale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the new (height, width)."""
        old = _canvas(flat_inputs)
        short = int(torch.randint(self.short[0], self.short[1] + 1, ()))
        size = resized_size(old, short=short, long=self.long, upscale=self.upscale, keep_aspect=self.keep_aspect)
        return {"size": size}

    def transform(self, value: Any, params: dict[str, Any]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Resize the image, or move the boxes with it."""
        size: tuple[int, int] = params["size"]
        if isinstance(value, tv_tensors.Image):
            return _image(resize(_pixels(value), size))
        return _placed(value, size=size, offset=(0, 0), canvas=size)


class ScaleJitter(v2.Transform):
    """Zoom an image by a factor drawn from `factors`, then cut or fill it to its old size at a place drawn, too.

    Boxes (g, 4) xyxy move along and are clipped. One whose centre leaves the image is set to zero size, to be
    dropped with its label. fill: the RGB colour (0..255) around an image that shrank.
    """

    _transformed_types = (tv_tensors.Image, tv_tensors.BoundingBoxes)

    def __init__(self, factors: tuple[float, float], *, fill: tuple[int, int, int] = (0, 0, 0)) -> None:
        super().__init__()
        _check_factors(factors)
        self.factors = factors
        self.fill = fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the zoomed (height, width) and where its corner (x, y) lies on the old canvas."""
        height, width = canvas = _canvas(flat_inputs)
        zoom, right, down = (float(share) for share in torch.rand(3))
        factor = self.factors[0] + zoom * (self.factors[1] - self.factors[0])
        size = max(round(height * factor), 1), max(round(width * factor), 1)
        # Both signs: the place of the canvas on a larger picture, or of a smaller picture on the canvas.
        offset = round(right * (width - size[1])), round(down * (height - size[0]))
        return {"size": size, "offset": offset, "canvas": canvas}

    def transform(self, value: Any, params: dict[str, Any]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Zoom and cut the image, or move the boxes with it."""
        if not isinstance(value, tv_tensors.Image):
            return _placed(value, size=params["size"], offset=params["offset"], canvas=params["canvas"], centred=True)
        (height, width), (x, y) = params["canvas"], params["offset"]
        zoomed = resize(_pixels(value), params["size"])[max(-y, 0) :, max(-x, 0) :][:height, :width]
        out = np.empty((height, width, 3), dtype=np.uint8)
        out[:] = self.fill
        out[max(y, 0) : max(y, 0) + zoomed.shape[0], max(x, 0) : max(x, 0) + zoomed.shape[1]] = zoomed
        return _image(out)


@dataclass(frozen=True)
class TrainTransform:
    """The training transform: zoom, resize, flip, colour, normalise; all chance comes from torch's generator.

    short: (low, high) of the short side in pixels, each whole number alike; long: limit of the other. flip: chance
    of a mirror image, 0..1. mean, std, bgr, upscale, keep_aspect: as in `Prepare`. jitter: (low, high) factor of
    `ScaleJitter`, or None. color: how far brightness, contrast and saturation stray from 1, 0 (off) to 1.
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

    def __post_init__(self) -> None:
        _check_sides(self.short, self.long)
        if self.jitter is not None:
            _check_factors(self.jitter)
        for name, share in (("flip", self.flip), ("color", self.color)):
            if not 0 <= share <= 1:
                raise UserError(f"{name} is {share}: must lie in 0..1")

    def __call__(self, picture: NDArray[np.uint8], boxes: Float[Tensor, "g 4"], labels: Int[Tensor, " g"]) -> Example:
        """Return a uint8 RGB picture (h, w, 3) and its xyxy pixel boxes ready for training.

        Boxes under 1 pixel wide or high afterwards are dropped with their labels.
        """
        height, width = picture.shape[:2]
        inputs = (
            tv_tensors.Image(torch.as_tensor(picture).permute(2, 0, 1)),
            _boxes(boxes, (height, width)),
        )
        image, moved = self._steps(*inputs)
        kept = (moved[:, 2:] - moved[:, :2] >= SMALLEST_SIDE).all(1)
        normal = normalize(_pixels(image), mean=self.mean, std=self.std, bgr=self.bgr)
        return Example(normal, moved.as_subclass(Tensor)[kept], labels[kept])

    @cached_property
    def _steps(self) -> v2.Compose:
        mean = self.mean[::-1] if self.bgr else self.mean
        fill = (round(mean[0]), round(mean[1]), round(mean[2]))
        steps: list[v2.Transform] = [] if self.jitter is None else [ScaleJitter(self.jitter, fill=fill)]
        steps.append(ResizeShortLong(self.short, self.long, upscale=self.upscale, keep_aspect=self.keep_aspect))
        steps.append(v2.RandomHorizontalFlip(self.flip))
        if self.color:
            # Not the hue: it alone takes three times as long as everything else on a CPU.
            steps.append(v2.ColorJitter(self.color, self.color, self.color))
        return v2.Compose(steps)


def _check_sides(short: tuple[int, int], long: int) -> None:
    if not 1 <= short[0] <= short[1] <= long:
        raise UserError(f"size is short {short}, long {long}: must be whole numbers, 1 <= low <= high <= long")


def _check_factors(factors: tuple[float, float]) -> None:
    if not 0 < factors[0] <= factors[1]:
        raise UserError(f"jitter is {factors}: must be (low, high) with 0 < low <= high")


def _canvas(flat_inputs: list[Any]) -> tuple[int, int]:
    image = next(value for value in flat_inputs if isinstance(value, tv_tensors.Image))
    return image.shape[-2], image.shape[-1]


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.as_subclass(Tensor).permute(1, 2, 0).numpy())


def _image(pixels: NDArray[np.uint8]) -> tv_tensors.Image:
    return tv_tensors.Image(torch.as_tensor(pixels).permute(2, 0, 1))


def _boxes(boxes: Tensor, canvas: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas)  # pyright: ignore[reportCallIssue]


def _placed(
    boxes: tv_tensors.BoundingBoxes,
    *,
    size: tuple[int, int],
    offset: tuple[int, int],
    canvas: tuple[int, int],
    centred: bool = False,
) -> tv_tensors.BoundingBoxes:
    """Move boxes with a picture resized to `size` and put at `offset` (x, y) on `canvas`, and clip them to it.

    `centred`: a box whose centre leaves the canvas becomes a point.
    """
    old: tuple[int, int] = boxes.canvas_size
    # In float64, so that the edges of the picture stay its edges.
    scale = torch.tensor([size[1] / old[1], size[0] / old[0]], dtype=torch.float64)
    limit = torch.tensor([canvas[1], canvas[0]], dtype=torch.float64)
    corners = boxes.as_subclass(Tensor).double().reshape(-1, 2, 2) * scale + torch.tensor(offset)
    centre = corners.mean(1, keepdim=True)
    corners = corners.clamp(torch.zeros_like(limit), limit)
    if centred:
        inside = ((centre >= 0) & (centre <= limit)).all(-1, keepdim=True)
        corners = torch.where(inside, corners, corners[:, :1])
    return _boxes(corners.float().reshape(-1, 4), canvas)
