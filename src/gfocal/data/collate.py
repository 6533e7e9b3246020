"""Pictures ready for the network: one as an example, several as a zero-padded batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gfocal.data.faults import Fault
from gfocal.structures import Truth

SMALLEST_SIDE = 1 - 1e-3
"""Pixels under which a box is not learnt: one, less what float32 coordinates of a large picture round away."""


@dataclass(frozen=True)
class Prepared:
    """One normalised picture without boxes.

    image: (3, h, w). size: its (h, w). scale: the new over the old side (x, y), by which boxes go there and back.
    """

    image: Float[Tensor, "3 h w"]
    size: tuple[int, int]
    scale: tuple[float, float]


@dataclass(frozen=True)
class Example:
    """One normalised picture with its boxes in pixels of that picture.

    image: (3, h, w). boxes: (g, 4) xyxy. labels: (g,) from 0. index: its place in the data set. image_id and name
    tell it to a person. scale: the new over the old side (x, y) of a test picture, by which boxes go back. faults: of
    pictures that could not be read, in whose place this one stands.
    """

    image: Float[Tensor, "3 h w"]
    boxes: Float[Tensor, "g 4"]
    labels: Int[Tensor, " g"]
    index: int = -1
    image_id: int = -1
    name: str = ""
    scale: tuple[float, float] = (1.0, 1.0)
    faults: tuple[Fault, ...] = ()


def learnable(truth: Truth) -> tuple[Float[Tensor, "g 4"], Int[Tensor, " g"]]:
    """Return the boxes, clipped to the picture, and labels that a detector learns: no crowd, none under 1 pixel."""
    height, width = truth.size
    limit = torch.tensor([width, height, width, height], dtype=torch.float32)
    boxes = truth.boxes.clamp(min=0).minimum(limit)
    kept = ~truth.crowd & (boxes[:, 2:] - boxes[:, :2] >= SMALLEST_SIDE).all(1)
    return boxes[kept], truth.labels[kept]


@final
@dataclass(frozen=True)
class Batch:
    """Several examples, padded with zeros on the right and below to one size.

    images: (b, 3, H, W), H and W multiples of 32. truths: one dict a picture with `boxes` (g, 4) xyxy pixels,
    `labels` (g,) and `size`, the (height, width) of that picture's own padding. sizes: the (h, w) before padding.
    indices, image_ids, names, scales, faults: of the examples.
    """

    images: Float[Tensor, "b 3 H W"]
    truths: list[dict[str, Tensor | tuple[int, int]]]
    sizes: list[tuple[int, int]]
    indices: list[int]
    image_ids: list[int]
    names: list[str]
    scales: list[tuple[float, float]]
    faults: list[Fault]

    def __len__(self) -> int:
        return len(self.sizes)

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> Batch:
        """Return a copy whose tensors are on `device`."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory; `torch.utils.data.DataLoader(pin_memory=True)` calls it."""
        return self._moved(lambda tensor: tensor.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Batch:
        truths = [
            {key: move(value) if isinstance(value, Tensor) else value for key, value in truth.items()}
            for truth in self.truths
        ]
        return replace(self, images=move(self.images), truths=truths)


def pad_size(size: tuple[int, int], *, multiple: int = 32) -> tuple[int, int]:
    """Return (height, width) rounded up to a multiple."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def pad(image: Float[Tensor, "3 h w"], *, multiple: int = 32) -> Float[Tensor, "1 3 H W"]:
    """Return one normalised picture as a batch of its own, padded with zeros on the right and below."""
    height, width = image.shape[1:]
    padded = _canvas(1, pad_size((height, width), multiple=multiple))
    _place(image, padded[0])
    return padded


def _canvas(count: int, size: tuple[int, int]) -> Float[Tensor, "b 3 h w"]:
    """Return unset memory for pictures, in which the channels of a pixel lie together, as convolutions take them."""
    return torch.empty(count, *size, 3).permute(0, 3, 1, 2)


def _place(image: Float[Tensor, "3 h w"], canvas: Float[Tensor, "3 H W"]) -> None:
    """Copy a picture to the upper left corner of a canvas and fill the rest with zeros."""
    height, width = image.shape[1:]
    canvas[:, :height, :width] = image
    canvas[:, height:] = 0
    canvas[:, :height, width:] = 0


def collate(examples: Sequence[Example], *, multiple: int = 32) -> Batch:
    """Put at least one example into a batch, each in the upper left corner of its padding."""
    sizes = [(example.image.shape[1], example.image.shape[2]) for example in examples]
    height, width = pad_size((max(h for h, _ in sizes), max(w for _, w in sizes)), multiple=multiple)
    images = _canvas(len(examples), (height, width))
    truths: list[dict[str, Tensor | tuple[int, int]]] = []
    for image, example, (h, w) in zip(images, examples, sizes, strict=True):
        _place(example.image, image)
        truths.append({"boxes": example.boxes, "labels": example.labels, "size": pad_size((h, w), multiple=multiple)})
    return Batch(
        images,
        truths,
        sizes,
        indices=[example.index for example in examples],
        image_ids=[example.image_id for example in examples],
        names=[example.name for example in examples],
        scales=[example.scale for example in examples],
        faults=[fault for example in examples for fault in example.faults],
    )
