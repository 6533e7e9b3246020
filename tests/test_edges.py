from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distributions import any_edges, kinds, seeds
from gfocal.edges import EdgeDistributions, rows_of

share = st.floats(0, 1)


def positions_of(count: int, bins: int, *, step: float = 8.0) -> Tensor:
    """Return bin coordinates as a detector lays them: left and top descend, right and bottom ascend."""
    point = torch.arange(count)[:, None, None] * 16.0 + 200
    direction = torch.tensor([-1.0, -1.0, 1.0, 1.0])[None, :, None]
    return point + direction * torch.arange(bins) * step


def random_edges(seed: int, count: int = 3, bins: int = 9, dtype: torch.dtype = torch.float32) -> EdgeDistributions:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 4, bins, generator=generator, dtype=dtype)
    return EdgeDistributions(logits.softmax(-1), positions_of(count, bins).to(dtype))


def one_hot_edges(hot: int, bins: int = 9) -> EdgeDistributions:
    return EdgeDistributions(torch.eye(bins)[hot].expand(1, 4, bins), positions_of(1, bins))


def mass_below(edges: EdgeDistributions, coordinate: Tensor) -> Tensor:
    """Return the mass below a coordinate (n, 4) where each bin's mass fills its cell evenly."""
    step = (edges.positions[..., 1:2] - edges.positions[..., :1]).abs()
    filled = ((coordinate[..., None] - (edges.positions - step / 2)) / step).clamp(0, 1)
    return (edges.probabilities * filled).sum(-1)


# ---------------------------------------------------------------- edge distributions


def test_statistics_of_a_known_distribution() -> None:
    probabilities = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.25, 0.5, 0.25], [1 / 3, 1 / 3, 1 / 3]]])
    positions = torch.tensor([[[10.0, 6.0, 2.0], [20.0, 16.0, 12.0], [30.0, 34.0, 38.0], [40.0, 44.0, 48.0]]])
    edges = EdgeDistributions(probabilities, positions)
    torch.testing.assert_close(edges.mean, torch.tensor([[8.0, 16.0, 34.0, 44.0]]))
    torch.testing.assert_close(edges.std, torch.tensor([[2.0, 0.0, math.sqrt(8), math.sqrt(32 / 3)]]))
    expected = torch.tensor([[math.log(2), 0.0, 1.5 * math.log(2), math.log(3)]])
    torch.testing.assert_close(edges.entropy, expected)
    # half of the left edge's mass fills 4..8, half 8..12
    torch.testing.assert_close(edges.quantile(0.5), torch.tensor([[8.0, 16.0, 34.0, 44.0]]))
    torch.testing.assert_close(edges.quantile(0.25), torch.tensor([[6.0, 15.0, 32.0, 41.0]]))
    torch.testing.assert_close(edges.quantile(0.75), torch.tensor([[10.0, 17.0, 36.0, 47.0]]))


@given(seed=seeds, q=share)
def test_the_share_q_lies_below_the_quantile_q_on_every_edge(seed: int, q: float) -> None:
    edges = random_edges(seed)
    expected = torch.full((3, 4), q)
    torch.testing.assert_close(mass_below(edges, edges.quantile(q)), expected, atol=1e-4, rtol=0)


@given(seed=seeds, first=share, second=share)
def test_quantiles_grow_with_q(seed: int, first: float, second: float) -> None:
    edges = random_edges(seed)
    low, high = sorted((first, second))
    assert (edges.quantile(low) <= edges.quantile(high)).all()


@given(seed=seeds, mass=share)
def test_an_interval_holds_its_mass_evenly_about_the_median(seed: int, mass: float) -> None:
    edges = random_edges(seed)
    low, high = edges.interval(mass)
    assert (low <= edges.quantile(0.5) + 1e-3).all()
    assert (edges.quantile(0.5) <= high + 1e-3).all()
    held = mass_below(edges, high) - mass_below(edges, low)
    torch.testing.assert_close(held, torch.full((3, 4), mass), atol=1e-4, rtol=0)


@given(seed=seeds)
def test_wider_intervals_contain_narrower_ones(seed: int) -> None:
    edges = random_edges(seed)
    intervals = [edges.interval(mass) for mass in (0.0, 0.2, 0.5, 0.9, 1.0)]
    for (inner_low, inner_high), (low, high) in itertools.pairwise(intervals):
        assert (low <= inner_low).all()
        assert (inner_high <= high).all()


