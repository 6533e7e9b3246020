"""What a model says of every location of the test pictures, batch by batch, and what is drawn from that at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import DataLoader

from gfocal.analysis.figures.base import MOST_POINTS, Material
from gfocal.analysis.scales import get_scale
from gfocal.criterion import ground_truth
from gfocal.data.collate import Batch, collate
from gfocal.data.examples import EvaluationExamples
from gfocal.model import Model
from gfocal.structures import GroundTruth, Match, Raw

BATCH = 8


@dataclass(frozen=True)
class Seen:
    """A batch of test pictures as a model sees them.

    match: the positive pairs alone. boxes: (b, n, 4) xyxy pixels of the batch, what is decoded at each location.
    """

    batch: Batch
    raw: Raw
    truth: GroundTruth
    match: Match
    boxes: Float[Tensor, "b n 4"]

    @property
    def positive(self) -> Bool[Tensor, "b n"]:
        """Whether each location learns a box."""
        flags = torch.zeros_like(self.match.counted).flatten()
        flags[self.match.location] = True
        return flags.view_as(self.match.counted)


def seen(model: Model, material: Material) -> Iterator[Seen]:
    """Yield all test pictures, prepared as for a test, with what the model's own assigner makes of their truth."""
    examples = EvaluationExamples(material.pictures, model.prepare())
    precision = get_scale(material.plan.scale).precision
    family, box = model.criterion.family, model.criterion.box
    for batch in DataLoader(examples, batch_size=BATCH, collate_fn=collate):
        raw = model.forward(batch.images, precision=precision)
        truth = ground_truth(raw, batch.truths)
        match = family.assigner(raw.priors, truth).positives()
        boxes = torch.stack([family.coding.decode(raw.priors, box.values(code)) for code in raw.box])
        yield Seen(batch, raw, truth, match, boxes)


@dataclass(frozen=True)
class Locations:
    """Locations drawn at random, one row each.

    class_scores: (m,) of the best class. quality: (m,) predicted of the box; the class score again where both are one
    number. positive: (m,) whether an object is learnt there.
    """

    class_scores: Float[Tensor, " m"]
    quality: Float[Tensor, " m"]
    positive: Bool[Tensor, " m"]


def locations(model: Model, material: Material, *, most: int = MOST_POINTS) -> Locations:
    """Return positives and about as many negatives of the test pictures, `most` in all, each drawn evenly."""
    generator = torch.Generator().manual_seed(material.seed)
    found: list[Float[Tensor, "m 3"]] = []
    for view in seen(model, material):
        raw, positive = view.raw, view.positive.flatten().cpu()
        best = raw.class_scores.amax(-1).flatten().cpu()
        quality = best if raw.quality_logits is None else raw.quality_logits.sigmoid().flatten().cpu()
        negative = (view.match.counted.flatten().cpu() & ~positive).nonzero()[:, 0]
        some = negative[torch.randperm(len(negative), generator=generator)[: max(int(positive.sum()), 1)]]
        kept = torch.cat([positive.nonzero()[:, 0], some])
        found.append(torch.stack([best[kept], quality[kept], positive[kept].to(best.dtype)], dim=1))
    rows = torch.cat(found)
    rows = rows[some_of(len(rows), most=most, seed=material.seed)]
    return Locations(rows[:, 0], rows[:, 1], rows[:, 2] > 0)


def some_of(count: int, *, most: int = MOST_POINTS, seed: int = 0) -> Int[Tensor, " k"]:
    """Return the indices of at most `most` of `count` things drawn at random, in their order."""
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most]
    return drawn.sort().values
