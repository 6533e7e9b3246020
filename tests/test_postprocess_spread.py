"""Levels, Gaussians and votes: what boxes carry with them, and what that does to them."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from gfocal.boxrep import Gaussian, General
from gfocal.coding import Distances
from gfocal.config import TestConfig
from gfocal.postprocess import PostProcess
from gfocal.structures import Raw
from helpers import assert_same_detections, square_anchors

SIZES = [(6, 8), (3, 4)]
STRIDES = (8, 16)
COUNT = 6 * 8 + 3 * 4
NAMES = ("circle", "square", "star")
RANKINGS = get_args(TestConfig.model_fields["ranking"].annotation)
N = 4


def raw_of(scores: Tensor, code: Tensor, quality_logits: Tensor | None = None) -> Raw:
    return Raw(
        scores=scores,
        class_scores=scores,
        box=code,
        class_logits=scores.logit(),
        quality_logits=quality_logits,
        priors=square_anchors(STRIDES)([torch.zeros(1, 1, *size) for size in SIZES]),
    )


def random_raw(seed: int, *, pictures: int = 1, classes: int = len(NAMES), spread: float = 2.0) -> Raw:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(pictures, COUNT, classes, generator=generator)
    code = torch.randn(pictures, COUNT, 4, N + 1, generator=generator) * spread
    return raw_of(scores, code, torch.randn(pictures, COUNT, generator=generator))


def processor(**changes: float | str) -> PostProcess:
    return PostProcess(Distances(), General(n=N), NAMES, **changes)  # type: ignore[arg-type]


def test_boxes_vote_in_the_pictures_own_pixels() -> None:
    raw = random_raw(3)
    size, scale = (48, 64), (0.5, 0.5)
    process = processor(vote_sigma=0.05)
    (found,) = process(raw, [size], scales=[scale])
    (among,) = process.candidates(raw, [size], scales=[scale])
    assert_same_detections(process.suppressed(among), found)
    (plain,) = processor()(raw, [size], scales=[scale])
    assert torch.equal(plain.scores, found.scores)
    assert (plain.boxes != found.boxes).any()
    assert found.edges is not None
    limit = torch.tensor([128.0, 96.0, 128.0, 96.0])
    assert (found.edges.mean > limit).any()
    torch.testing.assert_close(found.boxes, found.edges.mean.clamp(min=0).minimum(limit))


def test_each_box_names_the_level_that_found_it() -> None:
    scores = torch.full((1, COUNT, 3), 0.01)
    for location, score in ((0, 0.5), (47, 0.6), (48, 0.7), (59, 0.8)):
        scores[0, location, 1] = score
    raw = raw_of(scores, torch.zeros(1, COUNT, 4, N + 1))
    for ranking in RANKINGS:
        process = processor(ranking=ranking, nms_threshold=1.0)
        (found,) = process(raw, [(48, 64)])
        assert found.levels is not None
        assert found.levels.tolist() == [1, 1, 0, 0]
        (among,) = process.candidates(raw, [(48, 64)])
        again = process.suppressed(among).levels
        assert again is not None
        assert again.tolist() == [1, 1, 0, 0]


def test_a_gaussian_spreads_over_pixels_as_far_as_it_doubts() -> None:
    code = torch.randn(1, COUNT, 4, 2) + torch.tensor([5.0, 0.0])  # no distance below 0, which the box would clip
    process = PostProcess(Distances(), Gaussian(), NAMES, score_threshold=0.3, nms_threshold=1.0, max_detections=1000)
    (found,) = process(raw_of(torch.rand(1, COUNT, 3), code), [(10_000, 10_000)], scales=[(0.5, 0.25)])
    assert found.edges is not None
    inside = found.boxes.amin(-1) > 0
    assert inside.any()
    torch.testing.assert_close(found.edges.mean[inside], found.boxes[inside], rtol=1e-4, atol=1e-2)
    assert found.levels is not None
    stride = torch.tensor(STRIDES)[found.levels]
    least = stride[:, None] * torch.tensor([2.0, 4.0, 2.0, 4.0]) * math.sqrt(1e-3)
    assert (found.edges.std > least).all()
    assert (found.edges.clipped < 1e-3).all()
