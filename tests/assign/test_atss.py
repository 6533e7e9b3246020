from __future__ import annotations

import time

import pytest
import torch
import torchvision
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import assigning
from assigning import batches, owners, truth_of
from gfocal.assign.atss import ATSS
from gfocal.assign.base import inside_extent
from gfocal.structures import GroundTruth, Priors
from helpers import square_anchors

STRIDES = (8, 16, 32, 64, 128)


def priors_of(height: int, width: int) -> Priors:
    """Return the priors of a batch of pictures of height x width, each level half of the one before, rounded up."""
    return assigning.priors_of(height, width, square_anchors(STRIDES))


class DenseATSS:
    """The assigner as its paper describes it: every distance of a picture is computed and sorted."""

    def __init__(self, topk: int = 9) -> None:
        self.topk = topk
        self.closest_call = 1.0

    def __call__(self, priors: Priors, truth: GroundTruth) -> list[int]:
        found = [-1] * (truth.num_pictures * len(priors))
        best = [-1.0] * len(found)
        for box, picture in enumerate(truth.picture.tolist()):
            height, width = truth.extents[picture].tolist()
            candidates = self._candidates(priors, truth.boxes[box], height, width)
            iou = torchvision.ops.box_iou(priors.boxes[candidates], truth.boxes[box : box + 1])[:, 0]
            threshold = iou.mean() + iou.std()
            self.closest_call = min(self.closest_call, (iou - threshold).abs().min().item())
            for location, overlap in zip(candidates.tolist(), iou.tolist(), strict=True):
                x, y = priors.points[location].tolist()
                x1, y1, x2, y2 = truth.boxes[box].tolist()
                inside = min(x - x1, y - y1, x2 - x, y2 - y) > 0.01
                place = picture * len(priors) + location
                if inside and overlap >= threshold and overlap > best[place]:
                    found[place], best[place] = box, overlap
        return found

    def _candidates(self, priors: Priors, box: Tensor, height: float, width: float) -> Tensor:
        centre = (box[:2] + box[2:]) / 2
        chosen: list[Tensor] = []
        start = 0
        for grid in priors.grids:
            points = priors.points[start : start + grid.num_priors]
            own = ((points[:, 0] < width) & (points[:, 1] < height)).nonzero()[:, 0]
            distance = (points[own] - centre).square().sum(-1).sqrt()
            nearest = distance.sort(stable=True).indices[: self.topk]
            chosen.append(own[nearest] + start)
            start += grid.num_priors
        return torch.cat(chosen)


@given(batch=batches(), topk=st.sampled_from([1, 2, 5, 9, 12]))
def test_it_finds_what_a_search_of_all_locations_finds(batch: assigning.Batch, topk: int) -> None:
    size, pictures, extents = batch
    priors, truth = priors_of(*size), truth_of(pictures, extents)
    dense = DenseATSS(topk)
    expected = dense(priors, truth)
    # an IoU that equals the threshold but for rounding may fall on either side
    assume(dense.closest_call == 0 or dense.closest_call > 1e-6)
    assert owners(ATSS(topk=topk)(priors, truth), len(expected)) == expected


CASES: dict[str, tuple[list[list[list[float]]], list[tuple[int, int]]]] = {
    "levels of fewer than nine points": ([[[2.0, 2.0, 62.0, 60.0]]], [(64, 64)]),
    "the centre halfway between points": ([[[20.0, 4.0, 84.0, 68.0], [36.0, 36.0, 156.0, 156.0]]], [(192, 192)]),
    "the centre halfway between two points of P3": ([[[0.0, 0.0, 72.0, 72.0], [4.0, 0.0, 68.0, 64.0]]], [(192, 192)]),
    "boxes of one pixel": ([[[16.0, 16.0, 17.0, 17.0], [23.5, 31.5, 24.5, 32.5]]], [(192, 192)]),
    "boxes that reach beyond every border": ([[[-20.0, -9.0, 60.0, 50.0], [150.0, 140.0, 230.0, 260.0]]], [(192, 192)]),
    "boxes that lie outside": ([[[200.0, 0.0, 260.0, 60.0], [-90.0, -90.0, -10.0, -10.0]]], [(192, 192)]),
    "boxes in the corners": (
        [[[0.0, 0.0, 9.0, 9.0], [183.0, 183.0, 192.0, 192.0], [0.0, 183.0, 9.0, 192.0]]],
        [(192, 192)],
    ),
    "one box three times": ([[[30.0, 30.0, 100.0, 120.0]] * 3], [(192, 192)]),
    "boxes without area": ([[[40.0, 40.0, 40.0, 40.0], [8.0, 30.0, 70.0, 30.0]]], [(192, 192)]),
    "pictures of different extents": (
        [[[10.0, 10.0, 90.0, 80.0]], [[0.0, 0.0, 30.0, 30.0]], [[20.0, 100.0, 150.0, 190.0]]],
        [(100, 97), (33, 40), (192, 192)],
    ),
    "no box in the first picture": ([[], [[20.0, 20.0, 90.0, 95.0]]], [(192, 192), (192, 192)]),
    "a box in another picture's place": ([[[20.0, 20.0, 90.0, 95.0]], []], [(192, 192), (192, 192)]),
    "no box at all": ([[], []], [(192, 192), (64, 64)]),
}


