"""Assignment by overlap against a search of all pairs in plain loops (RetinaNet, SSD)."""

from __future__ import annotations

import math
import time
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assigning import Batch, batches, overlaps, owners, priors_of, truth_of
from gfocal.assign import dense, near
from gfocal.assign.base import inside_extent
from gfocal.assign.max_iou import MaxIoU
from gfocal.families import retinanet, ssd
from gfocal.priors import Anchors
from gfocal.structures import GroundTruth, Match, Priors

# many of these overlap a box alike
PLAIN = Anchors((8, 16), [torch.tensor([[16.0, 16.0], [32.0, 16.0]]), torch.tensor([[32.0, 32.0]])], offset=0.5)
RETINANET = Anchors((8, 16, 32), retinanet(coding="deltas").priors.sides[:3])
SSD = Anchors((8, 16, 32), ssd().priors.sides[:3], offset=0.5)
SETS = {"plain": PLAIN, "retinanet": RETINANET, "ssd": SSD}


def lies_inside(priors: Priors, extent: tuple[float, float]) -> list[bool]:
    """Return for each anchor whether its cell begins on the picture's own part of the batch."""
    found: list[bool] = []
    for grid in priors.grids:
        rows, columns = (math.ceil(side / grid.stride) for side in extent)
        for row in range(grid.height):
            for column in range(grid.width):
                found += [row < rows and column < columns] * grid.anchors
    return found


def slowly(priors: Priors, truth: GroundTruth, assigner: MaxIoU) -> tuple[list[int], list[bool]]:
    """Return the box of each location, -1 for none, and whether it counts, box by box and anchor by anchor."""
    anchors = priors.boxes.numpy()
    owned, counted = [], []
    for picture in range(truth.num_pictures):
        inside = lies_inside(priors, tuple(truth.extents[picture].tolist()))
        boxes = [index for index, where in enumerate(truth.picture.tolist()) if where == picture]
        iou = {box: np.where(inside, overlaps(truth.boxes[box].tolist(), anchors), -1) for box in boxes}
        own, counts = [-1] * len(anchors), list(inside)
        for anchor, is_inside in enumerate(inside):
            best = max((iou[box][anchor] for box in boxes), default=-1)
            if is_inside and best >= assigner.positive:
                own[anchor] = next(box for box in boxes if iou[box][anchor] == best)
            elif best >= assigner.negative:
                counts[anchor] = False
        for box in boxes:  # later boxes take an anchor from earlier ones
            top = iou[box].max(initial=-1)
            ties = [anchor for anchor in range(len(anchors)) if iou[box][anchor] == top and top > 0]
            for anchor in ties if assigner.all_best else ties[:1]:
                own[anchor], counts[anchor] = box, True
        owned += own
        counted += counts
    return owned, counted


def check(batch: Batch, anchors: Anchors, assigner: MaxIoU) -> int:
    """Compare with a search of all pairs and return the number of positives."""
    size, pictures, extents = batch
    priors, truth = priors_of(*size, anchors), truth_of(pictures, extents)
    owned, counted = slowly(priors, truth, assigner)
    for is_near in (True, False):
        match = assigner.match(priors, truth, near=is_near)
        assert owners(match, len(owned)) == owned
        assert match.counted.flatten().tolist() == counted
    return sum(box >= 0 for box in owned)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("positive", "negative"), [(0.5, 0.4), (0.5, 0.5), (0.7, 0.3)])
@given(batch=batches(most=2, boxes=5), all_best=st.booleans(), most=st.sampled_from([1, 100, 8_000_000]))
@settings(max_examples=10)
def test_it_finds_what_a_search_of_all_pairs_finds(
    name: str, positive: float, negative: float, batch: Batch, *, all_best: bool, most: int
) -> None:
    assigner = MaxIoU(positive=positive, negative=negative, all_best=all_best)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "PAIRS_AT_ONCE", most)
        patch.setattr(near, "NEAR_AT_ONCE", most)
        check(batch, SETS[name], assigner)


