"""Generalized Focal Loss V2 (CVPR 2021): V1 with the Distribution-Guided Quality Predictor.

The published figures come from 8 GPUs with 2 pictures each (the authors' configs).
"""

from __future__ import annotations

from gfocal.config import BackboneConfig, Expected, PicturesConfig, Recipe
from gfocal.recipes.shared import (
    COCO_CLASSES,
    MINI_BACKBONE,
    MINI_HEAD,
    MINI_PICTURES,
    MINI_SCHEDULE,
    RES2NET101_DCN,
    RESNET50,
    RESNET101,
    RESNET101_DCN,
    RESNEXT101_DCN,
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
            Expected(minival=41.0, test_dev=41.1, source="GFocalV2 README"),
            Expected(minival=41.1, source="V2 Table 1"),
        ),
    )


def gflv2_r50_fpn_ms2x() -> Recipe:
    """GFL V2, ResNet-50, 24 epochs, short side 480 to 960 in training (V2 Table 7)."""
    return _ms2x("gflv2_r50_fpn_ms2x", RESNET50, minival=43.9, readme_test_dev=44.4, paper_test_dev=44.3)


def gflv2_r101_fpn_ms2x() -> Recipe:
    """GFL V2, ResNet-101, 24 epochs, short side 480 to 960 in training (V2 Table 7)."""
    return _ms2x("gflv2_r101_fpn_ms2x", RESNET101, minival=45.8, readme_test_dev=46.0, paper_test_dev=46.2)


def gflv2_r101_dcn_fpn_ms2x() -> Recipe:
    """GFL V2, ResNet-101 with deformable c3 to c5, 24 epochs, short side 480 to 960 in training (V2 Table 7)."""
    return _ms2x("gflv2_r101_dcn_fpn_ms2x", RESNET101_DCN, minival=48.0, readme_test_dev=48.2, paper_test_dev=48.3)


def gflv2_x101_32x4d_dcn_fpn_ms2x() -> Recipe:
    """GFL V2, ResNeXt-101 32x4d with deformable c4 and c5, 24 epochs, short side 480 to 960 (V2 Table 7)."""
    return _ms2x(
        "gflv2_x101_32x4d_dcn_fpn_ms2x", RESNEXT101_DCN, minival=48.8, readme_test_dev=49.0, paper_test_dev=49.0
    )


def gflv2_r2101_dcn_fpn_ms2x() -> Recipe:
    """GFL V2, Res2Net-101 v1d 26w4s with deformable c4 and c5, 24 epochs, short side 480 to 960 (V2 Table 7)."""
    return _ms2x(
        "gflv2_r2101_dcn_fpn_ms2x",
        RES2NET101_DCN,
        minival=49.9,
        readme_test_dev=50.5,
        paper_test_dev=50.6,
        further=(Expected(test_dev=53.3, source="V2 Table 7, multi-scale testing at scales not published"),),
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


def _ms2x(
    name: str,
    backbone: BackboneConfig,
    *,
    minival: float,
    readme_test_dev: float,
    paper_test_dev: float,
    further: tuple[Expected, ...] = (),
) -> Recipe:
    return Recipe(
        name=name,
        family={"name": "atss"},
        quality={"name": "dgqp"},
        box={"name": "general"},
        backbone=backbone,
        class_names=COCO_CLASSES,
        pictures=PicturesConfig(train_short=(480, 960)),
        schedule=SCHEDULE_2X,
        expected=(
            Expected(minival=minival, test_dev=readme_test_dev, source="GFocalV2 README"),
            Expected(test_dev=paper_test_dev, source="V2 Table 7"),
            *further,
        ),
    )
