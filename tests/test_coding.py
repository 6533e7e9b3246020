from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfocal.boxrep import General
from gfocal.coding import Coding, Deltas, Distances, Logarithms
from gfocal.ops.boxes import boxes_to_ltrb
from gfocal.priors import Anchors
from gfocal.structures import EdgeDistributions, Priors
from helpers import square_anchors


def priors() -> Priors:
    return square_anchors((8, 16))([torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 2, 2)])


def test_a_box_is_four_distances_in_strides_of_its_level() -> None:
    chosen = priors()[torch.tensor([5, 15])]  # (8, 8) of stride 8 and (16, 16) of stride 16
    boxes = torch.tensor([[4.0, 0.0, 24.0, 12.0], [0.0, 8.0, 48.0, 16.0]])
    expected = torch.tensor([[0.5, 1.0, 2.0, 0.5], [1.0, 0.5, 2.0, 0.0]])
    torch.testing.assert_close(Distances().encode(chosen, boxes), expected)
    torch.testing.assert_close(Distances().decode(chosen, expected), boxes)


CODINGS: dict[str, Coding] = {
    "distances": Distances(),
    "deltas": Deltas(),
    "scaled deltas": Deltas(stds=(0.1, 0.1, 0.2, 0.2)),
    "logarithms": Logarithms(),
}


def boxes_about(where: Priors, seed: int, *, farthest: float = 100.0) -> torch.Tensor:
    """Return boxes that hold their point, their edges between 2 and `farthest` pixels from it."""
    generator = torch.Generator().manual_seed(seed)
    reach = torch.rand(len(where), 4, generator=generator) * (farthest - 2) + 2
    return torch.cat([where.points - reach[:, :2], where.points + reach[:, 2:]], dim=1)


@pytest.mark.parametrize("name", CODINGS)
@given(seed=st.integers(0, 10_000))
def test_decoding_undoes_encoding(name: str, seed: int) -> None:
    where, coding = priors(), CODINGS[name]
    boxes = boxes_about(where, seed)
    torch.testing.assert_close(coding.decode(where, coding.encode(where, boxes)), boxes, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", CODINGS)
@given(seed=st.integers(0, 10_000))
def test_what_values_can_stand_for_is_learnt_as_it_is(name: str, seed: int) -> None:
    where, coding = priors(), CODINGS[name]
    boxes = boxes_about(where, seed)
    torch.testing.assert_close(coding.targets(where, boxes)[1], boxes, rtol=1e-5, atol=1e-3)


def test_a_box_far_thinner_than_its_anchor_is_learnt_as_wide_as_deltas_can_say() -> None:
    where = priors()[torch.tensor([5])]  # its anchor is 64 pixels wide
    thin = torch.tensor([[8.0, 0.0, 8.25, 30.0]])
    found = Deltas().targets(where, thin)[1]
    torch.testing.assert_close(found, torch.tensor([[8.125 - 0.512, 0.0, 8.125 + 0.512, 30.0]]))


@pytest.mark.parametrize("name", CODINGS)
@given(seed=st.integers(0, 10_000))
def test_any_values_decode_to_finite_boxes_with_their_corners_in_order(name: str, seed: int) -> None:
    where = priors()
    values = torch.randn(len(where), 4, generator=torch.Generator().manual_seed(seed)) * 50
    boxes = CODINGS[name].decode(where, values)
    assert boxes.isfinite().all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()


@pytest.mark.parametrize("coding", [Distances(), Deltas(side=8.0, stds=(0.1, 0.1, 0.2, 0.2)), Logarithms()])
@given(seed=st.integers(0, 10_000))
def test_distances_in_strides_are_those_of_the_decoded_box(coding: Coding, seed: int) -> None:
    where = square_anchors((8, 16), 8.0)([torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 2, 2)])
    values = torch.randn(len(where), 4, generator=torch.Generator().manual_seed(seed))
    expected = boxes_to_ltrb(where.points, coding.decode(where, values), where.strides)
    torch.testing.assert_close(coding.ltrb(values), expected, rtol=1e-4, atol=1e-4)
    # of any shape, since the quality reads them off maps
    assert coding.ltrb(values.view(4, 4, 4)).shape == (4, 4, 4)


def test_points_outside_a_box_see_negative_distances_that_decode_to_nothing() -> None:
    chosen = priors()[torch.tensor([0])]  # (0, 0)
    values = Distances().encode(chosen, torch.tensor([[8.0, 4.0, 24.0, 12.0]]))
    assert values.tolist() == [[-1.0, -0.5, 3.0, 1.5]]
    assert Distances().decode(chosen, values).tolist() == [[0.0, 0.0, 24.0, 12.0]]


