"""Generalized Focal Loss V1 (NeurIPS 2020): joint quality, General distribution.

The published figures come from 8 GPUs with 2 pictures each (lr 0.01 for 16 pictures, V1 supplement D).
"""

from __future__ import annotations

from gfocal.config import BackboneConfig, Expected, PicturesConfig, Recipe
from gfocal.recipes.shared import (
    COCO_CLASSES,
    MINI_BACKBONE,
    MINI_HEAD,
    MINI_PICTURES,
    MINI_SCHEDULE,
    RESNET50,
    RESNET101,
    RESNET101_DCN,
    RESNEXT101,
    RESNEXT101_DCN,
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
        expected=(
            Expected(minival=40.2, source="mmdetection README; V1 Table 2b, n = 16"),
            Expected(minival=40.2, source="GFocal README"),
        ),
    )


def gfl_r50_fpn_ms2x() -> Recipe:
    """GFL V1, ResNet-50, 24 epochs, short side 480 to 800 in training (V1 Table 4)."""
    return _ms2x("gfl_r50_fpn_ms2x", RESNET50, mmdetection=42.9, gfocal=42.8, test_dev=43.1)


def gfl_r101_fpn_ms2x() -> Recipe:
    """GFL V1, ResNet-101, 24 epochs, short side 480 to 800 in training (V1 Table 4)."""
    return _ms2x("gfl_r101_fpn_ms2x", RESNET101, mmdetection=44.7, gfocal=44.9, test_dev=45.0)


def gfl_x101_32x4d_fpn_ms2x() -> Recipe:
    """GFL V1, ResNeXt-101 32x4d, 24 epochs, short side 480 to 800 in training (V1 Table 4)."""
    return _ms2x("gfl_x101_32x4d_fpn_ms2x", RESNEXT101, mmdetection=45.9, gfocal=45.7, test_dev=46.0)


def gfl_r101_dcn_fpn_ms2x() -> Recipe:
    """GFL V1, ResNet-101 with deformable c3 to c5, 24 epochs, short side 480 to 800 in training (V1 Table 4)."""
    return _ms2x("gfl_r101_dcn_fpn_ms2x", RESNET101_DCN, mmdetection=47.1, gfocal=47.2, test_dev=47.3)


def gfl_x101_32x4d_dcn_fpn_ms2x() -> Recipe:
    """GFL V1, ResNeXt-101 32x4d with deformable c4 and c5, 24 epochs, short side 480 to 800 (V1 Table 4)."""
    return _ms2x("gfl_x101_32x4d_dcn_fpn_ms2x", RESNEXT101_DCN, mmdetection=48.1, gfocal=48.3, test_dev=48.2)


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


def _ms2x(name: str, backbone: BackboneConfig, *, mmdetection: float, gfocal: float, test_dev: float) -> Recipe:
    return Recipe(
        name=name,
        family={"name": "atss"},
        quality={"name": "joint"},
        box={"name": "general"},
        backbone=backbone,
        class_names=COCO_CLASSES,
        pictures=PicturesConfig(train_short=(480, 800)),
        schedule=SCHEDULE_2X,
        expected=(
            Expected(minival=mmdetection, source="mmdetection README"),
            Expected(minival=gfocal, source="GFocal README"),
            Expected(test_dev=test_dev, source="V1 Table 4"),
        ),
    )
