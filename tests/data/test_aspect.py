"""Pictures that are stretched to one size, as SSD takes them."""

from __future__ import annotations

import numpy as np
import torch
from torchvision import tv_tensors

from gfocal.data.placing import ResizeShortLong
from gfocal.data.preparing import Prepare, normalize
from gfocal.data.resizing import resize
from gfocal.data.transforms import TrainTransform

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_without_its_aspect_every_picture_becomes_long_wide_and_short_high() -> None:
    for height, width in ((50, 80), (200, 30), (5, 5)):
        picture = noise(height, width)
        prepared = Prepare(40, 60, MEAN, STD, keep_aspect=False)(picture)
        assert prepared.size == (40, 60)
        assert prepared.scale == (60 / width, 40 / height)
        assert torch.equal(prepared.image, normalize(resize(picture, (40, 60)), mean=MEAN, std=STD))
        # smaller pictures are enlarged whatever `upscale` says: the network wants this size
        assert Prepare(40, 60, MEAN, STD, upscale=False, keep_aspect=False)(picture).size == (40, 60)
    assert Prepare(40, 60, MEAN, STD, keep_aspect=False, zoom=0.5)(noise(50, 80)).size == (20, 30)


def test_training_stretches_as_the_test_does_and_boxes_go_along() -> None:
    picture, boxes = noise(50, 80), torch.tensor([[8.0, 5.0, 40.0, 50.0]])
    transform = TrainTransform((40, 40), 60, MEAN, STD, flip=0.0, keep_aspect=False)
    example = transform(picture, boxes, torch.tensor([3]))
    assert torch.equal(example.image, Prepare(40, 60, MEAN, STD, keep_aspect=False)(picture).image)
    torch.testing.assert_close(example.boxes, boxes * torch.tensor([60 / 80, 40 / 50, 60 / 80, 40 / 50]))
    image = tv_tensors.Image(torch.from_numpy(picture).permute(2, 0, 1))
    step = ResizeShortLong((40, 42), 60, keep_aspect=False)
    sizes = {tuple(step(image).shape[-2:]) for _ in range(40)}
    assert sizes == {(40, 60), (41, 60), (42, 60)}
