"""What a model says of the locations that stand for an object: the samples behind correlations and scatter plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader

from gfocal.criterion import Criterion
from gfocal.data.collate import collate
from gfocal.data.dataset import Dataset
from gfocal.data.examples import EvaluationExamples
from gfocal.model import Model
from gfocal.ops.boxes import boxes_to_ltrb, centerness
from gfocal.structures import Raw


@dataclass(frozen=True)
class Positives:
    """The locations that an assigner gives to a box, one row each, over many pictures.

    scores: (p,) the score at the true class that ranks. class_scores: (p,) the one held against the threshold.
    quality: (p,) what was predicted of the box apart, NaN where nothing is. iou: (p,) of the decoded box with the true
    one. centerness: (p,) of the location in the true box. ltrb: (p, 4) true distances in strides. top: (p, 4) highest
    probability of each edge, NaN without distributions. levels: (p,) place of the stride among the levels. All but
    the last two columns lie in 0..1.
    """

    scores: Float[Tensor, " p"]
    class_scores: Float[Tensor, " p"]
    quality: Float[Tensor, " p"]
    iou: Float[Tensor, " p"]
    centerness: Float[Tensor, " p"]
    ltrb: Float[Tensor, "p 4"]
    top: Float[Tensor, "p 4"]
    levels: Int[Tensor, " p"]

    def __len__(self) -> int:
        return len(self.scores)


def positives(model: Model, dataset: Dataset, *, batch: int = 8, precision: str | None = None) -> Positives:
    """Return the positives of all pictures, under the model's own assigner and test preparation.

    batch: pictures at once. precision: as `Model.predict` takes it.
    """
    loader = DataLoader(EvaluationExamples(dataset, model.prepare()), batch_size=batch, collate_fn=collate)  # type: ignore[arg-type]
    parts: list[Positives] = []
    for group in loader:
        parts.append(_positives(model.forward(group.images, precision=precision), model.criterion, group.truths))
    return Positives(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Positives)})


def _positives(raw: Raw, criterion: Criterion, truths: Sequence[dict[str, Tensor | tuple[int, int]]]) -> Positives:
    pairs = criterion.pairs(raw, truths)
    target, chosen = pairs.target, pairs.target.positive
    location, labels, code = target.location[chosen], target.labels[chosen], pairs.code[chosen]
    priors, boxes = target.priors[chosen], target.boxes[chosen]
    ltrb = boxes_to_ltrb(priors.points, boxes, priors.strides)
    unknown = torch.full_like(boxes, torch.nan)
    quality = raw.quality_logits
    strides = torch.tensor([grid.stride for grid in raw.priors.grids], device=boxes.device)
    return Positives(
        scores=raw.scores.flatten(0, 1)[location, labels].cpu(),
        class_scores=raw.class_scores.flatten(0, 1)[location, labels].cpu(),
        quality=(unknown[:, 0] if quality is None else quality.flatten()[location].sigmoid()).cpu(),
        iou=target.iou[chosen].cpu(),
        centerness=centerness(ltrb).cpu(),
        ltrb=ltrb.cpu(),
        top=(unknown if criterion.box.bins is None else criterion.box.probabilities(code).amax(-1)).cpu(),
        levels=torch.searchsorted(strides, priors.strides).cpu(),
    )


def pearson(a: Float[Tensor, " p"], b: Float[Tensor, " p"]) -> float:
    """Return the Pearson correlation of two samples, NaN where one of them does not vary (V2 Table 6)."""
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a.double().numpy(), b.double().numpy())[0, 1])
