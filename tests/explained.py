"""Pictures to explain that were made up, so that what the page must say of them is known."""

from __future__ import annotations

import numpy as np
import torch

from gfocal.draw.explain.material import Explained
from gfocal.structures import Detections, EdgeDistributions, Truth

BINS = 17
NAMES = ("cat", "dog & <i>hen</i>", "</script><script>window.bad=1</script>")


def edges_of(boxes: torch.Tensor, *, spread: torch.Tensor | float = 1.0, step: float = 4.0) -> EdgeDistributions:
    """Distributions whose mean is each edge; spread in bins, broadcast to (n, 4)."""
    bins = torch.arange(BINS, dtype=torch.float64)
    sign = torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    width = torch.as_tensor(spread, dtype=torch.float64).expand(len(boxes), 4)[..., None]
    probabilities = (-((bins - 8) ** 2) / (2 * width**2)).softmax(-1)
    positions = boxes[..., None].double() + sign[:, None] * (bins - 8) * step
    return EdgeDistributions(probabilities.float(), positions.float())


def found(
    boxes: list[list[float]], scores: list[float], labels: list[int], **spread: torch.Tensor | float
) -> Detections:
    placed = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Detections(
        boxes=placed,
        scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.long),
        class_names=NAMES,
        quality=torch.tensor(scores) / 2 + 0.25,
        edges=edges_of(placed, **spread),
    )


def small(name: str = "one.jpg", *, truth: bool = True) -> Explained:
    """A picture 400 x 300: a cat, a rival that gave way to it, a dog inside of the cat's box, and a faint third."""
    spread = torch.tensor([[0.4, 0.4, 0.4, 3.0], [1.0] * 4, [0.5] * 4, [2.0] * 4])
    before = found(
        [[40, 60, 200, 240], [44, 64, 204, 236], [90, 110, 150, 170], [260, 80, 360, 200]],
        [0.9, 0.7, 0.5, 0.1],
        [0, 0, 1, 2],
        spread=spread,
    )
    kept = torch.tensor([0, 2, 3])
    scores = torch.tensor([[0.9, 0.2, 0.01], [0.7, 0.1, 0.02], [0.3, 0.5, 0.03], [0.05, 0.02, 0.1]])
    annotation = Truth(
        image_id=1,
        name=name,
        size=(300, 400),
        boxes=torch.tensor([[42.0, 61.0, 197.0, 250.0]]),
        labels=torch.tensor([0]),
        crowd=torch.tensor([False]),
        softness=torch.tensor([[1.0, 1.0, 2.0, 12.0]]),
    )
    picture = np.full((300, 400, 3), 90, np.uint8)
    return Explained(name, picture, before, before[kept], kept, scores, annotation if truth else None)


def crowded(index: int, *, count: int = 100, side: int = 1280) -> Explained:
    """A picture with so many boxes after suppression and twice as many before."""
    generator = torch.Generator().manual_seed(index)
    corners = torch.rand(2 * count, 2, generator=generator) * side * 0.8
    boxes = torch.cat([corners, corners + 20 + torch.rand(2 * count, 2, generator=generator) * side * 0.15], 1)
    labels = torch.randint(0, 80, (2 * count,), generator=generator)
    scores = torch.rand(2 * count, generator=generator).sort(descending=True).values
    spread = torch.rand(2 * count, 4, generator=generator) * 3 + 0.2
    names = tuple(f"class {label}" for label in range(80))
    before = Detections(boxes, scores, labels, names, scores, edges_of(boxes, spread=spread))
    noise = np.random.default_rng(index).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    picture = np.kron(noise, np.ones((8, 8, 1), np.uint8))
    classes = torch.rand(2 * count, 80, generator=generator)
    return Explained(f"{index:03d}.jpg", picture, before, before[:count], torch.arange(count), classes)
