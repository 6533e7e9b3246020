"""Matched boxes whose distributions are true by construction, or wrong by a known temperature."""

from __future__ import annotations

import torch

from gfocal.analysis.matching import MatchedEdges, Outcomes
from gfocal.calibration import tempered
from gfocal.structures import EdgeDistributions


def synthetic_matches(
    boxes: int, *, temperature: float = 1.0, pictures: int = 50, bins: int = 9, step: float = 8.0, seed: int = 0
) -> MatchedEdges:
    """Return boxes whose true edges are drawn from distributions, and distributions sharpened by a temperature.

    The detector says p^temperature, to sum 1, of what p truly is: it is overconfident above 1, and a calibration has to
    find that temperature. One class, one level of unknown number; scores are the chance to be correct; bins of `step`
    pixels.

    >>> matched = synthetic_matches(200)
    >>> len(matched), matched.edges.probabilities.shape
    (200, torch.Size([200, 4, 9]))
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    points = 100 + 400 * drawn(boxes, 2)
    sign = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    distances = torch.arange(bins) * step
    positions = points.repeat(1, 2)[..., None] + sign[:, None] * distances
    probabilities = (3 * torch.randn(boxes, 4, bins, generator=generator)).softmax(-1)
    true = EdgeDistributions(probabilities, positions)
    truths = true.sample(1, generator=generator)[0]
    said = tempered(true, torch.full((boxes, 4), 1 / temperature))
    scores = drawn(2 * boxes)
    correct = drawn(2 * boxes) < scores
    place = torch.arange(2 * boxes) % pictures
    return MatchedEdges(
        boxes=said.mean,
        truths=truths,
        edges=said,
        labels=torch.zeros(boxes, dtype=torch.long),
        scores=drawn(boxes),
        iou=torch.ones(boxes),
        levels=torch.full((boxes,), -1),
        softness=torch.full((boxes, 4), torch.nan),
        sizes=torch.full((boxes, 2), 600.0),
        pictures=torch.arange(boxes) % pictures,
        outcomes=Outcomes(
            scores, torch.zeros(2 * boxes, dtype=torch.long), correct, correct.float(), torch.zeros(2 * boxes, 4), place
        ),
        num_pictures=pictures,
        num_truths=boxes,
    )
