"""Pictures that say where something was drawn, to see whether boxes stay on it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from gfocal.data.placing import to_boxes, to_image

Box = tuple[int, int, int, int]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def blocks(height: int, width: int, boxes: list[Box]) -> np.ndarray:
    """Return a black picture with a white block in each box."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        picture[y1:y2, x1:x2] = 255
    return picture


def inputs(picture: np.ndarray, boxes: Tensor) -> tuple[tv_tensors.Image, tv_tensors.BoundingBoxes]:
    """Return what the steps of an augmentation take; boxes (g, 4)."""
    return to_image(picture), to_boxes(boxes, (picture.shape[0], picture.shape[1]))


def random_boxes(rng: np.random.Generator, height: int, width: int, count: int) -> Tensor:
    """Return boxes (count, 4) anywhere in a picture, a pixel wide and high at least where it is."""
    sides = np.minimum(1 + rng.uniform(0, 0.4, (count, 2)) * [width, height], [width, height])
    corners = rng.uniform(0, 1, (count, 2)) * ([width, height] - sides)
    return torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float()


def check_on_block(image: Tensor, box: Tensor, *, least: float = 0.5) -> None:
    """What is brighter than the share `least` between black and white of the image (3, h, w) fills the box, to a pixel.

    least: below a half where a blend may have halved a part of the white.
    """
    level = image.as_subclass(Tensor).float().mean(0)
    rows, columns = (level >= level.min() + least * (level.max() - level.min())).nonzero(as_tuple=True)
    seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert (seen - box.as_subclass(Tensor)).abs().max() <= 1.01
