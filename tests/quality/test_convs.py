"""Features read at places of the box: where, how, and what learns through them (V2 Fig. 2)."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from gfocal.quality.convs import HIDDEN, AtStar, ConvFeatures, Places, Sampled
from helpers import head

PLACES = get_args(Places)
READ_THE_BOX = {"region", "border_dense", "border_middle", "border_extreme", "star"}
HEIGHT, WIDTH = 6, 9


def ltrb_of(left: float, top: float, right: float, bottom: float) -> Tensor:
    """Return the same distances in cells for every cell of a map."""
    return torch.tensor([left, top, right, bottom]).view(1, 4, 1, 1).expand(2, 4, HEIGHT, WIDTH)


def feature() -> Tensor:
    return torch.randn(2, 8, HEIGHT, WIDTH)


def at(places: list[list[list[float]]], **options: str) -> Sampled:
    return Sampled(8, 3, torch.tensor(places), **options)


def linear(sampled: Sampled, x: Tensor, group: int) -> Tensor:
    """Return the layer of one input, applied to plain features, without its bias."""
    weight = sampled.layer.weight.unflatten(0, (len(sampled.places), -1))[group]
    return torch.conv2d(x, weight)


def bias(sampled: Sampled) -> Tensor:
    return sampled.layer.bias.unflatten(0, (len(sampled.places), -1)).sum(0)[:, None, None]


# ---------------------------------------------------------------- where


@pytest.mark.parametrize(
    ("place", "ltrb"),
    [
        ((0.5, 0.5), (2.0, 1.0, 2.0, 1.0)),  # the centre of a box about the point
        ((0.0, 0.0), (0.0, 0.0, 3.0, 2.0)),  # a corner on the point
        ((1.0, 0.5), (3.0, 1.5, 0.0, 1.5)),
        ((0.25, 0.75), (1.0, 3.0, 3.0, 1.0)),  # a quarter across, three quarters down
    ],
)
def test_reading_at_the_point_is_plain_reading(
    place: tuple[float, float], ltrb: tuple[float, float, float, float]
) -> None:
    sampled, x = at([[list(place)]]), feature()
    torch.testing.assert_close(sampled(x, ltrb_of(*ltrb)), sampled.layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("place", "across", "down"), [((0.0, 0.5), -2, 0), ((1.0, 0.5), 1, 0), ((0.5, 0.0), 0, -1), ((0.5, 1.0), 0, 3)]
)
def test_each_side_is_read_where_the_box_ends(place: tuple[float, float], across: int, down: int) -> None:
    left, right = (2.0, 1.0) if down == 0 else (1.0, 1.0)
    top, bottom = (1.0, 3.0) if down else (1.0, 1.0)
    sampled, x = at([[list(place)]]), feature()
    result = sampled(x, ltrb_of(left, top, right, bottom))
    rows = (torch.arange(HEIGHT) + down).clamp(0, HEIGHT - 1)  # beyond the map its rim is read
    columns = (torch.arange(WIDTH) + across).clamp(0, WIDTH - 1)
    torch.testing.assert_close(result, sampled.layer(x)[:, :, rows][:, :, :, columns], rtol=1e-4, atol=1e-5)


def test_between_cells_features_are_blended() -> None:
    sampled, x = at([[[1.0, 0.5]]]), feature()
    result = sampled(x, ltrb_of(0.0, 0.0, 0.25, 0.0))[..., :-1]
    plain = sampled.layer(x)
    torch.testing.assert_close(result, 0.75 * plain[..., :-1] + 0.25 * plain[..., 1:], rtol=1e-4, atol=1e-5)


def test_each_cell_reads_its_own_box_in_its_own_picture() -> None:
    sampled, x = at([[[1.0, 1.0]]]), feature()
    box = torch.zeros(2, 4, HEIGHT, WIDTH)
    box[1, 2, 3, 4] = 2.0  # two cells to the right, for one cell of the second picture
    box[0, 3, 0, 0] = 1.0  # one cell down, for the first cell of the first picture
    expected = sampled.layer(x)
    expected[1, :, 3, 4] = expected[1, :, 3, 6].clone()
    expected[0, :, 0, 0] = expected[0, :, 1, 0].clone()
    torch.testing.assert_close(sampled(x, box), expected, rtol=1e-4, atol=1e-5)


def places_of(name: Places) -> list[list[tuple[float, float]]]:
    """Return the places of a kind of sampling, its samples grouped by input."""
    module = HIDDEN[name](8, 3)
    sampled = module.around if isinstance(module, AtStar) else module
    assert isinstance(sampled, Sampled)
    return [[(x, y) for x, y in group] for group in sampled.places.tolist()]


def test_the_places_are_those_of_the_figure() -> None:
    middles = {(0.0, 0.5), (0.5, 0.0), (1.0, 0.5), (0.5, 1.0)}
    corners = set(itertools.product((0.0, 1.0), repeat=2))
    assert {place for (place,) in places_of("border_middle")} == middles
    # the star of VarifocalNet: eight places around the point, which is read apart
    assert {place for (place,) in places_of("star")} == middles | corners
    for name in ("border_dense", "border_extreme"):
        border = [place for group in places_of(name) for place in group]
        assert len(border) == 20
        assert all(x in (0, 1) or y in (0, 1) for x, y in border)
        assert corners | middles <= set(border)
    assert [len(group) for group in places_of("border_dense")] == [1] * 20
    assert [len(group) for group in places_of("border_extreme")] == [5] * 4
    for group in places_of("border_extreme"):  # each side has its own maximum
        assert any(len({place[axis] for place in group}) == 1 for axis in (0, 1))


def test_a_region_is_cut_into_cells_each_read_evenly_within() -> None:
    groups = places_of("region")
    assert len(groups) == 9
    cells = set()
    for group in groups:
        assert len(group) == 4
        cell = {(int(3 * x), int(3 * y)) for x, y in group}
        assert len(cell) == 1
        cells |= cell
        assert sum(x for x, _ in group) / 4 == pytest.approx((next(iter(cell))[0] + 0.5) / 3)
        assert sum(y for _, y in group) / 4 == pytest.approx((next(iter(cell))[1] + 0.5) / 3)
    assert len(cells) == 9


# ---------------------------------------------------------------- how


def test_inputs_have_layers_of_their_own_and_are_added() -> None:
    sampled, x = at([[[0.5, 0.5]], [[0.0, 0.5]]]), feature()
    nn.init.normal_(sampled.layer.bias)
    result = sampled(x, ltrb_of(1.0, 1.0, 1.0, 1.0))
    left = (torch.arange(WIDTH) - 1).clamp(min=0)
    expected = linear(sampled, x, 0) + linear(sampled, x, 1)[..., left] + bias(sampled)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_samples_of_one_input_become_their_mean_or_maximum(reduce: str) -> None:
    sampled, x = at([[[0.0, 0.5], [1.0, 0.5]]], reduce=reduce), feature()
    result = sampled(x, ltrb_of(1.0, 1.0, 1.0, 1.0))[..., 1:-1]
    plain = sampled.layer(x)
    pair = torch.stack([plain[..., :-2], plain[..., 2:]])
    torch.testing.assert_close(result, pair.mean(0) if reduce == "mean" else pair.amax(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(PLACES) - {"border_extreme"}))
def test_what_is_read_is_linear_in_the_feature(name: Places) -> None:
    module = HIDDEN[name](8, 3)
    box = torch.rand(2, 4, HEIGHT, WIDTH) * 3
    first, second = feature(), feature()
    nothing = module(torch.zeros_like(first), box)
    together = module(2 * first + second, box) - nothing
    apart = 2 * (module(first, box) - nothing) + module(second, box) - nothing
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-4)


def test_applying_the_layer_first_is_applying_it_to_what_was_read() -> None:
    """The layer stands before the reading, which is cheaper; the figure has it after."""
    sampled, x = at([[[0.2, 0.9], [0.7, 0.1]]]), feature()
    box = torch.rand(2, 4, HEIGHT, WIDTH) * 3
    identity = Sampled(8, 8, sampled.places)
    identity.layer.weight.data.copy_(torch.eye(8)[:, :, None, None])
    read_first = sampled.layer(identity(x, box))
    torch.testing.assert_close(sampled(x, box), read_first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PLACES)
def test_a_map_of_one_cell_can_be_read(name: Places) -> None:
    module = HIDDEN[name](8, 3)
    result = module(torch.randn(1, 8, 1, 1), torch.rand(1, 4, 1, 1) * 5)
    assert result.shape == (1, 3, 1, 1)
    assert result.isfinite().all()


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("name", PLACES)
def test_the_quality_learns_through_the_feature_and_not_through_the_box(name: Places) -> None:
    quality = ConvFeatures(head(8, 3), places=name, hidden=4)
    box_feature = torch.randn(2, 8, HEIGHT, WIDTH, requires_grad=True)
    box = (torch.rand(2, 4, HEIGHT, WIDTH) * 3).requires_grad_()
    class_logits, logits = quality(torch.randn(2, 8, HEIGHT, WIDTH), box_feature, box)
    assert class_logits.shape == (2, 3, HEIGHT, WIDTH)
    assert logits.shape == (2, 1, HEIGHT, WIDTH)
    gradient, none = torch.autograd.grad(logits.square().sum(), (box_feature, box), allow_unused=True)
    assert gradient.abs().sum() > 0
    assert none is None


@pytest.mark.parametrize("name", PLACES)
def test_the_box_decides_where_features_are_read(name: Places) -> None:
    quality = ConvFeatures(head(8, 3), places=name)
    nn.init.normal_(quality.predictor.weight)
    x = torch.randn(1, 8, HEIGHT, WIDTH)
    near, far = (quality(x, x, torch.full((1, 4, HEIGHT, WIDTH), reach))[1] for reach in (0.5, 2.5))
    assert torch.equal(near, far) == (name not in READ_THE_BOX)


@pytest.mark.parametrize("name", PLACES)
def test_a_box_code_beyond_all_measure_does_no_harm(name: Places) -> None:
    quality = ConvFeatures(head(8, 3), places=name)
    x = torch.randn(1, 8, HEIGHT, WIDTH)
    for value in (1e4, 1e20):
        assert quality(x, x, torch.full((1, 4, HEIGHT, WIDTH), value))[1].isfinite().all()
