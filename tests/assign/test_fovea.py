"""FoveaBox's assignment against a search in plain loops."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from assigning import Batch, batches, owners, priors_of, truth_of
from gfocal.assign import dense
from gfocal.assign.fovea import Fovea
from gfocal.families import STRIDES, foveabox
from gfocal.structures import GroundTruth

ANCHORS = foveabox().priors
RANGES = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))


class Slowly:
    """The assignment in exact fractions; `closest_call` is how near to a cell's middle a region ends."""

    def __init__(self, shrink: str, ranges: tuple[tuple[int, int], ...] = RANGES) -> None:
        self.shrink = Fraction(shrink)
        self.ranges = ranges
        self.closest_call = Fraction(1)

    def __call__(self, size: tuple[int, int], truth: GroundTruth) -> list[int]:
        owned: list[int] = []
        for picture in range(truth.num_pictures):
            boxes = [index for index, where in enumerate(truth.picture.tolist()) if where == picture]
            areas = {box: self._area(truth.boxes[box].tolist()) for box in boxes}
            for stride, (low, high) in zip(STRIDES, self.ranges, strict=True):
                rows, columns = (-(-side // stride) for side in size)
                level = [[-1] * columns for _ in range(rows)]
                # smaller boxes overwrite larger ones, and of equal ones the last overwrites the others
                for box in sorted(boxes, key=lambda box: (-areas[box], box)):
                    if low**2 <= areas[box] <= high**2:
                        x1, y1, x2, y2 = (Fraction(value) / stride for value in truth.boxes[box].tolist())
                        for row in self._cells(y1, y2, rows):
                            for column in self._cells(x1, x2, columns):
                                level[row][column] = box
                owned += [box for row in level for box in row]
        return owned

    def _area(self, box: list[float]) -> Fraction:
        x1, y1, x2, y2 = map(Fraction, box)
        return (x2 - x1) * (y2 - y1)

    def _cells(self, low: Fraction, high: Fraction, count: int) -> range:
        """Return the cells whose middle lies in the shrunk side; ends beyond the map are brought to its rim."""
        margin = (1 - self.shrink) / 2 * (high - low)
        ends = [low + margin - Fraction(1, 2), high - margin - Fraction(1, 2)]
        self.closest_call = min(self.closest_call, *(abs(end - round(end)) for end in ends))
        first, last = (min(max(end, 0), count - 1) for end in (math.ceil(ends[0]), math.floor(ends[1])))
        return range(first, last + 1)


@given(
    batch=batches(most=3),
    shrink=st.sampled_from(["0.4", "0.5", "0.25", "1"]),
    ranges=st.sampled_from([RANGES, ((1, 8), (4, 16), (8, 32), (16, 64), (32, 2048))]),
    most=st.sampled_from([1, 500, 8_000_000]),
)
@settings(max_examples=30)
def test_it_finds_what_a_search_finds(
    batch: Batch, shrink: str, ranges: tuple[tuple[int, int], ...], most: int
) -> None:
    size, pictures, extents = batch
    truth, slowly = truth_of(pictures, extents), Slowly(shrink, ranges)
    expected = slowly(size, truth)
    # 0.4 has no end in base 2: which side of a cell's middle a region ends on is then a matter of rounding
    assume(shrink != "0.4" or slowly.closest_call > 1e-4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "PAIRS_AT_ONCE", most)
        match = Fovea(ranges=ranges, shrink=float(shrink))(priors_of(*size, ANCHORS), truth)
    assert owners(match, len(expected)) == expected
    assert match.counted.all()  # the padding is background like any other place


CASES: dict[str, list[list[list[float]]]] = {
    "sides at the ends of a range": [[[0.0, 0.0, 64.0, 64.0], [60.0, 60.0, 92.0, 92.0], [50.0, 50.0, 51.0, 51.0]]],
    "boxes one within the other": [[[8.0, 8.0, 150.0, 150.0], [50.0, 50.0, 110.0, 110.0], [70.0, 70.0, 90.0, 90.0]]],
    "boxes of equal area": [[[20.0, 20.0, 80.0, 50.0], [30.0, 10.0, 60.0, 70.0]]],
    "one box three times": [[[30.0, 30.0, 100.0, 120.0]] * 3],
    "boxes that reach beyond every border": [[[-20.0, -9.0, 60.0, 50.0], [150.0, 140.0, 230.0, 260.0]]],
    "boxes outside, which the rim learns": [[[200.0, 0.0, 260.0, 60.0], [-90.0, -90.0, -10.0, -10.0]]],
    "boxes without area": [[[44.0, 44.0, 44.0, 44.0], [8.0, 30.0, 70.0, 30.0]]],
    "no box in the first picture": [[], [[20.0, 20.0, 90.0, 95.0]]],
    "no box at all": [[], []],
}


@pytest.mark.parametrize("name", CASES)
def test_edge_cases_agree_with_a_search(name: str) -> None:
    pictures = CASES[name]
    truth = truth_of(pictures, [(192, 192)] * len(pictures))
    expected = Slowly("0.5")((192, 192), truth)
    match = Fovea(ranges=RANGES, shrink=0.5)(priors_of(192, 192, ANCHORS), truth)
    assert owners(match, len(expected)) == expected
    assert (max(expected) == -1) == (name in {"boxes without area", "no box at all"})


def test_a_box_of_a_size_in_two_ranges_is_learnt_on_both_levels() -> None:
    priors = priors_of(192, 192, ANCHORS)
    match = foveabox().assigner(priors, truth_of([[[40.0, 40.0, 88.0, 88.0]]], [(192, 192)]))
    learning = priors[match.location[match.positive]]
    assert set(learning.strides.tolist()) == {8.0, 16.0}
    # the middle fifth to either side of (64, 64)
    assert ((learning.points - 64).abs() <= 0.2 * 48).all()
    assert (learning.strides == 8).sum() == 4


def test_a_middle_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="shrink must be greater than 0, got 0"):
        Fovea(ranges=RANGES, shrink=0.0)


def test_many_boxes_in_slices_match_as_in_one_go() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(120, 2, generator=generator) * 150
    boxes = torch.cat([corner, corner + 4 + torch.rand(120, 2, generator=generator) * 90], dim=1).tolist()
    truth = truth_of([boxes[:70], [], boxes[70:]], [(192, 192)] * 3)
    priors = priors_of(192, 192, ANCHORS)
    whole = foveabox().assigner(priors, truth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "PAIRS_AT_ONCE", 7 * len(priors))
        parts = foveabox().assigner(priors, truth)
    for name in ("location", "truth", "positive", "counted"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name
    assert whole.positive.sum() > 200


def test_of_more_or_fewer_levels_the_ranges_go_on_doubling_between_their_own_ends() -> None:
    own = Fovea(ranges=RANGES, shrink=0.7)
    assert own.with_levels(5).ranges == RANGES
    assert own.with_levels(3).ranges == ((1, 64), (32, 128), (64, 2048))
    assert own.with_levels(6).ranges[-2:] == ((256, 1024), (512, 4096))
    assert own.with_levels(3).shrink == 0.7
