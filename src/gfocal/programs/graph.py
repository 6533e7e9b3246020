"""What is exported: a detector with its post-processing, or its raw output, as tensors in and tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gfocal.detector import Detector
from gfocal.postprocess import PostProcess
from gfocal.programs.selecting import Selection
from gfocal.structures import Grid, Priors, Raw


@final
class RawGraph(nn.Module):
    """The detector's own output, with the priors that it belongs to."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> dict[str, Tensor]:
        """Return what post-processing reads of `Raw`, and `grids`, (levels, 4), the fields of each level's `Grid`."""
        raw = self.detector(images)
        outputs = {"scores": raw.scores, "box": raw.box}
        if raw.class_scores is not raw.scores:
            outputs["class_scores"] = raw.class_scores
        if raw.quality_logits is not None:
            outputs["quality_logits"] = raw.quality_logits
        # a size that is known when the file runs becomes a tensor by way of a fill
        grids = [
            torch.full((1,), value)
            for grid in raw.priors.grids
            for value in (grid.height, grid.width, grid.stride, grid.anchors)
        ]
        return outputs | {
            "points": raw.priors.points,
            "anchors": raw.priors.boxes,
            "strides": raw.priors.strides,
            "grids": torch.cat(grids).view(-1, 4),
        }


@final
class DetectionGraph(nn.Module):
    """A detector and its post-processing. UserError for one that runtimes have no operators for."""

    def __init__(self, detector: Detector, postprocess: PostProcess) -> None:
        super().__init__()
        self.detector = detector
        self.select = Selection(postprocess)

    def forward(self, images: Float[Tensor, "b 3 h w"], sizes: Int[Tensor, "b 2"]) -> dict[str, Tensor]:
        """Return what `Selection` does, for normalised images and their sizes (height, width) before padding."""
        return self.select(self.detector(images), sizes)


def raw_of(outputs: Mapping[str, Tensor]) -> Raw:
    """Return what the outputs of a `RawGraph` stand for, without what only training reads."""
    scores = outputs["scores"]
    return Raw(
        scores=scores,
        class_scores=outputs.get("class_scores", scores),
        box=outputs["box"],
        class_logits=scores[..., :0],
        quality_logits=outputs.get("quality_logits"),
        priors=Priors(
            outputs["points"],
            outputs["anchors"],
            outputs["strides"],
            tuple(Grid(*(int(value) for value in grid)) for grid in outputs["grids"].tolist()),
        ),
    )
