"""What is shared by assigners that look at every location: slices of the boxes change nothing but the memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assigning import owners, truth_of
from gfocal.assign import dense
from gfocal.assign.dense import best_of_slice, match_of, match_without_boxes, slices

NOBODY = torch.iinfo(torch.long).max


@given(boxes=st.integers(0, 60), locations=st.integers(0, 40), most=st.integers(1, 200))
def test_slices_hold_every_box_once_in_order_and_bound_the_pairs(boxes: int, locations: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "PAIRS_AT_ONCE", most)
        parts = [list(range(boxes))[part] for part in slices(boxes, locations)]
    assert [box for part in parts for box in part] == list(range(boxes))
    assert all(part for part in parts)
    # one box at least, whatever it takes
    assert all(len(part) == 1 or len(part) * locations <= most for part in parts)


def test_a_usual_batch_is_looked_at_in_one_go() -> None:
    locations = 167 * 100 * 4 // 3  # a picture of 800 x 1333 on all levels
    assert len(list(slices(2 * 15, 9 * locations))) == 1


@given(seed=st.integers(0, 10_000), count=st.integers(1, 6), pictures=st.integers(1, 3))
def test_the_best_box_of_each_location_is_the_first_of_the_highest(seed: int, count: int, pictures: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 4, (count, 5), generator=generator).float()
    values = values.masked_fill(torch.rand(count, 5, generator=generator) < 0.3, -torch.inf)
    picture = torch.randint(0, pictures, (count,), generator=generator).sort().values
    owner = torch.arange(count) + 10
    best, first = best_of_slice(values, owner, picture, pictures=pictures)
    assert best.shape == first.shape == (pictures, 5)
    for index in range(pictures):
        for location in range(5):
            own = [
                (value, box)
                for value, box, where in zip(
                    values[:, location].tolist(), owner.tolist(), picture.tolist(), strict=True
                )
                if where == index and value > -torch.inf
            ]
            if own:
                highest = max(value for value, _ in own)
                assert best[index, location] == highest
                assert first[index, location] == min(box for value, box in own if value == highest)
            else:
                assert best[index, location] == -torch.inf
                assert first[index, location] == NOBODY


def test_each_location_is_one_pair_of_the_match() -> None:
    owner = torch.tensor([[3, NOBODY, 0], [1, 2, NOBODY]])
    positive = torch.tensor([[True, False, False], [False, True, False]])
    match = match_of(owner, positive, torch.ones(2, 3, dtype=torch.bool))
    assert owners(match, 6) == [3, -1, -1, -1, 2, -1]
    assert match.location.tolist() == list(range(6))
    # what is not positive names some box that exists
    assert match.truth.tolist() == [3, 0, 0, 0, 2, 0]


def test_without_boxes_there_is_no_pair() -> None:
    truth = truth_of([[], []], [(32, 32), (32, 32)])
    counted = torch.ones(2, 4, dtype=torch.bool)
    match = match_without_boxes(truth, counted)
    assert len(match.location) == len(match.truth) == len(match.positive) == 0
    assert match.positive.dtype == torch.bool
    assert match.counted is counted
