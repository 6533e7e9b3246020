"""Suppression as one operator, which every runtime has under its own name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op(
    "gfocal::kept_scores",
    mutates_args=(),
    schema="(Tensor boxes, Tensor scores, float iou_threshold, int limit) -> Tensor",
)
def kept_scores(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Return the scores (b, c, k), 0 where a box overlaps a better one of its class by more than the threshold.

    boxes: (b, k, 4) xyxy. scores: (b, c, k), 0 for what is no candidate. iou_threshold: 0..1. limit: boxes that stay of
    each class of a picture, the best ones.
    """
    from torchvision.ops import nms

    kept = torch.zeros_like(scores)
    for picture, by_class in enumerate(scores):
        for label, values in enumerate(by_class):
            (candidates,) = values.nonzero(as_tuple=True)
            best = candidates[nms(boxes[picture, candidates], values[candidates], iou_threshold)[:limit]]
            kept[picture, label, best] = values[best]
    return kept


@kept_scores.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Return a tensor of the result's shape."""
    return torch.empty_like(scores)


def to_onnx(boxes: Any, scores: Any, iou_threshold: float, limit: int) -> Any:
    """Return the operator as nodes of ONNX: what `NonMaxSuppression` selects keeps its score."""
    from onnxscript import opset19  # pyright: ignore[reportMissingImports]

    op: Any = opset19  # while it is traced, what goes in and out are places in a graph, unlike its types say
    selected = op.NonMaxSuppression(
        boxes,
        scores,
        op.Constant(value_ints=[limit]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[0.0]),
    )
    return op.ScatterND(op.Sub(scores, scores), selected, op.GatherND(scores, selected))


def to_openvino(node: Any) -> Any:
    """Return the operator as nodes of OpenVINO; node: a `NodeContext` of its PyTorch reader."""
    import numpy as np
    import openvino.opset15 as op  # pyright: ignore[reportMissingImports]

    boxes, scores, iou_threshold, limit = (node.get_input(index) for index in range(4))
    found = op.non_max_suppression(
        boxes, scores, limit, iou_threshold, op.constant(np.float32(0)), sort_result_descending=False
    )
    # the list has room for all, and after the selected ones it holds nothing
    zero, one = op.constant(np.zeros(1, np.int64)), op.constant(np.ones(1, np.int64))
    selected = op.slice(found.output(0), zero, found.output(2), one, zero)
    kept = op.scatter_nd_update(op.subtract(scores, scores), selected, op.gather_nd(scores, selected))
    return kept.outputs()
