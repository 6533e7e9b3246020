"""What each recipe's model costs, for 80 classes; a test measures it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """parameters: all of them. gmacs: multiply-adds in 10⁹ for a picture of 1280×800 (SSD: as it stretches it)."""

    parameters: int
    gmacs: float


COSTS: Mapping[str, Cost] = {
    "gfl_r18_mini": Cost(3_238_961, 14.8),
    "gfl_r50_fpn_1x": Cost(32_440_537, 207.6),
    "gfl_r50_fpn_ms2x": Cost(32_440_537, 207.6),
    "gfl_r101_fpn_ms2x": Cost(51_432_665, 283.3),
    "gfl_x101_32x4d_fpn_ms2x": Cost(51_061_209, 286.8),
    "gfl_r101_dcn_fpn_ms2x": Cost(52_718_837, 288.7),
    "gfl_x101_32x4d_dcn_fpn_ms2x": Cost(53_467_053, 294.9),
    "gflv2_r18_mini": Cost(3_240_370, 14.8),
    "gflv2_r50_fpn_1x": Cost(32_441_946, 207.6),
    "gflv2_r50_fpn_ms2x": Cost(32_441_946, 207.6),
    "gflv2_r101_fpn_ms2x": Cost(51_434_074, 283.4),
    "gflv2_r101_dcn_fpn_ms2x": Cost(52_720_246, 288.8),
    "gflv2_x101_32x4d_dcn_fpn_ms2x": Cost(53_468_462, 294.9),
    "gflv2_r2101_dcn_fpn_ms2x": Cost(53_578_014, 298.6),
    "atss_r50_fpn_1x": Cost(32_295_322, 204.5),
    "atss_r101_fpn_1x": Cost(51_287_450, 280.2),
    "fcos_r50_fpn_1x": Cost(32_297_370, 199.8),
    "retinanet_r50_fpn_1x": Cost(37_968_692, 238.5),
    "foveabox_r50_fpn_1x": Cost(36_419_732, 205.5),
    "ssd512_vgg16": Cost(36_038_196, 98.6),
}