@given(seed=seeds, bins=st.sampled_from([2, 3, 8, 17]))
def test_the_median_of_a_symmetric_distribution_is_its_mean(seed: int, bins: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, bins, generator=generator, dtype=torch.float64)
    edges = EdgeDistributions((logits + logits.flip(-1)).softmax(-1), positions_of(2, bins).double())
    torch.testing.assert_close(edges.quantile(0.5), edges.mean, atol=1e-2, rtol=0)


@given(seed=seeds)
def test_shares_0_and_1_are_the_outer_ends_of_the_outer_cells(seed: int) -> None:
    edges = random_edges(seed, dtype=torch.float64)
    torch.testing.assert_close(edges.quantile(0.0), edges.positions.amin(-1) - 4, atol=1e-2, rtol=0)
    torch.testing.assert_close(edges.quantile(1.0), edges.positions.amax(-1) + 4, atol=1e-2, rtol=0)


@given(seed=seeds, q=st.floats(0.01, 0.99))
def test_a_mirrored_picture_has_mirrored_quantiles(seed: int, q: float) -> None:
    edges = random_edges(seed)
    mirrored = EdgeDistributions(edges.probabilities, -edges.positions)
    torch.testing.assert_close(mirrored.quantile(q), -edges.quantile(1 - q), atol=1e-2, rtol=0)
    torch.testing.assert_close(mirrored.mean, -edges.mean)
    torch.testing.assert_close(mirrored.std, edges.std)


@given(seed=seeds)
def test_statistics_stay_in_their_ranges(seed: int) -> None:
    edges = random_edges(seed)
    assert (edges.mean >= edges.positions.amin(-1) - 1e-3).all()
    assert (edges.mean <= edges.positions.amax(-1) + 1e-3).all()
    assert (edges.std >= 0).all()
    assert (edges.std <= 32 + 1e-3).all()  # half of the range of 8 steps of 8 pixels
    assert (edges.entropy >= 0).all()
    assert (edges.entropy <= math.log(9) + 1e-5).all()


@pytest.mark.parametrize("hot", range(9))
def test_all_mass_on_one_bin(hot: int) -> None:
    edges = one_hot_edges(hot)
    where = edges.positions[..., hot]
    torch.testing.assert_close(edges.mean, where)
    assert (edges.std == 0).all()
    assert (edges.entropy == 0).all()
    for q in (0.01, 0.3, 0.5, 0.99):
        torch.testing.assert_close(edges.quantile(q), where + (q - 0.5) * 8)


@pytest.mark.parametrize("hot", [4, 8])
def test_the_ends_of_all_mass_on_one_bin_are_the_ends_of_its_cell(hot: int) -> None:
    edges = one_hot_edges(hot)
    where = edges.positions[..., hot]
    torch.testing.assert_close(edges.quantile(0.0), where - 4)
    torch.testing.assert_close(edges.quantile(1.0), where + 4)


def test_bins_that_rounding_left_without_mass_do_not_draw_the_end_to_them() -> None:
    # in float32 these add up to less than 1
    probabilities = torch.tensor([0.1] * 7 + [0.29999992, 0.0, 0.0, 0.0]).expand(1, 4, 11)
    edges = EdgeDistributions(probabilities, positions_of(1, 11))
    torch.testing.assert_close(edges.quantile(1.0)[:, 2:], edges.positions[:, 2:, 7] + 4)


def test_shares_outside_0_to_1_are_refused() -> None:
    edges = random_edges(0)
    for wrong in (-0.01, 1.01, math.nan):
        with pytest.raises(ValueError, match="q must"):
            edges.quantile(wrong)
        with pytest.raises(ValueError, match="mass must"):
            edges.interval(wrong)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("probabilities", "positions"),
    [
        (torch.zeros(2, 4, 5), torch.zeros(2, 4, 6)),
        (torch.zeros(2, 4, 5), torch.zeros(3, 4, 5)),
        (torch.zeros(2, 3, 5), torch.zeros(2, 3, 5)),
        (torch.zeros(2, 4), torch.zeros(2, 4)),
        (torch.zeros(2, 4, 5, 1), torch.zeros(2, 4, 5, 1)),
    ],
)
def test_misshapen_distributions_are_refused(probabilities: Tensor, positions: Tensor) -> None:
    with pytest.raises(ValueError, match="must both be"):
        EdgeDistributions(probabilities, positions)


