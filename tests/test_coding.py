from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from gfocal.boxrep import General
from gfocal.coding import Distances
from gfocal.priors import SquareAnchors
from gfocal.structures import EdgeDistributions, Priors


def priors() -> Priors:
    return SquareAnchors((8, 16))([torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 2, 2)])


def test_a_box_is_four_distances_in_strides_of_its_level() -> None:
    chosen = priors()[torch.tensor([5, 15])]  # (8, 8) of stride 8 and (16, 16) of stride 16
    boxes = torch.tensor([[4.0, 0.0, 24.0, 12.0], [0.0, 8.0, 48.0, 16.0]])
    expected = torch.tensor([[0.5, 1.0, 2.0, 0.5], [1.0, 0.5, 2.0, 0.0]])
    torch.testing.assert_close(Distances().encode(chosen, boxes), expected)
    torch.testing.assert_close(Distances().decode(chosen, expected), boxes)


@given(seed=st.integers(0, 10_000))
def test_decoding_undoes_encoding(seed: int) -> None:
    where = priors()
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(len(where), 2, generator=generator) * 400 - 200
    boxes = torch.cat([corner, corner + torch.rand(len(where), 2, generator=generator) * 300], dim=1)
    coding = Distances()
    torch.testing.assert_close(coding.decode(where, coding.encode(where, boxes)), boxes, rtol=1e-5, atol=1e-3)


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


def test_no_prior_has_no_box() -> None:
    none = priors()[torch.zeros(0, dtype=torch.long)]
    coding = Distances()
    assert coding.encode(none, torch.zeros(0, 4)).shape == (0, 4)
    assert coding.decode(none, torch.zeros(0, 4)).shape == (0, 4)
    assert coding.positions(none, torch.zeros(5)).shape == (0, 4, 5)
