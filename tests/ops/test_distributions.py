"""The highest probabilities of edges are those of a plain sort, with gradients and without."""

from __future__ import annotations

import pytest
import torch

from gfocal.ops.distributions import top_probabilities


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("k", [1, 4, 17])
@pytest.mark.parametrize("cells", [(5, 7), (20, 30)], ids=["few", "many"])
def test_all_ways_give_the_sorted_probabilities(cells: tuple[int, int], k: int, layout: torch.memory_format) -> None:
    logits = torch.randn(2, 68, *cells, generator=torch.Generator().manual_seed(0)).mul(3).to(memory_format=layout)
    logits[0, :17, 0, 0] = 0  # ties
    expected = logits.unflatten(1, (4, 17)).softmax(2).sort(dim=2, descending=True).values[:, :, :k]
    with torch.no_grad():
        torch.testing.assert_close(top_probabilities(logits, k), expected)
    logits.requires_grad_()
    torch.testing.assert_close(top_probabilities(logits, k).detach(), expected)


def test_it_learns_from_the_highest_only() -> None:
    logits = torch.randn(1, 20, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: top_probabilities(x, 2), logits)


def test_more_than_the_bins_is_refused() -> None:
    with pytest.raises(ValueError, match="at most the number of bins, 5, got 6"):
        top_probabilities(torch.zeros(1, 20, 2, 2), 6)


def test_no_place_gives_none() -> None:
    with torch.no_grad():
        assert top_probabilities(torch.zeros(0, 20, 2, 3), 2).shape == (0, 4, 2, 2, 3)