CASES: dict[str, tuple[list[list[list[float]]], list[tuple[int, int]]]] = {
    "boxes like anchors": ([[[0.0, 0.0, 16.0, 16.0], [16.0, 16.0, 48.0, 32.0], [4.0, 4.0, 36.0, 36.0]]], [(96, 96)]),
    "a box between four anchors": ([[[8.0, 8.0, 24.0, 24.0]]], [(96, 96)]),
    "two boxes with one best anchor": ([[[0.0, 0.0, 12.0, 15.0], [0.0, 0.0, 15.0, 12.0]]], [(96, 96)]),
    "one box three times": ([[[0.0, 0.0, 16.0, 16.0]] * 3], [(96, 96)]),
    "a box that is too small for any overlap of a half": ([[[40.0, 40.0, 43.0, 42.0]]], [(96, 96)]),
    "boxes outside and without area": ([[[900.0, 0.0, 960.0, 60.0], [40.0, 40.0, 40.0, 40.0]]], [(96, 96)]),
    "its best anchors on the padding": ([[[40.0, 40.0, 90.0, 90.0]], [[0.0, 0.0, 50.0, 50.0]]], [(50, 41), (96, 96)]),
    "no box in the first picture": ([[], [[20.0, 20.0, 60.0, 75.0]]], [(96, 96), (96, 96)]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", SETS)
def test_edge_cases_agree_with_a_search_of_all_pairs(name: str, kind: str) -> None:
    for all_best in (True, False):
        positives = check(((96, 96), *CASES[name]), SETS[kind], MaxIoU(all_best=all_best))
        assert (positives == 0) == (name == "boxes outside and without area")


def test_of_anchors_that_tie_for_the_best_all_or_the_first_learn() -> None:
    # half of this box lies in each of two anchors: 8 x 16 of 16 x 16
    box = [0.0, 16.0, 8.0, 32.0]
    anchors = Anchors((8,), [torch.tensor([[16.0, 16.0]])])
    priors, truth = priors_of(32, 32, anchors), truth_of([[box]], [(32, 32)])
    learning = {
        all_best: [
            place
            for place, box in enumerate(owners(MaxIoU(positive=0.9, all_best=all_best)(priors, truth), 16))
            if box == 0
        ]
        for all_best in (True, False)
    }
    corners = [priors.points[place].tolist() for place in learning[True]]
    assert corners == [[0.0, 24.0], [8.0, 24.0]]
    assert learning[False] == learning[True][:1]


def test_an_anchor_that_is_the_best_of_two_boxes_goes_to_the_last_even_if_it_overlaps_the_first_more() -> None:
    anchors = Anchors((32,), [torch.tensor([[32.0, 32.0]])], offset=0.5)
    boxes = [[0.0, 0.0, 32.0, 32.0], [0.0, 0.0, 20.0, 20.0]]
    priors = priors_of(64, 64, anchors)
    assert owners(MaxIoU()(priors, truth_of([boxes], [(64, 64)])), 4) == [1, -1, -1, -1]


@pytest.mark.parametrize(
    ("height", "owned", "counts"),
    [
        (12.0, -1, True),  # 12 of 32 rows: under 0.4, background
        (14.0, -1, False),  # between the bounds: nothing
        (16.0, 0, True),  # a half exactly: positive
    ],
)
def test_overlaps_between_the_two_bounds_count_for_nothing(height: float, owned: int, *, counts: bool) -> None:
    # a square and a half of it about (16, 16); the box is best served by the half, so that its overlap decides
    anchors = Anchors((32,), [torch.tensor([[32.0, 32.0], [32.0, 16.0]])], offset=0.5)
    box = [0.0, 16 - height / 2, 32.0, 16 + height / 2]
    match = MaxIoU(positive=0.5, negative=0.4)(priors_of(32, 32, anchors), truth_of([[box]], [(32, 32)]))
    assert owners(match, 2) == [owned, 0]
    assert match.counted.tolist() == [[counts, True]]


def test_one_bound_for_both_leaves_nothing_out() -> None:
    priors = priors_of(96, 96, RETINANET)
    truth = truth_of([[[3.0, 7.0, 40.0, 52.0], [30.0, 20.0, 90.0, 70.0]]], [(96, 96)])
    assert MaxIoU(positive=0.5, negative=0.5)(priors, truth).counted.all()
    assert not MaxIoU(positive=0.5, negative=0.4)(priors, truth).counted.all()


def test_pictures_without_boxes_are_all_background() -> None:
    priors = priors_of(64, 64, PLAIN)
    truth = truth_of([[], []], [(64, 64), (30, 50)])
    match = MaxIoU()(priors, truth)
    assert not match.positive.any()
    assert torch.equal(match.counted, inside_extent(priors, truth))


def test_many_boxes_in_slices_match_as_in_one_go() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(120, 2, generator=generator) * 80
    boxes = torch.cat([corner, corner + 4 + torch.rand(120, 2, generator=generator) * 60], dim=1).tolist()
    truth = truth_of([boxes[:70], [], boxes[70:]], [(96, 96), (96, 96), (60, 96)])
    priors = priors_of(96, 96, RETINANET)
    whole = MaxIoU()(priors, truth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "PAIRS_AT_ONCE", 7 * len(priors))
        patch.setattr(near, "NEAR_AT_ONCE", 500)
        for is_near in (True, False):
            same(MaxIoU().match(priors, truth, near=is_near), whole)
    assert whole.positive.sum() > 200


def same(first: Match, second: Match) -> None:
    for field in fields(Match):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name)), field.name


# one to three levels: a stride, and sides of one to three anchors, some smaller than a cell, whole or not
SIDE = st.one_of(st.integers(1, 70).map(float), st.floats(0.5, 70.0, width=32))
LEVELS = st.lists(
    st.tuples(st.sampled_from([4, 7, 8, 16, 32]), st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=3)),
    min_size=1,
    max_size=3,
)


