"""FCOS's assignment against a search of all pairs in plain loops."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assigning import Batch, batches, owners, priors_of, truth_of
from gfocal.assign.fcos import FCOS
from gfocal.families import STRIDES, fcos
from gfocal.structures import GroundTruth

ANCHORS = fcos().priors
LIMITS = (64.0, 128.0, 256.0, 512.0, math.inf)


def slowly(size: tuple[int, int], truth: GroundTruth, *, limits: tuple[float, ...], radius: float) -> list[int]:
    """Return the box of each location: of those whose middle holds it and whose size is right the smallest."""
    owned: list[int] = []
    for picture in range(truth.num_pictures):
        boxes = [index for index, where in enumerate(truth.picture.tolist()) if where == picture]
        low = 0.0
        for stride, high in zip(STRIDES, limits, strict=True):
            rows, columns = (-(-side // stride) for side in size)
            for row in range(rows):
                for column in range(columns):
                    x, y = column * stride + stride // 2, row * stride + stride // 2
                    wanted: list[tuple[float, int]] = []
                    for box in boxes:
                        x1, y1, x2, y2 = truth.boxes[box].tolist()
                        centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
                        near = max(x1, centre_x - radius * stride) < x < min(x2, centre_x + radius * stride) and max(
                            y1, centre_y - radius * stride
                        ) < y < min(y2, centre_y + radius * stride)
                        farthest = max(x - x1, y - y1, x2 - x, y2 - y)
                        if near and low <= farthest <= high:
                            wanted.append(((x2 - x1) * (y2 - y1), box))
                    owned.append(min(wanted)[1] if wanted else -1)
            low = high
    return owned


@given(
    batch=batches(most=3),
    radius=st.sampled_from([0.5, 1.0, 1.5, 2.5]),
    limits=st.sampled_from([LIMITS, (16.0, 24.0, 32.0, 40.0, math.inf)]),
)
@settings(max_examples=25)
def test_it_finds_what_a_search_of_all_pairs_finds(batch: Batch, radius: float, limits: tuple[float, ...]) -> None:
    size, pictures, extents = batch
    truth = truth_of(pictures, extents)
    expected = slowly(size, truth, limits=limits, radius=radius)
    match = FCOS(limits=limits, radius=radius)(priors_of(*size, ANCHORS), truth)
    assert owners(match, len(expected)) == expected
    # the padding is background like any other place
    assert match.counted.all()
    assert match.counted.shape == (len(pictures), len(expected) // len(pictures))


CASES: dict[str, list[list[list[float]]]] = {
    "the farthest edge at a limit": [[[0.0, 0.0, 68.0, 72.0], [4.0, 60.0, 132.0, 188.0]]],
    "the centre on a point": [[[52.0, 52.0, 84.0, 84.0]]],
    "the centre between points": [[[48.0, 48.0, 80.0, 80.0]]],
    "boxes of equal area": [[[20.0, 20.0, 60.0, 40.0], [20.0, 20.0, 40.0, 60.0], [20.0, 20.0, 60.0, 40.0]]],
    "one box three times": [[[30.0, 30.0, 100.0, 120.0]] * 3],
    "boxes far outside": [[[900.0, 0.0, 960.0, 60.0], [-990.0, -990.0, -910.0, -910.0]]],
    "boxes that reach beyond every border": [[[-20.0, -9.0, 60.0, 50.0], [150.0, 140.0, 230.0, 260.0]]],
    "boxes that are larger than the picture": [[[-300.0, -300.0, 600.0, 500.0]]],
    "boxes without area": [[[44.0, 44.0, 44.0, 44.0], [8.0, 30.0, 70.0, 30.0]]],
    "no box in the first picture": [[], [[20.0, 20.0, 90.0, 95.0]]],
    "no box at all": [[], []],
}


@pytest.mark.parametrize("name", CASES)
def test_edge_cases_agree_with_a_search_of_all_pairs(name: str) -> None:
    pictures = CASES[name]
    truth = truth_of(pictures, [(192, 192)] * len(pictures))
    expected = slowly((192, 192), truth, limits=LIMITS, radius=1.5)
    assert owners(fcos().assigner(priors_of(192, 192, ANCHORS), truth), len(expected)) == expected
    nothing = {"boxes far outside", "boxes without area", "no box at all"}
    assert (max(expected) == -1) == (name in nothing)


def test_a_distance_at_a_limit_is_learnt_on_both_levels() -> None:
    # the point (68, 68) of P3 and no other is 64 away from both far edges; P4's (72, 72) are 68 away
    box = [4.0, 4.0, 132.0, 132.0]
    priors = priors_of(192, 192, ANCHORS)
    match = fcos().assigner(priors, truth_of([[box]], [(192, 192)]))
    learning = priors[match.location[match.positive]]
    assert [8.0, 68.0, 68.0] in torch.cat([learning.strides[:, None], learning.points], dim=1).tolist()
    assert set(learning.strides.tolist()) == {8.0, 16.0}


def test_the_middle_ends_where_the_box_ends() -> None:
    # 1.5 strides of P3 reach beyond a box of 8 pixels, and it holds a single point
    priors = priors_of(64, 64, ANCHORS)
    match = fcos().assigner(priors, truth_of([[[17.0, 18.0, 25.0, 26.0]]], [(64, 64)]))
    assert priors.points[match.location[match.positive]].tolist() == [[20.0, 20.0]]


def test_a_radius_that_reaches_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="radius must be greater than 0, got 0"):
        FCOS(limits=LIMITS, radius=0.0)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_the_size_of_a_match_depends_on_the_number_of_boxes_alone(count: int) -> None:
    boxes = [[float(i), float(i), i + 50.0, i + 60.0] for i in range(count)]
    match = fcos().assigner(priors_of(256, 256, ANCHORS), truth_of([boxes], [(256, 256)]))
    assert len(match.location) == count * 5 * 5 * 5


def test_thousands_of_boxes_are_matched_quickly() -> None:
    priors = priors_of(800, 1344, ANCHORS)
    corner = torch.rand(3000, 2) * torch.tensor([1200.0, 700.0])
    boxes = torch.cat([corner, corner + 4 + torch.rand(3000, 2) * 300], dim=1)
    truth = truth_of([boxes.tolist()], [(800, 1344)])
    start = time.perf_counter()
    match = fcos().assigner(priors, truth)
    assert time.perf_counter() - start < 5
    owners(match, len(priors))
    assert match.positive.sum() > 1000


def test_of_more_or_fewer_levels_the_limits_go_on_doubling() -> None:
    own = FCOS(limits=LIMITS, radius=2.5)
    assert own.with_levels(5).limits == LIMITS
    assert own.with_levels(6).limits == (64, 128, 256, 512, 1024, math.inf)
    assert own.with_levels(1).limits == (math.inf,)
    assert own.with_levels(6).radius == 2.5
