"""Pure tensor functions, usable in any detector: losses, box geometry and non-maximum suppression."""

from gfocal.ops.boxes import box_iou_pairwise, boxes_to_ltrb, generalized_box_iou_pairwise, ltrb_to_boxes
from gfocal.ops.losses import (
    distribution_focal_loss,
    focal_loss,
    generalized_focal_loss,
    giou_loss,
    quality_focal_loss,
    quality_focal_loss_of_product,
)
from gfocal.ops.nms import nms_class_agnostic, nms_per_class, soft_nms_gaussian, soft_nms_linear

__all__ = [
    "box_iou_pairwise",
    "boxes_to_ltrb",
    "distribution_focal_loss",
    "focal_loss",
    "generalized_box_iou_pairwise",
    "generalized_focal_loss",
    "giou_loss",
    "ltrb_to_boxes",
    "nms_class_agnostic",
    "nms_per_class",
    "quality_focal_loss",
    "quality_focal_loss_of_product",
    "soft_nms_gaussian",
    "soft_nms_linear",
]
