from __future__ import annotations

import pytest
import torch

from gfocal.priors import Anchors, multibox_sides, shaped_sides, square_sides
from gfocal.structures import Grid
from helpers import square_anchors


def test_points_run_level_by_level_and_row_by_row() -> None:
    priors = square_anchors((8, 16))([torch.zeros(2, 5, 2, 3), torch.zeros(2, 5, 1, 2)])
    points = [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8], [0, 0], [16, 0]]
    assert priors.points.tolist() == points
    assert priors.strides.tolist() == [8] * 6 + [16] * 2
    assert priors.grids == (Grid(2, 3, 8), Grid(1, 2, 16))
    assert len(priors) == sum(grid.num_priors for grid in priors.grids)


@pytest.mark.parametrize("scale", [1.0, 4.0, 8.0])
def test_anchors_are_squares_of_scale_strides_about_their_points(scale: float) -> None:
    priors = square_anchors((8, 32), scale)([torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 2, 2)])
    sides = priors.boxes[:, 2:] - priors.boxes[:, :2]
    torch.testing.assert_close(sides, priors.strides[:, None].expand(-1, 2) * scale)
    torch.testing.assert_close((priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2, priors.points)


def test_the_papers_anchor_is_8_strides_wide() -> None:
    priors = square_anchors((8,))([torch.zeros(1, 1, 1, 2)])
    assert priors.boxes.tolist() == [[-32, -32, 32, 32], [-24, -32, 40, 32]]


def test_priors_are_float32_whatever_the_features_are() -> None:
    priors = square_anchors((8,))([torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)])
    assert priors.points.dtype == priors.boxes.dtype == priors.strides.dtype == torch.float32


def test_another_number_of_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        square_anchors((8, 16))([torch.zeros(1, 1, 2, 2)])


def test_a_level_without_cells_has_no_prior() -> None:
    assert len(square_anchors((8,))([torch.zeros(1, 1, 0, 4)])) == 0


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5])
def test_points_and_anchors_lie_an_offset_into_their_cell(offset: float) -> None:
    sides = torch.tensor([[16.0, 8.0]])
    priors = Anchors((8, 16), [sides, 2 * sides], offset=offset)([torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1)])
    corners = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0], [0.0, 0.0]])
    torch.testing.assert_close(priors.points, corners + offset * priors.strides[:, None])
    torch.testing.assert_close((priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2, priors.points)


def test_the_anchors_of_one_cell_stand_side_by_side() -> None:
    sides = torch.tensor([[8.0, 8.0], [16.0, 4.0], [4.0, 16.0]])
    priors = Anchors((8,), [sides])([torch.zeros(1, 1, 1, 2)])
    assert priors.points.tolist() == [[0, 0]] * 3 + [[8, 0]] * 3
    torch.testing.assert_close(priors.boxes[:, 2:] - priors.boxes[:, :2], sides.repeat(2, 1))
    assert priors.grids == (Grid(1, 2, 8, 3),)
    assert len(priors) == priors.grids[0].num_priors == 6


def test_levels_may_have_other_numbers_of_anchors() -> None:
    anchors = Anchors((8, 16), [torch.ones(4, 2), torch.ones(6, 2)])
    priors = anchors([torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 2)])
    assert [grid.num_priors for grid in priors.grids] == [24, 12]
    assert len(priors) == 36


def test_squares_are_scale_strides_wide() -> None:
    assert [side.tolist() for side in square_sides((8, 16), 4.0)] == [[[32.0, 32.0]], [[64.0, 64.0]]]
    with pytest.raises(ValueError, match="anchor_scale must be greater than 0, got 0"):
        square_sides((8,), 0.0)


def test_shapes_keep_their_area_and_run_ratio_by_ratio() -> None:
    (sides,) = shaped_sides((8,), scale=4.0, octaves=(1.0, 2.0), ratios=(0.25, 1.0, 4.0))
    expected = [[64, 16], [128, 32], [32, 32], [64, 64], [16, 64], [32, 128]]
    torch.testing.assert_close(sides, torch.tensor(expected, dtype=torch.float32))


def test_multiboxes_are_two_squares_and_shapes_of_the_smaller() -> None:
    first, second = multibox_sides((16.0, 64.0), (64.0, 144.0), ((4.0,), (4.0, 16.0)))
    expected = [[16, 16], [32, 32], [32, 8], [8, 32]]
    torch.testing.assert_close(first, torch.tensor(expected, dtype=torch.float32))
    expected = [[64, 64], [96, 96], [128, 32], [32, 128], [256, 16], [16, 256]]
    torch.testing.assert_close(second, torch.tensor(expected, dtype=torch.float32))