@pytest.mark.parametrize("name", CASES)
def test_edge_cases_agree_with_a_search_of_all_locations(name: str) -> None:
    pictures, extents = CASES[name]
    priors, truth = priors_of(192, 192), truth_of(pictures, extents)
    expected = DenseATSS()(priors, truth)
    match = ATSS()(priors, truth)
    assert owners(match, len(expected)) == expected
    assert match.location.shape == match.truth.shape == match.positive.shape


def test_most_edge_cases_have_positives() -> None:
    counts = {
        name: sum(box >= 0 for box in DenseATSS()(priors_of(192, 192), truth_of(*case))) for name, case in CASES.items()
    }
    assert {name for name, count in counts.items() if count == 0} == {
        "boxes that lie outside",
        "boxes without area",
        "no box at all",
    }


def test_a_known_box_is_learnt_where_its_paper_says() -> None:
    # 64 x 64 at (64, 64): P3's anchors are of its size, so the nearest of them pass the threshold
    priors = priors_of(192, 192)
    match = ATSS()(priors, truth_of([[[32.0, 32.0, 96.0, 96.0]]], [(192, 192)]))
    points = priors.points[match.location[match.positive]]
    strides = priors.strides[match.location[match.positive]]
    offsets = sorted(((points - 64) / 8).int().tolist())
    assert offsets == sorted([x, y] for x in (-1, 0, 1) for y in (-1, 0, 1))
    assert (strides == 8).all()


def test_an_iou_that_equals_the_threshold_passes() -> None:
    # all four anchors contain the box, so that all have the mean's IoU; only the last point lies inside
    priors = square_anchors((8,))([torch.zeros(1, 1, 2, 2)])
    match = ATSS()(priors, truth_of([[[2.0, 4.0, 14.0, 20.0]]], [(16, 16)]))
    assert owners(match, 4) == [-1, -1, -1, 0]


def test_the_first_of_equal_boxes_learns() -> None:
    box = [30.0, 30.0, 100.0, 120.0]
    match = ATSS()(priors_of(192, 192), truth_of([[box, box, box]], [(192, 192)]))
    assert match.positive.any()
    assert match.truth[match.positive].unique().tolist() == [0]


def test_a_location_wanted_twice_goes_to_the_higher_iou() -> None:
    large, exact = [30.0, 28.0, 100.0, 104.0], [32.0, 32.0, 96.0, 96.0]
    priors = priors_of(192, 192)
    match = ATSS()(priors, truth_of([[large, exact]], [(192, 192)]))
    centre = (priors.points == 64).all(1).nonzero()[0, 0]  # P3's, whose anchor is `exact`
    assert match.truth[match.positive & (match.location == centre)].tolist() == [1]


def test_points_on_the_border_of_a_box_do_not_learn_it() -> None:
    # all points of P3 lie on the border of this box or outside
    match = ATSS(margin=0.01)(priors_of(64, 64), truth_of([[[24.0, 24.0, 32.0, 32.0]]], [(64, 64)]))
    assert not match.positive.any()
    match = ATSS(margin=-0.01)(priors_of(64, 64), truth_of([[[24.0, 24.0, 32.0, 32.0]]], [(64, 64)]))
    assert match.positive.any()


def test_the_same_boxes_match_alike_in_any_picture_of_the_batch() -> None:
    priors = priors_of(192, 192)
    boxes = [[12.0, 20.0, 77.0, 90.0], [50.0, 40.0, 190.0, 170.0]]
    alone = owners(ATSS()(priors, truth_of([boxes], [(192, 192)])), len(priors))
    both = owners(ATSS()(priors, truth_of([[], boxes], [(64, 64), (192, 192)])), 2 * len(priors))
    assert both == [-1] * len(priors) + alone


@given(height=st.integers(1, 192), width=st.integers(1, 192))
def test_locations_on_the_padding_are_not_counted(height: int, width: int) -> None:
    priors = priors_of(192, 192)
    truth = truth_of([[], []], [(height, width), (192, 192)])
    counted = ATSS()(priors, truth).counted
    assert torch.equal(counted, inside_extent(priors, truth))
    expected = (priors.points[:, 0] < width) & (priors.points[:, 1] < height)
    assert torch.equal(counted[0], expected)
    assert counted[1].all()


@pytest.mark.parametrize("count", [0, 1, 7])
def test_the_size_of_a_match_depends_on_the_number_of_boxes_alone(count: int) -> None:
    boxes = [[float(i), float(i), i + 50.0, i + 60.0] for i in range(count)]
    match = ATSS()(priors_of(256, 256), truth_of([boxes], [(256, 256)]))
    assert len(match.location) == count * 9 * 5
    assert match.counted.shape == (1, len(priors_of(256, 256)))


def test_thousands_of_boxes_are_matched_quickly() -> None:
    priors = priors_of(800, 1344)
    corner = torch.rand(3000, 2) * torch.tensor([1200.0, 700.0])
    boxes = torch.cat([corner, corner + 4 + torch.rand(3000, 2) * 300], dim=1)
    truth = truth_of([boxes.tolist()], [(800, 1344)])
    start = time.perf_counter()
    match = ATSS()(priors, truth)
    # a search of all pairs takes 67 million distances; this takes a few hundredths of a second
    assert time.perf_counter() - start < 5
    owners(match, len(priors))
    assert match.positive.sum() > 1000


def test_any_number_of_levels_is_assigned_alike() -> None:
    own = ATSS()
    assert own.with_levels(3) is own
