"""Reading the logits of edge distributions as they leave the network."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

MANY_CELLS = 1000
"""From where on, on a CPU, a few dozen passes over all cells take less time than to sort each cell's bins."""


def top_probabilities(logits: Float[Tensor, "b e h w"], k: int) -> Float[Tensor, "b 4 k h w"]:
    """Return the `k` highest probabilities of each edge's distribution, the highest first (V2 Eq. 4).

    logits: (b, 4 * bins, h, w), edge after edge. ValueError where there are fewer than `k` bins.
    """
    bins = logits.shape[1] // 4
    if k > bins:
        raise ValueError(f"k must be at most the number of bins, {bins}, got {k}")
    batch, _, height, width = logits.shape
    if not logits.is_cpu or torch.is_grad_enabled() or batch * height * width < MANY_CELLS:
        return logits.unflatten(1, (4, bins)).softmax(dim=2).topk(k, dim=2).values
    # the same values in half the time where there are many; its gradient would take longer than that of topk
    planes = logits.permute(0, 2, 3, 1).reshape(-1, 4 * bins).t().contiguous().view(4, bins, -1).softmax(dim=1)
    top = _highest(planes.unbind(1), k)
    return top.view(4, k, batch, height, width).permute(2, 0, 1, 3, 4)


def _highest(planes: Iterable[Float[Tensor, "4 n"]], k: int) -> Float[Tensor, "4 k n"]:
    """Return the `k` highest of the planes at every place, by insertion of whole planes."""
    best: list[Tensor] = []
    for plane in planes:
        rest = plane
        for rank, held in enumerate(best):
            best[rank], rest = torch.maximum(held, rest), torch.minimum(held, rest)
        if len(best) < k:
            best.append(rest)
    return torch.stack(best, dim=1)
