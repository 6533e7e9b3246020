"""Generalized Focal Loss V1 (NeurIPS 2020): joint quality, General distribution."""

from __future__ import annotations

from gfocal.config import Expected, PicturesConfig, Recipe
from gfocal.recipes.shared import (
    COCO_CLASSES,
    MINI_BACKBONE,
    MINI_HEAD,
    MINI_PICTURES,
    MINI_SCHEDULE,
    RESNET50,
    SCHEDULE_2X,
)


def gfl_r50_fpn_1x() -> Recipe:
    """GFL V1, ResNet-50, 12 epochs at one scale: the model of the paper's ablations (V1 Table 2b, n = 16)."""
    return Recipe(
        name="gfl_r50_fpn_1x",
        family={"name": "atss"},
        quality={"name": "joint"},
        box={"name": "general"},
        backbone=RESNET50,
        class_names=COCO_CLASSES,
        expected=(Expected(minival=40.2, source="mmdetection README; V1 Table 2b, n = 16"),),
    )


def gfl_r50_fpn_ms2x() -> Recipe:
    """GFL V1, ResNet-50, 24 epochs, short side 480 to 800 in training (V1 Table 4)."""
    return Recipe(
        name="gfl_r50_fpn_ms2x",
        family={"name": "atss"},
        quality={"name": "joint"},
        box={"name": "general"},
        backbone=RESNET50,
        class_names=COCO_CLASSES,
        pictures=PicturesConfig(train_short=(480, 800)),
        schedule=SCHEDULE_2X,
        expected=(
            Expected(minival=42.9, source="mmdetection README"),
            Expected(minival=42.8, source="GFocal README"),
            Expected(test_dev=43.1, source="V1 Table 4"),
        ),
    )


def gfl_r18_mini() -> Recipe:
    """GFL V1 small enough to learn a data set of a few hundred pictures on two CPU cores, from random weights."""
    return Recipe(
        name="gfl_r18_mini",
        family={"name": "atss"},
        quality={"name": "joint"},
        box={"name": "general"},
        backbone=MINI_BACKBONE,
        class_names=COCO_CLASSES,
        head=MINI_HEAD,
        pictures=MINI_PICTURES,
        schedule=MINI_SCHEDULE,
    )
