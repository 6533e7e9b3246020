"""One training step of GFL V1 with ResNet-50, 2 pictures of 512x640 with 10 boxes each, against its bare layers.

Bare is the same network forward and backward with the mean of its outputs as the loss, and the same optimiser: what
assignment, losses and their gradients cost is the ratio. In turns A B A B in one process; medians.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import torch

from gfocal.analysis.efficiency import alternate
from gfocal.devices import autocast, choose_device, choose_precision
from gfocal.model import Model, build

SIZE = (512, 640)
PICTURES, BOXES = 2, 10


def truths(device: torch.device) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(PICTURES):
        corner = torch.rand(BOXES, 2, generator=generator) * torch.tensor([SIZE[1] / 2, SIZE[0] / 2])
        side = 20 + 230 * torch.rand(BOXES, 2, generator=generator)
        labels = torch.randint(0, 80, (BOXES,), generator=generator)
        found.append({"boxes": torch.cat([corner, corner + side], 1).to(device), "labels": labels.to(device)})
    return found


def step(model: Model, loss: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> Callable[[], None]:
    learning = [parameter for parameter in model.detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-6, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(PICTURES, 3, *SIZE).to(model.device, memory_format=torch.channels_last)

    def run() -> None:
        model.detector.train()
        with autocast(dtype, model.device):
            total = loss(images)
        total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def main() -> None:
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    device = choose_device(None)
    model = build("gfl_r50_fpn_1x", device=device)
    truth = truths(device)

    def whole(images: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(model.criterion(model.detector(images), truth).values())).sum()

    def bare(images: torch.Tensor) -> torch.Tensor:
        raw = model.detector(images)
        return raw.class_logits.mean() + raw.box.mean()

    chosen = choose_precision(None, device)
    for dtype in dict.fromkeys((torch.float32, chosen)):
        ours, theirs = alternate([step(model, whole, dtype), step(model, bare, dtype)], turns=turns, device=device)
        ratio = statistics.median(ours) / statistics.median(theirs)
        name = str(dtype).removeprefix("torch.") + (" (chosen by default)" if dtype is chosen else "")
        seconds = statistics.median(ours)
        print(f"{name}: {ratio:.3f} of the bare layers, {1e3 * seconds:.1f} ms a step", flush=True)


if __name__ == "__main__":
    main()
