"""A graph as a program: what both kinds of files are written from."""

from __future__ import annotations

import copy
import math
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gfocal.detector import Detector
from gfocal.ops.precision import at_least_float32
from gfocal.postprocess import PostProcess
from gfocal.programs.graph import DetectionGraph, RawGraph

LARGEST_BATCH = 1024
LARGEST_SIDE = 32 * 1024
"""Bounds that tracing asks for, in pictures and pixels, beyond which no picture is expected."""


def trace(
    detector: Detector, postprocess: PostProcess | None = None, *, least_side: int = 32, half: bool = False
) -> ExportedProgram:
    """Return the program of a detector for any batch, and any height and width that are multiples of 32.

    postprocess: what is done to its output, None for nothing. least_side: pixels that the detector needs. half:
    convolutions but those of the output layers in float16. UserError for post-processing that cannot be exported.
    """
    # the copy is laid out row by row: shapes and strides of other layouts take twice as long to trace
    detector = copy.deepcopy(detector).cpu().to(memory_format=torch.contiguous_format).eval()
    if half:
        detector = _halved(detector)
    graph = RawGraph(detector) if postprocess is None else DetectionGraph(detector, postprocess)
    least = math.ceil(least_side / 32)
    sides = [32 * Dim(name, min=least, max=LARGEST_SIDE // 32) for name in ("height_32", "width_32")]
    batch = Dim("batch", min=1, max=LARGEST_BATCH)
    # an example whose sizes differ from each other and from 1, so that none is taken for a constant
    images = torch.zeros(2, 3, 32 * (least + 8), 32 * (least + 9))
    examples: tuple[Tensor, ...] = (images,)
    shapes = {"images": {0: batch, 2: sides[0], 3: sides[1]}}
    if postprocess is not None:
        examples = (images, torch.zeros(2, 2, dtype=torch.long))
        shapes["sizes"] = {0: batch}
    # with gradients, since the way to do without them that DGQP has is many small operators
    with torch.enable_grad():
        return torch.export.export(graph.eval(), examples, dynamic_shapes=shapes, strict=False)


def output_names(program: ExportedProgram) -> list[str]:
    """Return what the outputs of a traced program are called."""
    spec = program.call_spec.out_spec
    assert spec is not None
    return list(spec.unflatten(range(spec.num_leaves)))


def _halved(detector: Detector) -> Detector:
    """Change a detector so that backbone, neck and trunk compute in float16, and what follows in float32."""
    detector.backbone = _HalfBackbone(detector.backbone.half())
    detector.neck = detector.neck.half()
    detector.trunk = _HalfTrunk(detector.trunk.half())
    return detector


@final
class _HalfBackbone(nn.Module):
    """A backbone in float16 that takes pictures in float32."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features, in float16."""
        return cast("list[Tensor]", self.backbone(images.half()))


@final
class _HalfTrunk(nn.Module):
    """A trunk in float16 that puts out float32."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, feature: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Return the features of classes and of boxes, in float32."""
        cls_feature, box_feature = self.trunk(feature, level)
        return at_least_float32(cls_feature), at_least_float32(box_feature)