def test_no_box_has_no_distribution() -> None:
    edges = EdgeDistributions(torch.zeros(0, 4, 17), torch.zeros(0, 4, 17))
    assert len(edges) == 0
    for statistic in (edges.mean, edges.std, edges.entropy, edges.quantile(0.5), *edges.interval(0.9)):
        assert statistic.shape == (0, 4)


def test_distributions_are_indexed_box_by_box() -> None:
    edges = random_edges(1, count=5)
    for index in (2, -1, slice(1, 4), torch.tensor([3, 0]), torch.tensor([True, False, True, False, False])):
        rows = torch.arange(5)[index].reshape(-1)
        chosen = edges[index]
        assert len(chosen) == len(rows)
        assert torch.equal(chosen.probabilities, edges.probabilities[rows])
        assert torch.equal(chosen.positions, edges.positions[rows])


def test_distributions_can_be_iterated() -> None:
    edges = random_edges(1, count=3)
    # bounded, because a sequence that never raises IndexError never ends
    rows = list(itertools.islice(edges, 4))
    assert len(rows) == 3
    assert all(torch.equal(row.probabilities[0], edges.probabilities[i]) for i, row in enumerate(rows))


def test_a_box_that_is_not_there_has_no_distribution() -> None:
    edges = random_edges(1, count=3)
    for index in (3, -4):
        with pytest.raises(IndexError):
            edges[index]


# ---------------------------------------------------------------- the hard kinds


def test_an_umbrella_has_two_modes() -> None:
    # paper V1, Fig. 13: the edge may be that of the pole or that of the canopy
    mass = torch.tensor([0.05, 0.4, 0.05, 0.0, 0.1, 0.3, 0.1])
    places, masses = EdgeDistributions(mass.expand(1, 4, 7), positions_of(1, 7)).modes()
    torch.testing.assert_close(masses[0], torch.tensor([[0.5, 0.5]] * 4))
    assert sorted(places[0, 2].tolist()) == [208.0, 240.0]


def test_a_flat_edge_has_one_mode_in_its_middle() -> None:
    places, masses = EdgeDistributions(torch.full((1, 4, 8), 1 / 8), positions_of(1, 8)).modes()
    torch.testing.assert_close(places[0, :, 0], torch.tensor([172.0, 172.0, 228.0, 228.0]))
    torch.testing.assert_close(masses, torch.ones(1, 4, 1))


@pytest.mark.parametrize("kind", ["soft", "sharp", "gaps"])
def test_samples_follow_the_distribution(kind: str) -> None:
    edges = any_edges(5, 8, 8.0, kind)
    drawn = edges.sample(4000, generator=torch.Generator().manual_seed(1))
    assert drawn.shape == (4000, 3, 4)
    for q in (0.1, 0.5, 0.9):
        share = (drawn <= edges.quantile(q)).double().mean(0)
        # four standard deviations of a share of 4000
        assert (share - q).abs().max() < 4 * math.sqrt(0.25 / 4000)
    again = edges.sample(4000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, again)