def test_deltas_by_hand() -> None:
    where = Anchors((8,), [torch.tensor([[16.0, 32.0]])], offset=0.5)([torch.zeros(1, 1, 1, 1)])
    assert where.boxes.tolist() == [[-4.0, -12.0, 12.0, 20.0]]  # centre (4, 4)
    box = torch.tensor([[4.0, 0.0, 20.0, 16.0]])  # centre (12, 8), as wide, half as high
    expected = torch.tensor([[8 / 16, 4 / 32, 0.0, math.log(0.5)]])
    torch.testing.assert_close(Deltas().encode(where, box), expected)
    scaled = expected / torch.tensor([0.1, 0.1, 0.2, 0.2])
    torch.testing.assert_close(Deltas(stds=(0.1, 0.1, 0.2, 0.2)).encode(where, box), scaled)
    torch.testing.assert_close(Deltas(stds=(0.1, 0.1, 0.2, 0.2)).decode(where, scaled), box)


@pytest.mark.parametrize("stds", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)])
def test_growth_is_bounded_and_shift_is_not(stds: tuple[float, float, float, float]) -> None:
    where = square_anchors((8,), 8.0)([torch.zeros(1, 1, 1, 1)])
    for sign, side in ((1, 64 * 62.5), (-1, 64 / 62.5)):
        boxes = Deltas(stds=stds).decode(where, torch.tensor([[0.0, 0.0, sign * 1e3, sign * 1e3]]))
        torch.testing.assert_close(boxes[:, 2:] - boxes[:, :2], torch.full((1, 2), side), rtol=1e-4, atol=0)
    far = Deltas(stds=stds).decode(where, torch.tensor([[100 / stds[0], 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(far, torch.tensor([[6368.0, -32.0, 6432.0, 32.0]]))


def test_a_box_without_area_has_finite_deltas() -> None:
    where = priors()[torch.tensor([0])]
    assert Deltas().encode(where, torch.tensor([[3.0, 3.0, 3.0, 3.0]])).isfinite().all()


def test_logarithms_by_hand() -> None:
    where = priors()[torch.tensor([5])]  # (8, 8) of stride 8, whose base length is 16 pixels
    box = torch.tensor([[0.0, -24.0, 24.0, 40.0]])
    expected = torch.tensor([[math.log(0.5), math.log(2), 0.0, math.log(2)]])
    torch.testing.assert_close(Logarithms().encode(where, box), expected)
    torch.testing.assert_close(Logarithms().decode(where, expected), box)


def test_logarithms_are_learnt_within_a_factor_of_16() -> None:
    where = priors()[torch.tensor([5])]
    # an edge on the point, one beyond it, and two farther than 256 pixels
    values = Logarithms().encode(where, torch.tensor([[8.0, 20.0, 8000.0, 400.0]]))
    low, high = math.log(1 / 16), math.log(16)
    torch.testing.assert_close(values, torch.tensor([[low, low, high, high]]))


@pytest.mark.parametrize(
    ("coding", "spreads", "last_pixel"), [(Distances(), True, 0), (Deltas(), False, 0), (Logarithms(), False, 1)]
)
def test_only_distances_can_be_spread_over_bins(coding: Coding, spreads: bool, last_pixel: int) -> None:
    assert (coding.spreads, coding.last_pixel) == (spreads, last_pixel)
    if spreads:
        assert coding.positions(priors(), torch.arange(3.0)).shape == (len(priors()), 4, 3)
    else:
        with pytest.raises(NotImplementedError):
            coding.positions(priors(), torch.arange(3.0))


def test_positions_lie_on_the_edges_own_axis_and_point_outwards() -> None:
    chosen = priors()[torch.tensor([6])]  # (16, 8), stride 8
    positions = Distances().positions(chosen, torch.tensor([0.0, 0.5, 2.0]))
    expected = torch.tensor([[[16.0, 12.0, 0.0], [8.0, 4.0, -8.0], [16.0, 20.0, 32.0], [8.0, 12.0, 24.0]]])
    torch.testing.assert_close(positions, expected)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 16), delta=st.sampled_from([0.5, 1.0, 2.0]))
def test_the_mean_of_the_positions_is_the_decoded_box(seed: int, n: int, delta: float) -> None:
    where, box, coding = priors(), General(n=n, delta=delta), Distances()
    code = torch.randn(len(where), 4, n + 1, generator=torch.Generator().manual_seed(seed)) * 3
    edges = EdgeDistributions(box.probabilities(code), coding.positions(where, torch.tensor(box.bins)))
    torch.testing.assert_close(edges.mean, coding.decode(where, box.values(code)), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", CODINGS)
def test_no_prior_has_no_box(name: str) -> None:
    none, coding = priors()[torch.zeros(0, dtype=torch.long)], CODINGS[name]
    assert coding.encode(none, torch.zeros(0, 4)).shape == (0, 4)
    assert coding.decode(none, torch.zeros(0, 4)).shape == (0, 4)
    assert coding.ltrb(torch.zeros(0, 4)).shape == (0, 4)
    if coding.spreads:
        assert coding.positions(none, torch.zeros(5)).shape == (0, 4, 5)
