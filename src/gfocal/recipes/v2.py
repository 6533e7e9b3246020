"""Generalized Focal Loss V2 (CVPR 2021): V1 with the Distribution-Guided Quality Predictor."""

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


def gflv2_r50_fpn_1x() -> Recipe:
    """GFL V2, ResNet-50, 12 epochs at one scale: the model of the paper's ablations (V2 Tables 1 to 5)."""
    return Recipe(
        name="gflv2_r50_fpn_1x",
        family={"name": "atss"},
        quality={"name": "dgqp"},
        box={"name": "general"},
        backbone=RESNET50,
        class_names=COCO_CLASSES,
        expected=(
            Expected(minival=41.0, source="GFocalV2 README"),
            Expected(test_dev=41.1, source="GFocalV2 README"),
            Expected(minival=41.1, source="V2 Table 1"),
        ),
    )


def gflv2_r50_fpn_ms2x() -> Recipe:
    """GFL V2, ResNet-50, 24 epochs, short side 480 to 960 in training (V2 Table 7)."""
    return Recipe(
        name="gflv2_r50_fpn_ms2x",
        family={"name": "atss"},
        quality={"name": "dgqp"},
        box={"name": "general"},
        backbone=RESNET50,
        class_names=COCO_CLASSES,
        pictures=PicturesConfig(train_short=(480, 960)),
        schedule=SCHEDULE_2X,
        expected=(
            Expected(minival=43.9, test_dev=44.4, source="GFocalV2 README"),
            Expected(test_dev=44.3, source="V2 Table 7"),
        ),
    )


def gflv2_r18_mini() -> Recipe:
    """GFL V2 small enough to learn a data set of a few hundred pictures on two CPU cores, from random weights."""
    return Recipe(
        name="gflv2_r18_mini",
        family={"name": "atss"},
        quality={"name": "dgqp"},
        box={"name": "general"},
        backbone=MINI_BACKBONE,
        class_names=COCO_CLASSES,
        head=MINI_HEAD,
        pictures=MINI_PICTURES,
        schedule=MINI_SCHEDULE,
    )