@pytest.mark.parametrize("hot", range(9))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_nan_where_one_bin_has_all_mass(hot: int, dtype: torch.dtype) -> None:
    edges = EdgeDistributions(torch.eye(9, dtype=dtype)[hot].expand(1, 4, 9), positions_of(1, 9).to(dtype))
    where = edges.positions[..., hot]
    for share in (0.0, 1e-9, 0.3, 1.0):
        low, high = edges.interval(share, kind="shortest")
        torch.testing.assert_close((low + high) / 2, where)
        torch.testing.assert_close(high - low, torch.full_like(where, share * 8.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(edges.log_prob(where).exp(), torch.full_like(where, 1 / 8))
    assert (edges.log_prob(where + 5) == -torch.inf).all()
    assert edges.cdf(where).tolist() == [[0.5] * 4]
    places, masses = edges.modes()
    assert torch.equal(places[..., 0], where)
    assert (masses == 1).all()
    assert (edges.entropy == 0).all()
    assert torch.equal(edges.clipped, torch.full_like(where, float(hot == 8)))
    assert ((edges.sample(50) - where).abs() <= 4).all()


@given(seed=seeds, kind=kinds, mass=share)
def test_single_precision_says_what_double_precision_says(seed: int, kind: str, mass: float) -> None:
    double = any_edges(seed, 17, 8.0, kind)
    edges = EdgeDistributions(double.probabilities.float(), double.positions.float())
    low, high = edges.interval(mass, kind="shortest")
    held = double.cdf(high.double()) - double.cdf(low.double())
    torch.testing.assert_close(held, torch.full((3, 4), mass, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(edges.std, double.std.float(), atol=1e-3, rtol=1e-4)
    x = double.mean + 3.1
    torch.testing.assert_close(edges.cdf(x.float()), double.cdf(x).float(), atol=1e-4, rtol=0)
    assert not edges.log_prob(x.float()).isnan().any()
    assert not edges.entropy.isnan().any()


def test_far_from_the_origin_the_spread_stays_exact() -> None:
    mass = torch.tensor([0.25, 0.5, 0.25])
    edges = EdgeDistributions(mass.expand(1, 4, 3), torch.tensor([60_000.0, 60_001.0, 60_002.0]).expand(1, 4, 3))
    torch.testing.assert_close(edges.std, torch.full((1, 4), math.sqrt(0.5)))


def test_what_is_not_a_number_stays_so() -> None:
    edges = random_edges(1, count=1)
    x = torch.tensor([[math.nan, -math.inf, math.inf, 1e30]])
    assert edges.cdf(x).isnan().tolist() == [[True, False, False, False]]
    assert edges.cdf(x)[0, 1:].tolist() == [0.0, 1.0, 1.0]
    assert edges.log_prob(x).isnan().tolist() == [[True, False, False, False]]
    assert (edges.log_prob(x)[0, 1:] == -torch.inf).all()


# ---------------------------------------------------------------- moved


@given(seed=seeds, x=st.floats(-100, 100), y=st.floats(-100, 100), q=share)
def test_a_shift_moves_every_place_with_it(seed: int, x: float, y: float, q: float) -> None:
    edges = random_edges(seed, dtype=torch.float64)
    offset = torch.tensor([x, y, x, y]).double()
    moved = edges.shifted(x, y)
    torch.testing.assert_close(moved.mean, edges.mean + offset)
    torch.testing.assert_close(moved.std, edges.std)
    torch.testing.assert_close(moved.quantile(q), edges.quantile(q) + offset)
    torch.testing.assert_close(moved.cdf(moved.mean), edges.cdf(edges.mean))
    assert torch.equal(moved.clipped, edges.clipped)


def test_mirroring_keeps_what_is_clipped_at_the_outer_end() -> None:
    edges = random_edges(4)
    there = edges.mirrored(640)
    assert torch.equal(there.clipped, edges.clipped[:, [2, 1, 0, 3]])
    torch.testing.assert_close(there.mean[:, [0, 2]], 640 - edges.mean[:, [2, 0]])
    torch.testing.assert_close(there.mirrored(640).positions, edges.positions)


def test_sets_of_boxes_stand_in_one_row() -> None:
    one, other = random_edges(1, count=2), random_edges(2, count=3)
    both = EdgeDistributions.cat([one, other])
    assert len(both) == 5
    assert torch.equal(both[3].mean, other[1].mean)
    with pytest.raises(ValueError, match=r"same number of bins.*\[8, 9\]"):
        EdgeDistributions.cat([one, random_edges(1, bins=8)])


@pytest.mark.usefixtures("unchecked_shapes")
def test_misuse_is_refused() -> None:
    edges = random_edges(0)
    with pytest.raises(ValueError, match="least"):
        edges.modes(least=1.5)
    with pytest.raises(ValueError, match="kind"):
        edges.interval(0.5, kind="narrow")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 2 bins"):
        EdgeDistributions(torch.ones(1, 4, 1), torch.ones(1, 4, 1))


def test_no_box_has_statistics_of_no_box() -> None:
    edges = EdgeDistributions(torch.zeros(0, 4, 17), torch.zeros(0, 4, 17))
    x = torch.zeros(0, 4)
    values = [*edges.interval(0.9, kind="shortest"), edges.cdf(x), edges.log_prob(x), edges.clipped, edges.variance]
    assert all(value.shape == (0, 4) for value in values)
    assert [value.shape for value in edges.modes()] == [(0, 4, 1)] * 2
    assert edges.sample(7).shape == (7, 0, 4)


def test_a_tensor_of_one_number_selects_one_row() -> None:
    assert rows_of(torch.tensor(1), 3) == slice(1, 2)
    with pytest.raises(IndexError, match="index 1 is out of range for 1 rows"):
        rows_of(torch.tensor(1), 1)


def test_masks_and_tensors_of_rows_are_left_as_they_are() -> None:
    for index in (torch.tensor([True]), torch.tensor([0]), slice(1)):
        assert rows_of(index, 3) is index
