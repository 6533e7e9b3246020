"""What a recipe says of its pictures reaches the training transform; a recipe from before an option means the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torchvision.transforms import v2

from drawn import inputs, noise, random_boxes
from gfocal.config import PicturesConfig, Recipe
from gfocal.data.examples import TrainingExamples
from gfocal.data.mixing import Mixing, MixUp, Mosaic, mixing
from gfocal.data.placing import ResizeShortLong, ScaleJitter
from gfocal.data.preparing import normalize
from gfocal.data.scenes import Scenes
from gfocal.data.transforms import TrainTransform, mean_colour
from gfocal.errors import UserError
from gfocal.recipes import get_recipe
from gfocal.training.loaders import training_loader
from gfocal.training.order import Order

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
NEW = {
    "vertical_flip": 0.1,
    "expand": 0.5,
    "expand_max": 3.0,
    "iou_crop": 1.0,
    "jitter_size": (64, 96),
    "distort": 0.5,
    "mosaic": 0.25,
    "mosaic_canvas": 1.5,
    "mixup": 0.125,
    "mixing_until": 0.75,
}
SSD = {"distort": 0.5, "expand": 0.5, "iou_crop": 1.0}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def plain(**pictures: object) -> dict[str, Any]:
    values = get_recipe("gflv2_r18_mini").model_dump(mode="json")
    return values | {"pictures": values["pictures"] | pictures}


def test_a_recipe_without_the_new_keys_means_what_it_did() -> None:
    values = plain()
    for key in NEW:
        del values["pictures"][key]
    assert Recipe.from_yaml(yaml.safe_dump(values), where="old.yaml") == get_recipe("gflv2_r18_mini")
    old = set(PicturesConfig.model_fields) - set(NEW)
    assert {"short", "long", "train_short", "flip", "jitter", "color", "mean", "std", "bgr"} <= old


def test_new_keys_go_through_yaml() -> None:
    recipe = Recipe.from_values(plain(**NEW, jitter=(0.1, 2.0)), where="my.yaml")
    assert Recipe.from_yaml(recipe.to_yaml(), where="my.yaml") == recipe
    assert {key: getattr(recipe.pictures, key) for key in NEW} == NEW


@pytest.mark.parametrize(
    ("pictures", "wanted"),
    [
        *(({key: 1.5}, rf"pictures\.{key} = 1\.5: .*1") for key in ("vertical_flip", "expand", "iou_crop", "distort")),
        *(({key: -0.1}, rf"pictures\.{key} = -0\.1: .*0") for key in ("mosaic", "mixup", "mixing_until")),
        *(({key: float("nan")}, rf"pictures\.{key} = nan") for key in ("mosaic", "distort", "expand_max")),
        ({"expand_max": 4.5}, r"pictures\.expand_max = 4\.5: .*4"),
        ({"mosaic_canvas": 0.5}, r"pictures\.mosaic_canvas = 0\.5: .*1"),
        ({"jitter": (0.1, 2.0), "jitter_size": (8, 96)}, r"pictures\.jitter_size\.0 = 8: .*32"),
        ({"jitter_size": (64, 96)}, r"pictures: jitter_size is \(64, 96\), but jitter is none"),
    ],
)
def test_nonsense_is_refused_with_field_value_and_bound(pictures: dict[str, object], wanted: str) -> None:
    with pytest.raises(UserError, match=rf"^my\.yaml: {wanted}"):
        Recipe.from_values(plain(**pictures), where="my.yaml")


def test_every_field_reaches_the_transform() -> None:
    pictures = PicturesConfig(
        short=96, long=128, train_short=(64, 96), keep_aspect=False, upscale=False, bgr=True, flip=0.25, color=0.5,
        jitter=(0.5, 1.5), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), **NEW,
    )  # fmt: skip
    order = Order(2, batch=1, steps=1, seed=0)
    scenes = Scenes(length=2, seed=0)
    loader = training_loader(scenes, pictures, order, workers=0, pin_memory=False, skip=False)
    assert isinstance(loader.dataset, TrainingExamples)
    transform, mix = loader.dataset.transform, loader.dataset.mix
    assert isinstance(transform, TrainTransform)
    assert mix == Mixing(Mosaic(0.25, canvas=1.5, fill=mean_colour(pictures.mean, bgr=True)), MixUp(0.125))
    elsewhere = {"short", "train_short", "mosaic", "mosaic_canvas", "mixup", "mixing_until"}
    for field in set(PicturesConfig.model_fields) - elsewhere:
        assert getattr(transform, field) == getattr(pictures, field), field
    assert transform.short == pictures.train_short


def test_what_is_off_draws_nothing_from_the_generator() -> None:
    steps = v2.Compose(
        [ScaleJitter((0.5, 2.0), fill=(124, 116, 104)), ResizeShortLong((40, 60), 90), v2.RandomHorizontalFlip(0.5)]
    )
    picture, boxes = noise(50, 80), random_boxes(rng(), 50, 80, 4)
    for seed in range(10):
        torch.manual_seed(seed)
        image, moved = steps(*inputs(picture, boxes))
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        made = TrainTransform((40, 60), 90, MEAN, STD, jitter=(0.5, 2.0))(picture, boxes, torch.arange(4))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(made.image, normalize(image.permute(1, 2, 0).numpy(), mean=MEAN, std=STD))
        assert torch.equal(made.boxes, moved.as_subclass(Tensor)[made.labels])


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (40, 60)])
@pytest.mark.parametrize("count", [0, 3, 3000])
def test_ssd_takes_any_picture_and_any_number_of_boxes(size: tuple[int, int], count: int) -> None:
    transform = TrainTransform((64, 64), 64, MEAN, STD, keep_aspect=False, **SSD)
    for seed in range(3):
        torch.manual_seed(seed)
        made = transform(noise(*size), random_boxes(rng(), *size, count), torch.arange(count))
        assert made.image.shape == (3, 64, 64)
        assert made.image.isfinite().all()
        assert len(made.boxes) == len(made.labels) <= count
        assert (made.boxes[:, 2:] - made.boxes[:, :2] > 0.998).all()


def test_the_same_seed_gives_the_same_example() -> None:
    every = {"jitter": (0.1, 2.0), "color": 0.3, "vertical_flip": 0.5, "jitter_size": (60, 70)} | SSD
    made, sample = [], (noise(50, 80), random_boxes(rng(), 50, 80, 4), torch.arange(4))
    mix = mixing(mosaic=0.5, mixup=0.5)
    assert mix is not None
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        transform = TrainTransform((40, 60), 90, MEAN, STD, **every)
        made.append(transform(*mix(sample, lambda: sample)))
    assert torch.equal(made[0].image, made[1].image)
    assert torch.equal(made[0].boxes, made[1].boxes)
    assert torch.equal(made[0].labels, made[1].labels)
    assert not torch.equal(made[0].image, made[2].image)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"vertical_flip": 2.0}, r"vertical_flip must be between 0 and 1, got 2\.0"),
        ({"distort": -1.0}, r"distort must be between 0 and 1, got -1\.0"),
        ({"expand_max": 9.0}, r"expand_max is 9\.0: must lie in 1\.\.4"),
        ({"iou_crop": 1.1}, r"iou_crop must be between 0 and 1, got 1\.1"),
        ({"jitter_size": (50, 50)}, r"jitter_size is \(50, 50\)"),
        ({"jitter": (0.5, 1.0), "jitter_size": (0, 50)}, r"jitter_size is \(0, 50\)"),
    ],
)
def test_a_transform_that_cannot_be_is_refused_when_made(fields: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        TrainTransform((40, 60), 90, MEAN, STD, **fields)


def test_the_mean_colour_is_red_first() -> None:
    assert mean_colour(MEAN) == (124, 116, 104)
    assert mean_colour(MEAN[::-1], bgr=True) == (124, 116, 104)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("gfl_r50_fpn_ms2x", (480, 800)), ("gflv2_r50_fpn_ms2x", (480, 960)), ("gfl_r50_fpn_1x", (800, 800))],
)
def test_multi_scale_recipes_draw_the_short_side_of_their_paper(name: str, wanted: tuple[int, int]) -> None:
    pictures = get_recipe(name).pictures
    assert (pictures.train_short, pictures.long) == (wanted, 1333)
