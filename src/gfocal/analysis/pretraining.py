"""Backbones that know the shapes of `scenes` before any detector is trained: what ImageNet is to the papers' models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfocal.config import BackboneConfig
from gfocal.data.collate import learnable
from gfocal.data.dataset import Dataset
from gfocal.data.preparing import normalize
from gfocal.errors import UserError
from gfocal.files import whole_or_absent
from gfocal.nn.backbone import create_backbone, feature_channels

CROP_SIDE = 64
MARGIN = 0.15
"""Of a box's sides, seen around it."""
JITTER = 0.25
"""How far scale and place of a crop stray, in sides of the box."""
CROPS = 8000
BATCH = 64
STEPS = 500
LEARNING_RATE = 4e-3


def pretrain_backbone(
    config: BackboneConfig,
    dataset: Dataset,
    path: Path,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    steps: int = STEPS,
    progress: Callable[[int, str], None] | None = None,
) -> None:
    """Train a backbone to name the object in crops of a data set's boxes, and write its weights to `path`.

    Neither boxes nor any detector have a part in it, so that it favours none. mean, std: as of the detectors' pictures.
    progress: called with the steps done and how many of the last crops were named right.
    """
    torch.manual_seed(0)
    backbone = create_backbone(config.name, width=config.width)
    head = nn.Linear(feature_channels(backbone)[-1], len(dataset.class_names))
    crops, labels = _crops(dataset, mean=mean, std=std)
    model = nn.ModuleList([backbone, head]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for step in range(1, steps + 1):
        chosen = torch.randint(len(crops), (BATCH,))
        images = crops[chosen].to(memory_format=torch.channels_last)
        images = images.flip(3) if torch.rand(()) < 0.5 else images
        logits = head(backbone(images)[-1].mean(dim=(2, 3)))
        optimizer.zero_grad()
        F.cross_entropy(logits, labels[chosen], label_smoothing=0.1).backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            right = (logits.argmax(1) == labels[chosen]).float().mean()
            progress(step, f"{100 * float(right):.0f} % of crops named right")
    state = {key: value.contiguous() for key, value in backbone.state_dict().items()}
    with whole_or_absent(path) as scratch:
        safetensors.torch.save_file(state, scratch)


def _crops(
    dataset: Dataset, *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> tuple[Tensor, Tensor]:
    """Return normalised crops (n, 3, side, side) around boxes, strayed in place and size, and their labels (n,).

    UserError where there is no box.
    """
    rng = np.random.default_rng(0)
    crops: list[Tensor] = []
    labels: list[int] = []
    index = 0
    while len(crops) < CROPS:
        if index == len(dataset) and not crops:
            raise UserError("the data set has no box in its training pictures: there is nothing to learn")
        place = index % len(dataset)
        picture, (boxes, classes) = dataset.picture(place), learnable(dataset.truth(place))
        for (left, top, right, bottom), label in zip(boxes.tolist(), classes.tolist(), strict=True):
            sides = np.array([right - left, bottom - top])
            centre = np.array([left + right, top + bottom]) / 2 + rng.uniform(-JITTER, JITTER, 2) * sides / 2
            side = sides.max() * (1 + 2 * MARGIN) * np.exp(rng.uniform(-JITTER, JITTER))
            scale = CROP_SIDE / side
            transform = np.array(
                [[scale, 0, CROP_SIDE / 2 - scale * centre[0]], [0, scale, CROP_SIDE / 2 - scale * centre[1]]]
            )
            crop = cv2.warpAffine(picture, transform, (CROP_SIDE, CROP_SIDE), borderMode=cv2.BORDER_REFLECT)
            crops.append(normalize(crop.astype(np.uint8), mean=mean, std=std))
            labels.append(label)
        index += 1
    return torch.stack(crops[:CROPS]), torch.tensor(labels[:CROPS])
