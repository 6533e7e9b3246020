"""Levels, Gaussians and votes: what boxes carry with them, and what that does to them."""

from __future__ import annotations

import math

import torch

from gfocal.boxrep import Gaussian
from gfocal.coding import Distances
from gfocal.postprocess import PostProcess
from helpers import assert_same_detections
from raws import COUNT, NAMES, RANKINGS, STRIDES, N, processor, random_raw, raw_of


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
