"""How much longer one model takes than another, measured in turns so that both meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from gfocal.config import Recipe
from gfocal.devices import autocast, choose_device, choose_precision
from gfocal.model import Model, build

WARM_UP = 2
BOXES = 5
"""Of each picture that a step learns from."""


@dataclass(frozen=True)
class Speed:
    """Time of a model over that of another: forward in the test, and a whole training step; medians over turns."""

    forward: float
    step: float


def measure_speed(
    ours: Recipe,
    baseline: Recipe,
    *,
    size: tuple[int, int],
    batch: int = 1,
    turns: int = 12,
    precision: str | None = None,
    device: str | None = None,
) -> Speed:
    """Return the times of a recipe's model over those of another one, both with random weights.

    size: (height, width) in pixels, multiples of 32, of noise. batch: pictures at once. turns: how often each is timed,
    one after the other. precision: as `Model.predict` takes it. Post-processing is left out: it does the same for both.
    """
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    images = images.to(where, memory_format=torch.channels_last)
    truths = [_boxes(size, picture) for picture in range(batch)]

    def forward(model: Model) -> Callable[[], object]:
        return lambda: model.forward(images, precision=precision)

    def step(model: Model) -> Callable[[], object]:
        learning = [parameter for parameter in model.detector.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(learning, lr=1e-6, momentum=0.9)

        def run() -> None:
            with autocast(dtype, where):
                losses = model.criterion(model.detector.train()(images), truths)
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    models = [build(recipe, device=device) for recipe in (ours, baseline)]
    return Speed(
        forward=_ratio([forward(model) for model in models], turns=turns, device=where),
        step=_ratio([step(model) for model in models], turns=turns, device=where),
    )


def _boxes(size: tuple[int, int], picture: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(picture)
    limit = torch.tensor([size[1], size[0]], dtype=torch.float32)
    corner = torch.rand(BOXES, 2, generator=generator) * limit / 2
    sides = (0.1 + 0.4 * torch.rand(BOXES, 2, generator=generator)) * limit
    return {"boxes": torch.cat([corner, corner + sides], dim=1), "labels": torch.zeros(BOXES, dtype=torch.long)}


def alternate(
    works: Sequence[Callable[[], object]],
    *,
    turns: int,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[float], ...]:
    """Return the seconds that each work took in every turn, all of them once a turn so that they meet one machine.

    progress: called with the number of turns done; the first ones, which warm up, do not count.
    """
    times: tuple[list[float], ...] = tuple([] for _ in works)
    for turn in range(turns + WARM_UP):
        # who goes first changes, so that what the one leaves in the caches helps the other as often
        order = range(len(works)) if turn % 2 else reversed(range(len(works)))
        for index in order:
            start = time.perf_counter()
            works[index]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn >= WARM_UP:
                times[index].append(time.perf_counter() - start)
        if progress is not None and turn >= WARM_UP:
            progress(turn - WARM_UP + 1)
    return times


def middle_and_quartiles(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the median and the lower and upper quartile.

    >>> middle_and_quartiles([3.0, 1.0, 2.0])
    (2.0, (1.0, 3.0))
    """
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return middle, (low, high)


def _ratio(works: Sequence[Callable[[], object]], *, turns: int, device: torch.device) -> float:
    """Return the time of the first work over that of the second in the same turn, the median over the turns."""
    first, second = alternate(works, turns=turns, device=device)
    return statistics.median(ours / theirs for ours, theirs in zip(first, second, strict=True))
