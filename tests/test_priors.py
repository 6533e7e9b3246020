from __future__ import annotations

import pytest
import torch

from gfocal.priors import SquareAnchors
from gfocal.structures import Grid


def test_points_run_level_by_level_and_row_by_row() -> None:
    priors = SquareAnchors((8, 16))([torch.zeros(2, 5, 2, 3), torch.zeros(2, 5, 1, 2)])
    points = [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8], [0, 0], [16, 0]]
    assert priors.points.tolist() == points
    assert priors.strides.tolist() == [8] * 6 + [16] * 2
    assert priors.grids == (Grid(2, 3, 8), Grid(1, 2, 16))
    assert len(priors) == sum(grid.num_priors for grid in priors.grids)


@pytest.mark.parametrize("scale", [1.0, 4.0, 8.0])
def test_anchors_are_squares_of_scale_strides_about_their_points(scale: float) -> None:
    priors = SquareAnchors((8, 32), scale)([torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 2, 2)])
    sides = priors.boxes[:, 2:] - priors.boxes[:, :2]
    torch.testing.assert_close(sides, priors.strides[:, None].expand(-1, 2) * scale)
    torch.testing.assert_close((priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2, priors.points)


def test_the_papers_anchor_is_8_strides_wide() -> None:
    priors = SquareAnchors((8,))([torch.zeros(1, 1, 1, 2)])
    assert priors.boxes.tolist() == [[-32, -32, 32, 32], [-24, -32, 40, 32]]


def test_priors_are_float32_whatever_the_features_are() -> None:
    priors = SquareAnchors((8,))([torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)])
    assert priors.points.dtype == priors.boxes.dtype == priors.strides.dtype == torch.float32


def test_another_number_of_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        SquareAnchors((8, 16))([torch.zeros(1, 1, 2, 2)])


def test_a_level_without_cells_has_no_prior() -> None:
    assert len(SquareAnchors((8,))([torch.zeros(1, 1, 0, 4)])) == 0