@st.composite
def any_boxes(draw: st.DrawFn, priors: Priors) -> list[list[float]]:
    """Draw boxes: anchors and anchors moved, whole coordinates, and any sizes, tiny and huge ones too."""
    corner = st.one_of(st.integers(-30, 150).map(float), st.floats(-30.0, 150.0, width=32))
    side = st.one_of(
        st.integers(0, 100).map(float), st.floats(0.0, 100.0, width=32), st.sampled_from([1e-30, 1e-4, 1e4, 1e9, 1e25])
    )
    found: list[list[float]] = []
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            x, y = draw(corner), draw(corner)
            found.append([x, y, x + draw(side), y + draw(side)])
        else:
            anchor = priors.boxes[draw(st.integers(0, len(priors) - 1))]
            found.append((anchor + draw(st.sampled_from([0.0, 2.0, 3.5, 4.0, 8.0]))).tolist())
    return found


@given(
    data=st.data(),
    levels=LEVELS,
    offset=st.sampled_from([0.0, 0.5, 0.3]),
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    bounds=st.sampled_from([(0.5, 0.4), (0.5, 0.5), (0.9, 0.02), (0.3, 0.6)]),
    all_best=st.booleans(),
    most=st.sampled_from([1, 60, 1_000_000]),
)
@settings(max_examples=150)
def test_the_near_pairs_match_as_all_pairs_do(
    *,
    data: st.DataObject,
    levels: list[tuple[int, list[tuple[float, float]]]],
    offset: float,
    size: tuple[int, int],
    bounds: tuple[float, float],
    most: int,
    all_best: bool,
) -> None:
    anchors = Anchors([stride for stride, _ in levels], [torch.tensor(sides) for _, sides in levels], offset=offset)
    priors = priors_of(*size, anchors)
    extents = data.draw(
        st.lists(st.tuples(st.integers(1, size[0]), st.integers(1, size[1])), min_size=1, max_size=2), label="extents"
    )
    truth = truth_of([data.draw(any_boxes(priors), label="boxes") for _ in extents], extents)
    assigner = MaxIoU(positive=bounds[0], negative=bounds[1], all_best=all_best)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "NEAR_AT_ONCE", most)
        same(assigner.match(priors, truth, near=True), assigner.match(priors, truth, near=False))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("whole", [True, False])
def test_far_from_the_origin_where_anchors_of_one_kind_differ_by_rounding_both_match_alike(
    name: str, *, whole: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    priors = priors_of(32, 20_000, SETS[name])
    x = 19_000 + torch.rand(80, generator=generator) * 1000
    y = torch.rand(80, generator=generator) * 32
    half = torch.exp(torch.rand(80, 2, generator=generator) * 4)
    boxes = torch.stack([x - half[:, 0], y - half[:, 1], x + half[:, 0], y + half[:, 1]], dim=1)
    boxes = (boxes.round() if whole else boxes).tolist()
    truth = truth_of([boxes[:60], boxes[60:]], [(32, 20_000), (20, 19_700)])
    for all_best in (True, False):
        assigner = MaxIoU(all_best=all_best)
        match = assigner.match(priors, truth, near=True)
        same(match, assigner.match(priors, truth, near=False))
        assert match.positive.sum() > 70


def test_boxes_that_are_not_finite_learn_nothing_and_leave_the_others_alone() -> None:
    box, inf = [10.0, 10.0, 50.0, 40.0], torch.inf
    priors = priors_of(96, 96, RETINANET)
    endless = [[-inf, -inf, inf, inf], [0.0, 0.0, inf, 20.0], [inf, inf, inf, inf]]
    match = MaxIoU()(priors, truth_of([[box, *endless]], [(96, 96)]))
    same(match, MaxIoU()(priors, truth_of([[box]], [(96, 96)])))


def test_thousands_of_boxes_in_a_picture_take_moments() -> None:
    # 3,000 boxes and 201,600 anchors: all pairs take over half a minute of a core
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(3000, 2, generator=generator) * torch.tensor([1300.0, 780.0])
    boxes = torch.cat([corner, corner + torch.exp(torch.rand(3000, 2, generator=generator) * 5 + 1.5)], dim=1)
    truth = truth_of([boxes.tolist()], [(800, 1344)])
    anchors = retinanet(coding="deltas").priors
    priors = priors_of(800, 1344, anchors)
    start = time.process_time()
    match = MaxIoU()(priors, truth)
    assert time.process_time() - start < 8
    assert match.positive.sum() > 3000


@pytest.mark.parametrize("bounds", [(0.0, 0.4), (0.5, 0.0), (0.5, -1.0)])
def test_bounds_that_no_overlap_can_miss_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="tive must be greater than 0"):
        MaxIoU(positive=bounds[0], negative=bounds[1])


def test_any_number_of_levels_is_assigned_alike() -> None:
    own = MaxIoU()
    assert own.with_levels(3) is own
