"""Boxes vote as in He et al. (2019), and distributions stay those of the boxes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfocal.boxrep import Dirac, General
from gfocal.coding import Deltas, Distances
from gfocal.errors import UserError
from gfocal.ops.nms import SUPPRESSIONS
from gfocal.ops.voting import LEAST_WEIGHT, vote
from gfocal.postprocess import PostProcess
from gfocal.structures import Detections, EdgeDistributions

SIGMA = 0.02


def crowd(seed: int, count: int = 12) -> Detections:
    """Return boxes near two objects of two classes, each edge with a spread of its own."""
    generator = torch.Generator().manual_seed(seed)
    objects = torch.tensor([[20.0, 20, 60, 70], [30, 25, 75, 60]])
    centre = objects[torch.arange(count) % 2] + torch.randn(count, 4, generator=generator) * 2
    mass = (torch.randn(count, 4, 9, generator=generator) * 2).softmax(-1)
    steps = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]]) * torch.arange(9) * 3
    edges = EdgeDistributions(mass, centre[..., None] + steps)
    return Detections(
        boxes=edges.mean.clamp(min=0),
        scores=torch.rand(count, generator=generator),
        labels=torch.randint(2, (count,), generator=generator),
        class_names=("circle", "square"),
        edges=edges,
        levels=torch.arange(count) % 3,
    )


def iou(a: list[float], b: list[float]) -> float:
    inner = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


def slowly(found: Detections, kept: list[int], sigma: float) -> list[list[float]]:
    """Return Eq. 9 of the paper, edge by edge in plain Python."""
    assert found.edges is not None
    boxes, means, variances = found.boxes.tolist(), found.edges.mean.tolist(), found.edges.variance.tolist()
    voted = []
    for one in kept:
        overlaps = [iou(boxes[one], boxes[other]) for other in range(len(found))]
        weights = [math.exp(-((1 - overlap) ** 2) / sigma) for overlap in overlaps]
        voters = [i for i in range(len(found)) if found.labels[i] == found.labels[one] and weights[i] > LEAST_WEIGHT]
        voted.append(
            [
                sum(weights[i] / variances[i][edge] * means[i][edge] for i in voters)
                / sum(weights[i] / variances[i][edge] for i in voters)
                for edge in range(4)
            ]
        )
    return voted


@given(seed=st.integers(0, 10_000), sigma=st.sampled_from([0.005, 0.02, 0.1]))
@settings(max_examples=30)
def test_a_box_moves_to_the_weighted_mean_of_the_papers_equation(seed: int, sigma: float) -> None:
    found = crowd(seed)
    kept = torch.tensor([3, 0, 7])
    assert found.edges is not None
    edges = vote(found.boxes, found.labels, found.edges, kept, sigma=sigma)
    torch.testing.assert_close(edges.mean, torch.tensor(slowly(found, kept.tolist(), sigma)), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(edges.probabilities.sum(-1), torch.ones(3, 4))


def test_the_surer_edge_has_the_say() -> None:
    positions = torch.tensor([10.0, 12, 14]) + torch.zeros(2, 4, 1)
    positions[:, 2:] += 100
    sure, unsure = torch.tensor([0.0, 0.0, 1.0]), torch.full((3,), 1 / 3)
    mass = torch.stack([sure.expand(4, 3), unsure.expand(4, 3)])
    edges = EdgeDistributions(mass, positions)
    voted = vote(edges.mean, torch.zeros(2, dtype=torch.long), edges, torch.tensor([1]), sigma=1.0)
    assert (voted.mean > 13).all()[()]


def test_a_box_alone_and_a_box_clipped_to_nothing_stay() -> None:
    found = crowd(1, count=2)
    assert found.edges is not None
    found = replace(found, boxes=torch.tensor([[20.0, 20, 60, 70], [0, 0, 0, 0]]), labels=torch.tensor([0, 1]))
    edges = vote(found.boxes, found.labels, found.edges, torch.tensor([0, 1]), sigma=SIGMA)
    torch.testing.assert_close(edges.mean, found.edges.mean, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(edges.probabilities, found.edges.probabilities, rtol=1e-2, atol=1e-3)


def test_nothing_kept_is_nothing_voted() -> None:
    found = crowd(1)
    assert found.edges is not None
    none = torch.zeros(0, dtype=torch.long)
    assert len(vote(found.boxes, found.labels, found.edges, none, sigma=SIGMA)) == 0
    empty = found[:0]
    assert empty.edges is not None
    assert len(vote(empty.boxes, empty.labels, empty.edges, none, sigma=SIGMA)) == 0


def process(nms: str, sigma: float | None) -> PostProcess:
    return PostProcess(Distances(), General(n=8), ("circle", "square"), nms=nms, vote_sigma=sigma)


@pytest.mark.parametrize("nms", SUPPRESSIONS)
def test_voting_moves_what_any_suppression_keeps_and_nothing_else(nms: str) -> None:
    found = crowd(2, count=40)
    plain = process(nms, None).suppressed(found)
    voted = process(nms, SIGMA).suppressed(found)
    assert torch.equal(voted.scores, plain.scores)
    assert torch.equal(voted.labels, plain.labels)
    assert voted.levels is not None
    assert plain.levels is not None
    assert torch.equal(voted.levels, plain.levels)
    assert (voted.boxes != plain.boxes).any()
    assert voted.edges is not None
    # the mean of the distributions is the box
    torch.testing.assert_close(voted.boxes, voted.edges.mean.clamp(min=0))


def test_without_distributions_there_is_no_vote() -> None:
    with pytest.raises(UserError, match="vote_sigma"):
        PostProcess(Distances(), Dirac(), ("thing",), vote_sigma=SIGMA)
    with pytest.raises(UserError, match="vote_sigma"):
        PostProcess(Deltas(), General(), ("thing",), vote_sigma=SIGMA)
