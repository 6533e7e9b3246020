from __future__ import annotations

import itertools
import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gfocal.structures import Detections, EdgeDistributions, Grid, GroundTruth, Priors

seeds = st.integers(0, 10_000)
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


# ---------------------------------------------------------------- detections


def some_detections(count: int = 4) -> Detections:
    return Detections(
        boxes=torch.arange(count * 4.0).view(count, 4),
        scores=torch.linspace(0.9, 0.1, count),
        labels=torch.arange(count) % 3,
        class_names=("circle", "square", "star"),
        quality=torch.linspace(0.2, 0.8, count),
        edges=random_edges(2, count=count),
    )


def assert_rows(chosen: Detections, found: Detections, rows: Tensor) -> None:
    assert len(chosen) == len(rows)
    assert found.quality is not None
    assert found.edges is not None
    assert chosen.quality is not None
    assert chosen.edges is not None
    assert torch.equal(chosen.boxes, found.boxes[rows])
    assert torch.equal(chosen.scores, found.scores[rows])
    assert torch.equal(chosen.labels, found.labels[rows])
    assert torch.equal(chosen.quality, found.quality[rows])
    assert torch.equal(chosen.edges.probabilities, found.edges.probabilities[rows])
    assert chosen.names == [found.names[row] for row in rows.tolist()]
    assert chosen.class_names == found.class_names


@pytest.mark.parametrize(
    "index",
    [
        0,
        3,
        -1,
        -4,
        slice(None),
        slice(1, 3),
        slice(None, None, 2),
        slice(9, 12),
        torch.tensor([2, 0, 2]),
        torch.tensor([], dtype=torch.long),
        torch.tensor([False, True, True, False]),
    ],
)
def test_indexing_keeps_all_fields_aligned(index: int | slice | Tensor) -> None:
    found = some_detections()
    assert_rows(found[index], found, torch.arange(4)[index].reshape(-1))


def test_iteration_gives_each_detection_as_one_row() -> None:
    found = some_detections()
    rows = list(found)
    assert len(rows) == 4
    for i, row in enumerate(rows):
        assert_rows(row, found, torch.tensor([i]))


@pytest.mark.parametrize("index", [4, -5, 100])
def test_an_index_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=str(index)):
        some_detections()[index]


def test_fields_that_may_be_missing_stay_missing() -> None:
    found = Detections(torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, dtype=torch.long), ("a",))
    assert found[0].quality is None
    assert found[torch.tensor([True, False])].edges is None


def test_nothing_found_is_a_value_like_any_other() -> None:
    found = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), ("a",))
    assert len(found) == 0
    assert list(found) == []
    assert found.names == []
    assert len(found[:5]) == 0
    assert len(found[torch.zeros(0, dtype=torch.bool)]) == 0


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("field", ["scores", "labels", "quality"])
def test_fields_of_another_length_are_refused_by_name(field: str) -> None:
    values: dict[str, Tensor] = {
        "scores": torch.zeros(2),
        "labels": torch.zeros(2, dtype=torch.long),
        "quality": torch.zeros(2),
    }
    values[field] = values[field][:1]
    with pytest.raises(ValueError, match=f"{field} has 1 rows"):
        Detections(torch.zeros(2, 4), class_names=("a",), **values)


@pytest.mark.usefixtures("unchecked_shapes")
def test_distributions_of_other_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="edges has 3 rows"):
        Detections(torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, dtype=torch.long), ("a",), edges=random_edges(0))


@pytest.mark.usefixtures("unchecked_shapes")
def test_boxes_must_have_four_values() -> None:
    with pytest.raises(ValueError, match="boxes"):
        Detections(torch.zeros(2, 5), torch.zeros(2), torch.zeros(2, dtype=torch.long), ("a",))


@pytest.mark.parametrize("label", [-1, 1])
def test_labels_without_a_class_name_are_refused(label: int) -> None:
    with pytest.raises(ValueError, match="labels"):
        Detections(torch.zeros(1, 4), torch.zeros(1), torch.tensor([label]), ("a",))


def test_values_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        some_detections().scores = torch.zeros(4)  # type: ignore[misc]


# ---------------------------------------------------------------- priors and ground truth


def test_priors_are_indexed_row_by_row_and_leave_their_grid() -> None:
    priors = Priors(torch.rand(6, 2), torch.rand(6, 4), torch.rand(6), (Grid(2, 3, 8),))
    assert len(priors) == 6
    chosen = priors[torch.tensor([4, 1])]
    assert torch.equal(chosen.points, priors.points[[4, 1]])
    assert torch.equal(chosen.boxes, priors.boxes[[4, 1]])
    assert torch.equal(chosen.strides, priors.strides[[4, 1]])
    assert chosen.grids == ()
    assert len(priors[torch.zeros(6, dtype=torch.bool)]) == 0


def test_a_grid_counts_its_anchors() -> None:
    assert Grid(2, 3, 8).num_priors == 6
    assert Grid(2, 3, 8, anchors=9).num_priors == 54


def test_a_batch_has_as_many_pictures_as_extents() -> None:
    none = torch.zeros(0, dtype=torch.long)
    assert GroundTruth(torch.zeros(0, 4), none, none, torch.ones(3, 2)).num_pictures == 3
